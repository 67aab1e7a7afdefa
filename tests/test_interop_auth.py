"""Every way to prove who one is, with a real strongSwan, whoever calls; and what is refused, by us
and by it, with the sentence that the operator gets.

One charon has all keys and certificates, good and bad; each test gives it another connection.

These run by way of test_interop_strongswan.py for those who are not root.
"""
import base64
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from interop import (
    HASTE, Program, end_all, inside, needs_strongswan, paragraph, running, start, states)
from peers.certificates import CODE_SIGNING, DAY, NOW, Office, only_for
from peers.strongswan import LEFT, RIGHT, Lab, poll

pytestmark = needs_strongswan
ALICE, BOB = 'alice.example.org', 'bob.example.org'
IKE = 'aes128-sha256-x25519'
SECRET = 'correct horse battery staple'  # noqa: S105
# or charon remembers the authorities that a peer has shown, and takes us for an attacker
SETTINGS = f'''{HASTE}
cert_cache = no
dos_protection = no
filelog {{ lab {{ ike_name = yes }} }}'''


@pytest.fixture(scope='module')
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    "Keys of both ends of every kind, authorities, certificates, shared keys."
    made = Office(tmp_path_factory.mktemp('office'))
    for end in 'alice', 'bob':
        for kind in 'rsa', 'p256', 'p384', 'p521', 'ed25519': made.key(f'{end}-{kind}', kind)
    made.key('stranger', 'p256')
    made.key('locked', 'p256', passphrase=b'open sesame')
    authorities(made)
    for end, fqdn, address in ('alice', ALICE, LEFT), ('bob', BOB, RIGHT):
        names = fqdn, f'{end}@example.org', address
        for kind in 'rsa', 'p256', 'p384', 'p521', 'ed25519':
            made.certificate(f'{end}-{kind}', f'{end}-{kind}', 'root', names)
        made.certificate(f'{end}-rsa-by-rsa', f'{end}-rsa', 'rsaroot', names)
        for root in 'rsaroot', 'openssl', 'easy-rsa':
            made.certificate(f'{end}-by-{root}', f'{end}-p256', root, names)
        made.certificate(f'{end}-deep', f'{end}-p256', f'middle-{end}', names)
        made.bundle(f'chain-{end}.crt', f'{end}-deep', f'middle-{end}')
        made.certificate(f'{end}-printable', f'{end}-p256', 'root', string='PrintableString',
                         common=end)
        made.certificate(f'{end}-utf8', f'{end}-p256', 'root', common=end)
        made.certificate(f'{end}-foreign', f'{end}-p256', 'foreign', names)
        made.certificate(f'{end}-nameless', f'{end}-p256', 'root', ['carol.example.org'])
    bad_certificates(made)
    made.revoked('nobody.crl', 'root')
    made.revoked('bob.crl', 'root', 'bob-p384')
    for file, text in SECRETS.items(): made.write(file, text.encode() + b'\n')
    made.write('passphrase', b'open sesame\n')
    return made


def authorities(made: Office) -> None:
    made.authority('root', 'p384')
    made.authority('rsaroot', 'rsa')
    made.authority('foreign')
    made.authority('openssl', 'rsa', purpose=False)  # as `openssl req -x509` makes it
    made.authority('easy-rsa', 'rsa', critical=False)
    for who in 'middle-alice', 'middle-bob', 'lost': made.authority(who, 'p256', 'root')
    made.authority('restricted', 'p256', 'root', only_for('example.com'))


def bad_certificates(made: Office) -> None:
    "All of bob's one key, and for his names."
    names, key = [BOB], 'bob-p256'
    made.certificate('bob-expired', key, 'root', names, since=NOW - 3 * DAY, until=NOW - DAY)
    made.certificate('bob-future', key, 'root', names, since=NOW + DAY, until=NOW + 3 * DAY)
    made.certificate('bob-purpose', key, 'root', names, more=[CODE_SIGNING])
    made.certificate('bob-self', key, 'bob-self', names)
    made.certificate('bob-restricted', key, 'restricted', names)
    made.certificate('bob-lost', key, 'lost', names)


SECRETS = {'text.psk': SECRET, 'hex.psk': f'0x{SECRET.encode().hex()}',
           'base64.psk': f'0s{base64.b64encode(SECRET.encode()).decode()}',
           'short.psk': 'too short', 'other.psk': 'another shared key'}


@pytest.fixture(scope='module')
def prepared(lab: Lab, keys: Path, office: Office) -> Lab:
    "charon, with all that bob has and what he needs to believe alice."
    authorities = 'root', 'rsaroot', 'openssl', 'easy-rsa', 'middle-bob', 'restricted'
    folders = {'private': ['bob-*.key'], 'pubkey': ['*.pub'], 'x509': ['bob-*.crt'],
               'x509ca': [f'{name}.crt' for name in authorities]}
    files = {f'{folder}/{path.name}': path for folder, patterns in folders.items()
             for pattern in patterns for path in office.folder.glob(pattern)}
    start(lab, keys, extra=SETTINGS, plugins='eap-md5', files=files)
    return lab


@pytest.fixture
def charon(prepared: Lab) -> Iterator[Lab]:
    "charon, left without SAs for the next test, whatever happens with this one."
    yield prepared
    end_all(prepared)


@dataclass(frozen=True)
class Proof:
    """How an end proves who it is. The options are for our program, the settings for charon:
    one of them proves, the other checks, and says how it was done."""
    options: str  # files are named without their folder
    settings: dict[str, str]
    how: str


def psk(file: str = 'text.psk') -> tuple[Proof, Proof]:
    "The same shared key at both ends."
    return (Proof(f'--psk-file {file}', {'auth': 'psk'}, 'pre-shared key'),
            Proof(f'--psk-file {file}', {'auth': 'psk'}, 'method 2, shared key'))


# how charon and how we name the signature of each key
RSA = 'RSA_EMSA_PKCS1_SHA2_256', 'method 14, RSA with SHA2-256, key of 2048 bits'
PSS = 'RSA_EMSA_PSS_SHA2_256_SALT_32', 'method 14, RSA-PSS with SHA2-256, key of 2048 bits'
P256 = 'ECDSA_WITH_SHA256_DER', 'method 14, ECDSA with SHA2-256, key on P-256'
P384 = 'ECDSA_WITH_SHA384_DER', 'method 14, ECDSA with SHA2-384, key on P-384'
P521 = 'ECDSA_WITH_SHA512_DER', 'method 14, ECDSA with SHA2-512, key on P-521'
ED25519 = 'ED25519', 'method 14, Ed25519, key of 256 bits'
WAYS = {'rsa': RSA, 'p256': P256, 'p384': P384, 'p521': P521, 'ed25519': ED25519}


def alice_key(kind: str, how: str = '', more: str = '', auth: str = 'pubkey') -> Proof:
    return Proof(f'--private-key alice-{kind}.key {more}',
                 {'auth': auth, 'pubkeys': f'alice-{kind}.pub'}, how or WAYS[kind][0])


def bob_key(kind: str, how: str = '', auth: str = 'pubkey') -> Proof:
    return Proof(f'--peer-key bob-{kind}.pub', {'auth': auth, 'pubkeys': f'bob-{kind}.pub'},
                 how or WAYS[kind][1])


def alice_cert(name: str, kind: str = 'p256', root: str = 'root') -> Proof:
    return Proof(f'--private-key alice-{kind}.key --cert {name}.crt',
                 {'auth': 'pubkey', 'cacerts': f'{root}.crt'}, WAYS[kind][0])


def bob_cert(name: str, kind: str = 'p256', root: str = 'root', issuer: str = '',
             more: str = '') -> Proof:
    return Proof(f'--ca {root}.crt {more}', {'auth': 'pubkey', 'certs': f'{name}.crt'},
                 f'{WAYS[kind][1]}, certified by C=CH, O=Example, CN={issuer or root}')


def named_by_certificate(name: str) -> Proof:
    "Bob is whoever his certificate says he is."
    proof = bob_cert(name)
    return replace(proof, settings={**proof.settings, 'id': ''})


@dataclass(frozen=True)
class Row:
    "What the two ends are configured for."
    alice: Proof
    bob: Proof
    alice_id: str = ALICE  # as both operators write it
    bob_id: str = BOB
    ike: str = IKE
    secret: str = SECRET  # charon's, as swanctl.conf has it
    options: str = ''  # more of ours; the last counts
    more: dict[str, str] = field(default_factory=dict)  # of charon's connection

    def connection(self) -> dict:
        "The settings of charon's connection."
        local = {'id': f'"{self.bob_id}"', **self.bob.settings}
        child = {'local_ts': '10.2.0.0/24', 'remote_ts': '10.1.0.0/24',
                 'esp_proposals': 'aes128-sha256'}
        return {
            'version': 2, 'local_addrs': '%any', 'remote_addrs': f'{LEFT}, %any',
            'proposals': self.ike, 'mobike': 'no', **self.more,
            'local': {key: value for key, value in local.items() if value},
            'remote': {'id': f'"{self.alice_id}"', **self.alice.settings},
            'children': {'net': child}}

    def load(self, charon: Lab) -> None:
        "Let charon be configured for this, and for nothing else."
        charon.load({'lab': self.connection()}, {'ike': {'secret': f'"{self.secret}"'}})

    def argv(self, office: Office, role: str, *more: str) -> list[str]:
        "The command line of our program."
        same = self.alice.options == self.bob.options  # the shared key
        words = f'{self.alice.options} {self.bob.options if not same else ""} {self.options}'
        files = {word: str(path) for word in words.split()
                 if (path := office.folder / word).is_file()}
        by_default = self.alice_id.startswith(DN) and role == 'initiator'
        names = ['--remote-id', self.bob_id, *['--local-id', self.alice_id] * (not by_default)]
        return [*program(role), *names, '--ike', self.ike,
                *(files.get(word, word) for word in words.split()), *more]


def program(role: str) -> list[str]:
    "How every command line of ours begins."
    where = [RIGHT] if role == 'initiator' else ['--listen', LEFT]
    return [sys.executable, '-m', f'ike_lit.{role}', *where, '--local-ts', '10.1.0.0/24',
            '--remote-ts', '10.2.0.0/24', '--ike', IKE, '--esp', 'aes128-sha256',
            '--install', 'none']


DN = 'C=CH, O=Example, CN='
GOOD = {
    # Shared keys
    'psk text': Row(*psk()),
    'psk hex, sha512': Row(*psk('hex.psk'), ike='aes128-sha512-x25519',
                           secret=SECRETS['hex.psk']),
    'psk base64, xcbc': Row(*psk('base64.psk'), ike='aes128-sha256-prfaesxcbc-x25519',
                            secret=SECRETS['base64.psk']),
    # Public keys, carried by hand
    **{f'key {kind}': Row(alice_key(kind), bob_key(kind)) for kind in WAYS if kind != 'rsa'},
    **{f'{auth} from it': Row(psk()[0], bob_key(kind, f'method 14, {how}', auth))
       for auth, kind, how in (
           ('rsa-sha512', 'rsa', 'RSA with SHA2-512, key of 2048 bits'),
           ('rsa/pss-sha384', 'rsa', 'RSA-PSS with SHA2-384, key of 2048 bits'),
           ('ecdsa-sha512', 'p256', 'ECDSA with SHA2-512, key on P-256'))},
    'key rsa-pss': Row(alice_key('rsa', PSS[0], '--rsa-pss', 'rsa/pss-sha256'),
                       bob_key('rsa', PSS[1], 'rsa/pss-sha256')),
    # Certificates
    'cert rsa': Row(alice_cert('alice-rsa', 'rsa'), bob_cert('bob-rsa', 'rsa')),
    'cert rsa by rsa': Row(alice_cert('alice-rsa-by-rsa', 'rsa', 'rsaroot'),
                           bob_cert('bob-rsa-by-rsa', 'rsa', 'rsaroot')),
    'cert p256': Row(alice_cert('alice-p256'), bob_cert('bob-p256')),
    'cert ed25519': Row(alice_cert('alice-ed25519', 'ed25519'),
                        bob_cert('bob-ed25519', 'ed25519')),
    **{f'authority by {root}': Row(alice_cert(f'alice-by-{root}', root=root),
                                   bob_cert(f'bob-by-{root}', root=root))
       for root in ('rsaroot', 'openssl', 'easy-rsa')},
    'chain': Row(alice_cert('chain-alice'), bob_cert('bob-deep', issuer='middle-bob')),
    'crl': Row(alice_cert('alice-p256'), bob_cert('bob-p256', more='--crl nobody.crl')),
    # Identities
    'id email': Row(alice_cert('alice-p256'), bob_cert('bob-p256'), 'alice@example.org',
                    'bob@example.org'),
    'id address': Row(alice_cert('alice-p256'), bob_cert('bob-p256'), LEFT, RIGHT),
    'id dn': Row(alice_cert('alice-utf8'), bob_cert('bob-utf8'), f'{DN}alice', f'{DN}bob'),
    'id dn, printable': Row(alice_cert('alice-printable'), bob_cert('bob-printable'),
                            f'{DN}alice', f'{DN}bob'),
    'id dn, it by default': Row(alice_cert('alice-printable'), named_by_certificate('bob-utf8'),
                                f'{DN}alice', f'{DN}bob'),
    # Each end in a way of its own
    'psk and cert': Row(psk()[0], bob_cert('bob-p256')),
    'cert and psk': Row(alice_cert('alice-p256'), psk()[1]),
    'key and cert': Row(alice_key('ed25519'), bob_cert('bob-rsa', 'rsa')),
    'cert and key': Row(alice_cert('alice-rsa', 'rsa'), bob_key('p384')),
}


@contextmanager
def session(charon: Lab, argv: list[str]) -> Iterator[Program]:
    "Our program; whoever begins, an IKE SA comes of it."
    with running(charon, argv) as ours:
        if 'ike_lit.responder' in argv:
            ours.wait('Listening')
            charon.swanctl('--initiate', '--child', 'net', '--timeout', '10')
        yield ours


def logged(charon: Lab) -> str:
    "What charon has logged since it got its latest configuration."
    return charon.log().rpartition('vici connection: ')[2]


def check_established(charon: Lab, ours: Program, row: Row) -> None:
    "Both ends are content, for the reasons that the row has."
    sa = ours.wait('Established')
    ours.wait('ChildEstablished')
    assert (sa['proof'], sa['remote_id']) == (row.bob.how, row.bob_id)
    between = f"established between {RIGHT}[{row.bob_id}]...{LEFT}[{row.alice_id}]"
    assert poll(lambda: between in logged(charon)), logged(charon)
    poll(lambda: states(charon) == [('ESTABLISHED', ['INSTALLED'])])
    assert states(charon) == [('ESTABLISHED', ['INSTALLED'])], charon.sas()
    said = logged(charon)
    assert f"authentication of '{row.alice_id}' with {row.alice.how} successful" in said, said


roles = pytest.mark.parametrize('role', ['initiator', 'responder'])


@inside
@roles
@pytest.mark.parametrize('name', GOOD)
def test_both_ends_are_content(charon: Lab, office: Office, name: str, role: str) -> None:
    row = GOOD[name]
    row.load(charon)
    with session(charon, row.argv(office, role, '--json')) as ours:
        check_established(charon, ours, row)


FILE = f'''[connections.secret]
local-id = "{ALICE}"
remote-id = "{BOB}"
psk-file = "text.psk"

[connections.certified]
local-id = "alice@example.org"
remote-id = "bob@example.org"
private-key = "alice-p256.key"
cert = "alice-p256.crt"
ca = "root.crt"
'''


@inside
def test_one_responder_knows_peers_of_both_kinds(charon: Lab, office: Office) -> None:
    path = office.write('connections.toml', FILE.encode())
    with running(charon, [*program('responder'), '--config', path, '--json']) as ours:
        ours.wait('Listening')
        for row in GOOD['psk text'], GOOD['id email']:
            row.load(charon)
            charon.swanctl('--initiate', '--child', 'net', '--timeout', '10')
            check_established(charon, ours, row)
            charon.swanctl('--terminate', '--ike', 'lab')


# A strongSwan that does not know RFC 7427: methods 9, 10 and 11

METHODS = {'p256': ('ECDSA-256 signature', 9), 'p384': ('ECDSA-384 signature', 10),
           'p521': ('ECDSA-521 signature', 11)}


def old(kind: str, alice: Proof, bob: Proof) -> Row:
    "The same, proven by the method that is only for this curve."
    (theirs, number), (_, _, what) = METHODS[kind], bob.how.partition(', ')
    return Row(replace(alice, how=theirs), replace(bob, how=f'method {number}, {what}'))


OLD = {**{f'key {kind}': old(kind, alice_key(kind), bob_key(kind)) for kind in METHODS},
       'cert p256': old('p256', alice_cert('alice-p256'), bob_cert('bob-p256'))}


@pytest.fixture
def old_charon(charon: Lab) -> Iterator[Lab]:
    conf = charon.home / 'strongswan.conf'
    modern = conf.read_text()
    conf.write_text(modern.replace(SETTINGS, f'{SETTINGS}\nsignature_authentication = no'))
    charon.swanctl('--reload-settings')
    yield charon
    conf.write_text(modern)
    charon.swanctl('--reload-settings')


@inside
@roles
@pytest.mark.parametrize('name', OLD)
def test_methods_for_an_older_peer(old_charon: Lab, office: Office, name: str, role: str) -> None:
    row = OLD[name]
    row.load(old_charon)
    with session(old_charon, row.argv(office, role, '--json')) as ours:
        check_established(old_charon, ours, row)


# What we refuse, and what the paragraph must say. What alice has is good

ALICES = alice_key('p256')
A_CERTIFICATE = f'the peer has shown a certificate of {DN}'


def bad(certificate: str) -> Row: return Row(ALICES, bob_cert(certificate))


def bob_checked(settings: dict[str, str], options: str) -> Row:
    "Bob proves himself in one way, and we have something else to check it with."
    return Row(ALICES, Proof(options, settings, ''))


KEY, CERT = bob_key('p256').settings, bob_cert('bob-p256').settings
REFUSED = {
    'wrong shared key': (bob_checked({'auth': 'psk'}, '--psk-file other.psk'),
                         ['the shared key is wrong for this identity and handshake']),
    'wrong key': (bob_checked(KEY, '--peer-key stranger.pub'),
                  ['signature (ECDSA with SHA2-256) is wrong for this key']),
    'wrong key, with certificate': (
        replace(bob_checked(CERT, '--peer-key stranger.pub'), more={'send_cert': 'always'}),
        ['is wrong for this key', f'{A_CERTIFICATE}bob-p256 issued by {DN}root']),
    'key of another kind': (bob_checked(KEY, '--peer-key bob-rsa.pub'),
                            ['by ECDSA with SHA2-256, and its key is of another kind']),
    'expired': (bad('bob-expired'), [f'the certificate has expired on {NOW - DAY:%Y-%m-%d}',
                                     f'{A_CERTIFICATE}bob-expired issued by {DN}root']),
    'not yet valid': (bad('bob-future'), [f'is not valid before {NOW + DAY:%Y-%m-%d}',
                                          f'{A_CERTIFICATE}bob-future']),
    'wrong purpose': (bad('bob-purpose'), ['excludes IKE: 1.3.6.1.5.5.7.3.3',
                                           f'{A_CERTIFICATE}bob-purpose']),
    'unrelated authority': (bad('bob-foreign'), [f'no chain leads from the certificate to our '
                                                 f'authorities ({DN}root)', f'by {DN}foreign']),
    'self-signed': (bad('bob-self'), ['signed by itself', f'{A_CERTIFICATE}bob-self issued by']),
    'name constraint': (bad('bob-restricted'), ['chain of the certificate is not valid',
                                                'name constraint', f'by {DN}restricted']),
    'revoked': (Row(ALICES, bob_cert('bob-p384', 'p384', more='--crl bob.crl')),
                [f'certificate of {DN}bob-p384 was revoked on {NOW - DAY:%Y-%m-%d}']),
    'other name': (bad('bob-nameless'), [f'the certificate is not for FQDN {BOB}',
                                         'carol.example.org', f'{A_CERTIFICATE}bob-nameless']),
    'intermediate not sent': (bad('bob-lost'), ['no chain leads', f'issued by {DN}lost',
                                                'should send the certificate of its issuer']),
    'no certificate': (replace(bad('bob-p256'), more={'send_cert': 'never'}),
                       ['the peer sends no certificate']),
    'key, not certified': (bob_checked(KEY, '--ca root.crt'), ['the peer sends no certificate']),
    'shared key, not certified': (bob_checked({'auth': 'psk'}, '--ca root.crt'),
                                  ['by a shared key, we want a signature']),
    'certificate, no shared key': (bob_checked(CERT, '--psk-file text.psk'),
                                   ['we have only a shared key for it']),
}

# What it refuses. It does not say why, so the paragraph says who we are and whom we expect

IT_REFUSES = {
    'our shared key': (Row(replace(psk()[0], options='--psk-file other.psk'), bob_key('p256')), []),
    'our key': (Row(replace(ALICES, options='--private-key stranger.key'), bob_key('p256')), []),
    'our authority': (Row(alice_cert('alice-foreign'), bob_cert('bob-p256')), []),
    'our bare key': (Row(replace(ALICES, settings=alice_cert('alice-p256').settings),
                         bob_key('p256')), []),
    'our name': (Row(ALICES, bob_key('p256'), options='--local-id mallory.example.org'),
                 ['We are FQDN mallory.example.org']),
    'the name of the peer': (Row(ALICES, bob_key('p256'), options='--remote-id carol.example.org'),
                             ['expect FQDN carol.example.org']),
    'no EAP': (Row(replace(ALICES, settings={'auth': 'eap-md5'}), bob_key('p256')), []),
}
CALLED = {f'r{n}': (name, *what) for n, (name, what) in enumerate(
    {**REFUSED, **{f'it refuses {name}': what for name, what in IT_REFUSES.items()}}.items())}


@dataclass
class Answer:
    "What our program said, and what charon logged."
    status: int
    said: str
    errors: str
    log: str
    up: bool  # does charon have an IKE SA?

    def paragraph(self) -> str:
        assert self.said.count('failed: ') == 1 and not self.errors, self
        return paragraph(self.said)


def until(process: subprocess.Popen[str], *beginnings: str, timeout: float = 10) -> str:
    "What a program says up to a line that begins so, or its end."
    said, deadline = '', time.monotonic() + timeout
    while not any(line.startswith(beginnings) for line in said.splitlines()):
        if not select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
            break
        some = os.read(process.stdout.fileno(), 65536).decode()
        if not some: break
        said += some
    return said


def up(charon: Lab, name: str = 'lab') -> bool:
    "Does charon have such an IKE SA, and keep it?"
    return not poll(lambda: f'{name}: #' not in charon.sas(), 2)


def by_itself(n: str, row: Row) -> Row:
    "The same, and alice has a name that no other row has, unless that is in her certificate."
    return row if '--cert' in row.alice.options else replace(row, alice_id=f'{n}.example.org')


@pytest.fixture(scope='module')
def answers(prepared: Lab, office: Office) -> dict[str, Answer]:
    "What becomes of our calls, of all at once: each takes seconds, for a better answer may come."
    rows = {n: by_itself(n, row) for n, (_, row, _) in CALLED.items()}
    prepared.load({n: row.connection() for n, row in rows.items()},
                  {'ike': {'secret': f'"{SECRET}"'}})
    calls = {n: prepared.popen(row.argv(office, 'initiator', '--once')) for n, row in rows.items()}
    said = {n: process.communicate(timeout=30) for n, process in calls.items()}
    alive = {n: up(prepared, n) for n in rows}
    lines = logged(prepared).splitlines()
    return {n: Answer(calls[n].returncode, *said[n], '\n'.join(
        line for line in lines if f'<{n}|' in line), alive[n]) for n in rows}


@inside
@pytest.mark.parametrize('n', CALLED, ids=[name for name, *_ in CALLED.values()])
def test_our_call_is_in_vain(answers: dict[str, Answer], n: str) -> None:
    (name, row, words), answer = CALLED[n], answers[n]
    paragraph = answer.paragraph()
    if name.startswith('it refuses'): words = ['the peer answers AUTHENTICATION_FAILED', *words]
    else: assert 'parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]' in answer.log
    for word in words: assert word in paragraph
    for who in by_itself(n, row).alice_id, BOB:
        if row.options == '': assert f'FQDN {who}' in paragraph
    assert answer.status == 5 and not answer.up and 'xfrm' not in answer.said


@inside
def test_a_call_that_was_refused_is_not_repeated(answers: dict[str, Answer]) -> None:
    for n, (name, *_) in CALLED.items(): assert answers[n].said.count('-> IKE_AUTH') == 1, name


@inside
def test_little_patience_hides_no_reason(charon: Lab, office: Office) -> None:
    "The reason is an authenticated one, whether or not there was time for a better answer."
    row, words = REFUSED['expired']
    row.load(charon)
    done = charon.run(row.argv(office, 'initiator', '--once', '--timeout', '1'))
    assert done.returncode == 5
    assert f'failed: {words[0]}' in done.stdout and 'no answer' not in done.stdout


def refused_call(charon: Lab, office: Office, row: Row) -> Answer:
    "What becomes of charon's call to our responder."
    row.load(charon)
    process = charon.popen(row.argv(office, 'responder'))
    said = until(process, 'listening on')
    with pytest.raises(RuntimeError): charon.swanctl('--initiate', '--child', 'net')
    said += until(process, 'failed: ')
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=10)
    return Answer(process.returncode, said + rest, errors, logged(charon), up(charon))


THEIR_CALLS = {
    **REFUSED,
    'wrong name': (Row(ALICES, bob_key('p256'), bob_id='mallory.example.org',
                       options=f'--remote-id {BOB}'),
                   [f'the peer is FQDN mallory.example.org, we expect FQDN {BOB}']),
    'another name for us': (Row(ALICES, bob_key('p256'), alice_id='carol.example.org',
                                options=f'--local-id {ALICE}'),
                            [f'to talk to FQDN carol.example.org, we are FQDN {ALICE}']),
    'EAP': (bob_checked({'auth': 'eap-md5'}, '--ca root.crt'), ['to authenticate by EAP']),
}


@inside
@pytest.mark.parametrize('name', THEIR_CALLS)
def test_its_call_is_in_vain(charon: Lab, office: Office, name: str) -> None:
    row, words = THEIR_CALLS[name]
    answer = refused_call(charon, office, row)
    paragraph = answer.paragraph()
    for word in words: assert word in paragraph
    assert 'received AUTHENTICATION_FAILED notify error' in answer.log
    assert not answer.up and answer.status == 0 and 'xfrm' not in answer.said


@inside
@pytest.mark.parametrize('name', ['our key', 'our authority', 'our bare key'])
def test_it_calls_and_does_not_believe_us(charon: Lab, office: Office, name: str) -> None:
    "It learns last who we are, so it has to tell us in an exchange of its own."
    answer = refused_call(charon, office, IT_REFUSES[name][0])
    assert answer.paragraph().startswith('failed: the peer answers AUTHENTICATION_FAILED')
    assert re.search(r'xfrm state(.*\n)+Child SA +closed: (.*\n)+failed: ', answer.said)
    assert 'generating INFORMATIONAL request 2 [ N(AUTH_FAILED) ]' in answer.log
    assert not answer.up and answer.status == 0


# Secrets in files

@inside
@roles
def test_a_short_shared_key_is_worth_a_warning(charon: Lab, office: Office, role: str) -> None:
    row = replace(GOOD['psk text'], alice=psk('short.psk')[0], bob=psk('short.psk')[1],
                  secret=SECRETS['short.psk'])
    row.load(charon)
    process = charon.popen(row.argv(office, role, '--json'))
    ours = Program(process)
    if role == 'responder':
        ours.wait('Listening')
        charon.swanctl('--initiate', '--child', 'net')
    check_established(charon, ours, row)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors.startswith(('ike-lit: warning: ', 'ike_lit.responder: warning: '))
    assert 'the shared key has only 9 octets' in errors and errors.count('\n') == 1


LOCKED = Row(Proof('--private-key locked.key', {'auth': 'pubkey', 'pubkeys': 'locked.pub'},
                   P256[0]), bob_key('p256'))


@inside
@roles
def test_a_locked_key_is_opened(charon: Lab, office: Office, role: str) -> None:
    row = replace(LOCKED, options='--passphrase-file passphrase')
    row.load(charon)
    with session(charon, row.argv(office, role, '--json')) as ours:
        check_established(charon, ours, row)


@inside
@roles
@pytest.mark.parametrize('options, words', [
    ('', 'it is locked; try --passphrase-file'),
    ('--passphrase-file short.psk', 'the passphrase does not open it')])
def test_a_locked_key_stays_locked(charon: Lab, office: Office, role: str, options: str,
                                   words: str) -> None:
    done = charon.run(replace(LOCKED, options=options).argv(office, role),
                      stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, '')
    assert words in done.stderr and 'locked.key' in done.stderr and done.stderr.count('\n') == 1
