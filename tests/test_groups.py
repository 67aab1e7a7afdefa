"Every Diffie-Hellman group: two ends agree, and a public value that is none is refused."
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from ike_lit.wire import ke
from ike_lit.wire.const import Group, InvalidSyntax, TransformType
from ike_lit.wire.header import Reader
from ike_lit.wire.ke import GROUPS, KE, Kem, KeyExchange, Modp, power
from ike_lit.wire.nonce import Random
from ike_lit.wire.proposal import ALGORITHMS

SIZES = {  # octets of a public value, of a shared secret: RFC 3526, 5903, 6954, 8031
    Group.MODP_2048: (256, 256), Group.MODP_3072: (384, 384), Group.MODP_4096: (512, 512),
    Group.MODP_6144: (768, 768), Group.MODP_8192: (1024, 1024),
    Group.ECP_256: (64, 32), Group.ECP_384: (96, 48), Group.ECP_521: (132, 66),
    Group.BRAINPOOL_256: (64, 32), Group.BRAINPOOL_384: (96, 48), Group.BRAINPOOL_512: (128, 64),
    Group.CURVE_25519: (32, 32), Group.CURVE_448: (56, 56)}
CURVES = {  # prime, a, b of y^2 = x^3 + ax + b
    Group.ECP_256: (
        2**256 - 2**224 + 2**192 + 2**96 - 1, -3,
        0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b),
    Group.ECP_384: (
        2**384 - 2**128 - 2**96 + 2**32 - 1, -3,
        0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875a
        << 128 | 0xc656398d8a2ed19d2a85c8edd3ec2aef),
    Group.ECP_521: (
        2**521 - 1, -3,
        0x51953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e1
        << 256 | 0x56193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00),
    Group.BRAINPOOL_256: (
        0xa9fb57dba1eea9bc3e660a909d838d726e3bf623d52620282013481d1f6e5377,
        0x7d5a0975fc2c3057eef67530417affe7fb8055c126dc5c6ce94a4b44f330b5d9,
        0x26dc5c6ce94a4b44f330b5d9bbd77cbf958416295cf7e1ce6bccdc18ff8c07b6),
    Group.BRAINPOOL_384: (
        0x8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b412b1da197fb71123
        << 128 | 0xacd3a729901d1a71874700133107ec53,
        0x7bc382c63d8c150c3c72080ace05afa0c2bea28e4fb22787139165efba91f90f
        << 128 | 0x8aa5814a503ad4eb04a8c7dd22ce2826,
        0x04a8c7dd22ce28268b39b55416f0447c2fb77de107dcd2a62e880ea53eeb62d5
        << 128 | 0x7cb4390295dbc9943ab78696fa504c11),
    Group.BRAINPOOL_512: (
        0xaadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330871
        << 256 | 0x7d4d9b009bc66842aecda12ae6a380e62881ff2f2d82c68528aa6056583a48f3,
        0x7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc
        << 256 | 0x2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94ca,
        0x3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a7
        << 256 | 0x2bf2c7b9e7c1ac4d77fc94cadc083e67984050b75ebae5dd2809bd638016f723)}
MODPS = [group for group in SIZES if group.name.startswith('MODP')]
PRIMES = {Group.CURVE_25519: 2**255 - 19, Group.CURVE_448: 2**448 - 2**224 - 1}
every_group = pytest.mark.parametrize('group', SIZES, ids=str)


def seeded(seed: str) -> Random:
    "Octets that are the same in every run."
    serial = count()
    return lambda size: hashlib.shake_256(f'{seed} {next(serial)}'.encode()).digest(size)


@cache
def end(group: Group, name: str) -> KeyExchange: return KeyExchange(group, seeded(name))


def refused(group: Group, public: bytes) -> str:
    with pytest.raises(InvalidSyntax) as raised: end(group, 'a victim').derive(public)
    assert raised.value.__cause__ is None
    return str(raised.value)


# All groups

def test_the_table_of_groups_is_the_table_of_words() -> None:
    words = {row.transform.id for row in ALGORITHMS.values()
             if row.transform.type == TransformType.DH and not row.weak and row.transform.id}
    assert words - set(GROUPS) == {Group.ML_KEM_512}  # which the library lacks
    assert {group for group, kind in GROUPS.items() if not isinstance(kind, Kem)} == set(SIZES)


@every_group
def test_two_ends_agree(group: Group) -> None:
    alice, bob = end(group, 'alice'), end(group, 'bob')
    secret = alice.derive(bob.public)
    assert secret == bob.derive(alice.public) and alice.public != bob.public
    assert (len(alice.public), len(secret)) == (len(bob.public), len(secret)) == SIZES[group]
    assert GROUPS[group].size == SIZES[group][0]
    mallory = end(group, 'mallory')
    assert secret not in (mallory.derive(alice.public), mallory.derive(bob.public))
    sent = KE(group, alice.public)
    assert KE.parse(Reader(bytes(sent))) == sent and len(bytes(sent)) == 4 + SIZES[group][0]


@every_group
def test_fresh_secrets_differ_and_are_not_shown(group: Group) -> None:
    one, other = KeyExchange(group), KeyExchange(group)
    assert one.public != other.public and one.derive(other.public) == other.derive(one.public)
    assert repr(one) == f'<KeyExchange {group}>'


@every_group
@pytest.mark.parametrize('octet', [b'\0', b'\xff'])
def test_a_bad_source_of_octets_still_gives_a_secret(group: Group, octet: bytes) -> None:
    "None that is zero, or as large as the order of the group."
    dh, other = KeyExchange(group, octet.__mul__), end(group, 'other')
    assert dh.derive(other.public) == other.derive(dh.public)


@every_group
def test_a_public_value_of_another_length_is_refused(group: Group) -> None:
    size, public = SIZES[group][0], end(group, 'peer').public
    for wrong in (b'', public[1:], public[:-1], b'\0' + public, public + b'\0', public * 2,
                  b'\4' + public, b'\2' + public[:size // 2], public[:size // 2]):
        assert refused(group, wrong) == f'a public value of {len(wrong)} octets, {group} has {size}'


@every_group
def test_zero_and_all_ones_are_refused(group: Group) -> None:
    refused(group, bytes(SIZES[group][0]))
    if group not in PRIMES: refused(group, b'\xff' * SIZES[group][0])


# Powers modulo a prime (RFC 6989 §2.1: 1 < r < p-1)

@pytest.fixture(params=[True, False], ids=['library', 'python'])
def by_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(ke, 'BY_LIBRARY', request.param and ke.BY_LIBRARY)
    return request.param


@pytest.mark.parametrize('group', MODPS, ids=str)
def test_the_range_of_powers(group: Group, by_library: bool) -> None:
    kind = GROUPS[group]
    prime, size = kind.prime, kind.size
    for value in 0, 1, prime - 1, prime, prime + 1, prime + 2, (1 << 8 * size) - 1:
        assert 'not between 2 and p-2' in refused(group, value.to_bytes(size, 'big'))
    secret = kind.secret(seeded('a victim'))
    for value in 2, 3, prime - 3, prime - 2:
        shared = kind.shared(secret, value.to_bytes(size, 'big'))
        assert shared == pow(value, secret, prime).to_bytes(size, 'big')


@pytest.mark.parametrize('group', MODPS, ids=str)
def test_exponents_are_long_enough_and_not_longer(group: Group) -> None:
    "Twice the strength of the group, as RFC 3526 §8 estimates it."
    bits = {2048: 256, 3072: 384, 4096: 384, 6144: 512, 8192: 512}[GROUPS[group].bits]
    for source in bytes, b'\xff'.__mul__, seeded('exponent'):
        assert GROUPS[group].secret(source).bit_length() == bits
    assert GROUPS[group].secret(seeded('one')) != GROUPS[group].secret(seeded('two'))


def leading_zero(kind: Modp, base: int) -> int:
    "The first exponent whose power begins with a zero octet."
    value, exponent = base * base % kind.prime, 2
    while value >> kind.bits - 8: value, exponent = value * base % kind.prime, exponent + 1
    return exponent


@pytest.mark.parametrize('group', MODPS, ids=str)
def test_a_leading_zero_octet_of_a_power_stays(group: Group, by_library: bool) -> None:
    kind = GROUPS[group]
    base = int.from_bytes(seeded('base')(kind.size - 1), 'big')
    exponent = leading_zero(kind, base)
    assert 2 <= exponent < 5000
    secret = kind.shared(exponent, base.to_bytes(kind.size, 'big'))
    assert secret[0] == 0 and len(secret) == kind.size == len(power(kind.prime, base, exponent))
    assert int.from_bytes(secret, 'big') == pow(base, exponent, kind.prime)


WITHOUT = """
import sys
import cryptography.hazmat.primitives.serialization  # which imports it too, in these days
sys.modules['cryptography.hazmat.primitives.asymmetric.dh'] = None
from ike_lit.wire import ke
assert not ke.BY_LIBRARY
kind = ke.GROUPS[ke.Group(int(sys.argv[1]))]
secret, public = int(sys.argv[2]), bytes.fromhex(sys.argv[3])
print(kind.public(secret).hex(), kind.shared(secret, public).hex())
for value in 0, 1, kind.prime - 1, kind.prime, kind.prime + 1:
    try: kind.shared(secret, value.to_bytes(kind.size, 'big'))
    except ValueError: print('refused')
"""


@pytest.mark.parametrize('group', MODPS, ids=str)
def test_without_the_library_all_is_the_same(group: Group) -> None:
    "In a process where `dh` can't be imported, as one day it may be."
    kind = GROUPS[group]
    secret, public = kind.secret(seeded('mine')), kind.public(kind.secret(seeded('theirs')))
    argv = [sys.executable, '-c', WITHOUT, str(int(group)), str(secret), public.hex()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert ke.BY_LIBRARY  # here it is there
    assert done.stdout.split() == [
        kind.public(secret).hex(), kind.shared(secret, public).hex(), *['refused'] * 5]


# Curves (RFC 6989 §2.3: the coordinates are less than the prime, and on the curve)

def points(group: Group) -> Iterator[tuple[int, int]]:
    "Points of the curve, from small x."
    prime, a, b = CURVES[group]
    assert prime % 4 == 3
    for x in count(1):
        square = (x ** 3 + a * x + b) % prime
        y = pow(square, (prime + 1) // 4, prime)
        if y * y % prime == square: yield x, y


def encoded(group: Group, x: int, y: int) -> bytes | None:
    size = SIZES[group][1]
    if max(x, y) >> 8 * size: return None
    return x.to_bytes(size, 'big') + y.to_bytes(size, 'big')


@pytest.mark.parametrize('group', CURVES, ids=str)
def test_what_is_no_point_of_the_curve(group: Group) -> None:
    prime, a, b = CURVES[group]
    size = SIZES[group][1]
    public = end(group, 'peer').public
    x, y = (int.from_bytes(part, 'big') for part in (public[:size], public[size:]))
    assert (y * y - x ** 3 - a * x - b) % prime == 0  # the numbers above are those of the curve
    small = points(group)
    x0, y0 = next(small)
    taken = end(group, 'me').derive(encoded(group, x0, y0))
    assert taken == end(group, 'me').derive(encoded(group, x0, prime - y0))
    wrong = [(x, y ^ 1), (x ^ 1, y), (y, x), (x, 0), (0, y), (0, 0), (1, 1), (prime, prime),
             (x0 + prime, y0), (x0 + prime, prime - y0), (x0, y0 + prime), (x0, 2 * prime - y0),
             (prime, y), (x, prime), (prime - 1, 1), (x, y + prime), (x + prime, y)]
    tried = [octets for point in wrong if (octets := encoded(group, *point))]
    assert len(tried) >= 13
    for octets in tried:
        assert f'the public value of {group} is not a point of the curve' == refused(group, octets)


@pytest.mark.parametrize('group', CURVES, ids=str)
def test_a_small_subgroup_there_is_none_but_the_twist_is_no_curve(group: Group) -> None:
    "An x without a y: on the twist, where subgroups are small."
    prime, a, b = CURVES[group]
    x = next(x for x in count(1) if pow(x ** 3 + a * x + b, (prime - 1) // 2, prime) != 1)
    for y in 0, 1, 2, prime - 1: refused(group, encoded(group, x, y))


ZEROS = {  # found by counting: what our end's secret must be, and how many octets are then zero
    Group.ECP_256: (161, 1), Group.ECP_384: (198, 1), Group.ECP_521: (61, 2),
    Group.BRAINPOOL_256: (117, 1), Group.BRAINPOOL_384: (151, 1), Group.BRAINPOOL_512: (654, 1)}


@pytest.mark.parametrize('group', CURVES, ids=str)
def test_a_leading_zero_octet_of_x_stays(group: Group) -> None:
    kind, (number, zeros) = GROUPS[group], ZEROS[group]
    secret = ec.derive_private_key(number, kind.library)
    shared = kind.shared(secret, end(group, 'peer').public)
    assert len(shared) == SIZES[group][1] and shared.startswith(bytes(zeros))
    assert shared == end(group, 'peer').derive(kind.public(secret))


# Curves of which x is enough (RFC 7748 §6, RFC 8031 §3.2)

SMALL = {  # from https://cr.yp.to/ecdh.html, and for X448 the points of order 1, 2 and 4
    Group.CURVE_25519: [
        0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20, 2**255 - 19, 2**255 - 18],
    Group.CURVE_448: [0, 1, 2**448 - 2**224 - 2, 2**448 - 2**224 - 1, 2**448 - 2**224]}


@pytest.mark.parametrize('group, u', [(group, u) for group, us in SMALL.items() for u in us])
def test_points_of_small_order_are_refused(group: Group, u: int) -> None:
    size = SIZES[group][0]
    for value in (u, u | 1 << 255) if group == Group.CURVE_25519 else (u,):
        assert 'one that gives an all-zero secret' in refused(group, value.to_bytes(size, 'little'))


@pytest.mark.parametrize('group', PRIMES, ids=str)
def test_x_is_taken_modulo_the_prime(group: Group) -> None:
    "RFC 7748 §5: implementations \"MUST accept non-canonical values\", and of X25519 255 bits."
    size, prime = SIZES[group][0], PRIMES[group]
    dh = end(group, 'me')
    for u in 9, 5, 2:
        expected = dh.derive(u.to_bytes(size, 'little'))
        assert dh.derive((u + prime).to_bytes(size, 'little')) == expected
        if group == Group.CURVE_25519:
            assert dh.derive((u | 1 << 255).to_bytes(size, 'little')) == expected
