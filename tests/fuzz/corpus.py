"""What fuzzing begins with: captures, the canonical handshake, the recorded values, and a few that
are long. It is made at the start, from what is in tests/vectors, tests/golden and nbs/.
"""
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from fuzz.targets import (
    BARE, LINKS, LIVE, LOCKS, NAMES, READERS, STEP, identity, key_table, keylog, life, proposal, secret,
    selector, toml, words)

from canonical import two_ends
from explaining import pcap
from ike_lit.capture.pcap import Captured, packet_of, read_capture
from ike_lit.capture.show import analyse
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.testing.network import handshake
from ike_lit.wire.const import ExchangeType
from ike_lit.wire.payload import Packet, pack_chain
from ike_lit.wire.proposal import DEFAULT_ESP, DEFAULT_IKE
from strategies import NAMES as PEOPLE
from test_hybrid_captures import SESSIONS

HERE = Path(__file__).resolve().parent
VECTORS, GOLDEN = HERE.parent / 'vectors', HERE.parent / 'golden'


def size(data: bytes) -> bytes: return len(data).to_bytes(2, 'big') + data


def captured() -> Iterator[Captured]:
    "Every message that somebody has recorded."
    for folder in (*LIVE, *SESSIONS):
        with (folder / 'capture.pcap').open('rb') as file: yield from read_capture(file).messages
    yield from life().seen


def datagrams() -> Iterator[bytes]:
    yield from (m.data for m in captured())
    for message in json.loads((VECTORS / 'skf.json').read_text())['messages']:
        yield from map(bytes.fromhex, message['fragments'])
    alice, bob = handshake(*two_ends(RESPONDERS))
    yield from alice.first_messages


def packets() -> Iterator[Packet]:
    "What is inside of those messages, as far as there are keys."
    for folder in (*LIVE, *SESSIONS):
        with (folder / 'capture.pcap').open('rb') as file: capture = read_capture(file)
        yield from (t.packet for t in analyse(capture, key_table()).told if t.packet)
    capture = read_capture(BytesIO(pcap(life().seen)))
    yield from (t.packet for t in analyse(capture, key_table()).told if t.packet)


# Long ones

def chain(kind: int, body: bytes, count: int) -> bytes:
    one = bytes([0]) + (4 + len(body)).to_bytes(2, 'big') + body
    return (bytes([kind]) + one) * (count - 1) + bytes([0]) + one


def proposals(count: int) -> bytes:
    "Proposals that have 255 ciphers each."
    inner = b''.join(bytes([3 * (n < 254), 0, 0, 8, 1, 0, 0, n]) for n in range(255))
    return b''.join(bytes([2 if n < count - 1 else 0, 0]) + (8 + len(inner)).to_bytes(2, 'big') +
                    bytes([n + 1, 1, 0, 255]) + inner for n in range(count))


LONG = {  # a kind of payload, its body, how many of them
    'vendor IDs': (43, b'', 4000), 'unknown': (200, b'', 4000), 'errors': (41, bytes([0, 0, 0, 7]), 4000),
    'one': (43, bytes(60000), 1), 'a Delete': (42, bytes([3, 4, 0x1f, 0x40]) + b'spi!' * 8000, 1),
    'proposals': (33, proposals(30), 1),
    'attributes': (47, bytes([1, 0, 0, 0]) + bytes([0, 3, 0, 0]) * 8000, 1),
    'selectors': (44, b'\xff\0\0\0' + (bytes([7, 0, 0, 16, 0, 0, 0xff, 0xff]) + bytes(8)) * 255, 15),
    'a count of SPIs': (42, b'\x03\x04\xff\xff', 1)}


# Targets

def parser() -> Iterator[bytes]:
    for data in datagrams(): yield b'\0' + data
    for packet in packets():
        first, inside = pack_chain(packet.payloads)
        yield bytes([2, first]) + inside
        for payload in packet.payloads: yield bytes([3, payload.kind, 0]) + bytes(payload)


def sk() -> Iterator[bytes]:
    inside = [pack_chain(p.payloads) for p in packets()]
    for n in range(len(LOCKS)):
        first, content = inside[n % len(inside)]
        header = bytes([n & 3, ExchangeType.INFORMATIONAL, 0, n])
        yield bytes([n, 1]) + header + bytes([0, 0, 0, n, 1, 0, first]) + content
        yield bytes([n, 2]) + header + content.ljust(64)
        pieces = [content[:50], content[50:100], content[100:200]]
        yield bytes([n, 3]) + header + b''.join(
            bytes([6, k + 1, 3, first if k == 0 else 0]) + size(p) + bytes([0, 0, 1, 0, 0, 0])
            for k, p in enumerate(pieces))
    for data in datagrams(): yield bytes([0, 0]) + data


def engine() -> Iterator[bytes]:
    inside = [pack_chain(p.payloads) for p in packets()]
    true = STEP_CALLED['true']
    for n in range(len(NAMES)):
        yield bytes([n, true])
        yield bytes([n, STEP_CALLED['noise']]) + size(b'no message at all')
        for edit in range(8):
            yield bytes([n, STEP_CALLED['changed'], edit, 1, 0, edit, 0, 30 + edit, 1, 1, true])
        for kind in range(5):
            for flags in 0, 1:
                first, content = inside[(n + kind) % len(inside)]
                to = bytes([0, flags, kind])
                said = bytes([first]) + size(content)
                yield bytes([n, STEP_CALLED['in_the_clear']]) + to + said + bytes([true])
                yield bytes([n, STEP_CALLED['by_a_stranger']]) + to + bytes([9]) + said
                yield bytes([n, STEP_CALLED['by_the_peer']]) + to + said + bytes(7) + bytes([true, true])
        for k in range(6): yield bytes([n, STEP_CALLED['begins'], k, STEP_CALLED['waits'], 16, true])


STEP_CALLED = {step.__name__: n for n, step in reversed(list(enumerate(STEP)))}


def explain() -> Iterator[bytes]:
    for folder in (*LIVE, *SESSIONS):
        for way in range(0, 12, 3): yield bytes([way]) + (folder / 'capture.pcap').read_bytes()
    seen = list(captured())
    for n, link in enumerate(LINKS):
        frames = [packet_of(m) for m in seen[n::9]][:4]
        before = {1: bytes(12) + b'\x08\0', 113: bytes(14) + b'\x08\0', 101: b'',
                  276: b'\x08\0' + bytes(18), 9: b'\xff\3\0\x21', 51: bytes(6) + b'\0\x21',
                  104: b'\x0f\0\x08\0', 239: bytes(4) + b'\0\0\x09\0'}.get(link, b'\2\0\0\0')
        yield bytes([1 + 3 * n, n]) + b''.join(size(before + frame) for frame in frames)
    for n in range(len(life().seen)):
        for how in range(4):
            yield bytes([2 + 3 * how]) + b''.join(bytes([0, k]) for k in range(n)) + bytes(
                [how, n, 0, 0, 40, 1, 1, 0, 0, 0])


def config() -> Iterator[bytes]:
    texts = {
        proposal: [DEFAULT_IKE, DEFAULT_ESP, 'camellia256-sha256-modp2048,aes128gcm-prfsha256-x25519', 'AES',
                   'aes256gcm16-prfsha384-ecp256-ke1_mlkem768-ke1_none-ke7_x25519'],
        selector: ['10.1.0.0/24', '10.0.0.1-10.0.0.9[tcp/80-90]', '2001:db8::/32[icmpv6/128(0)]',
                   '[udp/opaque]', 'fe80::1%eth0[17]'],
        identity: list(PEOPLE), secret: ['word', '0x00ff', '0sAAAA', ''],
        keylog: [life().lines, life().rows], words: [
            ' '.join(BARE), '--local-ts=10.1.0.0/24 --remote-ts=::/0 --pool=10.9.0.0/24 --dns=10.9.0.1',
            '--ike-lifetime=10,20 --child-lifetime=5 --liveness=1.5 --timeout=3 --datagram=576',
            '--packet=10.1.0.5[tcp/40000],10.2.0.9[tcp/80] --mode=transport --request-address=0.0.0.0,::'],
        toml: ['[connections.branch]\nlocal-id = "alice.example.org"\nlocal-ts = ["10.1.0.0/24", "::/0"]\n'
               'liveness = 2.5\nallow-sha1 = true\nike = "aes256-sha256-x25519"\n\n[connections.other]\n',
               'a = [[[1]]]', '[connections]\nx = 1979-05-27']}
    for n, read in enumerate(READERS):
        for text in texts[read]: yield bytes([n]) + text.encode()
        for path in sorted(GOLDEN.iterdir()): yield bytes([n]) + path.read_bytes()[:300]


MAKERS = {f.__name__: f for f in (parser, sk, engine, explain, config)}


def seeds(target: str) -> list[bytes]:
    "Return the inputs that a target begins with, each once."
    return list(dict.fromkeys(MAKERS[target]()))


def long(target: str) -> list[bytes]:
    "Return inputs that are as long as a datagram can be: they are measured, and not changed."
    chains = [(kind, chain(kind, body, count)) for kind, body, count in LONG.values()]
    clear = STEP_CALLED['in_the_clear']
    return {'parser': [bytes([2, kind]) + octets for kind, octets in chains],
            'engine': [bytes([0, clear, 0, 0, kind]) + size(octets) for kind, octets in chains],
            'explain': [bytes([2, 3, 0, kind]) + size(octets) for kind, octets in chains]}.get(target, [])
