"""Two ends of which nobody has set anything but who they are, the secret, and the traffic: what the tests of
everybody's own defaults share."""
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from interop import Program, running
from peers.strongswan import LEFT, RIGHT, Lab, Settings

ALICE, BOB, SECRET = 'alice.example.org', 'bob.example.org', 'only this was agreed by telephone'
NETS = '10.1.0.0/24', '10.2.0.0/24'
TIMES = 3  # each kind of SA is rekeyed
PATIENCE = 90  # seconds; Python alone may take 20 to start in the VM
HOURS: list[str] = []  # our default
SECONDS = ['--child-lifetime', '1,600', '--ike-lifetime', '3,600']  # we rekey by ourselves

# for swanctl.conf: no word about algorithms, lifetimes or anything else
CONNECTIONS: Settings = {'lab': {
    'local_addrs': RIGHT, 'remote_addrs': LEFT,
    'local': {'auth': 'psk', 'id': BOB}, 'remote': {'auth': 'psk', 'id': ALICE},
    'children': {'net': {'local_ts': NETS[1], 'remote_ts': NETS[0]}}}}
SECRETS: Settings = {'ike-lab': {'secret': f'"{SECRET}"'}}


@contextmanager
def ours(lab: Lab, role: str, call: Callable[[], object], *options: str,
         before: str = '') -> Iterator[Program]:
    """Our program on the left side, in a role, as the first Child SA is agreed; `call` lets the peer call it.

    `before`: lines of Python that it runs first."""
    secret = lab.home.parent / 'secret'
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    where = [RIGHT] if role == 'initiator' else ['--listen', LEFT]
    run = f'{before}\nfrom ike_lit.{role} import main\nmain()'
    how = ['-c', run] if before else ['-m', f'ike_lit.{role}']
    argv = [sys.executable, *how, *where, '--json', '--local-id', ALICE,
            '--remote-id', BOB, '--psk-file', str(secret), '--local-ts', NETS[0], '--remote-ts', NETS[1],
            *options]
    with running(lab, argv) as program:
        if role == 'responder':
            program.wait('Listening', PATIENCE)
            call()
        program.wait('ChildEstablished', PATIENCE)
        yield program


def rekeyings(program: Program, ask: tuple[Callable[[], object], Callable[[], object]] | None,
              news: str = 'ChildEstablished', times: int = TIMES) -> Iterator[str]:
    """Yield each kind of SA as often as it is rekeyed, after the event that says so: by the peer, who is
    asked to rekey the Child SA, then the IKE SA; or with None by ourselves, when their time has come."""
    for _ in range(times):
        for kind, do in zip((news, 'Rekeyed'), ask or (None, None), strict=True):
            program.position = len(program.events)
            if do: do()
            program.wait(kind, PATIENCE)
            yield kind


# a strongSwan whose operator has asked for ML-KEM beside X25519, which ours have by default
HYBRID = 'x25519-ke1_mlkem768'
SUITE = 'IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519/ADDKE1_ML_KEM_768'


def hybrid_connections(methods: str = HYBRID) -> Settings:
    "Those of swanctl.conf, with key exchanges for both kinds of SA."
    lab = dict(CONNECTIONS['lab'])
    net = {**lab['children']['net'], 'esp_proposals': f'aes256gcm16-{methods}'}
    return {'lab': {**lab, 'proposals': f'aes256gcm16-prfsha384-{methods}', 'children': {'net': net}}}


def went_straight(program: Program, detours: int = 0) -> None:
    "The initial exchanges have had so many detours at most: else one request of each, however often sent."
    asked = [(e['exchange'], e['message_id']) for e in program.all('Message', response=False, attempt=1)
             if e['exchange'] in ('IKE_SA_INIT', 'IKE_INTERMEDIATE', 'IKE_AUTH')]
    assert len(asked) - len(set(asked)) <= detours and ('IKE_SA_INIT', 0) in asked, asked


def untroubled(program: Program) -> None:
    "Nothing has failed, was refused, or has ended with an error, as no IKE SA that was replaced does."
    bad = [e for e in program.events if e['event'] in ('ChildFailed', 'NotInstalled') or e.get('error')]
    assert not bad, bad
    refused = [e for e in program.all('Message', exchange='CREATE_CHILD_SA')
               if any('NO_PROPOSAL_CHOSEN' in p or 'INVALID_KE' in p for p in e['payloads'])]
    assert not refused, refused
