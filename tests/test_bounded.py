"""What a peer with a valid credential, or a stranger, may make us keep and compute is bounded,
and what bounds it does not keep honest ones out.
"""
import gc
import weakref
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random
from time import process_time

import pytest
from canonical import configs
from ike_lit.engine.create_child_sa import REPLACED_LIMIT, rekey_child, rekey_ike_sa
from ike_lit.engine.host import (
    ADDRESS_LIMIT, ADDRESS_THRESHOLD, COOKIE_THRESHOLD, PEER_LIMIT, Host, renew_child, renew_children)
from ike_lit.engine.informational import decide, delete_ike_sa, liveness, respond_informational
from ike_lit.engine.model import Closed, Lifetime, Moved, Timing
from ike_lit.engine.protocol import IKE, new_ike_sa, latest
from ike_lit.engine.state import Alarm, State, Task
from ike_lit.testing.network import ALICE, BOB, Network
from ike_lit.wire.configuration import CP, MAX_ATTRIBUTES, Attribute
from ike_lit.wire.const import (
    CfgAttribute, CfgType, ExchangeType, Group, InvalidSyntax, MessageType, ProtocolID, Type)
from ike_lit.wire.fragment import ELSEWHERE, REPEATS, REPEAT_SECONDS, split
from ike_lit.wire.header import Reader
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.nat import Endpoint, Nat
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Delete, Notify, Packet, Payload, Vendor, pack_chain
from ike_lit.wire.proposal import MAX_TRANSFORMS, SA, parse_proposals
from ike_lit.wire.sk import MAX_PAYLOADS, parse_inside
from ike_lit.wire.ts import TSi, TSr, TrafficSelector
from test_exchanges import put, said, up

NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
MALLORY = Endpoint('198.51.100.66', 4711)


def called(bob: Host, left: object, now: float = 0, alice: Host | None = None,
           at: Endpoint = ALICE) -> tuple[Network, Host]:
    "Let somebody call Bob and be answered."
    alice = alice or Host()
    network = Network({at: alice, BOB: bob})
    network.now = now
    alice.connect(left, at, BOB, now=now)
    network.run(until=now + 1)
    return network, alice


# Strangers

def first_message(left: object) -> bytes:
    one = Host()
    one.connect(left, ALICE, BOB, now=0)
    return one.datagrams_to_send()[0].data


@pytest.mark.parametrize('count', [3, 10, 300])
def test_forged_first_messages_in_the_name_of_an_address_keep_nobody_out(count: int) -> None:
    left, right = configs(timing=NEVER)
    bob = Host((right,))
    for start in range(0, 120, 29):
        for _ in range(count): bob.receive_datagram(first_message(left), ALICE, start, BOB)
        bob.datagrams_to_send()
        _, alice = called(bob, left, now=start + 0.5)
        assert len(alice.established) == 1


def test_an_address_is_asked_for_a_cookie_before_all_are() -> None:
    left, right = configs(timing=NEVER)
    bob = Host((right,))
    for n in range(COOKIE_THRESHOLD - 1):
        bob.receive_datagram(first_message(left), ALICE, 0, BOB)
        half_open = sum(ike.state == State.CONNECTING for ike in bob.transient)
        assert half_open == min(n + 1, ADDRESS_THRESHOLD)
    bob.datagrams_to_send()
    bob.receive_datagram(first_message(left), MALLORY, 0, BOB)  # another address is not
    answer, = bob.datagrams_to_send()
    assert answer.data[16] == 33  # SA


def test_who_has_shown_a_cookie_has_so_many_half_open_and_no_more() -> None:
    left, right = configs(timing=NEVER)
    bob = Host((right,), cookie_threshold=0)
    for n in range(3 * ADDRESS_LIMIT):
        port = ALICE._replace(port=1000 + n)
        one = Host()
        one.connect(left, port, BOB, now=0)
        for _ in range(2):
            for d in one.datagrams_to_send():
                if d.data[18] == ExchangeType.IKE_SA_INIT: bob.receive_datagram(d.data, port, 0, BOB)
            for d in bob.datagrams_to_send(): one.receive_datagram(d.data, BOB, 0, port)
    assert [ike.reachable for ike in bob.transient] == [True] * ADDRESS_LIMIT


# Repetitions

def answered(first: int = 1) -> tuple[IKE, IKE, bytes]:
    "Return an end, its peer, and the peer's request that the end has answered."
    asker, other = up(1 - first)
    asker.start(liveness, now=1)
    data, = said(asker)
    other.receive_datagram(data, asker.local, 1)
    assert said(other)
    return other, asker, data


@pytest.mark.parametrize('where, nat, most', [
    (ALICE, Nat(True), REPEATS), (ALICE._replace(port=4711), Nat(True), ELSEWHERE), (MALLORY, Nat(True), 0),
    (MALLORY, Nat(True, there=True), ELSEWHERE), (MALLORY, Nat(False), ELSEWHERE)])
def test_an_answer_is_repeated_so_often_and_no_more(where: Endpoint, nat: Nat, most: int) -> None:
    bob, _, data = answered()
    bob.agreed = replace(bob.agreed, nat=nat)
    sent = 0
    for _ in range(1000):
        bob.receive_datagram(data, where, 2)
        sent += len(bob.datagrams_to_send())
    assert sent == most
    bob.receive_datagram(data, ALICE, 2)  # what others have had does not count against Alice
    assert len(bob.datagrams_to_send()) == (where != ALICE)


@pytest.mark.parametrize('now, count', [(REPEAT_SECONDS, 1), (REPEAT_SECONDS + 2, 0)])
def test_an_answer_is_not_repeated_for_ever(now: float, count: int) -> None:
    bob, _, data = answered()
    bob.receive_datagram(data, ALICE, now)
    assert len(bob.datagrams_to_send()) == count


def test_whoever_copies_a_first_message_gets_the_answer_a_few_times() -> None:
    left, right = configs(timing=NEVER)
    bob, data = Host((right,)), first_message(left)
    bob.receive_datagram(data, ALICE, 0, BOB)
    bob.datagrams_to_send()
    for _ in range(1000): bob.receive_datagram(data, ALICE._replace(port=53), 1, BOB)
    assert len(bob.datagrams_to_send()) == ELSEWHERE
    for _ in range(1000): bob.receive_datagram(data, MALLORY, 1, BOB)
    assert not bob.datagrams_to_send()


# A request that comes back cut anew (RFC 7383 §2.5.2, §2.6.1)

def cut(asker: IKE, packet: Packet, room: int) -> tuple[bytes, ...]:
    return split(asker.outgoing, packet, asker.spi_i, asker.spi_r, response=False, initiator=asker.initiator,
                 message_id=asker.window.next_id, random=Random(room).randbytes, room=room)  # noqa: S311


def big(size: int = 1500) -> Packet:
    return Packet(ExchangeType.INFORMATIONAL, (Notify(MessageType(50000), bytes(size)),))


@pytest.mark.parametrize('first', [0, 1], ids=['initiator', 'responder'])
@pytest.mark.parametrize('before, again', [(65000, 600), (600, 400), (1200, 300)])
def test_a_request_that_was_cut_anew_is_answered_once_more(first: int, before: int, again: int) -> None:
    asker, other = up(first)
    for data in cut(asker, big(), before): other.receive_datagram(data, asker.local, 1)
    answer = [d.data for d in other.datagrams_to_send()]
    assert answer
    expected = other.window.expected_id
    pieces = cut(asker, big(), again)
    assert len(pieces) > 2
    for data in pieces[1:]: other.receive_datagram(data, asker.local, 2)
    assert not other.datagrams_to_send()  # "otherwise, it MUST be ignored"
    other.receive_datagram(pieces[0], asker.local, 2)
    assert [d.data for d in other.datagrams_to_send()] == answer and other.window.expected_id == expected


@pytest.mark.parametrize('spoil', ['flip', 'old', 'other exchange'])
def test_a_forged_or_old_fragment_brings_no_answer(spoil: str) -> None:
    asker, other = up(0)
    old = cut(asker, big(), 600)[0]
    for data in cut(asker, big(), 600): other.receive_datagram(data, asker.local, 1)
    first = bytearray(cut(asker, big(), 400)[0])
    if spoil == 'flip': first[-1] ^= 1
    if spoil == 'other exchange': first[18] = ExchangeType.CREATE_CHILD_SA
    if spoil == 'old':
        asker.window.next_id += 1
        other.receive_datagram(*cut(asker, Packet(ExchangeType.INFORMATIONAL, ()), 1200), asker.local, 1)
        first = bytearray(old)
    other.datagrams_to_send()
    other.receive_datagram(bytes(first), asker.local, 2)
    assert not other.datagrams_to_send()


def test_fragments_of_an_answered_request_are_nothing_where_none_were_agreed_on() -> None:
    asker, other = up(0, datagram=0)
    assert not other.agreed.fragments
    other.receive_datagram(cut(asker, big(), 65000)[0], asker.local, 1)
    other.datagrams_to_send()
    other.receive_datagram(cut(asker, big(), 400)[0], asker.local, 2)
    assert not other.datagrams_to_send()


# IKE SAs

def test_a_peer_has_so_many_ike_sas_and_the_oldest_goes() -> None:
    left, right = configs(timing=NEVER)
    bob, callers, closed = Host((right,)), [], []
    for n in range(PEER_LIMIT + 5):
        network, alice = called(bob, left, now=n * 2.0)
        callers.append(alice.established[0].spi_i)
        closed += [e.error for _, e in network.events(bob) if isinstance(e, Closed)]
        assert len(bob.established) == min(n + 1, PEER_LIMIT)
    assert [ike.spi_i for ike in bob.established] == callers[5:]
    assert [str(error) for error in closed] == [f'more than {PEER_LIMIT} IKE SAs with one peer'] * 5


def test_another_peer_is_not_counted_with_them() -> None:
    left, right = configs(timing=NEVER)
    other = replace(right.remote_id, data=b'carol.example.org')
    bob = Host((right, replace(right, remote_id=other)))
    called(bob, replace(left, local_id=other))
    for n in range(2 * PEER_LIMIT): called(bob, left, now=n * 2.0)
    assert Counter(ike.config.remote_id for ike in bob.established) == {
        right.remote_id: PEER_LIMIT, other: 1}


def test_what_a_peer_leaves_behind_is_nothing() -> None:
    "A thousand IKE SAs come and go, each rekeyed on the way, while one of another peer stays."
    left, right = configs(timing=replace(NEVER, ike=Lifetime(10**6)))
    other = replace(right.remote_id, data=b'carol.example.org')
    bob = Host((right, replace(right, remote_id=other)))
    called(bob, replace(left, local_id=other))
    now, gone = 10.0, []
    for _ in range(100):
        network, alice = called(bob, left, now=now)
        for begin in rekey_ike_sa, delete_ike_sa:
            alice.start(alice.established[0], begin, now=network.now)
            network.run(until=network.now + 0.1)
        network.events(alice), network.events(bob)
        gone += [weakref.ref(ike) for ike in bob.transient]
        now += 2
    for n in range(40):
        bob.handle_timer(now + n)
        bob.datagrams_to_send(), list(iter(bob.next_event, None))
    gc.collect()
    assert len(bob.sas) == len(bob.peers) == len(bob.timers.due) == 1
    # a few alarms that count no longer may still name theirs, and what that one had replaced
    assert len(bob.timers.heap) <= 2 * 1 + 16
    assert len({ref() for ref in gone} - {None}) <= 2 * (2 * 1 + 16) < len({id(ref) for ref in gone}) / 3
    assert len(bob.first) == 1 and not bob.transient and not bob.attempts


def test_a_chain_of_successors_is_walked_once() -> None:
    config, _ = configs()
    chain = [IKE(config, ALICE, BOB, initiator=True, responders={}) for _ in range(5000)]
    for old, new in pairwise(chain): old.lineage.successor = new
    assert latest(chain[0]) is chain[-1]
    assert all(ike.lineage.successor is chain[-1] for ike in chain[:-1])


def test_a_peer_that_replaces_and_does_not_delete_is_told_to_wait() -> None:
    asker, other = up(0)
    granted = 0
    for n in range(REPLACED_LIMIT + 3):
        asker, other = latest(asker), latest(other)
        conversation = rekey_ike_sa(asker)
        request = next(conversation)
        data = asker.outgoing.seal(request, asker.spi_i, asker.spi_r, response=False,
                                   initiator=asker.initiator, message_id=asker.window.next_id, random=bytes)
        asker.window.next_id += 1
        other.receive_datagram(data, asker.local, n)
        response = asker.incoming.open(said(other)[0])
        if error := response.error():
            assert error.message_type == MessageType.TEMPORARY_FAILURE
            continue
        granted += 1
        with pytest.raises(StopIteration): conversation.send(response), conversation.send(response)
        if asker.lineage.new_sas: asker.lineage.successor = asker.lineage.new_sas[-1]
    assert granted == REPLACED_LIMIT


def test_a_peer_that_moves_with_each_message_has_its_child_sas_replaced_once() -> None:
    left, right = configs(timing=NEVER)
    bob = Host((right,))
    _, alice = called(bob, left)
    mine, its = alice.established[0], bob.established[0]
    its.agreed = replace(its.agreed, nat=its.agreed.nat._replace(there=True))
    for port in range(1000, 2000):
        data = mine.outgoing.seal(
            Packet(ExchangeType.INFORMATIONAL, ()), mine.spi_i, mine.spi_r, response=False,
            initiator=True, message_id=its.window.expected_id, random=bytes)
        bob.receive_datagram(data, ALICE._replace(port=port), 2, BOB)
        assert [e for _, e in iter(bob.next_event, None) if isinstance(e, Moved)]
        renew_children(bob, its, 2)  # as the program does
    assert len(its.alarms) == 1 and not its.window.queue
    bob.datagrams_to_send()
    bob.handle_timer(2)
    request, = bob.datagrams_to_send()
    assert mine.incoming.open(request.data).notify(MessageType.REKEY_SA)
    assert request.destination == ALICE._replace(port=1999)


# Found by somebody who tried

def answer(asker: IKE, other: IKE, *payloads: Payload,
           exchange: ExchangeType = ExchangeType.INFORMATIONAL) -> Packet:
    "Send a request that no conversation of ours makes; return the response."
    response = put(asker, other, *payloads, exchange=exchange)
    assert response is not None
    return response


def test_while_we_rekey_the_ike_sa_the_peer_has_one_other_and_no_more() -> None:
    asker, other = up(0)
    other.start(rekey_ike_sa, now=1)  # which is never answered
    said(other)
    made = []
    for n in range(20):
        random = Random(n).randbytes  # noqa: S311
        sa = replace(asker.config.ike[0], spi=random(8))
        dh = KeyExchange(Group.CURVE_25519, random)
        response = answer(asker, other, SA((sa,)), Nonce(random(32)), KE(dh.group, dh.public),
                          exchange=ExchangeType.CREATE_CHILD_SA)
        made.append(response.error())
    assert made[0] is None and {e.message_type for e in made[1:]} == {MessageType.TEMPORARY_FAILURE}
    assert len(other.lineage.new_sas) == 1


def test_an_ike_sa_is_inherited_once() -> None:
    asker, other = up(0)
    for _ in range(2):
        heir = new_ike_sa(other, initiator=False, spi_i=b'12345678')
        heir.suite, heir.lineage.may_replace = other.suite, other
        heir.become(State.ESTABLISHED)
    first, second = other.lineage.new_sas
    decide(first)
    assert other.lineage.successor is first and first.children
    decide(second)
    assert other.lineage.successor is first and first.children and not second.children


def test_strangers_of_one_ipv6_network_are_counted_together() -> None:
    left, right = configs(timing=NEVER)
    bob = Host((right,), cookie_threshold=0)
    here = Endpoint('2001:db8::2', 500)
    for n in range(10 * ADDRESS_LIMIT):
        at, one = Endpoint(f'2001:db8:7::{n + 1:x}', 500), Host()
        one.connect(left, at, here, now=0)
        for _ in range(2):
            for d in one.datagrams_to_send():
                if d.data[18] == ExchangeType.IKE_SA_INIT: bob.receive_datagram(d.data, at, 0, here)
            for d in bob.datagrams_to_send(): one.receive_datagram(d.data, here, 0, at)
    assert len(bob.transient) == ADDRESS_LIMIT


def test_a_responder_that_has_never_asked_says_goodbye_when_its_time_is_up() -> None:
    timing = replace(NEVER, ike=Lifetime(0, 100))
    left, right = configs(timing=NEVER)
    bob = Host((replace(right, timing=timing),))
    network, alice = called(bob, left)
    network.run(until=110)
    assert not bob.established and not alice.established
    closed, = [e for _, e in network.events(alice) if isinstance(e, Closed)]
    assert closed.error is None


def test_a_child_sa_that_was_not_replaced_after_all_is_rekeyed_later() -> None:
    "The peer takes back what it has made in its place, after our own alarm has rung in between."
    asker, other = up(0, timing=replace(NEVER, child=Lifetime(50, 5000)))
    old, = other.children
    renew_child(other, old)
    old_child = other.children[old]
    which = Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=old_child.outbound.spi)
    conversation = rekey_child(asker, asker.child.inbound.spi)
    request = next(conversation)
    assert request.notify(MessageType.REKEY_SA) == which
    grant = answer(asker, other, *request.payloads, exchange=ExchangeType.CREATE_CHILD_SA)
    assert old in other.replaced
    other.handle_timer(49)  # too early for the peer's Delete to be missed, and the alarm finds it replaced
    asked = grant and request.one(SA).proposals[0].spi
    answer(asker, other, Delete(ProtocolID.ESP, (asked,)))
    assert list(other.children) == [old] and not other.replaced
    assert Alarm(Task.REKEY, old) in other.alarms


def test_a_replacement_that_goes_leaves_what_it_replaced_to_its_own() -> None:
    "A was replaced by B and B by C; when B goes, A still waits for its Delete."
    asker, other = up(0)
    spis = list(other.children)
    for n in range(2):
        conversation = rekey_child(asker, list(asker.children)[n])
        request = next(conversation)
        response = answer(asker, other, *request.payloads, exchange=ExchangeType.CREATE_CHILD_SA)
        conversation.send(response)
        spis.append(list(other.children)[-1])
    a, b, c = spis
    assert other.replaced == {a: b, b: c}
    answer(asker, other, Delete(ProtocolID.ESP, (other.children[b].outbound.spi,)))
    assert list(other.children) == [a, c] and other.replaced == {a: c}


def test_a_delete_of_many_costs_as_much_with_many_child_sas() -> None:
    "One look at each Child SA, and one at each SPI."
    _, other = up(0)
    child, = other.children.values()
    for n in range(1, 100):
        spi = n.to_bytes(4, 'big')
        other.children[spi] = replace(child, inbound=replace(child.inbound, spi=spi),
                                      outbound=replace(child.outbound, spi=bytes([9]) + spi[1:]))

    def seconds(count: int, children: dict) -> float:
        packet = Packet(ExchangeType.INFORMATIONAL, (Delete(ProtocolID.ESP, tuple(
            n.to_bytes(4, 'big') for n in range(10**9, 10**9 + count))),))
        other.children = children
        tries = []
        for _ in range(5):
            began = process_time()
            respond_informational(other, packet)
            tries.append(process_time() - began)
        return min(tries)
    everything = other.children
    assert seconds(15000, everything) < 2 * seconds(15000, dict(list(everything.items())[:1])) + 0.002


# One message

@pytest.mark.parametrize('count', [MAX_PAYLOADS, MAX_PAYLOADS + 1])
def test_a_sealed_message_has_so_many_payloads(count: int) -> None:
    _, chain = pack_chain([Vendor(b'')] * count)
    if count == MAX_PAYLOADS: assert len(parse_inside(Type.Vendor, chain)[0]) == count
    else:
        with pytest.raises(InvalidSyntax, match='more than 200 payloads'): parse_inside(Type.Vendor, chain)


@pytest.mark.parametrize('more', [0, 1])
def test_an_offer_has_so_many_transforms(more: int) -> None:
    ours, = parse_proposals('aes256gcm16', ProtocolID.ESP)
    each = ours.transforms * 50
    many = [replace(ours, number=n + 1, spi=b'1234', transforms=each)
            for n in range(MAX_TRANSFORMS // len(each))]
    octets = bytes(SA((*many, *[replace(many[0], number=len(many) + 1)] * more)))
    if not more: assert len(SA.parse(Reader(octets)).proposals) == len(many)
    else:
        with pytest.raises(InvalidSyntax, match='more than 500 transforms'): SA.parse(Reader(octets))


@pytest.mark.parametrize('count', [MAX_ATTRIBUTES, MAX_ATTRIBUTES + 1])
def test_a_configuration_payload_has_so_many_attributes(count: int) -> None:
    octets = bytes(CP(CfgType.CFG_REQUEST, (Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS),) * count))
    if count == MAX_ATTRIBUTES: assert len(CP.parse(Reader(octets)).attributes) == count
    else:
        with pytest.raises(InvalidSyntax, match='more than 200 attributes'): CP.parse(Reader(octets))


@pytest.mark.parametrize('rekey', [False, True])
def test_twice_the_selectors_in_a_request_cost_about_twice(rekey: bool) -> None:
    def seconds(count: int) -> float:
        sides = [tuple(TrafficSelector.from_text(f'10.{side}.0.0/24[udp/{n}]') for n in range(count))
                 for side in (1, 2)]
        tries = []
        for _ in range(3):
            asker, other = up(0)
            old = Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=asker.child.inbound.spi)
            sa = SA((replace(asker.config.esp[0], spi=b'zzzz'),))
            began = process_time()
            response = answer(asker, other, *(old,) * rekey, sa, Nonce(bytes(32)), TSi(sides[0]),
                              TSr(sides[1]), exchange=ExchangeType.CREATE_CHILD_SA)
            tries.append(process_time() - began)
            assert response.all(SA)
        return min(tries)
    assert seconds(250) < 2.5 * seconds(125)
