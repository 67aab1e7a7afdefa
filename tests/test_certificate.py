"""Certificates by themselves: chains that lead to an authority, and all those that must not."""
import random
import re
from ipaddress import ip_network

import pytest
from authority import (
    CA_USE, IS_CA, IS_END, TODAY, Holder, authority, dn_of, ed_key, issue, key, names,
    rsa_key, trusting, usage)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, x25519
from ike_lit.wire import certificate
from ike_lit.wire.auth import Identity
from ike_lit.wire.certificate import CERT, MAX_CERTIFICATES, Authorities
from ike_lit.wire.const import AuthenticationFailed, CertEncoding, IDType

X509 = CertEncoding.X509_SIGNATURE
ALICE = Identity.from_text('alice.example.org')
NAME = names('alice.example.org')
ROOT, OTHER = authority('CN=root', key(1)), authority('CN=other', key(11))
MIDDLE = authority('CN=middle', key(2), ROOT)
LEAF = issue('CN=alice', key(3), MIDDLE, NAME)


def leaf(*extensions: x509.ExtensionType, by: Holder = MIDDLE, holder: object = None,
         **how: object) -> Holder:
    return issue('CN=alice', holder or key(3), by, NAME, *extensions, **how)


def sent(*holders: Holder) -> list[CERT]: return [holder.payload for holder in holders]


def believed(payloads: list[CERT], trust: Authorities | None = None,
             identity: Identity = ALICE) -> x509.Certificate:
    return (trust or trusting(ROOT)).certified(payloads, identity)


def refused(payloads: list[CERT], words: str = '', trust: Authorities | None = None,
            identity: Identity = ALICE) -> None:
    "`AuthenticationFailed` with one printable line, and nothing else."
    with pytest.raises(AuthenticationFailed) as caught: believed(payloads, trust, identity)
    text = str(caught.value)
    assert re.search(words, text), text
    assert text.isprintable() and len(text) < 1500


# What is believed

@pytest.mark.parametrize('holder', [
    key(3), rsa_key(), rsa_key(3072), ed_key(), ec.derive_private_key(5, ec.SECP384R1()),
    ec.derive_private_key(5, ec.SECP521R1())], ids=lambda k: type(k).__name__)
def test_a_chain_with_every_kind_of_key_at_its_end(holder: object) -> None:
    for issuer, chain in (MIDDLE, [MIDDLE]), (ROOT, []):
        made = leaf(by=issuer, holder=holder)
        assert believed(sent(made, *chain)) == made.certificate


@pytest.mark.parametrize('holder', [
    key(4), rsa_key(), ec.derive_private_key(5, ec.SECP384R1())],
    ids=['P-256', 'RSA', 'P-384'])
def test_authorities_with_every_kind_of_key(holder: object) -> None:
    root = authority('CN=root', holder)
    middle = authority('CN=middle', holder, root)
    assert believed(sent(leaf(by=root)), trusting(root))
    assert believed(sent(leaf(by=middle), middle), trusting(root))


def test_an_authority_with_an_ed25519_key_is_refused_and_told_why() -> None:
    "The library's verifier does not take them; the end of a chain may have one."
    root = authority('CN=root', ed_key(2))
    refused(sent(leaf(by=root)), 'neither RSA nor on a curve of NIST', trusting(root))


def test_the_order_of_the_others_and_what_else_is_there_do_not_matter() -> None:
    second = authority('CN=second', key(5), MIDDLE)
    made = leaf(by=second)
    others = [second, MIDDLE, OTHER, ROOT, authority('CN=middle', key(2), OTHER), second]
    for seed in range(20):
        random.Random(seed).shuffle(others)  # noqa: S311
        assert believed(sent(made, *others)) == made.certificate
    assert believed(sent(made, made, second, MIDDLE))
    noise = [CERT(encoding, b'junk') for encoding in CertEncoding if encoding != X509]
    assert believed([*noise, made.payload, *noise, *sent(second, MIDDLE)])


def test_the_first_certificate_is_the_one_that_counts() -> None:
    other = issue('CN=bob', key(9), MIDDLE, names('bob.example.org'))
    refused(sent(other, LEAF, MIDDLE), 'not for FQDN alice')
    assert believed(sent(LEAF, other, MIDDLE)).public_key() == key(3).public_key()


@pytest.mark.parametrize('purpose', certificate.PURPOSES)
def test_purposes_that_suit_ike(purpose: str) -> None:
    kinds = x509.ExtendedKeyUsage([x509.ObjectIdentifier(o) for o in ('1.2.3', purpose)])
    for critical in ((), (x509.ExtendedKeyUsage,)):
        assert believed(sent(leaf(kinds, critical=critical), MIDDLE))


@pytest.mark.parametrize('purpose', certificate.PURPOSES)
def test_an_authority_may_be_for_the_same_purposes(purpose: str) -> None:
    kinds = x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)])
    middle = authority('CN=middle', key(2), ROOT, kinds)
    assert believed(sent(leaf(by=middle), middle))


@pytest.mark.parametrize('allowed', ['digital_signature', 'content_commitment'])
def test_key_usages_that_suit_ike(allowed: str) -> None:
    assert believed(sent(leaf(usage(allowed), critical=(x509.KeyUsage,)), MIDDLE))


# Chains

def constrained(*subtrees: x509.GeneralName, excluded: bool = False) -> x509.NameConstraints:
    return x509.NameConstraints(None, subtrees) if excluded else x509.NameConstraints(subtrees, None)


PATH_0 = x509.BasicConstraints(True, 0)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier('1.2.3'), b'\5\0')
CODE = x509.ExtendedKeyUsage([x509.ObjectIdentifier('1.3.6.1.5.5.7.3.3')])
BAD_LEAVES = {
    'expired': (leaf(days=(-9, -1)), 'has expired on 2026-03-31'),
    'not yet valid': (leaf(days=(1, 9)), 'not valid before 2026-04-02'),
    'an authority': (leaf(IS_CA), "an authority's"),
    'an authority, with usages': (leaf(IS_CA, usage('digital_signature', 'key_cert_sign')), 'authority'),
    'for signing certificates': (leaf(CA_USE), 'key usage'),
    'for encryption': (leaf(usage('key_encipherment', 'key_agreement')), 'key usage'),
    'for nothing': (leaf(usage()), 'key usage'),
    'for code': (leaf(CODE), 'extended key usage'),
    'unknown critical extension': (leaf(UNKNOWN, critical=[type(UNKNOWN)]), 'critical.*1.2.3'),
    **{f'critical {type(e).__name__}': (leaf(e, critical=[type(e)]), 'critical') for e in (
        x509.PrecertPoison(), x509.PolicyConstraints(0, None), x509.InhibitAnyPolicy(0),
        x509.TLSFeature([x509.TLSFeatureType.status_request]), x509.OCSPNoCheck())},
    'signed by itself': (issue('CN=alice', key(3), None, NAME), 'signed by itself'),
    'signed by itself, an authority': (authority('CN=alice', key(3), None, NAME), "authority's"),
    'signed by another authority': (leaf(by=OTHER), 'no chain leads'),
    'signed by the right name': (leaf(by=authority('CN=middle', key(99), ROOT)), 'chain'),
    'signed by a stranger in its name': (leaf(by=Holder(key(98), MIDDLE.certificate)), 'chain'),
    'SHA2-224': (leaf(hash_=hashes.SHA224()), 'chain'),
    'RSA 1024': (leaf(holder=rsa_key(1024)), '1024 bits'),
    'RSA 2047': (leaf(holder=rsa_key(2047)), '2047 bits'),
    'RSA e=3': (leaf(holder=rsa_key(2048, 3)), 'exponent 3'),
    'P-224': (leaf(holder=ec.generate_private_key(ec.SECP224R1())), 'secp224r1'),
    'secp256k1': (leaf(holder=ec.generate_private_key(ec.SECP256K1())), 'secp256k1'),
    'brainpool': (leaf(holder=ec.generate_private_key(ec.BrainpoolP256R1())), 'brainpool'),
    'DSA': (leaf(holder=dsa.generate_private_key(2048)), 'DSA'),
    'Ed448': (leaf(holder=ed448.Ed448PrivateKey.generate()), 'Ed448'),
    'X25519': (leaf(holder=x25519.X25519PrivateKey.generate()), 'X25519'),
    'no name': (issue('CN=alice', key(3), MIDDLE), 'not for FQDN'),
    'the middle itself': (MIDDLE, "authority's"), 'the root itself': (ROOT, "authority's"),
}
BAD_MIDDLES = {
    'expired': authority('CN=middle', key(2), ROOT, days=(-9, -1)),
    'not yet valid': authority('CN=middle', key(2), ROOT, days=(1, 9)),
    'no authority': authority('CN=middle', key(2), ROOT, basic=IS_END),
    'an end': issue('CN=middle', key(2), ROOT, names('middle.example.org')),
    'not for certificates': authority('CN=middle', key(2), ROOT, use=usage('digital_signature')),
    'for code': authority('CN=middle', key(2), ROOT, CODE),
    'unknown critical': authority('CN=middle', key(2), ROOT, UNKNOWN, critical=[type(UNKNOWN)]),
    'policy constraints': authority('CN=middle', key(2), ROOT, x509.PolicyConstraints(0, 0),
                                    critical=[x509.PolicyConstraints]),
    'other hosts': authority('CN=middle', key(2), ROOT, constrained(x509.DNSName('example.com'))),
    'not such hosts': authority('CN=middle', key(2), ROOT, constrained(
        x509.DNSName('example.org'), excluded=True)),
    'RSA 1024': authority('CN=middle', rsa_key(1024), ROOT),
    'P-224': authority('CN=middle', ec.generate_private_key(ec.SECP224R1()), ROOT),
    'secp256k1': authority('CN=middle', ec.generate_private_key(ec.SECP256K1()), ROOT),
    'DSA': authority('CN=middle', dsa.generate_private_key(2048), ROOT),
    'SHA2-224': authority('CN=middle', key(2), ROOT, hash_=hashes.SHA224()),
    'by another root of the same name': authority('CN=middle', key(2), authority('CN=root', key(97))),
    'by itself': authority('CN=middle', key(2)), 'by a stranger': authority('CN=middle', key(2), OTHER),
}
BAD_ROOTS = {
    'expired': authority('CN=root', key(1), days=(-9, -1)),
    'not yet valid': authority('CN=root', key(1), days=(1, 9)),
    'no authority': authority('CN=root', key(1), basic=IS_END),
    'path length': authority('CN=root', key(1), basic=PATH_0),
    'not for certificates': authority('CN=root', key(1), use=usage('digital_signature')),
    'same name, other key': authority('CN=root', key(96)),
    'same key, other name': authority('CN=toor', key(1)), 'other': OTHER, 'the leaf of another':
        issue('CN=alice', key(95), None, NAME),
    'other hosts': authority('CN=root', key(1), None, constrained(x509.DNSName('example.com')))}


@pytest.mark.parametrize('what', BAD_LEAVES)
def test_ends_that_are_not_believed(what: str) -> None:
    holder, words = BAD_LEAVES[what]
    refused(sent(holder, MIDDLE), words)
    refused(sent(holder, MIDDLE, ROOT, LEAF, holder))


@pytest.mark.parametrize('what', BAD_MIDDLES)
def test_authorities_in_the_middle_that_are_not_believed(what: str) -> None:
    middle = BAD_MIDDLES[what]
    refused(sent(leaf(by=middle), middle), 'chain')
    refused(sent(leaf(by=middle), middle, ROOT, middle), 'chain')


@pytest.mark.parametrize('what', BAD_ROOTS)
def test_roots_that_are_not_believed(what: str) -> None:
    trust = trusting(BAD_ROOTS[what])
    refused(sent(LEAF, MIDDLE), 'chain', trust)
    refused(sent(LEAF, MIDDLE, ROOT), 'chain', trust)


def test_a_chain_that_is_too_long_for_an_authority() -> None:
    for length in 0, 1:
        top = authority('CN=top', key(20), ROOT, basic=x509.BasicConstraints(True, length))
        chain = [top]
        for n in range(length): chain.append(authority(f'CN=sub {n}', key(30 + n), chain[-1]))
        assert believed(sent(leaf(by=chain[-1]), *chain))
        longer = authority('CN=one more', key(40), chain[-1])
        refused(sent(leaf(by=longer), *chain, longer), 'path length')


@pytest.mark.parametrize('days', [-20, 20])
def test_each_certificate_of_a_chain_is_as_old_as_the_clock_says(days: int) -> None:
    long = {'days': (-100, 100)}
    root, middle = authority('CN=root', key(1), **long), authority('CN=middle', key(2), ROOT, **long)
    made = leaf(**long)
    assert believed(sent(made, middle), trusting(root, days=days))
    refused(sent(leaf(), middle), 'expired|not valid before', trusting(root, days=days))
    refused(sent(made, MIDDLE), 'chain', trusting(root, days=days))
    refused(sent(made, middle), 'chain', trusting(ROOT, days=days))


def test_half_a_chain_is_none() -> None:
    refused(sent(LEAF), 'no chain')
    refused(sent(LEAF, ROOT), 'no chain')
    refused(sent(LEAF, MIDDLE), '', Authorities((), clock=lambda: TODAY))


def test_an_end_can_not_issue() -> None:
    for holder in (LEAF, leaf(usage('digital_signature', 'key_cert_sign')), leaf(IS_END)):
        forged = issue('CN=bob', key(50), holder, names('bob.example.org'))
        refused(sent(forged, holder, MIDDLE), 'chain', identity=Identity.from_text('bob.example.org'))


def test_too_many_certificates_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert believed(sent(LEAF, MIDDLE) + sent(OTHER) * (MAX_CERTIFICATES - 2))
    monkeypatch.setattr(certificate, 'parse_certificate', lambda data: pytest.fail('looked at'))
    refused(sent(LEAF, MIDDLE) + sent(OTHER) * (MAX_CERTIFICATES - 1), 'sends 11')


def test_a_ring_of_authorities_ends() -> None:
    one, other = authority('CN=one', key(60)), authority('CN=two', key(61))
    ring = [authority('CN=one', key(60), other), authority('CN=two', key(61), one)]
    refused(sent(leaf(by=ring[0]), *ring * 4), 'chain')


@pytest.mark.parametrize('old', ['sha1WithRSA', 'md5WithRSA', 'ecdsa-with-SHA1'])
def test_signatures_with_broken_hashes_are_not_believed(old: str) -> None:
    "The package makes none, so a good one is relabelled; the refusal comes before the arithmetic."
    label = {'sha1WithRSA': '2a864886f70d010105', 'md5WithRSA': '2a864886f70d010104',
             'ecdsa-with-SHA1': '2a8648ce3d0401'}[old]
    holder, now = (rsa_key(), '2a864886f70d01010b') if 'RSA' in old else (key(2), '2a8648ce3d040302')
    middle = authority('CN=middle', holder, ROOT)
    der = leaf(by=middle).der
    if 'RSA' in old:
        der = der.replace(bytes.fromhex('0609' + now), bytes.fromhex('0609' + label))
    else:  # one octet shorter, so an octet of the tag of its parameters
        der = der.replace(bytes.fromhex('300a0608' + now), bytes.fromhex('300a0608' + label + '00'))
    refused([CERT(X509, der), *sent(middle)], 'Forbidden signature algorithm|can not be read')


# Which name

OF_EVERY_TYPE = ['alice.example.org', '10.0.0.1', '2001:db8::1', 'me@example.org', 'C=CH, CN=deep']


@pytest.mark.parametrize('text', [*OF_EVERY_TYPE, 'C=CH, O=Example, CN=alice'])
def test_a_certificate_is_for_its_subject_and_its_alternative_names(text: str) -> None:
    made = issue('C=CH, O=Example, CN=alice', key(3), MIDDLE, names(*OF_EVERY_TYPE))
    assert believed(sent(made, MIDDLE), identity=Identity.from_text(text))


@pytest.mark.parametrize('text', [
    'alice', 'CN=alice', 'alice.example.org.', 'lice.example.org', 'example.org',
    'alice.example', 'x.alice.example.org', '*.example.org', 'alice.example.orgx', '@#' + b'10.0.0.1'.hex(),
    '10.0.0.2', '2001:db8::2', 'ME@example.org', 'e@example.org', 'example.org', '@#0a000001',
    'O=Example, C=CH, CN=alice', 'C=CH, O=Example', 'C=CH', '@#' + b'alice.example.org'.hex(),
    'C=CH, O=Exam ple, CN=alice', 'CN=10.0.0.1', 'CN=alice.example.org', 'gw.wild.example.org',
    'wild.example.org', 'C=CH, CN=deep, CN=er'])
def test_a_certificate_is_for_nobody_else(text: str) -> None:
    made = issue('C=CH, O=Example, CN=alice', key(3), MIDDLE, names(*OF_EVERY_TYPE, '*.wild.example.org'))
    refused(sent(made, MIDDLE), 'is not for', identity=Identity.from_text(text))


@pytest.mark.parametrize('held', [b'10.0.0.1', b'alice.example.org\0.evil.org', b'alice.example.org\0',
                                  b'\0', b'alice.example.org ', b'alice@example.org', b'*'])
def test_types_and_octets_of_names_are_not_confused(held: bytes) -> None:
    "Whatever stands in the certificate as a host name is that host name, and nothing else."
    made = issue('CN=x', key(3), MIDDLE, x509.SubjectAlternativeName([x509.DNSName(held.decode())]))
    for wanted in (*OF_EVERY_TYPE, 'alice.example.org', 'alice@example.org', '10.0.0.1'):
        refused(sent(made, MIDDLE), '', identity=Identity.from_text(wanted))


def test_a_network_is_no_address() -> None:
    network = x509.SubjectAlternativeName([x509.IPAddress(ip_network('10.0.0.0/31'))])
    made = issue('CN=x', key(3), MIDDLE, network)
    refused(sent(made, MIDDLE), '', identity=Identity.from_text('10.0.0.0'))
    refused(sent(made, MIDDLE), '', identity=Identity(IDType.IPV4_ADDR, b'\x0a\0\0\0\xff\xff\xff\xfe'))


@pytest.mark.parametrize('critical', [(), (x509.NameConstraints,)], ids=['', 'critical'])
@pytest.mark.parametrize('subject, san, allowed, forbidden', [
    ('CN=x', ['gw.example.org'], x509.DNSName('example.org'), x509.DNSName('example.com')),
    ('CN=x', ['me@example.org'], x509.RFC822Name('example.org'), x509.RFC822Name('example.com')),
    ('CN=x', ['10.1.2.3'], x509.IPAddress(ip_network('10.0.0.0/8')),
     x509.IPAddress(ip_network('192.0.2.0/24'))),
    ('O=Bank, CN=gw', [], x509.DirectoryName(dn_of('O=Bank')), x509.DirectoryName(dn_of('O=Sub'))),
    ('O=Bank, CN=gw', ['gw.example.org'], x509.DirectoryName(dn_of('O=Bank')),
     x509.DirectoryName(dn_of('O=Sub'))),
    ('CN=x', ['O=Bank, CN=gw'], x509.DirectoryName(dn_of('O=Bank')),
     x509.DirectoryName(dn_of('O=Sub'))),
    ('CN=x, E=me@example.org', [], x509.RFC822Name('example.org'), x509.RFC822Name('example.com'))],
    ids=['DNS', 'mail', 'IP', 'subject', 'subject beside DNS', 'DN in SAN', 'mail in subject'])
def test_an_authority_that_may_certify_some_names_only(
        critical: tuple, subject: str, san: list, allowed: x509.GeneralName,
        forbidden: x509.GeneralName) -> None:
    identity = Identity.from_text(san[0] if san and san[0] != 'gw.example.org' or subject == 'CN=x'
                                  else subject)
    for constraint in constrained(forbidden), constrained(allowed, excluded=True):
        middle = authority('CN=middle', key(2), ROOT, constraint, critical=critical)
        made = issue(subject, key(3), middle, *([names(*san)] if san else []))
        refused(sent(made, middle), 'chain|constrain', identity=identity)


@pytest.mark.parametrize('mail, good', [
    ('me@example.org', True), ('me@EXAMPLE.ORG', True), ('me@a.example.net', True),
    ('me@example.com', False), ('me@a.example.org', False), ('me@example.net', False)])
def test_limits_of_one_kind_do_not_stand_in_for_those_of_another(mail: str, good: bool) -> None:
    limits = x509.NameConstraints([
        x509.DirectoryName(dn_of('O=Bank')), x509.RFC822Name('example.org'),
        x509.RFC822Name('.example.net')], None)
    middle = authority('CN=middle', key(2), ROOT, limits)
    subject = f'O=Bank, E={mail}'
    made = issue(subject, key(3), middle)
    if good: believed(sent(made, middle), identity=Identity.from_text(subject))
    else: refused(sent(made, middle), 'name constraints', identity=Identity.from_text(subject))
