"""What an operator may ask of the two programs, and what they leave in logs and files: a tunnel that is lost,
keys for each direction, words that are no options, strangers that would fill a disk.
"""
import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
from argparse import ArgumentTypeError
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import Field, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from canonical import configs
from ike_lit import initiator, responder
from ike_lit.capture.pcap import read_capture
from ike_lit.cli import options, program
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_child
from ike_lit.initiator import demo_peer
from ike_lit.kernel.entries import claim
from ike_lit.kernel.install import query_status
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.auth import Identity
from ike_lit.wire.const import Encryption, ExchangeType, Group, ProtocolID, TransformType
from ike_lit.wire.ke import KE
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Packet
from ike_lit.wire.proposal import ALGORITHMS, ALIASES, SA, Proposal, Transform, parse_proposals
from test_cli import DEMO_KEYS, HERE, NAMES, OTHER, run, there, until
from test_install import Ends

NEVER = ['--retry', 'never']


# A tunnel that is lost

def test_a_peer_that_says_goodbye_without_our_wish_is_no_success() -> None:
    with (until('listening', 'responder', *HERE, *OTHER) as bob,
          until('Child SA  ESP', 'initiator', *there(bob), *NAMES, *DEMO_KEYS, *NEVER) as alice):
        bob.send_signal(signal.SIGTERM)
        rest, _ = alice.communicate(timeout=30)
        assert alice.returncode == 8 and 'the peer has closed the IKE SA' in rest
        assert bob.wait(20) == 0


def test_a_child_sa_that_the_peer_deletes_was_the_tunnel() -> None:
    ends = Ends()
    ends.run()
    child = ends.programs[BOB].host.established[0].child
    ends.start(BOB, delete_child, child.inbound.spi)
    assert 8 in ends.notes[ALICE]


def test_a_tunnel_that_was_lost_is_made_anew() -> None:
    "By default; and a person who then leaves has what he wanted."
    with until('listening', 'responder', *HERE, *OTHER) as bob:
        ports = there(bob)[1:]
        with until('Child SA  ESP', 'initiator', *there(bob), *NAMES, *DEMO_KEYS) as alice:
            bob.send_signal(signal.SIGTERM)
            assert bob.wait(20) == 0
            with until('listening', 'responder', *ports, *OTHER):
                while alice.said.count('Child SA  ESP') < 2:
                    line = alice.stdout.readline()
                    assert line, alice.said
                    alice.said += line
                assert 'the peer has closed the IKE SA\n' in alice.said and '\nagain in ' in alice.said
                alice.send_signal(signal.SIGTERM)
                assert alice.wait(20) == 0


@pytest.mark.parametrize('words, status', [([], 3), (['--once', '--retry', 'always'], 3), (NEVER, 3)])
def test_a_first_attempt_that_fails_is_the_last(words: list[str], status: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        done = run('127.0.0.1', *NAMES, *DEMO_KEYS, '--port', str(silent.getsockname()[1]),
                   '--timeout', '0.5', *words)
    assert done.returncode == status and 'again' not in done.stdout.splitlines()[-1]


def test_it_tries_for_ever_if_it_is_told_to_and_a_signal_ends_that() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        words = ['127.0.0.1', *NAMES, *DEMO_KEYS, '--port', str(silent.getsockname()[1]), '--timeout', '0.3',
                 '--retry', 'always']
        with until('again in', 'initiator', *words) as alice:
            while alice.said.count('again in') < 2: alice.said += alice.stdout.readline()
            assert alice.said.count('failed: ') == 2
            alice.send_signal(signal.SIGTERM)
            assert alice.wait(20) == 130


def test_all_attempts_are_in_one_capture(tmp_path: Path) -> None:
    "A later attempt does not begin the file anew."
    pcap = tmp_path / 'c.pcap'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        words = ['127.0.0.1', *NAMES, *DEMO_KEYS, '--port', str(silent.getsockname()[1]), '--timeout', '0.3',
                 '--retry', 'always', '--pcap', str(pcap)]
        with until('again in', 'initiator', *words) as alice:
            while alice.said.count('again in') < 2: alice.said += alice.stdout.readline()
            alice.send_signal(signal.SIGTERM)
            assert alice.wait(20) == 130
    with pcap.open('rb') as file: assert len({seen.data[:8] for seen in read_capture(file).messages}) == 2


# A shared key in each direction

def secret(path: Path, words: str) -> str:
    path.touch(mode=0o600)
    path.write_text(words)
    return str(path)


def test_each_direction_has_its_own_shared_key(tmp_path: Path) -> None:
    ours, theirs = (secret(tmp_path / name, name * 8) for name in ('alice', 'gateway'))
    bob = [*OTHER[:8], '--install', 'none', '--psk-file', theirs, '--peer-psk-file', ours]
    names = NAMES[:8]
    with until('listening', 'responder', *HERE, *bob) as gateway:
        well = run(*there(gateway), *names, '--install', 'none', '--once', '--psk-file', ours,
                   '--peer-psk-file', theirs)
        assert well.returncode == 0, well.stdout
        swapped = run(*there(gateway), *names, '--install', 'none', '--once', '--psk-file', theirs,
                      '--peer-psk-file', ours)
        one = run(*there(gateway), *names, '--install', 'none', '--once', '--psk-file', ours)
        gateway.send_signal(signal.SIGTERM)
        said = gateway.said + gateway.stdout.read()
    assert swapped.returncode == one.returncode == 5
    assert 'are --psk-file and --peer-psk-file swapped, or is there one key for both?' in said
    assert 'gateway' * 8 not in said + swapped.stdout and 'alice' * 8 not in said + one.stdout
    # who has one key for both does not believe the gateway
    assert 'the shared key is wrong' in one.stdout


@pytest.mark.parametrize('more', [['--peer-key', 'x'], ['--ca', 'x']])
def test_a_peer_proves_itself_in_one_way(more: list[str], tmp_path: Path) -> None:
    key = secret(tmp_path / 'key', 'x' * 20)
    done = run('127.0.0.1', '--psk-file', key, '--peer-psk-file', key, *more)
    assert done.returncode == 2 and f'{more[0]} or --peer-psk-file, not both' in done.stderr


# Words

PARSERS = {'initiator': initiator.build_parser, 'responder': responder.build_parser}


@pytest.mark.parametrize('name', PARSERS)
def test_an_option_is_written_in_full(name: str) -> None:
    parser = PARSERS[name]()
    words = [w for w in parser.words if w.startswith('--')]
    for short in {w[:n] for w in words for n in range(3, len(w))} - set(words):
        for given in [short, 'sesame'], [f'{short}=sesame']:
            with redirect_stderr(io.StringIO()) as said, pytest.raises(SystemExit) as gone:
                parser.given(given)
            assert gone.value.code == 2 and f'{short} is no option' in said.getvalue()
            assert 'sesame' not in said.getvalue()


@pytest.mark.parametrize('module, words', [
    ('explain', ['x.pcap', '--key', 'sesame']), ('setkey', ['--clean'])])
def test_nor_do_the_other_programs_guess(module: str, words: list[str]) -> None:
    assert run(*words, module=module).returncode == 2


def test_an_option_in_a_file_is_written_in_full(tmp_path: Path) -> None:
    file = tmp_path / 'peers.toml'
    for key in 'psk', 'remote', 'private', 'v', '-v', 'h', 'version', 'status', 'probe':
        file.write_text(f'[connections.x]\n"{key}" = "sesame"')
        with pytest.raises(ValueError, match='is no option'):
            options.read_connections(file, options.InitiatorOptions)


KINDS = {'initiator': options.InitiatorOptions, 'responder': options.ResponderOptions}


def another(one: Field) -> str:
    "Return a text that gives an option a value, and not its default."
    for text in (*one.metadata['choices'], '192.0.2.7', '77'):
        with suppress(ArgumentTypeError):
            if options.value_of(one, text) != one.default: return text
    raise AssertionError(f'{one.name} takes no value that this test knows')


@pytest.mark.parametrize('role, name', [(r, n) for r, kind in KINDS.items() for n in options.declared(kind)])
def test_words_and_a_file_give_an_option_the_same_value(role: str, name: str, tmp_path: Path) -> None:
    kind = KINDS[role]
    one, file = options.declared(kind)[name], tmp_path / 'peers.toml'
    word = (one.metadata['words'] or [f'--{name}'])[-1]
    if one.metadata['read']:
        text = another(one)
        typed = str(tmp_path / text) if one.metadata['path'] else text
        words, value = [f'{word}={typed}' if word[0] == '-' else typed], json.dumps(text)
    else:
        words, value = [word], 'true'
    file.write_text(f'[connections.x]\n{name} = {value}\n')
    given = kind(**PARSERS[role]().given(words))
    assert given != kind()
    if one.metadata['in_file']: assert options.read_connections(file, kind) == {'x': given}
    else:
        with pytest.raises(ValueError, match=f"'{name}' is no option"): options.read_connections(file, kind)


@pytest.mark.parametrize('text, words', [
    ('timeout = true', 'timeout is neither true nor false'), ('local-id = false', 'local-id is neither'),
    ('json = 1', 'json is true or false'), ('datagram = 12.5', "datagram: invalid int value: '12.5'"),
    ('retry = "soon"', "retry: invalid choice: 'soon' (choose from 'never', 'lost', 'always')"),
    ('ike-lifetime = "9,8"', "ike-lifetime: '9,8': the hard lifetime comes after"),
    ('local = "gw"', "local: 'gw' is no address"), ('ca = 1979-05-27', 'ca has a value that is no text')])
def test_a_wrong_value_in_a_file_is_told_in_a_line(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / 'peers.toml'
    file.write_text(f'[connections.x]\n{text}\n')
    with pytest.raises(ValueError, match='^' + re.escape(f'{file}: connection x: {words}')):
        options.read_connections(file, options.InitiatorOptions)


def test_a_peer_in_a_file_is_no_option(tmp_path: Path) -> None:
    file = tmp_path / 'peers.toml'
    file.write_text('[connections.x]\npeer = "--allow-sha1"')
    with pytest.raises(ValueError, match='is no peer'):
        options.read_connections(file, options.InitiatorOptions)


def test_a_file_that_both_read_may_say_what_only_one_needs(tmp_path: Path) -> None:
    file = tmp_path / 'peers.toml'
    file.write_text('[connections.x]\npeer = "192.0.2.1"\nlocal = "192.0.2.2"\nretry = "always"\nonce = true')
    read = options.read_connections
    assert read(file, options.ResponderOptions) == {'x': options.ResponderOptions()}
    assert read(file, options.InitiatorOptions) == {'x': options.InitiatorOptions(
        peer='192.0.2.1', local='192.0.2.2', retry='always', once=True)}


@pytest.mark.parametrize('name', ['%any', '%any6', '%fromcert', '*', '*.example.org', ''])
def test_a_peer_has_one_name(name: str) -> None:
    done = run('127.0.0.1', '--remote-id', name, *DEMO_KEYS)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('ike-lit: --remote-id') and done.stderr.count('\n') == 1


def test_the_version_is_told() -> None:
    for module in PARSERS: assert run('--version', module=module).stdout == f'ike-lit {version("ike-lit")}\n'


def test_our_address_may_be_chosen() -> None:
    with demo_peer(OTHER) as (port, nat_port):
        done = run('127.0.0.1', '--port', port, '--nat-port', nat_port, *NAMES, *DEMO_KEYS, '--once',
                   '--json', '--local', '127.0.0.9')
    up, = (e for e in map(json.loads, done.stdout.splitlines()) if e['event'] == 'Established')
    assert done.returncode == 0 and up['local'].startswith('127.0.0.9:')


@pytest.mark.parametrize('address, words', [
    ('192.0.2.77', '--local 192.0.2.77: Cannot assign'), ('gw', "'gw' is no address"),
    ('::1', '--local ::1: ')])
def test_an_address_that_is_not_ours(address: str, words: str) -> None:
    done = run('127.0.0.1', *NAMES, *DEMO_KEYS, '--local', address)
    assert done.returncode == 2 and words in done.stderr


def test_libreswans_spelling_is_understood() -> None:
    for theirs, ours in {
            'aes_gcm256-sha2_256-dh31': 'aes256gcm16-prfsha256-x25519',
            'AES_GCM_16_256-HMAC_SHA2_512+HMAC_SHA2_256-DH19': 'aes256gcm16-prfsha512-prfsha256-ecp256',
            'aes256-sha2_512;dh14': 'aes256-sha512-modp2048',
            'aes_gcm_c_128-sha2-dh20': 'aes128gcm16-prfsha256-ecp384',
            'chacha20_poly1305-sha2_512-dh18': 'chacha20poly1305-prfsha512-modp8192',
            'camellia_cbc_192-aes_xcbc-modp3072': 'camellia192-aesxcbc-modp3072',
            'aes_ctr256-sha2_384-dh21': 'aes256ctr-sha384-ecp521'}.items():
        assert parse_proposals(theirs, ProtocolID.IKE) == parse_proposals(ours, ProtocolID.IKE)
    assert set(ALIASES.values()) <= set(ALGORITHMS)


# What strangers make us say

T0 = 1000.0


class Clock:
    "A loop whose time a test sets, and which runs nothing by itself."

    def __init__(self) -> None: self.now, self.later = T0, list[object]()

    def time(self) -> float: return self.now

    def call_soon(self, do: object) -> None: pass

    def call_later(self, seconds: float, do: object) -> None: self.later.append(do)

    def call_at(self, at: float, do: object) -> object: return SimpleNamespace(cancel=lambda: None)


def server(*peers: object, **args: object) -> tuple[responder.Server, io.StringIO]:
    out = io.StringIO()
    given = options.ResponderOptions(**{'install': 'none', 'verbose': True, **args})
    bob = responder.Server(Host(peers or (configs()[1],)), given, out)
    bob.ports, bob.loop = {BOB: SimpleNamespace(send=lambda d: None)}, Clock()
    return bob, out


def nonsense(ke: bytes = b'') -> bytes:
    "A first message of a stranger whose offer suits nobody."
    offer = Proposal(1, ProtocolID.IKE, b'', (Transform(TransformType.ENCR, Encryption(200)),))
    payloads = SA((offer,)), KE(Group.CURVE_25519, ke), Nonce(bytes(16))
    return Packet(ExchangeType.IKE_SA_INIT, payloads).encode(
        os.urandom(8), bytes(8), response=False, initiator=True, message_id=0)


@pytest.mark.parametrize('form', [{}, {'json': True}])
def test_strangers_fill_no_disk(form: dict) -> None:
    "Ten seconds of a thousand datagrams: some lines at once, then one a second, and the number of the rest."
    bob, out = server(**form)
    told = 0
    for second in range(10):
        bob.loop.now = T0 + second
        for n in range(1000):
            bob.received(nonsense(bytes(n % 7)), Endpoint(f'203.0.113.{n % 200}', 500), BOB)
            told += 3  # request, answer, and the end of it
        for do in bob.loop.later: do()
        bob.loop.later.clear()
    lines = out.getvalue().splitlines()
    assert len(lines) <= 60 + 8 + 10 * 2, len(lines)
    if form:
        events = [json.loads(line) for line in lines]
        hushed = sum(e['events'] for e in events if e['event'] == 'Hushed')
        shown = sum(e['event'] != 'Hushed' for e in events)
    else:
        hushed = sum(int(n) for n in re.findall(r'^-- (\d+) more events of strangers$', out.getvalue(), re.M))
        shown = told - hushed
        assert 0 < shown < 70
    assert hushed + shown == told


def test_a_refusal_is_told_once_and_again_after_a_minute() -> None:
    bob, out = server()
    for at in 0, 1, 2, 70:
        bob.loop.now = T0 + at
        bob.received(nonsense(), ALICE, BOB)
    assert out.getvalue().count('failed: offered') == 2


def call(bob: responder.Server, left: object) -> None:
    "Let Alice call the program, and be answered."
    alice = Host()
    alice.connect(left, ALICE, BOB, 0)
    sent: list[object] = []
    bob.ports[BOB].send = sent.append
    for d in alice.datagrams_to_send(): bob.received(d.data, ALICE, BOB)
    while sent:
        alice.receive_datagram(sent.pop(0).data, BOB, 0, ALICE)
        for d in alice.datagrams_to_send(): bob.received(d.data, ALICE, BOB)


def test_who_has_proven_itself_is_heard_among_strangers() -> None:
    left, right = configs()
    bob, out = server(right)
    for n in range(500): bob.received(nonsense(bytes(n % 50)), Endpoint('203.0.113.1', 500), BOB)
    bob.host.transient.clear()
    call(bob, left)
    assert 'peer      FQDN alice.example.org' in out.getvalue() and 'Child SA  ESP' in out.getvalue()


def test_what_is_not_shown_is_not_counted() -> None:
    "Without -v, what was dropped makes no line, neither does its number."
    bob, out = server(verbose=False)
    for _ in range(500): bob.received(b'x' * 28, ALICE, BOB)
    for do in bob.loop.later: do()
    assert out.getvalue() == ''


def test_each_line_says_when_and_whose_it_is_if_there_are_several() -> None:
    left, right = configs()
    other = replace(right, remote_id=Identity.from_text('carol.example.org'))
    for peers, several in ((right,), False), ((right, other), True):
        bob, out = server(*peers, verbose=False)
        call(bob, left)
        lines = out.getvalue().partition('\n\n')[0].splitlines()
        whose = (r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (192.0.2.1:500|alice.example.org) +'
                 '(->|<-|IKE|peer|Child|  out|  in)')
        found = [re.match(whose, line) for line in lines]
        assert len(lines) >= 8 and (all(found) if several else not any(found)), lines
        if several: assert {m[1] for m in found} == {'192.0.2.1:500', 'alice.example.org'}


# Who asks what we hold

def test_a_status_that_is_empty_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, 'query_status', lambda clock: [])
    with redirect_stdout(io.StringIO()) as said:
        assert program.show_status(options.Options()) == 0
    assert said.getvalue() == 'no program of ours answers here\n'


def test_the_responder_is_asked_and_asks() -> None:
    with until('listening', 'responder', *HERE, *OTHER) as bob:
        for module in 'initiator', 'responder':
            done = run('--status', module=module)
            assert done.returncode == 0 and f'responder, process {bob.pid} of user' in done.stdout
            assert '  no IKE SA' in done.stdout


def test_a_status_does_not_wait_for_whoever_has_the_names() -> None:
    "One name is held by somebody who answers one octet at a time; ours is heard, and the octets are few."
    drips = 0
    stop = threading.Event()
    with claim()[1] as slow, claim()[1] as honest:
        for sock in slow, honest: sock.listen()

        def drip() -> None:
            nonlocal drips
            with slow.accept()[0] as asker:
                while not stop.wait(0.01):
                    try: asker.send(b' ')
                    except OSError: return
                    drips += 1

        def answer() -> None:
            with honest.accept()[0] as asker:
                asker.send(json.dumps({'program': 'test', 'pid': 1, 'ike': []}).encode())
        for work in drip, answer: threading.Thread(target=work, daemon=True).start()
        now = iter(n / 100 for n in range(100_000))
        found = query_status(lambda: next(now))
        stop.set()
    assert {'program': 'test', 'pid': 1, 'ike': [], 'user': os.geteuid()} in found
    assert next(now) < 5 and drips < 1000


# What we write into files

def keylog_of(folder: Path) -> subprocess.CompletedProcess:
    return run('127.0.0.1', *NAMES, *DEMO_KEYS, '--keylog', str(folder), '--timeout', '0.5')


def test_a_keylog_is_not_written_through_another_name(tmp_path: Path) -> None:
    victim = tmp_path / 'victim'
    victim.write_text('root:x:0:0\n')
    victim.chmod(0o644)
    os.link(victim, tmp_path / 'ikev2_decryption_table')
    done = keylog_of(tmp_path)
    assert done.returncode == 2 and 'it has another name as well' in done.stderr
    assert victim.read_text() == 'root:x:0:0\n' and stat.S_IMODE(victim.stat().st_mode) == 0o644


@pytest.mark.parametrize('reader', [False, True])
def test_a_keylog_is_no_pipe(tmp_path: Path, reader: bool) -> None:
    "And nobody waits for a reader that does not come."
    pipe = tmp_path / 'ikev2_decryption_table'
    os.mkfifo(pipe, 0o600)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK) if reader else None
    done = keylog_of(tmp_path)
    assert done.returncode == 2 and str(pipe) in done.stderr
    if end is not None:
        assert os.read(end, 100) == b''
        os.close(end)


def test_an_explanation_is_for_its_owner(tmp_path: Path) -> None:
    "It holds what was said under the keys."
    told, before = tmp_path / 'told.html', os.umask(0)
    try: done = run('--demo', '--explain', str(told))
    finally: os.umask(before)
    assert done.returncode == 0 and stat.S_IMODE(told.stat().st_mode) == 0o600
