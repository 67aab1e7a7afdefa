"""Proofs by themselves: shared keys and signatures, what makes one, and what must not pass for one."""
import hashlib
import hmac
import itertools

import pytest
from authority import ed_key, rsa_key
from canonical import KEYS, private_key
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding, x25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature, encode_dss_signature)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.wire import auth
from ike_lit.wire.auth import (
    AUTH, HASHES, METHODS, SCHEMES, Scheme, SharedKey, choose_scheme, sign, verify, weakness)
from ike_lit.wire.const import AuthenticationFailed, AuthenticationType, Fact, HashAlgorithm, Prf

OCTETS = b'what an end has sent, and so on'
DIGITAL, PSK = AuthenticationType.DIGITAL_SIGNATURE, AuthenticationType.SHARED_KEY
CURVES = {bits: ec.derive_private_key(77, curve) for bits, curve in (
    (256, ec.SECP256R1()), (384, ec.SECP384R1()), (521, ec.SECP521R1()))}
ORDERS = {  # n, SEC 2
    256: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551,
    384: 2 ** 384 - 2 ** 192 + 0xc7634d81f4372ddf581a0db248b0a77aecec196accc52973,
    521: 2 ** 521 - 2 ** 260 + 0xa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409}
KEYS_BY_NAME = {'RSA 2048': private_key(KEYS / 'initiator.key'), 'RSA 3072': rsa_key(3072),
                **{f'P-{bits}': key for bits, key in CURVES.items()}, 'Ed25519': ed_key()}
OF_CURVE = {AuthenticationType.ECDSA_256: 256, AuthenticationType.ECDSA_384: 384,
            AuthenticationType.ECDSA_521: 521}
EVERY_WAY = [((DIGITAL, octets), scheme) for octets, scheme in SCHEMES.items()] + [
    ((method, b''), scheme) for method, scheme in METHODS.items()]
FITTING = [(name, way) for name, key in KEYS_BY_NAME.items()
           for way, scheme in EVERY_WAY if scheme.fits(key.public_key())]


def refused(key: object, proof: AUTH, words: str = '', allow_sha1: bool = True) -> None:
    "Nothing but `AuthenticationFailed` is raised."
    public = key.public_key() if hasattr(key, 'public_key') else key
    with pytest.raises(AuthenticationFailed) as caught: verify(public, OCTETS, proof, allow_sha1)
    assert words in str(caught.value)


def with_identifier(identifier: bytes, signature: bytes) -> AUTH:
    return AUTH(DIGITAL, bytes([len(identifier)]) + identifier + signature)


def identifier_of(name: str) -> bytes:
    return next(octets for octets, scheme in SCHEMES.items() if scheme.name == name)


# Shared keys

@pytest.mark.parametrize('size', [256, 384, 512])
@pytest.mark.parametrize('secret', [b'x', b'correct horse', bytes(range(256)), b'\0' * 200])
def test_a_shared_key_proves_by_the_formula_of_rfc_7296(size: int, secret: bytes) -> None:
    name = f'sha{size}'
    inner = hmac.digest(secret, b'Key Pad for IKEv2', name)
    expected = hmac.digest(inner, OCTETS, getattr(hashlib, name))
    kind = Prf[f'PRF_HMAC_SHA2_{size}']
    proof = SharedKey(secret).prove(kind, OCTETS)
    assert (proof.method, proof.data) == (2, expected) and len(proof.data) * 8 == size
    assert bytes(proof) == b'\x02\0\0\0' + expected
    assert SharedKey(secret).verify(kind, OCTETS, proof) == 'method 2, shared key'


def test_a_shared_key_is_not_proven_by_anything_near() -> None:
    key, kind = SharedKey(b'correct horse battery staple'), Prf.PRF_HMAC_SHA2_256
    good = key.prove(kind, OCTETS).data
    flipped = [good[:n // 8] + bytes([good[n // 8] ^ 1 << n % 8]) + good[n // 8 + 1:]
               for n in range(256)]
    lengths = [good[:n] for n in range(32)] + [good + b'\0', b'\0' + good, good * 2, bytes(32)]
    of_others = [SharedKey(other).prove(kind, OCTETS).data for other in (
        b'correct horse battery staplf', b'correct horse battery staple\n', b'')]
    other_prf = key.prove(Prf.PRF_HMAC_SHA2_512, OCTETS).data[:32]
    for data in (*flipped, *lengths, *of_others, other_prf):
        with pytest.raises(AuthenticationFailed, match='is wrong'):
            key.verify(kind, OCTETS, AUTH(PSK, data))
    with pytest.raises(AuthenticationFailed, match='is wrong'):
        key.verify(kind, OCTETS + b'\0', AUTH(PSK, good))


@pytest.mark.parametrize('method', [n for n in range(256) if n != PSK])
def test_a_shared_key_is_proven_by_method_2_only(method: int) -> None:
    key, kind = SharedKey(b'correct horse battery staple'), Prf.PRF_HMAC_SHA2_256
    with pytest.raises(AuthenticationFailed, match='only a shared key'):
        key.verify(kind, OCTETS, AUTH(AuthenticationType(method), key.prove(kind, OCTETS).data))


def test_proofs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(
        auth.hmac, 'compare_digest', lambda a, b: compared.append({a, b}) or compare(a, b))
    key, kind = SharedKey(b'correct horse'), Prf.PRF_HMAC_SHA2_256
    good = key.prove(kind, OCTETS)
    key.verify(kind, OCTETS, good)
    with pytest.raises(AuthenticationFailed): key.verify(kind, OCTETS, AUTH(PSK, bytes(32)))
    assert compared == [{good.data}, {good.data, bytes(32)}]


# Signatures

@pytest.mark.parametrize('name, way', FITTING, ids=str)
def test_every_scheme_with_every_key_that_fits(name: str, way: tuple) -> None:
    key = KEYS_BY_NAME[name]
    proof = sign(key, OCTETS, way)
    assert verify(key.public_key(), OCTETS, proof, allow_sha1=True).startswith(f'method {way[0]:d}')
    for changed in (OCTETS + b'\0', OCTETS[:-1], b'', OCTETS.upper()):
        with pytest.raises(AuthenticationFailed):
            verify(key.public_key(), changed, proof, allow_sha1=True)
    for other_name, other in KEYS_BY_NAME.items():
        if other_name != name: refused(other, proof)
    head = 1 + len(way[1]) if way[1] else 0
    body = proof.data[head:]
    for bad in (b'', body[:-1], body[1:], body + b'\0', b'\0' + body, bytes(len(body)),
                b'\xff' * len(body), body[::-1], *(
                    body[:n] + bytes([body[n] ^ 1]) + body[n + 1:] for n in range(0, len(body), 7))):
        refused(key, AUTH(proof.method, proof.data[:head] + bad))


@pytest.mark.parametrize('name', KEYS_BY_NAME)
def test_a_scheme_for_another_kind_of_key_is_refused_and_nothing_else_happens(name: str) -> None:
    key = KEYS_BY_NAME[name]
    for (method, identifier), scheme in EVERY_WAY:
        if scheme.fits(key.public_key()): continue
        for signature in b'', bytes(64), bytes(256), bytes.fromhex('3006020101020101'):
            data = bytes([len(identifier)]) + identifier + signature if identifier else signature
            refused(key, AUTH(method, data), 'of another kind')


def test_which_curves_the_old_methods_take() -> None:
    for method, bits in OF_CURVE.items():
        for other, key in CURVES.items():
            assert METHODS[method].fits(key.public_key()) == (other == bits)


@pytest.mark.parametrize('octets', SCHEMES, ids=lambda octets: SCHEMES[octets].name)
def test_an_identifier_that_differs_by_one_bit_is_unknown(octets: bytes) -> None:
    key = next(k for k in KEYS_BY_NAME.values() if SCHEMES[octets].fits(k.public_key()))
    signature = sign(key, OCTETS, (DIGITAL, octets)).data[1 + len(octets):]
    for n in range(8 * len(octets)):
        other = bytearray(octets)
        other[n // 8] ^= 1 << n % 8
        if bytes(other) not in SCHEMES:
            refused(key, with_identifier(bytes(other), signature), 'is not accepted')
        else: refused(key, with_identifier(bytes(other), signature))  # SHA2-256 as SHA2-384
    for size in (*range(len(octets)), len(octets) + 1, 255):
        refused(key, AUTH(DIGITAL, bytes([size]) + octets + signature), 'is not accepted')
    for other in (octets[:-1], octets + b'\0', octets + b'\5\0', octets * 2, b'0\0'):
        refused(key, with_identifier(other, signature), 'is not accepted')


@pytest.mark.parametrize('words, identifier', [
    ('RSA with MD5', '300d06092a864886f70d0101040500'),
    ('RSA with SHA-1', '300d06092a864886f70d0101050500'),
    ('RSA with SHA2-224', '300d06092a864886f70d01010e0500'),
    ('rsaEncryption', '300d06092a864886f70d0101010500'),
    ('ECDSA with SHA-1', '300906072a8648ce3d0401'),
    ('ECDSA with SHA2-224', '300a06082a8648ce3d040301'),
    ('ECDSA with SHA2-256 and NULL', '300c06082a8648ce3d0403020500'),
    ('DSA with SHA-1', '300906072a8648ce380403'),
    ('DSA with SHA2-256', '300b0609608648016503040302'),
    ('Ed25519 and NULL', '300706032b65700500'), ('Ed448', '300506032b6571'),
    ('X25519', '300506032b656e'),
    ('PSS with the defaults, SHA-1', '300d06092a864886f70d01010a3000'),
    ('PSS, salt of 20', '304106092a864886f70d01010a3034a00f300d06096086480165030402010500'
     'a11c301a06092a864886f70d010108300d06096086480165030402010500a203020114'),
    ('PSS, MGF1 with SHA-1', '303d06092a864886f70d01010a3030a00f300d06096086480165030402010500'
     'a118301606092a864886f70d010108300906052b0e03021a0500a203020120'),
    ('PSS, trailer 2', '304606092a864886f70d01010a3039a00f300d06096086480165030402010500'
     'a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020102'),
], ids=lambda v: v if ' ' in v else '')
def test_algorithms_that_are_not_accepted(words: str, identifier: str) -> None:
    octets = bytes.fromhex(identifier)
    assert octets[1] == len(octets) - 2, words
    for key in KEYS_BY_NAME.values():
        refused(key, with_identifier(octets, bytes(256)), 'is not accepted')


@pytest.mark.parametrize('method', [n for n in range(256) if n != DIGITAL and n not in METHODS])
def test_methods_that_are_not_accepted(method: int) -> None:
    for key in KEYS_BY_NAME.values():
        refused(key, AUTH(AuthenticationType(method), bytes(256)), 'is not accepted')


def test_pss_with_another_salt_is_wrong() -> None:
    key, identifier = KEYS_BY_NAME['RSA 2048'], identifier_of('RSA-PSS with SHA2-256')

    def signature(salt: int, mask: hashes.HashAlgorithm) -> bytes:
        return key.sign(OCTETS, padding.PSS(padding.MGF1(mask), salt), hashes.SHA256())
    verify(key.public_key(), OCTETS, with_identifier(identifier, signature(32, hashes.SHA256())))
    for salt, mask in ((0, hashes.SHA256()), (20, hashes.SHA256()), (31, hashes.SHA256()),
                       (33, hashes.SHA256()), (222, hashes.SHA256()), (32, hashes.SHA512())):
        refused(key, with_identifier(identifier, signature(salt, mask)), 'is wrong')


def raw_rsa(block: bytes) -> bytes:
    "What the private key makes of a whole block, PKCS #1 or not."
    numbers = KEYS_BY_NAME['RSA 2048'].private_numbers()
    return pow(int.from_bytes(block, 'big'), numbers.d, numbers.public_numbers.n).to_bytes(256, 'big')


def test_blocks_of_pkcs_1_are_compared_whole() -> None:
    "Those who parse a block take garbage after the hash for it (Bleichenbacher, 2006)."
    key, identifier = KEYS_BY_NAME['RSA 2048'], identifier_of('RSA with SHA2-256')
    digest = hashlib.sha256(OCTETS).digest()
    info = bytes.fromhex('3031300d060960864801650304020105000420') + digest
    good = b'\0\1' + b'\xff' * (253 - len(info)) + b'\0' + info
    signature = raw_rsa(good)
    verify(key.public_key(), OCTETS, with_identifier(identifier, signature))
    no_null = bytes.fromhex('302f300b0609608648016503040201' '0420') + digest
    sha1 = bytes.fromhex('3021300906052b0e03021a05000414') + hashlib.sha1(OCTETS).digest()  # noqa: S324
    blocks = [
        b'\0\1' + b'\xff' * 8 + b'\0' + info + bytes(245 - len(info)),
        b'\0\1' + b'\xff' * (252 - len(info)) + b'\0' + info + b'\0',
        b'\0\1\0' + bytes(253 - len(info)) + info, b'\0\1' + bytes(253 - len(info)) + b'\0' + info,
        b'\0\2' + b'\xff' * (253 - len(info)) + b'\0' + info, b'\1\1' + good[2:],
        b'\0\1\xfe' + good[3:], good[:-1] + bytes([good[-1] ^ 1]),
        b'\0\1' + b'\xff' * 221 + b'\0' + digest,
        *(b'\0\1' + b'\xff' * (253 - len(i)) + b'\0' + i for i in (no_null, sha1))]
    for block in blocks:
        assert len(block) == 256
        refused(key, with_identifier(identifier, raw_rsa(block)), 'is wrong')
    modulus = key.private_numbers().public_numbers.n
    number = int.from_bytes(signature, 'big')
    for bad in (signature[1:], signature[:-1], b'\0' + signature, signature + b'\0', bytes(256),
                bytes(255) + b'\1', modulus.to_bytes(256, 'big'), (modulus - 1).to_bytes(256, 'big'),
                (modulus - number).to_bytes(256, 'big'), (number + modulus).to_bytes(257, 'big')):
        refused(key, with_identifier(identifier, bad), 'is wrong')


@pytest.mark.parametrize('method, bits', OF_CURVE.items(), ids=str)
def test_the_two_numbers_of_rfc_4754(method: AuthenticationType, bits: int) -> None:
    "They stand side by side, each as long as the order of the curve: 32, 48, 66 octets."
    key, size = CURVES[bits], {256: 32, 384: 48, 521: 66}[bits]
    ours, n = ec.ECDSA(METHODS[method].hash), ORDERS[bits]
    r, s = decode_dss_signature(key.sign(OCTETS, ours))
    verify(key.public_key(), OCTETS, AUTH(
        method, r.to_bytes(size, 'big') + s.to_bytes(size, 'big')))
    proof = sign(key, OCTETS, (method, b''))
    assert len(proof.data) == 2 * size
    key.public_key().verify(encode_dss_signature(
        int.from_bytes(proof.data[:size], 'big'), int.from_bytes(proof.data[size:], 'big')),
        OCTETS, ours)
    assert choose_scheme(key.public_key(), ()) == (method, b'')
    der = encode_dss_signature(r, s)
    top = 2 ** (8 * size) - 1
    pairs = [(0, s), (r, 0), (0, 0), (n, s), (r, n), (top, top), (s, r), (1, 1), (r + n, s), (r, s + n)]
    bad = [b''.join(x.to_bytes(size, 'big') for x in pair) for pair in pairs if max(pair) <= top]
    good = r.to_bytes(size, 'big') + s.to_bytes(size, 'big')
    wider = r.to_bytes(size + 1, 'big') + s.to_bytes(size + 1, 'big')
    for data in (*bad, der, b'', good[:-1], good[1:], good + b'\0', b'\0' + good, wider,
                 r.to_bytes(size, 'big') + bytes(1) + s.to_bytes(size, 'big')):
        refused(key, AUTH(method, data), 'is wrong')


def test_leading_zeros_of_the_two_numbers_stay() -> None:
    "About one signature in 128 has a number with a zero in front."
    key = CURVES[256]
    found = (sign(key, OCTETS, (AuthenticationType.ECDSA_256, b'')) for _ in range(20000))
    short = next(p for p in found if 0 in (p.data[0], p.data[32]))
    assert len(short.data) == 64
    verify(key.public_key(), OCTETS, short)


def test_ecdsa_in_asn_1_is_der_to_the_octet() -> None:
    key, identifier = CURVES[256], identifier_of('ECDSA with SHA2-256')
    r, s = decode_dss_signature(key.sign(OCTETS, ec.ECDSA(hashes.SHA256())))
    n = ORDERS[256]

    def number(value: int, pad: int = 0) -> bytes:
        octets = bytes(pad) + value.to_bytes(value.bit_length() // 8 + 1, 'big', signed=True)
        return b'\2' + bytes([len(octets)]) + octets

    def pair(one: bytes, two: bytes, more: bytes = b'') -> bytes:
        return b'0' + bytes([len(one + two + more)]) + one + two + more
    good = pair(number(r), number(s))
    verify(key.public_key(), OCTETS, with_identifier(identifier, good))
    verify(key.public_key(), OCTETS, with_identifier(identifier, pair(number(r), number(n - s))))
    body = good[2:]
    for bad in (good + b'\0', good + b'\5\0', b'0\x81' + bytes([len(body)]) + body,
                b'0\x82\0' + bytes([len(body)]) + body, b'0\x80' + body + b'\0\0',
                pair(number(r, 1), number(s)), pair(number(r), number(s, 1)),
                pair(number(r), number(s), b'\5\0'), pair(number(r), number(s), number(1)),
                pair(number(r - n), number(s)), pair(number(r), number(s - n)),
                pair(number(-r), number(-s)), pair(number(r + n), number(s)),
                pair(number(r), number(s + n)), pair(number(0), number(s)),
                pair(number(r), number(0)), pair(number(0), number(0)), pair(number(n), number(n)),
                pair(number(1), number(1)), pair(number(s), number(r)), b'1' + good[1:],
                good[:2] + b'\x0a' + good[3:], good[:-1], b'0\0', b''):
        refused(key, with_identifier(identifier, bad), 'is wrong')


def test_ed25519_takes_one_signature_only() -> None:
    key, identifier = ed_key(), identifier_of('Ed25519')
    good, order = key.sign(OCTETS), 2 ** 252 + 27742317777372353535851937790883648493
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    s = int.from_bytes(good[32:], 'little')
    verify(key.public_key(), OCTETS, with_identifier(identifier, good))
    identity_point = b'\1' + bytes(31)
    for bad in (good[:32] + (s + order).to_bytes(32, 'little'), good[:32] + bytes(32),
                good[:32] + order.to_bytes(32, 'little'), good[:32] + b'\xff' * 32,
                good[:31] + bytes([good[31] ^ 0x80]) + good[32:], identity_point + bytes(32),
                bytes(64), b'\xee' + b'\xff' * 30 + b'\x7f' + bytes(32), public + good[32:],
                good[32:] + good[:32], good[:63], good + b'\0'):
        refused(key, with_identifier(identifier, bad), 'is wrong')


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), method=st.sampled_from([1, 2, 9, 10, 11, 14]))
def test_any_octets_prove_nothing(data: bytes, method: int) -> None:
    for key in KEYS_BY_NAME.values(): refused(key, AUTH(AuthenticationType(method), data))
    for octets in SCHEMES:
        for key in KEYS_BY_NAME.values(): refused(key, with_identifier(octets, data))


# Which one

def expected_scheme(name: str, announced: set, pss: bool) -> str:
    "What the chapter says: the first that fits; for a curve, the hash of its size if it may be."
    if name == 'Ed25519': return name if HashAlgorithm.IDENTITY in announced else ''
    sizes = [n for n in (256, 384, 512) if HashAlgorithm[f'SHA2_{n}'] in announced]
    if not sizes: return ''
    if name.startswith('RSA'): return f'RSA{"-PSS" * pss} with SHA2-{sizes[0]}'
    of_curve = {'P-256': 256, 'P-384': 384, 'P-521': 512}[name]
    return f'ECDSA with SHA2-{of_curve if of_curve in sizes else sizes[0]}'


@pytest.mark.parametrize('name', KEYS_BY_NAME)
def test_the_scheme_is_one_that_the_peer_has_announced(name: str) -> None:
    key = KEYS_BY_NAME[name].public_key()
    known = (*HASHES, HashAlgorithm.SHA1, 9)
    for size, pss in itertools.product(range(1, len(known) + 1), (False, True)):
        for announced in itertools.combinations(known, size):
            expected = expected_scheme(name, set(announced), pss)
            for allow_sha1 in (False, True):
                try: method, octets = choose_scheme(key, announced, allow_sha1, pss)
                except AuthenticationFailed: assert not expected
                else: assert (method, SCHEMES[octets].name) == (14, expected)


@pytest.mark.parametrize('name, without, with_sha1', [
    ('RSA 2048', None, 1), ('RSA 3072', None, 1), ('P-256', 9, 9), ('P-384', 10, 10),
    ('P-521', 11, 11), ('Ed25519', None, None)])
def test_what_is_left_for_a_peer_that_has_announced_nothing(
        name: str, without: int | None, with_sha1: int | None) -> None:
    key = KEYS_BY_NAME[name].public_key()
    for allow_sha1, expected in (False, without), (True, with_sha1):
        if expected: assert choose_scheme(key, (), allow_sha1) == (expected, b'')
        else:
            with pytest.raises(AuthenticationFailed) as caught: choose_scheme(key, (), allow_sha1)
            assert (Fact.SHA1 in caught.value.facts) == name.startswith('RSA')


def test_sha1_needs_permission_at_the_end_that_verifies() -> None:
    key = KEYS_BY_NAME['RSA 2048']
    proof = sign(key, OCTETS, (AuthenticationType.RSA, b''))
    key.public_key().verify(proof.data, OCTETS, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    refused(key, proof, 'SHA-1, which is not accepted', allow_sha1=False)
    sha256 = AUTH(AuthenticationType.RSA, key.sign(OCTETS, padding.PKCS1v15(), hashes.SHA256()))
    refused(key, sha256, 'is wrong')


# Which keys

@pytest.mark.parametrize('key, words', [
    (rsa_key(1024), '1024 bits; at least 2048'), (rsa_key(2047), '2047 bits'),
    (rsa_key(2048, 3), 'public exponent 3;'),
    (ec.generate_private_key(ec.SECP256K1()), 'secp256k1'),
    (ec.generate_private_key(ec.BrainpoolP256R1()), 'brainpoolP256r1'),
    (ec.generate_private_key(ec.BrainpoolP384R1()), 'brainpoolP384r1'),
    (ec.generate_private_key(ec.BrainpoolP512R1()), 'brainpoolP512r1'),
    (ec.generate_private_key(ec.SECP224R1()), 'secp224r1'),
    (ed448.Ed448PrivateKey.generate(), 'Ed448'), (dsa.generate_private_key(2048), 'DSA'),
    (x25519.X25519PrivateKey.generate(), 'X25519')], ids=lambda v: v if isinstance(v, str) else '')
def test_keys_that_are_not_good_enough(key: object, words: str) -> None:
    assert words in weakness(key.public_key())


@pytest.mark.parametrize('name', KEYS_BY_NAME)
def test_keys_that_are_good_enough(name: str) -> None:
    assert weakness(KEYS_BY_NAME[name].public_key()) == ''


def test_what_is_no_key_at_all_is_not_accepted() -> None:
    for thing in (None, b'key', KEYS_BY_NAME['Ed25519']): assert weakness(thing)


def test_schemes_and_announced_hashes_belong_together() -> None:
    assert [int(h) for h in HASHES] == [2, 3, 4, 5]
    assert {scheme.announced for scheme in SCHEMES.values()} == set(HASHES)
    assert all(isinstance(scheme, Scheme) and len(octets) < 256 and octets[1] == len(octets) - 2
               for octets, scheme in SCHEMES.items())


@pytest.mark.parametrize('way', [way for name, way in FITTING if name == 'RSA 2048'], ids=str)
def test_an_rsa_signature_has_all_its_octets(way: tuple) -> None:
    "RFC 8017 §8.1.2: one whose leading zero was left out is invalid, though it is the same number."
    key = KEYS_BY_NAME['RSA 2048']
    for n in range(20_000):
        octets = n.to_bytes(4, 'big')
        proof = sign(key, octets, way)
        head = 1 + len(way[1]) if way[1] else 0
        if proof.data[head] == 0: break
    assert verify(key.public_key(), octets, proof, allow_sha1=True)
    short = AUTH(proof.method, proof.data[:head] + proof.data[head + 1:])
    with pytest.raises(AuthenticationFailed): verify(key.public_key(), octets, short, allow_sha1=True)
