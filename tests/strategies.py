"""Hypothesis strategies that build valid messages of every kind, in our own types, and that spoil them.

`PAYLOADS` has every payload, `MESSAGES` every message of the four exchanges: what is sealed later
is made of real values (public values of a group, signatures, certificates), as far as they are cheap.
"""
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from canonical import KEYS, configs, private_key
from hypothesis import strategies as st
from ike_lit.cli.credential import load_chain
from ike_lit.wire.auth import AUTH, SCHEMES, IDi, IDr, Identity, choose_scheme, hash_algorithms, sign
from ike_lit.wire.certificate import CERT, CERTREQ, spki
from ike_lit.wire.configuration import CP, VALUE_SIZES, Attribute
from ike_lit.wire.const import (
    AuthenticationType, CertEncoding, CfgAttribute, CfgType, ExchangeType, Group, HashAlgorithm, IDType,
    MessageType, ProtocolID, Registry, TransformType, Type)
from ike_lit.wire.header import HEADER, Header
from ike_lit.wire.ke import GROUPS, KE, KeyExchange
from ike_lit.wire.nat import Endpoint, nat_detection
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Delete, Encrypted, Notify, Opaque, Packet, Payload, Vendor, pack_chain
from ike_lit.wire.proposal import (
    ALGORITHMS, NO_INTEG, SA, SPI_SIZES, Proposal, Transform, key_size, transform_for, without_dh)
from ike_lit.wire.sk import SK
from ike_lit.wire.ts import TSi, TSr, TrafficSelector
from spoil import EDITS, Edit, spoiled

# Numbers and octets

def octets(least: int = 0, most: int = 40) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=least, max_size=most)


def code(registry: type[Registry], bits: int, least: int = 0) -> st.SearchStrategy[Registry]:
    "A value of a registry: one with a name as often as any number."
    named = [value for value in registry if value >= least]
    return st.sampled_from(named) | st.integers(least, (1 << bits) - 1).map(registry)


spis = st.binary(min_size=8, max_size=8).filter(any)


# Payloads

def of_numbers(kind: int, number: int, key_length: int) -> Transform:
    return transform_for(TransformType(kind), number, key_length)


transforms = st.sampled_from([a.transform for a in ALGORITHMS.values()] + [NO_INTEG]) | st.builds(
    of_numbers, st.integers(0, 255), st.integers(0, 65535), st.just(0) | st.integers(1, 65535))


@st.composite
def proposals(draw: st.DrawFn, most: int = 3) -> tuple[Proposal, ...]:
    first = draw(st.integers(0, 255 - most))
    made = []
    for n in range(draw(st.integers(1, most))):
        protocol = draw(code(ProtocolID, 8))
        sizes = SPI_SIZES.get(protocol)
        spi = draw(st.sampled_from(sizes).flatmap(lambda n: octets(n, n)) if sizes else octets(0, 255))
        chosen = draw(st.lists(transforms, max_size=8))
        made.append(Proposal(first + n, protocol, spi, tuple(chosen)))
    return tuple(made)


FAST = [g for g in GROUPS if 'MODP' not in g.name]  # whose public values cost nothing


def public_value(group: Group, seed: bytes) -> KE:
    "A value that a peer can calculate with."
    return KE(group, KeyExchange(group, lambda size: (seed * size)[:size]).public)


real_kes = st.builds(public_value, st.sampled_from(FAST), octets(1, 8))
kes = st.builds(KE, code(Group, 16), octets()) | real_kes

NAMES = ('192.0.2.1', '2001:db8::1', 'gw.example.org', 'user@example.org', 'C=CH, O=Example, CN=gw', '@#00ff')
identities = st.builds(Identity, code(IDType, 8), octets()) | st.sampled_from(
    [Identity.from_text(name) for name in NAMES])

CERTIFICATES = load_chain(KEYS / 'initiator.crt', private_key(KEYS / 'initiator.key'))
SHOWN = [CERT(CertEncoding.X509_SIGNATURE, data) for data in CERTIFICATES] + [
    CERT(CertEncoding.RAW_PUBLIC_KEY, spki(private_key(KEYS / 'responder.key').public_key()))]
certs = st.builds(CERT, code(CertEncoding, 8), octets()) | st.sampled_from(SHOWN)
certreqs = st.builds(CERTREQ, code(CertEncoding, 8), octets()) | st.builds(
    CERTREQ, st.just(CertEncoding.X509_SIGNATURE), st.lists(octets(20, 20), max_size=3).map(b''.join))

SIGNED = sign(private_key(KEYS / 'initiator.key'), b'octets', choose_scheme(
    private_key(KEYS / 'initiator.key').public_key(), (HashAlgorithm.SHA2_256,)))
auths = st.one_of(
    st.builds(AUTH, code(AuthenticationType, 8), octets()), st.just(SIGNED),
    st.builds(lambda identifier, signature: AUTH(
        AuthenticationType.DIGITAL_SIGNATURE, bytes([len(identifier)]) + identifier + signature),
        st.sampled_from(list(SCHEMES)), octets()))

nonces = st.builds(Nonce, octets(16, 256))


def notifications(*types: MessageType) -> st.SearchStrategy[Notify]:
    "Notifications of these types, else of any; who names no SPI names no protocol (RFC 7296 §3.10)."
    kind = st.sampled_from(types) if types else code(MessageType, 16)
    about_an_sa = st.builds(Notify, kind, octets(), code(ProtocolID, 8), octets(1, 16))
    return st.builds(Notify, kind, octets()) | about_an_sa


deletes = st.builds(Delete, st.just(ProtocolID.IKE)) | st.builds(
    Delete, code(ProtocolID, 8).filter(lambda p: p != ProtocolID.IKE),
    st.lists(octets(4, 4), max_size=5).map(tuple))
vendors = st.builds(Vendor, octets())


@st.composite
def selectors(draw: st.DrawFn) -> TrafficSelector:
    make, bits = draw(st.sampled_from([(IPv4Address, 32), (IPv6Address, 128)]))
    ends = sorted(draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=2, max_size=2)))
    ports = draw(st.sampled_from([(0, 65535), (65535, 0)]) | st.lists(
        st.integers(0, 65535), min_size=2, max_size=2).map(sorted).map(tuple))
    return TrafficSelector(make(ends[0]), make(ends[1]), draw(st.integers(0, 255)), *ports)


several = st.lists(selectors(), min_size=1, max_size=4).map(tuple)


@st.composite
def attributes(draw: st.DrawFn) -> Attribute:
    "Attributes whose value has a size that its type can have (RFC 7296 §3.15.1)."
    kind = draw(code(CfgAttribute, 15))
    full = VALUE_SIZES.get(kind)
    if full is None: size = 2 * draw(st.integers(0, 10))
    else: size = full if kind == CfgAttribute.INTERNAL_IP6_SUBNET else draw(st.sampled_from([0, full]))
    value = draw(octets(size, size))
    if full == 17 and value: value = value[:16] + bytes([draw(st.integers(0, 128))])
    return Attribute(kind, value)


cps = st.builds(CP, code(CfgType, 8), st.lists(attributes(), max_size=5).map(tuple))
UNREAD = [Type(n) for n in (*range(1, 33), Type.EAP, 49, 50, 51, 52, *range(54, 256))]
opaques = st.builds(Opaque, st.sampled_from(UNREAD), octets())

PAYLOADS: dict[str, st.SearchStrategy[Payload]] = {
    'SA': st.builds(SA, proposals()), 'KE': kes, 'IDi': st.builds(IDi.of, identities),
    'IDr': st.builds(IDr.of, identities), 'CERT': certs, 'CERTREQ': certreqs, 'AUTH': auths,
    'Nonce': nonces, 'Notify': notifications(), 'Delete': deletes, 'Vendor': vendors,
    'TSi': st.builds(TSi, several), 'TSr': st.builds(TSr, several), 'CP': cps, 'Opaque': opaques}
payloads = st.one_of(*PAYLOADS.values())
sealed_payloads = st.builds(Encrypted, st.sampled_from([Type.SK, Type.SKF]), code(Type, 8), octets())


# Messages

@st.composite
def messages(draw: st.DrawFn, exchange: ExchangeType | None = None,
             inside: st.SearchStrategy[tuple[Payload, ...]] | None = None, response: bool | None = None,
             sealed: bool = True) -> Packet:
    "A message in the clear, as it is when it was received: with its header and its octets."
    chain = draw(inside if inside is not None else st.lists(payloads, max_size=6).map(tuple))
    if sealed and inside is None: chain += tuple(draw(st.lists(sealed_payloads, max_size=1)))
    kind = exchange if exchange is not None else draw(code(ExchangeType, 8))
    first, octets_ = pack_chain(chain)
    header = Header(draw(spis), draw(octets(8, 8)), first, kind,
                    draw(st.booleans()) if response is None else response, draw(st.booleans()),
                    draw(st.integers(0, 0xffffffff)), HEADER.size + len(octets_))
    return Packet(kind, chain, header, bytes(header) + octets_)


def chain(*parts: st.SearchStrategy) -> st.SearchStrategy[tuple[Payload, ...]]:
    "Payloads in this order; a part is one, or several."
    def flat(found: tuple | list) -> tuple[Payload, ...]:
        return tuple(p for part in found for p in (flat(part) if isinstance(part, tuple | list) else (part,)))
    return st.tuples(*parts).map(flat)


def perhaps(part: st.SearchStrategy) -> st.SearchStrategy[list]: return st.lists(part, max_size=1)


HOME, _ = configs()
N = MessageType
OFFER_IKE, OFFER_ESP = HOME.ike, tuple(replace(p, spi=b'\0\0\1\1') for p in without_dh(HOME.esp))
ike_offer = st.sampled_from([SA(OFFER_IKE)]) | PAYLOADS['SA']
esp_offer = st.sampled_from([SA(OFFER_ESP)]) | PAYLOADS['SA']
ike_successor = octets(8, 8).map(lambda spi: SA(tuple(replace(p, spi=spi) for p in OFFER_IKE)))
nat = st.builds(nat_detection, spis, octets(8, 8), st.just(Endpoint('192.0.2.1', 500)),
                st.just(Endpoint('2001:db8::2', 4500)))
extras = chain(perhaps(nat), perhaps(st.just(hash_algorithms())), perhaps(certreqs), perhaps(vendors),
               perhaps(notifications()))
traffic = chain(PAYLOADS['TSi'], PAYLOADS['TSr'], perhaps(notifications(N.USE_TRANSPORT_MODE)))
proof = chain(perhaps(certs), perhaps(certreqs))
init = partial(messages, ExchangeType.IKE_SA_INIT)
auth = partial(messages, ExchangeType.IKE_AUTH)
create = partial(messages, ExchangeType.CREATE_CHILD_SA)
inform = partial(messages, ExchangeType.INFORMATIONAL)

MESSAGES: dict[str, st.SearchStrategy[Packet]] = {
    'IKE_SA_INIT request': init(chain(
        perhaps(notifications(N.COOKIE)), ike_offer, real_kes, nonces, extras), False),
    'IKE_SA_INIT response': init(chain(ike_offer, real_kes, nonces, extras), True),
    'IKE_SA_INIT refusal': init(chain(notifications(
        N.COOKIE, N.INVALID_KE_PAYLOAD, N.NO_PROPOSAL_CHOSEN, N.INVALID_MAJOR_VERSION)), True),
    'IKE_AUTH request': auth(chain(
        PAYLOADS['IDi'], proof, perhaps(PAYLOADS['IDr']), auths, perhaps(cps), esp_offer, traffic), False),
    'IKE_AUTH response': auth(chain(PAYLOADS['IDr'], proof, auths, perhaps(cps), esp_offer, traffic), True),
    'IKE_AUTH without a Child SA': auth(chain(PAYLOADS['IDi'], proof, auths)),
    'IKE_AUTH refusal': auth(chain(notifications(N.AUTHENTICATION_FAILED)), True),
    'IKE_AUTH with EAP': auth(chain(PAYLOADS['IDr'], st.builds(Opaque, st.just(Type.EAP), octets())), True),
    'CREATE_CHILD_SA': create(chain(esp_offer, nonces, perhaps(real_kes), traffic)),
    'CREATE_CHILD_SA to rekey': create(chain(
        notifications(N.REKEY_SA), esp_offer, nonces, perhaps(real_kes), traffic)),
    'CREATE_CHILD_SA of an IKE SA': create(chain(ike_successor, nonces, real_kes)),
    'CREATE_CHILD_SA refusal': create(chain(notifications(
        N.TEMPORARY_FAILURE, N.NO_ADDITIONAL_SAS, N.TS_UNACCEPTABLE, N.CHILD_SA_NOT_FOUND)), True),
    'INFORMATIONAL': inform(st.just(())), 'INFORMATIONAL with Delete': inform(chain(deletes)),
    'INFORMATIONAL with anything': inform(st.lists(payloads, max_size=5).map(tuple)),
    'anything': messages()}
to_be_sealed = st.one_of(*(m for name, m in MESSAGES.items() if 'INIT' not in name and name != 'anything'))


# What seals them

CIPHERS = [a.transform for a in ALGORITHMS.values() if a.transform.type == TransformType.ENCR]
CHECKSUMS = [a.transform for a in ALGORITHMS.values() if a.transform.type == TransformType.INTEG]


@st.composite
def locks(draw: st.DrawFn) -> SK:
    "Real keys for one direction of an IKE SA, of any cipher and any checksum."
    encr = draw(st.sampled_from(CIPHERS))
    integ = NO_INTEG if encr.aead else draw(st.sampled_from(CHECKSUMS))
    keys = draw(octets(64, 64)) * 2
    return SK(encr, integ, keys[:key_size(encr)], keys[64:64 + key_size(integ)])


# Spoiled messages

def changes(where: int, most: int) -> st.SearchStrategy[list[Edit]]:
    "Up to so many edits, within so many octets from the start."
    edit = st.tuples(st.sampled_from(EDITS), st.integers(0, where), st.integers(0, 255), st.integers(1, 40))
    return st.lists(edit, min_size=1, max_size=most)


edits, near_the_start = changes(2000, 4), changes(12, 2)


def mutations(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(spoiled, data, edits, st.booleans())
