"Every algorithm of the table, by itself: its word, its octets, its sizes, and what it seals."
import hmac
from dataclasses import replace
from functools import partial

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from ike_lit.wire.algorithm import ENCRYPTION, INTEGRITY, KEY_EXCHANGES, PRFS, AlgorithmRow
from ike_lit.wire.const import (
    Discard, Encryption, ExchangeType, InvalidSyntax, Integrity, NoProposalChosen, Prf, ProtocolID,
    TransformType, Type)
from ike_lit.wire.fragment import SKF
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.keys import ike_keys, keymat, prf, prf_size, prfplus, skeyseed
from ike_lit.wire.nonce import Random
from ike_lit.wire.payload import Delete, Packet, pack_chain
from ike_lit.wire.proposal import (
    ALGORITHMS, NO_INTEG, SA, Proposal, Transform, key_size, parse_proposals, transform_for)
from ike_lit.wire.sk import SK, compute_icv, directions, parse_outer

IKE, ESP = ProtocolID.IKE, ProtocolID.ESP
ENCR, PRF, INTEG, DH, ESN = 1, 2, 3, 4, 5

# Keyword: transform type, ID, bits in the Key Length attribute, octets of key with the salt.
# Written down from IANA's registry, RFC 3686, 4106, 4309, 4868, 5529, 7634.
TABLE = {
    'aes128': (ENCR, 12, 128, 16), 'aes192': (ENCR, 12, 192, 24), 'aes256': (ENCR, 12, 256, 32),
    'camellia128': (ENCR, 23, 128, 16), 'camellia192': (ENCR, 23, 192, 24),
    'camellia256': (ENCR, 23, 256, 32),
    'aes128ctr': (ENCR, 13, 128, 20), 'aes192ctr': (ENCR, 13, 192, 28),
    'aes256ctr': (ENCR, 13, 256, 36),
    'aes128ccm8': (ENCR, 14, 128, 19), 'aes192ccm8': (ENCR, 14, 192, 27),
    'aes256ccm8': (ENCR, 14, 256, 35),
    'aes128ccm12': (ENCR, 15, 128, 19), 'aes192ccm12': (ENCR, 15, 192, 27),
    'aes256ccm12': (ENCR, 15, 256, 35),
    'aes128ccm16': (ENCR, 16, 128, 19), 'aes192ccm16': (ENCR, 16, 192, 27),
    'aes256ccm16': (ENCR, 16, 256, 35),
    'aes128gcm8': (ENCR, 18, 128, 20), 'aes192gcm8': (ENCR, 18, 192, 28),
    'aes256gcm8': (ENCR, 18, 256, 36),
    'aes128gcm12': (ENCR, 19, 128, 20), 'aes192gcm12': (ENCR, 19, 192, 28),
    'aes256gcm12': (ENCR, 19, 256, 36),
    'aes128gcm16': (ENCR, 20, 128, 20), 'aes192gcm16': (ENCR, 20, 192, 28),
    'aes256gcm16': (ENCR, 20, 256, 36),
    'chacha20poly1305': (ENCR, 28, 0, 36), '3des': (ENCR, 3, 0, 24),
    'prfsha1': (PRF, 2, 0, 20), 'prfaesxcbc': (PRF, 4, 0, 16), 'prfsha256': (PRF, 5, 0, 32),
    'prfsha384': (PRF, 6, 0, 48), 'prfsha512': (PRF, 7, 0, 64), 'prfaescmac': (PRF, 8, 0, 16),
    'sha1': (INTEG, 2, 0, 20), 'aesxcbc': (INTEG, 5, 0, 16), 'aescmac': (INTEG, 8, 0, 16),
    'sha256': (INTEG, 12, 0, 32), 'sha384': (INTEG, 13, 0, 48), 'sha512': (INTEG, 14, 0, 64),
    'modp1024': (DH, 2, 0, 0), 'modp1536': (DH, 5, 0, 0), 'modp2048': (DH, 14, 0, 0),
    'modp3072': (DH, 15, 0, 0), 'modp4096': (DH, 16, 0, 0), 'modp6144': (DH, 17, 0, 0),
    'modp8192': (DH, 18, 0, 0), 'ecp256': (DH, 19, 0, 0), 'ecp384': (DH, 20, 0, 0),
    'ecp521': (DH, 21, 0, 0), 'ecp256bp': (DH, 28, 0, 0), 'ecp384bp': (DH, 29, 0, 0),
    'ecp512bp': (DH, 30, 0, 0), 'x25519': (DH, 31, 0, 0), 'x448': (DH, 32, 0, 0),
    'mlkem512': (DH, 35, 0, 0), 'mlkem768': (DH, 36, 0, 0), 'mlkem1024': (DH, 37, 0, 0),
    'modpnone': (DH, 0, 0, 0), 'noesn': (ESN, 0, 0, 0),
}
WEAK = {'3des', 'sha1', 'prfsha1', 'modp1024', 'modp1536'}
ICV = {  # octets on the wire
    'sha1': 12, 'aesxcbc': 12, 'aescmac': 12, 'sha256': 16, 'sha384': 24, 'sha512': 32}
BLOCKS = {'aes': (16, 16), 'camellia': (16, 16), '3des': (8, 8)}  # octets of vector, of block
SPIS = bytes(range(1, 9)), bytes(range(11, 19))


def is_aead(word: str) -> bool: return any(mode in word for mode in ('gcm', 'ccm', 'poly'))


CIPHERS = [word for word, (kind, *_) in TABLE.items() if kind == ENCR]
LOCKS = [(word, integ) for word in CIPHERS
         for integ in ([''] if is_aead(word) else ICV)]  # every cipher with every checksum
each_lock = pytest.mark.parametrize('cipher, integ', LOCKS, ids=lambda word: word or 'aead')


def transform(word: str) -> Transform: return ALGORITHMS[word].transform


def made(cipher: str, integ: str, sk_e: bytes = b'', sk_a: bytes = b'') -> SK:
    "One direction of an IKE SA, with keys that count."
    return SK(transform(cipher), transform(integ) if integ else NO_INTEG,
              sk_e or bytes(range(TABLE[cipher][3])),
              sk_a or bytes(range(100, 100 + (TABLE[integ][3] if integ else 0))))


def overhead(cipher: str, integ: str) -> tuple[int, int, int]:
    "Octets of vector, of a block, of the checksum."
    family = cipher.rstrip('0123456789')
    vector, block = BLOCKS.get('3des' if cipher == '3des' else family, (8, 1))
    if integ: return vector, block, ICV[integ]
    return vector, block, 16 if 'poly' in cipher else int(cipher[3:].partition('cm')[2])


def protected(sk: SK, content: bytes, random: Random = bytes, fixed: bytes = b'') -> bytes:
    header = partial(Header, *SPIS, Type.SKF if fixed else Type.SK, ExchangeType.INFORMATIONAL,
                     False, True, 7)
    return sk.protect(header, Type.Vendor, content, random, fixed)


def flipped(octets: bytes, at: int) -> bytes:
    return octets[:at] + bytes([octets[at] ^ 0x40]) + octets[at + 1:]


# The table

def test_the_table_has_these_rows_and_no_other() -> None:
    assert set(ALGORITHMS) == set(TABLE)
    assert {word for word, row in ALGORITHMS.items() if row.weak} == WEAK


ROWS = [*ENCRYPTION.values(), *INTEGRITY.values(), *PRFS.values(), *KEY_EXCHANGES.values()]
NAMELESS = {  # who has no name for what we offer
    'setkey': {  # setkey(8) of FreeBSD and NetBSD: AES-GCM only with 16 octets, no CCM, no CMAC
        'aes{}gcm8', 'aes{}gcm12', 'aes{}ccm8', 'aes{}ccm12', 'aes{}ccm16', 'aescmac'},
    # packet-isakmp.c of Wireshark 4 has neither
    'wireshark': {'camellia{}', 'chacha20poly1305'}}


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.keywords.split()[0])
def test_a_row_has_all_that_is_needed(row: AlgorithmRow) -> None:
    "Names for the kernel, setkey and Wireshark, a known answer for each length of key, and true sizes."
    word = row.keywords.split()[0]
    answers = row.answers.split()
    assert {len(bytes.fromhex(answer)) for answer in answers} <= {8}
    if not row.weak or row.answers: assert len(answers) == len(row.key_lengths)
    if not row.weak:
        lacking = {name for name in ('xfrm', 'setkey', 'wireshark') if not getattr(row, name, 'no need')}
        assert lacking == {name for name, words in NAMELESS.items() if word in words}
    for bits in row.key_lengths:
        _, number, sent, octets = TABLE[word.replace('{}', str(bits))]
        assert (number, sent) == (int(row.id), bits)
        assert (bits // 8 or row.key_size) + row.salt_size == octets


@pytest.mark.parametrize('cipher, integ', LOCKS, ids=lambda word: word or 'aead')
def test_sizes_of_a_lock(cipher: str, integ: str) -> None:
    row = ENCRYPTION[transform(cipher).id]
    icv_size = INTEGRITY[transform(integ).id].icv_size if integ else row.icv_size
    assert (row.iv_size, row.block_size, icv_size) == overhead(cipher, integ)


@pytest.mark.parametrize('word', TABLE)
def test_numbers_and_sizes(word: str) -> None:
    kind, number, bits, octets = TABLE[word]
    t = transform(word)
    assert (int(t.type), int(t.id), t.key_length) == (kind, number, bits)
    assert key_size(t) == octets and t.aead == is_aead(word)
    assert transform_for(TransformType(kind), number, bits) == t
    assert t.encode(last=True) == (
        bytes([0, 0, 0, 12 if bits else 8, kind, 0, 0, number])
        + (b'\x80\x0e' + bits.to_bytes(2, 'big') if bits else b''))


@pytest.mark.parametrize('kind, number, bits', [
    (ENCR, 12, 0), (ENCR, 12, 64), (ENCR, 20, 0), (ENCR, 28, 256), (ENCR, 3, 192), (ENCR, 11, 0),
    (ENCR, 24, 128), (PRF, 5, 256), (PRF, 1, 0), (INTEG, 12, 256), (INTEG, 1, 0), (DH, 14, 2048),
    (DH, 22, 0), (DH, 24, 0), (DH, 25, 0), (ESN, 1, 0), (6, 1, 0), (ENCR, 12, -1)])
def test_what_is_not_ours_has_no_size_of_key(kind: int, number: int, bits: int) -> None:
    t = transform_for(TransformType(kind), number, bits)
    assert (t.type, t.id, t.key_length) == (kind, number, bits) and repr(t)
    with pytest.raises(NoProposalChosen, match='is not implemented'): key_size(t)


def lines(word: str) -> list[tuple[str, ProtocolID]]:
    "Proposals in which a word has a place."
    kind = TABLE[word][0]
    if kind == ENCR:
        integ = '' if is_aead(word) else '-sha256'
        return [(f'{word}{integ}-prfsha256-ecp256', IKE), (f'{word}{integ}', ESP)]
    if kind == PRF:
        return [(f'aes128-sha256-{word}-ecp256', IKE), (f'aes128gcm16-{word}-x448', IKE)]
    if kind == INTEG:
        return [(f'aes128-{word}-prfsha256-ecp256', IKE), (f'camellia128-{word}-ecp256', IKE),
                (f'aes128-{word}', ESP)]
    esp = [(f'aes128-sha256-{word}', ESP), (f'aes256gcm16-{word}', ESP)]
    if word in ('modpnone', 'noesn'): return esp
    return [(f'aes128-sha256-{word}', IKE), (f'aes128gcm16-prfsha256-{word}', IKE), *esp]


@pytest.mark.parametrize('line, protocol', [
    pytest.param(*line, id=f'{line[1]}:{line[0]}')
    for word in TABLE if word not in WEAK for line in lines(word)])
def test_a_word_means_the_same_after_a_journey(line: str, protocol: ProtocolID) -> None:
    "Parsed, encoded, parsed; and printed as words, parsed again."
    proposal, = parse_proposals(line, protocol)
    sent = Proposal(1, protocol, b'' if protocol == IKE else b'\1\2\3\4', proposal.transforms)
    received, = SA.parse(Reader(bytes(SA((sent,))))).proposals
    assert received == sent and all(type(t.id) is type(ours.id) for t, ours in
                                    zip(received.transforms, sent.transforms, strict=True))
    assert parse_proposals(proposal.words, protocol) == (proposal,)
    assert parse_proposals(received.words, protocol) == (proposal,)
    assert {transform(word) for word in line.split('-')} <= set(proposal.transforms)


# What a lock seals

@each_lock
def test_seal_and_open(cipher: str, integ: str) -> None:
    "Chains of 0 to 40 octets, with padding to whole blocks, and a message as a whole."
    sender, receiver = made(cipher, integ), made(cipher, integ)
    vector, block, icv = overhead(cipher, integ)
    for size in range(41):
        content = bytes(range(0xc1, 0xc1 + size))
        data = protected(sender, content)
        padded = (size // block + 1) * block
        assert len(data) == 28 + 4 + vector + padded + icv
        assert content not in data or size < 4
        _, sealed = parse_outer(data, Type.SK)
        assert sealed.first == Type.Vendor and receiver.decrypted(data, sealed) == content
    packet = Packet(ExchangeType.INFORMATIONAL, (Delete(ESP, (b'\1\2\3\4',)),))
    data = sender.seal(packet, *SPIS, response=False, initiator=True, message_id=9, random=bytes)
    again = receiver.open(data)
    assert again.payloads == packet.payloads and again.header.message_id == 9


@each_lock
def test_a_changed_bit_or_a_missing_octet_is_noticed(cipher: str, integ: str) -> None:
    sk = made(cipher, integ)
    good = protected(sk, b'')
    assert sk.decrypted(good, parse_outer(good, Type.SK)[1]) == b''
    for at in range(len(good) * 8):
        wrong = bytearray(good)
        wrong[at // 8] ^= 1 << at % 8
        with pytest.raises(Discard): sk.open(bytes(wrong))
    for size in range(len(good)):
        with pytest.raises(Discard): sk.open(good[:size])
    for size in range(32, len(good)):  # with lengths that fit what is left of it
        cut = (good[:24] + size.to_bytes(4, 'big') + good[28:30]
               + (size - 28).to_bytes(2, 'big') + good[32:size])
        with pytest.raises(Discard): sk.open(cut)
    with pytest.raises(Discard): sk.open(good + b'\0')


@each_lock
def test_another_key_does_not_open(cipher: str, integ: str) -> None:
    "Every bit of an AEAD's key and salt counts, and every bit of SK_a."
    sk = made(cipher, integ)
    good = protected(sk, bytes(20))
    key, name = (sk.sk_a, 'sk_a') if integ else (sk.sk_e, 'sk_e')
    for at in range(len(key) * 8):
        wrong = bytearray(key)
        wrong[at // 8] ^= 1 << at % 8
        with pytest.raises(Discard): made(cipher, integ, **{name: bytes(wrong)}).open(good)
    other = made(cipher, integ, sk_e=bytes(range(50, 50 + len(sk.sk_e))))
    vector, _, icv = overhead(cipher, integ)
    assert good[32:32 + vector] == bytes(vector)
    assert protected(other, bytes(20))[32 + vector:-icv] != good[32 + vector:-icv]


@each_lock
def test_an_authentic_message_may_still_make_no_sense(cipher: str, integ: str) -> None:
    "No Pad Length, one that is longer than everything, half a block: nobody but the peer did it."
    sk = made(cipher, integ)
    vector, block, icv = overhead(cipher, integ)
    def message(plaintext: bytes) -> bytes:
        size = 4 + vector + len(plaintext) + icv
        seen = protected(sk, b'')[:24] + (28 + size).to_bytes(4, 'big') + bytes([Type.NONE, 0])
        seen, iv = seen + size.to_bytes(2, 'big'), bytes(vector)
        return seen + iv + sk.cipher.seal(seen, iv, plaintext)
    assert sk.open(message(bytes([block - 1]) * block)).payloads == ()
    for plaintext in b'', b'\xff' * block, bytes([block]) * block:
        with pytest.raises(InvalidSyntax): sk.open(message(plaintext))
    if block == 1: return
    size = 4 + vector + block - 1 + icv
    seen = protected(sk, b'')[:24] + (28 + size).to_bytes(4, 'big') + bytes([Type.Vendor, 0])
    body = seen + size.to_bytes(2, 'big') + bytes(vector + block - 1)
    with pytest.raises(InvalidSyntax, match='no whole blocks'):
        sk.open(body + compute_icv(Integrity(sk.integ.id), sk.sk_a, body))


@each_lock
def test_capacity_is_exact(cipher: str, integ: str) -> None:
    sk = made(cipher, integ)
    for room in range(130):
        fits = sk.max_plaintext(room)
        for size, good in (fits, True), (fits + 1, False):
            if size >= 0: assert (len(protected(sk, bytes(size))) - 32 <= room) == good
        assert (fits >= 0) == (room >= sum(overhead(cipher, integ)))


@each_lock
def test_what_precedes_the_vector_is_covered(cipher: str, integ: str) -> None:
    sk, numbers = made(cipher, integ), SKF.pack(1, 2)
    data = protected(sk, b'piece', fixed=numbers)
    assert data[32:36] == numbers and sk.cipher.icv_size == overhead(cipher, integ)[2]
    def content(data: bytes) -> bytes:
        _, sealed = parse_outer(data, Type.SKF)
        return sk.decrypted(data, replace(sealed, data=sealed.data[4:]))
    assert content(data) == b'piece'
    for at in range(32, 36):
        with pytest.raises(Discard): content(flipped(data, at))


def test_no_key_is_shown() -> None:
    for cipher, integ in LOCKS:
        sk = made(cipher, integ, sk_e=b'\xab' * TABLE[cipher][3])
        shown = repr(sk) + repr(sk.cipher)
        assert 'abab' not in shown and '\\xab' not in shown and sk.encr.name in shown


# Vectors

COUNTED = ['aes128ctr', 'aes256gcm16', 'aes128gcm8', 'aes128ccm12', 'chacha20poly1305']


@pytest.mark.parametrize('cipher', COUNTED)
@pytest.mark.parametrize('random', [bytes, b'\xff'.__mul__], ids=['zeros', 'ones'])
def test_a_counted_vector_never_comes_twice(cipher: str, random: Random) -> None:
    "Whatever `random` gives; 10,000 messages and fragments of one IKE SA."
    sk = made(cipher, '' if is_aead(cipher) else 'sha256')
    plain = {protected(sk, b'', random)[32:40] for _ in range(5000)}
    pieces = {protected(sk, b'', random, SKF.pack(1, 2))[36:44] for _ in range(5000)}
    assert len(plain | pieces) == 10_000


@pytest.mark.parametrize('cipher', ['aes128', 'camellia256', '3des'])
def test_a_chained_vector_is_drawn(cipher: str) -> None:
    drawn = []

    def random(size: int) -> bytes:
        drawn.append(bytes([len(drawn) + 1]) * size)
        return drawn[-1]
    sk, size = made(cipher, 'sha256'), overhead(cipher, 'sha256')[0]
    sent = [protected(sk, b'', random) for _ in range(20)]
    assert [data[32:32 + size] for data in sent] == drawn and len(set(drawn)) == 20


@pytest.mark.parametrize('word', [w for w in CIPHERS if w not in WEAK])
def test_the_two_directions_have_different_keys(word: str) -> None:
    suite, = parse_proposals(lines(word)[0][0], IKE)
    keys = ike_keys(suite, bytes(32), b'i' * 32, b'r' * 32, *SPIS)
    one, other = directions(suite, keys)
    assert one.sk_e != other.sk_e and (one.sk_a != other.sk_a or is_aead(word))
    assert len(one.sk_e) == len(other.sk_e) == TABLE[word][3]
    assert len(one.sk_a) == len(other.sk_a) == (0 if is_aead(word) else 32)
    with pytest.raises(Discard): other.open(protected(one, b''))
    assert one.cipher is not other.cipher and one.cipher is one.cipher


# Keys

PRFS = [word for word, (kind, *_) in TABLE.items() if kind == PRF]
SHORT = {'prfaesxcbc', 'prfaescmac'}  # their keys have a fixed size (RFC 7296 §2.14)


@pytest.mark.parametrize('word', PRFS)
@pytest.mark.parametrize('sizes', [(16, 16), (32, 32), (20, 256)])
def test_which_octets_of_the_nonces_count(word: str, sizes: tuple[int, int]) -> None:
    """RFC 7296 §2.14: "only the first 64 bits of Ni and the first 64 bits of Nr are used in
    calculating SKEYSEED, but all the bits are used for input to the prf+ function\""""
    kind, secret = Prf(transform(word).id), bytes(range(32))
    ni, nr = (bytes(range(n, n + 20)) + bytes(size - 20) if size > 20 else bytes(range(n, n + size))
              for n, size in zip((1, 101), sizes, strict=True))
    suite, = parse_proposals('aes128-sha256-prfsha256-ecp256', IKE)
    suite = Proposal(1, IKE, b'', tuple(transform(word) if t.type == PRF else t
                                        for t in suite.transforms))
    seed = skeyseed(kind, ni, nr, secret)
    used = (8, 8) if word in SHORT else sizes
    assert seed == prf(kind, ni[:used[0]] + nr[:used[1]], secret)
    keys, later = ike_keys(suite, seed, ni, nr, *SPIS), skeyseed(kind, ni, nr, secret, b'd' * 16)
    for which, at in [(0, at) for at in range(sizes[0])] + [(1, at) for at in range(sizes[1])]:
        others = (flipped(ni, at), nr) if which == 0 else (ni, flipped(nr, at))
        assert (skeyseed(kind, *others, secret) != seed) == (at < used[which])
        assert ike_keys(suite, seed, *others, *SPIS) != keys
        assert skeyseed(kind, *others, secret, b'd' * 16) != later
    assert later == prf(kind, b'd' * 16, secret + ni + nr)


@pytest.mark.parametrize('word', PRFS)
def test_prfplus_is_a_chain_of_at_most_255_blocks(word: str) -> None:
    kind, size = Prf(transform(word).id), TABLE[word][3]
    first = prf(kind, b'k' * size, b'seed\1')
    second = prf(kind, b'k' * size, first + b'seed\2')
    assert prfplus(kind, b'k' * size, b'seed', 2 * size) == first + second
    assert prf_size(kind) == len(first) == size
    assert len(prfplus(kind, b'k', b'', 255 * size)) == 255 * size
    with pytest.raises(ValueError, match=f'ends at {255 * size} octets'):
        prfplus(kind, b'k', b'', 255 * size + 1)


@pytest.mark.parametrize('cipher, integ', [(c, i) for c, i in LOCKS if {c, i}.isdisjoint(WEAK)],
                         ids=lambda word: word or 'aead')
def test_keymat_is_cut_in_the_order_of_rfc_7296_2_17(cipher: str, integ: str) -> None:
    suite, = parse_proposals('-'.join(filter(None, (cipher, integ))), ESP)
    e, a = TABLE[cipher][3], TABLE[integ][3] if integ else 0
    sha = Prf.PRF_HMAC_SHA2_256
    keys = keymat(sha, b'd' * 32, b'ni', b'nr', suite, b'g^ir')
    stream = prfplus(sha, b'd' * 32, b'g^irninr', 2 * (e + a))
    assert (keys.encr_i, keys.integ_i, keys.encr_r, keys.integ_r) == (
        stream[:e], stream[e:e + a], stream[e + a:2 * e + a], stream[2 * e + a:])


# Weak algorithms: not used, but old captures can be read

def test_a_message_with_3des_and_sha1_is_read() -> None:
    "Built here by hand, from the library's parts."
    sk = made('3des', 'sha1')
    _, chain = pack_chain((Delete(IKE),))
    plaintext, iv = chain + bytes(7) + b'\7', b'\x5a' * 8
    encryptor = Cipher(TripleDES(sk.sk_e), modes.CBC(iv)).encryptor()
    body = iv + encryptor.update(plaintext) + encryptor.finalize()
    size = 4 + len(body) + 12
    head = bytes(Header(*SPIS, Type.SK, ExchangeType.INFORMATIONAL, False, True, 3, 28 + size))
    seen = head + bytes([Type.Delete, 0]) + size.to_bytes(2, 'big') + body
    data = seen + hmac.digest(sk.sk_a, seen, 'sha1')[:12]
    assert sk.open(data).payloads == (Delete(IKE),)
    assert repr(sk) == '<SK TRIPLE_DES/HMAC_SHA1_96>'


@pytest.mark.parametrize('size', [0, 1, 20, 64, 65, 200])
def test_the_old_prf_is_hmac_sha1(size: int) -> None:
    expected = hmac.new(b'k' * size, b'data', 'sha1').digest()
    assert prf(Prf.PRF_HMAC_SHA1, b'k' * size, b'data') == expected


def test_what_has_no_cipher_can_not_be_a_lock() -> None:
    "Only what has been negotiated gets so far; `key_size` refuses the rest before."
    for encr in Encryption.DES, Encryption.NULL, Encryption.CAMELLIA_CTR, Encryption(999):
        with pytest.raises(NoProposalChosen): key_size(Transform(TransformType.ENCR, encr))
    with pytest.raises(NoProposalChosen):
        key_size(Transform(TransformType.INTEG, Integrity.HMAC_MD5_96))
