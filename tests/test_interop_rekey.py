"""A real strongSwan rekeys: the Child SA, with and without a Diffie-Hellman exchange, and the IKE SA.

Whoever has called, both ends must mean the same SAs afterwards, and only those.
"""
from collections.abc import Callable
from pathlib import Path

import pytest
from interop import (
    HASTE, SHOW_KEYS, Program, both_agree, called, calling, inside, needs_strongswan, same_keys,
    start)
from peers.strongswan import RELAY, Lab

pytestmark = needs_strongswan
either_role = pytest.mark.parametrize('session', [calling, called])
Session = Callable
# charon keeps, and lists, an old inbound SA for 5 s more; with 0, in 5.9.8, until it expires
SOON = 'delete_rekeyed_delay = 1\n'


def rekeyed_child(lab: Lab, ours: Program, sa: dict, old: dict) -> dict:
    "Wait until the Child SA is replaced by a new one, for the same traffic; the new one."
    new = ours.wait('ChildEstablished')
    gone = ours.wait('ChildClosed')
    assert (gone['spi_in'], gone['spi_out']) == (old['spi_in'], old['spi_out'])
    assert {new['spi_in'], new['spi_out']}.isdisjoint({old['spi_in'], old['spi_out']})
    assert new['sa'] == f'{sa["spi_i"]}:{sa["spi_r"]}'
    assert {**new, 'spi_in': 0, 'spi_out': 0, 'sa': 0} == {**old, 'spi_in': 0, 'spi_out': 0, 'sa': 0}
    both_agree(lab, sa, new)
    return new


def rekeyed_ike(ours: Program, old: dict, timeout: float = 20) -> dict:
    "Wait until the IKE SA is replaced by a new one; what is known of that."
    new = ours.wait('Rekeyed', timeout)
    assert {new['spi_i'], new['spi_r']}.isdisjoint({old['spi_i'], old['spi_r']})
    return {**old, **new}


@inside
@either_role
@pytest.mark.parametrize('group', ['', '-modp2048'])
def test_it_rekeys_the_child_sa(lab: Lab, keys: Path, session: Session, group: str) -> None:
    "Twice: the second time it is a child that has itself come of a rekeying."
    esp = f'camellia256-sha256{group}'
    start(lab, keys, esp=esp, extra=SOON + SHOW_KEYS)
    with session(lab, keys, '--esp', esp, '--dry-run') as ours:
        sa, child = ours.wait('Established'), ours.wait('ChildEstablished')
        ours.wait('Script')
        same_keys(lab, ours)
        assert 'dh-group' not in both_agree(lab, sa, child)  # IKE_AUTH: from the IKE SA's keys
        for _ in range(2):
            lab.swanctl('--rekey', '--child', 'net')
            asked = ours.wait('Message', exchange='CREATE_CHILD_SA', sent=False)
            assert ('KE' in asked['payloads']) == bool(group)
            child = rekeyed_child(lab, ours, sa, child)
            same_keys(lab, ours)
            net = both_agree(lab, sa, child)
            assert net.get('dh-group') == ('MODP_2048' if group else None)


@inside
@either_role
def test_it_rekeys_the_ike_sa(lab: Lab, keys: Path, session: Session) -> None:
    "The Child SA moves to the new IKE SA; that one works, and is rekeyed in its turn."
    start(lab, keys, extra=SOON + SHOW_KEYS)
    with session(lab, keys, '--dry-run') as ours:
        sa, child = ours.wait('Established'), ours.wait('ChildEstablished')
        both_agree(lab, sa, child)
        for _ in range(2):
            lab.swanctl('--rekey', '--ike', 'lab')
            sa = rekeyed_ike(ours, sa)
            ours.wait('Message', sent=False, payloads=['Delete'])  # of the old IKE SA
            both_agree(lab, sa, child)
            assert lab.list_sas()[0]['initiator'] == 'yes'  # who has begun the rekeying
            lab.swanctl('--rekey', '--child', 'net')
            child = rekeyed_child(lab, ours, sa, child)
            same_keys(lab, ours)  # they come from the new SK_d
        assert ours.process.poll() is None
        # both the message IDs and the keys of the new IKE SA are in order: it can be closed
        lab.swanctl('--terminate', '--ike', 'lab')
        assert ours.wait('Closed')['error'] is None
        assert lab.list_sas() == []
        if session is calling: ours.end(None, status=8)


@inside
def test_we_close_a_rekeyed_ike_sa(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    with calling(lab, keys) as ours:
        sa, child = ours.wait('Established'), ours.wait('ChildEstablished')
        lab.swanctl('--rekey', '--ike', 'lab')
        both_agree(lab, rekeyed_ike(ours, sa), child)
        ours.end()
        assert lab.list_sas() == []


@inside
@either_role
def test_lifetimes_of_seconds(lab: Lab, keys: Path, session: Session) -> None:
    "Nobody asks for it: strongSwan rekeys both of its own accord, again and again."
    # over_time is what is left for the rekeying itself, else a tenth of rekey_time: nothing
    start(lab, keys, extra=SOON,
          connection={'rekey_time': '3s', 'over_time': '60s', 'rand_time': '0s'},
          child={'rekey_time': '2s', 'life_time': '60s', 'rand_time': '0s'})
    with session(lab, keys) as ours:
        sa = ours.wait('Established')
        for _ in range(2): sa = rekeyed_ike(ours, sa)
        assert len(ours.all('ChildEstablished')) >= 3
        assert ours.process.poll() is None
        assert not ours.all('ChildFailed')


@inside
@either_role
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_it_rekeys_over_a_bad_network(lab: Lab, keys: Path, session: Session, seed: int) -> None:
    "What is lost is asked again, what comes twice is answered as before: nothing is done twice."
    start(lab, keys, extra=SOON + HASTE, connection={'remote_addrs': RELAY})
    peer = {'peer': RELAY} if session is calling else {}
    bad = {'loss': 20, 'duplicate': 20, 'delay': 5, 'seed': seed}
    with lab.relay(**bad) as counts, session(lab, keys, **peer) as ours:
        sa, child = ours.wait('Established', 60), ours.wait('ChildEstablished', 60)
        both_agree(lab, sa, child)
        for _ in range(2):
            lab.swanctl('--rekey', '--child', 'net')
            child = rekeyed_child(lab, ours, sa, child)
            lab.swanctl('--rekey', '--ike', 'lab')
            sa = rekeyed_ike(ours, sa)
            both_agree(lab, sa, child)
        assert len(ours.all('Rekeyed')) == len(ours.all('ChildClosed')) == 2
    assert counts['dropped'] > 0
