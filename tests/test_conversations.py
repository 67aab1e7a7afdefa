"""Exchanges of several requests, at both ends, by generators alone: an IKE_AUTH in two parts,
as EAP has them (RFC 7296 §2.16), and an exchange between IKE_SA_INIT and IKE_AUTH (RFC 9242).

Nothing in the package knows of either.
"""
import random
from dataclasses import replace

import pytest
from canonical import configs, two_ends
from ike_lit.engine.child_sa import child_offer
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.ike_sa import (
    first_child_payloads, ike_auth, ike_sa_init, respond_ike_auth, respond_ike_sa_init,
    take_first_child)
from ike_lit.engine.proof import certificates, check_auth, make_auth
from ike_lit.engine.informational import liveness
from ike_lit.engine.model import ChildEstablished, Dropped, Established, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Answers, Conversation, State
from ike_lit.testing.network import deliver, events, family, talk
from ike_lit.wire.auth import AUTH, IDi, IDr
from ike_lit.wire.const import AuthenticationFailed, Discard, ExchangeType, NoProposalChosen
from ike_lit.wire.payload import Packet, Vendor

INIT, MIDDLE, AUTHENTICATE = (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_INTERMEDIATE,
                              ExchangeType.IKE_AUTH)
PASSWORD = Vendor(b'open sesame')


def auth_in_two(ike: IKE) -> Conversation:
    "Say who we are, and prove it when we are asked to."
    config, asked = ike.config, child_offer(ike, first=True)
    idi, child = IDi.of(config.local_id), first_child_payloads(ike, asked)
    response = yield Packet(AUTHENTICATE, (idi, IDr.of(config.remote_id), *child))
    assert response.one(Vendor).data == b'what is the word?'
    proof = check_auth(ike, config, response.one(IDr), response)  # the responder proves itself first
    response = yield Packet(AUTHENTICATE, (
        PASSWORD, *certificates(config, ike.agreed.asked), make_auth(ike, config, idi)))
    ike.become(State.ESTABLISHED)
    ike.emit(Established(config.remote_id, proof))
    yield from take_first_child(ike, asked, response)


def respond_in_two(ike: IKE, request: Packet) -> Answers:
    "Prove ourselves, ask for the word, and go on as ever."
    idr = IDr.of(ike.config.local_id)
    question = Packet(AUTHENTICATE, (idr, make_auth(ike, ike.config, idr), Vendor(b'what is the word?')))
    second = yield question, AUTHENTICATE
    if second.one(Vendor) != PASSWORD: raise AuthenticationFailed('that is not the word')
    whole = replace(second, payloads=(*request.payloads, second.one(AUTH)))
    return respond_ike_auth(ike, whole)


def middle_then_auth(ike: IKE) -> Conversation:
    "Two questions more before IKE_AUTH."
    for text in b'one', b'two':
        response = yield Packet(MIDDLE, (Vendor(text),))
        assert response.one(Vendor).data == text.upper()
    yield from ike_auth(ike)


def respond_then_middle(ike: IKE, request: Packet) -> Answers:
    "IKE_SA_INIT, and two exchanges that must come before IKE_AUTH."
    first = yield respond_ike_sa_init(ike, request), MIDDLE
    second = yield Packet(MIDDLE, (Vendor(first.one(Vendor).data.upper()),)), MIDDLE
    if second.one(Vendor).data != b'two': raise NoProposalChosen('one, two')
    return Packet(MIDDLE, (Vendor(second.one(Vendor).data.upper()),))


SHAPES = {'IKE_AUTH in two': (auth_in_two, {AUTHENTICATE: respond_in_two}),
          'something between': (middle_then_auth, {INIT: respond_then_middle})}


def ends(shape: str, **changes: object) -> tuple[IKE, IKE]:
    "Return Alice, who is about to call, and Bob."
    then, responders = SHAPES[shape]
    alice, bob = two_ends({**RESPONDERS, **responders}, *configs(**changes))
    alice.start(ike_sa_init, then, now=0)
    return alice, bob


def names(ike: IKE) -> list[str]:
    "Return what an end has said, by exchange and number."
    return [f'{e.packet.exchange_type.name} {e.message_id}' for e in events(ike) if hasattr(e, 'packet')]


@pytest.mark.parametrize(('shape', 'said'), [
    ('IKE_AUTH in two', ['IKE_SA_INIT 0', 'IKE_AUTH 1', 'IKE_AUTH 2']),
    ('something between', ['IKE_SA_INIT 0', 'IKE_INTERMEDIATE 1', 'IKE_INTERMEDIATE 2', 'IKE_AUTH 3'])])
def test_a_conversation_takes_as_many_requests_as_it_needs(shape: str, said: list[str]) -> None:
    alice, bob = ends(shape)
    talk(alice, bob)
    alice = family(alice)[-1]
    assert alice.state == bob.state == State.ESTABLISHED
    assert alice.child.outbound == bob.child.inbound and alice.child.inbound == bob.child.outbound
    assert names(bob) == [one for one in said for _ in 'RS']
    assert not bob.window.answering and not bob.busy
    alice.start(liveness, now=1)
    talk(alice, bob, now=1)
    assert names(bob) == [f'INFORMATIONAL {len(said)}'] * 2


@pytest.mark.parametrize('shape', SHAPES)
def test_a_repeated_request_of_a_conversation_gets_the_same_answer(shape: str) -> None:
    alice, bob = ends(shape)
    for _ in range(8):
        asked = deliver(alice, bob)
        if not asked: break
        answers = bob.datagrams_to_send()
        for data in asked: bob.receive_datagram(data, alice.local, 0.5)
        assert [d.data for d in bob.datagrams_to_send()] == [d.data for d in answers]
        for d in answers:
            named = [m for m in family(alice) if d.data[:16] == m.spi_i + m.spi_r]
            (named or [alice])[0].receive_datagram(d.data, d.source, 0.5)
    assert bob.state == State.ESTABLISHED


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('shape', SHAPES)
def test_a_conversation_survives_a_network_that_loses_three_in_ten(shape: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    alice, bob = ends(shape, timing=Timing(factor=1.2, timeout=60))
    now = 0.0
    while bob.state != State.ESTABLISHED or family(alice)[-1].busy:
        for one, other in (alice, bob), (bob, alice):
            sent = [d for member in family(one) for d in member.datagrams_to_send()]
            for d in sent:
                named = [m for m in family(other) if d.data[:16] == m.spi_i + m.spi_r] or [other]
                if chance.random() > 0.3: named[0].receive_datagram(d.data, d.source, now)
        times = [at for m in (*family(alice), bob) if (at := m.next_timer()) is not None]
        if any(m.outbox for m in (*family(alice), bob)): continue
        now = min(times)
        for member in *family(alice), bob: member.handle_timer(now)
        assert now < 120
    assert family(alice)[-1].child.outbound == bob.child.inbound


def test_what_must_come_before_ike_auth_can_not_be_left_out() -> None:
    "An initiator that goes on with IKE_AUTH at once is not heard."
    alice, bob = two_ends({**RESPONDERS, INIT: respond_then_middle}, *configs())
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob), deliver(bob, alice), deliver(alice, bob)
    dropped, = (e.reason for e in events(bob) if isinstance(e, Dropped))
    assert dropped == 'IKE_AUTH request in state CONNECTING'
    assert bob.state == State.CONNECTING and list(bob.window.answering) == [MIDDLE]


def test_nothing_is_granted_before_the_last_request_of_ike_auth() -> None:
    alice, bob = ends('IKE_AUTH in two')
    deliver(alice, bob), deliver(bob, alice), deliver(alice, bob)
    assert bob.state == State.CONNECTING and not bob.children
    assert not [e for e in events(bob) if isinstance(e, Established | ChildEstablished)]
    bob.receive_datagram(alice.lineage.new_sas[0].window.sent, alice.local, 1)  # the same once more
    assert bob.state == State.CONNECTING


@pytest.mark.parametrize(('shape', 'wrong', 'error'), [
    ('IKE_AUTH in two', b'open rye', AuthenticationFailed),
    ('something between', b'three', NoProposalChosen)])
def test_an_error_in_the_midst_ends_it(shape: str, wrong: bytes, error: type) -> None:
    def wrongly(ike: IKE) -> Conversation:
        conversation = SHAPES[shape][0](ike)
        response, number = next(conversation), 1
        while True:
            if number == 2:
                response = replace(response, payloads=(Vendor(wrong), *response.payloads[1:]))
            try:
                response = conversation.send((yield response))
            except StopIteration: return
            number += 1
    alice, bob = two_ends({**RESPONDERS, **SHAPES[shape][1]}, *configs())
    alice.start(ike_sa_init, wrongly, now=0)
    for _ in range(3): deliver(alice, bob), deliver(bob, alice)
    assert bob.state == State.CLOSED and isinstance(events(bob)[-1].error, error)
    assert not bob.window.answering and not bob.children


def test_what_is_dropped_in_the_midst_lets_nothing_else_in() -> None:
    "The conversation can't be taken up again, and what it was to bring must not be left out."
    def drop(ike: IKE, request: Packet) -> Answers:
        yield respond_ike_sa_init(ike, request), MIDDLE
        raise Discard('not this one')
    alice, bob = two_ends({**RESPONDERS, INIT: drop}, *configs())
    alice.start(ike_sa_init, middle_then_auth, now=0)
    deliver(alice, bob), deliver(bob, alice), deliver(alice, bob)
    candidate = family(alice)[-1]
    assert not bob.datagrams_to_send() and names(bob)[-1] == 'IKE_INTERMEDIATE 1'
    early = candidate.outgoing.seal(next(ike_auth(candidate)), candidate.spi_i, candidate.spi_r,
                                    response=False, initiator=True, message_id=1, random=bytes)
    bob.receive_datagram(early, alice.local, 1)
    assert bob.state == State.CLOSED and not bob.datagrams_to_send()


def test_the_conversations_of_an_ike_sa_that_is_over_are_over() -> None:
    alice, bob = ends('something between')
    deliver(alice, bob)
    waiting = bob.window.answering[MIDDLE]
    assert waiting.gi_frame
    bob.close()
    assert not bob.window.answering and not bob.busy
