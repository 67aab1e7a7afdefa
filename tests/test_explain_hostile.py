"""Whatever is in a capture, the explainer says what it can: cut, flipped, random, huge, or not IKE at all.

It never raises, and its dissections have each octet once."""
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

import pytest
from explaining import (
    LIVE, Recorded, call, every, flipped, kinds, pcap, plain, record, remarks, seen,
    story, tiled)
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.capture.keylog import KeyTable, parse_keylog
from ike_lit.capture.pcap import Capture, Pieces, Captured
from ike_lit.capture.show import Story, notebook, story_html, story_json, analyse
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.const import ExchangeType, Type
from ike_lit.wire.header import Header
from ike_lit.wire.payload import Vendor
from ike_lit.wire.sk import parse_outer

QUICK = settings(max_examples=70, deadline=None, derandomize=True)


@pytest.fixture(scope='module')
def life() -> Recorded:
    r = record(esp='aes128gcm16-x25519', seed=41)
    r.go_on('alice', rekey_child, next(iter(r.alice.established[0].children)))
    r.go_on('bob', rekey_ike_sa)
    return r


def shown(found: Story) -> int:
    "Show a story in every way there is, and check what holds of any. How many characters its text has."
    for told in found.told:
        assert tiled(told.outside) == told.seen.data
        if told.inside: tiled(told.inside)
        assert all(r.grade in ('fact', 'odd', 'wrong') and r.text for r in told.remarks)
    text = '\n'.join(found.lines(octets=True))
    assert '\x1b' not in text and json.loads(json.dumps(story_json(found)))
    assert story_html(found).endswith('</html>\n') and json.loads(notebook(found, 'story'))
    return len(text)


def looked_at(messages: list[Captured], keys: KeyTable) -> Story:
    found = analyse(Capture(tuple(messages), len(messages), Counter()), keys)
    assert len(found.told) == len(messages)
    shown(found)
    return found


# Files

def test_files_that_are_no_captures(tmp_path: Path) -> None:
    "Empty, random, text, a notebook, a magic number and then nothing good: one line each, and the good one."
    chance = Random(2)  # noqa: S311
    octets = {'empty': b'', 'random': chance.randbytes(5000), 'text': b'GET / HTTP/1.0\r\n\r\n',
              'magic': bytes.fromhex('d4c3b2a1'), 'magic and random': bytes.fromhex('d4c3b2a1') +
              chance.randbytes(999), 'section': bytes.fromhex('0a0d0d0a') + chance.randbytes(999),
              'zeros': bytes(4096), 'ones': b'\xff' * 4096, 'link': pcap([])[:20] + b'\x69\0\0\0',
              'good': (LIVE[0] / 'capture.pcap').read_bytes()}
    for name, data in octets.items(): (tmp_path / name).write_bytes(data)
    done = call(tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == len(octets) - 1
    for name in set(octets) - {'good'}: assert f'{tmp_path / name}: ' in done.stderr
    assert done.stdout.startswith('good: 14 IKE messages in 14 packets')
    assert 'link type 105 can not be read' in done.stderr


@given(st.permutations(range(7)), st.lists(st.integers(0, 6), max_size=6), st.booleans())
@QUICK
def test_pieces_of_a_datagram_in_any_order_and_twice(order: list[int], again: list[int], empty: bool) -> None:
    whole = bytes(range(7 * 8 - 3))
    pieces, done = Pieces(), []
    for n in [*again, *order]:
        if empty: pieces.add('other', 8 * n, True, b'other---')
        if out := pieces.add('this', 8 * n, n < 6, whole[8 * n:8 * n + 8]): done.append(out)
    assert done and set(done) == {whole}


def test_first_pieces_get_no_memory() -> None:
    pieces = Pieces()
    for n in range(1000): assert pieces.add(n, 0, True, bytes(8)) is None
    assert len(pieces.waiting) <= Pieces.most
    assert pieces.add(999, 8, False, b'end') == bytes(8) + b'end'


# Messages

def test_messages_that_end_anywhere(life: Recorded) -> None:
    "Cut, with a header that says so and with one that does not: something is wrong, and nothing is opened."
    for n in (0, 2, 4):
        data = life.seen[n].data
        for size in (*range(60), *range(60, len(data), 29)):
            cut = data[:size]
            told = looked_at([life.seen[n]._replace(data=cut)], life_table(life)).told[0]
            assert remarks(told, 'wrong') and not told.inside
            if size < 28: continue
            honest = cut[:24] + size.to_bytes(4, 'big')
            found = looked_at([*life.seen[:n], life.seen[n]._replace(data=honest + cut[28:])],
                              life_table(life))
            assert not found.told[-1].inside and not kinds(found.told[-1])[5:]
            assert remarks(found.told[-1], 'wrong')


def life_table(life: Recorded) -> KeyTable: return KeyTable(secrets=life.secrets)


def resealed(life: Recorded, data: bytes, plaintext: object) -> bytes:
    "A message of the first IKE SA with something else in the box."
    header, box = parse_outer(data, Type.SK)
    lock = life.locks[0][not header.initiator]
    inside = plaintext(lock.decrypted(data, box))
    return lock.protect(partial(Header, header.spi_i, header.spi_r, Type.SK, header.exchange_type,
                                header.response, header.initiator, header.message_id),
                        box.first, inside, bytes)


def test_boxes_whose_inside_ends_anywhere(life: Recorded) -> None:
    "An authentic message that makes no sense is opened, said to be wrong, and shown."
    for n in range(2, 8):
        inside = len(life.seen[n].data) - 28 - 4 - 8 - 16
        for size in range(0, inside - 1, 23):
            data = resealed(life, life.seen[n].data, lambda chain, size=size: chain[:size])
            found = looked_at([*life.seen[:n], life.seen[n]._replace(data=data)], life_table(life))
            assert any(text.startswith('opened, but makes no sense') for text in
                       remarks(found.told[-1], 'wrong'))
            assert not any(text.startswith('AUTH') for text in remarks(found.told[-1]))


@given(st.integers(0, 11), st.lists(st.tuples(st.integers(28, 600), st.integers(0, 255)), min_size=1,
                                    max_size=5), st.booleans())
@QUICK
def test_octets_that_are_others(which: int, changes: list[tuple[int, int]], inside: bool) -> None:
    "In the clear, or sealed by somebody who has the keys."
    life = once()

    def changed(octets: bytes) -> bytes:
        out = bytearray(octets)
        for at, octet in changes:
            if out: out[at % len(out)] = octet
        return bytes(out)
    messages = list(life.seen)
    data = messages[which].data
    first = data[:8] == life.seen[0].data[:8]
    if data[16] == Type.SK and inside and first: data = resealed(life, data, changed)
    else: data = data[:28] + changed(data[28:])
    messages[which] = messages[which]._replace(data=data)
    looked_at(messages, life_table(life))


def once(kept: list[Recorded] = []) -> Recorded:  # noqa: B006  # one for all examples
    if not kept:
        kept.append(record(esp='aes128gcm16-x25519', seed=42))
        kept[0].go_on('alice', rekey_child, next(iter(kept[0].alice.established[0].children)))
        kept[0].go_on('bob', rekey_ike_sa)
    return kept[0]


@given(st.lists(st.one_of(
    st.binary(max_size=200),
    st.builds(lambda kind, flags, mid, octets: bytes(Header(b'i' * 8, b'r' * 8, Type(octets[0]), kind,
                                                            bool(flags & 1), bool(flags & 2), mid,
                                                            28 + len(octets) - 1)) + octets[1:],
              st.sampled_from([ExchangeType(n) for n in (34, 35, 36, 37, 38, 240)]), st.integers(0, 3),
              st.integers(0, 2), st.tuples(st.sampled_from([0, *range(33, 54), 200]), st.binary(max_size=150))
              .map(lambda pair: bytes([pair[0]]) + pair[1]))), min_size=1, max_size=4))
@QUICK
def test_random_datagrams(messages: list[bytes]) -> None:
    looked_at(seen(*messages), KeyTable(secrets={bytes(16): b'secret'}))


def message(kind: int, octets: bytes) -> bytes:
    return bytes(Header(b'i' * 8, bytes(8), Type(kind), ExchangeType.IKE_SA_INIT, False, True, 0,
                        28 + len(octets))) + octets


def chain(kind: int, body: bytes, count: int) -> bytes:
    one = bytes([0]) + (4 + len(body)).to_bytes(2, 'big') + body
    return (bytes([kind]) + one) * (count - 1) + bytes([0]) + one


HUGE = {  # a datagram full of something
    'vendor IDs': message(43, chain(43, b'', 8000)), 'unknown': message(200, chain(200, b'', 8000)),
    'errors': message(41, chain(41, bytes([0, 0, 0, 7]), 8000)),
    'one': message(43, chain(43, bytes(60000), 1)),
    'NATs': message(41, chain(41, bytes([0, 0, 0x40, 4]) + bytes(20), 2300)),
    'a Delete': message(42, chain(42, bytes([3, 4, 0x1f, 0x40]) + b'spi!' * 8000, 1)),
    'a count of selectors': message(44, chain(44, b'\xff\0\0\0', 1)),
    'a count of SPIs': message(42, chain(42, b'\x03\x04\xff\xff', 1)),
    'a count of transforms': message(33, chain(33, bytes([0, 0, 0, 8, 1, 1, 0, 255]), 1)),
    'transforms': message(33, chain(33, bytes([0, 0, 8, 0, 1, 1, 0, 255]) + b''.join(
        bytes([3 if n < 254 else 0, 0, 0, 8, n, 0, 0, 3]) for n in range(255)), 1)),
    'attributes': message(47, chain(47, bytes([1, 0, 0, 0]) + bytes([0, 3, 0, 0]) * 8000, 1))}


@pytest.mark.parametrize('what', HUGE)
def test_huge_messages_take_no_time(what: str) -> None:
    "As text and as JSON; a line of either is never long."
    begun = time.monotonic()
    found = analyse(Capture(tuple(seen(HUGE[what])), 1, Counter()), KeyTable())
    lines = list(found.lines())
    assert max(map(len, lines)) <= 1000 and len(json.dumps(story_json(found))) < 100 * len(HUGE[what])
    assert time.monotonic() - begun < 10


# Not IKE

IKE1 = bytes.fromhex('1122334455667788' + '00' * 8 + '01100200' + '00000000' + '0000001c')


def test_what_is_not_ikev2_is_named() -> None:
    "IKEv1, the marker of port 4500, a version to come, and something else."
    good = plain(Vendor(b'x'))
    for data, words, grade in (
            (IKE1, 'IKE version 1', 'odd'),
            (bytes(4) + good, 'four zero octets before the header', 'wrong'),
            (flipped(good, 17, 0x10), 'IKE version 3', 'wrong'), (b'', 'not readable', 'wrong'),
            (b'\xff', 'not readable', 'wrong'), (bytes(28), 'not readable', 'wrong'),
            (good + b'x', 'the header says', 'wrong')):
        told = story(seen(data)).told[0]
        assert told.title == 'not IKEv2' and len(told.remarks) == 1
        assert words in remarks(told, grade)[0]


def test_strangers_do_not_hide_a_conversation(life: Recorded) -> None:
    "A capture with all of that between its messages tells the same of them."
    strangers = [IKE1, b'', bytes(40), plain(Vendor(b'v'), spi_i=b's' * 8), HUGE['a count of SPIs'],
                 plain(exchange=ExchangeType(40), spi_i=b's' * 8, spi_r=b't' * 8), b'\xff' * 100]
    mixed = [m for n, one in enumerate(life.seen)
             for m in (Captured(0, 0, ALICE, BOB, strangers[n % 7]), one)]
    mixed = [m._replace(number=n) for n, m in enumerate(mixed, 1)]
    alone, among = story(life.seen, life.lines), story(mixed, life.lines)
    told = [t for t in among.told if t.seen.data in {m.data for m in life.seen}]
    assert [remarks(t) for t in told] == [remarks(t) for t in alone.told]
    assert not every(alone, 'wrong')


# Key logs

@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(
    ['# Ni,', ',g^ir,', 'ab' * 16, ',', '"', '"AES-CBC-128 [RFC3602]"', '"NONE [RFC4306]"', '\n', '#', '0x',
     ' ', 'é', '\r\n', '# not known to Wireshark: '])).map(''.join)))
@QUICK
def test_any_text_is_a_key_log_or_an_error_with_a_line(text: str) -> None:
    try: table = parse_keylog(text)
    except ValueError as error: assert str(error).startswith('line ') and len(str(error)) < 150
    else: assert len(table.rows) + len(table.secrets) <= text.count('\n') + text.count('\r') + 1


def test_a_key_log_has_comments_empty_lines_and_any_line_ends(life: Recorded) -> None:
    lines = life.lines + life.rows
    for text in (f'# written by hand\n\n{lines}', lines.replace('\n', '\r\n'), lines.rstrip('\n'),
                 lines.replace('\n', '\n  \n# more\n'), lines + lines):
        table = parse_keylog(text)
        assert table.secrets == life.secrets and len(table.rows) == 2
