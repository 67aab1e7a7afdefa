"""What ike_lit costs, as ratios of two things measured side by side in one run: `make bench`.

Each pair is timed in turns, so that whatever else the machine does hits both alike, and in time of
the processor, unless other processes do the work. The median of many counts; behind it stands
from where to where eight of ten were.
"""
import hmac
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'nbs'))
warnings.simplefilter('ignore')

from canonical import ALICE, BOB, configs, deliver, two_ends  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import dh, ec, padding  # noqa: E402
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: E402
from cryptography.hazmat.primitives.hashes import SHA256  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402
from ike_lit.auth import AUTH, IDi, Identity  # noqa: E402
from ike_lit.const import (  # noqa: E402
    AuthenticationType, Encryption, ExchangeType, Group, Prf, ProtocolID, TransformType)
from ike_lit.header import Reader  # noqa: E402
from ike_lit.ike_sa import INITIAL_EXCHANGES, ike_sa_init  # noqa: E402
from ike_lit.interface import Config, State  # noqa: E402
from ike_lit.certificate import Signer  # noqa: E402
from ike_lit.ke import GENERATOR, GROUPS, Curve, Modp, Montgomery  # noqa: E402
from ike_lit.keys import PRF_HASHES  # noqa: E402
from ike_lit.payload import Packet, pack_chain  # noqa: E402
from ike_lit.proposal import Proposal, key_size, parse_proposals  # noqa: E402
from ike_lit.protocol import IKE  # noqa: E402
from ike_lit.sk import AEAD, CBC, ICV, SK, ShortGcm, pad  # noqa: E402

HANDSHAKES = ('camellia256-sha256-modp2048', 'aes256gcm16-prfsha256-x25519',
              'aes256gcm16-prfsha384-ecp384', 'chacha20poly1305-prfsha256-x25519',
              'aes256-sha512-modp3072')
LOCKS = 'camellia256-sha256', 'aes256gcm16', 'aes256gcm8', 'aes256ctr-sha256', 'chacha20poly1305'
Work = Callable[[], object]


class Signature(NamedTuple):
    "How both ends sign."
    name: str
    how: tuple[Any, ...]  # for the methods `sign` and `verify` of the keys
    keys: tuple[Any, Any] | None = None  # private ones; None: those in keys/


RSA = Signature('RSA', (padding.PKCS1v15(), SHA256()))
ECDSA = Signature('ECDSA P-256', (ec.ECDSA(SHA256()),),
                  (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())))


# Measuring

def timed(work: Work, calls: int, clock: Callable[[], float]) -> float:
    "Return the seconds of one call, of several in a row."
    began = clock()
    for _ in range(calls): work()
    return (clock() - began) / calls


def title(what: str, base: str, aim: str) -> None:
    "Print the head of a table."
    print(f'\n{what}, aim: {aim}')
    print(f'{"microseconds, and the spread":44}{"ours":>8}{base:>23}{"ratio":>23}')


def side_by_side(name: str, ours: Work, base: Work, rounds: int, calls: int,
                 clock: Callable[[], float] = time.process_time) -> None:
    "Time two things in turns; print the medians of both in microseconds, and of their ratio."
    for work in ours, base: work()
    pairs = [(timed(ours, calls, clock), timed(base, calls, clock)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]

    def shown(values: list[float], scale: float = 1e6) -> str:
        low, middle, high = (sorted(values)[int(len(values) * at)] * scale for at in (.1, .5, .9))
        places = 0 if middle > 1000 else 1 if scale > 1 else 2
        return f'{middle:8.{places}f} {f"{low:.{places}f}-{high:.{places}f}":14}'
    columns = [*map(shown, zip(*pairs, strict=True)), shown(ratios, 1)]
    print(f'{name:44}{"".join(columns)}'.rstrip(), flush=True)


# A whole handshake

def both(suite: str, signature: Signature) -> tuple[Config, Config]:
    "Return the configurations of both ends; ESP has the same cipher."
    names = suite.split('-')
    aead = parse_proposals(suite, ProtocolID.IKE)[0].the(TransformType.ENCR).aead
    left, right = configs(suite, names[0] if aead else '-'.join(names[:2]))
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
        if alice.heirs[0].state != State.ESTABLISHED: raise RuntimeError('no handshake')
    return run


def bare_primitives(suite: str, signature: Signature) -> Work:
    """What any implementation must compute for that, and the randomness for it.

    2 key pairs, 2 shared secrets, 2 signatures, 2 verifications, 2 messages sealed and opened."""
    left, right = both(suite, signature)
    ike, esp = left.ike[0], left.esp[0]
    exchange, locks = bare_exchange(Group(ike.the(TransformType.DH).id)), (bare_lock(ike),) * 2
    hash_name, size = PRF_HASHES[Prf(ike.the(TransformType.PRF).id)]
    e, a = (key_size(ike.the(t)) for t in (TransformType.ENCR, TransformType.INTEG))
    child = sum(key_size(esp.the(t)) for t in (TransformType.ENCR, TransformType.INTEG))
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
    encr = suite.the(TransformType.ENCR)
    kind, key = Encryption(encr.id), os.urandom(key_size(encr))
    if encr.aead: return lambda: bare_aead(kind, key)
    hash_name, size = ICV[suite.the(TransformType.INTEG).id]
    return lambda: bare_classic(kind, key, hash_name, size)


def bare_aead(kind: Encryption, key: bytes) -> tuple[Callable, Callable]:
    make, salt_size, icv_size = AEAD[kind]
    aead, salt = make(key[:-salt_size]), key[-salt_size:]

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
    cipher = algorithms.AES(key[:-4]) if counting else CBC[kind](key)
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


def one_message(words: str) -> None:
    "Seal and open a message whose payloads have 300 octets, against the cipher alone."
    suite, = parse_proposals(f'{words}-prfsha256-x25519', ProtocolID.IKE)
    encr, integ = suite.the(TransformType.ENCR), suite.the(TransformType.INTEG)
    sk = SK(encr, integ, os.urandom(key_size(encr)), os.urandom(key_size(integ)))
    identity = IDi.of(Identity.from_text('alice.example.org'))
    proof = AUTH(AuthenticationType.DIGITAL_SIGNATURE, bytes(300 - 25 - 8))
    packet = Packet(ExchangeType.IKE_AUTH, (identity, proof))
    chain = pack_chain(packet.payloads)[1]
    if len(chain) != 300: raise ValueError(f'{len(chain)} octets')
    plain, seen = pad(chain, sk.lock.block_size), bytes(32)
    seal, unseal = bare_lock(suite)()
    sealed = seal(seen, plain)

    def our_seal() -> bytes:
        return sk.seal(packet, b'spi of i', b'spi of r', response=False, initiator=True,
                       message_id=1, random=os.urandom)
    message = our_seal()
    if unseal(seen, *sealed) != plain: raise ValueError('the bare cipher does not open')
    side_by_side(f'{words}, seal', our_seal, lambda: seal(seen, plain), 60, 100)
    side_by_side(f'{words}, open', lambda: sk.open(message), lambda: unseal(seen, *sealed), 60, 100)


def process(*arguments: str) -> Work:
    "Return what runs a Python to its end."
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    title('A whole handshake, both ends', 'bare primitives',
          '1.25 with MODP-2048 and RSA, 2 with X25519 and ECDSA; not there yet')
    for suite, signature in (*((suite, RSA) for suite in HANDSHAKES), (HANDSHAKES[1], ECDSA)):
        side_by_side(f'{suite}, {signature.name}', whole_handshake(suite, signature),
                     bare_primitives(suite, signature), 60, 4)
    title('One message with payloads of 300 octets', 'bare cipher', 'none yet')
    for words in LOCKS: one_message(words)
    from scapy.contrib.ikev2 import IKEv2
    alice, bob = two_ends(INITIAL_EXCHANGES)
    alice.start(ike_sa_init, now=0)
    message, = deliver(alice, bob)
    title('Parsing', 'scapy', 'at most 0.07')
    side_by_side(f'an IKE_SA_INIT request of {len(message)} octets',
                 lambda: Packet.parse(Reader(message)), lambda: IKEv2(message), 60, 100)
    title('Starting', 'python -c pass', 'at most 8')
    side_by_side('ike_lit.initiator --help', process('-m', 'ike_lit.initiator', '--help'),
                 process('-c', 'pass'), 25, 1, time.perf_counter)


if __name__ == '__main__': main()
