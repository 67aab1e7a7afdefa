"""The two programs as a person runs them: what they print, their exit status,
and what they leave behind.
"""
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat)
from ike_lit.initiator import demo_peer
from interop import paragraph

ROOT = Path(__file__).resolve().parent.parent
DEMO_KEYS = ['--private-key', str(ROOT / 'keys/initiator.key'),
             '--peer-key', str(ROOT / 'keys/responder.pub')]
NAMES = ['--local-id', 'alice.example.org', '--remote-id', 'bob.example.org',
         '--local-ts', '10.1.0.0/24', '--remote-ts', '10.2.0.0/24', '--install', 'none']
OTHER = ['--local-id', 'bob.example.org', '--remote-id', 'alice.example.org',
         '--local-ts', '10.2.0.0/24', '--remote-ts', '10.1.0.0/24', '--install', 'none',
         '--private-key', str(ROOT / 'keys/responder.key'),
         '--peer-key', str(ROOT / 'keys/initiator.pub')]


def run(*options: str, module: str = 'initiator') -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', f'ike_lit.{module}', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60,  # noqa: S603
                          check=False)
    assert 'Traceback' not in done.stderr + done.stdout, done.stderr
    return done


@pytest.fixture
def peer() -> Iterator[tuple[str, ...]]:
    "A responder on 127.0.0.1; yields the options that lead to it."
    with demo_peer(OTHER) as (port, nat_port):
        yield '127.0.0.1', '--port', port, '--nat-port', nat_port


def pem(path: Path, key: object) -> str:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(path)


# Success

def test_demo() -> None:
    done = run('--demo')
    assert done.returncode == 0 and not done.stderr
    messages = [line for line in done.stdout.splitlines() if line[:2] in ('->', '<-')]
    assert [' '.join(line.split()[:4]) for line in messages] == [
        '-> IKE_SA_INIT request 0', '<- IKE_SA_INIT response 0',
        '-> IKE_INTERMEDIATE request 1', '<- IKE_INTERMEDIATE response 1',
        '-> IKE_AUTH request 2', '<- IKE_AUTH response 2',
        '-> INFORMATIONAL request 3', '<- INFORMATIONAL response 3']
    for expected in ('AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519/ADDKE1_ML_KEM_768',
                     'ESP AES_GCM_16_256, tunnel mode',
                     'FQDN bob.example.org, proven by method 14, RSA with SHA2-256',
                     '10.1.0.0/24 -> 10.2.0.0/24', 'xfrm state add', '<36 octets>',
                     'the IKE SA is closed'):
        assert expected in done.stdout
    assert '0x' + 8 * '0' not in done.stdout


@pytest.mark.parametrize('esp, script, words', [
    ('camellia256-sha256', 'xfrm', 'enc cbc(camellia) 0x'),
    ('camellia256-sha256', 'setkey', '-E camellia-cbc 0x'),
    ('aes256gcm16', 'xfrm', 'aead rfc4106(gcm(aes)) 0x')])
def test_dry_run_shows_the_keys(esp: str, script: str, words: str) -> None:
    done = run('--demo', '--dry-run', '--install', script, '--esp', esp)
    assert done.returncode == 0 and 'octets>' not in done.stdout and words in done.stdout


def test_json_is_one_object_a_line_and_has_no_secrets() -> None:
    done = run('--demo', '--json')
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e['event'] for e in events] == [
        *['Message'] * 6, 'Established', 'ChildEstablished', *['Message'] * 2, 'ChildClosed',
        'Closed']
    established = events[6]
    assert established['remote_id'] == 'bob.example.org'
    assert established['nat'] == {'supported': True, 'here': False, 'there': False}
    assert max(len(word) for word in done.stdout.split('"')) < 80


def test_ipv6_by_hand() -> None:
    command = [sys.executable, '-m', 'ike_lit.responder', '--listen', '::1',
               '--port', '0', '--nat-port', '0', '--json', *OTHER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:  # noqa: S603
        listening = json.loads(other.stdout.readline())
        done = run('::1', *NAMES, *DEMO_KEYS, '--once', '--port', str(listening['port']),
                   '--nat-port', str(listening['nat_port']))
        other.terminate()
        seen = [json.loads(line)['event'] for line in other.stdout]
    assert done.returncode == 0 and 'src ::1 dst ::1' in done.stdout
    assert seen.count('Established') == seen.count('ChildEstablished') == 1
    assert seen[-1] == 'Closed'
    assert other.returncode == 0


def test_it_stays_up_until_told_to_leave(peer: tuple[str, ...]) -> None:
    command = [sys.executable, '-m', 'ike_lit.initiator', *peer, *NAMES, *DEMO_KEYS, '--json']
    for number in signal.SIGINT, signal.SIGTERM:
        with subprocess.Popen(command, stdout=subprocess.PIPE,  # noqa: S603
                              stderr=subprocess.PIPE, text=True) as session:
            for line in session.stdout:
                if json.loads(line)['event'] == 'ChildEstablished': break
            assert session.poll() is None
            session.send_signal(number)
            rest, errors = session.communicate(timeout=20)
        events = [json.loads(line) for line in rest.splitlines()]
        assert [e.get('payloads') for e in events] == [['Delete'], [], None, None]
        assert events[-1]['event'] == 'Closed'
        assert session.returncode == 0 and not errors


def test_keylog_is_private_and_rows_are_wiresharks(
        peer: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / 'ikev2_decryption_table'
    for existing in False, True:
        file.unlink(missing_ok=True)
        if existing:
            file.touch()
            file.chmod(0o666)
        mask = os.umask(0)
        try:
            done = run(*peer, *NAMES, *DEMO_KEYS, '--once', '--keylog', str(tmp_path),
                       '--ike', 'aes256-sha256-modp2048')
        finally: os.umask(mask)
        assert done.returncode == 0 and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    *_, row = file.read_text().splitlines()
    fields = row.split(',')
    assert [len(f) for f in fields] == [16, 16, 64, 64, 23, 64, 64, 29]
    assert fields[4] == '"AES-CBC-256 [RFC3602]"' and fields[7] == '"HMAC_SHA2_256_128 [RFC4868]"'
    secrets = fields[2], fields[3], fields[5], fields[6]
    assert not any(secret in done.stdout for secret in secrets)


def test_no_secret_is_shown_even_verbosely(peer: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*peer, *NAMES, *DEMO_KEYS, '--once', '-v', '--keylog', str(tmp_path),
               '--ike', 'camellia256-sha256-modp2048')
    secret, row = (tmp_path / 'ikev2_decryption_table').read_text().splitlines()
    assert secret.startswith('# Ni,') and secret[-64:] not in done.stdout + done.stderr
    assert row.startswith('# not known to Wireshark: ')
    for secret in row.split(','):
        if len(secret) == 64:
            assert secret not in done.stdout + done.stderr and secret[:16] not in done.stdout


# Failure: the reason in one paragraph, the right exit status

@pytest.mark.parametrize('options, status, words', [
    (['--ike', 'aes256ctr-sha256-modp2048', '--timeout', '1.5'], 4,
     ['NO_PROPOSAL_CHOSEN', 'We offered aes256ctr-sha256', 'Compare --ike']),
    (['--esp', 'aes256ctr-sha256'], 4, ['no Child SA', 'NO_PROPOSAL_CHOSEN', '--esp']),
    (['--remote-id', 'carol.example.org'], 5,
     ['AUTHENTICATION_FAILED', 'expect FQDN carol.example.org']),
    (['--local-id', 'mallory.example.org'], 5,
     ['AUTHENTICATION_FAILED', 'We are FQDN mallory.example.org']),
    (['--peer-key', str(ROOT / 'keys/initiator.pub')], 5,
     ['is wrong for this key', 'keys of both sides']),
    (['--remote-ts', '172.16.0.0/12'], 6,
     ['no Child SA', 'TS_UNACCEPTABLE', '172.16.0.0/12 there'])])
def test_refusals(peer: tuple[str, ...], options: list[str], status: int,
                  words: list[str]) -> None:
    done = run(*peer, *NAMES, *DEMO_KEYS, '--once', *options)
    assert done.returncode == status, done.stdout
    for word in words: assert word in paragraph(done.stdout)
    assert 'xfrm' not in done.stdout


def test_no_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        began = time.monotonic()
        port = str(silent.getsockname()[1])
        done = run('127.0.0.1', *NAMES, *DEMO_KEYS, '--port', port, '--timeout', '3.5')
        assert time.monotonic() - began > 3.5
        silent.setblocking(False)
        sent = []
        while True:
            try: sent.append(silent.recv(65535))
            except BlockingIOError: break
    assert done.returncode == 3
    assert 'sent 3 times in 3.5 s; nothing came back' in done.stdout
    assert 'is the daemon running' in done.stdout
    assert len(sent) == 3 and len(set(sent)) == 1  # bitwise identical


def test_a_closed_port_is_mentioned_and_not_believed() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
    done = run('127.0.0.1', *NAMES, *DEMO_KEYS, '--port', str(port), '--timeout', '1.5')
    assert done.returncode == 3
    assert 'sent 2 times' in done.stdout and 'Connection refused' in done.stdout


def test_the_demo_takes_other_suites() -> None:
    done = run('--demo', '--ike', 'aes128-sha256-modp2048', '--esp', 'aes128-sha256',
               '--mode', 'transport')
    assert done.returncode == 0 and 'AES_CBC_128/HMAC_SHA2_256_128, transport mode' in done.stdout


def test_a_closed_terminal_ends_the_session(peer: tuple[str, ...]) -> None:
    options = [*peer, *NAMES, *DEMO_KEYS]
    with subprocess.Popen([sys.executable, '-m', 'ike_lit.initiator', *options],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as session:
        session.stdout.readline()
        session.stdout.close()
        assert session.wait(20) == 1
        assert session.stderr.read() == ''


@contextmanager
def until(words: str, module: str, *options: str, **more: object) -> Iterator[subprocess.Popen]:
    "Run a program until it has said that; then kill it, unless it has ended by then."
    with subprocess.Popen([sys.executable, '-m', f'ike_lit.{module}', *options],
                          stdout=subprocess.PIPE, text=True, **more) as process:
        try:
            process.said = ''
            while words not in process.said:
                line = process.stdout.readline()
                assert line, process.said
                process.said += line
            yield process
        finally: process.kill()


def there(responder: subprocess.Popen) -> tuple[str, ...]:
    "The options that lead to a responder."
    port, nat_port = re.findall(r'127.0.0.1:(\d+)', responder.said.splitlines()[0])
    return '127.0.0.1', '--port', port, '--nat-port', nat_port


HERE = '--port', '0', '--nat-port', '0'


def test_who_leaves_takes_no_more_calls() -> None:
    "One peer is dead, so the goodbye takes 4 s; another one calls."
    with until('listening', 'responder', *HERE, *OTHER) as bob:
        with until('Child SA  ESP', 'initiator', *there(bob), *NAMES, *DEMO_KEYS) as alice:
            alice.kill()
            alice.wait()
        bob.send_signal(signal.SIGTERM)
        while 'Delete' not in bob.said: bob.said += bob.stdout.readline()
        late = run(*there(bob), *NAMES, *DEMO_KEYS, '--timeout', '1')
        assert late.returncode == 3 and 'IKE SA' not in late.stdout
        assert bob.wait(20) == 0


def test_a_dead_peer_is_no_success() -> None:
    "Not even if it is the end of the Child SA's life that comes first."
    short = '--liveness', '0.5', '--child-lifetime', '2,2.1', '--timeout', '4', '--retry', 'never'
    with (until('listening', 'responder', *HERE, *OTHER, '--liveness', '0') as bob,
          until('Child SA  ESP', 'initiator', *there(bob), *NAMES, *DEMO_KEYS, *short) as alice):
        bob.kill()
        rest, _ = alice.communicate(timeout=30)
        assert alice.returncode == 3 and 'no answer' in rest and 'Child SA  closed' in rest


def test_a_name_that_the_terminal_can_not_write_ends_nobody() -> None:
    "The name is a stranger's; and the next one is served."
    with until('listening', 'responder', *HERE, *OTHER,
               env={**os.environ, 'PYTHONIOENCODING': 'ascii'}) as bob:
        strange = [w if w != 'alice.example.org' else 'C=CH, CN=\u0141\u00f3d\u017a' for w in NAMES]
        assert run(*there(bob), *strange, *DEMO_KEYS).returncode == 5
        assert run(*there(bob), *NAMES, *DEMO_KEYS, '--once').returncode == 0
        bob.terminate()
        assert bob.wait(20) == 0


def test_a_full_disk_ends_the_records_and_not_the_tunnel(peer: tuple[str, ...], tmp_path: Path) -> None:
    "No file of it may have more than 1,024 octets: what does not fit is named, once, and all else goes on."
    keylog, pcap = tmp_path / 'ikev2_decryption_table', tmp_path / 'c.pcap'
    keylog.write_text('#' * 1023 + '\n')
    keylog.chmod(0o600)
    done = subprocess.run(
        [sys.executable, '-m', 'ike_lit.initiator', *peer, *NAMES, *DEMO_KEYS, '--once', '--keylog',
         str(tmp_path), '--pcap', str(pcap)], capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)))
    assert done.returncode == 0 and 'Child SA  ESP' in done.stdout and 'is closed' in done.stdout
    assert sorted(done.stderr.splitlines()) == [
        f'ike-lit: warning: {pcap}: File too large; no more messages go there',
        f'ike-lit: warning: {keylog}: File too large; no more keys go there']


def test_an_explanation_that_can_not_be_written_is_named(peer: tuple[str, ...], tmp_path: Path) -> None:
    told = tmp_path / 'told'
    done = subprocess.run(
        [sys.executable, '-m', 'ike_lit.initiator', *peer, *NAMES, *DEMO_KEYS, '--once', '--explain',
         str(told)], capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)))
    assert (done.returncode, done.stderr) == (1, f'ike-lit: {told}: File too large\n')


def test_the_responder_says_who_has_called(tmp_path: Path) -> None:
    "In each way to tell it: when all is well, when it is not, and as JSON."
    for form in [], ['--json']:
        with subprocess.Popen(
                [sys.executable, '-m', 'ike_lit.responder', '--port', '0', '--nat-port', '0', *OTHER, *form],
                stdout=subprocess.PIPE, text=True) as responder:
            first = responder.stdout.readline()
            ports = re.findall(r'(?:127.0.0.1:|port": )(\d+)', first)
            peer = '127.0.0.1', '--port', ports[0], '--nat-port', ports[1]
            well = run(*peer, *NAMES, *DEMO_KEYS, '--once', '--json')
            assert well.returncode == 0
            stranger = rsa.generate_private_key(65537, 2048)
            wrong = ['--private-key', pem(tmp_path / f'{len(form)}.key', stranger), *DEMO_KEYS[2:]]
            assert run(*peer, *NAMES, *wrong).returncode == 5
            responder.terminate()
            said, _ = responder.communicate(timeout=20)
        if form:
            events = [json.loads(line) for line in said.splitlines()]
            assert all(re.fullmatch(r'127\.0\.0\.1:\d+', e['with']) for e in events)
            up, = (e for e in events if e['event'] == 'Established')
            assert up['sa'] == f'{up["spi_i"]}:{up["spi_r"]}'
            over = [e for e in events if e['event'] == 'Closed']
            assert over[0]['sa'] == up['sa'] != over[1]['sa'] and over[1]['error']
        else:
            assert re.search(r"^peer +FQDN alice.example.org at 127.0.0.1:\d+, proven by", said, re.M)
            assert re.search(r'^failed: .* wrong .*\n  The peer called from 127.0.0.1:\d+\.$', said, re.M)


def test_a_keylog_that_somebody_else_has_prepared_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'elsewhere').touch()
    (tmp_path / 'ikev2_decryption_table').symlink_to(tmp_path / 'elsewhere')
    done = run('127.0.0.1', *NAMES, *DEMO_KEYS, '--keylog', str(tmp_path))
    assert done.returncode == 2 and 'ikev2_decryption_table: Too many levels' in done.stderr
    assert (tmp_path / 'elsewhere').read_text() == ''


# Usage: one line, exit status 2, and no packet

@pytest.mark.parametrize('options, words', [
    (['--private-key', '/nonexistent'], '/nonexistent: No such file or directory'),
    (['--private-key', str(ROOT)], 'Is a directory'),
    (['--private-key', str(ROOT / 'LICENSE')], 'no private key in PEM or DER'),
    (['--private-key', str(ROOT / 'keys/initiator.pub')], 'no private key in PEM or DER'),
    (['--peer-key', str(ROOT / 'keys/initiator.key')], 'no public key in PEM or DER, but a private one'),
    (['--ike', 'aes256-sha265-modp2048'],
     "'sha265' in 'aes256-sha265-modp2048' is no algorithm that I know; did you mean 'sha256'?"),
    (['--ike', 'aes256-sha256'], 'has no DH algorithm'),
    (['--esp', ''], "'' in '' is no algorithm"),
    (['--esp', 'sha256'], 'has no ENCR algorithm'),
    (['--local-ts', '10.1.0.0/33'], "'10.1.0.0/33' is no list of traffic selectors"),
    (['--remote-ts', '10.0.0.1[tcp'], 'no closing bracket'),
    (['--remote-ts', '10.0.0.9-10.0.0.1'], 'no traffic selector'),
    (['--local-id', 'two words'], "'two words' is no identity"),
    (['--local-id', '@#xyz'], 'identity'),
    (['--keylog', '/nonexistent'], '/nonexistent is not a folder'),
    (['--ppk-file', str(ROOT / 'LICENSE')], '--ppk-file and --ppk-id belong together'),
    (['--ppk-id', 'winter'], '--ppk-file and --ppk-id belong together'),
    (['--ppk-optional'], '--ppk-file and --ppk-id belong together'),
    (['--ppk-file', '/nonexistent', '--ppk-id', 'winter'], '/nonexistent: No such file or directory'),
    (['--port', '70000'], "'70000' is no port"),
    (['--timeout', '0'], '--timeout'), (['--timeout', 'nan'], '--timeout')])
def test_usage(options: list[str], words: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watch:
        watch.bind(('127.0.0.1', 0))
        watch.setblocking(False)
        port = str(watch.getsockname()[1])
        done = run('127.0.0.1', '--port', port, '--timeout', '1.1', *NAMES, *DEMO_KEYS, *options)
        with pytest.raises(BlockingIOError): watch.recv(1)
    assert done.returncode == 2 and words in done.stderr and not done.stdout
    errors = [line for line in done.stderr.splitlines() if not line.startswith(('usage:', ' '))]
    assert len(errors) == 1


@pytest.mark.parametrize('arguments, words', [
    ([], 'name a peer, or --demo'), (['--demo', '127.0.0.1'], 'name a peer, or --demo'),
    (['127.0.0.1'], '--private-key is needed'),
    (['127.0.0.1', *DEMO_KEYS[:2]], '--peer-key is needed'),
    (['999.1.1.1.1', *DEMO_KEYS], '999.1.1.1.1: '),
    (['no.such.host.invalid', *DEMO_KEYS], 'no.such.host.invalid: '),
    (['127.0.0.1', *DEMO_KEYS, '--peer-key'], 'expected one argument')])
def test_arguments(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize('key, words', [
    (lambda: rsa.generate_private_key(65537, 1024), "1024 bits; at least 2048"),  # noqa: S505
    (lambda: rsa.generate_private_key(3, 2048), 'public exponent 3'),
    (lambda: ec.generate_private_key(ec.SECP256K1()), 'a key on the curve secp256k1')])
def test_weak_and_foreign_keys(tmp_path: Path, key: object, words: str) -> None:
    private = key()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / 'pub').write_bytes(public)
    for options in (['--private-key', pem(tmp_path / 'key', private)],
                    ['--peer-key', str(tmp_path / 'pub')]):
        done = run('127.0.0.1', *NAMES, *DEMO_KEYS, *options)
        assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize('address', ['192.0.2.1', '2001:db8::1'])
def test_demo_keys_are_refused_for_a_peer_elsewhere(tmp_path: Path, address: str) -> None:
    mine = pem(tmp_path / 'mine.key', rsa.generate_private_key(65537, 2048))
    for keys in DEMO_KEYS, ['--private-key', mine, *DEMO_KEYS[2:]]:
        done = run(address, *NAMES, *keys, '--timeout', '1')
        assert done.returncode == 2
        assert 'are public, so they prove nothing' in done.stderr or 'unreachable' in done.stderr
    for listen, words in (address, 'prove nothing'), ('0.0.0.0', 'name one address'):  # noqa: S104
        listening = run('--listen', listen, '--remote-id', 'alice.example.org', *DEMO_KEYS,
                        '--port', '0', '--nat-port', '0', module='responder')
        assert listening.returncode == 2 and words in listening.stderr


def test_the_console_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name('ike-lit')
    commands = [script, '--help'], [sys.executable, '-m', 'ike_lit.initiator', '--help']
    one, other = (
        subprocess.run(command, capture_output=True, text=True, timeout=20,  # noqa: S603
                       check=True).stdout
        for command in commands)
    assert one == other and 'Exit status: 0 established' in ' '.join(one.split())
