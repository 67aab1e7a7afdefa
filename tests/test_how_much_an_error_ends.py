"""RFC 7296 §1.3.1, §2.21: an error ends what it is about, and no more.

A rekeying that fails leaves the IKE SA and the old SA as they were, and both ends with the same.
"""
from collections.abc import Callable
from dataclasses import replace

import pytest
from canonical import configs, two_ends
from ike_lit.engine.create_child_sa import (
    RESPONDERS, create_child, rekey_child, rekey_ike_sa, respond_create_child_sa)
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init, respond_ike_auth
from ike_lit.engine.model import ChildEstablished, ChildFailed, Closed, Lifetime, Message, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, Network, deliver
from ike_lit.wire.auth import AUTH
from ike_lit.wire.const import ExchangeType, Group, IkeError, MessageType, TemporaryFailure, TransformType
from ike_lit.wire.ke import KE
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Notify, Packet, Payload
from ike_lit.wire.proposal import SA, Transform
from ike_lit.wire.ts import TSi, TSr, TrafficSelector
from test_exchanges import both_roles, put, said, sealed, up

NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
CREATE, INFORM = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL
PFS = 'aes256-sha256-modp2048-modp3072'
Change = Callable[[Packet], Packet]


def without(kind: type[Payload]) -> Change:
    return lambda p: replace(p, payloads=tuple(x for x in p.payloads if not isinstance(x, kind)))


def instead(*payloads: Payload) -> Change:
    "Put these in the place of those of the same type."
    return lambda p: replace(p, payloads=tuple(
        next((new for new in payloads if type(new) is type(old)), old) for old in p.payloads))


def only(*payloads: Payload) -> Change: return lambda p: replace(p, payloads=payloads)


def also(*payloads: Payload) -> Change: return lambda p: replace(p, payloads=(*p.payloads, *payloads))


def another_cipher(p: Packet) -> Packet:
    sa = p.one(SA).proposals[0]
    weak = tuple(replace(t, key_length=128) if t.type == TransformType.ENCR else t for t in sa.transforms)
    return instead(SA((replace(sa, transforms=weak),)))(p)


def two_of_a_kind(p: Packet) -> Packet:
    sa = p.one(SA).proposals[0]
    return instead(SA((replace(sa, transforms=(*sa.transforms, Transform(
        TransformType.DH, Group.MODP_3072))),)))(p)


def relabelled(p: Packet) -> Packet:
    "The public value is right, and of a size that fits; only its group is said to be another."
    return instead(KE(Group(24), p.one(KE).public))(p)


EVERYTHING = (TrafficSelector.from_text('0.0.0.0/0'),)
REFUSALS = {  # nothing was granted
    'no proposal': only(Notify(MessageType.NO_PROPOSAL_CHOSEN)),
    'no more SAs': only(Notify(MessageType.NO_ADDITIONAL_SAS)),
    'an unknown error': only(Notify(MessageType(8191))),
    'a group that was not offered': only(Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\2')),
    'a group that was just used': only(Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\x0e')),
    'a group without data': only(Notify(MessageType.INVALID_KE_PAYLOAD)),
    'a group of three octets': only(Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\0\x0f')),
    'nothing': only()}
GRANTS = {  # something that was not asked for, or half of it
    'without KE': without(KE), 'without a nonce': without(Nonce), 'without TSi': without(TSi),
    'wider selectors': instead(TSi(EVERYTHING), TSr(EVERYTHING)), 'transport mode': also(
        Notify(MessageType.USE_TRANSPORT_MODE)), 'another cipher': another_cipher,
    'two groups': two_of_a_kind, 'a group by another name': relabelled,
    'KE of another group': instead(KE(Group.MODP_3072, bytes(384))),
    'a public value that is none': instead(KE(Group.MODP_2048, bytes(256)))}


class Ends:
    "Two hosts, of which one answers CREATE_CHILD_SA with a change, as often as it is asked."

    def __init__(self, first: int, change: Change, times: int = 10**6):
        left, right = configs(timing=NEVER, esp=PFS)
        hosts = Host(), Host((right,))
        self.network = Network(dict(zip((ALICE, BOB), hosts, strict=True)))
        hosts[0].connect(left, ALICE, BOB, now=0)
        self.network.run(until=1)
        self.asker, self.other = hosts[first], hosts[1 - first]
        self.left, self.change = times, change
        self.sa(self.other).responders = {**RESPONDERS, CREATE: self.answer}
        self.network.events(self.asker), self.network.events(self.other)

    def answer(self, ike: IKE, request: Packet) -> Packet:
        response = respond_create_child_sa(ike, request)
        self.left -= 1
        return self.change(response) if self.left >= 0 else response

    @staticmethod
    def sa(host: Host) -> IKE:
        ike, = host.established
        return ike

    def ask(self, begin: Callable, *args: object, seconds: float) -> list[IkeError]:
        "Begin a conversation; return the errors that were told in this time."
        self.asker.start(self.sa(self.asker), begin, *args, now=self.network.now)
        self.network.run(until=self.network.now + seconds)
        told = [event for _, event in self.network.events(self.asker)]
        assert not [e for e in told if isinstance(e, Closed) and e.error]
        return [e.error for e in told if isinstance(e, ChildFailed)]

    def agree(self, count: int) -> None:
        "Both ends have the IKE SA, and the same Child SAs, so many."
        one, other = self.sa(self.asker), self.sa(self.other)
        assert {c.outbound.spi for c in one.children.values()} == set(other.children)
        assert {c.outbound.spi for c in other.children.values()} == set(one.children)
        assert len(one.children) == count and not one.replaced and not other.replaced


@both_roles
@pytest.mark.parametrize('change', [*REFUSALS.values(), *GRANTS.values()], ids=[*REFUSALS, *GRANTS])
def test_a_child_sa_that_is_not_replaced_stays_and_is_replaced_later(first: int, change: Change) -> None:
    ends = Ends(first, change, times=1)
    spi, = ends.sa(ends.asker).children
    assert len(ends.ask(rekey_child, spi, seconds=5)) == 1
    if change in GRANTS.values(): ends.agree(1)  # what was refused is gone at both ends
    assert list(ends.sa(ends.asker).children) == [spi]
    if change in GRANTS.values():
        ends.network.run(until=60)  # it tries again, and the peer has come to its senses
        ends.agree(1)
        assert spi not in ends.sa(ends.asker).children


@both_roles
@pytest.mark.parametrize('change', [*REFUSALS.values(), *GRANTS.values()], ids=[*REFUSALS, *GRANTS])
def test_another_child_sa_that_fails_leaves_the_first_one(first: int, change: Change) -> None:
    ends = Ends(first, change)
    for end in ends.sa(ends.asker), ends.sa(ends.other):
        more = (*end.config.local_ts, TrafficSelector.from_text('10.7.0.0/24'))
        end.config = replace(end.config, local_ts=more, remote_ts=(*end.config.remote_ts, more[-1]))
    assert len(ends.ask(create_child, seconds=60)) == 1
    if change in GRANTS.values(): ends.agree(1)
    assert len(ends.sa(ends.asker).children) == 1


@both_roles
@pytest.mark.parametrize('change', REFUSALS.values(), ids=REFUSALS)
def test_an_ike_sa_that_is_not_replaced_stays(first: int, change: Change) -> None:
    if change is REFUSALS['nothing']: change = only(Nonce(bytes(32)))
    ends = Ends(first, lambda p: p)
    refused = change(Packet(CREATE, ()))
    ends.sa(ends.other).responders = {**RESPONDERS, CREATE: lambda ike, request: refused}
    before = ends.sa(ends.asker)
    assert len(ends.ask(rekey_ike_sa, seconds=5)) == 1
    assert ends.sa(ends.asker) is before
    ends.agree(1)
    ends.sa(ends.other).responders = RESPONDERS
    ends.network.run(until=60)
    assert ends.sa(ends.asker) is not before  # it was tried again
    ends.agree(1)


@both_roles
@pytest.mark.parametrize('change', [without(KE), without(Nonce), another_cipher, relabelled,
                                    instead(KE(Group.MODP_3072, bytes(384)))])
def test_a_new_ike_sa_that_we_refuse_ends_the_old_one(first: int, change: Change) -> None:
    "The peer has moved to the new one, where we can't follow: the two ends would disagree for ever."
    ends = Ends(first, change)
    ends.asker.start(ends.sa(ends.asker), rekey_ike_sa, now=ends.network.now)
    ends.network.run(until=ends.network.now + 5)
    closed, = [e for _, e in ends.network.events(ends.asker) if isinstance(e, Closed)]
    assert closed.error and not ends.asker.established


# What notifications end (RFC 7296 §2.21.2, §2.21.3)

ENDINGS = (MessageType.AUTHENTICATION_FAILED, MessageType.INVALID_SYNTAX,
           MessageType.UNSUPPORTED_CRITICAL_PAYLOAD)


@both_roles
@pytest.mark.parametrize('kind', ENDINGS)
def test_only_the_informational_request_right_after_ike_auth_ends_the_ike_sa_by_a_notification(
        first: int, kind: MessageType) -> None:
    asker, other = up(first)
    put(asker, other, Notify(kind))
    # the one who asks here is the initiator, whose verdict on our IKE_AUTH response this may be
    assert (other.state == State.CLOSED) == (first == 0)


@both_roles
@pytest.mark.parametrize('kind', ENDINGS)
def test_the_same_notification_changes_nothing_later(first: int, kind: MessageType) -> None:
    asker, other = up(first)
    put(asker, other)
    before = dict(other.children)
    assert put(asker, other, Notify(kind)).payloads == ()
    assert other.state == State.ESTABLISHED and other.children == before


@both_roles
def test_nor_does_it_in_an_ike_sa_that_was_rekeyed(first: int) -> None:
    asker, other = up(first)
    asker.start(rekey_ike_sa, now=1)
    for one, its in ((asker, other), (other, asker)) * 3:
        for d in one.datagrams_to_send(): its.receive_datagram(d.data, one.local, 1)
    new, old = asker.lineage.successor, other.lineage.successor
    for _ in range(3): put(new, old, Notify(MessageType.AUTHENTICATION_FAILED))
    assert old.state == State.ESTABLISHED


@both_roles
def test_invalid_syntax_in_an_answer_ends_the_ike_sa(first: int) -> None:
    asker, other = up(first)
    spi, = asker.children
    asker.start(rekey_child, spi, now=1)
    said(asker)
    data = sealed(other, Packet(CREATE, (Notify(MessageType.INVALID_SYNTAX),)),
                  asker.window.pending.message_id, response=True)
    asker.receive_datagram(data, other.local, 1)
    assert asker.state == State.CLOSED


@pytest.mark.parametrize('payloads, told', [
    (lambda p: p[1:], MessageType.INVALID_SYNTAX),  # no IDr
    (lambda p: [x for x in p if not isinstance(x, AUTH)], MessageType.AUTHENTICATION_FAILED)])
def test_before_it_is_up_the_peer_is_told_what_was_wrong(payloads: Callable, told: MessageType) -> None:
    def answer(ike: IKE, request: Packet) -> Packet:
        response = respond_ike_auth(ike, request)
        return replace(response, payloads=tuple(payloads(response.payloads)))
    alice, bob = two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: answer})
    alice.start(ike_sa_init, now=0)
    for one, other in (alice, bob), (bob, alice), (alice, bob), (bob, alice): deliver(one, other)
    said_, = (bob.incoming.open(d.data) for d in alice.lineage.new_sas[0].datagrams_to_send())
    assert said_.exchange_type == INFORM and said_.payloads == (Notify(told),)


# Why a request was refused is told here, too

def elsewhere(request: Packet) -> Packet:
    return replace(request, payloads=tuple(
        TSi((TrafficSelector.from_text('10.9.0.0/24'),)) if type(p) is TSi else p for p in request.payloads))


@both_roles
@pytest.mark.parametrize('change, expected', [
    (another_cipher, 'NO_PROPOSAL_CHOSEN'), (elsewhere, 'TS_UNACCEPTABLE')])
def test_the_one_who_refuses_says_why(first: int, change: Change, expected: str) -> None:
    asker, other = up(first)
    asker.children.clear()
    conversation = create_child(asker)
    request = change(next(conversation))
    answer = put(asker, other, *request.payloads, exchange=CREATE)
    assert answer.error().message_type.name == expected
    told = []
    while event := other.next_event():
        if isinstance(event, ChildFailed): told.append(event.error)
    assert [e.type.name for e in told] == [expected] and other.state == State.ESTABLISHED


@both_roles
def test_what_is_a_matter_of_course_is_not_told_as_a_failure(first: int) -> None:
    "Another group, please: the retry will succeed."
    ends = Ends(first, lambda p: p)
    narrow = configs(esp='aes256-sha256-modp3072')[0].esp
    ends.sa(ends.other).config = replace(ends.sa(ends.other).config, esp=narrow)
    spi, = ends.sa(ends.asker).children
    assert ends.ask(rekey_child, spi, seconds=5) == []
    told = [e for _, e in ends.network.events(ends.other)]
    assert [e for e in told if isinstance(e, ChildEstablished)]
    assert not [e for e in told if isinstance(e, ChildFailed)]
    ends.agree(1)


# TEMPORARY_FAILURE (RFC 7296 §2.25)

class Busy(Ends):
    "The other end has no time until it is told otherwise."

    def __init__(self) -> None:
        super().__init__(0, lambda p: p)
        self.busy = True

    def answer(self, ike: IKE, request: Packet) -> Packet:
        if self.busy: raise TemporaryFailure('not now')
        return respond_create_child_sa(ike, request)


@pytest.mark.parametrize('begin', [rekey_child, rekey_ike_sa])
def test_a_peer_that_has_no_time_for_minutes_is_left(begin: Callable) -> None:
    ends = Busy()
    ike = ends.sa(ends.asker)
    ends.asker.start(ike, begin, *(ike.children if begin is rekey_child else ()), now=1)
    ends.network.run(until=170)
    assert ends.asker.established == [ike]
    ends.network.run(until=400)
    assert not ends.asker.established
    closed, = [e.error for _, e in ends.network.events(ends.asker) if isinstance(e, Closed)]
    assert isinstance(closed, TemporaryFailure)


@pytest.mark.parametrize('begin', [rekey_child, rekey_ike_sa])
def test_a_peer_that_has_found_time_in_between_is_not_left(begin: Callable) -> None:
    ends = Busy()
    for start in 0, 300, 600:
        ends.busy = True
        ends.network.run(until=start)
        ike = ends.sa(ends.asker)
        ends.asker.start(ike, begin, *(ike.children if begin is rekey_child else ()), now=ends.network.now)
        ends.network.run(until=start + 100)
        ends.busy = False
        ends.network.run(until=start + 200)
        assert ends.asker.established and (begin is rekey_child or ends.sa(ends.asker) is not ike)
        for host in ends.asker, ends.other: ends.sa(host).responders = {**RESPONDERS, CREATE: ends.answer}


def test_a_group_that_was_just_used_is_not_tried_again() -> None:
    ends = Ends(0, REFUSALS['a group that was just used'])
    spi, = ends.sa(ends.asker).children
    ends.network.events(ends.asker)
    ends.asker.start(ends.sa(ends.asker), rekey_child, spi, now=ends.network.now)
    ends.network.run(until=ends.network.now + 5)
    sent = [e for _, e in ends.network.events(ends.asker) if isinstance(e, Message) and e.sent]
    assert len(sent) == 1
