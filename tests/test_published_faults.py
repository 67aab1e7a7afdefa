"""Faults that were published of other programs, played here: a Child SA before anybody is
authenticated, use after the end in collisions, and answers to a repeated first message.
"""
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
from authentic import AUTHENTICATE, CREATE, DRAW, INFORM, Line, Peer, child, connection, said
from canonical import configs, two_ends
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.informational import delete_child, delete_ike_sa
from ike_lit.engine.model import (
    ChildClosed, ChildEstablished, Closed, Dropped, Established, Lifetime, Rekeyed, Timing)
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import BOB, deliver, events, family, talk
from ike_lit.wire.const import ExchangeType, MessageType, ProtocolID
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Delete, Notify, Packet, Payload
from ike_lit.wire.proposal import parse_proposals

NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
LEFT, RIGHT = '10.1.0.0/24', '10.2.0.0/24'


def meet(timing: Timing = NEVER) -> tuple[Host, Peer]:
    "Return a gateway, and a peer that it knows."
    host = Host((connection('gw', 'alice', RIGHT, LEFT, timing=timing),), random=DRAW.randbytes)
    clock = [0.0]
    peer = Peer(host, connection('alice', 'gw', LEFT, RIGHT), now=lambda: clock[0])
    peer.clock = clock
    return host, peer


def first_child(spi: bytes = b'AAAA') -> tuple[Payload, ...]:
    "Return what asks for a Child SA in IKE_AUTH, whose nonces are those of IKE_SA_INIT."
    return tuple(payload for payload in child(spi=spi) if not isinstance(payload, Nonce))


# No Child SA before authentication

def nothing_came_of_it(host: Host, peer: Peer) -> bool:
    known = [ike for named in host.sas.values() for ike in named]
    return not any(ike.children or ike.lineage.new_sas for ike in known) and not any(
        isinstance(event, ChildEstablished | Rekeyed | Established) for _, event in peer.events)


@pytest.mark.parametrize('message_id', [0, 1, 2])
@pytest.mark.parametrize('what', ['a Child SA', 'a rekeying', 'an IKE SA', 'a Delete'])
def test_before_ike_auth_there_is_nothing_but_ike_auth(message_id: int, what: str) -> None:
    "The keys of IKE_SA_INIT are right, and prove nothing."
    host, peer = meet()
    line = peer.begin()
    line.next_id = message_id
    match what:
        case 'a Child SA': line.create(*child())
        case 'a rekeying': line.create(*child(rekeys=b'AAAA'))
        case 'an IKE SA': assert line.rekey() is None
        case _: line.delete()
    assert line.answers == [] and nothing_came_of_it(host, peer)
    assert any(isinstance(event, Dropped) for _, event in peer.events)
    # and the IKE SA is where it was
    line.next_id = 1
    response = line.ask(AUTHENTICATE, *peer.proof(line, *first_child()))
    assert said(response) is None and len(line.other.children) == 1


@pytest.mark.parametrize('message_id', [1, 2, 3])
def test_after_an_ike_auth_that_failed_there_is_no_child_sa_either(message_id: int) -> None:
    host, peer = meet()
    line = peer.begin()
    idi, idr, auth = peer.proof(line)
    wrong = replace(auth, data=bytes(len(auth.data)))
    assert said(line.ask(AUTHENTICATE, idi, idr, wrong, *child())) == MessageType.AUTHENTICATION_FAILED
    line.next_id, before = message_id, len(line.answers)
    line.create(*child())
    assert len(line.answers) == before and nothing_came_of_it(host, peer) and host.established == []


def test_nor_does_the_initiator_grant_one_before_the_responder_is_authenticated() -> None:
    "The responder has the keys after IKE_SA_INIT, too."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    candidate, = alice.lineage.new_sas
    for message_id in range(3):
        for payloads in child(), child(rekeys=b'AAAA'), (Delete(ProtocolID.IKE),):
            exchange = INFORM if isinstance(payloads[0], Delete) else CREATE
            data = bob.outgoing.seal(Packet(exchange, payloads), bob.spi_i, bob.spi_r, response=False,
                                     initiator=False, message_id=message_id, random=bytes)
            candidate.receive_datagram(data, BOB, 0)
    assert candidate.state == State.CONNECTING and not candidate.children and not candidate.lineage.new_sas
    talk(alice, bob)
    assert candidate.state == bob.state == State.ESTABLISHED and len(candidate.children) == 1


def test_in_the_clear_there_is_no_child_sa_in_any_state() -> None:
    for message_id in 0, 1:
        host, peer = meet()
        line = peer.begin()
        for spi_i, spi_r in (line.ike.spi_i, line.ike.spi_r), (b'12345678', bytes(8)):
            peer.put(Packet(CREATE, child()).encode(spi_i, spi_r, response=False, initiator=True,
                                                    message_id=message_id))
        assert nothing_came_of_it(host, peer)


# What is over in a collision stays over

class Watch:
    "What is over, by what the gateway has told."

    def __init__(self, host: Host, peer: Peer):
        self.host, self.peer = host, peer
        self.closed: list[IKE] = []
        self.gone: set[bytes] = set()  # SPIs under which the gateway has received

    def look(self) -> None:
        for ike, event in self.peer.events:
            if isinstance(event, ChildEstablished | Rekeyed): assert ike not in self.closed, event
            if isinstance(event, ChildEstablished): assert event.child.inbound.spi not in self.gone
            if isinstance(event, ChildClosed): self.gone.add(event.child.inbound.spi)
            if isinstance(event, Closed): self.closed.append(ike)
        self.peer.events.clear()
        for ike in self.closed:
            assert ike.state == State.CLOSED and not ike.children and not ike.busy
            assert ike.keys is ike.outgoing is ike.incoming is None and ike.next_timer() is None
            assert not any(ike in others for others in self.host.peers.values())
        known = [ike for named in self.host.sas.values() for ike in named]
        assert not any(ike.children for ike in known if ike.lineage.successor)  # which has them
        held = [spi for named in self.host.sas.values() for ike in named for spi in ike.children]
        assert not self.gone & set(held) and len(set(held)) == len(held)


def wait(peer: Peer, seconds: float) -> None:
    "Let time pass, and wake the gateway as often as it wants to be."
    until = peer.clock[0] + seconds
    while (at := peer.host.next_timer()) is not None and at <= until:
        peer.clock[0] = max(peer.clock[0], at)
        peer.host.handle_timer(peer.clock[0])
        peer.take()
    peer.clock[0] = until


def play(steps: tuple[str, ...], moves: dict[str, Callable[[], object]], watch: Watch) -> None:
    "Do what the steps say, then all of it once more, then wait: nothing raises, nothing comes back."
    for step in (*steps, *moves):
        moves[step]()
        watch.look()
    for seconds in 31, 31, 200:
        wait(watch.peer, seconds)
        watch.look()


def answered(line: Line, asked: list[Packet], how: str) -> None:
    "Answer what the gateway asked first, as late as it is."
    if how == 'granted': line.grant_child(asked[0])
    elif how == 'granted too wide': line.grant_child(asked[0], tsr='0.0.0.0/0')
    else: line.answer(asked[0], Notify(MessageType[how]))


CHILD_STEPS = 'rekey', 'delete old', 'delete new', 'answer', 'close', 'expire'


@pytest.mark.parametrize('how', ['granted', 'granted too wide', 'CHILD_SA_NOT_FOUND', 'TEMPORARY_FAILURE',
                                 'NO_PROPOSAL_CHOSEN'])
def test_what_ends_while_both_rekey_a_child_sa_stays_over(how: str) -> None:
    for steps in permutations(CHILD_STEPS, 3):
        host, peer = meet()
        line = peer.call(*first_child())
        gateway, = host.established
        old, = gateway.children
        host.start(gateway, rekey_child, old, now=0)
        peer.take()
        asked, fresh = list(line.asked), iter((b'BBBB', b'CCCC'))
        newest = [b'AAAA']

        def rekey() -> None:
            newest.append(next(fresh))  # noqa: B023  # used in this round only
            line.create(*child(spi=newest[-1], rekeys=b'AAAA'))  # noqa: B023

        play(steps, {
            'rekey': rekey,
            'delete old': lambda: line.delete(b'AAAA'),  # noqa: B023
            'delete new': lambda: line.delete(newest[-1]),  # noqa: B023
            'answer': lambda: answered(line, asked, how),  # noqa: B023
            'expire': lambda: gateway.forget(old),  # noqa: B023
            'close': lambda: line.delete()}, Watch(host, peer))  # noqa: B023
        assert gateway.state == State.CLOSED


IKE_STEPS = 'rekey', 'use heir', 'use old', 'delete old', 'delete heir', 'answer', 'wait'


@pytest.mark.parametrize('how', ['granted', 'TEMPORARY_FAILURE', 'NO_PROPOSAL_CHOSEN', 'INVALID_SYNTAX'])
def test_what_ends_while_both_rekey_the_ike_sa_stays_over(how: str) -> None:
    for steps in permutations(IKE_STEPS, 3):
        host, peer = meet()
        line = peer.call(*first_child())
        gateway, = host.established
        host.start(gateway, rekey_ike_sa, now=0)
        peer.take()
        asked, heirs = line.asked[0], list[Line]()

        def rekey() -> None: heirs.extend(filter(None, [line.rekey()]))  # noqa: B023

        def answer() -> None:
            if how != 'granted': line.answer(asked, Notify(MessageType[how]))  # noqa: B023
            else: heirs.append(line.grant_rekey(asked))  # noqa: B023

        def each(do: Callable[[Line], object]) -> Callable[[], object]:
            return lambda: [do(heir) for heir in heirs]  # noqa: B023

        play(steps, {
            'rekey': rekey, 'answer': answer,
            'use heir': each(lambda heir: heir.create(*child())),
            'use old': lambda: line.create(*child()),  # noqa: B023
            'delete heir': each(lambda heir: heir.delete()),
            'delete old': lambda: line.delete(),  # noqa: B023
            'wait': lambda: wait(peer, 5)}, Watch(host, peer))  # noqa: B023
        assert host.established == [] and host.peers == {}


def test_who_has_closed_the_other_heir_has_no_say_in_who_inherits() -> None:
    "The answer has the lowest nonce, but there is nothing left that it could lose against."
    host, peer = meet()
    line = peer.call(*first_child())
    gateway, = host.established
    host.start(gateway, rekey_ike_sa, now=0)
    peer.take()
    theirs = line.rekey()
    assert theirs and said(theirs.delete()) is None
    ours = line.grant_rekey(line.asked[0], nr=bytes(32))
    assert host.established == [ours.other] and len(ours.other.children) == 1
    assert ours.other is gateway.lineage.successor and not gateway.children


@pytest.mark.parametrize('how', ['CHILD_SA_NOT_FOUND', 'TEMPORARY_FAILURE', 'NO_PROPOSAL_CHOSEN'])
def test_what_the_peer_has_deleted_is_not_asked_for_again(how: str) -> None:
    "Its Delete is quicker than the refusal of our rekeying."
    host, peer = meet()
    line = peer.call(*first_child())
    gateway, = host.established
    host.start(gateway, rekey_child, *gateway.children, now=0)
    peer.take()
    line.delete(b'AAAA')
    line.answer(line.asked[0], Notify(MessageType[how]))
    wait(peer, 100)
    assert line.asked == [] and not gateway.children and gateway.state == State.ESTABLISHED


@pytest.mark.parametrize('end', [delete_ike_sa, delete_child, rekey_ike_sa, rekey_child])
def test_after_the_last_answer_of_an_ike_sa_nothing_of_it_is_used(end: Callable) -> None:
    "The gateway is closing, or is about to begin something, when the peer closes."
    host, peer = meet()
    line = peer.call(*first_child())
    gateway, = host.established
    spis = tuple(gateway.children)
    for what in end, rekey_child, rekey_ike_sa:  # one is under way, the others wait for it
        host.start(gateway, what, *(spis if 'child' in what.__name__ else ()), now=0)
    peer.take()
    watch, asked = Watch(host, peer), list(line.asked)
    line.delete()
    watch.look()
    for packet in asked: line.answer(packet, *child())
    host.start(gateway, rekey_child, *spis, now=0)
    wait(peer, 300)
    watch.look()
    assert gateway.state == State.CLOSED and host.established == []


# Answers to a repeated first message

def wants_another_group() -> tuple[IKE, IKE, bytes]:
    "Return both ends, and Bob's answer to the first message that Alice has made for his group."
    alice, bob = configs()
    both, his = (parse_proposals(f'aes256gcm16-prfsha256-{groups}', ProtocolID.IKE)
                 for groups in ('x25519-ecp256', 'ecp256'))
    (one, other), (_, again) = (two_ends(RESPONDERS, replace(alice, ike=both), replace(bob, ike=his))
                                for _ in range(2))
    one.start(ike_sa_init, now=0)
    deliver(one, other)
    deliver(other, one)  # INVALID_KE_PAYLOAD
    assert not one.lineage.new_sas
    deliver(one, again)  # a responder that says no keeps nothing, so the next one is a new one
    answer, = (d.data for d in again.datagrams_to_send())
    return one, again, answer


def test_an_answer_with_the_spi_zero_to_the_repeated_first_message_is_nothing() -> None:
    alice, bob, answer = wants_another_group()
    zero = answer[:8] + bytes(8) + answer[16:]
    alice.receive_datagram(zero, BOB, 0)
    alice.receive_datagram(zero, BOB, 0)
    assert alice.state == State.INITIAL and not alice.lineage.new_sas and not alice.datagrams_to_send()
    alice.receive_datagram(answer, BOB, 0)  # the true one still counts
    talk(alice, bob)
    assert [ike.state for ike in alice.lineage.new_sas] == [State.ESTABLISHED] == [bob.state]


def test_a_second_answer_to_the_repeated_first_message_takes_nothing_away() -> None:
    alice, bob, answer = wants_another_group()
    other = answer[:8] + b'somebody' + answer[16:]
    for data in other, answer, answer, other: alice.receive_datagram(data, BOB, 0)
    assert len(alice.lineage.new_sas) == 2  # each is put to the proof once
    talk(alice, bob)
    assert [ike.state for ike in alice.lineage.new_sas] == [State.CONNECTING, State.ESTABLISHED]
    # a refusal that comes after it all changes nothing
    late = Packet(ExchangeType.IKE_SA_INIT, (Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\x13'),)).encode(
        alice.spi_i, bytes(8), response=True, initiator=False, message_id=0)
    for data in late, answer, other: family(alice)[-1].receive_datagram(data, BOB, 0)
    assert alice.lineage.new_sas[-1].state == State.ESTABLISHED and len(alice.lineage.new_sas) == 2
    assert not [e for e in events(alice.lineage.new_sas[-1]) if isinstance(e, Closed)]
