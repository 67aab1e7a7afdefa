"""Our initiator and a real strongSwan, in two network namespaces.

Each test asks strongSwan what *it* thinks.

Run as root, or as any user who may make user namespaces:
then all of tests/test_interop_*.py run again inside one.
"""
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest
from ike_lit.wire.auth import AUTH
from ike_lit.wire.const import ProtocolID, TransformType
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.payload import Packet
from ike_lit.wire.proposal import parse_proposals
from ike_lit.wire.sk import SK
from interop import INSIDE, both_agree, command, inside, needs_strongswan, paragraph, start
from peers.strongswan import PACKAGES, Lab, execute, in_user_namespace
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

pytestmark = needs_strongswan


@pytest.mark.skipif(bool(os.environ.get('IKE_LIT_INNER')), reason='we are inside')
def test_in_a_user_namespace(tmp_path: Path, record_property: Callable) -> None:
    "Anybody's way to run all of this; for root, who needs no such way, one test is enough."
    some = ['-k', 'test_camellia_method_14']
    others = ['--deselect', f'{__file__}::test_in_a_user_namespace']
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
               f'--basetemp={tmp_path / "inner"}', *(some if INSIDE else others),
               *sorted(Path(__file__).parent.glob('test_interop_*.py'))]
    env = {**os.environ, 'IKE_LIT_INNER': '1', 'CI': ''}
    done = execute(in_user_namespace(command), timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'passed' in done.stdout
    for row in re.findall(r'^.*(?: ms|it calls)$', done.stdout, re.MULTILINE):
        record_property('negotiated', (row, '', ''))


@contextmanager
def established(lab: Lab, keys: Path, *options: str,
                **more: object) -> Iterator[tuple[dict, dict, dict, subprocess.Popen]]:
    """Our initiator, up and staying:
    what it says of the IKE SA, of the Child SA, and of each message."""
    session = lab.popen(command(keys, *options, **more))
    told: dict[str, dict] = {}
    messages = []
    for line in session.stdout:
        event = json.loads(line)
        told[event['event']] = event
        if event['event'] == 'Message': messages.append(event)
        if event['event'] in ('ChildEstablished', 'ChildFailed', 'Closed'): break
    assert 'ChildEstablished' in told, f'{told} {session.stderr.read()} {lab.log()[-3000:]}'
    yield told['Established'], told['ChildEstablished'], messages, session
    if session.poll() is None:
        session.send_signal(signal.SIGINT)
        rest, errors = session.communicate(timeout=20)
        assert session.returncode == 0 and not errors
        last = [json.loads(line)['event'] for line in rest.splitlines()]
        assert last == ['Message', 'Message', 'ChildClosed', 'Closed']  # Delete, its answer
        assert 'ESTABLISHED' not in lab.sas()


def the_peer_agrees(lab: Lab, ours: dict, child: dict, remote_ts: str = '10.1.0.0/24',
                    local_ts: str = '10.2.0.0/24') -> str:
    "Compare what `swanctl --list-sas` reports with what our initiator said."
    said = lab.sas()
    suite = ours['suite'].removeprefix('IKE:').replace('_CBC_', '_CBC-')
    assert re.search(r'lab: #\d+, ESTABLISHED, IKEv2', said), said
    assert f'{ours["spi_i"]}_i {ours["spi_r"]}_r*' in said
    assert "local  'bob.example.org' @" in said and "remote 'alice.example.org' @" in said
    assert f'  {suite}\n' in said
    esp = f'{child["encr"].replace("_CBC_", "_CBC-")}/{child["integ"]}'
    assert re.search(r'INSTALLED, TUNNEL-in-UDP, ESP:' + re.escape(esp), said), said
    spis = re.findall(r'^ +(in|out) +([0-9a-f]{8})', said, re.MULTILINE)
    assert spis == [('in', child['spi_out']), ('out', child['spi_in'])]
    assert re.search(rf'^ +local +{re.escape(local_ts)}$', said, re.MULTILINE)
    assert re.search(rf'^ +remote +{re.escape(remote_ts)}$', said, re.MULTILINE)
    assert (child['local_ts'], child['remote_ts']) == ([remote_ts], [local_ts])
    return said


@inside
def test_camellia_method_14(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    with established(lab, keys) as (ours, child, messages, _):
        the_peer_agrees(lab, ours, child)
        assert ours['proof'] == 'method 14, RSA with SHA2-256, key of 2048 bits'
        # strongSwan claims to be behind a NAT, for the sake of its userspace ESP:
        # IKE_AUTH goes to port 4500
        assert ours['nat'] == {'supported': True, 'here': False, 'there': True}
        assert [m['peer'].rpartition(':')[2] for m in messages] == ['500', '500', '4500', '4500']
        assert child['encap'][1] == 4500
    successful = "authentication of 'alice.example.org' with RSA_EMSA_PKCS1_SHA2_256 successful"
    assert successful in lab.log()


@inside
def test_camellia_method_1(lab: Lab, keys: Path) -> None:
    start(lab, keys, extra='signature_authentication = no')
    with established(lab, keys, '--allow-sha1') as (ours, child, _, __):
        the_peer_agrees(lab, ours, child)
        assert ours['proof'] == 'method 1, RSA with SHA-1, key of 2048 bits'
    refused = lab.run(command(keys, '--once', '--timeout', '2'))  # and not without being asked
    assert refused.returncode == 5 and '--allow-sha1' in refused.stdout


@inside
def test_rsa_pss(lab: Lab, keys: Path) -> None:
    start(lab, keys, local_auth='rsa/pss-sha256')
    with established(lab, keys) as (ours, child, _, __):
        the_peer_agrees(lab, ours, child)
        assert ours['proof'] == 'method 14, RSA-PSS with SHA2-256, key of 2048 bits'


@inside
def test_ipv6(lab: Lab, keys: Path) -> None:
    start(lab, keys, local_ts='fd02::/64', remote_ts='fd01::/64')
    ts = ['--local-ts', 'fd01::/64', '--remote-ts', 'fd02::/64']
    with established(lab, keys, peer='fd09::2', selectors=ts) as (ours, child, _, __):
        said = the_peer_agrees(lab, ours, child, 'fd01::/64', 'fd02::/64')
        assert '@ fd09::1[' in said


@inside
def test_narrowed_by_the_peer(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    ts = ['--local-ts', '10.1.0.0/16', '--remote-ts', '10.0.0.0/8']
    with established(lab, keys, selectors=ts) as (ours, child, _, __):
        the_peer_agrees(lab, ours, child)


@inside
@pytest.mark.parametrize('suite, esp', [
    ('aes256-sha256-modp2048', 'aes256-sha256'),
    ('aes256ctr-sha384-prfsha256-ecp384', 'aes256ctr-sha384'),
    ('aes256gcm16-prfsha384-x25519', 'aes256gcm16'),
    ('aes128ccm12-prfsha256-ecp256', 'aes128ccm12')])
def test_aes_and_wireshark(lab: Lab, keys: Path, tmp_path: Path, suite: str, esp: str) -> None:
    """AES; then Wireshark, given our keylog, decrypts the capture
    and shows the payloads and AUTH data that we saw."""
    if not which('tshark'): pytest.skip(f'no tshark: apt-get install {PACKAGES}')
    start(lab, keys, ike=suite, esp=esp)
    options = '--ike', suite, '--esp', esp, '--keylog', str(tmp_path)
    with lab.capture() as pcap, established(lab, keys, *options) as (ours, child, messages, _):
        both_agree(lab, ours, child)
    # tshark decrypts by itself, with the rows of the keylog;
    # we open the same messages with our own code
    _, row = (tmp_path / 'ikev2_decryption_table').read_text().splitlines()  # after g^ir
    shown = tshark_view(pcap, tmp_path)
    assert [m['exchange'] for m in messages] == 2 * ['IKE_SA_INIT'] + 2 * ['IKE_AUTH']
    for message, octets, (types, auth) in zip(messages, ike_messages(pcap), shown, strict=False):
        assert types == [NUMBERS.get(name, 41) for name in message['payloads']], message['payloads']
        if message['exchange'] == 'IKE_AUTH':
            assert auth == opened(octets, row, suite).one(AUTH).data.hex() and len(auth) == 2 * 272
    assert row.startswith(f'{ours["spi_i"]},{ours["spi_r"]},')


NUMBERS = {'SA': 33, 'KE': 34, 'IDi': 35, 'IDr': 36, 'AUTH': 39, 'Nonce': 40, 'Delete': 42,
           'TSi': 44, 'TSr': 45}


def tshark_view(pcap: Path, config: Path) -> list[tuple[list[int], str]]:
    """The payload types of each IKE message and its AUTH data,
    as tshark shows them with `config` as its configuration folder."""
    done = execute(['tshark', '-n', '-r', pcap, '-Y', 'isakmp', '-T', 'fields',
                    '-e', 'isakmp.typepayload', '-e', 'isakmp.auth.data'],
                   env={**os.environ, 'WIRESHARK_CONFIG_DIR': str(config), 'HOME': str(config)},
                   timeout=120)
    lines = [line.split('\t') for line in done.stdout.splitlines()]
    structure = {2, 3, 46}  # proposals, transforms, and the Encrypted payload itself
    return [([n for n in map(int, types.split(',')) if n not in structure], auth)
            for types, auth in lines]


def ike_messages(pcap: Path) -> list[bytes]:
    "The IKE messages of a capture, without the non-ESP marker."
    datagrams = [(packet[UDP], bytes(packet[UDP].payload)) for packet in rdpcap(str(pcap))
                 if UDP in packet]
    return [data.removeprefix(bytes(4)) if 4500 in (udp.sport, udp.dport) else data
            for udp, data in datagrams]


def opened(octets: bytes, row: str, suite: str) -> Packet:
    "Open a message with the keys of a row of the keylog."
    _, _, sk_ei, sk_er, _, sk_ai, sk_ar, _ = row.split(',')
    proposal, = parse_proposals(suite, ProtocolID.IKE)
    encr, integ = proposal.single(TransformType.ENCR), proposal.single(TransformType.INTEG)
    ours = Header.parse(Reader(octets)).initiator
    sk_e, sk_a = (sk_ei, sk_ai) if ours else (sk_er, sk_ar)
    return SK(encr, integ, bytes.fromhex(sk_e), bytes.fromhex(sk_a)).open(octets)


# What strongSwan does of its own accord

@inside
def test_the_peer_deletes(lab: Lab, keys: Path) -> None:
    start(lab, keys)
    with established(lab, keys) as (_, __, ___, session):
        lab.swanctl('--terminate', '--ike', 'lab', '--timeout', '10')
        rest, errors = session.communicate(timeout=20)
        assert session.returncode == 8 and not errors  # without our wish
        assert json.loads(rest.splitlines()[-1])['event'] == 'Closed'


# Refusals: what a person is told, and the exit status

@inside
@pytest.mark.parametrize('theirs, options, status, words', [
    ({'ike': 'aes128-sha256-modp2048'}, ['--timeout', '2'], 4,
     ['NO_PROPOSAL_CHOSEN', 'We offered camellia256-sha256']),
    ({'esp': 'aes128-sha256'}, [], 4, ['no Child SA', 'NO_PROPOSAL_CHOSEN']),
    ({}, ['--remote-id', 'carol.example.org'], 5,
     ['AUTHENTICATION_FAILED', 'expect FQDN carol.example.org']),
    ({}, ['--local-id', 'mallory.example.org'], 5,
     ['AUTHENTICATION_FAILED', 'We are FQDN mallory.example.org']),
    ({}, ['--private-key', 'stranger.key'], 5, ['AUTHENTICATION_FAILED']),
    ({}, ['--peer-key', 'stranger.pub'], 5, ['is wrong for this key']),
    ({}, ['--remote-ts', '172.16.0.0/12'], 6, ['no Child SA', 'TS_UNACCEPTABLE'])])
def test_refusals(lab: Lab, keys: Path, theirs: dict, options: list[str], status: int,
                  words: list[str]) -> None:
    start(lab, keys, **theirs)
    options = [str(keys / o) if o.startswith('stranger') else o for o in options]
    argv = [a for a in command(keys, '--once', *options) if a != '--json']
    done = lab.run(argv)
    assert done.returncode == status, done.stdout + done.stderr
    for word in words: assert word in paragraph(done.stdout)
    assert 'xfrm' not in done.stdout


@inside
def test_nobody_there(lab: Lab, keys: Path) -> None:
    lab.stop()
    done = lab.run(command(keys, '--timeout', '1.5'))
    assert done.returncode == 3
    assert 'sent 2 times in 1.5 s' in done.stdout and 'Connection refused' in done.stdout
