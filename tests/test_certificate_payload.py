"""What certificates arrive in, what was revoked, and junk: nothing but a refusal comes of it."""
import base64
import hashlib
import random
import socket
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
from authority import (
    DAY, IS_END, TODAY, Holder, ed_key, issue, key, names, revocations, rsa_key, trusting,
    usage)
from canonical import configs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.engine.proof import certificate_requests
from ike_lit.wire.auth import Identity
from ike_lit.wire.certificate import CERT, CERTREQ, Authorities, Signer, shown, spki
from ike_lit.wire.const import AuthenticationFailed, CertEncoding, InvalidSyntax
from ike_lit.wire.header import Reader, dissect
from test_certificate import ALICE, LEAF, MIDDLE, NAME, OTHER, ROOT, believed, refused, sent

X509, RAW = CertEncoding.X509_SIGNATURE, CertEncoding.RAW_PUBLIC_KEY
BOTH = sent(LEAF, MIDDLE)
SERIAL = LEAF.certificate.serial_number


# Payloads

@pytest.mark.parametrize('kind', [CERT, CERTREQ], ids=lambda k: k.__name__)
@pytest.mark.parametrize('encoding', [0, 1, 4, 7, 12, 13, 15, 201, 255])
@pytest.mark.parametrize('data', [b'', b'x', LEAF.der, bytes(20), bytes(30)],
                         ids=['nothing', 'an octet', 'a certificate', '20', '30'])
def test_a_payload_is_an_encoding_and_data(kind: type, encoding: int, data: bytes) -> None:
    body = bytes([encoding]) + data
    parsed = kind.parse(Reader(body))
    assert type(parsed) is kind and (parsed.encoding, parsed.data) == (encoding, data)
    assert bytes(parsed) == body and parsed == kind(CertEncoding(encoding), data)
    assert len(repr(parsed)) < 80 and dissect(kind.parse, body)


@pytest.mark.parametrize('kind', [CERT, CERTREQ], ids=lambda k: k.__name__)
def test_a_payload_without_an_encoding_is_bad_syntax(kind: type) -> None:
    with pytest.raises(InvalidSyntax): kind.parse(Reader(b''))


def test_a_request_names_the_keys_of_authorities() -> None:
    "RFC 7296 §3.7: the SHA-1 hash of SubjectPublicKeyInfo, 20 octets for each."
    expected = [hashlib.sha1(r.certificate.public_key().public_bytes(  # noqa: S324
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest() for r in (ROOT, OTHER)]
    request = trusting(ROOT, OTHER).request()
    assert (request.encoding, request.data) == (X509, b''.join(expected))
    assert list(request.authorities) == expected
    assert CERTREQ(X509, bytes(45)).authorities == (bytes(20), bytes(20), bytes(5))


def test_who_believes_in_authorities_asks_for_their_certificates_once() -> None:
    left, right = configs()
    one, other = (replace(right, trust=trusting(*roots)) for roots in ((ROOT,), (ROOT, OTHER)))
    assert certificate_requests([left, right]) == ()
    assert certificate_requests([left, one, one, right]) == (one.trust.request(),)
    assert certificate_requests([one, other]) == (one.trust.request(), other.trust.request())


def test_what_is_shown_along_with_a_signature() -> None:
    ask_raw, ask_x509 = CERTREQ(RAW, b''), trusting(ROOT).request()
    with_chain, bare = Signer(key(3), (LEAF.der, MIDDLE.der)), Signer(key(3))
    for asked in ([], [ask_raw], [ask_x509], [ask_x509, ask_raw]):
        assert list(with_chain.payloads(asked)) == BOTH
        assert bare.payloads(asked) == ((CERT(RAW, spki(key(3).public_key())),)
                                        if ask_raw in asked else ())


def test_a_raw_key_is_a_hint_and_proves_nothing() -> None:
    raw = CERT(RAW, spki(LEAF.key.public_key()))
    refused([raw], 'sends no certificate')
    refused([raw, *sent(MIDDLE)], "authority's")
    assert believed([raw, *BOTH])
    assert shown([raw]) == f'the bare key {hashlib.sha256(raw.data).hexdigest()[:16]}...'
    assert shown([]) == 'no certificate'


@pytest.mark.parametrize('encoding', [c for c in CertEncoding if c != X509], ids=str)
def test_other_encodings_are_not_certificates(encoding: CertEncoding) -> None:
    refused([CERT(encoding, LEAF.der), *sent(MIDDLE)], "authority's")
    refused([CERT(encoding, p.data) for p in BOTH], 'sends no certificate|only the place')


@pytest.mark.parametrize('encoding', [CertEncoding.HASH_AND_URL_OF_X509,
                                      CertEncoding.HASH_AND_URL_OF_BUNDLE], ids=str)
def test_nothing_is_ever_fetched(monkeypatch: pytest.MonkeyPatch, encoding: CertEncoding) -> None:
    for name in 'socket', 'create_connection', 'getaddrinfo', 'gethostbyname':
        monkeypatch.setattr(socket, name, lambda *args, **kwargs: pytest.fail('a socket'))
    for url in (b'http://127.0.0.1/x', b'file:///etc/passwd', b'', b'\0' * 60000):
        place = CERT(encoding, hashlib.sha1(LEAF.der).digest() + url)  # noqa: S324
        refused([place], 'we never fetch')
        refused([place, *sent(MIDDLE)], "authority's")
        assert believed([place, *BOTH])


# Revocation

def with_lists(*crls: x509.CertificateRevocationList, days: float = 0) -> Authorities:
    return trusting(ROOT, crls=crls, days=days)


def test_lists_that_do_not_name_a_certificate() -> None:
    for crl in (revocations(MIDDLE), revocations(MIDDLE, SERIAL + 1), revocations(ROOT, 1, 2),
                revocations(OTHER, SERIAL), revocations(OTHER, SERIAL, by=key(70)),
                revocations(OTHER, days=(-9, -1))):
        assert believed(BOTH, with_lists(crl))


@pytest.mark.parametrize('others', [0, 1, 5000])
def test_revoked_certificates(others: int) -> None:
    rest = range(10 ** 6, 10 ** 6 + others)
    assert MIDDLE.certificate.serial_number == SERIAL  # each authority counts for itself
    refused(BOTH, 'CN=alice was revoked on 2026-03-31', with_lists(revocations(MIDDLE, *rest, SERIAL)))
    refused(BOTH, 'CN=middle was revoked on 2026-03-31', with_lists(revocations(ROOT, *rest, SERIAL)))
    later = revocations(MIDDLE), revocations(ROOT), revocations(MIDDLE, SERIAL)
    refused(BOTH, 'CN=alice was revoked', with_lists(*later))


@pytest.mark.parametrize('issuer', [MIDDLE, ROOT], ids=['middle', 'root'])
def test_lists_that_can_not_be_believed(issuer: Holder) -> None:
    "Neither what is forged nor what is out of date lets anybody in."
    for by in key(71), LEAF.key, rsa_key(), ed_key(), OTHER.key:
        refused(BOTH, 'is not signed by it', with_lists(revocations(issuer, by=by)))
    refused(BOTH, 'out of date', with_lists(revocations(issuer, days=(-5, -1))))
    refused(BOTH, 'out of date', with_lists(revocations(issuer, days=(-1, 1)), days=2))
    refused(BOTH, 'out of date', with_lists(revocations(issuer), revocations(issuer, days=(-5, -1))))


def test_a_list_holds_until_the_next_one_is_due() -> None:
    crl = revocations(MIDDLE, days=(-1, 1))
    for days in (-1, 0, 0.99, 1): assert believed(BOTH, with_lists(crl, days=days))
    refused(BOTH, 'out of date', with_lists(crl, days=1.0001))


def test_a_list_that_does_not_say_when_the_next_one_comes_is_out_of_date() -> None:
    "The package makes none, so here is something that looks like one."
    endless = SimpleNamespace(
        issuer=MIDDLE.certificate.subject, is_signature_valid=lambda key: True, next_update_utc=None,
        get_revoked_certificate_by_serial_number=lambda number: None)
    refused(BOTH, 'out of date', with_lists(endless))


def test_the_certificates_on_a_list_are_those_of_its_issuer_only() -> None:
    "A list of the root's that names the leaf's number says nothing about the leaf, but about the middle."
    leaf = issue('CN=alice', key(3), MIDDLE, NAME, serial=4711)
    assert believed(sent(leaf, MIDDLE), with_lists(revocations(ROOT, 4711)))
    refused(sent(leaf, MIDDLE), 'revoked', with_lists(revocations(MIDDLE, 4711)))


# Junk

JUNK = [b'', b'0', b'0\0', b'0\x80\0\0', b'junk', LEAF.der[:-1], LEAF.der + b'\0', LEAF.der[1:],
        LEAF.der * 2, base64.b64encode(LEAF.der), b'-----BEGIN CERTIFICATE-----\n', bytes(5000),
        b'0' * 5000, b'0\x84\xff\xff\xff\xff' + LEAF.der, b'\x30\x82\xff\xff' * 1000]


@pytest.mark.parametrize('junk', JUNK, ids=range(len(JUNK)))
def test_junk_in_place_of_a_certificate(junk: bytes) -> None:
    for payloads in ([CERT(X509, junk)], [CERT(X509, junk), *BOTH], [*BOTH, CERT(X509, junk)]):
        refused(payloads, 'can not be read')


RICH = issue(
    'C=CH, O=Example, CN=alice', key(3), MIDDLE, IS_END, usage('digital_signature'),
    names('alice.example.org', '10.0.0.1', 'a@b.org', 'O=X, CN=y'),
    x509.ExtendedKeyUsage([x509.ObjectIdentifier('2.5.29.37.0')]),
    x509.TLSFeature([x509.TLSFeatureType.status_request]),
    x509.IssuerAlternativeName([x509.RegisteredID(x509.ObjectIdentifier('1.2.3'))]),
    x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier('1.2.3.4'), [
        'http://cps', x509.UserNotice(x509.NoticeReference('o', [1]), 'text')])]))
TAGS = bytes([*range(8), 0xc, 0x13, 0x16, 0x17, 0x18, 0x1e, 0x30, 0x31, 0x80, 0x82, 0xa0, 0xff])


def unlikely(octets: bytes, first: bool) -> None:
    "A changed certificate is refused, unless all that was signed is as it was."
    changed, good = CERT(X509, octets), RICH if first else MIDDLE
    try: trusting(ROOT).certified(
        [changed, MIDDLE.payload] if first else [RICH.payload, changed], ALICE)
    except AuthenticationFailed: return
    signed = x509.load_der_x509_certificate(octets).tbs_certificate_bytes
    assert signed == good.certificate.tbs_certificate_bytes


@pytest.mark.parametrize('first', [True, False], ids=['its own', 'another'])
def test_every_octet_of_a_certificate_may_be_another_tag(first: bool) -> None:
    good = RICH.der if first else MIDDLE.der
    failures = set()
    for at in range(len(good)):
        for value in 3, 0x87:
            try: unlikely(good[:at] + bytes([value]) + good[at + 1:], first)
            except Exception as error: failures.add(repr(error))  # noqa: BLE001
    assert not failures


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(), first=st.booleans())
def test_certificates_that_were_changed_anywhere(seed: int, first: bool) -> None:
    chance = random.Random(seed)  # noqa: S311
    good = RICH.der if first else MIDDLE.der
    octets = bytearray(good)
    for _ in range(chance.choice((1, 2, 3))):
        at, what = chance.randrange(len(octets)), chance.random()
        if what < 0.6: octets[at] = chance.choice((octets[at] ^ 1 << chance.randrange(8),
                                                   chance.choice(TAGS)))
        elif what < 0.8: del octets[at:at + chance.choice((1, 2, 5))]
        else: octets[at:at] = chance.randbytes(chance.choice((1, 2, 3)))
    unlikely(bytes(octets), first)


def relabelled(holder: Holder, before: bytes, after: bytes) -> CERT:
    assert before in holder.der and len(before) == len(after)
    return CERT(X509, holder.der.replace(before, after))


CURVE_OID, NEW_OID = bytes.fromhex('06072a8648ce3d0201'), bytes.fromhex('06072a8648ce3d0209')
KEY_ID, AUTHORITY_ID = bytes.fromhex('0603551d11'), bytes.fromhex('0603551d23')
YEAR_0 = b'\x18\x0f00000101000000Z'


@pytest.mark.parametrize('before, after', [
    (CURVE_OID, NEW_OID), (AUTHORITY_ID, KEY_ID), (KEY_ID, AUTHORITY_ID), (b'\x0c\x05', b'\x03\x05'),
    (b'\x82\x11alice', b'\x83\x11alice'), (b'\x82\x11alice', b'\x80\x11alice'),
    (b'\x82\x11alice', b'\x88\x11alice'), (b'\x82\x11alice', b'\x89\x11alice'),
    (b'\x82\x11alice', b'\x87\x11alice'), (b'\x82\x11alice', b'\xa4\x11alice'),
    (b'alice.', b'al\xffce.'), (b'\2\2\3\xe8', b'\2\2\xff\xe8'), (b'\2\2\3\xe8', b'\2\2\0\0'),
    (b'\xa0\3\2\1\2', b'\xa0\3\2\1\5'), (b'\xa0\3\2\1\2', b'\xa0\3\2\1\0'),
    (b'260322000000Z', b'269922000000Z'), (b'260322000000Z', b'260322000060Z'),
    (b'260322000000Z', b'2603220000+1Z')], ids=lambda v: v.hex()[:12])
def test_odd_contents_in_any_certificate(before: bytes, after: bytes) -> None:
    "An unknown kind of key, an extension twice, odd names and numbers, dates that never were."
    refused([relabelled(LEAF, before, after), MIDDLE.payload])
    if before in MIDDLE.der: refused([LEAF.payload, relabelled(MIDDLE, before, after)])


@pytest.mark.parametrize('serial', [1, 2 ** 64, 2 ** 158, 2 ** 159 - 1])
def test_huge_serial_numbers(serial: int) -> None:
    leaf = issue('CN=alice', key(3), MIDDLE, NAME, serial=serial)
    assert believed(sent(leaf, MIDDLE), with_lists(revocations(MIDDLE)))
    refused(sent(leaf, MIDDLE), 'revoked', with_lists(revocations(MIDDLE, serial)))


def test_a_serial_number_below_1_prints_no_warning() -> None:
    octets = issue('CN=alice', key(3), MIDDLE, NAME, serial=1).certificate.public_bytes(Encoding.DER)
    zero = octets.replace(bytes.fromhex('020101'), bytes.fromhex('020100'), 1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert shown([CERT(X509, zero)]).startswith('a certificate of CN=alice')


def test_dates_at_the_ends_of_time() -> None:
    far = (9999 - 2026) * 365
    leaf = issue('CN=alice', key(3), MIDDLE, NAME, days=(-20000, far))
    assert believed(sent(leaf, MIDDLE))
    at_end = Authorities((ROOT.certificate,), (), lambda: TODAY + far * DAY + 300 * DAY)
    refused(sent(leaf, MIDDLE), 'has expired on 9993', at_end)


def test_a_name_that_fools_a_terminal_is_shown_as_hex() -> None:
    evil = issue('CN=x', key(3), OTHER, x509.SubjectAlternativeName([x509.DNSName('a\n\x1b[2Jb')]))
    refused(sent(evil), 'no chain')
    refused(sent(evil), '610a1b5b324a62', trusting(OTHER))


def test_the_longest_refusal_is_short() -> None:
    many = issue('CN=x', key(3), MIDDLE, names(*(f'{"y" * 60}.{n}.org' for n in range(900))))
    refused(sent(many, MIDDLE), 'is not for')


def test_many_alternative_names_are_still_read() -> None:
    many = issue('CN=x', key(3), MIDDLE, names(*(f'h{n}.org' for n in range(900))))
    assert believed(sent(many, MIDDLE), identity=Identity.from_text('h899.org'))
