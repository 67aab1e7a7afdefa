"""Our defaults and those of strongSwan, 5 and 6, in both roles: from the first Child SA through three
rekeyings of each kind, by either side. The same with libreswan, and with ESP in a
kernel, is in test_kernel_defaults.py."""
from collections.abc import Callable

import pytest
from defaults import (
    CONNECTIONS, HOURS, SECONDS, SECRETS, ours, rekeyings, untroubled, went_straight)
from interop import end_all, inside, needs_strongswan, start, states
from pathlib import Path
from peers.strongswan import USR, Lab, poll

pytestmark = needs_strongswan
ROLES = {'initiator': ('initiator',), 'childless': ('initiator', '--childless'), 'responder': ('responder',)}


@pytest.fixture(params=['lab', 'newer_lab'])
def peer(request: pytest.FixtureRequest, keys: Path) -> Lab:
    "strongSwan, with nothing said but what has to be."
    lab = request.getfixturevalue(request.param)
    start(lab, keys)
    lab.load(CONNECTIONS, SECRETS)
    return lab


def installed(peer: Lab) -> int:
    "How many Child SAs the only IKE SA has; strongSwan lists for a while those that it has deleted."
    (state, children), *more = states(peer)
    return 0 if more or state != 'ESTABLISHED' else children.count('INSTALLED')


@inside
@pytest.mark.parametrize('who', ['we', 'it'])
@pytest.mark.parametrize('role', ROLES)
def test_everybodys_defaults_last_through_rekeyings(peer: Lab, role: str, who: str) -> None:
    def asks(*words: str) -> Callable[[], str]: return lambda: peer.swanctl('--rekey', *words)
    ask = (asks('--child', 'net'), asks('--ike', 'lab')) if who == 'it' else None
    lifetimes = SECONDS if who == 'we' else HOURS
    name, *options = ROLES[role]
    with ours(peer, name, lambda: peer.swanctl('--initiate', '--child', 'net'), '--install', 'none',
              *lifetimes, *options) as program:
        assert all(rekeyings(program, ask))
        untroubled(program)
        went_straight(program, peer.usr != USR)  # the newer one likes another group best
        assert poll(lambda: installed(peer)) == 1, peer.sas() + peer.log()[-3000:]
    end_all(peer)
