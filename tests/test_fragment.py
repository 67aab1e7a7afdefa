"""RFC 7383: whatever way a message is cut and its pieces arrive, it is the same message,
and what is not authentic changes nothing.
"""
import json
import random
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
from ike_lit.wire.const import Discard, ExchangeType, InvalidSyntax, ProtocolID, Type
from ike_lit.wire.fragment import (
    SKF, MAX_FRAGMENTS, MAX_MESSAGE, REASSEMBLY_SECONDS, Reassembly, open_fragment, room, split)
from ike_lit.wire.header import HEADER, Header, Reader
from ike_lit.wire.payload import Delete, Notify, Opaque, Packet, Payload, Vendor, pack_chain, parse_chain
from ike_lit.wire.proposal import parse_proposals
from ike_lit.wire.sk import SK

SUITE, = parse_proposals('camellia256-sha256-modp2048', ProtocolID.IKE)
ENCR, INTEG = SUITE.transforms[:2]
OURS, OTHERS = SK(ENCR, INTEG, b'e' * 32, b'a' * 32), SK(ENCR, INTEG, b'x' * 32, b'y' * 32)
SPIS = bytes(range(1, 9)), bytes(range(11, 19))
VECTOR = json.loads((Path(__file__).parent / 'vectors' / 'skf.json').read_text())
h = bytes.fromhex


def seeded(seed: int) -> random.Random: return random.Random(seed)  # noqa: S311  # no secrets


def big(size: int = 600, seed: int = 1) -> Packet:
    "A message with a chain of `size` octets."
    octets = seeded(seed).randbytes(size - 4 - 8)  # a generic header, a Delete
    return Packet(ExchangeType.IKE_AUTH, (Opaque(Type.EAP, octets), Delete(ProtocolID.IKE)))


def cut(packet: Packet, size: int, message_id: int = 1, *, sk: SK = OURS, response: bool = False,
        source: Callable[[int], bytes] | None = None) -> tuple[bytes, ...]:
    return split(sk, packet, *SPIS, response=response, initiator=True, message_id=message_id,
                 random=source or seeded(7).randbytes, room=size)


def made(number: int, total: int, content: bytes = b'?', *, first: Type = Type.Vendor,
         message_id: int = 1, exchange: ExchangeType = ExchangeType.IKE_AUTH,
         response: bool = False) -> bytes:
    "A fragment as only the true peer can make it, with whatever it likes in it."
    header = partial(Header, *SPIS, Type.SKF, exchange, response, True, message_id)
    return OURS.protect(header, first, content, bytes, SKF.pack(number, total))


def state(pieces: Reassembly) -> tuple: return dict(pieces.pieces), pieces.since


def refused(pieces: Reassembly, data: bytes, now: float = 0, sk: SK = OURS) -> str:
    "Add what must be dropped, and see that nothing has changed."
    before = state(pieces)
    with pytest.raises(Discard) as raised: pieces.add(sk, data, now)
    assert state(pieces) == before
    return str(raised.value)


# Cutting

@pytest.mark.parametrize('size', [16, 17, 31, 32, 100, 600, 64 * 15, 64 * 15 + 1])
def test_every_room(size: int) -> None:
    "Never too large, never one fragment too many, and always the same message."
    packet, smallest = big(size), 28 + 4 + 4 + 16 + 16 + 16
    first, chain = pack_chain(packet.payloads)
    whole = len(OURS.seal(packet, *SPIS, response=False, initiator=True, message_id=1, random=bytes))
    for allowed in range(whole + 20):
        block = (allowed - smallest) // 16 * 16 + 15  # octets in each fragment
        if allowed < whole and (allowed < smallest or -(-len(chain) // block) > MAX_FRAGMENTS):
            with pytest.raises(ValueError, match='do not go into'): cut(packet, allowed)
            continue
        datagrams = cut(packet, allowed)
        assert max(map(len, datagrams)) <= allowed
        if allowed >= whole:
            assert len(datagrams) == 1 and OURS.open(datagrams[0]).payloads == packet.payloads
            continue
        assert len(datagrams) == -(-len(chain) // block)
        boxes = [Packet.parse(Reader(d)).payloads[0] for d in datagrams]
        assert [b.kind for b in boxes] == [Type.SKF] * len(boxes)
        assert [b.first for b in boxes] == [first] + [Type.NONE] * (len(boxes) - 1)
        assert [b.data[:4] for b in boxes] == [
            SKF.pack(n + 1, len(boxes)) for n in range(len(boxes))]
        assert len({b.data[4:20] for b in boxes}) == len(boxes)  # each has its own IV
        pieces = Reassembly()
        *before, packet_again = [pieces.add(OURS, d, 0) for d in datagrams]
        assert set(before) <= {None} and packet_again.payloads == packet.payloads
        assert packet_again.header == Header.parse(Reader(datagrams[0]))
        assert packet_again.data == datagrams[0] and not pieces.pieces


def test_an_empty_message() -> None:
    liveness = Packet(ExchangeType.INFORMATIONAL, ())
    assert OURS.open(cut(liveness, 80)[0]).payloads == ()
    for allowed in range(-50, 80):
        with pytest.raises(ValueError, match='do not go into'): cut(liveness, allowed)


def test_a_message_of_more_than_the_bound_is_not_sent() -> None:
    def of(size: int) -> Packet:
        return Packet(ExchangeType.IKE_AUTH, (Vendor(bytes(40000)), Vendor(bytes(size))))
    pieces, fits = Reassembly(), of(MAX_MESSAGE - 40008)
    assert [pieces.add(OURS, d, 0) for d in cut(fits, 1228)][-1].payloads == fits.payloads
    with pytest.raises(ValueError, match='65536 octets of payloads'): cut(of(MAX_MESSAGE - 40007), 1228)
    with pytest.raises(ValueError, match='Generic Payload Header'): cut(of(40000), 100000)


def test_room() -> None:
    assert (room('192.0.2.1', False), room('192.0.2.1', True)) == (1252, 1248)
    assert (room('2001:db8::1', False), room('2001:db8::1', True)) == (1232, 1228)
    assert room('fe80::1%eth0', False, 1500) == 1452
    with pytest.raises(ValueError, match='does not appear'): room('bob.example.org', False)


# Joining

def test_every_order_and_duplicates() -> None:
    packet = big(300)
    datagrams = cut(packet, 160)
    assert len(datagrams) == 4
    for order in permutations(datagrams):
        pieces = Reassembly()
        assert [pieces.add(OURS, d, 0) for d in order[:3]] == [None] * 3
        assert pieces.add(OURS, order[3], 0).payloads == packet.payloads
    packet, rng = big(900), seeded(7383)
    datagrams = cut(packet, 116)
    for _ in range(100):
        pieces, seen = Reassembly(), set()
        while True:
            n = rng.randrange(len(datagrams))
            seen.add(n)
            if whole := pieces.add(OURS, datagrams[n], 0): break
            assert len(seen) < len(datagrams) and set(pieces.pieces) == {n + 1 for n in seen}
        assert len(seen) == len(datagrams)
        assert (whole.payloads, whole.data) == (packet.payloads, datagrams[0])


def test_the_first_of_two_with_one_number_counts() -> None:
    "Only the true peer can make two; so it is no attack, but the rule is fixed."
    pieces = Reassembly()
    pieces.add(OURS, made(1, 2, b'\0\0\0\x06'), 0)
    assert pieces.add(OURS, made(1, 2, b'\0\0\0\x05'), 1) is None
    assert pieces.since == 0
    assert pieces.add(OURS, made(2, 2, b'ab'), 0).payloads == (Vendor(b'ab'),)


def test_the_type_comes_from_fragment_1_whichever_is_first() -> None:
    pieces = Reassembly()
    pieces.add(OURS, made(2, 2, b'ab', first=Type.Nonce), 0)
    assert pieces.add(OURS, made(1, 2, b'\0\0\0\x06'), 0).payloads == (Vendor(b'ab'),)


def test_a_single_fragment_is_a_message() -> None:
    assert Reassembly().add(OURS, made(1, 1, b'\0\0\0\x06ab'), 0).payloads == (Vendor(b'ab'),)


def test_cut_again() -> None:
    "A larger total begins afresh, a smaller one is a straggler, at every point of the way."
    packet = big(300)
    few, many = cut(packet, 160), cut(packet, 116)
    assert len(few) < len(many)
    for came in range(len(few)):
        pieces = Reassembly()
        for d in few[:came]: pieces.add(OURS, d, 0)
        for n, d in enumerate(many[:-1]):
            assert pieces.add(OURS, d, 5) is None
            assert set(pieces.pieces) == set(range(1, n + 2)) and pieces.since == 5
            for old in few: assert 'by now' in refused(pieces, old, 6)
        assert pieces.add(OURS, many[-1], 7).payloads == packet.payloads


@pytest.mark.parametrize('other', [
    {'message_id': 2}, {'message_id': 0}, {'response': True},
    {'exchange': ExchangeType.INFORMATIONAL}], ids=str)
@pytest.mark.parametrize('total', [2, 3, 4])
def test_another_message_begins_afresh(other: dict, total: int) -> None:
    pieces = Reassembly()
    for n in (1, 2): pieces.add(OURS, made(n, 3), 0)
    assert pieces.add(OURS, made(2, total, b'ab', **other), 1) is None
    assert [p.content for p in pieces.pieces.values()] == [b'ab'] and pieces.since == 1


def test_old_pieces_are_forgotten() -> None:
    pieces = Reassembly()
    assert pieces.expires is None
    pieces.add(OURS, made(1, 3), 100)
    pieces.add(OURS, made(2, 3), 110)  # the clock runs from the first
    assert pieces.expires == 100 + REASSEMBLY_SECONDS
    assert refused(pieces, made(3, 3)[:-1] + b'?', 500)  # nobody but the peer makes them go
    assert pieces.add(OURS, made(1, 3), 130) is None and set(pieces.pieces) == {1, 2}
    assert pieces.add(OURS, made(3, 3), 130.1) is None and set(pieces.pieces) == {3}
    pieces.add(OURS, made(1, 2), 161)  # a smaller total, but of what is too old
    assert repr(pieces) == '<fragments [1] of 2>'
    pieces.clear()
    assert pieces.expires is None and repr(pieces) == '<fragments [] of 0>'


# Lies

def test_every_octet_and_every_length() -> None:
    "Three changes to each octet, each truncation, one octet more: dropped, and nothing kept."
    packet = big(300)
    one, two, *rest = cut(packet, 160)
    pieces = Reassembly()
    pieces.add(OURS, one, 0)
    for at in range(len(two)):
        for mask in 0x01, 0x80, 0xff:
            refused(pieces, two[:at] + bytes([two[at] ^ mask]) + two[at + 1:])
        refused(pieces, two[:at])
    refused(pieces, two + b'\0')
    assert [pieces.add(OURS, d, 0) for d in (two, *rest)][-1].payloads == packet.payloads


def test_a_forged_piece_takes_no_place() -> None:
    "Right in all that is visible, and there first; or in place of one that has come; or cut again."
    packet = big(300)
    true, forged, smaller = cut(packet, 160), cut(big(300, 2), 160, sk=OTHERS), cut(packet, 116, sk=OTHERS)
    pieces = Reassembly()
    for n, d in enumerate(true):
        assert d[:36] == forged[n][:36]
        assert refused(pieces, forged[n]) == 'the message is not authentic'
        last = pieces.add(OURS, d, 0)
        if last is None:
            for x in (*forged, *smaller): assert refused(pieces, x) == 'the message is not authentic'
    assert last.payloads == packet.payloads


def test_moved_pieces() -> None:
    "Octets of a true piece under the numbers or the header of another."
    a, b, pieces = cut(big(300), 160), cut(big(300, 2), 160, message_id=2), Reassembly()
    pieces.add(OURS, a[0], 0)
    refused(pieces, a[1][:32] + a[2][32:36] + a[1][36:])
    refused(pieces, a[1][:36] + b[1][36:])
    refused(pieces, b[1][:HEADER.size] + a[1][HEADER.size:])


@pytest.mark.parametrize(('number', 'total'), [
    (0, 0), (0, 1), (0, 3), (1, 0), (4, 3), (2, 1), (1, MAX_FRAGMENTS + 1), (65535, 65535), (1, 65535)])
def test_numbers_that_cannot_be(number: int, total: int) -> None:
    pieces = Reassembly()
    assert 'we take up to 64' in refused(pieces, made(number, total))
    pieces.add(OURS, made(2, 3), 0)
    assert 'we take up to 64' in refused(pieces, made(number, total))


def test_what_is_not_a_fragment() -> None:
    packet, pieces = big(100), Reassembly()
    pieces.add(OURS, made(1, 2), 0)
    clear = packet.encode(*SPIS, response=False, initiator=True, message_id=1)
    assert refused(pieces, clear) == 'the message is not protected'
    assert refused(pieces, cut(packet, 1000)[0]) == 'the message is not protected'
    with pytest.raises(Discard, match='not protected'): OURS.open(made(1, 1, b'\0\0\0\x06ab'))
    for size in range(70):  # a fragment that ends in its numbers, its IV, or its checksum
        body = b'\0\0' + (4 + size).to_bytes(2, 'big') + b'\0\1\0\1' + bytes(size)
        body = body[:4 + size]
        header = Header(*SPIS, Type.SKF, ExchangeType.IKE_AUTH, False, True, 1, HEADER.size + len(body))
        refused(pieces, bytes(header) + body)
    for data in (b'', b'?', bytes(28), seeded(1).randbytes(200)): refused(pieces, data)


# Bounds

def test_no_more_than_so_many_octets() -> None:
    pieces = Reassembly()
    for n in range(1, 17): pieces.add(OURS, made(n, 64, bytes(4000)), 0)
    assert 'more than 65535' in refused(pieces, made(17, 64, bytes(1536)))
    assert pieces.add(OURS, made(17, 64, bytes(1535)), 0) is None
    assert 'more than 65535' in refused(pieces, made(18, 64, b'?'))
    assert pieces.add(OURS, made(19, 64, b''), 0) is None
    kept = sum(len(p.content) + len(p.data) for p in pieces.pieces.values())
    assert kept <= MAX_MESSAGE + len(pieces.pieces[1].data)


def test_no_more_than_so_many_pieces() -> None:
    pieces, rng = Reassembly(), seeded(2)
    for n in range(2000):
        total = rng.randint(2, 64)
        try: pieces.add(OURS, made(rng.randint(1, total), total, b'', message_id=n // 40), n)
        except (Discard, InvalidSyntax): continue
        assert len(pieces.pieces) <= MAX_FRAGMENTS
        assert len({(p.message, p.total) for p in pieces.pieces.values()}) <= 1


# Authentic nonsense

@pytest.mark.parametrize(('first', 'chain', 'what'), [
    (Type.Vendor, bytes(8), 'length 0'), (Type.Notify, h('00000008 03040009'), 'SPI needs 4 octets'),
    (Type.SK, h('2a000008 01000000'), 'an Encrypted payload inside'),
    (Type.SKF, h('2a000008 01000000'), 'an Encrypted payload inside'),
    (Type.Vendor, h('2a00ffff 01000000'), 'claims 65531 octets')])
def test_a_chain_that_makes_no_sense(first: Type, chain: bytes, what: str) -> None:
    pieces = Reassembly()
    pieces.add(OURS, made(2, 2, chain[5:]), 0)
    with pytest.raises(InvalidSyntax, match=what): pieces.add(OURS, made(1, 2, chain[:5], first=first), 0)
    assert not pieces.pieces


def test_padding_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr('ike_lit.wire.sk.pad', lambda content, block_size: bytes(15) + b'\x10')
        bad = made(2, 3)
    pieces = Reassembly()
    pieces.add(OURS, made(1, 3), 0)
    before = state(pieces)
    with pytest.raises(InvalidSyntax, match='16 octets of padding'): pieces.add(OURS, bad, 0)
    assert state(pieces) == before


# strongSwan's fragments

def direction(letter: str) -> SK:
    suite, = parse_proposals(VECTOR['proposal'], ProtocolID.IKE)
    keys = VECTOR['keys']
    return SK(*suite.transforms[:2], h(keys[f'Sk_e{letter}']), h(keys[f'Sk_a{letter}']))


def name(payload: Payload) -> str:
    return 'N' if isinstance(payload, Notify) else str(payload.kind)


@pytest.mark.parametrize('n', [0, 1], ids=['request', 'response'])
def test_strongswans_fragments(n: int) -> None:
    "In each order; the payloads are those of its log, and we cut at the same places."
    vector, sk = VECTOR['messages'][n], direction('ir'[n])
    fragments = [h(f) for f in vector['fragments']]
    for order in permutations(fragments):
        pieces = Reassembly()
        *_, whole = [pieces.add(sk, d, 0) for d in order]
        listed = [word.partition('(')[0] for word in vector['payloads'].split('[')[1].strip(' ]').split()]
        assert [name(p) for p in whole.payloads] == listed
        assert (whole.header.response, whole.header.message_id) == (bool(n), 1)
    opened = [open_fragment(sk, f) for f in fragments]
    chain = b''.join(f.content for f in opened)
    packet = Packet(ExchangeType.IKE_AUTH, parse_chain(opened[0].first, Reader(chain)))
    ivs = iter([f[36:52] for f in fragments])
    ours = split(sk, packet, h(VECTOR['spi_i']), h(VECTOR['spi_r']), response=bool(n), initiator=not n,
                 message_id=1, random=lambda size: next(ivs), room=room('10.9.0.1', True, 576))
    assert ours[:-1] == tuple(fragments[:-1])  # the last one has padding, and theirs is not zero
    assert len(ours[-1]) == len(fragments[-1])
    with pytest.raises(Discard): open_fragment(direction('ri'[n]), fragments[0])
