"""A real strongSwan that calls our responder, and what either end does of its own accord later;
then both ways again over a network that loses, doubles and reorders.

These run by way of test_interop_strongswan.py for those who are not root.
"""
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from interop import (
    HASTE, SHOW_KEYS, both_agree, called, calling, command, inside, needs_strongswan, responder,
    same_keys, start)
from peers.strongswan import LEFT, RELAY, RIGHT, Lab, poll

pytestmark = needs_strongswan
either_role = pytest.mark.parametrize('session', [calling, called])
Session = Callable


# strongSwan calls

@inside
@pytest.mark.parametrize('theirs, options, proof', [
    ({}, [], 'method 14, RSA with SHA2-256'),
    ({'local_auth': 'rsa/pss-sha256'}, [], 'method 14, RSA-PSS with SHA2-256'),
    ({'extra': 'signature_authentication = no'}, ['--allow-sha1'], 'method 1, RSA with SHA-1'),
    ({'ike': 'aes256-sha256-modp2048', 'esp': 'aes256-sha256'}, [],
     'method 14, RSA with SHA2-256')])
def test_it_calls(lab: Lab, keys: Path, theirs: dict, options: list[str], proof: str) -> None:
    start(lab, keys, **{**theirs, 'extra': SHOW_KEYS + theirs.get('extra', '')})
    with called(lab, keys, *options, '--dry-run') as ours:
        sa = ours.wait('Established')
        both_agree(lab, sa, ours.wait('ChildEstablished'))
        ours.wait('Script')
        same_keys(lab, ours)
        assert sa['proof'] == f'{proof}, key of 2048 bits'
        assert sa['nat'] == {'supported': True, 'here': False, 'there': True}
        assert (sa['local'], sa['remote']) == (f'{LEFT}:4500', f'{RIGHT}:4500')


@inside
def test_it_calls_over_ipv6(lab: Lab, keys: Path) -> None:
    start(lab, keys, local_ts='fd02::/64', remote_ts='fd01::/64',
          connection={'remote_addrs': 'fd09::1'})
    ts = ['--local-ts', 'fd01::/64', '--remote-ts', 'fd02::/64']
    with called(lab, keys, peer='fd09::1', selectors=ts) as ours:
        sa = ours.wait('Established')
        both_agree(lab, sa, ours.wait('ChildEstablished'))
        assert sa['remote'] == '[fd09::2]:4500'


@inside
def test_we_narrow(lab: Lab, keys: Path) -> None:
    start(lab, keys, local_ts='10.0.0.0/8', remote_ts='10.1.0.0/16')
    with called(lab, keys) as ours:
        child = both_agree(lab, ours.wait('Established'), ours.wait('ChildEstablished'))
        assert (child['local-ts'], child['remote-ts']) == (['10.2.0.0/24'], ['10.1.0.0/24'])


@inside
@pytest.mark.parametrize('theirs, options, words', [
    ({'ike': 'aes128-sha256-modp2048'}, [], 'received NO_PROPOSAL_CHOSEN notify error'),
    ({'esp': 'aes128-sha256'}, [], 'received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built'),
    ({'remote_ts': '172.16.0.0/12'}, [], 'received TS_UNACCEPTABLE notify, no CHILD_SA built'),
    ({}, ['--remote-id', 'carol.example.org'], 'received AUTHENTICATION_FAILED notify error'),
    ({}, ['--peer-key', 'stranger.pub'], 'received AUTHENTICATION_FAILED notify error')])
def test_it_is_refused(lab: Lab, keys: Path, theirs: dict, options: list[str],
                       words: str) -> None:
    start(lab, keys, **theirs)
    options = [str(keys / o) if o.startswith('stranger') else o for o in options]
    with responder(lab, keys, *options) as ours:
        with pytest.raises(RuntimeError, match=words): lab.swanctl('--initiate', '--child', 'net')
        ours.end()
        assert not ours.all('ChildEstablished')


@inside
def test_it_refuses_us(lab: Lab, keys: Path) -> None:
    "It learns last who we are, so it has to tell us in an exchange of its own."
    start(lab, keys)
    with responder(lab, keys, '--private-key', str(keys / 'stranger.key')) as ours:
        with pytest.raises(RuntimeError, match='signature validation failed'):
            lab.swanctl('--initiate', '--child', 'net')
        ours.wait('Message', sent=False, payloads=['N(AUTHENTICATION_FAILED)'])
        assert ours.wait('Closed')['type'] == 'AUTHENTICATION_FAILED'
        assert lab.list_sas() == []


@inside
def test_it_calls_twice_and_again(lab: Lab, keys: Path) -> None:
    """Reauthentication of IKEv2: the IKE SA is deleted, and a new one made from the beginning.

    If we answer at once, charon may not yet know its new SA, and it drops our response."""
    start(lab, keys, extra=HASTE)
    with called(lab, keys) as ours:
        first = ours.wait('Established')
        lab.swanctl('--rekey', '--ike', 'lab', '--reauth')
        ours.wait('Closed', error=None)
        second = ours.wait('Established')
        both_agree(lab, second, ours.wait('ChildEstablished'))
        assert first['spi_i'] != second['spi_i'] and first['spi_r'] != second['spi_r']


# What strongSwan does later, whoever has called

@inside
@either_role
def test_it_asks_whether_we_live(lab: Lab, keys: Path, session: Session) -> None:
    start(lab, keys, connection={'dpd_delay': '1s'})
    with session(lab, keys) as ours:
        sa, child = ours.wait('Established'), ours.wait('ChildEstablished')
        for _ in range(2):
            asked = ours.wait('Message', exchange='INFORMATIONAL', sent=False, payloads=[])
            ours.wait('Message', sent=True, response=True, message_id=asked['message_id'])
        both_agree(lab, sa, child)
        assert re.search(r'sending DPD request(.*\n)+.*parsed INFORMATIONAL response', lab.log())


@inside
@either_role
def test_it_deletes_the_ike_sa(lab: Lab, keys: Path, session: Session) -> None:
    start(lab, keys)
    with session(lab, keys) as ours:
        sa = ours.wait('ChildEstablished')
        lab.swanctl('--terminate', '--ike', 'lab')
        assert ours.wait('Closed') == {'event': 'Closed', 'error': None, 'type': None, 'why': [],
                                       'by_peer': True, 'replaced': False, 'sa': sa['sa'], 'with': sa['with']}
        assert lab.list_sas() == []
        if session is calling: ours.end(None, status=8)  # by itself, and not by our wish


@inside
def test_it_deletes_the_child_sa(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    with called(lab, keys) as ours:
        child = ours.wait('ChildEstablished')
        lab.swanctl('--terminate', '--child', 'net')
        assert ours.wait('ChildClosed') == {**child, 'event': 'ChildClosed'}
        sa, = lab.list_sas()
        assert (sa['state'], sa['child-sas']) == ('ESTABLISHED', [])


@inside
def test_we_delete_the_ike_sa(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    with calling(lab, keys) as ours:
        ours.wait('ChildEstablished')
        assert len(lab.list_sas()) == 1
        ours.end()
        assert lab.list_sas() == []


@inside
def test_it_asks_for_a_cookie(lab: Lab, keys: Path) -> None:
    "charon wants one as soon as one IKE SA is half open: one of ours that never gets to IKE_AUTH."
    start(lab, keys, extra='cookie_threshold = 1')
    lost = lab.run(command(keys, '--nat-port', '4499', '--timeout', '0.5'))
    assert lost.returncode == 3
    with calling(lab, keys) as ours:
        ours.wait('Message', sent=False, payloads=['N(COOKIE)'])
        sa = ours.wait('Established')
        theirs, = [x for x in lab.list_sas() if x['state'] == 'ESTABLISHED']
        assert (theirs['initiator-spi'], theirs['responder-spi']) == (sa['spi_i'], sa['spi_r'])


# A bad network between the two. Both ends see a NAT, which the relay is

@inside
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_we_call_over_a_bad_network(lab: Lab, keys: Path, seed: int) -> None:
    start(lab, keys)
    with lab.relay(loss=20, duplicate=10, delay=5, seed=seed) as counts:
        with calling(lab, keys, '--once', '--timeout', '60', peer=RELAY) as ours:
            sa = ours.wait('Established', timeout=60)
            assert sa['nat'] == {'supported': True, 'here': True, 'there': True}
            ours.end(None, timeout=60)
        assert ours.all('ChildEstablished') and ours.events[-1]['event'] == 'Closed'
    assert counts['dropped'] > 0
    assert [e for e in ours.all('Message', sent=True) if e['attempt'] > 1]
    poll(lambda: not lab.list_sas())
    assert lab.list_sas() == []


@inside
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_it_calls_over_a_bad_network(lab: Lab, keys: Path, seed: int) -> None:
    start(lab, keys, extra=HASTE, connection={'remote_addrs': RELAY})
    bad = {'loss': 20, 'duplicate': 10, 'delay': 5, 'seed': seed}
    with lab.relay(**bad) as counts, called(lab, keys) as ours:
        sa, child = ours.wait('Established'), ours.wait('ChildEstablished')
        both_agree(lab, sa, child)
        assert sa['remote'] == f'{RELAY}:4500' and sa['nat']['here'] and sa['nat']['there']
        lab.swanctl('--terminate', '--ike', 'lab')
        ours.wait('Closed', error=None)
    assert counts['dropped'] > 0 and 'retransmit 1 of request' in lab.log()


@inside
@either_role
def test_everything_comes_twice_and_late(lab: Lab, keys: Path, session: Session) -> None:
    start(lab, keys, connection={'remote_addrs': RELAY})
    peer = {'peer': RELAY} if session is calling else {}
    with (lab.relay(duplicate=100, delay=20) as counts, session(lab, keys, **peer) as ours):
        both_agree(lab, ours.wait('Established'), ours.wait('ChildEstablished'))
        lab.swanctl('--terminate', '--ike', 'lab')
        if session is calling: ours.end(None, status=8)
        else: ours.end()
        for event in 'Established', 'ChildEstablished', 'Closed': assert len(ours.all(event)) == 1
    assert counts['dropped'] == 0 and counts['duplicated'] == counts['passed']
