"""Other people's values: NIST CAVP, RFCs, strongSwan's own tests,
and captured strongSwan sessions with all their secrets.
"""
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from ike_lit.wire.auth import AUTH, IDi, IDr, signed_octets
from ike_lit.wire.const import (
    Discard, Encryption, ExchangeType, Group, Integrity, MessageType, Prf, ProtocolID,
    TransformType, Type)
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.ke import GENERATOR, GROUPS, KE, Curve, Kem, Modp, Montgomery, power
from ike_lit.wire.keys import Keys, ike_keys, keymat, prf, prf_size, prfplus, skeyseed
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Encrypted, Notify, Packet, pack_chain, parse_chain
from ike_lit.wire.proposal import NO_INTEG, SA, Proposal, Transform, check_choice, key_size
from ike_lit.wire.sk import SK, AeadCipher, compute_icv, decrypt, directions, encrypt
from ike_lit.wire.ts import TSi, TSr
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

VECTORS = Path(__file__).parent / 'vectors'
SESSIONS = sorted((VECTORS / 'live').iterdir())
h = bytes.fromhex

# What strongSwan calls the algorithms of its tests
CIPHERS = {'ENCR_CAMELLIA_CBC': Encryption.CAMELLIA_CBC, 'ENCR_AES_CTR': Encryption.AES_CTR,
           'ENCR_CHACHA20_POLY1305': Encryption.CHACHA20_POLY1305,
           'ENCR_AES_CCM_ICV8': Encryption.AES_CCM_8, 'ENCR_AES_CCM_ICV12': Encryption.AES_CCM_12,
           'ENCR_AES_CCM_ICV16': Encryption.AES_CCM_16, 'ENCR_AES_GCM_ICV8': Encryption.AES_GCM_8,
           'ENCR_AES_GCM_ICV12': Encryption.AES_GCM_12,
           'ENCR_AES_GCM_ICV16': Encryption.AES_GCM_16}
LEFT_OUT = {  # rows of groups that we do not have
    'ecp192', 'ecp224', 'ecp224bp', 'modp1024_160', 'modp2048_224', 'modp2048_256'}
OLD_GROUPS = {  # too small for us; but our power() and our pi are right for them too
    'modp768': Modp(768, 149686, 32), 'modp1024': Modp(1024, 129093, 32),
    'modp1536': Modp(1536, 741804, 32)}


OCTETS = ('key', 'salt', 'out', 'seed', 'data', 'mac', 'iv', 'plain', 'cipher', 'adata',
          'priv_i', 'priv_r', 'pub_i', 'pub_r', 'shared', 'i', 'r', 'gix', 'giy', 'grx', 'gry',
          'girx')


def rows(*files: str, starts: str = '', count: int) -> list:
    "The rows of files whose algorithm has a name that begins so, with octets for hex."
    vectors = [v for file in files for v in json.loads((VECTORS / file).read_text())['vectors']]
    found = [v for v in vectors if v.get('alg', '').startswith(starts)]
    assert len(found) == count, f'{len(found)} rows in {files}'
    return [pytest.param({k: h(x) if k in OCTETS else x for k, x in v.items()},
                         id=v.get('name') or v['curve']) for v in found]


MACS = 'sha2_hmac.json', 'aes_xcbc.json', 'aes_cmac.json'


def test_no_file_is_left_out() -> None:
    "tests/test_fragment.py reads skf.json, tests/test_kem.py ml_kem.json."
    assert {path.name for path in VECTORS.glob('*.json')} == {
        'aes_ccm.json', 'aes_cmac.json', 'aes_ctr.json', 'aes_gcm.json', 'aes_xcbc.json',
        'camellia_cbc.json', 'chacha20poly1305.json', 'dh_known_answers.json', 'kdf_prf.json',
        'kdf_prf_plus.json', 'ml_kem.json', 'modp_groups.json', 'rfc5903_ecp.json',
        'rfc7634_appendixB_ikev2_sk.json', 'sha2_hmac.json', 'skf.json'}
    assert len(SESSIONS) == len(SUITES) == 4


# Keys

@pytest.mark.parametrize('v', rows('kdf_prf.json', count=6))
def test_skeyseed_is_nists(v: dict) -> None:
    assert skeyseed(Prf[v['arg.prf']], v['salt'], b'', v['key']) == v['out']
    half = len(v['salt']) // 2
    assert skeyseed(Prf[v['arg.prf']], v['salt'][:half], v['salt'][half:], v['key']) == v['out']


@pytest.mark.parametrize('v', rows('kdf_prf_plus.json', count=7))
def test_prfplus_is_nists(v: dict) -> None:
    for size in range(len(v['out']) + 1):
        assert prfplus(Prf[v['arg.prf']], v['key'], v['salt'], size) == v['out'][:size]


@pytest.mark.parametrize('v', rows(*MACS, starts='PRF_', count=15 + 7 + 7))
def test_prf_is_the_rfcs(v: dict) -> None:
    "RFC 4868, RFC 4434 and RFC 4615, with keys that are too short and too long."
    assert prf(Prf[v['alg']], v['key'], v['seed']) == v['out']
    assert prf_size(Prf[v['alg']]) == len(v['out'])


@pytest.mark.parametrize('v', rows(*MACS, starts='AUTH_', count=9 + 5 + 4))
def test_checksum_is_the_rfcs(v: dict) -> None:
    "RFC 4868, RFC 3566 and RFC 4494."
    kind = Integrity[v['alg'].removeprefix('AUTH_')]
    assert compute_icv(kind, v['key'], v['data']) == v['mac']
    assert key_size(Transform(TransformType.INTEG, kind)) == len(v['key'])


# Ciphers

@pytest.mark.parametrize('v', rows('camellia_cbc.json', 'aes_ctr.json', count=6 + 9))
def test_ciphers(v: dict) -> None:
    "Camellia's own set, and RFC 3686: the last 4 octets of a key are the salt."
    kind = CIPHERS[v['alg']]
    assert encrypt(kind, v['key'], v['iv'], v['plain']) == v['cipher']
    assert decrypt(kind, v['key'], v['iv'], v['cipher']) == v['plain']


AEADS = rows('aes_ccm.json', 'aes_gcm.json', 'chacha20poly1305.json', count=16 + 21 + 4)


@pytest.mark.parametrize('v', AEADS)
def test_aeads(v: dict) -> None:
    "Of aes_ccm15, strongSwan uses the first 19 octets of a key that is written down with 35."
    size = int(v['key_size']) + int(v['salt_size'])
    assert len(v['key']) == (35 if v['name'] == 'aes_ccm15' else size)
    lock = AeadCipher(CIPHERS[v['alg']], v['key'][:size])
    seen, plain = v.get('adata', b''), v.get('plain', b'')
    assert len(seen) == int(v['alen']) and len(plain) == int(v['len'])
    assert lock.seal(seen, v['iv'], plain) == v['cipher']
    ciphertext, icv = v['cipher'][:len(plain)], v['cipher'][len(plain):]
    assert lock.icv_size == len(icv) and len(lock.salt) == int(v['salt_size'])
    assert lock.open(seen, v['iv'], ciphertext, icv) == plain
    for at in range(len(v['cipher'])):
        wrong = v['cipher'][:at] + bytes([v['cipher'][at] ^ 1]) + v['cipher'][at + 1:]
        with pytest.raises(Discard):
            lock.open(seen, v['iv'], wrong[:len(plain)], wrong[len(plain):])


def test_a_message_of_rfc_7634_opens_and_is_sealed_again() -> None:
    "Appendix B: the sender gives the Notify no protocol, and we write it so."
    v = json.loads((VECTORS / 'rfc7634_appendixB_ikev2_sk.json').read_text())
    chacha = Transform(TransformType.ENCR, Encryption[v['enc'].removeprefix('ENCR_')])
    sk = SK(chacha, NO_INTEG, h(v['SK_e_with_salt']), b'')
    packet = sk.open(h(v['packet']))
    assert packet.payloads == (Notify(MessageType.SET_WINDOW_SIZE, bytes([0, 0, 0, 10])),)
    assert (packet.exchange_type, packet.header.message_id) == (ExchangeType.INFORMATIONAL, 9)
    sk.cipher.new_iv = lambda _: h(v['iv'])
    assert sealed_again(sk, packet) == h(v['packet'])


# Diffie-Hellman

def known_secret(kind: object, octets: bytes) -> object:
    "A secret that somebody else drew, as our group wants it."
    if isinstance(kind, Modp): return int.from_bytes(octets, 'big')
    if isinstance(kind, Montgomery): return kind.secret(lambda size: octets)
    return ec.derive_private_key(int.from_bytes(octets, 'big'), kind.library)


def group_of(row: dict) -> Group:
    name = row['method'].removesuffix('_BIT')
    return Group['BRAINPOOL_' + name[4:7] if name.endswith('_BP') else name]


@pytest.mark.parametrize('v', [p for p in rows('dh_known_answers.json', count=23)
                               if p.id not in LEFT_OUT])
def test_known_answers_of_groups(v: dict) -> None:
    kind = OLD_GROUPS.get(v['name']) or GROUPS[group_of(v)]
    for mine, public, other in ('i', 'pub_i', 'pub_r'), ('r', 'pub_r', 'pub_i'):
        secret = known_secret(kind, v[f'priv_{mine}'])
        assert kind.public(secret) == v[public] and len(v[public]) == kind.size
        assert kind.shared(secret, v[other]) == v['shared']


def test_the_rows_that_are_left_out_are_of_groups_that_we_do_not_have() -> None:
    left = [p.values[0] for p in rows('dh_known_answers.json', count=23) if p.id in LEFT_OUT]
    assert len(left) == len(LEFT_OUT)
    assert not [v for v in left if group_of(v) in GROUPS]
    used = {group_of(p.values[0]) for p in rows('dh_known_answers.json', count=23)}
    assert {group for group, kind in GROUPS.items() if not isinstance(kind, Kem)} <= used


PRIMES = json.loads((VECTORS / 'modp_groups.json').read_text())


@pytest.mark.parametrize('number, v', PRIMES.items(), ids=[v['name'] for v in PRIMES.values()])
def test_primes_and_the_generator(number: str, v: dict) -> None:
    group = Group(int(number))
    kind = OLD_GROUPS.get(v['name'].lower().replace('_', '')) or GROUPS[group]
    assert group.name == v['name'] and kind.bits == v['bits'] and v['generator'] == GENERATOR
    assert kind.prime == int(v['prime_hex'], 16) and kind.size * 2 == len(v['prime_hex'])
    base, exponent = kind.prime - 2, 0x7296
    expected = pow(base, exponent, kind.prime).to_bytes(kind.size, 'big')
    assert power(kind.prime, base, exponent) == expected


@pytest.mark.parametrize('v', rows('rfc5903_ecp.json', count=3))
def test_rfc_5903(v: dict) -> None:
    kind = GROUPS[Group(v['group'])]
    assert isinstance(kind, Curve) and kind.library.name == v['curve']
    for mine, x, y, other in ('i', 'gix', 'giy', 'gr'), ('r', 'grx', 'gry', 'gi'):
        secret = known_secret(kind, v[mine])
        assert kind.public(secret) == v[x] + v[y]
        assert kind.shared(secret, v[f'{other}x'] + v[f'{other}y']) == v['girx']


# Live sessions: strongSwan with strongSwan, a pre-shared key, a rekeyed Child SA, a rekeyed IKE SA.
# Of the first, the D-H secret begins with a zero octet.

ENCR, PRF, INTEG, DH, ESN = 1, 2, 3, 4, 5
SUITES = {  # IKE: transform types, IDs, key lengths; then the same for the two Child SAs
    'aes128_sha256_modp2048': (
        {(ENCR, 12, 128), (INTEG, 12, 0), (PRF, 5, 0), (DH, 14, 0)},
        {(ENCR, 12, 128), (INTEG, 12, 0), (ESN, 0, 0)},
        {(ENCR, 12, 128), (INTEG, 12, 0), (ESN, 0, 0)}),
    'aes128ccm12_prfsha256_ecp256': (
        {(ENCR, 15, 128), (PRF, 5, 0), (DH, 19, 0)}, {(ENCR, 16, 128), (ESN, 0, 0)},
        {(ENCR, 16, 128), (ESN, 0, 0)}),
    'aes128gcm8_prfaesxcbc_ecp256': (
        {(ENCR, 18, 128), (PRF, 4, 0), (DH, 19, 0)}, {(ENCR, 20, 128), (ESN, 0, 0)},
        {(ENCR, 20, 128), (ESN, 0, 0)}),
    'aes256gcm16_prfsha384_ecp521': (
        {(ENCR, 20, 256), (PRF, 6, 0), (DH, 21, 0)}, {(ENCR, 20, 256), (ESN, 0, 0)},
        {(ENCR, 20, 256), (ESN, 0, 0), (DH, 21, 0)}),
}
SIZES = {  # octets of g^ir, of the PRF, of SK_e, of SK_a
    'aes128_sha256_modp2048': (256, 32, 16, 32), 'aes128ccm12_prfsha256_ecp256': (32, 32, 19, 0),
    'aes128gcm8_prfaesxcbc_ecp256': (32, 16, 20, 0),
    'aes256gcm16_prfsha384_ecp521': (66, 48, 36, 0)}


@pytest.fixture(scope='module', params=SESSIONS, ids=lambda path: path.name)
def live(request: pytest.FixtureRequest) -> Path: return request.param


@pytest.fixture(scope='module')
def secrets(live: Path) -> dict:
    return json.loads((live / 'keys.json').read_text())


@pytest.fixture(scope='module')
def messages(live: Path) -> list[bytes]:
    "All IKE messages of the capture, without the non-ESP marker; ESP is left out."
    packets = (p for p in rdpcap(str(live / 'capture.pcap')) if UDP in p)
    datagrams = [(p[UDP].dport, p[UDP].sport, bytes(p[UDP].payload)) for p in packets]
    return [data[4:] if 4500 in (to, source) else data for to, source, data in datagrams
            if 4500 not in (to, source) or data.startswith(bytes(4))]


@pytest.fixture(scope='module')
def init(messages: list[bytes]) -> tuple[Packet, Packet]:
    return tuple(Packet.parse(Reader(m)) for m in messages[:2])


def agreed(packet: Packet, protocol: ProtocolID, expected: set) -> SA:
    sa = packet.one(SA)
    assert sa.proposals[0].protocol == protocol
    assert {(int(t.type), int(t.id), t.key_length) for t in sa.proposals[0].transforms} == expected
    return sa


def keys_of(sa: dict) -> tuple[bytes, ...]:
    "Beside an AEAD there is no SK_a, and none was logged."
    names = ('Sk_d', 'Sk_ai', 'Sk_ar', 'Sk_ei', 'Sk_er', 'Sk_pi', 'Sk_pr')
    return tuple(h(sa.get(name, '')) for name in names)


def blocks(secrets: dict, name: str) -> list[bytes]:
    return [h(b['hex']) for b in secrets['log_blocks'] if b['name'] == name]


def kind_of(suite: Proposal) -> Prf: return Prf(suite.single(TransformType.PRF).id)


def test_live_key_chain(live: Path, secrets: dict, init: tuple[Packet, Packet]) -> None:
    request, response = init
    first = secrets['ike_sas'][0]
    secret, (secret_size, prf_octets, e, a) = h(first['shared']), SIZES[live.name]
    assert len(secret) == secret_size
    if live.name == 'aes128_sha256_modp2048':
        assert secret[0] == 0  # the case that other implementations get wrong
    answer = agreed(response, ProtocolID.IKE, SUITES[live.name][0])
    suite = check_choice(request.one(SA).proposals, answer)
    ni, nr = request.one(Nonce).data, response.one(Nonce).data
    seed = skeyseed(kind_of(suite), ni, nr, secret)
    assert seed == h(first['SKEYSEED'])
    keys = ike_keys(suite, seed, ni, nr, response.header.spi_i, response.header.spi_r)
    assert tuple(vars(keys).values()) == keys_of(first)
    p = prf_octets
    assert tuple(map(len, vars(keys).values())) == (p, a, a, e, e, p, p)


def pairs_of(secrets: dict, init: tuple[Packet, Packet]) -> tuple:
    suite = init[1].one(SA).proposals[0]
    return tuple(directions(suite, Keys(*keys_of(sa))) for sa in secrets['ike_sas'])


def opened(secrets: dict, messages: list[bytes], init: tuple[Packet, Packet]) -> list[Packet]:
    "Every SK message of the capture, opened with the keys of its IKE SA."
    return [sk.open(data) for sk, data in with_keys(secrets, messages, init)]


def with_keys(secrets: dict, messages: list[bytes],
              init: tuple[Packet, Packet]) -> list[tuple[SK, bytes]]:
    old, new = pairs_of(secrets, init)
    found = []
    for data in messages[2:]:
        header = Header.parse(Reader(data))
        pair = old if header.spi_i == init[0].header.spi_i else new
        found.append((pair[0 if header.initiator else 1], data))
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


def test_live_no_message_opens_with_other_keys(secrets: dict, messages: list[bytes],
                                               init: tuple[Packet, Packet]) -> None:
    every = [sk for pair in pairs_of(secrets, init) for sk in pair]
    for right, data in with_keys(secrets, messages, init):
        for other in every:
            if other == right: continue
            with pytest.raises(Discard): other.open(data)


def test_live_auth(secrets: dict, messages: list[bytes],
                   init: tuple[Packet, Packet]) -> None:
    """Both AUTH payloads: our signed octets are strongSwan's,
    and its pre-shared key over them gives its AUTH data."""
    request, response = opened(secrets, messages, init)[:2]
    kind = kind_of(init[1].one(SA).proposals[0])
    first, (ni, nr) = secrets['ike_sas'][0], (p.one(Nonce).data for p in init)
    logged = blocks(secrets, "octets = message + nonce + prf(Sk_px, IDx')")
    proofs = blocks(secrets, 'AUTH = prf(prf(secret, keypad), octets)')
    psk = prf(kind, secrets['psk_ascii'].encode(), b'Key Pad for IKEv2')
    assert blocks(secrets, 'prf(secret, keypad)') == [psk, psk]
    for n, (packet, cls, message, nonce, sk_p) in enumerate((
            (request, IDi, messages[0], nr, 'Sk_pi'), (response, IDr, messages[1], ni, 'Sk_pr'))):
        octets = signed_octets(message, nonce, kind, h(first[sk_p]), packet.one(cls).body)
        assert octets == logged[n]
        assert packet.one(AUTH).data == prf(kind, psk, octets) == proofs[n]
    assert str(request.one(IDi).identity) == secrets['initiator']['id']
    assert str(response.one(IDr).identity) == secrets['responder']['id']


def same_keys(secrets: dict, nth: int, child: object) -> None:
    for name, key in (('encryption initiator key', child.encr_i),
                      ('integrity initiator key', child.integ_i),
                      ('encryption responder key', child.encr_r),
                      ('integrity responder key', child.integ_r)):
        logged = blocks(secrets, name)
        assert logged[nth] == key if logged else key == b'', name  # beside an AEAD, none


def test_live_keymat(live: Path, secrets: dict, messages: list[bytes],
                     init: tuple[Packet, Packet]) -> None:
    request, response = opened(secrets, messages, init)[:2]
    answer = agreed(response, ProtocolID.ESP, SUITES[live.name][1])
    suite = check_choice(request.one(SA).proposals, answer)
    ni, nr = (p.one(Nonce).data for p in init)
    kind = kind_of(init[1].one(SA).proposals[0])
    same_keys(secrets, 0, keymat(kind, h(secrets['ike_sas'][0]['Sk_d']), ni, nr, suite))
    assert request.one(TSi).selectors and response.one(TSr).selectors


def test_live_rekeyed_child_sa(live: Path, secrets: dict, messages: list[bytes],
                               init: tuple[Packet, Packet]) -> None:
    "With nonces of its own, and in one session with a group of its own (RFC 7296 §2.17)."
    request, response = (p for p in opened(secrets, messages, init) if p.header.message_id == 2)
    assert request.notify(MessageType.REKEY_SA)
    answer = agreed(response, ProtocolID.ESP, SUITES[live.name][2])
    suite = check_choice(request.one(SA).proposals, answer)
    ni, nr = request.one(Nonce).data, response.one(Nonce).data
    logged = blocks(secrets, 'DH secret')
    groups = suite.of_type(TransformType.DH)
    assert len(logged) == len(groups) == len(request.all(KE)) == len(response.all(KE))
    if groups: assert request.one(KE).group == response.one(KE).group == groups[0].id
    secret = logged[0] if logged else b''
    assert blocks(secrets, 'seed')[1] == secret + ni + nr
    kind = kind_of(init[1].one(SA).proposals[0])
    same_keys(secrets, 1, keymat(kind, h(secrets['ike_sas'][0]['Sk_d']), ni, nr, suite, secret))


def test_live_rekeyed_ike_sa(live: Path, secrets: dict, messages: list[bytes],
                             init: tuple[Packet, Packet]) -> None:
    """The capture's second IKE SA:
    SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) (RFC 7296 §2.18)."""
    packets = opened(secrets, messages, init)
    request, response = (p for p in packets if p.header.message_id == 0
                         and any(x.kind == Type.KE for x in p.payloads))
    old, new = secrets['ike_sas']
    ni, nr = request.one(Nonce).data, response.one(Nonce).data
    suite = check_choice(request.one(SA).proposals,
                         agreed(response, ProtocolID.IKE, SUITES[live.name][0]))
    assert request.one(KE).group == response.one(KE).group == suite.single(TransformType.DH).id
    kind = kind_of(suite)
    seed = prf(kind, h(old['Sk_d']), h(new['shared']) + ni + nr)
    assert seed == h(new['SKEYSEED'])
    assert seed == skeyseed(kind, ni, nr, h(new['shared']), h(old['Sk_d']))
    spis = (response.one(SA).proposals[0].spi, request.one(SA).proposals[0].spi)
    initiator, responder = spis[::-1]
    assert tuple(vars(ike_keys(suite, seed, ni, nr, initiator, responder)).values()) == keys_of(new)


def sealed_again(sk: SK, packet: Packet) -> bytes:
    header = packet.header
    return sk.seal(packet, header.spi_i, header.spi_r, response=header.response,
                   initiator=header.initiator, message_id=header.message_id, random=bytes)


def test_live_octets_survive_a_round_trip(live: Path, secrets: dict, messages: list[bytes],
                                          init: tuple[Packet, Packet]) -> None:
    """Every payload that strongSwan wrote, parsed and written again, has the same octets;
    and so has every message that an AEAD sealed, if it is sealed with the same vector."""
    suite = init[1].one(SA).proposals[0]
    assert (ENCR, suite.single(TransformType.ENCR).id, suite.single(TransformType.ENCR).key_length) in (
        SUITES[live.name][0])
    for packet in (*init, *opened(secrets, messages, init)):
        first, chain = pack_chain(packet.payloads)
        assert parse_chain(first, Reader(chain)) == packet.payloads
    for message, packet in zip(messages, init, strict=False):
        assert message.endswith(pack_chain(packet.payloads)[1])
    assert not any(isinstance(p, Encrypted) for p in init[0].payloads)
    for sk, data in with_keys(secrets, messages, init):
        if not sk.encr.aead: continue
        again = SK(sk.encr, sk.integ, sk.sk_e, sk.sk_a)
        again.cipher.new_iv = lambda _, iv=data[32:40]: iv
        assert sealed_again(again, sk.open(data)) == data
