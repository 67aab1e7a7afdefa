"""Other people's values: NIST CAVP, RFC 4868, Camellia,
and a captured strongSwan session with all its secrets.
"""
import json
from pathlib import Path

import pytest
from ike_lit.auth import AUTH, IDi, IDr, signed_octets
from ike_lit.const import Encryption, Esn, Group, Integrity, Prf, ProtocolID, TransformType, Type
from ike_lit.header import Header, Reader
from ike_lit.ke import KE
from ike_lit.keys import ike_keys, keymat, prf, prfplus, skeyseed
from ike_lit.nonce import Nonce
from ike_lit.payload import Encrypted, Packet, parse_chain
from ike_lit.proposal import SA, check_choice
from ike_lit.sk import checksum, decrypt, directions, encrypt
from ike_lit.ts import TSi, TSr
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

VECTORS = Path(__file__).parent / 'vectors'
LIVE = VECTORS / 'live' / 'aes128_sha256_modp2048'
SHA256 = Prf.PRF_HMAC_SHA2_256


OCTETS = ('key', 'salt', 'out', 'seed', 'data', 'mac', 'iv', 'plain', 'cipher')


def rows(file: str, **where: str) -> list:
    vectors = json.loads((VECTORS / file).read_text())['vectors']
    found = [v for v in vectors if where.items() <= v.items()]
    assert found, f'no rows in {file}'
    return [pytest.param({k: h(x) if k in OCTETS else x for k, x in v.items()}, id=v['name'])
            for v in found]


h = bytes.fromhex


@pytest.mark.parametrize('v', rows('kdf_prf.json', **{'arg.prf': 'PRF_HMAC_SHA2_256'}))
def test_skeyseed_is_nists(v: dict) -> None:
    assert skeyseed(SHA256, v['salt'], b'', v['key']) == v['out']


@pytest.mark.parametrize('v', rows('kdf_prf_plus.json', **{'arg.prf': 'PRF_HMAC_SHA2_256'}))
def test_prfplus_is_nists(v: dict) -> None:
    assert prfplus(SHA256, v['key'], v['salt'], len(v['out'])) == v['out']


@pytest.mark.parametrize('v', rows('sha2_hmac.json', alg='PRF_HMAC_SHA2_256'))
def test_prf_is_rfc_4868s(v: dict) -> None:
    assert prf(SHA256, v['key'], v['seed']) == v['out']


@pytest.mark.parametrize('v', rows('sha2_hmac.json', alg='AUTH_HMAC_SHA2_256_128'))
def test_checksum_is_rfc_4868s(v: dict) -> None:
    assert checksum(Integrity.HMAC_SHA2_256_128, v['key'], v['data']) == v['mac']


@pytest.mark.parametrize('v', rows('camellia_cbc.json'))
def test_camellia(v: dict) -> None:
    assert encrypt(Encryption.CAMELLIA_CBC, v['key'], v['iv'], v['plain']) == v['cipher']
    assert decrypt(Encryption.CAMELLIA_CBC, v['key'], v['iv'], v['cipher']) == v['plain']


# A live session: strongSwan with strongSwan, AES-128, a pre-shared key;
# its D-H secret begins with a zero octet.

@pytest.fixture(scope='module')
def secrets() -> dict:
    return json.loads((LIVE / 'keys.json').read_text())


@pytest.fixture(scope='module')
def messages() -> list[bytes]:
    "All IKE messages of the capture, without the non-ESP marker; ESP is left out."
    packets = (p for p in rdpcap(str(LIVE / 'capture.pcap')) if UDP in p)
    datagrams = [(p[UDP].dport, p[UDP].sport, bytes(p[UDP].payload)) for p in packets]
    return [data[4:] if 4500 in (to, source) else data for to, source, data in datagrams
            if 4500 not in (to, source) or data.startswith(bytes(4))]


@pytest.fixture(scope='module')
def init(messages: list[bytes]) -> tuple[Packet, Packet]:
    return tuple(Packet.parse(Reader(m)) for m in messages[:2])


def agreed(packet: Packet, protocol: ProtocolID, *ids: int) -> SA:
    sa = packet.one(SA)
    assert sa.proposals[0].protocol == protocol
    assert {int(t.id) for t in sa.proposals[0].transforms} == set(map(int, ids))
    return sa


def keys_of(sa: dict) -> tuple[bytes, ...]:
    names = ('Sk_d', 'Sk_ai', 'Sk_ar', 'Sk_ei', 'Sk_er', 'Sk_pi', 'Sk_pr')
    return tuple(h(sa[name]) for name in names)


def blocks(secrets: dict, name: str) -> list[bytes]:
    return [h(b['hex']) for b in secrets['log_blocks'] if b['name'] == name]


def test_live_key_chain(secrets: dict, init: tuple[Packet, Packet]) -> None:
    request, response = init
    first = secrets['ike_sas'][0]
    secret = h(first['shared'])
    assert secret[0] == 0 and len(secret) == 256  # the case that other implementations get wrong
    answer = agreed(response, ProtocolID.IKE, Encryption.AES_CBC, 12, SHA256, Group.MODP_2048)
    suite = check_choice(request.one(SA).proposals, answer)
    ni, nr = request.one(Nonce).data, response.one(Nonce).data
    seed = skeyseed(SHA256, ni, nr, secret)
    assert seed == h(first['SKEYSEED'])
    keys = ike_keys(suite, seed, ni, nr, response.header.spi_i, response.header.spi_r)
    assert tuple(vars(keys).values()) == keys_of(first)


def opened(secrets: dict, messages: list[bytes], init: tuple[Packet, Packet]) -> list[Packet]:
    "Every SK message of the capture, opened with the keys of its IKE SA."
    from ike_lit.keys import Keys
    suite = init[1].one(SA).proposals[0]
    old, new = (directions(suite, Keys(*keys_of(sa))) for sa in secrets['ike_sas'])
    found = []
    for data in messages[2:]:
        header = Header.parse(Reader(data))
        pair = old if header.spi_i == init[0].header.spi_i else new
        found.append(pair[0 if header.initiator else 1].open(data))
    return found


def test_live_every_sk_message_opens(secrets: dict, messages: list[bytes],
                                     init: tuple[Packet, Packet]) -> None:
    packets = opened(secrets, messages, init)
    assert len(packets) == len(secrets['messages']) == 12
    for packet, expected in zip(packets, secrets['messages'], strict=True):
        header = packet.header
        assert (header.exchange_type, header.message_id) == (expected['exchange'], expected['mid'])
        assert header.response == bool(expected['flags'] & 0x20)
        assert header.initiator == bool(expected['flags'] & 0x08)
        assert [p.kind for p in packet.payloads] == expected['inner_payloads']


def test_live_auth(secrets: dict, messages: list[bytes],
                   init: tuple[Packet, Packet]) -> None:
    """Both AUTH payloads: our signed octets are strongSwan's,
    and its pre-shared key over them gives its AUTH data."""
    request, response = opened(secrets, messages, init)[:2]
    first, (ni, nr) = secrets['ike_sas'][0], (p.one(Nonce).data for p in init)
    logged = blocks(secrets, "octets = message + nonce + prf(Sk_px, IDx')")
    psk = prf(SHA256, secrets['psk_ascii'].encode(), b'Key Pad for IKEv2')
    for packet, cls, message, nonce, sk_p in (
            (request, IDi, messages[0], nr, 'Sk_pi'), (response, IDr, messages[1], ni, 'Sk_pr')):
        octets = signed_octets(message, nonce, SHA256, h(first[sk_p]), packet.one(cls).body)
        assert octets in logged
        assert packet.one(AUTH).data == prf(SHA256, psk, octets)
    assert str(request.one(IDi).identity) == secrets['initiator']['id']
    assert str(response.one(IDr).identity) == secrets['responder']['id']


def test_live_keymat(secrets: dict, messages: list[bytes],
                     init: tuple[Packet, Packet]) -> None:
    request, response = opened(secrets, messages, init)[:2]
    answer = agreed(response, ProtocolID.ESP, Encryption.AES_CBC, 12, Esn.NO_ESN)
    suite = check_choice(request.one(SA).proposals, answer)
    ni, nr = (p.one(Nonce).data for p in init)
    child = keymat(SHA256, h(secrets['ike_sas'][0]['Sk_d']), ni, nr, suite)
    for name, key in (('encryption initiator key', child.encr_i),
                      ('integrity initiator key', child.integ_i),
                      ('encryption responder key', child.encr_r),
                      ('integrity responder key', child.integ_r)):
        assert blocks(secrets, name)[0] == key, name
    assert request.one(TSi).selectors and response.one(TSr).selectors


def test_live_rekeyed_ike_sa(secrets: dict, messages: list[bytes],
                             init: tuple[Packet, Packet]) -> None:
    """The capture's second IKE SA:
    SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) (RFC 7296 §2.18)."""
    packets = opened(secrets, messages, init)
    request, response = (p for p in packets if p.header.message_id == 0
                         and any(x.kind == Type.KE for x in p.payloads))
    old, new = secrets['ike_sas']
    ni, nr = request.one(Nonce).data, response.one(Nonce).data
    assert request.one(KE).group == Group.MODP_2048
    seed = prf(SHA256, h(old['Sk_d']), h(new['shared']) + ni + nr)
    assert seed == h(new['SKEYSEED'])
    suite = check_choice(request.one(SA).proposals, response.one(SA))
    spis = (response.one(SA).proposals[0].spi, request.one(SA).proposals[0].spi)
    initiator, responder = spis[::-1]
    assert tuple(vars(ike_keys(suite, seed, ni, nr, initiator, responder)).values()) == keys_of(new)


def test_live_octets_survive_a_round_trip(secrets: dict, messages: list[bytes],
                                          init: tuple[Packet, Packet]) -> None:
    "Every payload that strongSwan wrote, parsed and written again, has the same octets."
    from ike_lit.payload import pack_chain
    suite = init[1].one(SA).proposals[0]
    assert suite.the(TransformType.ENCR).key_length == 128
    for packet in (*init, *opened(secrets, messages, init)):
        first, chain = pack_chain(packet.payloads)
        assert parse_chain(first, Reader(chain)) == packet.payloads
    for message, packet in zip(messages, init, strict=False):
        assert message.endswith(pack_chain(packet.payloads)[1])
    assert not any(isinstance(p, Encrypted) for p in init[0].payloads)
