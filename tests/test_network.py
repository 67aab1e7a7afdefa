"""A bad network between two hosts: whatever it does, both ends agree in the end.

Three of ten datagrams are lost each way, some come twice, all come late and out of order.
Time is a number and chance is a seed, so a failing run can be run again.
"""
from random import Random

import pytest
from canonical import configs
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_ike_sa
from ike_lit.engine.model import ChildClosed, ChildEstablished, Closed, Lifetime, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Task
from ike_lit.testing.network import ALICE, BOB, Network

RUNS, PARTS = 1000, 10
NEVER = Lifetime()


SUITES = {'one key exchange': {}, 'two': {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768',
                                          'esp': 'aes256gcm16-x25519-ke1_mlkem768'}}


def two_hosts(seed: int, timing: Timing, suite: str = 'one key exchange',
              **bad: float) -> tuple[Network, Host, Host]:
    left, right = configs(timing=timing, **SUITES[suite])
    random = Random(seed).randbytes  # noqa: S311  # the same in every run is the point
    alice, bob = Host(random=random), Host((right,), random=random)
    network = Network({ALICE: alice, BOB: bob}, seed=seed, **bad)
    alice.connect(left, ALICE, BOB, now=0)
    return network, alice, bob


def start(network: Network, host: Host, make: object) -> None:
    "Begin a conversation of the only SA of a host, if it has one."
    for ike in host.established: host.start(ike, make, now=network.now)


def rekey_its_child(ike: IKE):  # noqa: ANN201
    return rekey_child(ike, ike.child.inbound.spi if ike.child else b'')


def held(host: Host) -> set[tuple]:
    "Every Child SA of a host: SPIs and keys of what it sends, then of what it receives."
    return {((c.outbound.spi, c.outbound.encr_key, c.outbound.integ_key),
             (c.inbound.spi, c.inbound.encr_key, c.inbound.integ_key))
            for ike in host.established for c in ike.children.values()}


def agree(alice: Host, bob: Host) -> int:
    "Both have the same IKE SAs and Child SAs, with the same keys; how many Child SAs that is."
    assert held(alice) == {(out, into) for into, out in held(bob)}
    names = [{(ike.spi_i, ike.spi_r, *vars(ike.keys).values()) for ike in host.established}
             for host in (alice, bob)]
    assert names[0] == names[1]
    return len(held(alice))


@pytest.mark.parametrize('part', range(PARTS))
@pytest.mark.parametrize('suite', SUITES)
def test_both_ends_agree_in_the_end(suite: str, part: int) -> None:
    """Handshake; both rekey the Child SA, then the IKE SA, about at once; one leaves.

    After each step there is one pair of Child SAs, or none if an end has lost its patience."""
    timing = Timing(child=NEVER, ike=NEVER, liveness=40, retry=5)
    survived = 0
    for seed in range(part, RUNS, PARTS):
        network, alice, bob = two_hosts(seed, timing, suite, loss=0.3, twice=0.1, delay=1.5)
        chance = Random(seed)  # noqa: S311
        network.run(until=40)
        for make in rekey_its_child, rekey_ike_sa:
            for host in chance.sample((alice, bob), 2):
                start(network, host, make)
                network.run(until=network.now + chance.choice((0, 0.5, 3, 40)))
        calm(network)
        assert agree(alice, bob) == len(alice.established) <= 1, f'seed {seed}'
        survived += bool(alice.established)
        network.loss = 0.3
        start(network, chance.choice((alice, bob)), delete_ike_sa)
        network.run(until=network.now + 60)
        calm(network)
        assert not alice.established and not bob.established, f'seed {seed}'
        for host in alice, bob: assert told_once(network, host), f'seed {seed}'
    assert survived > RUNS // PARTS // 3  # else nothing has been tested


def calm(network: Network) -> None:
    "Let the network get well, and both ends find out what is left."
    network.run(until=network.now + 100)
    network.loss = 0
    network.run(until=network.now + 150)


def told_once(network: Network, host: Host) -> bool:
    "True if each Child SA that was established was also closed, once."
    events = [event for _, event in network.events(host)]
    opened = [e.child.inbound.spi for e in events if isinstance(e, ChildEstablished)]
    closed = [e.child.inbound.spi for e in events if isinstance(e, ChildClosed)]
    return sorted(opened) == sorted(closed) and len(set(closed)) == len(closed)


def test_lifetimes_drive_both_ends_through_many_generations() -> None:
    timing = Timing(child=Lifetime(60, 90), ike=Lifetime(180, 240), retry=5, timeout=120)
    for seed in range(20):
        network, alice, bob = two_hosts(seed, timing, loss=0.3, twice=0.1, delay=1.5)
        generations = []
        for _ in range(60):
            network.run(until=network.now + 60)
            generations += [ike.spi_i for ike in alice.established]
            assert len(held(alice)) <= 3 and len(alice.sas) < 12  # a moment of overlap
        for end in alice, bob:  # let it settle, without any more renewal
            for ike in end.established:
                for name in [a for a in ike.alarms if a.task in (Task.REKEY, Task.EXPIRE)]:
                    del ike.alarms[name]
        calm(network)
        assert agree(alice, bob) == len(alice.established) <= 1
        assert len(set(generations)) > 5 or not alice.established


def test_with_no_loss_nothing_is_lost() -> None:
    "The same on a good network: nobody loses patience, and there is always a Child SA."
    timing = Timing(child=Lifetime(60, 90), ike=Lifetime(180, 240), retry=5)
    network, alice, bob = two_hosts(7296, timing, delay=0.05)
    for _ in range(600):
        network.run(until=network.now + 7)
        assert len(alice.established) == len(bob.established) == 1 and held(alice)
    assert not [e for _, e in network.events(alice) if isinstance(e, Closed) and e.error]
