"""Chapters 00, 02 and 04: every number that a registry has is told by its name, one that it has not by
itself, and never by the name of something else. A name is no promise: what has no class of ours is not
understood.
"""
import pytest
from ike_lit.cli.diagnosis import compare_proposals
from ike_lit.wire.const import (
    AuthenticationType, CertEncoding, CfgAttribute, Encryption, Esn, ExchangeType, Group, HashAlgorithm,
    IDType, Integrity, MessageType, Prf, ProtocolID, Registry, TSType, TransformType, Type,
    UnsupportedCriticalPayload)
from ike_lit.wire.header import Reader
from ike_lit.wire.payload import GENERIC, UNDERSTOOD, Encrypted, Opaque, get_by_type, parse_chain
from ike_lit.wire.proposal import (
    ALGORITHMS, NOT_UNDERSTOOD, SA, Proposal, Transform, parse_proposals, transform_for)

# IANA's ikev2-parameters, as libreswan (2026-08), strongSwan (2026-05) and Wireshark have it, and 16447
# of draft-ietf-ipsecme-ikev2-downgrade-prevention-08
NUMBERS: dict[type[Registry], set[int]] = {
    ExchangeType: {*range(34, 42), 43, 44}, Type: {0, *range(33, 54)}, ProtocolID: set(range(6)),
    TransformType: set(range(1, 15)), Encryption: {*range(1, 10), *range(11, 17), *range(18, 22),
                                                  *range(23, 36)},
    Prf: set(range(1, 10)), Integrity: set(range(15)), Esn: {0, 1, 2},
    Group: {0, 1, 2, 5, *range(14, 38)}, IDType: {1, 2, 3, 5, *range(9, 14)},
    AuthenticationType: {1, 2, 3, *range(9, 15)}, HashAlgorithm: set(range(1, 8)),
    CertEncoding: {1, 2, 3, 4, *range(6, 16)}, TSType: {7, 8, 9, 10},
    CfgAttribute: {1, 2, 3, 4, 6, 7, 8, 10, *range(12, 30)},
    MessageType: {1, 4, 5, 7, 9, 11, 14, 17, 24, *range(34, 50), *range(16384, 16448)}}


@pytest.mark.parametrize('registry', NUMBERS, ids=lambda registry: registry.__name__)
def test_every_number_of_the_registry_has_its_name(registry: type[Registry]) -> None:
    for number in NUMBERS[registry]: assert registry(number).known, number
    for number in {*range(300), *range(16384, 16700), 65535} - NUMBERS[registry]:
        assert not registry(number).known and str(registry(number)) == str(number)


@pytest.mark.parametrize('number', range(256))
def test_a_critical_payload_that_no_class_of_ours_reads_is_refused(number: int) -> None:
    "RFC 7296 §2.5, §3.2: a name for a number is not yet an understanding of it."
    kind = Type(number)
    if not number: return  # the end of the chain
    chain = GENERIC.pack(0, 1, GENERIC.size)
    ours = get_by_type(kind) or kind in (Type.SK, Type.SKF, Type.EAP)
    assert bool(ours) == (kind in UNDERSTOOD)
    if ours: return
    with pytest.raises(UnsupportedCriticalPayload) as caught: parse_chain(kind, Reader(chain))
    assert caught.value.data == bytes([number])
    skipped, = parse_chain(kind, Reader(GENERIC.pack(0, 0, GENERIC.size)))
    assert isinstance(skipped, Opaque) and not isinstance(skipped, Encrypted)


@pytest.mark.parametrize('kind', range(256))
@pytest.mark.parametrize('number', [0, 1, 5, 12, 31, 36, 999])
def test_two_transforms_never_have_the_same_name(kind: int, number: int) -> None:
    "A number of a type that we do not know, or of another type, is not told as one that we know."
    this = transform_for(TransformType(kind), number, 0)
    others = [transform_for(TransformType(k), n, 0) for k in (*range(1, 16), 200) for n in (*range(40), 999)]
    for other in others:
        if (int(other.type), int(other.id)) == (kind, number): continue
        assert other.name != this.name
        one, two = (Proposal(1, ProtocolID.IKE, b'', (t,)) for t in (this, other))
        assert one.words != two.words or one.words == ''  # no integrity, no ESN: nothing to tell


def test_an_additional_key_exchange_is_written_as_strongswan_writes_it() -> None:
    x25519 = ALGORITHMS['x25519'].transform
    suite = Proposal(1, ProtocolID.IKE, b'', (
        x25519, *(Transform(TransformType(5 + n), Group(35 + n % 3)) for n in range(1, 8))))
    assert suite.words == ('x25519-ke1_mlkem768-ke2_mlkem1024-ke3_mlkem512-ke4_mlkem768-ke5_mlkem1024-'
                           'ke6_mlkem512-ke7_mlkem768')
    assert str(suite).startswith('IKE:CURVE_25519/ADDKE1_ML_KEM_768/ADDKE2_ML_KEM_1024/')
    assert SA.parse(Reader(bytes(SA((suite,))))) == SA((suite,))
    none = Proposal(1, ProtocolID.IKE, b'', (Transform(TransformType.ADDKE1, Group.NONE),))
    assert none.words == 'ke1_none' and str(none) == 'IKE:ADDKE1_NONE'


def test_a_transform_with_an_attribute_that_is_not_understood_has_no_key_length() -> None:
    odd = Transform(TransformType.ENCR, Encryption.AES_CBC, NOT_UNDERSTOOD)
    assert odd.name == 'AES_CBC_?'


def test_what_a_peer_insists_on_and_we_lack_is_said_in_words() -> None:
    "NO_PROPOSAL_CHOSEN, because the peer wants a second key exchange (RFC 9370)."
    ours = parse_proposals('aes256gcm16-prfsha256-x25519', ProtocolID.IKE)
    theirs = Proposal(1, ProtocolID.IKE, b'', (
        *ours[0].transforms, Transform(TransformType.ADDKE1, Group.ML_KEM_1024)))
    lines = list(compare_proposals((theirs,), ours))
    assert ('the peer insists on an additional key exchange, ML_KEM_1024 (RFC 9370); we have none'
            in lines[-1])
    assert not any('single proposal' in line for line in lines)
