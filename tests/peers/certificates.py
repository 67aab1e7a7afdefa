"""Keys, certificates of every kind, good and bad, and lists of revoked ones, as files."""
from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat)
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KINDS = {'rsa': lambda: rsa.generate_private_key(65537, 2048),
         'p256': lambda: ec.generate_private_key(ec.SECP256R1()),
         'p384': lambda: ec.generate_private_key(ec.SECP384R1()),
         'p521': lambda: ec.generate_private_key(ec.SECP521R1()),
         'ed25519': ed25519.Ed25519PrivateKey.generate}
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
CODE_SIGNING = x509.ExtendedKeyUsage([x509.ObjectIdentifier('1.3.6.1.5.5.7.3.3')])


def only_for(domain: str) -> x509.NameConstraints:
    "What an authority may certify: names in this domain."
    return x509.NameConstraints([x509.DNSName(domain)], None)


def name(common: str, kind: str = 'UTF8String') -> x509.Name:
    "C=CH, O=Example, CN=..., the last two as strings of this ASN.1 type."
    rest = ((NameOID.ORGANIZATION_NAME, 'Example'), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, 'CH'), *(
        x509.NameAttribute(oid, text, _type=_ASN1Type[kind]) for oid, text in rest)])


def general(text: str) -> x509.GeneralName:
    "A subjectAltName: an address, user@example.org or gw.example.org."
    try: return x509.IPAddress(ip_address(text))
    except ValueError: return x509.RFC822Name(text) if '@' in text else x509.DNSName(text)


def usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


class Office:
    "An office that issues what it is asked for, in a folder: NAME.key, NAME.pub, NAME.crt."

    def __init__(self, folder: Path):
        self.folder = folder
        self.keys: dict[str, Key] = {}
        self.certificates: dict[str, x509.Certificate] = {}

    def write(self, file: str, content: bytes, mode: int = 0o600) -> str:
        path = self.folder / file
        path.touch(mode=mode)
        path.write_bytes(content)
        return str(path)

    def key(self, who: str, kind: str, passphrase: bytes = b'') -> Key:
        key = self.keys[who] = KINDS[kind]()
        lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        self.write(f'{who}.key', key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
        self.write(f'{who}.pub', key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return key

    def authority(self, who: str, kind: str = 'p256', issuer: str = '',
                  *more: x509.ExtensionType, **how: Any) -> None:
        "A key and a certificate that may issue others, by itself unless there is an issuer."
        self.key(who, kind)
        self.certificate(who, who, issuer or who, ca=True, more=more, **how)

    def certificate(self, who: str, key: str, issuer: str, names: Iterable[str] = (), *,
                    ca: bool = False, since: datetime = NOW - DAY, until: datetime = NOW + DAY,
                    more: Iterable[x509.ExtensionType] = (), string: str = 'UTF8String',
                    common: str = '', purpose: bool = True,
                    critical: bool = True) -> x509.Certificate:
        """A certificate for the key of this name; the issuer signs it, maybe itself.

        It has a key usage unless `purpose` says no, and what is usually critical is, or is not."""
        subject, public = name(common or who, string), self.keys[key].public_key()
        above = self.certificates[issuer].subject if issuer != who else subject
        signer = self.keys[key if issuer == who else issuer]
        builder = x509.CertificateBuilder(
            above, subject, public, x509.random_serial_number(), since, until)
        above_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        extensions = [(x509.BasicConstraints(ca, None), critical),
                      *[(usage(ca), critical)] * purpose, (above_key, False),
                      (x509.SubjectKeyIdentifier.from_public_key(public), False),
                      *((extension, True) for extension in more)]
        if names: extensions.append((x509.SubjectAlternativeName(map(general, names)), False))
        for extension, must in extensions: builder = builder.add_extension(extension, must)
        made = self.certificates[who] = builder.sign(signer, algorithm(signer))
        self.write(f'{who}.crt', made.public_bytes(Encoding.PEM))
        return made

    def bundle(self, file: str, *who: str) -> None:
        "Several certificates in a file, as --cert wants them."
        self.write(file, b''.join((self.folder / f'{one}.crt').read_bytes() for one in who))

    def revoked(self, file: str, issuer: str, *who: str) -> None:
        "The issuer's list of revoked certificates."
        builder = x509.CertificateRevocationListBuilder(
            self.certificates[issuer].subject, NOW - DAY, NOW + DAY)
        for one in who:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(
                self.certificates[one].serial_number, NOW - DAY).build())
        key = self.keys[issuer]
        self.write(file, builder.sign(key, algorithm(key)).public_bytes(Encoding.PEM))


def algorithm(key: Key) -> hashes.HashAlgorithm | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
