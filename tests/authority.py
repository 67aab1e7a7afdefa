"""A small certification authority that signs anything, for the tests of certificates."""
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from ike_lit.wire.auth import Identity
from ike_lit.wire.certificate import CERT, Authorities
from ike_lit.wire.const import CertEncoding, IDType

TODAY = datetime(2026, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NO_USE = dict.fromkeys((
    'digital_signature', 'content_commitment', 'key_encipherment', 'data_encipherment',
    'key_agreement', 'key_cert_sign', 'crl_sign', 'encipher_only', 'decipher_only'), False)


@cache
def key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


@cache
def rsa_key(bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


def ed_key(number: int = 1) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number] * 32))


def dn_of(text: str) -> x509.Name:
    return x509.Name.from_bytes(Identity.from_text(text).data)


def usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**NO_USE | dict.fromkeys(allowed, True))


def names(*texts: str) -> x509.SubjectAlternativeName:
    "The alternative names that stand for identities, as people write them."
    return x509.SubjectAlternativeName(list(map(general_name, texts)))


def general_name(text: str) -> x509.GeneralName:
    if text.startswith('*'): return x509.DNSName(text)
    identity = Identity.from_text(text)
    match identity.type:
        case IDType.FQDN: return x509.DNSName(text)
        case IDType.RFC822_ADDR: return x509.RFC822Name(text)
        case IDType.DER_ASN1_DN: return x509.DirectoryName(dn_of(text))
    return x509.IPAddress(ip_address(text))


IS_CA, IS_END = x509.BasicConstraints(True, None), x509.BasicConstraints(False, None)
CA_USE = usage('key_cert_sign', 'crl_sign')


@dataclass(frozen=True)
class Holder:
    "A certificate with its private key."
    key: object
    certificate: x509.Certificate

    @property
    def der(self) -> bytes: return self.certificate.public_bytes(Encoding.DER)

    @property
    def payload(self) -> CERT: return CERT(CertEncoding.X509_SIGNATURE, self.der)


def issue(subject: str, holder_key: object, issuer: Holder | None,
          *extensions: x509.ExtensionType, critical: Iterable[type] = (),
          days: tuple[int, int] = (-10, 10), hash_: hashes.HashAlgorithm | None = None,
          serial: int = 1000, by: object = None) -> Holder:
    """Issue a certificate; without an issuer it is signed by itself.

    All extensions but those of basic constraints are as critical as `critical` says."""
    signer = by or (issuer.key if issuer else holder_key)
    named = issuer.certificate.subject if issuer else dn_of(subject)
    made = x509.CertificateBuilder().subject_name(dn_of(subject)).issuer_name(named)
    made = made.public_key(holder_key.public_key()).serial_number(serial)
    made = made.not_valid_before(TODAY + days[0] * DAY).not_valid_after(TODAY + days[1] * DAY)
    authority = signer.public_key()
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False)
    for one in extensions:
        made = made.add_extension(
            one, isinstance(one, (x509.BasicConstraints, *critical)))
    edwards = isinstance(signer, Ed25519PrivateKey)
    return Holder(holder_key, made.sign(signer, None if edwards else hash_ or hashes.SHA256()))


def authority(name: str, holder_key: object, issuer: Holder | None = None,
              *extensions: x509.ExtensionType, basic: x509.BasicConstraints = IS_CA,
              use: x509.KeyUsage | None = CA_USE, **how: object) -> Holder:
    "Issue a certificate for an authority."
    identifier = x509.SubjectKeyIdentifier.from_public_key(holder_key.public_key())
    given = [basic, identifier, *([use] if use else []), *extensions]
    return issue(name, holder_key, issuer, *given, **how)


def revocations(issuer: Holder, *serials: int, days: tuple[int, int] = (-1, 1),
                by: object = None, extension: x509.ExtensionType | None = None,
                ) -> x509.CertificateRevocationList:
    "Issue a list of revoked certificates."
    made = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    made = made.last_update(TODAY + days[0] * DAY).next_update(TODAY + days[1] * DAY)
    for serial in serials:
        made = made.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(TODAY - DAY)
            .build())
    if extension: made = made.add_extension(extension, critical=True)
    signer = by or issuer.key
    return made.sign(signer, None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256())


def trusting(*roots: Holder, crls: tuple = (), days: float = 0) -> Authorities:
    "Trust in authorities, on a day."
    return Authorities(tuple(r.certificate for r in roots), crls, lambda: TODAY + days * DAY)
