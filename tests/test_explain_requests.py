"""What nobody has answered is examined by itself (RFC 7296 §2.2, §3.1, §3.3): each fault of a request has
a row here, in which it is odd, and nothing else is; without the fault nothing is odd at all.
"""
from collections.abc import Callable
from dataclasses import replace

import pytest
from explaining import GCM, LIVE, every, flipped, plain, record, remarks, seen, story
from ike_lit.capture.keylog import KeyTable
from ike_lit.capture.pcap import read_capture
from ike_lit.capture.show import analyse
from ike_lit.wire.auth import IDi, Identity
from ike_lit.wire.const import Encryption, ExchangeType, Group, MessageType, ProtocolID, TransformType
from ike_lit.wire.ke import KE
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Notify, Payload, Vendor
from ike_lit.wire.proposal import NO_ESN, NO_GROUP, NO_INTEG, SA, Proposal, Transform, parse_proposals
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

T = TransformType
CBC, = parse_proposals('aes128-sha256-x25519', ProtocolID.IKE)
AEAD, = parse_proposals(GCM, ProtocolID.IKE)
ESP = Proposal(1, ProtocolID.ESP, b'spi4', (*parse_proposals('aes128gcm16', ProtocolID.ESP)[0].transforms,))
PUBLIC, NONCE = KE(Group.CURVE_25519, b'\x09' * 32), Nonce(b'n' * 32)
TRAFFIC = TSi((TrafficSelector.from_text('10.1.0.0/24'),)), TSr((TrafficSelector.from_text('10.2.0.0/24'),))
ML_KEM = Transform(T.ADDKE1, Group.ML_KEM_768)
INIT = ExchangeType.IKE_SA_INIT


def without(p: Proposal, kind: T) -> Proposal:
    return replace(p, transforms=tuple(t for t in p.transforms if t.type != kind))


def beside(p: Proposal, *more: Transform) -> Proposal: return replace(p, transforms=(*p.transforms, *more))


def encr(number: int, bits: int = 0) -> Proposal:
    return beside(without(CBC, T.ENCR), Transform(T.ENCR, Encryption(number), bits))


def offer(*proposals: Proposal, ke: KE = PUBLIC, **more: object) -> bytes:
    return plain(SA(proposals), ke, NONCE, **more)


GOOD = {
    'plain': offer(CBC), 'AEAD': offer(AEAD), 'both': offer(CBC, replace(AEAD, number=2)),
    'AEAD with integrity NONE': offer(beside(AEAD, NO_INTEG)), 'AEAD of others': offer(
        beside(without(AEAD, T.ENCR), Transform(T.ENCR, Encryption.CAMELLIA_CCM_16, 256))),
    'three sizes': offer(beside(CBC, *(Transform(T.ENCR, Encryption.AES_CBC, n) for n in (192, 256)))),
    'a cipher of tomorrow': offer(encr(999, 77)), 'Blowfish': offer(encr(7, 448)),
    'a second key exchange': plain(SA((beside(CBC, ML_KEM),)), PUBLIC, NONCE, Notify(
        MessageType.INTERMEDIATE_EXCHANGE_SUPPORTED)),
    'a key exchange of tomorrow': offer(beside(CBC, Transform(T.DH, Group(4711))), ke=KE(Group(4711), b'x')),
    'a protocol of tomorrow': offer(CBC, Proposal(2, ProtocolID(77), b'', ())),
    'a resumed session': plain(NONCE, exchange=ExchangeType.IKE_SESSION_RESUME)}


@pytest.mark.parametrize('what', GOOD)
def test_a_request_without_a_fault_is_not_odd(what: str) -> None:
    found = [text for text in every(story(seen(GOOD[what])), 'odd', 'wrong') if 'not protected' not in text]
    assert [text for text in found if 'a proposal for 77' not in text] == []


BAD: dict[str, tuple[bytes, str]] = {
    **{f'no {kind}': (offer(without(CBC, kind), ke=PUBLIC), f'proposal 1: no {kind} (RFC 7296 §3.3.3)')
       for kind in (T.ENCR, T.PRF, T.INTEG)},
    'no group': (plain(SA((without(CBC, T.DH),)), PUBLIC, NONCE), 'proposal 1: no DH (RFC 7296 §3.3.3)'),
    'no key length': (offer(encr(12)), 'AES_CBC without a key length (RFC 7296 §3.3.5)'),
    'no such key length': (offer(encr(12, 129)), 'AES_CBC_129: no such key length (RFC 7296 §3.3.5)'),
    'a key length of a cipher of one size': (offer(encr(28, 256)), 'CHACHA20_POLY1305 has no key length'),
    'a key length of a PRF': (offer(beside(without(CBC, T.PRF), Transform(
        T.PRF, CBC.of_type(T.PRF)[0].id, 128))), 'PRF_HMAC_SHA2_256 has no key length (RFC 7296 §3.3.5)'),
    'AEAD beside integrity': (offer(beside(AEAD, *CBC.of_type(T.INTEG))), 'beside a cipher that has its own'),
    'NULL': (offer(encr(11)), 'NULL as the cipher of an IKE SA (RFC 7296 §5)'),
    'no integrity': (offer(beside(without(CBC, T.INTEG), NO_INTEG)), 'an IKE SA without integrity'),
    'no key exchange': (offer(beside(CBC, NO_GROUP)), 'an IKE SA without a key exchange (RFC 7296 §2.18)'),
    'numbered from 2': (offer(replace(CBC, number=2)), 'the first proposal has number 2 (RFC 7296 §3.3.1)'),
    'numbered from 0': (offer(replace(CBC, number=0)), 'the first proposal has number 0'),
    'another group in KE': (offer(CBC, ke=KE(Group.ECP_256, bytes(64))), 'KE is of ECP_256, which'),
    'KE too short': (offer(CBC, ke=KE(Group.CURVE_25519, bytes(31))), 'KE of 31 octets; CURVE_25519 has 32'),
    'an SPI in IKE_SA_INIT': (offer(replace(CBC, spi=b's' * 8)), 'an SPI of 8 octets in IKE_SA_INIT'),
    'an SPI of zero': (offer(replace(CBC, spi=bytes(8))), 'an SPI of zero (RFC 7296 §3.3.1)'),
    'ESP in IKE_SA_INIT': (offer(CBC, replace(ESP, number=2)), 'a proposal for ESP in IKE_SA_INIT'),
    'a second key exchange, and no place for it': (
        offer(beside(CBC, ML_KEM)), 'an additional key exchange without INTERMEDIATE_EXCHANGE_SUPPORTED'),
    'no KE': (plain(SA((CBC,)), NONCE), 'IKE_SA_INIT with no KE payload (RFC 7296 §1.2)'),
    'no nonce': (plain(SA((CBC,)), PUBLIC), 'IKE_SA_INIT with no Nonce payload'),
    'two nonces': (plain(SA((CBC,)), PUBLIC, NONCE, NONCE), 'IKE_SA_INIT with 2 Nonce payloads'),
    'Message ID': (offer(CBC, message_id=1), 'Message ID 1 in IKE_SA_INIT (RFC 7296 §2.2)'),
    'Message ID of IKE_AUTH': (plain(exchange=ExchangeType.IKE_AUTH, spi_r=b'r' * 8),
                               'Message ID 0 in IKE_AUTH'),
    'flag I': (offer(CBC, initiator=False), 'the flag I of an IKE_SA_INIT request is 0 (RFC 7296 §3.1)'),
    'flag I of IKE_AUTH': (plain(exchange=ExchangeType.IKE_AUTH, spi_r=b'r' * 8, initiator=False,
                                 message_id=1), 'the flag I of an IKE_AUTH request is 0'),
    'flag I of a response': (plain(exchange=ExchangeType.IKE_AUTH, spi_r=b'r' * 8, response=True,
                                   initiator=True, message_id=1), 'the flag I of an IKE_AUTH response is 1'),
    'SPI of the responder': (offer(CBC, spi_r=b'r' * 8), "the responder's SPI is not zero (RFC 7296 §3.1)"),
    'no SPI of the responder': (plain(exchange=ExchangeType.INFORMATIONAL), "the responder's SPI is zero"),
    'minor version': (flipped(offer(CBC), 17, 1), 'minor version 1 (RFC 7296 §2.5)'),
    'flag V': (flipped(offer(CBC), 19, 0x10), 'reserved bits are set'),
    'critical bit': (flipped(offer(CBC), 29, 0x80), 'the critical bit of a payload that every end'),
    'critical bit in a response': (
        flipped(plain(Vendor(b'v'), response=True, spi_r=b'r' * 8), 29, 0x80), 'critical bit in a response'),
    **{f'{kind} of {len(data)} octets': (
        plain(Notify(kind, data), response=True, spi_r=b'r' * 8), f'{kind} with {len(data)} octets of data')
       for kind, data in (
        (MessageType.INVALID_KE_PAYLOAD, b''), (MessageType.INVALID_KE_PAYLOAD, b'\x1f'),
        (MessageType.UNSUPPORTED_CRITICAL_PAYLOAD, b''), (MessageType.INVALID_MESSAGE_ID, b'1'),
        (MessageType.SET_WINDOW_SIZE, b''), (MessageType.COOKIE, b''), (MessageType.COOKIE, bytes(65)),
        (MessageType.NAT_DETECTION_SOURCE_IP, bytes(19)), (MessageType.SIGNATURE_HASH_ALGORITHMS, b'\0\2\0'),
        (MessageType.NAT_DETECTION_DESTINATION_IP, b''), (MessageType.IPCOMP_SUPPORTED, b''))}}
# one fault that is another one as well
ALSO = {'no group': 'KE is of CURVE_25519, which no proposal', 'an SPI of zero': 'an SPI of 8 octets in',
        'a key length of a cipher of one size': 'an integrity algorithm beside'}


@pytest.mark.parametrize('what', BAD)
def test_a_fault_in_a_request_is_odd_and_nothing_else_is(what: str) -> None:
    data, words = BAD[what]
    told = story(seen(data)).told[0]
    said = [text for text in remarks(told, 'odd') if 'not protected' not in text]
    assert [text for text in said if words in text], said
    others = [text for text in said if words not in text]
    assert all(ALSO.get(what, 'never') in text for text in others), others


# What is sealed: a request of an authentic peer

def sealed(*payloads: Payload, exchange: ExchangeType = ExchangeType.CREATE_CHILD_SA, number: int = 2,
           initiator: bool | None = None) -> list[str]:
    r = record(seed=81)
    data = r.sealed(*payloads, exchange=exchange, message_id=number, initiator=initiator)
    return remarks(story(r.then(data), r.lines).told[-1], 'odd')


def proof(*payloads: Payload) -> list[str]:
    return sealed(*payloads, exchange=ExchangeType.IKE_AUTH, number=1)


NAME = IDi.of(Identity.from_text('a.example'))
INSIDE: dict[str, tuple[Callable[[], list[str]], str]] = {
    'IKE_AUTH without a name': (lambda: proof(SA((ESP,)), *TRAFFIC),
                                'IKE_AUTH with no IDi payload (RFC 7296 §1.2)'),
    'IKE_AUTH without traffic': (lambda: proof(NAME, SA((ESP,))), 'IKE_AUTH with no TSi payload'),
    'IKE in IKE_AUTH': (lambda: proof(NAME, SA((without(CBC, T.DH),)), *TRAFFIC),
                        'a proposal for IKE in IKE_AUTH'),
    'a group in IKE_AUTH': (lambda: proof(NAME, SA((beside(ESP, *CBC.of_type(T.DH)),)), *TRAFFIC),
                            'a group in IKE_AUTH, which has no KE (RFC 7296 §1.2)'),
    'ESP without sequence numbers': (lambda: sealed(SA((without(ESP, T.SN),)), NONCE, *TRAFFIC),
                                     'proposal 1: no SN (RFC 7296 §3.3.3)'),
    'AH without integrity': (lambda: sealed(SA((Proposal(1, ProtocolID.AH, b'spi4', (NO_ESN.transform,)),)),
                                            NONCE, *TRAFFIC), 'proposal 1: no INTEG'),
    'a Child SA without a nonce': (lambda: sealed(SA((ESP,)), *TRAFFIC),
                                   'CREATE_CHILD_SA with no Nonce payload (RFC 7296 §1.3)'),
    'a group and no KE': (lambda: sealed(SA((beside(ESP, *CBC.of_type(T.DH)),)), NONCE, *TRAFFIC),
                          'a group in each proposal, and no KE (RFC 7296 §1.3.1)'),
    'rekeying without a new SPI': (lambda: sealed(SA((CBC,)), PUBLIC, NONCE),
                                   'an SPI of 0 octets in CREATE_CHILD_SA'),
    'rekeying without KE': (lambda: sealed(SA((replace(CBC, spi=b's' * 8),)), NONCE),
                            'CREATE_CHILD_SA with no KE payload'),
    'Message ID': (lambda: sealed(exchange=ExchangeType.INFORMATIONAL, number=1),
                   'Message ID 1, which an earlier exchange has used (RFC 7296 §2.2)')}


@pytest.mark.parametrize('what', INSIDE)
def test_a_fault_in_a_sealed_request_is_odd_and_nothing_else_is(what: str) -> None:
    make, words = INSIDE[what]
    said = make()
    assert [text for text in said if words in text], said
    assert not [text for text in said if words not in text and 'with no TSr' not in text
                and ': no DH' not in text], said


def test_sealed_requests_without_a_fault_are_not_odd() -> None:
    pfs = beside(ESP, *CBC.of_type(T.DH))
    for payloads in ((SA((ESP,)), NONCE, *TRAFFIC), (SA((pfs,)), NONCE, PUBLIC, *TRAFFIC),
                     (SA((beside(pfs, NO_GROUP),)), NONCE, *TRAFFIC),
                     (SA((replace(CBC, spi=b's' * 8),)), NONCE, PUBLIC)):
        assert sealed(*payloads) == []
    # the responder's own requests count from 0
    assert sealed(exchange=ExchangeType.INFORMATIONAL, number=0, initiator=False) == []


@pytest.mark.parametrize('path', LIVE, ids=lambda path: path.name)
def test_nothing_is_odd_in_what_strongswan_has_sent(path: object) -> None:
    with (path / 'capture.pcap').open('rb') as file: found = analyse(read_capture(file), KeyTable())
    assert every(found, 'odd', 'wrong') == []


def test_an_additional_key_exchange_is_told_as_one() -> None:
    "Not as a second group: a suite of strongSwan 6, which our own does not have."
    suite = beside(CBC, ML_KEM)
    support = Notify(MessageType.INTERMEDIATE_EXCHANGE_SUPPORTED)
    found = story(seen(plain(SA((suite,)), PUBLIC, NONCE, support), plain(
        SA((suite,)), PUBLIC, Nonce(b'r' * 32), support, spi_r=b'r' * 8, response=True)))
    for told, verb in zip(found.told, ('offers', 'chooses'), strict=True):
        said = remarks(told)
        assert said[0].startswith(f'{verb} aes128-sha256-prfsha256-x25519-ke1_mlkem768')
        assert 'with an additional key exchange, ML_KEM_768 (RFC 9370 §2.2)' in said
    assert not every(found, 'odd', 'wrong')
    optional = beside(CBC, ML_KEM, Transform(T.ADDKE1, Group.NONE))
    told, = story(seen(plain(SA((optional,)), PUBLIC, NONCE, support))).told
    assert 'with an additional key exchange, ML_KEM_768 (RFC 9370 §2.2)' in remarks(told)
