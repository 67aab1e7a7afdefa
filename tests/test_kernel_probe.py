"""What three daemons say when they are asked which algorithms they take, and what they keep of it.

strongSwan and OpenIKED look at the offer first; libreswan first looks up the group of KE, and does not like
one that it has never heard of. They run in the VM of `make vm`, for OpenIKED needs it.
"""
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from interop import start
from peers.libreswan import Libreswan
from peers.openiked import OpenIKED
from peers.strongswan import LEFT, RIGHT, Lab

Left = Callable[[], bool]  # is nothing left of the questions?


def strongswan(lab: Lab, keys: Path) -> tuple[object, Left]:
    start(lab, keys, ike='aes256gcm16-prfsha256-x25519,camellia256-sha256-modp2048')
    return lab, lambda: '0 total, 0 half-open' in lab.swanctl('--stats')


def libreswan(lab: Lab, keys: Path) -> tuple[object, Left]:
    pluto = Libreswan(lab)
    pluto.start(keys, ike='aes_gcm256-sha2_256-dh31,camellia256-sha2_256-modp2048', esp='aes_gcm256',
                ends=(LEFT, RIGHT), leftsubnet='10.1.0.0/24', rightsubnet='10.2.0.0/24')
    return pluto, lambda: 'IKE SAs: total(0), half-open(0)' in pluto.whack('status')


def openiked(lab: Lab, keys: Path) -> tuple[object, Left]:
    iked = OpenIKED(lab)
    iked.start(keys, ike='enc aes-256 auth hmac-sha2-256 prf hmac-sha2-256 group modp2048',
               esp='enc aes-256 auth hmac-sha2-512', flows='from 10.2.0.0/24 to 10.1.0.0/24',
               ends=(LEFT, RIGHT))
    return iked, lambda: 'ESTABLISHED' not in iked.ikectl('show', 'sa')


TWO = {'aes256gcm16', 'camellia256', 'sha256', 'prfsha256', 'x25519', 'modp2048'}
SUITE = 'aes256gcm16-prfsha256-x25519'
DAEMONS = {strongswan: (TWO, SUITE), libreswan: (TWO, SUITE),
           openiked: ({'aes256', 'sha256', 'prfsha256', 'modp2048'}, 'aes256-sha256-prfsha256-modp2048')}


@pytest.mark.parametrize('daemon', DAEMONS, ids=lambda daemon: daemon.__name__)
def test_a_daemon_says_what_it_takes_and_keeps_nothing(lab: Lab, keys: Path, daemon: Callable) -> None:
    taken, suite = DAEMONS[daemon]
    peer, nothing_left = daemon(lab, keys)
    try:
        done = lab.run([sys.executable, '-m', 'ike_lit.initiator', RIGHT, '--probe', '--json'], timeout=240)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0 and nothing_left(), done.stdout + done.stderr
        assert {row['algorithm'] for row in rows[:-1] if row['takes']} == taken
        assert len(rows) == 63 and all(row['takes'] is not None for row in rows[:-1])
        assert rows[-1] == {'event': 'Suite', 'ike': suite}
    finally:
        print(peer.log()[-3000:])  # shown if it fails
        peer.stop()


def test_a_closed_port_is_explained(lab: Lab) -> None:
    "In the words that the initiator has for it."
    done = lab.run([sys.executable, '-m', 'ike_lit.initiator', RIGHT, '--probe', '--port', '501'], timeout=60)
    assert done.returncode == 3 and 'says that nobody listens on UDP port 501' in done.stdout
