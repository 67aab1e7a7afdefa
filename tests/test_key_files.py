"Files with keys: what each refusal says, and that it refuses."
import resource
from pathlib import Path

import pytest
from authority import authority, ed_key, key, rsa_key
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat)
from ike_lit.cli.credential import (
    MAX_FILE, load_authorities, load_private_key, load_public_key, no_core, parse_secret, read_file)
from ike_lit.wire.auth import choose_scheme, sign
from ike_lit.wire.const import AuthenticationFailed, HashAlgorithm

NOBODYS = b'\x2b\x65\x7f'  # 1.3.101.127, beside the object identifier of X25519


def stored(folder: Path, data: bytes) -> Path:
    path = folder / 'file'
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def test_the_largest_file_is_read_and_one_octet_more_is_not(tmp_path: Path) -> None:
    assert read_file(stored(tmp_path, bytes(MAX_FILE))) == (bytes(MAX_FILE), False)
    with pytest.raises(ValueError, match=f'more than {MAX_FILE} octets$'):
        read_file(stored(tmp_path, bytes(MAX_FILE + 1)))


def test_a_kind_of_key_that_nobody_knows_is_named_so(tmp_path: Path) -> None:
    known = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    private = known.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = known.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for load, data in (load_private_key, private), (load_public_key, public):
        path = stored(tmp_path, data.replace(b'\x2b\x65\x6e', NOBODYS))
        with pytest.raises(ValueError, match=r'file: a key of an unknown kind$'): load(path)


def test_advice_about_certificates_is_for_certificates(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'no public key in PEM or DER$'):
        load_public_key(stored(tmp_path, b'neither key nor certificate'))
    pem = authority('CN=root', key(3)).certificate.public_bytes(Encoding.PEM)
    with pytest.raises(ValueError, match=r'in PEM or DER, but a certificate; --ca is for those$'):
        load_public_key(stored(tmp_path, pem))


@pytest.mark.parametrize(('signer', 'why'), [
    (rsa_key(1024), r'CN=.*: the certificate has .*1024'),
    (ed_key(), r'CN=.*: authorities with an Ed25519 key'),
    (key(3), '')], ids=['RSA of 1024 bits', 'Ed25519', 'P-256'])
def test_an_authority_that_could_vouch_for_nobody_is_refused(
        tmp_path: Path, signer: object, why: str) -> None:
    path = stored(tmp_path, authority('CN=root', signer).certificate.public_bytes(Encoding.PEM))
    if why:
        with pytest.raises(ValueError, match=why): load_authorities(path)
    else: assert all(isinstance(one, x509.Certificate) for one in load_authorities(path))


@pytest.mark.parametrize(('text', 'kind'), [(b'0xno hex', 'hex'), (b'0sno base64', 'base64')])
def test_a_secret_that_is_no_code_is_told_which_code_it_began(text: bytes, kind: str) -> None:
    with pytest.raises(ValueError, match=f'goes on in {kind}$'): parse_secret(text)


@pytest.mark.parametrize(('most', 'soft'), [(0, 0), (1, 1), (resource.RLIM_INFINITY, 1)])
def test_an_image_of_memory_has_one_octet_at_most(
        monkeypatch: pytest.MonkeyPatch, most: int, soft: int) -> None:
    "Not 0, where more is allowed: a pipe that takes such images is given them all the same at 0, not at 1."
    limits = []
    monkeypatch.setattr(resource, 'getrlimit', lambda what: (most, most))
    monkeypatch.setattr(resource, 'setrlimit', lambda what, pair: limits.append((what, pair)))
    no_core()
    assert limits == [(resource.RLIMIT_CORE, (soft, most))]


def damaged() -> rsa.RSAPrivateKey:
    "An RSA key whose public exponent does not belong to the rest, as the library makes it without a check."
    good = rsa_key(2048).private_numbers()
    return rsa.RSAPrivateNumbers(
        good.p, good.q, good.d, good.dmp1, good.dmq1, good.iqmp,
        rsa.RSAPublicNumbers(65539, good.public_numbers.n)).private_key(unsafe_skip_rsa_key_validation=True)


def test_a_damaged_key_is_refused_when_it_is_read(tmp_path: Path) -> None:
    pem = damaged().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match=r'file: the numbers of this key do not belong together$'):
        load_private_key(stored(tmp_path, pem))


def test_a_wrong_signature_is_never_sent() -> None:
    "One with an RSA key that was damaged gives away a prime (Boneh, DeMillo and Lipton, 1997)."
    key_, sha256 = damaged(), (HashAlgorithm.SHA2_256,)
    for way in choose_scheme(key_.public_key(), sha256), choose_scheme(key_.public_key(), sha256, pss=True):
        with pytest.raises(AuthenticationFailed, match='our signature is wrong'): sign(key_, b'octets', way)
