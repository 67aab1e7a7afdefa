"""Credentials on the command line and in the file of connections: who we are, what is wrong with it,
and that nothing which is secret comes out.
"""
import base64
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from authority import authority, ed_key, issue, key, names, revocations, rsa_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat)
from ike_lit import initiator, responder
from ike_lit.cli.options import InitiatorOptions, config_from, read_connections, warnings
from ike_lit.engine.model import Config
from ike_lit.wire.auth import Identity, SharedKey
from ike_lit.wire.certificate import Authorities, Signer

SETTINGS = Path(__file__).resolve().parent.parent / 'settings.ini'
PEM, LONG = Encoding.PEM, (-400, 36500)
WORD, SECRET = 'open sesame, please', 'correct horse battery staple'
ROOT = authority('CN=root', key(201), days=LONG)
MIDDLE = authority('CN=middle', key(202), ROOT, days=LONG)
ALICE = issue('C=CH, O=Example, CN=alice', key(203), MIDDLE, names('alice.example.org'), days=LONG)
BOB = issue('C=CH, O=Example, CN=bob', ed_key(7), MIDDLE, names('bob.example.org'), days=LONG)


def private(held: object, lock: object = NoEncryption()) -> bytes:  # noqa: B008
    return held.private_bytes(PEM, PrivateFormat.PKCS8, lock)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Files with credentials, good and bad."
    found = tmp_path_factory.mktemp('credentials')
    lists = [revocations(issuer, 77, days=LONG).public_bytes(PEM) for issuer in (ROOT, MIDDLE)]
    contents = {
        'alice.key': private(ALICE.key), 'bob.key': private(BOB.key), 'rsa.key': private(rsa_key()),
        'locked.key': private(ALICE.key, BestAvailableEncryption(WORD.encode())),
        'weak.key': private(rsa_key(1024)), 'exposed.key': private(ALICE.key),
        **{f'{who}.crt': b''.join(h.certificate.public_bytes(PEM) for h in (holder, MIDDLE))
           for who, holder in (('alice', ALICE), ('bob', BOB))},
        'root.crt': ROOT.certificate.public_bytes(PEM),
        **{f'{who}.pub': holder.key.public_key().public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo)
           for who, holder in (('alice', ALICE), ('bob', BOB))},
        'root.crl': lists[0], 'middle.crl': lists[1], 'word': f'{WORD}\n'.encode(),
        'wrong-word': b'open, sesame\n', 'exposed-word': f'{WORD}\n'.encode(), 'empty': b'',
        'psk': f'{SECRET}\n'.encode(), 'short-psk': b'0x00112233\n', 'bad-psk': b'0xc0ffe\n',
        'two-psk': b'one\ntwo\n', 'exposed-psk': f'{SECRET}\n'.encode(), 'junk': bytes(range(256))}
    for name, data in contents.items():
        path = found / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        if name.startswith('exposed'): path.chmod(0o640)
    return found


def words(folder: Path, text: str) -> list[str]:
    "Options, in which @ stands for the folder."
    return [word.replace('@', f'{folder}/') for word in text.split()]


ME_BY_KEY, ME_BY_CERT = '--private-key @alice.key', '--private-key @alice.key --cert @alice.crt'
YOU_BY_KEY, YOU_BY_CA = '--peer-key @bob.pub', '--ca @root.crt'


def options(given: list[str]) -> InitiatorOptions:
    return InitiatorOptions(**initiator.build_parser().given(['127.0.0.1', *given]))


def config(folder: Path, text: str) -> Config:
    args = options(words(folder, text))
    return config_from(args, '127.0.0.1', '127.0.0.2')


# What is taken

@pytest.mark.parametrize('text, credential, trust, local_id', [
    (f'{ME_BY_KEY} {YOU_BY_KEY}', Signer, 'PublicKey', 'IPV4_ADDR 127.0.0.1'),
    (f'{ME_BY_CERT} {YOU_BY_KEY}', Signer, 'PublicKey', 'DER_ASN1_DN C=CH, O=Example, CN=alice'),
    (f'{ME_BY_CERT} {YOU_BY_CA}', Signer, 'Authorities', 'DER_ASN1_DN C=CH, O=Example, CN=alice'),
    (f'{ME_BY_CERT} {YOU_BY_CA} --local-id alice.example.org', Signer, 'Authorities',
     'FQDN alice.example.org'),
    (f'{ME_BY_CERT} {YOU_BY_CA} --crl @root.crl,@middle.crl', Signer, 'Authorities',
     'DER_ASN1_DN C=CH, O=Example, CN=alice'),
    ('--psk-file @psk', SharedKey, 'SharedKey', 'IPV4_ADDR 127.0.0.1'),
    (f'--psk-file @psk {YOU_BY_CA}', SharedKey, 'Authorities', 'IPV4_ADDR 127.0.0.1'),
    (f'--psk-file @psk {YOU_BY_KEY}', SharedKey, 'PublicKey', 'IPV4_ADDR 127.0.0.1'),
    (f'{ME_BY_KEY} --psk-file @psk', Signer, 'SharedKey', 'IPV4_ADDR 127.0.0.1'),
    (f'--private-key @locked.key --passphrase-file @word {YOU_BY_KEY}', Signer, 'PublicKey',
     'IPV4_ADDR 127.0.0.1'),
    ('--private-key @bob.key --cert @bob.crt --psk-file @psk', Signer, 'SharedKey',
     'DER_ASN1_DN C=CH, O=Example, CN=bob')])
def test_credentials_that_are_taken(
        folder: Path, text: str, credential: type, trust: str, local_id: str) -> None:
    taken = config(folder, text)
    assert isinstance(taken.credential, credential)
    assert trust in type(taken.trust).__name__ and repr(taken.local_id) == local_id
    if isinstance(taken.credential, SharedKey): assert taken.credential.secret == SECRET.encode()
    if isinstance(taken.credential, Signer):
        assert len(taken.credential.certificates) == 2 * ('--cert' in text)
    if isinstance(taken.trust, Authorities): assert len(taken.trust.crls) == 2 * ('--crl' in text)
    shown = repr(taken)
    assert SECRET not in shown and 'Signer' not in shown and 'SharedKey' not in shown


def test_names_that_our_certificate_is_for(folder: Path) -> None:
    for name in 'alice.example.org', 'C=CH,O=Example,CN=alice':
        taken = config(folder, f'{ME_BY_CERT} {YOU_BY_CA} --local-id {name}')
        assert taken.local_id.matches(Identity.from_text(name))


# What is not

MISTAKES = [
    ('', '--private-key is needed, or --psk-file'), (YOU_BY_KEY, '--private-key is needed'),
    (YOU_BY_CA, '--private-key is needed'), (ME_BY_KEY, '--peer-key is needed, or --ca, or --psk-file'),
    ('--cert @alice.crt', '--cert needs the --private-key'),
    (f'--cert @alice.crt --psk-file @psk {YOU_BY_CA}', '--cert needs the --private-key'),
    (f'{ME_BY_KEY} {YOU_BY_KEY} {YOU_BY_CA}', '--peer-key or --ca, not both'),
    (f'{ME_BY_KEY} {YOU_BY_KEY} --crl @root.crl', '--crl needs --ca'),
    ('--psk-file @psk --crl @root.crl', '--crl needs --ca'),
    (f'{ME_BY_KEY} {YOU_BY_KEY} --psk-file @psk', '--psk-file has no use'),
    (f'{ME_BY_CERT} {YOU_BY_CA} --psk-file @psk', '--psk-file has no use'),
    ('--private-key @bob.key --cert @alice.crt ' + YOU_BY_CA, 'for another key than the private one'),
    (f'{ME_BY_CERT} {YOU_BY_CA} --local-id bob.example.org', 'our certificate is not for that'),
    (f'{ME_BY_CERT} {YOU_BY_CA} --local-id 127.0.0.1', 'our certificate is not for that'),
    (f'{ME_BY_KEY} {YOU_BY_CA} --crl @root.crl,@no-such.crl', 'no-such.crl: No such file'),
    (f'{ME_BY_KEY} {YOU_BY_CA} --crl @root.crt', 'no list of revoked certificates'),
    (f'{ME_BY_KEY} --ca @root.crl', 'no certificate in PEM or DER'),
    (f'{ME_BY_KEY} --ca @alice.key', 'no certificate in PEM or DER'),
    (f'{ME_BY_KEY} --ca @empty', 'no certificate in PEM or DER'), (f'{ME_BY_KEY} --ca @', 'Is a directory'),
    (f'{ME_BY_KEY} --peer-key @bob.crt', 'but a certificate; --ca is for those'),
    (f'{ME_BY_KEY} --peer-key @bob.key', 'but a private one'),
    (f'{ME_BY_KEY} --peer-key @junk', 'no public'),
    (f'--private-key @alice.pub {YOU_BY_KEY}', 'no private key in PEM or DER'),
    (f'--private-key @alice.crt {YOU_BY_KEY}', 'no private key in PEM or DER'),
    (f'--private-key @junk {YOU_BY_KEY}', 'no private key'),
    (f'--private-key @weak.key {YOU_BY_KEY}', '1024 bits'),
    (f'--private-key @exposed.key {YOU_BY_KEY}', 'others may read it; chmod 600'),
    (f'--private-key @no-such.key {YOU_BY_KEY}', 'No such file'),
    (f'--private-key @locked.key {YOU_BY_KEY}', 'it is locked; try --passphrase-file'),
    (f'--private-key @locked.key --passphrase-file @wrong-word {YOU_BY_KEY}', 'does not open it'),
    (f'--private-key @locked.key --passphrase-file @empty {YOU_BY_KEY}', 'does not open it'),
    (f'--private-key @locked.key --passphrase-file @no-such {YOU_BY_KEY}', 'No such file'),
    (f'--private-key @locked.key --passphrase-file @exposed-word {YOU_BY_KEY}', 'chmod 600'),
    ('--psk-file @no-such', 'No such file'), ('--psk-file @empty', 'the shared key is empty'),
    ('--psk-file @bad-psk', 'goes on in hex'), ('--psk-file @two-psk', 'one line'),
    ('--psk-file @exposed-psk', 'chmod 600'), ('--psk-file @', 'Is a directory')]


def told(capsys: pytest.CaptureFixture) -> str:
    "The one line of complaint."
    out, error = capsys.readouterr()
    assert not out and error.count('\n') == 1 and error.startswith('ike'), error
    assert SECRET not in error and WORD not in error and 'open, sesame' not in error
    return error


@pytest.mark.parametrize('text, complaint', MISTAKES)
def test_mistakes_are_told_before_a_packet_is_sent(
        folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, text: str,
        complaint: str) -> None:
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: False, raising=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watch:
        watch.bind(('127.0.0.1', 0))
        options = [*words(folder, text), '--timeout', '1', '--port', str(watch.getsockname()[1])]
        assert initiator.main(['127.0.0.1', *options]) == 2
        assert select.select([watch], [], [], 0)[0] == []
    assert complaint in told(capsys)
    listening = ['--listen', '127.0.0.1', '--port', '0', '--nat-port', '0', '--remote-id', 'x.org']
    assert responder.main([*words(folder, text), *listening]) == 2
    assert complaint in told(capsys)


def test_a_short_secret_is_worth_a_warning(folder: Path) -> None:
    for name, count in ('short-psk', 1), ('psk', 0):
        args = options(words(folder, f'--psk-file @{name}'))
        said = list(warnings(config_from(args, '127.0.0.1', '127.0.0.2'), args))
        assert len(said) == count and '00112233' not in ''.join(said)
        if said: assert 'only 4 octets' in said[0]


def test_an_old_library_is_worth_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "It may lack algorithms, which are then not offered; and it is often that of another Python."
    needed = re.search(r'cryptography>=(\d+)', SETTINGS.read_text())[1]
    for version, count in (f'{needed}.0.0', 0), (f'{int(needed) - 1}.9.1', 1):
        monkeypatch.setattr('cryptography.__version__', version)
        args = options(words(folder, f'--remote-id x.org {ME_BY_KEY} {YOU_BY_KEY}'))
        told = list(warnings(config_from(args, '127.0.0.1', '127.0.0.2'), args))
        assert len(told) == count and all(version in line and sys.executable in line for line in told)


def test_our_own_certificate_is_worth_a_warning_when_it_is_over(folder: Path) -> None:
    old = issue('CN=alice', ALICE.key, MIDDLE, names('alice.example.org'), days=(-9000, -8000))
    (folder / 'old.crt').write_bytes(old.certificate.public_bytes(PEM))
    for name, count in ('old', 1), ('alice', 0):
        text = f'--private-key @alice.key --cert @{name}.crt {YOU_BY_KEY}'
        args = options(words(folder, text))
        said = list(warnings(config_from(args, '127.0.0.1', '127.0.0.2'), args))
        assert len(said) == count and all('of ours: the certificate has expired' in w for w in said)


def test_an_authority_that_vouches_for_the_demo_keys_proves_nothing(folder: Path) -> None:
    root = Path(__file__).parent.parent / 'keys' / 'root.crt'
    args = options(words(folder, f'{ME_BY_KEY} --ca {root}'))
    assert isinstance(config_from(args, '127.0.0.1', '127.0.0.2').trust, Authorities)
    with pytest.raises(ValueError, match='prove nothing to 192.0.2.2'):
        config_from(args, '192.0.2.1', '192.0.2.2')


# The file of connections

def test_paths_in_a_file_are_relative_to_it(
        folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'etc').mkdir()
    for name in 'alice.key', 'alice.crt', 'root.crt', 'root.crl', 'middle.crl', 'psk', 'word', 'locked.key':
        (tmp_path / 'etc' / name).symlink_to(folder / name)
    path = tmp_path / 'etc' / 'peers.toml'
    path.write_text(f'''
[connections.certificates]
private-key = "alice.key"
cert = "alice.crt"
ca = "{folder}/root.crt"
crl = ["root.crl", "middle.crl"]
peer = "192.0.2.1"
[connections.secret]
psk-file = "psk"
[connections.mixed]
private-key = "../etc/locked.key"
passphrase-file = "word"
psk-file = "psk"
rsa-pss = true
[connections.text]
private-key = "alice.key"
ca = "root.crt"
crl = "root.crl,middle.crl"
''')
    monkeypatch.chdir('/')
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: False, raising=False)
    found = {name: config_from(given, '127.0.0.1', '127.0.0.2')
             for name, given in read_connections(path, InitiatorOptions).items()}
    for name in 'certificates', 'text':
        assert len(found[name].trust.crls) == 2 and len(found[name].trust.roots) == 1
    assert len(found['certificates'].credential.certificates) == 2
    assert found['secret'].credential == found['secret'].trust == SharedKey(SECRET.encode())
    assert found['mixed'].trust == SharedKey(SECRET.encode()) and found['mixed'].credential.pss


@pytest.mark.parametrize('body, complaint', [
    ('psk-file = "no-such"', 'no-such: No such file'), ('psk = "hush, hush"', "'psk' is no option"),
    ('psk-file = ["psk"]\npasphrase-file = "x"', "did you mean 'passphrase-file'"),
    ('crl = ["a.crl"]', '--private-key is needed'), ('private-key = {a = 1}', 'no text, number, list'),
    ('psk-file = "psk"\ncrl = ["a.crl"]', '--crl needs --ca')])
def test_mistakes_in_a_file_name_the_file_and_the_connection(
        folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, body: str, complaint: str) -> None:
    (tmp_path / 'psk').symlink_to(folder / 'psk')
    path = tmp_path / 'peers.toml'
    path.write_text(f'[connections.office]\npeer = "127.0.0.1"\nremote-id = "x.org"\n{body}\n')
    assert initiator.main(['--config', str(path), '--connection', 'office']) == 2
    said = told(capsys)
    assert complaint in said and f'{path}: connection office: ' in said and 'hush' not in said
    assert responder.main(['--config', str(path), '--port', '0', '--nat-port', '0']) == 2
    assert complaint in told(capsys)


# Nothing secret comes out

def secrets_of(*held: object) -> list[str]:
    "Shared secrets, passphrases and private numbers, in every form in which they might be shown."
    texts = [SECRET.encode(), WORD.encode()]
    for one in held:
        number = (one.private_numbers().private_value.to_bytes(32, 'big')
                  if hasattr(one, 'private_numbers') else one.private_bytes_raw())
        texts.append(number)
    return [form for text in texts for form in (
        text.decode('latin-1'), text.hex(), base64.b64encode(text).decode(), repr(text)[2:-1])]


WAYS = [('--psk-file @psk', '--psk-file @psk'),
        ('--private-key @locked.key --passphrase-file @word --cert @alice.crt --ca @root.crt',
         '--private-key @bob.key --cert @bob.crt --ca @root.crt --crl @middle.crl'),
        ('--private-key @locked.key --passphrase-file @word --psk-file @psk', '--psk-file @psk '
         '--peer-key @alice.pub'), ('--psk-file @psk', '--psk-file @short-psk')]


@pytest.mark.parametrize('mine, theirs, form', [
    *((*way, []) for way in WAYS), *((*way, ['--json']) for way in WAYS[:2])],
    ids=['secret', 'certificates', 'mixed', 'refused', 'secret, JSON', 'certificates, JSON'])
def test_no_secret_is_printed_even_if_everything_is(
        folder: Path, mine: str, theirs: str, form: list[str]) -> None:
    def program(module: str, *options: str) -> list[str]:
        return [sys.executable, '-m', f'ike_lit.{module}', '-v', '--install', 'none', *options]
    other = program('responder', '--listen', '127.0.0.1', '--port', '0', '--nat-port', '0', '--json',
                    '--local-id', 'bob.example.org', '--remote-id', 'alice.example.org',
                    *words(folder, theirs))
    with subprocess.Popen(other, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as peer:
        ports = json.loads(peer.stdout.readline())
        process = Path('/proc') / str(peer.pid)
        command = (process / 'cmdline').read_text() if process.exists() else ''
        done = subprocess.run(program(
            'initiator', '127.0.0.1', '--once', '--port', str(ports['port']), '--nat-port',
            str(ports['nat_port']), '--local-id', 'alice.example.org', '--remote-id', 'bob.example.org',
            *form, *words(folder, mine)), capture_output=True, text=True, timeout=30, check=False)
        peer.terminate()
        out, error = peer.communicate(timeout=10)
    assert done.returncode == (5 if 'short' in theirs else 0), done.stderr
    everything = done.stdout + done.stderr + out + error + command
    assert 'Traceback' not in everything and 'AUTH' in everything
    for secret in [*secrets_of(ALICE.key, BOB.key), '00112233']: assert secret not in everything


def test_a_passphrase_is_asked_for_on_the_terminal_once(
        folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: True, raising=False)
    answer: Callable = lambda prompt: asked.append(prompt) or WORD  # noqa: E731
    monkeypatch.setattr('ike_lit.cli.options.getpass', answer)
    linked = folder / 'asked.key'
    os.link(folder / 'locked.key', linked)
    for _ in range(3): config(folder, f'--private-key @asked.key {YOU_BY_KEY}')
    assert asked == [f'Passphrase of {linked}: ']


@pytest.mark.parametrize('module, where', [('initiator', ['127.0.0.1']), ('responder', ['--port', '0'])])
def test_nobody_has_to_answer_for_a_passphrase(folder: Path, module: str, where: list[str]) -> None:
    "Ctrl-C at the prompt ends the program, at once and without a word."
    given = words(folder, f'--private-key @locked.key {YOU_BY_KEY} --install none --remote-id b.example')
    pid, terminal = pty.fork()
    if not pid: os.execv(sys.executable, [sys.executable, '-m', f'ike_lit.{module}', *where, *given])  # noqa: S606
    said = b''
    while b'Passphrase of' not in said: said += os.read(terminal, 1000)
    os.write(terminal, b'\x03')
    with suppress(OSError):  # until it is gone
        while select.select([terminal], [], [], 20)[0]: said += os.read(terminal, 1000)
    if not select.select([os.pidfd_open(pid)], [], [], 20)[0]: os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130 and b'Traceback' not in said
