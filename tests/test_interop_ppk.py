"""Postquantum preshared keys (RFC 8784) with strongSwan, old and new, in both roles: both have it, it must or
may be used, or one end has another; then a rekeying of each kind, whose keys all come from the mixed SK_d."""
import sys
from functools import partial
from pathlib import Path

import pytest
from defaults import ALICE, BOB, CONNECTIONS, NETS, SECRET, SECRETS, hybrid_connections, rekeyings, untroubled
from interop import end_all, inside, needs_strongswan, running, start
from peers.strongswan import LEFT, RIGHT, Lab

pytestmark = needs_strongswan
PPK, OTHER = 'thirty-two octets of randomness!', 'another one, as long as the first'
AUTH_FAILED = 'AUTHENTICATION_FAILED'


@pytest.fixture(params=['lab', 'newer_lab'])
def peer(request: pytest.FixtureRequest, keys: Path) -> Lab:
    lab = request.getfixturevalue(request.param)
    start(lab, keys)
    return lab


def load(peer: Lab, secret: str, required: str, name: str = 'winter', fixed: bool = True) -> None:
    "Let strongSwan have a PPK, this one or any for us; the newer one has ML-KEM as well."
    newer = 'strongswan6' in str(peer.usr)
    connections = hybrid_connections() if newer else {'lab': dict(CONNECTIONS['lab'])}
    connections['lab'] |= {'ppk_required': required} | ({'ppk_id': name} if fixed else {})
    peer.load(connections, {**SECRETS, 'ppk-lab': {'id': name, 'secret': f'"{secret}"'}})


def command(peer: Lab, role: str, *options: str) -> list[str]:
    for name, text in ('secret', SECRET), ('ppk', PPK):
        path = peer.home.parent / name
        path.touch(mode=0o600)
        path.write_text(text)
    where = [RIGHT, '--retry', 'never'] if role == 'initiator' else ['--listen', LEFT]
    return [sys.executable, '-m', f'ike_lit.{role}', *where, '--json', '--local-id', ALICE,
            '--remote-id', BOB, '--psk-file', str(peer.home.parent / 'secret'), '--local-ts', NETS[0],
            '--remote-ts', NETS[1], '--install', 'none', *options]


def ours(peer: Lab, *more: str) -> list[str]:
    return ['--ppk-file', str(peer.home.parent / 'ppk'), '--ppk-id', 'winter', *more]


def initiate(peer: Lab, role: str) -> None:
    if role == 'initiator': return
    try: peer.swanctl('--initiate', '--child', 'net', '--timeout', '5')
    except RuntimeError as error: print(error)


@inside
@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('required', ['yes', 'no'])
@pytest.mark.parametrize('more', [(), ('--ppk-optional',)], ids=['must', 'may'])
def test_both_have_it(peer: Lab, role: str, required: str, more: tuple[str, ...]) -> None:
    load(peer, PPK, required)
    with running(peer, command(peer, role, *ours(peer, *more))) as program:
        if role == 'responder': program.wait('Listening', 90)
        initiate(peer, role)
        program.wait('ChildEstablished')
        assert [e['proof'][-9:] for e in program.all('Established')] == ['and a PPK']
        rekey = partial(peer.swanctl, '--rekey')
        ask = partial(rekey, '--child', 'net'), partial(rekey, '--ike', 'lab')
        assert all(rekeyings(program, ask, times=1))
        untroubled(program)
        proofs = [e['payloads'] for e in program.all('Message', exchange='IKE_AUTH')]
        assert all('N(PPK_IDENTITY)' in payloads for payloads in proofs) and len(proofs) == 2
        assert 'using PPK' in peer.log()
    end_all(peer)


@inside
@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_who_has_none_and_must_not_need_it(peer: Lab, role: str) -> None:
    "One end has a PPK that is optional, the other has none, or has one of another name: they do without."
    load(peer, OTHER, 'no', name='summer', fixed=role == 'responder')
    for options in (), ours(peer, '--ppk-optional'):
        with running(peer, command(peer, role, *options)) as program:
            if role == 'responder': program.wait('Listening', 90)
            initiate(peer, role)
            program.wait('ChildEstablished')
            answer = program.all('Message', exchange='IKE_AUTH', response=True)[0]
            assert 'N(PPK_IDENTITY)' not in answer['payloads']
            assert not any('PPK' in e['proof'] for e in program.all('Established'))
        end_all(peer)


@inside
@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('secret, name', [(OTHER, 'winter'), (PPK, 'summer')], ids=['key', 'name'])
def test_another_ppk_ends_it(peer: Lab, role: str, secret: str, name: str) -> None:
    load(peer, secret, 'yes', name)
    with running(peer, command(peer, role, *ours(peer))) as program:
        if role == 'responder': program.wait('Listening', 90)
        initiate(peer, role)
        said = program.wait('Closed')
        assert said['error'] and not program.all('Established')
        program.process.wait(30) if role == 'initiator' else program.end()
