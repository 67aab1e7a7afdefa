"""Additional key exchanges with a strongSwan that has ML-KEM (RFC 9370): our defaults, through rekeyings of
each kind by either side; two of them; ML-KEM alone; and what one end insists on and the other lacks."""
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from defaults import (
    HOURS, SECONDS, SECRETS, SUITE, hybrid_connections, ours, rekeyings, untroubled, went_straight)
from interop import end_all, inside, needs_strongswan, start
from peers.strongswan import RIGHT, Lab, poll

pytestmark = needs_strongswan
ONE = {'IKE_SA_INIT', 'IKE_AUTH', 'CREATE_CHILD_SA', 'INFORMATIONAL'}  # where one key exchange will do
SEVERAL = ONE | {'IKE_INTERMEDIATE', 'IKE_FOLLOWUP_KE'}


@pytest.fixture
def peer(newer_lab: Lab, keys: Path) -> Lab:
    start(newer_lab, keys)
    return newer_lab


def asks(peer: Lab, who: str) -> tuple[Callable[[], object], ...] | None:
    def ask(*words: str) -> Callable[[], str]: return lambda: peer.swanctl('--rekey', *words)
    return (ask('--child', 'net'), ask('--ike', 'lab')) if who == 'it' else None


@inside
@pytest.mark.parametrize('who', ['we', 'it'])
@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('methods, options', [
    ('x25519-ke1_mlkem768', ()),  # our defaults
    ('x25519-ke1_mlkem768-ke2_ecp384', ('x25519-ke1_mlkem768-ke2_ecp384',)),
    ('ecp256-ke1_mlkem1024-ke3_modp3072', ('ecp256-ke1_mlkem1024-ke3_modp3072',)),
    ('mlkem768', ('mlkem768',))])
def test_what_both_have_is_kept_through_rekeyings(peer: Lab, methods: str, options: tuple[str, ...],
                                                  role: str, who: str) -> None:
    peer.load(hybrid_connections(methods), SECRETS)
    words = [w for m in options for w in ('--ike', f'aes256gcm16-prfsha384-{m}', '--esp', f'aes256gcm16-{m}')]
    with ours(peer, role, lambda: peer.swanctl('--initiate', '--child', 'net'), '--install', 'none', *words,
              *(SECONDS if who == 'we' else HOURS)) as program:
        assert all(rekeyings(program, asks(peer, who)))
        untroubled(program)
        went_straight(program)
        # charon's own names for them, in order
        theirs = methods.upper().replace('X25519', 'CURVE_25519').replace('MLKEM', 'ML_KEM_')
        theirs = theirs.replace('ECP', 'ECP_').replace('MODP', 'MODP_').replace('-', '/')
        assert poll(lambda: f'PRF_HMAC_SHA2_384/{theirs}' in peer.sas()), peer.sas()
        assert poll(lambda: f'ESP:AES_GCM_16-256/{theirs}' in peer.sas()), peer.sas()
    suites = {e['suite'] for e in program.all('Established') + program.all('Rekeyed')}
    if not options: assert suites == {SUITE}
    assert len(suites) == 1
    assert {e['exchange'] for e in program.all('Message')} == (SEVERAL if 'ke1' in methods else ONE)
    end_all(peer)


@inside
@pytest.mark.parametrize('fragments', ['yes', 'no'])
def test_a_peer_without_fragments_gets_the_key_whole(peer: Lab, fragments: str) -> None:
    connections = hybrid_connections()
    connections['lab']['fragmentation'] = fragments
    peer.load(connections, SECRETS)
    with ours(peer, 'initiator', lambda: None, '--install', 'none') as program: untroubled(program)
    key = program.all('Message', exchange='IKE_INTERMEDIATE', response=False)[0]
    assert key['fragments'] == (2 if fragments == 'yes' else 1)
    end_all(peer)


@inside
def test_a_peer_that_insists_on_what_the_library_lacks_is_named(peer: Lab) -> None:
    peer.load(hybrid_connections('x25519-ke1_mlkem512'), SECRETS)
    program = [sys.executable, '-m', 'ike_lit.initiator', RIGHT]
    wanted = peer.run([*program[:-1], '--demo', '--ike', 'aes256gcm16-prfsha384-x25519-ke1_mlkem512'])
    assert wanted.returncode and 'mlkem512 is not offered: the cryptography package' in wanted.stderr
    probed = peer.run([*program, '--probe'], timeout=60)
    print(probed.stdout)
    assert 'ke1_mlkem512' in probed.stdout.partition('ADDKE1')[2].partition('refuses')[0]
    assert 'ke1_mlkem768' in probed.stdout.partition('ADDKE1')[2].partition('refuses')[2]
