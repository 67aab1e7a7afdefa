"""RFC 7296 §2.23: who may move a peer, and by what.

A peer that is behind no NAT does not move. One that is moves by a new, authentic message, and it is told.
An end that is behind a NAT itself follows nobody.
"""
from dataclasses import replace

import pytest
from canonical import configs, two_ends
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child
from ike_lit.engine.host import Host
from ike_lit.engine.informational import liveness
from ike_lit.engine.model import ChildEstablished, Datagram, Dropped, Lifetime, Moved, Timing
from ike_lit.engine.protocol import IKE, follow
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, events, handshake
from ike_lit.wire.const import ExchangeType
from ike_lit.wire.nat import Endpoint, Nat
from test_exchanges import said

NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
MALLORY = Endpoint('198.51.100.66', 4711)
NATT = {end: end._replace(port=4500, natt=True) for end in (ALICE, BOB, MALLORY)}


def where(ike: IKE) -> tuple:
    "Return where an end believes the other one to be, for IKE and for ESP."
    return ike.local, ike.remote, [(c.inbound.source, c.outbound.destination, c.encap)
                                   for c in ike.children.values()]


def up(nat: Nat, first: int) -> tuple[IKE, IKE]:
    "Return an end that has seen this NAT, and the other one; the first is Alice or Bob."
    ends = handshake(*two_ends(RESPONDERS, *configs(timing=NEVER)))
    one, other = ends[first], ends[1 - first]
    one.agreed = replace(one.agreed, nat=nat)
    for end in ends: events(end)
    return one, other


@pytest.mark.parametrize('elsewhere', [
    MALLORY, ALICE._replace(port=61002), BOB._replace(port=61002), *NATT.values()], ids=str)
@pytest.mark.parametrize('nat', [
    Nat(True), Nat(False), Nat(True, here=True), Nat(True, here=True, there=True)],
    ids=['no NAT', 'unknown', 'here', 'at both'])
@pytest.mark.parametrize('begin', [liveness, rekey_child])
@pytest.mark.parametrize('first', [0, 1], ids=['initiator', 'responder'])
def test_a_request_moves_nobody_who_is_behind_no_nat_or_whom_we_must_not_follow(
        first: int, begin: object, nat: Nat, elsewhere: Endpoint) -> None:
    one, other = up(nat, first)
    before = where(one)[:2]
    hosts = where(one)[2][0]
    other.start(begin, *(other.children if begin is rekey_child else ()), now=1)
    data, = said(other)
    here = one.local._replace(port=4500, natt=True) if elsewhere.natt else one.local
    one.receive_datagram(data, elsewhere, 1, here)
    answer, = one.datagrams_to_send()
    assert answer.destination == elsewhere  # §2.11: that is where it was asked
    assert where(one)[:2] == before and set(where(one)[2]) == {hosts}
    assert not [e for e in events(one) if isinstance(e, Moved)]


@pytest.mark.parametrize('first', [0, 1], ids=['initiator', 'responder'])
@pytest.mark.parametrize('nat', [Nat(True), Nat(True, here=True, there=True)])
def test_a_response_moves_nobody_either(first: int, nat: Nat) -> None:
    one, other = up(nat, first)
    before = where(one)
    one.start(liveness, now=1)
    other.receive_datagram(said(one)[0], one.local, 1)
    one.receive_datagram(said(other)[0], MALLORY, 1)
    assert where(one) == before and one.window.pending is None
    assert not [e for e in events(one) if isinstance(e, Moved)]


@pytest.mark.parametrize('first', [0, 1], ids=['initiator', 'responder'])
@pytest.mark.parametrize('answers', [False, True])
def test_a_peer_behind_a_nat_is_followed_with_its_esp_and_it_is_told(first: int, answers: bool) -> None:
    one, other = up(Nat(True, there=True), first)
    new = other.local._replace(host='198.51.100.7', port=61002)
    asker = one if answers else other
    asker.start(liveness, now=1)
    data, = said(asker)
    if answers:
        other.receive_datagram(data, one.local, 1)
        data, = said(other)
    one.receive_datagram(data, new, 1)
    assert one.remote == new and where(one)[2][0][:2] == (new.host, new.host)
    moved, = [e for e in events(one) if isinstance(e, Moved)]
    assert moved.after == new


@pytest.mark.parametrize('first', [0, 1], ids=['initiator', 'responder'])
def test_nothing_old_and_nothing_forged_moves_anybody(first: int) -> None:
    one, other = up(Nat(True, there=True), first)
    other.start(liveness, now=1)
    data, = said(other)
    one.receive_datagram(data, other.local, 1)
    said(one)
    before = where(one)
    for octets in data, data[:-1] + bytes([data[-1] ^ 1]), data[:20] + b'\0\0\0\x09' + data[24:]:
        one.receive_datagram(octets, MALLORY, 2)
        assert where(one) == before and not [e for e in events(one) if isinstance(e, Moved)]


# IKE_AUTH, which may go over to port 4500

class Race:
    "A handshake of which Mallory has a copy of IKE_AUTH, and is quicker."

    def __init__(self, nat_at: str = '', source: Endpoint = MALLORY, natt: bool = True):
        left, right = configs(timing=NEVER)
        self.alice, self.bob = Host(), Host((right,))
        seen = ALICE._replace(host='192.0.2.77', port=40000) if nat_at == 'alice' else ALICE
        to = BOB._replace(host='10.0.0.2') if nat_at == 'bob' else BOB  # what Bob knows himself as
        self.alice.connect(left, ALICE, BOB, now=0, natt=(NATT[ALICE], NATT[BOB]))
        request, = self.alice.datagrams_to_send()
        self.bob.receive_datagram(request.data, seen, 0, to)
        answer, = self.bob.datagrams_to_send()
        self.alice.receive_datagram(answer.data, BOB, 0, ALICE)
        self.auth: Datagram
        self.auth, = self.alice.datagrams_to_send()
        here = to._replace(port=4500, natt=True) if natt else to
        self.bob.receive_datagram(self.auth.data, source, 0, here)
        self.to_mallory = self.bob.datagrams_to_send()
        true = seen._replace(port=seen.port + 1, natt=True) if self.auth.source.natt else seen
        self.true, self.here = true, to._replace(port=4500, natt=True) if self.auth.source.natt else to
        self.bob.receive_datagram(self.auth.data, self.true, 0.1, self.here)
        for d in self.bob.datagrams_to_send(): self.alice.receive_datagram(d.data, BOB, 0.1, self.auth.source)

    def check(self) -> IKE:
        assert len(self.alice.established) == len(self.bob.established) == 1
        return self.bob.established[0]


@pytest.mark.parametrize('natt', [True, False])
def test_a_copy_of_ike_auth_from_another_host_is_not_taken_and_the_true_one_is(natt: bool) -> None:
    race = Race(source=MALLORY._replace(natt=natt), natt=natt)
    ike = race.check()
    assert not race.to_mallory and ike.remote == ALICE
    child, = ike.children.values()
    assert child.outbound.destination == child.inbound.source == ALICE.host
    dropped = [e.reason for _, e in iter(race.bob.next_event, None) if isinstance(e, Dropped)]
    assert dropped == ['IKE_AUTH from another host than IKE_SA_INIT, without a NAT']


def test_behind_a_nat_of_our_own_a_copy_from_another_host_is_not_taken() -> None:
    race = Race('bob')
    ike = race.check()
    assert ike.agreed.nat.here and not race.to_mallory and ike.remote.host == ALICE.host and ike.remote.natt
    child, = ike.children.values()
    assert child.outbound.destination == ALICE.host


def test_behind_a_nat_of_alices_the_quicker_one_is_followed_until_she_speaks_again_and_it_is_told() -> None:
    "A NAT may give her another address at any time, so this can't be told from a copy; but she wins."
    race = Race('alice', natt=True, source=NATT[MALLORY])
    ike = race.check()
    told = [e for _, e in iter(race.bob.next_event, None) if isinstance(e, Moved | ChildEstablished)]
    assert [type(e) for e in told] == [Moved, ChildEstablished] and told[0].after == NATT[MALLORY]
    race.alice.start(race.alice.established[0], liveness, now=1)
    request, = race.alice.datagrams_to_send()
    race.bob.receive_datagram(request.data, race.true, 1, race.here)
    assert ike.remote == race.true
    assert [c.outbound.destination for c in ike.children.values()] == [race.true.host]


def test_ike_auth_goes_over_to_port_4500_of_the_same_host_without_being_told() -> None:
    left, right = configs(timing=NEVER)
    alice, bob = Host(), Host((right,))
    alice.connect(left, ALICE, BOB, now=0)
    bob.receive_datagram(alice.datagrams_to_send()[0].data, ALICE, 0, BOB)
    alice.receive_datagram(bob.datagrams_to_send()[0].data, BOB, 0, ALICE)
    auth, = alice.datagrams_to_send()
    bob.receive_datagram(auth.data, NATT[ALICE], 0, NATT[BOB])
    ike, = bob.established
    assert (ike.local, ike.remote) == (NATT[BOB], NATT[ALICE]) and auth.data[18] == ExchangeType.IKE_AUTH
    assert not [e for _, e in iter(bob.next_event, None) if isinstance(e, Moved)]


def test_without_nat_detection_ike_auth_from_elsewhere_is_answered_and_moves_nothing() -> None:
    _, bob = two_ends(RESPONDERS, *configs(timing=NEVER))
    bob.agreed, bob.state = replace(bob.agreed, nat=Nat(False)), State.CONNECTING
    follow(bob, MALLORY, BOB, ExchangeType.IKE_AUTH)
    assert (bob.local, bob.remote) == (BOB, ALICE)
