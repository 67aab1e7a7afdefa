"""Files with keys, certificates and secrets: every form that is read, and one line for all others."""
import base64
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from authority import authority, dn_of, ed_key, issue, key, names, revocations, rsa_key, trusting
from canonical import KEYS
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat)
from ike_lit.cli import credential
from ike_lit.cli.credential import (
    DEMO_FILES, DEMO_KEYS, MAX_FILE, is_demo_file, is_demo_key, load_certificates, load_chain, load_crl,
    load_private_key, load_public_key, load_shared_key, parse_secret, read_secret)
from ike_lit.wire.auth import Identity, SharedKey
from ike_lit.wire.certificate import Signer
from test_certificate import LEAF, MIDDLE, OTHER, ROOT

P256, WORD = key(3), b'open sesame'
LOCKED = BestAvailableEncryption(WORD)
PEM, DER, PKCS8 = Encoding.PEM, Encoding.DER, PrivateFormat.PKCS8
SPKI = PublicFormat.SubjectPublicKeyInfo
GOOD_KEYS = {'RSA 2048': rsa_key(), 'RSA 3072': rsa_key(3072), 'P-256': P256, 'Ed25519': ed_key(),
             'P-384': ec.derive_private_key(7, ec.SECP384R1()),
             'P-521': ec.derive_private_key(7, ec.SECP521R1())}
BAD_KEYS = {'1024 bits': rsa_key(1024), '2047 bits': rsa_key(2047), 'public exponent 3': rsa_key(2048, 3),
            'secp224r1': ec.derive_private_key(7, ec.SECP224R1()),
            'secp256k1': ec.derive_private_key(7, ec.SECP256K1()),
            'brainpoolP256r1': ec.derive_private_key(7, ec.BrainpoolP256R1()),
            'Ed448': ed448.Ed448PrivateKey.from_private_bytes(bytes(57)),
            'X25519': x25519.X25519PrivateKey.from_private_bytes(bytes(32)),
            'DSA': dsa.generate_private_key(2048)}
FORMS = [(encoding, form, lock) for encoding in (PEM, DER)
         for form in (PKCS8, PrivateFormat.TraditionalOpenSSL) for lock in (NoEncryption(), LOCKED)
         if not (encoding == DER and form != PKCS8 and lock is LOCKED)]
LOADERS: dict[str, Callable] = {
    'private key': load_private_key, 'public key': load_public_key, 'certificates': load_certificates,
    'CRL': load_crl, 'shared key': load_shared_key, 'secret': read_secret,
    'chain': lambda path: load_chain(path, P256)}


@pytest.fixture
def store(tmp_path: Path) -> Callable:
    "A way to write octets to a file for the owner's eyes."
    def write(data: bytes, mode: int = 0o600) -> Path:
        path = tmp_path / 'file'
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
        path.chmod(mode)
        return path
    return write


def complaint(load: Callable, path: object, words: str = '') -> str:
    "One line, with the path once, and nothing else than `ValueError`."
    with pytest.raises(ValueError) as caught: load(path)
    text = str(caught.value)
    assert type(caught.value) is ValueError
    assert words in text and text.isprintable() and text.count(f'{path}: ') == 1, text
    return text


def private(held: object, encoding: Encoding = PEM, form: PrivateFormat = PKCS8,
            lock: object = NoEncryption()) -> bytes:  # noqa: B008
    return held.private_bytes(encoding, form, lock)


def public(held: object, encoding: Encoding = PEM) -> bytes:
    return held.public_key().public_bytes(encoding, SPKI)


def pem(*holders: object) -> bytes:
    return b''.join(h.certificate.public_bytes(PEM) for h in holders)


def relabelled(name: str, der: bytes) -> bytes:
    return f'-----BEGIN {name}-----\n{base64.encodebytes(der).decode()}-----END {name}-----\n'.encode()


# Private keys

@pytest.mark.parametrize('form', FORMS, ids=range(len(FORMS)))
@pytest.mark.parametrize('name', GOOD_KEYS)
def test_private_keys_in_every_form(store: Callable, name: str, form: tuple) -> None:
    held = GOOD_KEYS[name]
    if name == 'Ed25519' and form[1] != PKCS8: return  # there is no older form
    asked = []
    path = store(private(held, *form))
    loaded = load_private_key(path, lambda p: asked.append(p) or WORD)
    assert loaded.public_key() == held.public_key()
    assert asked == [str(path)] * (form[2] is LOCKED)


@pytest.mark.parametrize('form', [f for f in FORMS if f[2] is LOCKED], ids=range(3))
@pytest.mark.parametrize('word', [b'', b'open sesam', b'open sesame\n', b'OPEN SESAME', b'x' * 5000, b'\0'])
def test_the_wrong_passphrase_opens_nothing(store: Callable, form: tuple, word: bytes) -> None:
    path = store(private(P256, *form))
    said = complaint(lambda p: load_private_key(p, lambda _: word), path, 'passphrase does not open it')
    assert 'sesam' not in said
    complaint(load_private_key, path, 'it is locked')


def test_what_a_passphrase_source_raises_is_told(store: Callable) -> None:
    def source(path: str) -> bytes: raise ValueError(f'{path}: no passphrase today')
    path = store(private(P256, lock=LOCKED))
    assert load_private_key(store(private(P256)), source)  # it is not asked
    path = store(private(P256, lock=LOCKED))
    with pytest.raises(ValueError, match='no passphrase today'):
        load_private_key(path, source)


@pytest.mark.parametrize('words', BAD_KEYS)
def test_weak_and_foreign_keys_are_refused(store: Callable, words: str) -> None:
    held = BAD_KEYS[words]
    for encoding in PEM, DER:
        complaint(load_private_key, store(private(held, encoding)), words)
        complaint(load_public_key, store(public(held, encoding)), words)
    complaint(lambda path: load_private_key(path, lambda _: WORD), store(private(held, lock=LOCKED)), words)


def test_an_rsa_key_with_a_wrong_factor_is_refused(store: Callable) -> None:
    "Its signatures could give the other factor away."
    der = bytearray(private(rsa_key(), DER))
    numbers = rsa_key().private_numbers()
    at = bytes(der).index(numbers.p.to_bytes(128, 'big'))
    der[at + 60] ^= 1
    complaint(load_private_key, store(bytes(der)), 'the numbers of this key do not belong together')


@pytest.mark.parametrize('mode', range(0o600, 0o1000))
def test_a_secret_is_for_its_owner_only(store: Callable, mode: int) -> None:
    key_path = store(private(P256), mode)
    if not mode & 0o077: assert load_private_key(key_path) and read_secret(key_path)
    else:
        for load in load_private_key, read_secret, load_shared_key:
            said = complaint_once(load, key_path)
            assert said.endswith(f'others may read it; chmod 600 {key_path}')


def complaint_once(load: Callable, path: Path) -> str:
    with pytest.raises(ValueError) as caught: load(path)
    return str(caught.value)


def test_a_locked_key_is_also_for_its_owner_only(store: Callable) -> None:
    path = store(private(P256, lock=LOCKED), 0o644)
    complaint(lambda p: load_private_key(p, lambda _: pytest.fail('asked')), path, 'chmod 600')


@pytest.mark.parametrize('mode', [0o400, 0o600, 0o644, 0o666])
def test_what_is_no_secret_may_be_read_by_all(store: Callable, mode: int) -> None:
    assert load_public_key(store(public(P256), mode)) and load_certificates(store(pem(LEAF), mode))
    assert len(load_crl(store(revocations(ROOT, 5).public_bytes(PEM), mode))) == 1


def test_demo_keys_may_be_read_by_all_and_are_known(store: Callable) -> None:
    assert len(DEMO_FILES) == 4 and len(DEMO_KEYS) == 6  # two of each end, and two authorities
    for name in 'root', 'initiator', 'responder':
        for one in load_certificates(KEYS / f'{name}.crt'): assert is_demo_key(one.public_key())
    for name in 'initiator', 'responder', 'alice', 'bob':
        data = (KEYS / f'{name}.key').read_bytes()
        assert is_demo_file(data) and is_demo_key(load_public_key(KEYS / f'{name}.pub'))
        loaded = load_private_key(store(data, 0o644))
        assert is_demo_key(loaded.public_key())
        complaint(load_private_key, store(data + b'\n', 0o644), 'chmod 600')
        again = private(loaded)  # the same key in another form proves no more
        assert is_demo_key(load_private_key(store(again)).public_key())
    assert not is_demo_key(P256.public_key()) and not is_demo_file(b'')


# What is no such file

@pytest.mark.parametrize('kind', LOADERS)
def test_places_where_there_is_no_file(tmp_path: Path, kind: str) -> None:
    load = LOADERS[kind]
    complaint(load, tmp_path / 'missing', 'No such file')
    complaint(load, tmp_path, 'Is a directory')
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    complaint(load, tmp_path / 'loop', 'symbolic links')
    complaint(load, tmp_path / ('x' * 300), 'File name too long')
    (tmp_path / 'plain').touch()
    complaint(load, tmp_path / 'plain' / 'below', 'Not a directory')
    with pytest.raises(ValueError, match='null'): load('nul\0')


@pytest.mark.parametrize('kind', LOADERS)
@pytest.mark.parametrize('data', [
    b'', b'\0' * 100, bytes(range(256)) * 10, b'\xff\xfe', b'-----BEGIN', b'-----BEGIN X-----\n',
    b'-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n', relabelled('CERTIFICATE', b'junk'),
    relabelled('PRIVATE KEY', b'junk'), relabelled('X509 CRL', b'junk'), relabelled('PUBLIC KEY', b'0\0'),
    b'0\x80\0\0', b'0\x84\xff\xff\xff\xff', b'# only a comment\n'], ids=range(14))
def test_junk_is_told_in_one_line(store: Callable, kind: str, data: bytes) -> None:
    if kind in ('shared key', 'secret'): return  # anything is one
    complaint(LOADERS[kind], store(data))


@pytest.mark.parametrize('kind', LOADERS)
def test_files_that_are_too_large(store: Callable, kind: str) -> None:
    complaint(LOADERS[kind], store(b'x' * (MAX_FILE + 1)), f'more than {MAX_FILE} octets')
    complaint(LOADERS[kind], Path('/dev/zero'), f'more than {MAX_FILE} octets')


def test_a_link_counts_as_what_it_points_to(store: Callable, tmp_path: Path) -> None:
    link = tmp_path / 'link'
    link.symlink_to(store(private(P256)))
    assert load_private_key(link)
    store(private(P256), 0o644)
    complaint(load_private_key, link, 'chmod 600')


def test_a_pipe_belongs_to_who_has_made_it(tmp_path: Path) -> None:
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe, 0o644)
    writer = threading.Thread(target=pipe.write_bytes, args=(b'correct horse battery\n',))
    writer.start()
    assert load_shared_key(pipe) == SharedKey(b'correct horse battery')
    writer.join()


THINGS = {'private key': private(P256), 'locked key': private(P256, lock=LOCKED),
          'public key': public(P256), 'certificates': pem(LEAF, MIDDLE),
          'CRL': revocations(ROOT, 5).public_bytes(PEM),
          'private key, DER': private(P256, DER), 'public key, DER': public(P256, DER),
          'certificates, DER': LEAF.der, 'CRL, DER': revocations(ROOT, 5).public_bytes(DER)}


@pytest.mark.parametrize('kind', ['private key', 'public key', 'certificates', 'CRL'])
@pytest.mark.parametrize('thing', THINGS)
def test_one_thing_in_place_of_another(store: Callable, kind: str, thing: str) -> None:
    path = store(THINGS[thing])
    if thing.startswith(kind): assert LOADERS[kind](path)
    else:
        said = complaint(LOADERS[kind], path)
        if kind == 'public key' and thing in ('certificates', 'private key'):
            assert {'certificates': '--ca', 'private key': 'a private one'}[thing] in said


# Certificates and lists

def test_several_certificates_in_one_file(store: Callable) -> None:
    found = load_certificates(store(b'Some text\n' + pem(LEAF, MIDDLE, ROOT) + b'\nmore text\n'))
    assert found == tuple(h.certificate for h in (LEAF, MIDDLE, ROOT))
    assert load_certificates(store(pem(LEAF).replace(b'\n', b'\r\n'))) == (LEAF.certificate,)
    complaint(load_certificates, store(pem(LEAF) + relabelled('CERTIFICATE', b'junk')), 'no certificate')
    complaint(load_certificates, store(LEAF.der + MIDDLE.der), 'no certificate')
    complaint(load_certificates, store(LEAF.der + b'\n'), 'no certificate')


def test_a_chain_begins_with_the_certificate_of_the_key(store: Callable) -> None:
    assert load_chain(store(pem(LEAF, MIDDLE)), P256) == (LEAF.der, MIDDLE.der)
    for wrong in pem(MIDDLE, LEAF), pem(MIDDLE), pem(issue('CN=x', key(4), MIDDLE)):
        complaint(lambda p: load_chain(p, P256), store(wrong), 'for another key')
    complaint(lambda p: load_chain(p, ed_key()), store(pem(LEAF)), 'for another key')


CURVE_OID, NEW_OID = bytes.fromhex('06072a8648ce3d0201'), bytes.fromhex('06072a8648ce3d0209')


@pytest.mark.parametrize('before, after', [
    (b'\xa0\3\2\1\2', b'\xa0\3\2\1\5'), (b'\x0c\x05', b'\3\5'),
    (bytes.fromhex('0603551d23'), bytes.fromhex('0603551d11')), (b'\x82\x11alice', b'\x83\x11alice')],
    ids=['version 6', 'a bit string for a name', 'an extension twice', 'an odd name'])
def test_odd_certificates_in_files(store: Callable, before: bytes, after: bytes) -> None:
    assert before in LEAF.der
    for data in (LEAF.der.replace(before, after), relabelled('CERTIFICATE', LEAF.der.replace(before, after))):
        complaint(load_certificates, store(data), 'no certificate')


def test_a_certificate_with_an_unknown_kind_of_key(store: Callable) -> None:
    complaint(lambda p: load_chain(p, P256), store(LEAF.der.replace(CURVE_OID, NEW_OID)))


def crl(*extensions: tuple[x509.ExtensionType, bool]) -> bytes:
    made = revocation_builder()
    for extension, critical in extensions: made = made.add_extension(extension, critical)
    return made.sign(ROOT.key, hashes.SHA256()).public_bytes(DER)


def revocation_builder() -> x509.CertificateRevocationListBuilder:
    when = ROOT.certificate.not_valid_before_utc
    return x509.CertificateRevocationListBuilder().issuer_name(dn_of('CN=root')).last_update(
        when).next_update(when.replace(year=2027))


PARTIAL = [x509.DeltaCRLIndicator(3), *(x509.IssuingDistributionPoint(
    None, None, only_contains_user_certs=user, only_contains_ca_certs=ca, only_some_reasons=None,
    indirect_crl=indirect, only_contains_attribute_certs=False)
    for user, ca, indirect in ((True, False, False), (False, True, False), (False, False, True)))]


@pytest.mark.parametrize('extension', PARTIAL, ids=['delta', 'ends only', 'authorities only', 'indirect'])
def test_a_list_that_leaves_something_out_is_refused(store: Callable, extension: x509.ExtensionType) -> None:
    for data in (crl((extension, True)), crl((x509.CRLNumber(4), False), (extension, True))):
        complaint(load_crl, store(data), 'not a full list')
        complaint(load_crl, store(relabelled('X509 CRL', data)), 'not a full list')


def test_a_full_list_may_have_a_number(store: Callable) -> None:
    own = x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.key.public_key())
    assert len(load_crl(store(crl((x509.CRLNumber(4), False), (own, False))))) == 0


@pytest.mark.parametrize('before, after', [
    (b'\2\1\1', b'\2\1\5'), (bytes.fromhex('0603551d23'), bytes.fromhex('0603551d14')),
    (b'\x0c\x04root', b'\3\4root')], ids=['version 6', 'an extension twice', 'a bit string for a name'])
def test_odd_lists_in_files(store: Callable, before: bytes, after: bytes) -> None:
    data = crl((x509.CRLNumber(1), False), (x509.AuthorityKeyIdentifier(b'x', None, None), False))
    assert before in data
    complaint(load_crl, store(data.replace(before, after, 1)))


# Shared secrets

@pytest.mark.parametrize('text, secret', [
    (b'correct horse', b'correct horse'), (b' spaces stay ', b' spaces stay '), (b'0', b'0'), (b'x', b'x'),
    (b'0xc0ffee', b'\xc0\xff\xee'), (b'0xC0FFEE', b'\xc0\xff\xee'), (b'0x00', b'\0'), (b'0s', None),
    (b'0sY29ycmVjdA==', b'correct'), (b'0sAA==', b'\0'), (b'0s//79', b'\xff\xfe\xfd'), (b'00xc0', b'00xc0'),
    (b'z\xc3\xbcrich', b'z\xc3\xbcrich'), (b'\xff\0\x01', b'\xff\0\x01'), (b'', None), (b'0x', None),
    (b'0xc0ffe', None), (b'0xg0', None), (b'0x\xc3\xa9', None), (b'0x0x00', None), (b'0x-1', None),
    (b'0sY29ycmVjdA=', None), (b'0sY29y!mVj', None), (b'0s====', None), (b'0sYQ==YQ==', None),
    (b'0s YQ==', None), (b'0s_-79', None), (b'two\nlines', None), (b'\n', None), (b'0xc0\nffee', None),
    ('0x\u0663\u0663'.encode(), None)])
def test_how_a_shared_secret_is_written(text: bytes, secret: bytes | None) -> None:
    if secret is not None:
        assert parse_secret(text) == secret
        return
    with pytest.raises(ValueError, match='shared key') as caught: parse_secret(text)
    shown = str(caught.value)
    assert len(text) < 4 or text[2:].decode('latin-1') not in shown


@pytest.mark.parametrize('end, rest', [(b'', b''), (b'\n', b''), (b'\r\n', b''), (b'\r', b''),
                                       (b' \n', b' '), (b'\n\n', None), (b'\r\n\r\n', None)])
def test_the_end_of_the_line_is_not_in_the_secret(store: Callable, end: bytes, rest: bytes | None) -> None:
    for text, secret in (b'correct horse', b'correct horse'), (b'0x00ff', b'\0\xff'), (b'0sAP8=', b'\0\xff'):
        path = store(text + end)
        if rest is None: complaint(load_shared_key, path, 'one line')
        elif not rest: assert load_shared_key(path) == SharedKey(secret)
        elif text == b'correct horse': assert load_shared_key(path).secret == secret + rest


def test_no_secret_is_shown_in_a_repr() -> None:
    for held in (SharedKey(b'hush'), Signer(P256, (LEAF.der,)), trusting(ROOT, OTHER)):
        shown = repr(held) + str(held)
        assert 'hush' not in shown and b'hush'.hex() not in shown and 'DER' not in shown
        assert b'-----BEGIN' not in shown.encode() and len(shown) < 200


def test_each_file_is_opened_once(store: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    "Nobody can put another file in its place between the check and the reading."
    opened, real = [], Path.open
    monkeypatch.setattr(Path, 'open', lambda self, *a, **k: opened.append(self) or real(self, *a, **k))
    monkeypatch.setattr(credential, 'os', SimpleNamespace(fstat=os.fstat))
    path = store(private(P256))
    opened.clear()
    load_private_key(str(path))
    assert opened == [path]


def test_an_authority_needs_no_name_of_ours(store: Callable) -> None:
    found, = load_certificates(store(pem(authority('CN=root', key(1), None, names('x.org')))))
    assert found.subject == dn_of('CN=root') and Identity.from_text('CN=root')


def test_what_a_stream_cannot_show_is_shown_by_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, 'ascii', write_through=True))
    monkeypatch.setattr(sys, 'stderr', io.StringIO())  # in a notebook it may be anything
    credential.escape_the_unprintable()
    print('\u017ei\u017eka', end='')  # noqa: T201
    assert raw.getvalue() == b'\\u017ei\\u017eka'
