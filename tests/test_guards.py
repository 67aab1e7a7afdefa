"Guards of the engine that were broken one at a time, and that no test had noticed."
import hmac
from dataclasses import replace
from ipaddress import ip_address

import pytest
from canonical import configs, two_ends
from ike_lit.engine import create_child_sa
from ike_lit.engine.additional import InitResult
from ike_lit.engine.child_sa import accepted_address, respond_ke
from ike_lit.engine.create_child_sa import CHILD_LIMIT, RESPONDERS, create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import REPLIES, Cookies, Host, Timers, check_liveness, drain
from ike_lit.engine.ike_sa import (
    CANDIDATES, MAX_INIT_RETRIES, accept_init, answered_version, check_childless, ike_sa_init,
    missing_auth, wanted_group)
from ike_lit.engine.proof import verify_auth
from ike_lit.engine.informational import delete_ike_sa, inherit, liveness
from ike_lit.engine.model import (
    AddressAssigned, ChildClosed, ChildFailed, Closed, Doing, Dropped, Established, Lifetime, Timing)
from ike_lit.engine.protocol import IKE, new_ike_sa, fail
from ike_lit.engine.state import Alarm, Conversation, Negotiated, State, Task
from ike_lit.testing.network import ALICE, BOB, Network, deliver, events, handshake, talk
from ike_lit.wire.auth import AUTH, Identity, IDi, IDr, SharedKey
from ike_lit.wire.certificate import CERT
from ike_lit.wire.configuration import CP, Attribute, Pool
from ike_lit.wire.const import (
    AuthenticationFailed, AuthenticationType, CertEncoding, CfgAttribute, CfgType, ExchangeType, Group,
    IkeError, InternalAddressFailure, InvalidKePayload, InvalidSyntax, MessageType, NoAnswer,
    NoProposalChosen, Prf, ProtocolID, Type)
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.nat import KEEPALIVE, Nat
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Delete, Notify, Opaque, Packet, Vendor, parse
from ike_lit.wire.proposal import SA
from ike_lit.wire.ts import TSi, TSr, TrafficSelector
from test_exchanges import put, sealed, up
from test_host import only, two_hosts

NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)


@pytest.mark.parametrize('change', ['host', 'port', 'spi', 'nonce', 'time'])
def test_a_cookie_is_good_for_what_it_was_baked_for_and_nothing_else(change: str) -> None:
    jar = Cookies(lambda size: bytes(range(size)))
    cookie = jar.bake(0, b'nonce', b'spi', ALICE)
    assert jar.good(cookie, 1, b'nonce', b'spi', ALICE)
    where = {'host': ALICE._replace(host='192.0.2.9'), 'port': ALICE._replace(port=501)}.get(change, ALICE)
    assert not jar.good(cookie, 130 if change == 'time' else 1, b'other' if change == 'nonce' else b'nonce',
                        b'zzz' if change == 'spi' else b'spi', where)


def test_a_cookie_from_one_port_does_not_let_another_in() -> None:
    left, right = configs(timing=NEVER)
    alice, bob = Host(), Host((right,), cookie_threshold=0)
    alice.connect(left, ALICE, BOB, now=0)
    bob.receive_datagram(alice.datagrams_to_send()[0].data, ALICE, 0, BOB)
    alice.receive_datagram(bob.datagrams_to_send()[0].data, BOB, 0, ALICE)
    again, = alice.datagrams_to_send()
    bob.receive_datagram(again.data, ALICE._replace(port=501), 0, BOB)
    assert not bob.transient
    bob.receive_datagram(again.data, ALICE, 0, BOB)
    assert len(bob.transient) == 1


def test_a_peer_of_a_strict_connection_does_not_get_in_with_the_suite_of_another() -> None:
    "IKE_SA_INIT does not say who calls, so the suite may be one that only another connection allows."
    weak, strong = 'aes128-sha256-x25519', 'aes256-sha384-ecp384'
    left, right = configs(ike=weak, timing=NEVER)
    strict = replace(right, ike=configs(ike=strong)[0].ike)
    other = replace(right, remote_id=Identity.from_text('carol.example.org'))
    for connections, allowed in ((other, strict), False), ((other, right), True):
        alice, bob = Host(), Host(connections)
        network = Network({ALICE: alice, BOB: bob})
        alice.connect(left, ALICE, BOB, now=0)
        network.run(until=60)
        assert bool(bob.established) == bool(alice.established) == allowed
        closed = [e.error for _, e in network.events(bob) if isinstance(e, Closed) and e.error]
        assert allowed or [type(e) for e in closed] == [NoProposalChosen]


@pytest.mark.parametrize('first', [0, 1], ids=['by the initiator', 'by the responder'])
def test_an_heir_has_what_its_peer_is_known_by(first: int) -> None:
    "The lease, the NAT, fragments, hashes, how the peer was proven, and where port 4500 is."
    ends = handshake(*two_ends(RESPONDERS, *configs(timing=NEVER)))
    lease = (TrafficSelector.from_text('10.9.0.1'),)
    for end in ends:
        end.natt, end.heard = (end.local, end.remote), 0.5
        end.agreed = Negotiated(Nat(True, there=True), (2, 5), True, True, 'by a proof', lease)
        events(end)
    asker, other = ends[first], ends[1 - first]
    asker.start(rekey_ike_sa, now=1)
    talk(asker, other, now=1)
    for end in ends:
        heir = end.lineage.successor
        assert heir.state == State.ESTABLISHED and heir.keys != end.keys
        for name in 'agreed', 'natt', 'heard', 'config', 'local', 'remote':
            assert getattr(heir, name) == getattr(end, name), name
        assert heir.heard >= 0.5


def test_an_heir_still_sends_keepalives() -> None:
    "What is carried over is used."
    left, right = configs(timing=replace(NEVER, keepalive=20))
    alice, bob = Host(), Host((right,))
    network = Network({ALICE: alice, BOB: bob})
    alice.connect(left, ALICE, BOB, now=0)
    network.run(until=1)
    ike, = alice.established
    ike.agreed = replace(ike.agreed, nat=Nat(True, here=True))
    alice.start(ike, rekey_ike_sa, now=1)
    network.run(until=2)
    heir, = alice.established
    assert heir is not ike and Alarm(Task.KEEPALIVE) in heir.alarms
    network.events(alice), alice.datagrams_to_send()
    alice.handle_timer(30)
    assert [d.data for d in alice.datagrams_to_send()] == [KEEPALIVE]


def test_a_delete_for_another_protocol_deletes_nothing() -> None:
    asker, other = up(0)
    mine, = asker.children
    put(asker, other, Delete(ProtocolID.AH, (mine,)))
    assert len(other.children) == 1
    put(asker, other, Delete(ProtocolID.ESP, (mine,)))
    assert not other.children


def test_a_delete_of_what_is_there_is_not_remembered_for_what_may_come() -> None:
    asker, other = up(0)
    mine, = asker.children
    other.start(create_child, now=1)
    other.exchange.doing = Doing.CREATE_CHILD
    put(asker, other, Delete(ProtocolID.ESP, (mine, b'none')))
    assert other.exchange.early_deletes == {b'none'}


def test_only_what_was_replaced_by_the_one_that_goes_is_taken_back() -> None:
    asker, other = up(0)
    old, = other.children
    child = other.children[old]
    for n in range(3):
        spi = bytes([n]) * 4
        other.children[spi] = replace(child, inbound=replace(child.inbound, spi=spi),
                                      outbound=replace(child.outbound, spi=b'out' + bytes([n])))
    other.replaced = {old: bytes(4), bytes([1]) * 4: bytes([2]) * 4}
    put(asker, other, Delete(ProtocolID.ESP, (b'out\0',)))
    assert other.replaced == {bytes([1]) * 4: bytes([2]) * 4} and old in other.children


def test_an_heir_inherits_the_alarms_of_child_sas_and_keeps_its_own() -> None:
    _, other = up(0)
    heir = new_ike_sa(other, initiator=False, spi_i=b'12345678')
    heir.suite = other.suite
    heir.become(State.ESTABLISHED)
    for end, seconds in (other, 10), (heir, 500):
        for task in Task.REKEY, Task.LIVENESS: end.alarm(Alarm(task), seconds, lambda ike: None)
    other.alarm(Alarm(Task.REKEY, b'spi!'), 20, lambda ike: None)
    inherit(other, heir)
    assert {name: at - heir.now for name, (at, _) in heir.alarms.items()} == {
        Alarm(Task.REKEY): 500, Alarm(Task.LIVENESS): 500, Alarm(Task.REKEY, b'spi!'): 20}
    assert set(other.alarms) == {Alarm(Task.DELETE)}


def test_what_an_ike_sa_has_replaced_is_forgotten_when_it_is_closed() -> None:
    network, alice, bob = two_hosts()
    for n in range(10):
        alice.start(only(alice), rekey_ike_sa, now=network.now)
        network.run(until=2 + n)
        for host in alice, bob: assert len(only(host).lineage.awaiting_delete) == 1


@pytest.mark.parametrize('child', [True, False], ids=['with IKE_AUTH', 'later'])
def test_behind_a_nat_a_peer_whose_traffic_is_not_written_down_has_none(child: bool) -> None:
    "Its address is the NAT's, and so is that of others who are behind it."
    left, right = configs(timing=NEVER, childless='allow' if child else 'force')
    seen, natt = ALICE._replace(host='192.0.2.77', port=40000), [
        end._replace(port=4500, natt=True) for end in (ALICE, BOB)]
    for written, granted in ((), False), (left.local_ts, True):
        alice, bob = Host(), Host((replace(right, remote_ts=written, childless='allow'),))
        alice.connect(left, ALICE, BOB, now=0, natt=tuple(natt))
        for _ in range(4):
            for d in alice.datagrams_to_send():
                bob.receive_datagram(d.data, seen._replace(natt=d.source.natt), 0, d.destination)
            for d in bob.datagrams_to_send(): alice.receive_datagram(d.data, d.source, 0, d.source._replace(
                host=ALICE.host))
            if not child and alice.established and not alice.established[0].busy:
                alice.start(alice.established[0], create_child, now=0)
        ike, = bob.established
        assert ike.agreed.nat.there and bool(ike.children) == granted
        told = [str(e.error) for _, e in iter(bob.next_event, None) if isinstance(e, ChildFailed)]
        assert granted or all('behind a NAT' in text for text in told) and told


def test_what_replaces_a_child_sa_asks_for_what_that_one_carries() -> None:
    asker, _ = up(0)
    narrow = (TrafficSelector.from_text('10.1.0.7'),)
    spi, = asker.children
    asker.children[spi] = replace(asker.children[spi], local_ts=narrow)
    request = next(rekey_child(asker, spi))
    assert request.one(TSi).selectors == narrow


@pytest.mark.parametrize('spi, good', [(255, False), (256, True)])
def test_the_first_spi_that_is_not_reserved_is_one(spi: int, good: bool) -> None:
    "RFC 4303 §2.1: 'SPI values in the range 1 through 255 are reserved'."
    asker, other = up(0)
    sa = replace(asker.config.esp[0], spi=spi.to_bytes(4, 'big'))
    response = put(asker, other, SA((sa,)), Nonce(bytes(32)), TSi(asker.config.local_ts),
                   TSr(asker.config.remote_ts), exchange=ExchangeType.CREATE_CHILD_SA)
    assert bool(response.all(SA)) == good


def asked(asker: IKE, other: IKE, spi: bytes = b'zzzz', *more: Notify) -> Packet:
    "Ask for a Child SA under this SPI."
    sa = replace(asker.config.esp[0], spi=spi)
    return put(asker, other, SA((sa,)), Nonce(bytes(32)), TSi(asker.config.local_ts),
               TSr(asker.config.remote_ts), *more, exchange=ExchangeType.CREATE_CHILD_SA)


def test_an_spi_of_the_peers_is_for_one_child_sa() -> None:
    asker, other = up(0)
    assert asked(asker, other, asker.child.inbound.spi).error().message_type == MessageType.NO_PROPOSAL_CHOSEN
    assert len(other.children) == 1


@pytest.mark.parametrize('mode, nat, natt, good', [
    ('tunnel', Nat(True, there=True), True, True), ('tunnel', Nat(True, there=True), False, False),
    ('tunnel', Nat(True, here=True), False, False), ('transport', Nat(True, here=True), True, False),
    ('transport', Nat(True), False, True)])
def test_what_can_not_pass_a_nat_is_not_granted(mode: str, nat: Nat, natt: bool, good: bool) -> None:
    asker, other = up(0, mode=mode)
    other.agreed = replace(other.agreed, nat=nat)
    other.local = other.local._replace(natt=natt)
    wish = (Notify(MessageType.USE_TRANSPORT_MODE),) * (mode == 'transport')
    assert bool(asked(asker, other, b'zzzz', *wish).all(SA)) == good


def test_a_child_sa_that_is_about_to_go_carries_nothing() -> None:
    "Another one is asked for, though there is one that carries the same."
    asker, _ = up(0)
    with pytest.raises(StopIteration): next(create_child(asker))  # it would be of no use
    spi, = asker.children
    asker.replaced[spi] = b'new!'
    assert next(create_child(asker)).all(SA)


@pytest.mark.parametrize('side', ['local_ts', 'remote_ts'])
def test_a_child_sa_that_carries_one_side_only_does_not_do(side: str) -> None:
    asker, _ = up(0)
    more = (*getattr(asker.config, side), TrafficSelector.from_text('10.7.0.0/24'))
    asker.config = replace(asker.config, **{side: more})
    assert next(create_child(asker)).all(SA)


def test_a_replacement_that_is_deleted_before_it_is_known_is_told() -> None:
    asker, other = up(0)
    old, = asker.children
    asker.start(rekey_child, old, now=1)
    request, = asker.datagrams_to_send()
    other.receive_datagram(request.data, asker.local, 1)
    grant, = other.datagrams_to_send()
    asker.exchange.early_deletes.add(list(other.children)[-1])  # its Delete was quicker
    asker.receive_datagram(grant.data, other.local, 1)
    told = [str(e.error) for e in events(asker) if isinstance(e, ChildFailed)]
    assert told == ['the peer has deleted the new Child SA already'] and list(asker.children) == [old]


@pytest.mark.parametrize('flags', [{}, {'critical': True}, {'reserved': 1}])
def test_our_own_nonce_is_ours_whatever_is_in_front_of_it(flags: dict[str, int]) -> None:
    alice, bob = two_ends(RESPONDERS, *configs(timing=NEVER))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    grant, = bob.datagrams_to_send()
    sa, ke, _, *rest = parse(grant.data).payloads
    mirrored = replace(parse(alice.window.sent).one(Nonce), **flags)
    answer = Packet(ExchangeType.IKE_SA_INIT, (sa, ke, mirrored, *rest))
    alice.receive_datagram(answer.encode(alice.spi_i, b'mirrored', response=True, initiator=False,
                                         message_id=0), BOB, 0)
    assert not alice.lineage.new_sas and str(alice.unauthenticated[-1]) == 'our own nonce comes back'


def test_a_hundred_child_sas_are_enough() -> None:
    asker, other = up(0)
    for n in range(1, CHILD_LIMIT):
        assert asked(asker, other, (1000 + n).to_bytes(4, 'big')).all(SA)
    assert len(other.children) == CHILD_LIMIT
    assert asked(asker, other, b'more').error().message_type == MessageType.NO_ADDITIONAL_SAS
    assert len(other.children) == CHILD_LIMIT


@pytest.mark.parametrize('doing', [Doing.DELETE_CHILD, Doing.REKEY_IKE])
def test_what_we_are_about_to_change_is_asked_for_again_later_however_many_there_are(
        doing: Doing, monkeypatch: pytest.MonkeyPatch) -> None:
    "NO_ADDITIONAL_SAS has other peers build a new IKE SA."
    asker, other = up(0)
    monkeypatch.setattr(create_child_sa, 'CHILD_LIMIT', 1)
    other.exchange.doing = doing
    if doing == Doing.DELETE_CHILD: other.exchange.spi = other.child.inbound.spi
    which = Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=asker.child.inbound.spi)
    assert asked(asker, other, b'zzzz', which).error().message_type == MessageType.TEMPORARY_FAILURE


@pytest.mark.parametrize('doing, answer', [
    (None, MessageType.CHILD_SA_NOT_FOUND), (Doing.CREATE_CHILD, MessageType.TEMPORARY_FAILURE),
    (Doing.REKEY_CHILD, MessageType.TEMPORARY_FAILURE), (Doing.DELETE_CHILD, MessageType.CHILD_SA_NOT_FOUND)])
def test_a_child_sa_that_we_may_be_waiting_for_is_not_said_to_be_missing(
        doing: Doing | None, answer: MessageType) -> None:
    asker, other = up(0)
    other.exchange.doing = doing
    which = Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=b'new!')
    assert asked(asker, other, b'zzzz', which).error().message_type == answer


@pytest.mark.parametrize('doing, answer', [
    (Doing.REKEY_CHILD, MessageType.TEMPORARY_FAILURE), (Doing.DELETE_CHILD, MessageType.CHILD_SA_NOT_FOUND)])
def test_a_peer_that_names_our_spi_in_place_of_its_own_means_no_child_sa(
        doing: Doing, answer: MessageType) -> None:
    "RFC 7296 section 1.3.3: it is the one that the sender of the request receives under."
    asker, other = up(0)
    other.exchange.doing, other.exchange.spi = doing, other.child.inbound.spi
    which = Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=other.child.inbound.spi)
    assert asked(asker, other, b'zzzz', which).error().message_type == answer


@pytest.mark.parametrize('spi, good', [(bytes(8), False), (b'\0' * 7 + b'\1', True)])
def test_an_ike_sa_with_the_spi_zero_is_not_granted(spi: bytes, good: bool) -> None:
    "RFC 7296 §3.1: 'This value MUST NOT be zero.'"
    asker, other = up(0)
    dh = KeyExchange(Group.CURVE_25519, lambda size: b'7' * size)
    response = put(asker, other, SA((replace(asker.config.ike[0], spi=spi),)), Nonce(bytes(32)),
                   KE(dh.group, dh.public), exchange=ExchangeType.CREATE_CHILD_SA)
    assert bool(response.all(SA)) == good and len(other.lineage.new_sas) == good


@pytest.mark.parametrize('with_group', [True, False])
def test_the_secret_of_a_child_sa_is_told_to_who_keeps_a_log(with_group: bool) -> None:
    "Ni and g^ir at both ends, and nothing of an exchange that had none."
    logs: dict[str, dict[bytes, bytes]] = {'alice': {}, 'bob': {}}
    asker, other = up(0, esp='aes128gcm16-x25519' if with_group else 'aes128gcm16')
    for end, log in zip((asker, other), logs.values(), strict=True):
        end.config = replace(end.config, keylog=lambda ni, secret, _, log=log: log.update({ni: secret}))
    asker.start(rekey_child, *asker.children, now=1)
    talk(asker, other, now=1)
    assert logs['alice'] == logs['bob'] and [len(g_ir) for g_ir in logs['bob'].values()] == [32] * with_group


def test_a_group_that_is_none_is_no_group() -> None:
    "A peer may say so with a transform of its own; there is no KE then (RFC 7296 §3.3.2)."
    asker, other = up(0, esp='aes128gcm16-modpnone')
    response = asked(asker, other)
    assert response.all(SA) and not response.all(KE)


@pytest.mark.parametrize('ke, text', [
    ((), 'KE is missing, we want CURVE_25519'),
    ((KE(Group.ECP_256, bytes(64)),), 'KE is of group ECP_256, we want CURVE_25519')])
def test_a_public_value_that_is_missing_is_named(ke: tuple[KE, ...], text: str) -> None:
    asker, other = up(0, esp='aes128gcm16-x25519')
    sa = replace(asker.config.esp[0], spi=b'zzzz')
    response = put(asker, other, SA((sa,)), Nonce(bytes(32)), TSi(asker.config.local_ts),
                   TSr(asker.config.remote_ts), *ke, exchange=ExchangeType.CREATE_CHILD_SA)
    assert response.error().message_type == MessageType.INVALID_KE_PAYLOAD
    assert response.error().data == Group.CURVE_25519.to_bytes(2, 'big')
    with pytest.raises(InvalidKePayload, match=text):
        respond_ke(other, sa, Packet(response.exchange_type, ke))


def test_what_replaces_a_child_sa_may_carry_what_that_one_did() -> None:
    "Even if less would be granted today (RFC 7296 §2.9.2)."
    asker, other = up(0)
    before = other.child
    other.config = replace(other.config, local_ts=(TrafficSelector.from_text('10.99.0.0/24'),))
    asker.start(rekey_child, *asker.children, now=1)
    talk(asker, other, now=1)
    assert other.child.local_ts == before.local_ts and len(other.children) == 1
    assert other.child.inbound.spi != before.inbound.spi


NET, ONE = '10.1.0.0/24', '10.1.0.7/32'


@pytest.mark.parametrize('theirs, ours, single, more', [
    (NET, '10.2.0.0/24', True, True), (ONE, '10.2.0.9/32', True, False), (NET, '10.2.0.9/32', True, True),
    (ONE, '10.2.0.0/24', True, True), (NET, '10.2.0.0/24', False, False)])
def test_that_more_is_possible_is_said_only_where_one_pair_is_wanted_and_there_is_more(
        theirs: str, ours: str, single: bool, more: bool) -> None:
    "RFC 7296 §2.9: ADDITIONAL_TS_POSSIBLE. An offer begins with the packet that wants to go."
    asker, other = up(0)
    other.config = replace(other.config, single_pair=single)
    text = TrafficSelector.from_text
    offers = [(text(packet), text(net)) for packet, net in ((ONE, theirs), ('10.2.0.9/32', ours))]
    response = put(asker, other, SA((replace(asker.config.esp[0], spi=b'zzzz'),)), Nonce(bytes(32)),
                   TSi(offers[0]), TSr(offers[1]), exchange=ExchangeType.CREATE_CHILD_SA)
    assert bool(response.notify(MessageType.ADDITIONAL_TS_POSSIBLE)) == more
    assert response.one(TSi).selectors == (text(ONE if single else theirs),)


def test_an_error_that_is_told_keeps_no_frame_of_ours() -> None:
    "A traceback holds on to what was in the functions, keys among it."
    asker, other = up(0)
    asked(asker, other, asker.child.inbound.spi)
    error, = [e.error for e in events(other) if isinstance(e, ChildFailed)]
    assert error.__traceback__ is error.__context__ is None


def test_to_close_twice_is_to_close() -> None:
    asker, _ = up(0)
    for _ in range(2): asker.close()
    assert asker.state == State.CLOSED and [type(e) for e in events(asker)] == [ChildClosed, Closed]


def test_an_ike_sa_says_which_end_it_is() -> None:
    alice, bob = two_ends(RESPONDERS)
    assert repr(alice).startswith('<IKE initiator INITIAL ')
    assert repr(bob).startswith('<IKE responder INITIAL ')


def test_a_goodbye_is_not_waited_for_as_long_as_an_answer() -> None:
    for conversation, seconds in (liveness, 30), (delete_ike_sa, 4):
        asker, _ = up(0)
        asker.start(conversation, now=100)
        while asker.state != State.CLOSED: asker.handle_timer(asker.next_timer())
        assert asker.now == 100 + seconds


def test_an_attempt_waits_for_a_candidate_that_is_being_put_to_the_proof() -> None:
    "It gives up by itself only if there is none, or if all have failed."
    for candidate in None, State.CONNECTING, State.CLOSED:
        alice, bob = two_ends(RESPONDERS)
        alice.start(ike_sa_init, now=0)
        if candidate: talk(alice, bob)
        for heir in alice.lineage.new_sas: heir.state = candidate
        while alice.next_timer() is not None: alice.handle_timer(alice.next_timer())
        assert (alice.state == State.CLOSED) == (candidate != State.CONNECTING)


def test_what_nobody_vouches_for_explains_a_silence_and_a_refusal_names_it() -> None:
    for heard, kind, text in (
            ((), NoAnswer, '; nothing came back'),
            ((InvalidSyntax('nonsense'),), NoAnswer, '; unauthenticated answers: nonsense'),
            ((InvalidSyntax('nonsense'), NoProposalChosen('a bare no')), NoProposalChosen,
             '; unauthenticated answers: nonsense, a bare no')):
        alice, _ = two_ends(RESPONDERS)
        alice.start(ike_sa_init, now=0)
        for error in heard: alice.note_unauthenticated(error)
        while alice.next_timer() is not None: alice.handle_timer(alice.next_timer())
        error, = [e.error for e in events(alice) if isinstance(e, Closed)]
        assert type(error) is kind and str(error).endswith(text)


def test_a_failure_ends_what_can_not_be_said_goodbye_to_at_once() -> None:
    "Without keys there is nothing to say; and while we say goodbye it has been said."
    alice, _ = two_ends(RESPONDERS)
    fail(alice, InvalidSyntax('x'))
    assert alice.state == State.CLOSED and not alice.datagrams_to_send()
    asker, _ = up(0)
    fail(asker, InvalidSyntax('x'))
    assert asker.state == State.ESTABLISHED and len(asker.datagrams_to_send()) == 1
    fail(asker, InvalidSyntax('y'))
    assert asker.state == State.CLOSED and not asker.datagrams_to_send()


@pytest.mark.parametrize('error, news', [
    (InvalidSyntax('x'), MessageType.INVALID_SYNTAX),
    (NoProposalChosen('x'), MessageType.AUTHENTICATION_FAILED)])
def test_a_responder_is_told_why_its_ike_auth_was_not_believed(error: IkeError, news: MessageType) -> None:
    "RFC 7296 §2.21.2: in an INFORMATIONAL exchange, as AUTHENTICATION_FAILED unless it made no sense."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    for sender, receiver in (alice, bob), (bob, alice): deliver(sender, receiver)
    candidate, = alice.lineage.new_sas
    candidate.window.conversation = candidate.window.pending = None
    candidate.datagrams_to_send()
    fail(candidate, error)
    data, = [d.data for d in candidate.datagrams_to_send()]
    assert bob.incoming.open(data).one(Notify).message_type == news


@pytest.mark.parametrize('wrong', ['spi_i', 'spi_r'])
def test_a_message_for_another_ike_sa_is_not_ours(wrong: str) -> None:
    "Whatever the host says: also an answer in the clear, and a first message with an SPI of ours."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    first, = alice.datagrams_to_send()
    if wrong == 'spi_r':
        bob.receive_datagram(first.data[:8] + b'\1' * 8 + first.data[16:], ALICE, 0, BOB)
        assert bob.state == State.INITIAL and not bob.datagrams_to_send()
        reasons = [e.reason for e in events(bob) if isinstance(e, Dropped)]
        assert reasons == ['a first message to an SPI that does not exist']
    bob.receive_datagram(first.data, ALICE, 0, BOB)
    answer, = bob.datagrams_to_send()
    if wrong == 'spi_i':
        alice.receive_datagram(b'\1' * 8 + answer.data[8:], BOB, 0)
        assert not alice.lineage.new_sas
        reasons = [e.reason for e in events(alice) if isinstance(e, Dropped)]
        assert reasons == ["the initiator's SPI is not ours"]
    asker, other = up(0)
    data = bytearray(sealed(other, Packet(ExchangeType.INFORMATIONAL, ()), 0))
    data[8 if wrong == 'spi_r' else 0] ^= 1
    asker.receive_datagram(bytes(data), other.local, 1)
    whose = "responder's SPI is not this SA's" if wrong == 'spi_r' else "initiator's SPI is not ours"
    assert [e.reason for e in events(asker)] == [f'the {whose}']


def test_an_answer_of_the_true_peer_that_makes_no_sense_ends_the_ike_sa() -> None:
    "RFC 7296 §2.21.3: and the peer is told so, in an exchange of its own."
    asker, other = up(0)
    asker.start(liveness, now=1)
    asker.datagrams_to_send()
    asker.receive_datagram(sealed(other, Packet(ExchangeType.INFORMATIONAL, (
        Opaque(Type.Notify, b'\0\4\0\1'),)), asker.window.next_id - 1, response=True), other.local, 1)
    goodbye, = asker.datagrams_to_send()
    assert other.incoming.open(goodbye.data).one(Delete).protocol == ProtocolID.IKE
    assert asker.exchange.doing == Doing.CLOSE


@pytest.mark.parametrize('mine, its', [(1280, 1280), (1280, 0), (0, 1280), (0, 0)])
def test_fragments_are_for_those_who_both_want_them(mine: int, its: int) -> None:
    left, right = configs(timing=NEVER)
    for end in handshake(*two_ends(RESPONDERS, replace(left, datagram=mine), replace(right, datagram=its))):
        assert end.agreed.fragments == (mine > 0 and its > 0)


def test_a_cookie_is_good_for_a_minute_and_until_the_next_secret_has_been_replaced() -> None:
    "A secret is replaced after 60 s; the one before it stays good for as long again."
    def first() -> tuple[Cookies, bytes]:
        secrets = iter(range(9))
        jar = Cookies(lambda size: bytes([next(secrets)]) * size)
        return jar, jar.bake(0, b'nonce', b'spi', ALICE)

    jar, cookie = first()
    assert jar.bake(59.9, b'nonce', b'spi', ALICE) == cookie != jar.bake(60, b'nonce', b'spi', ALICE)
    assert jar.good(cookie, 119.9, b'nonce', b'spi', ALICE)  # by the secret before
    jar.bake(120, b'nonce', b'spi', ALICE)  # which is replaced once more
    assert not jar.good(cookie, 120, b'nonce', b'spi', ALICE) and len(jar.secrets) == 2
    jar, cookie = first()
    assert jar.good(cookie, 119.9, b'nonce', b'spi', ALICE)
    jar, cookie = first()
    assert not jar.good(cookie, 120, b'nonce', b'spi', ALICE)  # a long silence


def test_who_has_been_heard_is_not_asked_and_who_is_being_asked_is_not_asked_again() -> None:
    left, right = configs(timing=replace(NEVER, liveness=60))
    alice, bob = handshake(*two_ends(RESPONDERS, left, right))
    for end in alice, bob: end.datagrams_to_send()
    alice.heard, alice.now = 50.0, 60.0
    check_liveness(alice)
    assert not alice.datagrams_to_send() and alice.alarms[Alarm(Task.LIVENESS)][0] == 110
    alice.start(liveness, now=110)
    alice.datagrams_to_send(), alice.window.queue.clear()
    check_liveness(alice)
    assert not alice.window.queue and alice.alarms[Alarm(Task.LIVENESS)][0] == 170


# All the SAs of one end

def hosts_events(host: Host) -> list: return list(iter(host.next_event, None))


def bob_answers(attempt: IKE, bob: Host) -> bytes:
    bob.receive_datagram(attempt.window.pending.datagrams[0], ALICE, 0, BOB)
    response, = bob.datagrams_to_send()
    return response.data


def answered(alice: Host, attempt: IKE, peer: Host) -> IKE:
    "Let a peer answer the first message of an attempt: the candidate that comes of it."
    alice.receive_datagram(bob_answers(attempt, peer), BOB, 0, ALICE)
    return attempt.lineage.new_sas[-1]


def test_old_timers_are_thrown_away_when_they_are_the_most() -> None:
    timers, ike = Timers(), two_ends(RESPONDERS)[0]
    for n in range(18): timers.set(ike, float(n))
    assert len(timers.heap) == 18
    timers.set(ike, 18.0)
    assert len(timers.heap) == 1 and timers.first() == [18.0]


@pytest.mark.parametrize('exchange', [ExchangeType.IKE_AUTH, ExchangeType.IKE_SA_INIT])
@pytest.mark.parametrize('response', [True, False])
def test_only_an_answer_to_the_first_message_may_name_an_spi_that_we_do_not_know(
        exchange: ExchangeType, response: bool) -> None:
    left, _ = configs(timing=NEVER)
    alice = Host()
    attempt = alice.connect(left, ALICE, BOB, now=0)
    data = Packet(exchange, (Notify(MessageType.COOKIE),)).encode(
        attempt.spi_i, b'stranger', response=response, initiator=False, message_id=0)
    alice.receive_datagram(data, BOB, 0, ALICE)
    found = [(ike, e.reason) for ike, e in hosts_events(alice) if isinstance(e, Dropped)]
    theirs = response and exchange == ExchangeType.IKE_SA_INIT
    assert found == [] if theirs else found == [(None, 'no SA has this SPI')]


@pytest.mark.parametrize(('exchange', 'spi_r'), [
    (ExchangeType.IKE_AUTH, bytes(8)), (ExchangeType.IKE_SA_INIT, b'stranger')])
def test_a_call_begins_with_the_first_message_and_no_other(exchange: ExchangeType, spi_r: bytes) -> None:
    (left, right), calls = configs(timing=NEVER), Host()
    calls.connect(left, ALICE, BOB, now=0)
    first = parse(calls.datagrams_to_send()[0].data)
    data = replace(first, exchange_type=exchange).encode(
        first.header.spi_i, spi_r, response=False, initiator=True, message_id=0)
    bob = Host((right,))
    bob.receive_datagram(data, ALICE, 0, BOB)
    assert [(ike, e.reason) for ike, e in hosts_events(bob)] == [(None, 'no SA has this SPI')]
    assert not bob.sas and not bob.datagrams_to_send()


def test_a_second_later_as_many_strangers_are_told_again() -> None:
    (_, right), stranger = configs(timing=NEVER), Opaque(Type.SK, bytes(64))
    bob = Host((right,))

    def answers(now: float) -> int:
        data = Packet(ExchangeType.INFORMATIONAL, (stranger,)).encode(
            b'initiate', b'responds', response=False, initiator=True, message_id=7)
        for _ in range(2 * REPLIES): bob.receive_datagram(data, ALICE, now, BOB)
        return len(bob.datagrams_to_send())
    assert [answers(now) for now in (0, 0.5, 1, 1.5, 2.25)] == [REPLIES, 0, REPLIES, 0, REPLIES]


def test_what_stands_on_its_own_is_no_longer_held_by_what_it_came_of() -> None:
    network, *hosts = two_hosts()
    for host in hosts:
        old = only(host)
        host.start(old, rekey_ike_sa, now=network.now)
        network.run(until=network.now + 1)
        assert only(host) is not old and old.lineage.new_sas == []


def test_the_candidate_that_proves_itself_ends_its_rivals_and_nobody_else() -> None:
    left, right = configs(timing=NEVER)
    alice = Host()
    mine, other = (alice.connect(left, ALICE, BOB, now=0) for _ in range(2))
    peers = [Host((right,)) for _ in range(3)]
    rival, winner, elsewhere = (answered(alice, attempt, peer) for attempt, peer in
                                zip((mine, mine, other), peers, strict=True))
    for d in alice.datagrams_to_send():
        if d.data[:16] == winner.spi_i + winner.spi_r: peers[1].receive_datagram(d.data, ALICE, 0, BOB)
    for d in peers[1].datagrams_to_send(): alice.receive_datagram(d.data, BOB, 0, ALICE)
    states = [ike.state.name for ike in (winner, mine, rival, other, elsewhere)]
    assert states == ['ESTABLISHED', 'CLOSED', 'CLOSED', 'INITIAL', 'CONNECTING']
    assert not [e for _, e in hosts_events(alice) if isinstance(e, Closed)]


def test_an_attempt_waits_for_a_better_answer_once_and_only_if_nobody_is_being_asked() -> None:
    "Of three candidates one fails at 0 s, while others are asked; the others at 1 and 2 s."
    left, right = configs(timing=NEVER)
    alice, grace = Host(), NEVER.grace
    attempt = alice.connect(left, ALICE, BOB, now=0)
    candidates = [answered(alice, attempt, Host((right,))) for _ in range(3)]
    alarm = Alarm(Task.GRACE)

    def failed(candidate: IKE, now: float) -> None:
        candidate.now = now
        candidate.close(NoProposalChosen('for this test'))
        drain(alice, candidate)
    failed(candidates[0], 0)
    assert alarm not in attempt.alarms and attempt.state == State.INITIAL
    failed(candidates[1], 1)
    assert alarm not in attempt.alarms
    failed(candidates[2], 2)
    assert attempt.alarms[alarm][0] == 2 + grace
    alice.datagrams_to_send()
    alice.handle_timer(2 + grace - 0.1)
    assert not alice.datagrams_to_send()  # it waits, and does not ask again
    late = answered(alice, attempt, Host((right,)))
    failed(late, 3)
    assert attempt.alarms[alarm][0] == 2 + grace
    alice.handle_timer(2 + grace)
    assert attempt.state == State.CLOSED and alarm not in attempt.alarms


def test_an_attempt_that_is_over_waits_for_nothing() -> None:
    left, right = configs(timing=NEVER)
    alice = Host()
    attempt = alice.connect(left, ALICE, BOB, now=0)
    candidate = answered(alice, attempt, Host((right,)))
    attempt.close(NoAnswer('for this test'))
    candidate.close(NoAnswer('for this test'))
    drain(alice, candidate)
    assert not attempt.alarms


def test_the_child_sa_of_an_ike_sa_is_one_that_stays() -> None:
    _, other = up(0)
    old, = other.children
    child = other.children[old]
    other.children[b'late'] = replace(child, inbound=replace(child.inbound, spi=b'late'))
    assert other.child.inbound.spi == b'late'
    other.replaced = {b'late': old}
    assert other.child.inbound.spi == old


def test_a_part_of_a_message_is_no_sign_of_life() -> None:
    "It may be an old one: only the whole has a Message ID that is known to be new."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(timing=NEVER, datagram=500)))

    def much(ike: IKE) -> Conversation:
        yield Packet(ExchangeType.INFORMATIONAL, (Vendor(bytes(1000)),))
    alice.start(much, now=10)
    first, *others = alice.datagrams_to_send()
    before = bob.heard
    bob.receive_datagram(first.data, ALICE, 10)
    assert others and bob.heard == before
    for d in others: bob.receive_datagram(d.data, ALICE, 11)
    assert bob.heard == 11


def test_a_repeated_request_is_told_as_one() -> None:
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(timing=NEVER)))
    alice.start(liveness, now=1)
    request, = alice.datagrams_to_send()
    for now in 1, 2: bob.receive_datagram(request.data, ALICE, now)
    first, second = bob.datagrams_to_send()
    assert first.data == second.data
    told = [e.reason for e in events(bob) if isinstance(e, Dropped)]
    assert told == ['the peer asks again, and gets the same answer again']


@pytest.mark.parametrize('encap', [None, (4500, 61002)], ids=['without NAT', 'in UDP'])
def test_a_peer_that_moves_takes_its_child_sas_along(encap: tuple[int, int] | None) -> None:
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(timing=NEVER)))
    bob.agreed = replace(bob.agreed, nat=Nat(True, there=True))
    spi, = bob.children
    bob.children[spi] = replace(bob.children[spi], encap=encap)
    alice.start(liveness, now=1)
    request, = alice.datagrams_to_send()
    there, here = ALICE._replace(host='192.0.2.77', port=61003), BOB._replace(port=4500)
    bob.receive_datagram(request.data, there, 1, here)
    child = bob.children[spi]
    assert (child.inbound.source, child.outbound.destination) == ('192.0.2.77', '192.0.2.77')
    assert child.encap == (encap and (4500, 61003))


def test_a_key_log_is_told_the_secret_of_an_ike_sa() -> None:
    told = dict[bytes, bytes]()
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(
        timing=NEVER, keylog=lambda ni, secret, _: told.update({ni: secret}))))
    assert [*told] == [alice.nonces[0]] == [bob.nonces[1]] and len(told[alice.nonces[0]]) == 32


@pytest.mark.parametrize(('size', 'good'), [(0, False), (1, True), (64, True), (65, False)])
def test_a_cookie_has_1_to_64_octets(size: int, good: bool) -> None:
    assert followed(bytes(size)) == good


def test_a_cookie_that_we_have_sent_already_is_no_news() -> None:
    assert followed(b'first') and followed(b'first', b'second') and not followed(b'first', b'first')


def followed(*cookies: bytes) -> bool:
    "Is the last of these cookies in a request that an attempt sends for it?"
    alice, _ = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    sent = list[bytes]()
    for now, cookie in enumerate(cookies):
        sent = []
        data = Packet(ExchangeType.IKE_SA_INIT, (Notify(MessageType.COOKIE, cookie),)).encode(
            alice.spi_i, bytes(8), response=True, initiator=False, message_id=0)
        alice.datagrams_to_send()
        alice.receive_datagram(data, BOB, 10 * now)
        sent += [d.data for d in alice.datagrams_to_send()]
        while Alarm(Task.COOKIE) in alice.alarms:
            alice.handle_timer(alice.next_timer())
            sent += [d.data for d in alice.datagrams_to_send()]
    first = [parse(data).payloads[0] for data in sent]
    return Notify(MessageType.COOKIE, cookies[-1]) in first


@pytest.mark.parametrize(('data', 'tries', 'good'), [
    (b'\0\x1f', 1, True), (b'\x1f', 1, False), (b'\0\0\x1f', 1, False), (b'', 1, False),
    (b'\0\x1f', MAX_INIT_RETRIES, True), (b'\0\x1f', MAX_INIT_RETRIES + 1, False)])
def test_another_group_is_named_in_two_octets_and_not_too_often(data: bytes, tries: int, good: bool) -> None:
    offer = SA(configs('aes128-sha256-ecp256-x25519')[0].ike)
    wanted = Notify(MessageType.INVALID_KE_PAYLOAD, data)
    if good: assert wanted_group(wanted, offer, Group.ECP_256, tries) == Group.CURVE_25519
    else:
        with pytest.raises(IkeError): wanted_group(wanted, offer, Group.ECP_256, tries)


@pytest.mark.parametrize(('change', 'why'), [
    ('nothing', ''), ('group', 'KE of group'), ('nonce', 'our own nonce'), ('zero', 'SPI is zero'),
    ('known', 'have already'), ('999', ''), ('1000', 'more than 1000')])
def test_what_accepts_our_offer_is_looked_at_from_all_sides(change: str, why: str) -> None:
    "Also a public value of a group that is not ours, but has the same size."
    alice, bob = two_ends(RESPONDERS, *configs('aes128-sha256-ecp256'))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    response = parse(bob.datagrams_to_send()[0].data)
    if change == 'group':
        response = replace(response, payloads=tuple(
            replace(p, group=Group.BRAINPOOL_256) if isinstance(p, KE) else p for p in response.payloads))
    if change == 'zero': response = replace(response, header=replace(response.header, spi_r=bytes(8)))
    before = {n.to_bytes(8, 'big') for n in range(int(change) if change.isdecimal() else 0)}
    if change == 'known': before.add(response.header.spi_r)
    ni = response.one(Nonce) if change == 'nonce' else Nonce(bytes(32))

    def accept() -> InitResult:
        return accept_init(alice, SA(alice.config.ike), KeyExchange(Group.ECP_256), ni, response, before)
    if not why: assert accept().spi_r == response.header.spi_r
    else:
        with pytest.raises(InvalidSyntax, match=why): accept()


def test_an_answer_is_to_the_request_that_had_its_group() -> None:
    first, second = KeyExchange(Group.ECP_256), KeyExchange(Group.CURVE_25519)
    versions = {b'first': first, b'second': second}
    for version, dh in versions.items():
        response = Packet(ExchangeType.IKE_SA_INIT, (KE(dh.group, dh.public),))
        assert answered_version(versions, response) == (version, dh)


def test_the_oldest_candidate_makes_room() -> None:
    left, right = configs('aes128-sha256-x25519', timing=NEVER)
    alice, bob = Host(), Host((right,))
    attempt = alice.connect(left, ALICE, BOB, now=0)
    response = parse(bob_answers(attempt, bob))
    candidates = []
    for n in range(CANDIDATES + 1):
        header = replace(response.header, spi_r=(n + 1).to_bytes(8, 'big'))
        alice.receive_datagram(bytes(replace(response, header=header)), BOB, 0, ALICE)
        candidates.append(attempt.lineage.new_sas[-1])
        assert candidates[0].state == (State.CLOSED if n == CANDIDATES else State.CONNECTING)
    assert attempt.lineage.new_sas == candidates[1:]


def test_what_is_being_put_to_the_proof_when_the_wait_ends_gets_its_time() -> None:
    left, right = configs(timing=NEVER)
    alice = Host()
    attempt = alice.connect(left, ALICE, BOB, now=0)
    refused = answered(alice, attempt, Host((right,)))
    refused.close(NoProposalChosen('for this test'))
    drain(alice, refused)
    answered(alice, attempt, Host((right,)))
    grace = attempt.alarms[Alarm(Task.GRACE)][0]
    alice.handle_timer(grace)
    assert Alarm(Task.GRACE) not in attempt.alarms and attempt.state == State.INITIAL


@pytest.mark.parametrize(('asked', 'types', 'good'), [
    (True, (CfgType.CFG_REPLY,), True), (True, (), False), (True, (CfgType.CFG_REQUEST,), False),
    (True, (CfgType.CFG_REPLY,) * 2, False), (True, (CfgType.CFG_SET, CfgType.CFG_REPLY), True),
    (False, (), True), (False, (CfgType.CFG_REPLY,), True)])
def test_an_inner_address_comes_in_one_reply_to_who_has_asked(
        asked: bool, types: tuple[CfgType, ...], good: bool) -> None:
    left, _ = configs(request=(ip_address('0.0.0.0'),) if asked else ())  # noqa: S104
    alice, _ = two_ends(RESPONDERS, left, left)
    given = Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS, bytes([10, 3, 0, 1]))
    response = Packet(ExchangeType.IKE_AUTH, tuple(CP(kind, (given,)) for kind in types))
    if not good:
        with pytest.raises(InternalAddressFailure): accepted_address(alice, response)
    else: assert (accepted_address(alice, response) is not None) == asked


def opened_auth(pool: bool = False, local_ts: str = '10.1.0.0/24', secret: SharedKey | None = None,
                **changes: object) -> tuple[IKE, IKE, bytes, Packet]:
    "Return both ends before message 3, and that message, sealed and opened."
    proof = {'credential': secret, 'trust': secret} if secret else {}
    left, right = (replace(config, **proof) for config in configs(timing=NEVER, **changes))
    attempt, bob = two_ends(
        RESPONDERS, replace(left, local_ts=(TrafficSelector.from_text(local_ts),)),
        replace(right, pool=Pool(['10.9.0.0/24']) if pool else None))
    attempt.start(ike_sa_init, now=0)
    deliver(attempt, bob), deliver(bob, attempt)
    alice, = attempt.lineage.new_sas
    message3, = alice.datagrams_to_send()
    return alice, bob, message3.data, bob.incoming.open(message3.data)


def test_a_shared_key_proves_with_the_keys_of_its_end() -> None:
    "RFC 7296 §2.15, written anew."
    def prf(key: bytes, data: bytes) -> bytes: return hmac.digest(key, data, 'sha256')

    secret = SharedKey(b'c2f1a7e0b6d94f3358d1')
    alice, bob, message3, request = opened_auth(secret=secret)
    bob.receive_datagram(message3, ALICE, 0)
    response = alice.incoming.open(bob.datagrams_to_send()[0].data)
    ours, theirs = alice.first_messages
    proofs = {(IDi, request): (ours, parse(theirs).one(Nonce).data, alice.keys.sk_pi),
              (IDr, response): (theirs, parse(ours).one(Nonce).data, alice.keys.sk_pr)}
    for (kind, packet), (message, nonce, sk_p) in proofs.items():
        octets = message + nonce + prf(sk_p, packet.one(kind).body)
        assert packet.one(AUTH).data == prf(prf(secret.secret, b'Key Pad for IKEv2'), octets)


@pytest.mark.parametrize('seen', [[], [CERT(CertEncoding.RAW_PUBLIC_KEY, b'a key')]])
def test_what_a_peer_has_shown_is_told_if_it_has_shown_something(seen: list[CERT]) -> None:
    config, _ = configs()
    wrong = AUTH(AuthenticationType.DIGITAL_SIGNATURE, bytes.fromhex('07 300506032b6570') + bytes(64))
    with pytest.raises(AuthenticationFailed) as caught:
        verify_auth(config, config.remote_id, Prf.PRF_HMAC_SHA2_256, b'octets', wrong, seen)
    assert str(caught.value).startswith('the signature (Ed25519) is wrong')
    assert ('the peer has shown' in str(caught.value)) == bool(seen)


@pytest.mark.parametrize('asked', [False, True])
def test_an_inner_address_is_asked_for_if_it_is_wanted(asked: bool) -> None:
    changes = {'request': (ip_address('0.0.0.0'),)} if asked else {}  # noqa: S104
    alice, bob, message3, request = opened_auth(True, '10.9.0.0/24', **changes)
    assert bool(request.all(CP)) == asked
    bob.receive_datagram(message3, ALICE, 0)
    deliver(bob, alice)
    assert any(isinstance(event, AddressAssigned) for event in events(alice)) == asked


@pytest.mark.parametrize('granted', [False, True])
def test_a_child_sa_that_the_responder_never_had_is_not_deleted(granted: bool) -> None:
    "It is, if its answer is not within what was asked for."
    alice, bob, message3, _ = opened_auth()
    bob.receive_datagram(message3, ALICE, 0)
    answer = alice.incoming.open(bob.datagrams_to_send()[0].data)
    wide = TSr((TrafficSelector.from_text('0.0.0.0/0'),))
    kept = tuple(p for p in answer.payloads if type(p) not in (SA, TSi, TSr))
    changed = (*(wide if type(p) is TSr else p for p in answer.payloads),) if granted else (
        *kept, Notify(MessageType.NO_PROPOSAL_CHOSEN))
    alice.receive_datagram(sealed(bob, replace(answer, payloads=changed), 1, response=True), BOB, 0)
    assert any(isinstance(event, ChildFailed) for event in events(alice))
    assert [type(p) for d in alice.datagrams_to_send() for p in bob.incoming.open(d.data).payloads] == (
        [Delete] if granted else [])


def test_what_a_peer_wants_in_place_of_a_proof() -> None:
    eap, other = Opaque(Type.EAP, b'\1\0\0\5\1'), Vendor(b'something else')
    for payloads in (eap,), (other, eap), (other,), ():
        why = 'by EAP' if eap in payloads else 'no proof'
        assert why in str(missing_auth(Packet(ExchangeType.IKE_AUTH, payloads)))


@pytest.mark.parametrize('pool', [False, True])
def test_a_request_for_an_address_has_to_be_read_before_its_sender_is_believed_if_there_are_any(
        pool: bool) -> None:
    alice, bob, _, request = opened_auth(pool)
    spoilt = Opaque(Type.CP, b'\1')
    data = sealed(alice, replace(request, payloads=(*request.payloads, spoilt)), 1)
    bob.receive_datagram(data, ALICE, 0)
    assert (bob.state == State.ESTABLISHED) != pool
    assert any(isinstance(event, Established) for event in events(bob)) != pool


@pytest.mark.parametrize('childless', [False, True])
@pytest.mark.parametrize(('said', 'refuses'), [('never', True), ('force', False), ('allow', None)])
def test_a_first_child_sa_is_there_as_the_operator_says(
        said: str, refuses: bool | None, childless: bool) -> None:
    config, _ = configs(childless=said)
    if childless != refuses: check_childless(config, childless)
    else:
        error = InvalidSyntax if childless else NoProposalChosen
        with pytest.raises(error): check_childless(config, childless)
