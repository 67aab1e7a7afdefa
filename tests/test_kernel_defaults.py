"""Our defaults and those of others, in both roles: a default libreswan, a default strongSwan 5.9.8 and a
default strongSwan 6. Nothing is said at either end but who it is, the secret, and the traffic: neither
algorithms nor lifetimes, nor whether rekeying has forward secrecy. Each kind of SA is rekeyed three times,
and after each a ping must come back through both kernels. A strongSwan that was told to take ML-KEM is
asked ten times. Needs a kernel with ESP, as test_kernel.py.
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from defaults import (
    CONNECTIONS, HOURS, NETS, PATIENCE, SECONDS, SECRET, SECRETS, SUITE, hybrid_connections, ours, rekeyings,
    untroubled, went_straight)
from interop import start
from kernel import holds, route_inner_networks, sas
from peers.libreswan import Libreswan
from peers.strongswan import LEFT, RIGHT, Lab, poll

ROLES = {'initiator': ('initiator',), 'childless': ('initiator', '--childless'), 'responder': ('responder',)}


class StrongSwan:
    "charon with the kernel's ESP."

    def __init__(self, lab: Lab, keys: Path):
        self.lab = lab
        start(lab, keys, kernel='kernel-netlink')
        lab.load(CONNECTIONS, SECRETS)

    def initiate(self) -> None: self.lab.swanctl('--initiate', '--child', 'net', timeout=PATIENCE)

    def rekey_child(self) -> None: self.lab.swanctl('--rekey', '--child', 'net')

    def rekey_ike(self) -> None: self.lab.swanctl('--rekey', '--ike', 'lab')

    def log(self) -> str: return self.lab.log()

    def stop(self) -> None: self.lab.stop()


def libreswan(lab: Lab, keys: Path) -> Libreswan:
    pluto = Libreswan(lab)
    pluto.start(SECRET, ends=(LEFT, RIGHT), leftsubnet=NETS[0], rightsubnet=NETS[1])
    return pluto


PEERS = {'libreswan': (libreswan, 'lab'), 'strongSwan 5': (StrongSwan, 'lab'),
         'strongSwan 6': (StrongSwan, 'newer_lab')}

# libreswan likes MODP-2048 best, strongSwan 6 P-256: a round trip, with ML-KEM in our offer or without
DETOURS = {'libreswan': 1, 'strongSwan 6': 1}


@contextmanager
def started(name: str, request: pytest.FixtureRequest, keys: Path) -> Iterator[tuple[Lab, object]]:
    "A peer with its defaults, and its lab, whose kernels are empty."
    make, where = PEERS[name]
    lab = request.getfixturevalue(where)
    route_inner_networks(lab)
    peer = make(lab, keys)
    try: yield lab, peer
    finally:
        print(peer.log()[-4000:])  # shown if it fails
        peer.stop()


def ping(lab: Lab) -> None:
    "A ping comes back, soon: an answer to one may have come by an SA that we did not have yet, or no longer."
    def answered() -> bool:
        return lab.run(['ping', '-n', '-c', '1', '-W', '1', '-I', '10.1.0.1', '10.2.0.1']).returncode == 0
    assert poll(answered, 20), 'no ping comes back'


@pytest.mark.parametrize('who', ['we', 'it'])
@pytest.mark.parametrize('role', ROLES)
@pytest.mark.parametrize('name', PEERS)
def test_everybodys_defaults_last_through_rekeyings(
        request: pytest.FixtureRequest, keys: Path, name: str, role: str, who: str,
        record_property: Callable[[str, object], None]) -> None:
    ours_role, *options = ROLES[role]
    with started(name, request, keys) as (lab, peer):
        before, lifetimes = holds(lab.left), SECONDS if who == 'we' else HOURS
        ask = (peer.rekey_child, peer.rekey_ike) if who == 'it' else None
        with ours(lab, ours_role, peer.initiate, *lifetimes, *options) as program:
            program.position = 0
            program.wait('Installed', PATIENCE)
            ping(lab)
            for _ in rekeyings(program, ask, 'Installed'): ping(lab)
            untroubled(program)
            went_straight(program, DETOURS.get(name, 0))
            poll(lambda: len(sas(lab.left)) == 2 and sas(lab.left) == sas(lab.right), 20)
            if who == 'it': assert len(sas(lab.left)) == 2 and sas(lab.left) == sas(lab.right)
        assert holds(lab.left) == before
    record_property('kernel', (f'defaults, {name}, {role}', f'{who} rekey', 'lasts'))


@pytest.mark.parametrize('who', ['we', 'it'])
@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_a_hybrid_strongswan_and_our_defaults_last_through_ten_rekeyings(
        request: pytest.FixtureRequest, keys: Path, role: str, who: str,
        record_property: Callable[[str, object], None]) -> None:
    "X25519 and ML-KEM-768, of each kind of SA, in both roles; a ping after each."
    with started('strongSwan 6', request, keys) as (lab, peer):
        lab.load(hybrid_connections(), SECRETS)
        ask = (peer.rekey_child, peer.rekey_ike) if who == 'it' else None
        with ours(lab, role, peer.initiate, *(SECONDS if who == 'we' else HOURS)) as program:
            program.position = 0
            program.wait('Installed', PATIENCE)
            ping(lab)
            for _ in rekeyings(program, ask, 'Installed', times=10): ping(lab)
            untroubled(program)
            went_straight(program)
        assert {e['suite'] for e in program.all('Established') + program.all('Rekeyed')} == {SUITE}
    record_property('kernel', (f'X25519 and ML-KEM-768, {role}', f'{who} rekey ten times', 'lasts'))
