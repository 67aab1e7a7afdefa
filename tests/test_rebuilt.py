"""Whatever `parse` accepts, built again, has the same octets: generated messages, spoiled ones, and those
that other daemons have sent. It is built from what was read, not from the octets that a packet remembers.
"""
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ike_lit import Packet, parse
from ike_lit.wire.const import ExchangeType, IkeError, Type
from ike_lit.wire.fragment import Reassembly, open_fragment
from ike_lit.wire.header import Header
from ike_lit.wire.sk import SK, unpad
from spoil import spoiled
from strategies import MESSAGES, edits, mutations, payloads
from test_fragment import VECTOR, direction
from test_fuzz import examples
from test_hybrid_captures import SESSIONS as HYBRID
from test_vectors import SESSIONS, h, init, live, messages, secrets, with_keys  # noqa: F401  # fixtures

ROOT = Path(__file__).resolve().parent.parent
everything = st.one_of(*MESSAGES.values()).map(lambda m: m.data)


def built(packet: Packet) -> bytes: return bytes(replace(packet, data=b''))


def headed(first: int, chain: bytes) -> bytes:
    header = Header(b'initiate', b'responds', Type(first), ExchangeType.INFORMATIONAL, False, True, 7,
                    28 + len(chain))
    return bytes(header) + chain


def message(kind: int, body: str, *, flags: int = 0) -> bytes:
    "A message with one payload."
    octets = h(body)
    return headed(kind, bytes([0, flags]) + (4 + len(octets)).to_bytes(2, 'big') + octets)


def with_octets(at: int, octets: bytes, after: bytes = b'') -> bytes:
    data = bytearray(message(43, 'abcd') + after)
    data[at:at + len(octets)] = octets
    data[24:28] = len(data).to_bytes(4, 'big')
    return bytes(data)


ODD = {
    'minor version': with_octets(17, b'\x2f'), 'flags': with_octets(19, b'\xdf'),
    'octets after the last payload': with_octets(0, b'', b'rest'), 'nothing but octets': headed(0, b'rest'),
    'unknown exchange': with_octets(18, b'\xfe'), 'critical Vendor': message(43, 'abcd', flags=0x80),
    'RESERVED of a payload': message(43, 'abcd', flags=0x7f), 'RESERVED of what is unknown': message(
        200, 'abcd', flags=0x7f), 'critical EAP': message(48, 'abcd', flags=0xff),
    'critical box': message(46, 'ab' * 40, flags=0x81), 'of what is unreadable': message(42, '', flags=0xff),
    'RESERVED of KE': message(34, '001f 1234 abcd'), 'RESERVED of AUTH': message(39, '02 123456 abcd'),
    'RESERVED of IDi': message(35, '02 123456 61'), 'RESERVED of CP': message(47, '01 123456'),
    'RESERVED of an attribute': message(47, '01 000000 8001 0000'),
    'attribute that does not fit': message(47, '01 000000 0001 0003 aabbcc'),
    'RESERVED of TSi': message(44, '01 123456 07000010 0000ffff 0a000000 0a0000ff'),
    'unknown TS type': message(44, '02 000000 09000008 01020304 07000010 0000ffff 0a000000 0a0000ff'),
    'nothing but unknown TS types': message(45, '01 000000 09000008 01020304'),
    'protocol of a Notify without an SPI': message(41, '01 00 4004 abcd'),
    'unknown Notify': message(41, '09 02 ffff 1234 abcd'),
    'Delete of SPIs without octets': message(42, '03 00 0009'), 'Delete of IKE with SPIs': message(
        42, '01 08 0001 1234567812345678'), 'empty Delete': message(42, '03 00 0000'),
    'RESERVED of a proposal': message(33, '00 55 0010 01 01 00 01 00 00 0008 01 00 0003'),
    'RESERVED of a transform': message(33, '00 00 0010 01 01 00 01 00 66 0008 01 77 0003'),
    'long Key Length': message(33, '00 00 0016 01 01 00 01 00 00 000e 01 00 000c 000e 0002 0080'),
    'Key Length 0': message(33, '00 00 0014 01 01 00 01 00 00 000c 01 00 000c 800e 0000'),
    'unknown attribute': message(33, '00 00 0014 01 01 00 01 00 00 000c 01 00 000c 8011 0080'),
    'Key Length and an unknown one': message(
        33, '00 00 0018 01 01 00 01 00 00 0010 01 00 000c 8011 0001 800e 0080'),
    'the same in another order': message(
        33, '00 00 0018 01 01 00 01 00 00 0010 01 00 000c 800e 0080 8011 0001'),
    'proposals from 7': message(33, '02 00 0010 07 01 00 01 00 00 0008 01 00 0003'
                                    '00 00 0010 08 01 00 01 00 00 0008 01 00 0003'),
    'transforms in any order': message(
        33, '00 00 0018 01 01 00 02 03 00 0008 04 00 001f 00 00 0008 01 00 0003'),
    'unknown numbers': message(33, '00 00 0012 ff 09 02 01 abcd 00 00 0008 f1 00 ffff'),
    'proposal of nothing': message(33, '00 00 0008 01 01 00 00'),
    'nonce that is too short': message(40, 'abcd'), 'certificate without octets': message(37, '04'),
}


@pytest.mark.parametrize('how', ODD)
def test_what_means_nothing_is_kept(how: str) -> None:
    assert built(parse(ODD[how])) == ODD[how]


def test_what_differs_is_not_equal() -> None:
    "Not even if the octets of the messages, which a packet remembers, are left out."
    read = [replace(parse(data), data=b'') for data in [*ODD.values(), message(43, 'abcd')]]
    assert len(set(read)) == len(set(ODD.values())) + 1 == len(read)


@examples(150)
@given(everything)
def test_a_message_is_built_as_it_was(data: bytes) -> None:
    packet = parse(data)
    assert built(packet) == data
    assert not any(p.octets or p.reserved or p.critical for p in packet.payloads)  # nothing odd is in it


@st.composite
def odd_octets(draw: st.DrawFn) -> bytes:
    "A message whose lengths are true, with any octet of a header or of a body replaced."
    payload = draw(payloads)
    body = bytearray(bytes(payload))
    for at, octet in draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3)):
        body[at:at + 1] = bytes([octet]) * len(body[at:at + 1])
    data = bytearray(message(payload.kind, body.hex(), flags=draw(st.integers(0, 255))))
    data[17], data[19] = 0x20 | draw(st.integers(0, 15)), draw(st.integers(0, 255))
    return bytes(data)


@examples(600)
@given(mutations(everything) | odd_octets())
def test_a_spoiled_message_is_built_as_it_was(data: bytes) -> None:
    try: packet = parse(data)
    except IkeError: return
    assert built(packet) == data
    assert parse(built(packet)) == packet


@examples(150)
@given(everything, edits)
def test_messages_are_equal_if_their_octets_are(data: bytes, how: list) -> None:
    other = spoiled(data, how, mend=True)
    try: one, two = (replace(parse(octets), data=b'') for octets in (data, other))
    except IkeError: return
    assert (one == two) == (data == other)


# What others have sent

def chain_of(sk: SK, data: bytes) -> bytes:
    "What is inside a sealed message, its padding left out."
    return unpad(sk.plaintext(data, parse(data).payloads[-1]))


def test_what_strongswan_has_sent_is_built_as_it_was(
        secrets: dict, messages: list[bytes], init: tuple[Packet, Packet]) -> None:  # noqa: F811
    "All messages of a capture, as they are outside and inside."
    for data in messages: assert built(parse(data)) == data
    for sk, data in with_keys(secrets, messages, init):
        packet = sk.open(data)
        assert packet.chain() == (parse(data).payloads[-1].first, chain_of(sk, data))


@pytest.mark.parametrize('n', [0, 1], ids=['request', 'response'])
def test_fragments_of_strongswan_are_built_as_they_were(n: int) -> None:
    sk, pieces = direction('ir'[n]), Reassembly()
    fragments = [h(f) for f in VECTOR['messages'][n]['fragments']]
    for data in fragments: assert built(parse(data)) == data
    *_, whole = [pieces.add(sk, data, 0) for data in fragments]
    opened = [open_fragment(sk, data) for data in fragments]
    assert whole.chain() == (opened[0].first, b''.join(f.content for f in opened))


def test_no_capture_is_left_out() -> None:
    found = [p for p in ROOT.rglob('*.pcap*') if not {'.venv', '.git'} & set(p.relative_to(ROOT).parts)]
    assert sorted(found) == sorted(session / 'capture.pcap' for session in (*SESSIONS, *HYBRID))


def test_what_is_inside_is_sealed_again() -> None:
    "The one thing that is not built again is padding: a sealer makes its own, and the octets are in `data`."
    sk = direction('i')
    header = partial(Header, b'initiate', b'responds', Type.SK, ExchangeType.INFORMATIONAL, False, True, 1)
    chain = h('00 ff 0006 abcd') + b'rest'
    packet = sk.open(sk.protect(header, Type.Vendor, chain, bytes))
    assert packet.chain() == (Type.Vendor, chain) and packet.remainder == b'rest'
    again = sk.seal(packet, b'initiate', b'responds', response=False, initiator=True, message_id=1,
                    random=bytes)
    assert again == packet.data
