"""A file of connections, which both programs read; and a responder that serves many peers at once."""
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from ike_lit.initiator import demo_peer
from test_cli import ROOT, pem, run

PEERS = '''
[connections.alice]
local-id = "bob.example.org"
remote-id = "alice.example.org"
private-key = "bob.key"
peer-key = "alice.pub"
local-ts = "10.2.0.0/24"
remote-ts = "10.1.0.0/24"

[connections.carol]
local-id = "bob.example.org"
remote-id = "carol@example.org"
private-key = "bob.key"
peer-key = "carol.pub"
local-ts = ["10.2.0.0/24", "10.3.0.0/24"]
pool = "10.99.0.0/29"
dns = "10.2.0.53"
esp = "aes256-sha256"
'''
CALLERS = '''
[connections.as-alice]
peer = "127.0.0.1"
install = "none"
local-id = "alice.example.org"
remote-id = "bob.example.org"
private-key = "alice.key"
peer-key = "bob.pub"
local-ts = "10.1.0.0/24"
remote-ts = "10.2.0.0/24"
child-lifetime = "1"

[connections.as-carol]
peer = "127.0.0.1"
install = "none"
local-id = "carol@example.org"
remote-id = "bob.example.org"
private-key = "carol.key"
peer-key = "bob.pub"
request-address = "0.0.0.0"
remote-ts = "10.0.0.0/8"
esp = ["camellia256-sha256", "aes256-sha256"]

[connections.as-mallory]
peer = "127.0.0.1"
install = "none"
local-id = "alice.example.org"
remote-id = "bob.example.org"
private-key = "carol.key"
peer-key = "bob.pub"
local-ts = "10.1.0.0/24"
remote-ts = "10.2.0.0/24"
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    "Two files of connections, with the keys beside them."
    made = tmp_path_factory.mktemp('connections')
    for name, who in ('alice', 'left'), ('bob', 'right'), ('carol', 'stranger'):
        for kind in 'key', 'pub':
            (made / f'{name}.{kind}').touch(mode=0o600)
            (made / f'{name}.{kind}').write_bytes((keys / f'{who}.{kind}').read_bytes())
    (made / 'peers.toml').write_text(PEERS)
    (made / 'callers.toml').write_text(CALLERS)
    return made


@pytest.fixture
def bob(folder: Path) -> Iterator[list[str]]:
    "A responder for all peers of the file; yields the options that lead to it."
    with demo_peer(['--config', str(folder / 'peers.toml'), '--cookie-threshold', '3']) as ports:
        yield ['--config', str(folder / 'callers.toml'), '--port', ports[0], '--nat-port', ports[1]]


def call(options: list[str], name: str, *more: str) -> tuple[int, list[dict]]:
    done = run(*options, '--connection', name, '--json', *more)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def one(events: list[dict], kind: str) -> dict:
    found, = (e for e in events if e['event'] == kind)
    return found


def test_each_peer_has_its_own_configuration(bob: list[str]) -> None:
    status, events = call(bob, 'as-alice', '--once')
    child = one(events, 'ChildEstablished')
    assert status == 0 and child['encr'] == 'AES_GCM_16_256'
    assert child['remote_ts'] == ['10.2.0.0/24']
    status, events = call(bob, 'as-carol', '--once')
    child = one(events, 'ChildEstablished')
    assert status == 0 and child['encr'] == 'AES_CBC_256'
    assert child['remote_ts'] == ['10.2.0.0/24', '10.3.0.0/24']
    assert child['local_ts'] == ['10.99.0.1/32']
    assert one(events, 'AddressAssigned')['dns'] == ['10.2.0.53']


def test_a_key_of_another_peer_of_the_file_is_no_key(bob: list[str]) -> None:
    "The identity picks the configuration, and the key must be the one that stands there."
    status, events = call(bob, 'as-mallory', '--once')
    assert status == 5
    assert one(events, 'Closed')['type'] == 'AUTHENTICATION_FAILED'


def test_options_win_over_the_file(bob: list[str]) -> None:
    status, events = call(bob, 'as-alice', '--once', '--remote-ts', '10.2.0.7')
    assert status == 0 and one(events, 'ChildEstablished')['remote_ts'] == ['10.2.0.7/32']


def test_the_peer_that_is_named_wins_too(folder: Path) -> None:
    file = folder / 'elsewhere.toml'
    file.write_text(CALLERS.replace('peer = "127.0.0.1"', 'peer = "192.0.2.1"'))
    with demo_peer(['--config', str(folder / 'peers.toml')]) as ports:
        options = ['--config', str(file), '127.0.0.1', '--port', ports[0], '--nat-port', ports[1]]
        status, events = call(options, 'as-alice', '--once')
    assert status == 0 and events[0]['peer'] == f'127.0.0.1:{ports[0]}'


def test_many_call_at_once_and_each_is_served(bob: list[str]) -> None:
    "More than the threshold of half-open SAs, so some are asked for a cookie."
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call, bob, name, '--once')
                 for _ in range(6) for name in ('as-alice', 'as-carol')]
        results = [c.result(timeout=60) for c in calls]
    assert [status for status, _ in results] == [0] * 12
    spis = {one(events, 'Established')['spi_r'] for _, events in results}
    inner = {tuple(one(events, 'ChildEstablished')['local_ts']) for _, events in results}
    assert len(spis) == 12 and inner == {('10.1.0.0/24',), ('10.99.0.1/32',)}


def test_the_file_says_how_long_keys_live(bob: list[str]) -> None:
    command = [sys.executable, '-m', 'ike_lit.initiator', *bob, '--connection', 'as-alice', '--json']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:  # noqa: S603
        made = 0
        for line in session.stdout:
            made += json.loads(line)['event'] == 'ChildEstablished'
            if made == 3: break
        session.terminate()
        rest, _ = session.communicate(timeout=20)
    assert session.returncode == 0 and '"Closed", "error": null' in rest


@pytest.mark.parametrize('text, words', [
    ('[connections.x]\nremote-is = "b"', "connection x: 'remote-is' is no option; did you mean"),
    ('[connections.x]\nconfig = "b"', "'config' is no option"),
    ('[connections.x]\ndemo = true', "connection x: 'demo' is no option\n"),
    ('[connections.x]\ntimeout = "soon"', "connection x: timeout: invalid float value: 'soon'"),
    ('[connections.x]\nmode = "tunel"', "connection x: mode: invalid choice: 'tunel'"),
    ('[connections.x]\njson = "yes"', 'connection x: json is true or false'),
    ('[connections]\nx = 1', 'connections.x is no table'), ('[peers]', "'peers' is not"),
    ('', 'no [connections.NAME]'), ('[connections.x', "Expected ']'"),
    ('[connections.x]\nport = {}', 'port has a value that is no text'),
    ('[connections.x]\nport = "80 80"', "'80 80' is no port"),
    ('[connections.x]\nremote-id = "a.b"\nprivate-key = "none.key"\n'
     'peer-key = "alice.pub"', 'none.key: No such file'),
    ('[connections.x]\nlocal-ts = "nowhere"\nremote-id = "a.b"\nprivate-key = "bob.key"\n'
     'peer-key = "alice.pub"', 'nowhere')])
@pytest.mark.parametrize('module', ['initiator', 'responder'])
def test_mistakes_in_the_file(folder: Path, module: str, text: str, words: str) -> None:
    file = folder / 'wrong.toml'
    file.write_text(text)
    options = ['127.0.0.1', '--connection', 'x'] if module == 'initiator' else ['--port', '0']
    done = run('--config', str(file), *options, module=module)
    assert done.returncode == 2 and words in done.stderr and not done.stdout
    assert str(file) in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.parametrize('arguments, words', [
    (['--config', 'callers.toml'], '--config and --connection go together'),
    (['--connection', 'x'], '--config and --connection go together'),
    (['--config', 'callers.toml', '--connection', 'as-bob'],
     "no connection 'as-bob', but as-alice, as-carol, as-mallory"),
    (['--config', 'none.toml', '--connection', 'x'], 'No such file or directory')])
def test_which_connection(folder: Path, arguments: list[str], words: str) -> None:
    done = run(*(str(folder / a) if a.endswith('.toml') else a for a in arguments))
    assert done.returncode == 2 and words in done.stderr


def test_two_peers_with_one_name_are_a_mistake(folder: Path) -> None:
    file = folder / 'twice.toml'
    file.write_text(PEERS + PEERS.replace('connections.', 'connections.again-'))
    done = run('--config', str(file), '--port', '0', '--nat-port', '0', module='responder')
    assert done.returncode == 2
    assert 'connection again-alice: FQDN alice.example.org is there already' in done.stderr


def test_demo_keys_in_the_file_serve_only_this_machine(folder: Path, tmp_path: Path) -> None:
    pem(tmp_path / 'mine.key', generate_private_key(65537, 2048))
    file = tmp_path / 'peers.toml'
    file.write_text(f'[connections.x]\nremote-id = "a.example.org"\nprivate-key = "mine.key"\n'
                    f'peer-key = "{ROOT}/keys/initiator.pub"\n')
    done = run('--config', str(file), '--listen', '192.0.2.1', module='responder')
    assert done.returncode == 2 and f'{file}: connection x: the keys in keys/' in done.stderr
