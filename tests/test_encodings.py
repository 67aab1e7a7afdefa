"""AlgorithmIdentifiers: each encoding of an accepted algorithm that RFC 4055 tells us to accept, made by
`openssl asn1parse -genconf` and not by the code under test; and everything around them, which is refused.
"""
import itertools
import subprocess
from collections import Counter
from pathlib import Path
from shutil import which

import pytest
from authority import ed_key
from canonical import KEYS, private_key
from cryptography.hazmat.primitives.asymmetric import ec
from ike_lit.cli.diagnosis import fits
from ike_lit.wire.auth import AUTH, ENCODINGS, SCHEMES, accepted_scheme, sign, verify
from ike_lit.wire.const import AuthenticationFailed, AuthenticationType

OCTETS = b'what an end has sent, and so on'
DIGITAL = AuthenticationType.DIGITAL_SIGNATURE
KEYS_ = [private_key(KEYS / 'initiator.key'), ec.derive_private_key(77, ec.SECP256R1()), ed_key()]
OPENSSL = which('openssl')
needs_openssl = pytest.mark.skipif(not OPENSSL, reason='needs openssl')

PSS = '''asn1 = SEQUENCE:identifier
[identifier]
oid = OID:1.2.840.113549.1.1.10
parameters = SEQUENCE:parameters
[parameters]
{parts}
[hash]
oid = OID:{hash}
{hash_null}
[mask]
oid = OID:1.2.840.113549.1.1.8
hash = SEQUENCE:mask_hash
[mask_hash]
oid = OID:{mask}
{mask_null}
'''
PARTS = {'hash': 'hash = EXPLICIT:0,SEQUENCE:hash', 'mask': 'mask = EXPLICIT:1,SEQUENCE:mask',
         'salt': 'salt = EXPLICIT:2,INTEGER:{salt}', 'trailer': 'trailer = EXPLICIT:3,INTEGER:{trailer}'}
PLAIN = 'asn1 = SEQUENCE:identifier\n[identifier]\noid = OID:{oid}\n{null}\n'
NULL = 'null = NULL'
SHA2 = {'SHA2-256': ('2.16.840.1.101.3.4.2.1', 32), 'SHA2-384': ('2.16.840.1.101.3.4.2.2', 48),
        'SHA2-512': ('2.16.840.1.101.3.4.2.3', 64)}
SHA1 = '1.3.14.3.2.26'


def der(config: str, where: Path) -> bytes:
    "What openssl makes of a description."
    (where / 'config').write_text(config)
    subprocess.run([OPENSSL, 'asn1parse', '-genconf', where / 'config', '-out', where / 'der', '-noout'],
                   check=True, capture_output=True, timeout=30)
    return (where / 'der').read_bytes()


def pss(where: Path, hash: str, size: int, *, mask: str = '', nulls: tuple[str, str] = (NULL, NULL),
        parts: tuple[str, ...] = ('hash', 'mask', 'salt'), trailer: int = 1) -> bytes:
    told = '\n'.join(PARTS[part] for part in parts).format(salt=size, trailer=trailer)
    return der(PSS.format(parts=told, hash=hash, mask=mask or hash, hash_null=nulls[0],
                          mask_null=nulls[1]), where)


def with_identifier(identifier: bytes, signature: bytes) -> AUTH:
    return AUTH(DIGITAL, bytes([len(identifier)]) + identifier + signature)


def signed(name: str) -> tuple[object, bytes, bytes]:
    "A key, the identifier that we send for a scheme, and a signature by it."
    ours, scheme = next(row for row in SCHEMES.items() if row[1].name == name)
    key = next(key for key in KEYS_ if scheme.fits(key.public_key()))
    return key, ours, sign(key, OCTETS, (DIGITAL, ours)).data[1 + len(ours):]


def proves(name: str, identifier: bytes) -> None:
    key, ours, signature = signed(name)
    how = verify(key.public_key(), OCTETS, with_identifier(identifier, signature))
    assert name in how and how == verify(key.public_key(), OCTETS, with_identifier(ours, signature))
    assert fits(key.public_key(), OCTETS, with_identifier(identifier, signature)) == how  # diagnosis


def refused(name: str, identifier: bytes) -> None:
    key, _, signature = signed(name)
    assert identifier not in ENCODINGS
    with pytest.raises(AuthenticationFailed, match='is not accepted'):
        verify(key.public_key(), OCTETS, with_identifier(identifier, signature))


@needs_openssl
@pytest.mark.parametrize('name, last', [('SHA2-256', 11), ('SHA2-384', 12), ('SHA2-512', 13)])
@pytest.mark.parametrize('null', [NULL, ''], ids=['NULL', 'absent'])
def test_pkcs_1_with_and_without_a_null(name: str, last: int, null: str, tmp_path: Path) -> None:
    "RFC 4055 §5: \"Implementations MUST accept the parameters being absent as well as present.\""
    octets = der(PLAIN.format(oid=f'1.2.840.113549.1.1.{last}', null=null), tmp_path)
    proves(f'RSA with {name}', octets)
    assert (octets in SCHEMES) == bool(null)  # the one that we send has it, as RFC 7427 §A.1 says


@needs_openssl
@pytest.mark.parametrize('name', SHA2)
@pytest.mark.parametrize('nulls', list(itertools.product((NULL, ''), repeat=2)), ids=str)
@pytest.mark.parametrize('end', [(), ('trailer',)], ids=['by default', 'explicit'])
def test_pss_with_each_null_and_the_trailer_by_default_or_explicit(
        name: str, nulls: tuple[str, str], end: tuple[str, ...], tmp_path: Path) -> None:
    "RFC 4055 §2.1, §3.1."
    octets = pss(tmp_path, *SHA2[name], nulls=nulls, parts=('hash', 'mask', 'salt', *end))
    proves(f'RSA-PSS with {name}', octets)
    assert (octets in SCHEMES) == (nulls == (NULL, NULL) and not end)


@needs_openssl
@pytest.mark.parametrize('name, oid', [
    *((f'ECDSA with SHA2-{256 + 128 * n}', f'1.2.840.10045.4.3.{n + 2}') for n in range(3)),
    ('Ed25519', '1.3.101.112')])
def test_the_others_have_no_parameters(name: str, oid: str, tmp_path: Path) -> None:
    "RFC 5758 §3.2, RFC 8410 §3: they are absent, and a NULL is wrong."
    proves(name, der(PLAIN.format(oid=oid, null=''), tmp_path))
    refused(name, der(PLAIN.format(oid=oid, null=NULL), tmp_path))


@needs_openssl
@pytest.mark.parametrize('name', SHA2)
def test_other_parameters_of_pss_stay_refused(name: str, tmp_path: Path) -> None:
    "By default they are SHA-1, MGF1 with SHA-1, and a salt of 20 octets: none of it is accepted."
    oid, size = SHA2[name]
    other, _ = next(row for key, row in SHA2.items() if key != name)
    scheme = f'RSA-PSS with {name}'
    whole = 'hash', 'mask', 'salt', 'trailer'
    for length in range(5):
        for parts in itertools.combinations(whole, length):
            octets = pss(tmp_path, oid, size, parts=parts)
            if parts in (whole, whole[:3]): proves(scheme, octets)
            else: refused(scheme, octets)
    for salt in 0, 1, 20, size - 1, size + 1, 2 ** 31:
        refused(scheme, pss(tmp_path, oid, salt))
    for hash_, mask in (oid, other), (other, oid), (oid, SHA1), (SHA1, oid), (SHA1, SHA1):
        refused(scheme, pss(tmp_path, hash_, size, mask=mask))
    for trailer in 0, 2, 188: refused(scheme, pss(tmp_path, oid, size, parts=whole, trailer=trailer))


def spoiled(octets: bytes) -> set[bytes]:
    "What is no DER of it: longer lengths, open ones, octets cut off, added, moved or nested."
    body = octets[2:]
    size = len(body)
    found = {b'\x30\x81' + bytes([size]) + body, b'\x30\x82\0' + bytes([size]) + body,
             b'\x30\x80' + body + bytes(2), b'\x31' + octets[1:], b'\x30' + bytes([len(octets)]) + octets}
    found |= {octets[:n] for n in range(len(octets))} | {octets + tail for tail in (b'\0', b'\5\0', bytes(2))}
    for tail in b'\5\0', b'\0\0', b'\x30\0', b'\5\0\5\0', b'\5\1\0', b'\5\x81\0':
        found.add(bytes([0x30, size + len(tail)]) + body + tail)
        found.add(bytes([0x30, size + len(tail)]) + tail + body)
    oid = body[1]
    found.add(bytes([0x30, size + 1, 6, 0x81, oid]) + body[2:])  # the OID's length in two octets
    found.add(bytes([0x30, size + 1, 6, oid + 1, 0x80]) + body[2:])  # its first number begins with a zero
    return found


@pytest.mark.parametrize('octets', ENCODINGS, ids=lambda octets: octets.hex()[-24:])
def test_what_is_no_der_of_an_accepted_algorithm_is_refused(octets: bytes) -> None:
    scheme = ENCODINGS[octets]
    for bad in spoiled(octets):
        if len(bad) > 255: continue
        other = ENCODINGS.get(bad)
        assert other in (None, scheme)  # a NULL that is added to nothing makes the other encoding
        if other is None: refused(scheme.name, bad)
    for n in range(8 * len(octets)):
        flipped = bytearray(octets)
        flipped[n // 8] ^= 1 << n % 8
        assert ENCODINGS.get(bytes(flipped)) is not scheme


def test_a_length_octet_that_disagrees_with_the_identifier_is_refused() -> None:
    for octets, scheme in ENCODINGS.items():
        for size in {0, 1, len(octets) - 1, len(octets) + 1, 255} - {len(octets)}:
            with pytest.raises(AuthenticationFailed, match='is not accepted'):
                accepted_scheme(AUTH(DIGITAL, bytes([size]) + octets + bytes(300)), True)
        assert accepted_scheme(AUTH(DIGITAL, bytes([len(octets)]) + octets + b'x'), False) == (scheme, b'x')


def test_the_list_is_closed() -> None:
    "Two of each PKCS #1, eight of each PSS, one of all others; each in less than 128 octets."
    counts = Counter(scheme.name for scheme in ENCODINGS.values())
    assert sum(counts.values()) == len(ENCODINGS) == 34
    for name, n in counts.items(): assert n == (8 if 'PSS' in name else 2 if name.startswith('RSA') else 1)
    assert all(o[1] == len(o) - 2 < 128 for o in ENCODINGS) and not any('SHA-1' in name for name in counts)
    assert SCHEMES.items() <= ENCODINGS.items()
