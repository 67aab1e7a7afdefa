"""All the SAs of one end: what happens to plans when an SA is replaced, and what is kept for how long."""
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from canonical import configs, two_ends
from ike_lit.engine.create_child_sa import (
    REPLACED_LIMIT, RESPONDERS, create_child, rekey_child, rekey_ike_sa, respond_create_child_sa)
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_child, delete_ike_sa, inherit, liveness
from ike_lit.engine.model import ChildEstablished, ChildFailed, Closed, Datagram, Lifetime, Rekeyed, Timing
from ike_lit.engine.protocol import IKE, later
from ike_lit.engine.state import Alarm, State, Task
from ike_lit.testing.network import ALICE, BOB, Network, handshake
from ike_lit.wire.auth import Identity
from ike_lit.wire.const import ExchangeType, NoAdditionalSas
from ike_lit.wire.fragment import REPEATS
from ike_lit.wire.payload import Packet
from ike_lit.wire.proposal import SA

NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)


def two_hosts(timing: Timing = NEVER, seed: int = 0, **changes: object) -> tuple[Network, Host, Host]:
    "Return two hosts with an IKE SA and a Child SA between them, and their network."
    (left, right), random = configs(timing=timing, **changes), Random(7296).randbytes  # noqa: S311
    alice, bob = Host(random=random), Host((right,), random=random)
    network = Network({ALICE: alice, BOB: bob}, seed=seed, delay=0.1)
    alice.connect(left, ALICE, BOB, now=0)
    network.run(until=1)
    assert len(alice.established) == len(bob.established) == 1
    return network, alice, bob


def only(host: Host) -> IKE:
    ike, = host.established
    return ike


# Plans outlive the IKE SA on which they were made

@pytest.mark.parametrize('rekeys_itself', [True, False])
def test_leaving_during_a_rekey_of_the_ike_sa(rekeys_itself: bool) -> None:
    network, alice, bob = two_hosts()
    who = alice if rekeys_itself else bob
    who.start(only(who), rekey_ike_sa, now=1)
    if not rekeys_itself: alice.start(only(alice), liveness, now=1)  # keeps the goodbye waiting
    alice.close_all(now=1)
    network.run(until=60)
    assert not alice.established and not bob.established
    assert not [e for _, e in network.events(alice) if isinstance(e, Closed) and e.error]


def test_what_waits_for_a_rekey_is_done_by_the_heir() -> None:
    network, alice, bob = two_hosts()
    ike = only(alice)
    alice.start(ike, rekey_ike_sa, now=1)
    alice.start(ike, delete_child, *ike.children, now=1)
    alice.start(ike, create_child, now=1)
    network.run(until=60)
    assert only(alice) is not ike and only(alice) is ike.lineage.successor
    made = [e.child for _, e in network.events(alice) if isinstance(e, ChildEstablished)]
    assert len(made) == 2 and only(alice).children == {made[1].inbound.spi: made[1]}
    assert only(bob).child.inbound == made[1].outbound


def test_a_conversation_with_a_replaced_sa_is_one_with_its_successor() -> None:
    network, alice, bob = two_hosts()
    old = only(alice)
    alice.start(old, rekey_ike_sa, now=1)
    network.run(until=10)
    alice.start(old, rekey_child, only(alice).child.inbound.spi, now=10)
    network.run(until=20)
    assert only(bob).child.inbound == only(alice).child.outbound
    alice.start(old, delete_ike_sa, now=20)
    network.run(until=30)
    assert not alice.established and not bob.established


def test_renewals_do_not_queue() -> None:
    "A Child SA is due while the IKE SA is being replaced: it waits, and is replaced once."
    timing = Timing(child=Lifetime(10, 100), ike=Lifetime(10, 100), liveness=0)
    network, alice, bob = two_hosts(timing)
    network.run(until=600)
    events = [e for _, e in network.events(alice)]
    made = sum(isinstance(e, ChildEstablished) for e in events)
    assert not [e for e in events if isinstance(e, Closed) and e.error]
    assert 60 <= made <= 140  # each end has a clock of its own, and Child SAs live 9 to 10 s
    assert len(only(alice).children) == 1


def test_a_renewal_that_the_peer_has_made_is_not_made_again() -> None:
    "Our time to replace the IKE SA comes while we wait for an answer, and the peer is quicker."
    for seed in range(10):
        network, alice, bob = two_hosts(seed=seed)
        ike = only(alice)
        later(ike, Alarm(Task.REKEY), 1.01 - ike.now, rekey_ike_sa)
        alice.start(ike, liveness, now=1)
        bob.start(only(bob), rekey_ike_sa, now=1)
        network.run(until=60)
        assert sum(isinstance(e, Rekeyed) for _, e in network.events(alice)) == 1


@pytest.mark.parametrize('planner', [0, 1])
def test_plans_of_the_loser_of_a_collision(planner: int) -> None:
    "Both replace the IKE SA; one of them has more to do; it is done at once on the SA that stays."
    network, alice, bob = two_hosts()
    hosts = alice, bob
    for host in hosts: host.start(only(host), rekey_ike_sa, now=1)
    ike = only(hosts[planner])
    hosts[planner].start(ike, delete_child, *ike.children, now=1)
    network.run(until=3)
    assert only(alice).children == only(bob).children == {}
    assert (only(alice).spi_i, only(alice).spi_r) == (only(bob).spi_i, only(bob).spi_r)


# What could not be replaced

def test_an_heir_that_was_replaced_before_it_was_chosen() -> None:
    "It hands on to its own successor what it inherits: the Child SAs, with their alarms."
    old, heir, last = (handshake(*two_ends(RESPONDERS))[0] for _ in range(3))
    child, = old.children
    old.alarm(Alarm(Task.EXPIRE, child), 5, lambda ike: None)
    inherit(heir, last)
    inherit(old, heir)
    assert child in last.children and Alarm(Task.EXPIRE, child) in last.alarms
    assert not heir.children and not old.children and Alarm(Task.DELETE) in heir.alarms


def test_a_child_sa_that_is_never_replaced_ends_the_ike_sa() -> None:
    "RFC 7296 §2.8, with a peer that refuses: 'MUST close the IKE SA and any associated Child SAs'."
    network, alice, bob = two_hosts(Timing(child=Lifetime(20, 60), ike=Lifetime(), liveness=0))
    def refuse(ike: IKE, request: Packet) -> Packet:
        raise NoAdditionalSas('no more of them')
    only(bob).responders = {**RESPONDERS, ExchangeType.CREATE_CHILD_SA: refuse}
    only(bob).alarms.clear()
    network.run(until=59)
    assert alice.established
    network.run(until=70)
    assert not alice.established and not bob.established
    closed = [e for _, e in network.events(alice) if isinstance(e, Closed) and e.error]
    assert len(closed) == 1


@pytest.mark.parametrize('begin, spi, reason', [
    (rekey_child, bytes(4), 'reserved SPI 00000000'), (rekey_child, 'old', 'already'),
    (rekey_child, bytes(8), 'an SPI of 8 octets'),
    (rekey_ike_sa, bytes(8), 'can not have the SPI 0000'), (rekey_ike_sa, 'old', 'can not have'),
    (rekey_ike_sa, b'1234', 'an SPI of 4 octets'), (rekey_child, None, 'no answer'),
    (rekey_ike_sa, None, 'no answer')])
@pytest.mark.parametrize('first', [0, 1])
def test_a_false_answer_to_a_rekey_or_none_closes_with_a_reason(
        begin: Callable, spi: bytes | str | None, reason: str, first: int) -> None:
    "Never in a hang, nor in two live pairs."
    network, *hosts = two_hosts()
    who, liar = hosts[first], hosts[1 - first]
    ike, old = only(who), only(liar)

    def lie(ike: IKE, request: Packet) -> Packet:
        used = {4: old.child.inbound.spi, 8: old.spi_r}
        response = respond_create_child_sa(ike, request)
        sa = response.one(SA).proposals[0]
        false = used[len(sa.spi)] if spi == 'old' else spi
        return replace(response, payloads=tuple(
            SA((replace(sa, spi=false),)) if isinstance(p, SA) else p for p in response.payloads))
    old.responders = {**RESPONDERS, ExchangeType.CREATE_CHILD_SA: lie}
    if spi is None: network.hosts = {address: h for address, h in network.hosts.items() if h is who}
    who.start(ike, begin, *([ike.child.inbound.spi] if begin is rekey_child else []), now=1)
    network.run(until=120)
    told = network.events(who)
    if begin is rekey_child and spi is not None:  # it ends the exchange
        failed = [e for _, e in told if isinstance(e, ChildFailed)]
        assert failed and all(reason in str(e.error) for e in failed)
        assert only(who).child.outbound == only(liar).child.inbound
        return
    closed, = [e for _, e in told if isinstance(e, Closed)]
    assert closed.error and reason in str(closed.error)
    assert not who.established and not who.next_timer()
    # a liar that has made itself an IKE SA of its own will find out by asking whether we live
    if spi is not None and begin is rekey_child: assert not liar.established


def test_without_renewal_a_child_sa_just_ends() -> None:
    network, alice, bob = two_hosts(Timing(child=Lifetime(0, 60), ike=Lifetime(), liveness=0))
    network.run(until=100)
    assert only(alice).children == only(bob).children == {}


# What is kept

def test_a_long_life_leaves_nothing_behind() -> None:
    "An hour with a renewal every few seconds: tables and timers are as small as at the beginning."
    timing = Timing(child=Lifetime(10, 60), ike=Lifetime(45, 90), liveness=5)
    network, alice, bob = two_hosts(timing)
    sizes = []
    for minute in range(1, 61):
        network.run(until=60 * minute)
        network.events(alice), network.events(bob)
        sizes.append([(len(h.sas), len(h.first), len(h.transient), len(h.attempts), len(h.timers.heap),
                       len(h.timers.due), len(only(h).alarms), len(only(h).children))
                      for h in (alice, bob)])
    for host in 0, 1:
        for n in range(8): assert max(s[host][n] for s in sizes[30:]) <= max(10, sizes[2][host][n])


def test_datagrams_leave_no_timers_behind() -> None:
    network, alice, bob = two_hosts(Timing(liveness=60))
    seen: list[Datagram] = []
    network.tap = seen.append
    alice.start(only(alice), liveness, now=1)
    network.run(until=2)
    before = len(bob.timers.heap)
    for _ in range(500): bob.receive_datagram(seen[0].data, ALICE, 3, BOB)
    assert len(bob.timers.heap) == before and len(bob.datagrams_to_send()) == REPEATS


def test_what_is_half_open_is_forgotten_in_time() -> None:
    "With its keys, and although no other datagram comes; so is what is closed."
    (left, right), alice = configs(timing=NEVER), Host()
    bob = Host((right,))
    alice.connect(left, ALICE, BOB, now=0)
    bob.receive_datagram(alice.datagrams_to_send()[0].data, ALICE, 5, BOB)
    (half_open,), = bob.sas.values()
    assert half_open.state == State.CONNECTING and half_open.keys
    at = bob.next_timer()
    assert at == 5 + 30
    bob.handle_timer(at - 1)
    assert half_open.keys
    bob.handle_timer(at)
    assert half_open.state == State.CLOSED and half_open.keys is None
    assert not bob.sas and not bob.first and not bob.transient and bob.next_timer() is None
    network, alice, bob = two_hosts()
    network.run(until=100)
    alice.close_all(now=100)
    network.run(until=120)
    assert all(ike.state == State.CLOSED for host in (alice, bob) for (ike,) in host.sas.values())
    assert bob.sas
    network.run(until=200)
    assert not alice.sas and not bob.sas and not alice.timers.heap and not bob.timers.heap


def replaced_for_ever(times: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Network, Host]:
    "Let Alice replace her IKE SA again and again, and delete none; return Bob."
    network, alice, bob = two_hosts()
    monkeypatch.setattr('ike_lit.engine.create_child_sa.delete_ike_sa', lambda ike: iter(()))
    for _ in range(times):
        alice.start(only(alice), rekey_ike_sa, now=network.now)
        network.delay = 0
        network.run(until=network.now + 0.01)
        network.events(alice), network.events(bob)
    return network, bob


def test_a_peer_that_replaces_ike_sas_and_deletes_none_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    network, bob = replaced_for_ever(50, monkeypatch)
    assert len(bob.sas) == 1 + REPLACED_LIMIT
    network.run(until=200)
    assert len(bob.sas) == len(bob.established) == 1


def test_a_long_chain_of_replaced_ike_sas_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    "The limit is not all that stands between a peer and a recursion, or a loop through all of them."
    monkeypatch.setattr('ike_lit.engine.create_child_sa.REPLACED_LIMIT', 10**6)
    network, bob = replaced_for_ever(1100, monkeypatch)
    assert len(bob.sas) > 1000
    network.run(until=200)
    assert len(bob.sas) == len(bob.established) == 1


def test_a_candidate_that_was_forgotten_stays_so() -> None:
    "An old answer comes once more, after that which came of it was given up, and before the attempt is."
    (left, right), alice = configs(), Host()
    bob = Host((right,))
    alice.connect(left, ALICE, BOB, now=0)
    bob.receive_datagram(alice.datagrams_to_send()[0].data, ALICE, 0, BOB)
    answer = bob.datagrams_to_send()[0].data
    alice.receive_datagram(answer, BOB, 0, ALICE)
    while len(alice.transient) < 2: alice.handle_timer(alice.next_timer())
    candidate, _ = alice.transient
    alice.handle_timer(alice.transient[candidate])
    alice.receive_datagram(answer, BOB, 61, ALICE)
    while (at := alice.next_timer()) is not None: alice.handle_timer(at)
    assert not alice.sas and not alice.attempts and not alice.transient


def test_initial_contact_is_about_two_names() -> None:
    "RFC 7296 §2.4: 'the only IKE SA currently active between the authenticated identities'."
    left, right = configs(timing=NEVER, initial_contact=True)
    names = [Identity.from_text(f'{name}.example.org') for name in ('bob', 'other')]
    bob = Host(tuple(replace(right, local_id=name) for name in names))
    for name, expected in (names[0], names[:1]), (names[1], names), (names[1], names):
        alice = Host()
        network = Network({ALICE: alice, BOB: bob})
        alice.connect(replace(left, remote_id=name), ALICE, BOB, now=0)
        network.run(until=1)
        assert alice.established and [ike.config.local_id for ike in bob.established] == expected


@pytest.mark.parametrize('goes_on', [False, True])
def test_no_address_has_all_the_room(goes_on: bool) -> None:
    """Whoever calls a hundred times, half-way with a cookie each, or to the end with a wrong name, does not
    push out the honest caller whose IKE_AUTH is on its way."""
    left, right = configs(timing=NEVER)
    bob, alice = Host((right,), cookie_threshold=2), Host()
    alice.connect(left, ALICE, BOB, now=0)
    bob.receive_datagram(alice.datagrams_to_send()[0].data, ALICE, 0, BOB)
    answer, = bob.datagrams_to_send()
    waiting, = bob.transient
    strange = replace(left, local_id=Identity.from_text('m.example.org'))
    for n in range(150):
        port = ALICE._replace(host='192.0.2.66', port=1000 + n)
        one = Host()
        one.connect(strange, port, BOB, now=1)
        while sent := [d for d in one.datagrams_to_send()
                       if goes_on or d.data[18] == ExchangeType.IKE_SA_INIT]:
            for d in sent: bob.receive_datagram(d.data, port, 1, BOB)
            for d in bob.datagrams_to_send(): one.receive_datagram(d.data, BOB, 1, port)
    half_open = [ike for ike in bob.transient if ike.state == State.CONNECTING]
    # without a cookie one of them is below the threshold; with one there are five
    assert half_open == [waiting] if goes_on else len(half_open) == 1 + 1 + 5
    assert len(bob.transient) == (100 if goes_on else 7)
    alice.receive_datagram(answer.data, BOB, 1, ALICE)
    bob.receive_datagram(alice.datagrams_to_send()[0].data, ALICE, 1, BOB)
    assert bob.established == [waiting]


def test_a_rival_that_was_silent_for_long_can_still_repeat_its_goodbye() -> None:
    "INITIAL_CONTACT closes what has heard nothing for an hour; it is kept as long as others."
    network, alice, bob = two_hosts()
    old = only(bob)
    again = Host()
    network.hosts[ALICE] = again
    again.connect(configs(timing=NEVER, initial_contact=True)[0], ALICE, BOB, now=3600)
    network.now = 3600
    network.run(until=3610)
    assert old.state == State.CLOSED and old in bob.transient
