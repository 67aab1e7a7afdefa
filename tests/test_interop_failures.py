"""When a tunnel does not come up: what our program says to a real strongSwan that is misconfigured in just
that way, and whether a person who has nothing but that text gets any further."""
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from interop import SUITES, TS, command, inside, needs_strongswan, paragraph, running, start
from peers.strongswan import LEFT, RIGHT, Lab, execute

pytestmark = needs_strongswan


def fails(lab: Lab, keys: Path, status: int, *options: str) -> str:
    "The paragraph of a call that comes to nothing."
    argv = [a for a in command(keys, '--once', *options) if a != '--json']
    done = lab.run(argv, timeout=60)
    assert done.returncode == status and not done.stderr, done.stdout + done.stderr
    return paragraph(done.stdout)


def succeeds(lab: Lab, keys: Path, *options: str) -> bool:
    done = lab.run(command(keys, '--once', *options), timeout=60)
    return done.returncode == 0 and '"ChildEstablished"' in done.stdout


def follow(lab: Lab, text: str) -> str:
    "Do what a text says one can do: run the program that it names."
    words = re.search(r'python -m (ike_lit\S+(?: \S+)*? --probe)', text)[1].split()
    done = lab.run([sys.executable, '-m', *words], timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def dropped(lab: Lab, rule: str) -> Iterator[None]:
    "A firewall before the peer."
    def nft(text: str) -> None:
        done = execute(['ip', 'netns', 'exec', lab.right, 'nft', text])
        assert done.returncode == 0, done.stderr
    nft('add table ip wall; add chain ip wall in { type filter hook prerouting priority -500; }')
    try:
        nft(f'add rule ip wall in {rule} drop')
        yield
    finally: nft('delete table ip wall')


# No proposal in common

@inside
def test_who_follows_the_advice_about_proposals_gets_a_tunnel(lab: Lab, keys: Path) -> None:
    "Refused, ask what the peer takes, take what is recommended."
    start(lab, keys, ike='aes128gcm16-prfsha384-ecp384,3des-sha1-modp1024', esp='aes256-sha256')
    said = fails(lab, keys, 4, '--timeout', '2')
    assert 'NO_PROPOSAL_CHOSEN' in said and 'We offered camellia256-sha256' in said
    table = follow(lab, said)
    assert 'refuses' in table and 'sha1 (weak)' in table and 'modp1024 (weak)' in table
    suite = re.search(r'^together: --ike (\S+)$', table, re.MULTILINE)[1]
    assert suite == 'aes128gcm16-prfsha384-ecp384'
    assert succeeds(lab, keys, '--ike', suite)


@inside
def test_the_probe_leaves_nothing_and_is_no_burden(lab: Lab, keys: Path) -> None:
    "No half-open IKE SA, which charon would allow 5 of an address; no Diffie-Hellman computation of its."
    start(lab, keys, ike='aes256-aes128-camellia128-sha256-sha512-modp2048-ecp256-x25519,chacha20poly1305-'
          'prfsha512-x448')
    done = lab.run([sys.executable, '-m', 'ike_lit.initiator', RIGHT, '--probe', '--json'], timeout=60)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    taken = {row['algorithm'] for row in rows if row['event'] == 'Probed' and row['takes']}
    assert taken == {
        'aes256', 'aes128', 'camellia128', 'sha256', 'sha512', 'prfsha256', 'prfsha512', 'modp2048', 'ecp256',
        'x25519', 'x448', 'chacha20poly1305'}
    assert rows[-1] == {'event': 'Suite', 'ike': 'chacha20poly1305-prfsha512-x448'}
    assert len(rows) == 63 and all(row['takes'] is not None for row in rows[:-1])
    assert '0 total, 0 half-open' in lab.swanctl('--stats')
    assert 'peer too aggressive' not in lab.log() and 'KE payload' not in lab.log()


@inside
def test_other_algorithms_for_esp(lab: Lab, keys: Path) -> None:
    start(lab, keys, esp='aes128-sha256')
    said = fails(lab, keys, 4, '--esp', 'camellia256-sha256')
    assert said.startswith('no Child SA: ') and 'We offered camellia256-sha256.' in said
    assert '--esp and --mode' in said and 'esp_proposals' in said and '--probe' not in said


@inside
def test_the_other_mode(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    said = fails(lab, keys, 4, '--mode', 'transport')
    assert 'we want transport mode' in said and 'Compare --mode' in said and 'offered' not in said


# Proofs

@inside
def test_the_wrong_key_of_the_peer_is_named_by_a_hash(lab: Lab, keys: Path) -> None:
    "The hash is what the command in the text prints, for our file; for the peer's file it is another."
    start(lab, keys)
    said = fails(lab, keys, 5, '--peer-key', str(keys / 'stranger.pub'))
    assert 'does not fit the key that we have for it' in said
    printed = re.search(r'for it: key of 2048 bits, SHA-256 (\w{16})\.\.\.', said)[1]
    recipe = re.search(r'(openssl pkey .*?) \| sha256sum', said)[1].split()

    def by_hand(name: str) -> str:
        argv = [str(keys / name) if word == 'ITS.pub' else word for word in recipe]
        der = subprocess.run(argv, capture_output=True, check=True).stdout
        return hashlib.sha256(der).hexdigest()[:16]
    assert by_hand('stranger.pub') == printed != by_hand('right.pub')


@inside
def test_both_ends_with_the_same_key(lab: Lab, keys: Path) -> None:
    lab.start(left_pub=keys / 'left.pub', right_key=keys / 'left.key', right_pub=keys / 'left.pub')
    said = fails(lab, keys, 5)
    assert 'The signature is right, by our own key' in said
    assert 'Both ends have been given the same private key.' in said


@inside
@pytest.mark.parametrize('option, value', [
    ('--local-id', 'mallory.example.org'), ('--remote-id', 'carol.example.org'),
    ('--private-key', 'stranger.key')])
def test_it_does_not_believe_us(lab: Lab, keys: Path, option: str, value: str) -> None:
    "It may not say why; so we say what we claimed, and with which key."
    start(lab, keys)
    said = fails(lab, keys, 5, option, str(keys / value) if value.endswith('.key') else value)
    assert 'the peer answers AUTHENTICATION_FAILED' in said and 'Its log says why' in said
    assert re.search(r'We are FQDN \S+, by a key of 2048 bits \(SHA-256 \w{16}\.\.\.\)', said)
    if not value.endswith('.key'): assert value in said


@inside
@pytest.mark.parametrize('theirs, how', [
    (b'correct horse battery\n', 'with a newline at the end'),
    (b'"correct horse battery"', 'with double quotes around it'),
    (b'636f727265637420686f727365206261747465727900'.removesuffix(b'00'), 'written as hex')])
def test_a_shared_key_that_was_read_differently(lab: Lab, keys: Path, tmp_path: Path, theirs: bytes,
                                                how: str) -> None:
    "charon calls us with what it made of the same secret; its swanctl.conf says so in hex."
    secret = tmp_path / 'psk'
    secret.touch(mode=0o600)
    secret.write_bytes(b'correct horse battery')
    start(lab, keys, remote_auth='psk', local_auth='psk')
    lab.load({'lab': {'version': '2', 'local_addrs': '10.9.0.2', 'remote_addrs': '10.9.0.1',
                      'proposals': 'camellia256-sha256-modp2048',
                      'local': {'auth': 'psk', 'id': 'bob.example.org'},
                      'remote': {'auth': 'psk', 'id': 'alice.example.org'},
                      'children': {'net': {'local_ts': '10.2.0.0/24', 'remote_ts': '10.1.0.0/24',
                                           'esp_proposals': 'camellia256-sha256'}}}},
             {'ike': {'secret': f'0x{theirs.hex()}'}})
    argv = [sys.executable, '-m', 'ike_lit.responder', '--listen', LEFT, '--json', '--install', 'none', *TS,
            '--local-id', 'alice.example.org', '--remote-id', 'bob.example.org', *SUITES,
            '--psk-file', str(secret)]
    with running(lab, argv) as ours:
        ours.wait('Listening', 90)
        with pytest.raises(RuntimeError): lab.swanctl('--initiate', '--child', 'net')
        closed = ours.wait('Closed')
    assert closed['type'] == 'AUTHENTICATION_FAILED'
    assert closed['why'][0] == f'It fits our shared key {how}: the two ends have read it differently.'
    assert 'correct horse' not in ' '.join(closed['why'])


# Traffic

@inside
def test_traffic_that_the_peer_does_not_want(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    said = fails(lab, keys, 6, '--remote-ts', '172.16.0.0/12')
    assert 'TS_UNACCEPTABLE' in said
    assert 'We are configured for 10.1.0.0/24 here and 172.16.0.0/12 there.' in said
    assert 'local_ts' in said and 'they have to overlap' in said


# Silence

@inside
def test_nobody_listens(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    lab.stop()
    said = fails(lab, keys, 3, '--timeout', '2')
    assert 'nobody listens on UDP port 500' in said and 'is the daemon running' in said


@inside
def test_port_500_is_blocked(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    with dropped(lab, 'udp dport 500'): said = fails(lab, keys, 3, '--timeout', '2')
    assert 'nothing came back' in said and 'UDP ports 500 and 4500 pass the firewalls' in said
    assert 'tcpdump -ni any udp port 500' in said
    assert succeeds(lab, keys)


@inside
def test_port_4500_is_blocked(lab: Lab, keys: Path) -> None:
    "charon claims a NAT here, so that IKE_AUTH goes to port 4500."
    start(lab, keys)
    with dropped(lab, 'udp dport 4500'): said = fails(lab, keys, 3, '--timeout', '2')
    assert 'IKE_SA_INIT was answered' in said and 'UDP port 4500: does that pass the firewalls?' in said
    assert succeeds(lab, keys)


@inside
def test_ip_fragments_are_dropped(lab: Lab, keys: Path) -> None:
    "A large IKE_AUTH request without RFC 7383 does not get through; with it, it does."
    start(lab, keys)
    many = [option for side, ours, other in (('local', 1, 7), ('remote', 2, 8)) for option in (
        f'--{side}-ts', f'10.{ours}.0.0/24,' + ','.join(f'10.{other}.{2 * n}.0/24' for n in range(31)))]
    with dropped(lab, 'ip frag-off & 0x1fff != 0'):
        said = fails(lab, keys, 3, *many, '--datagram', '0', '--timeout', '2')
        assert 'IKE_SA_INIT was answered' in said and 'travels in IP fragments' in said and 'RFC 7383' in said
        assert succeeds(lab, keys, *many)
