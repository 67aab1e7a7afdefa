"""What ike_lit costs, as ratios of two things measured side by side in one run: `make bench`.

Time is that of the processor, unless other processes do the work; see measure.py for the rest.
"""
import hmac
import os
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'nbs'))
warnings.simplefilter('ignore')

from measure import Table, Work, keep, timed
from canonical import RSA as RSA_KEYS
from canonical import configs, two_ends
from cryptography.hazmat.primitives.asymmetric import dh, ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding, PublicFormat, load_pem_private_key)
from ike_lit.cli.credential import load_private_key
from ike_lit.engine.ike_sa import INITIAL_EXCHANGES, ike_sa_init
from ike_lit.engine.model import Config
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, deliver
from ike_lit.wire.algorithm import ENCRYPTION, INTEGRITY, PRFS
from ike_lit.wire.auth import AUTH, IDi, Identity
from ike_lit.wire.certificate import Signer
from ike_lit.wire.const import (
    AuthenticationType, Encryption, ExchangeType, Group, ProtocolID, TransformType)
from ike_lit.wire.header import Reader
from ike_lit.wire.ke import GENERATOR, GROUPS, Curve, Modp, Montgomery
from ike_lit.wire.payload import Packet, pack_chain
from ike_lit.wire.proposal import Proposal, key_size, parse_proposals
from ike_lit.wire.sk import BLOCK_CIPHERS, SK, ShortGcm, aead_of, pad

HANDSHAKES = ('camellia256-sha256-modp2048', 'aes256gcm16-prfsha256-x25519',
              'aes256gcm16-prfsha384-ecp384', 'chacha20poly1305-prfsha256-x25519',
              'aes256-sha512-modp3072')
COMPILED = {**os.environ, 'PYTHONDONTWRITEBYTECODE': ''}  # as for most: a module is compiled once
LIBRARIES = 'argparse, asyncio, cryptography.x509'  # which the initiator can't do without
LOCKS = 'camellia256-sha256', 'aes256gcm16', 'aes256gcm8', 'aes256ctr-sha256', 'chacha20poly1305'


class Signature(NamedTuple):
    "How both ends sign."
    name: str
    how: tuple[Any, ...]  # for the methods `sign` and `verify` of the keys
    keys: tuple[Any, Any] | None = None  # private ones; None: those in keys/


RSA = Signature('RSA', (padding.PKCS1v15(), SHA256()))
ECDSA = Signature('ECDSA P-256', (ec.ECDSA(SHA256()),),
                  (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())))


# A whole handshake

def both(suite: str, signature: Signature) -> tuple[Config, Config]:
    "Return the configurations of both ends; ESP has the same cipher."
    names = suite.split('-')
    aead = parse_proposals(suite, ProtocolID.IKE)[0].single(TransformType.ENCR).aead
    left, right = configs(suite, names[0] if aead else '-'.join(names[:2]), RSA_KEYS)
    if signature.keys is None: return left, right
    one, other = signature.keys
    return (replace(left, credential=Signer(one), trust=other.public_key()),
            replace(right, credential=Signer(other), trust=one.public_key()))


def whole_handshake(suite: str, signature: Signature) -> Work:
    "Both ends, keys loaded, real randomness."
    left, right = both(suite, signature)

    def run() -> None:
        alice = IKE(left, ALICE, BOB, initiator=True, responders=INITIAL_EXCHANGES)
        bob = IKE(right, BOB, ALICE, initiator=False, responders=INITIAL_EXCHANGES)
        alice.start(ike_sa_init, now=0)
        while deliver(alice, bob) or deliver(bob, alice): continue
        if alice.lineage.new_sas[0].state != State.ESTABLISHED: raise RuntimeError('no handshake')
    return run


def bare_primitives(suite: str, signature: Signature) -> Work:
    """What any implementation must compute for that, and the randomness for it.

    2 key pairs, 2 shared secrets, 2 signatures, 2 verifications, 2 messages sealed and opened."""
    left, right = both(suite, signature)
    ike, esp = left.ike[0], left.esp[0]
    exchange, locks = bare_exchange(Group(ike.single(TransformType.DH).id)), (bare_lock(ike),) * 2
    prf = PRFS[ike.single(TransformType.PRF).id]
    hash_name, size = prf.function, prf.key_size
    e, a = (key_size(ike.single(t)) for t in (TransformType.ENCR, TransformType.INTEG))
    child = sum(key_size(esp.single(t)) for t in (TransformType.ENCR, TransformType.INTEG))
    # SKEYSEED, two identities, the keys of the IKE SA, those of the Child SA
    calls = 3 + -(-(3 * size + 2 * a + 2 * e) // size) + -(-2 * child // size)
    octets, key, plain, seen = bytes(510), bytes(32), bytes(448), bytes(32)

    def run() -> None:
        for secret in exchange():
            for _ in range(calls): hmac.digest(key, secret, hash_name)
        for config, peer, make in zip((left, right), (right, left), locks, strict=True):
            signature_ = config.credential.key.sign(octets, *signature.how)
            peer.trust.verify(signature_, octets, *signature.how)
            seal, unseal = make()
            unseal(seen, *seal(seen, plain))
    return run


def bare_exchange(group: Group) -> Callable[[], list[bytes]]:
    "Return what makes two key pairs and both ends' shared secrets."
    kind = GROUPS[group]
    if isinstance(kind, Modp): return lambda: powers(kind)
    if isinstance(kind, Montgomery):
        def on_x() -> list[bytes]:
            one, other = kind.private.generate(), kind.private.generate()
            points = (kind.peer.from_public_bytes(k.public_key().public_bytes_raw())
                      for k in (other, one))
            return [k.exchange(p) for k, p in zip((one, other), points, strict=True)]
        return on_x
    assert isinstance(kind, Curve)

    def on_curve() -> list[bytes]:
        one, other = (ec.generate_private_key(kind.library) for _ in range(2))
        sent = (k.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                for k in (other, one))
        points = (ec.EllipticCurvePublicKey.from_encoded_point(kind.library, p) for p in sent)
        return [k.exchange(ec.ECDH(), p) for k, p in zip((one, other), points, strict=True)]
    return on_curve


def powers(kind: Modp) -> list[bytes]:
    "Return both ends' shared secrets, after four exponentiations."
    numbers, two = bare_parameters(kind)

    def power(base: int, exponent: int) -> bytes:
        private = dh.DHPrivateNumbers(exponent, two).private_key()
        return private.exchange(dh.DHPublicNumbers(base, numbers).public_key())
    exponents = [kind.secret(os.urandom) for _ in range(2)]
    publics = [int.from_bytes(power(GENERATOR, exponent), 'big') for exponent in exponents]
    return [power(public, exponent)
            for exponent, public in zip(exponents, reversed(publics), strict=True)]


@cache
def bare_parameters(kind: Modp) -> tuple[dh.DHParameterNumbers, dh.DHPublicNumbers]:
    numbers = dh.DHParameterNumbers(kind.prime, GENERATOR)
    return numbers, dh.DHPublicNumbers(GENERATOR, numbers)


# One message

def bare_lock(suite: Proposal) -> Callable[[], tuple[Callable, Callable]]:
    """Return what makes a pair of functions with new cipher objects: seal `plain`, with `seen`
    covered, into vector and ciphertext with checksum; and the reverse."""
    encr = suite.single(TransformType.ENCR)
    kind, key = Encryption(encr.id), os.urandom(key_size(encr))
    if encr.aead: return lambda: bare_aead(kind, key)
    integ = INTEGRITY[suite.single(TransformType.INTEG).id]
    return lambda: bare_classic(kind, key, integ.function, integ.icv_size)


def bare_aead(kind: Encryption, key: bytes) -> tuple[Callable, Callable]:
    row = ENCRYPTION[kind]
    icv_size, salt = row.icv_size, key[-row.salt_size:]
    aead = aead_of(row.mode, key[:-row.salt_size], icv_size)

    def seal(seen: bytes, plain: bytes) -> tuple[bytes, bytes]:
        iv = bytes(8)
        if not short: return iv, aead.encrypt(salt + iv, plain, seen)
        return iv, aead.gcm.encrypt(salt + iv, plain, seen)[:len(plain) + icv_size]

    def unseal(seen: bytes, iv: bytes, sealed: bytes) -> bytes:
        if not short: return aead.decrypt(salt + iv, sealed, seen)
        tag = sealed[-icv_size:]
        context = Cipher(aead.key, modes.GCM(salt + iv, tag, icv_size)).decryptor()
        context.authenticate_additional_data(seen)
        return context.update(sealed[:-icv_size]) + context.finalize()
    short = isinstance(aead, ShortGcm)
    return seal, unseal


def bare_classic(kind: Encryption, key: bytes, hash_name: str,
                 size: int) -> tuple[Callable, Callable]:
    counting, key_a = kind == Encryption.AES_CTR, bytes(32)
    cipher = algorithms.AES(key[:-4]) if counting else BLOCK_CIPHERS[ENCRYPTION[kind].cipher](key)
    tail = bytes([0, 0, 0, 1])

    def mode(iv: bytes) -> modes.CBC | modes.CTR:
        return modes.CTR(key[-4:] + iv + tail) if counting else modes.CBC(iv)

    def seal(seen: bytes, plain: bytes) -> tuple[bytes, bytes]:
        iv = bytes(8) if counting else os.urandom(16)
        context = Cipher(cipher, mode(iv)).encryptor()
        sealed = context.update(plain) + context.finalize()
        return iv, sealed + hmac.digest(key_a, seen + iv + sealed, hash_name)[:size]

    def unseal(seen: bytes, iv: bytes, sealed: bytes) -> bytes:
        expected = hmac.digest(key_a, seen + iv + sealed[:-size], hash_name)[:size]
        if not hmac.compare_digest(expected, sealed[-size:]): raise ValueError('not authentic')
        context = Cipher(cipher, mode(iv)).decryptor()
        return context.update(sealed[:-size]) + context.finalize()
    return seal, unseal


def one_message(table: Table, words: str) -> None:
    "Seal and open a message whose payloads have 300 octets, against the cipher alone."
    suite, = parse_proposals(f'{words}-prfsha256-x25519', ProtocolID.IKE)
    encr, integ = suite.single(TransformType.ENCR), suite.single(TransformType.INTEG)
    sk = SK(encr, integ, os.urandom(key_size(encr)), os.urandom(key_size(integ)))
    identity = IDi.of(Identity.from_text('alice.example.org'))
    proof = AUTH(AuthenticationType.DIGITAL_SIGNATURE, bytes(300 - 25 - 8))
    packet = Packet(ExchangeType.IKE_AUTH, (identity, proof))
    chain = pack_chain(packet.payloads)[1]
    if len(chain) != 300: raise ValueError(f'{len(chain)} octets')
    plain, seen = pad(chain, sk.cipher.block_size), bytes(32)
    seal, unseal = bare_lock(suite)()
    sealed = seal(seen, plain)

    def our_seal() -> bytes:
        return sk.seal(packet, b'spi of i', b'spi of r', response=False, initiator=True,
                       message_id=1, random=os.urandom)
    message = our_seal()
    if unseal(seen, *sealed) != plain: raise ValueError('the bare cipher does not open')
    table.compare(f'{words}, seal', timed(our_seal, 100), timed(lambda: seal(seen, plain), 100), 60)
    table.compare(f'{words}, open', timed(lambda: sk.open(message), 100),
                  timed(lambda: unseal(seen, *sealed), 100), 60)


def first_message(table: Table) -> None:
    "Take the first message apart, and put it together again, against scapy."
    from scapy.contrib.ikev2 import IKEv2
    alice, bob = two_ends(INITIAL_EXCHANGES)
    alice.start(ike_sa_init, now=0)
    message, = deliver(alice, bob)
    packet, theirs = Packet.parse(Reader(message)), IKEv2(message)

    def build() -> bytes:
        return packet.encode(b'spi of i', bytes(8), response=False, initiator=True, message_id=0)

    def build_theirs() -> bytes:
        whole = theirs.copy()
        whole.clear_cache()
        return bytes(whole)
    if len(build()) != len(message) or build_theirs() != message: raise ValueError('not the same message')
    table.compare(f'parse IKE_SA_INIT of {len(message)} octets',
                  timed(lambda: Packet.parse(Reader(message)), 100), timed(lambda: IKEv2(message), 10), 60)
    table.compare('build it', timed(build, 100), timed(build_theirs, 10), 60)


def process(*arguments: str) -> Work:
    "Return what runs a Python to its end."
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, cwd=ROOT, env=COMPILED, stdout=subprocess.DEVNULL, check=True)


def imports() -> Iterator[tuple[str, float]]:
    """Yield where the milliseconds go before the first datagram: what is imported, without what that
    imports itself, by whose it is; our slowest modules; and the check of a private key."""
    own: dict[str, list[float]] = defaultdict(list)
    for _ in range(5):
        said = subprocess.run([sys.executable, '-X', 'importtime', '-m', 'ike_lit.initiator', '--help'],
                              env=COMPILED, capture_output=True, text=True, check=True).stderr
        for line in said.splitlines():
            alone, _, name = line.removeprefix('import time:').split('|')
            if alone.strip().isdigit(): own[name.strip()].append(int(alone) / 1000)
    took = {name: median(times) for name, times in own.items()}
    whose: Counter[str] = Counter()
    for name, ms in took.items(): whose[name.partition('.')[0]] += ms
    ours, library = whose.pop('ike_lit'), whose.pop('cryptography')
    yield from {'all modules of this book': ours, 'cryptography': library,
                "Python's own, and the environment's": whose.total()}.items()
    yield from sorted((item for item in took.items() if item[0].startswith('ike_lit')),
                      key=lambda item: -item[1])[:6]
    path = ROOT / 'keys' / 'initiator.key'
    for what, read in (('is read and tried out', lambda: load_private_key(path)),
                       ('with its primes checked, for comparison',
                        lambda: load_pem_private_key(path.read_bytes(), None))):
        seconds = list[float]()
        for _ in range(15):
            began = time.perf_counter()
            read()
            seconds.append(time.perf_counter() - began)
        yield f'a private RSA key of 2048 bits {what}', median(seconds) * 1e3


def tables() -> Iterator[Table]:
    handshake = Table('handshake', 'A whole handshake, both ends', 'bare primitives',
                      'ratio 1.4 with MODP-2048 and RSA, 2.5 with X25519 and ECDSA')
    for suite, signature in (*((suite, RSA) for suite in HANDSHAKES), (HANDSHAKES[1], ECDSA)):
        handshake.compare(f'{suite}, {signature.name}', timed(whole_handshake(suite, signature), 4),
                          timed(bare_primitives(suite, signature), 4), 60)
    yield handshake
    yield hybrid()
    message = Table('message', 'One message with payloads of 300 octets', 'bare cipher', 'none')
    for words in LOCKS: one_message(message, words)
    yield message
    octets = Table('octets', 'Messages in the clear', 'scapy', 'ratio 0.05')
    first_message(octets)
    yield octets
    start = Table('start', 'A process: ike_lit.initiator --help', 'python -c', 'ratio 8 to pass', 'ms')
    help_, libraries = process('-m', 'ike_lit.initiator', '--help'), process('-c', f'import {LIBRARIES}')
    for what, base in ('pass', process('-c', 'pass')), (f'import {LIBRARIES}', libraries):
        start.compare(what, timed(help_, clock=time.perf_counter), timed(base, clock=time.perf_counter), 25)
    yield start


def hybrid() -> Table:
    "A handshake of six messages, and one of four with ML-KEM in the first two, beside X25519 alone."
    table = Table('hybrid', 'A whole handshake with ML-KEM-768, both ends', 'X25519 alone', 'none')
    alone = timed(whole_handshake(HANDSHAKES[1], ECDSA), 4)
    for what, suite in (('X25519, then ML-KEM-768', f'{HANDSHAKES[1]}-ke1_mlkem768'),
                        ('ML-KEM-768 alone', HANDSHAKES[1].replace('x25519', 'mlkem768'))):
        table.compare(what, timed(whole_handshake(suite, ECDSA), 4), alone, 60)
    return table


def main() -> None:
    for table in tables(): table.keep()
    slowest = list(imports())
    print('\nBefore the first datagram, in milliseconds:')
    for name, took in slowest: print(f'{name:54}{took:8.1f}')
    keep('imports', {'title': 'Before the first datagram', 'rows': [
        [name, f'{took:.1f}'] for name, took in slowest], 'columns': ['', 'ms']})


if __name__ == '__main__': main()
