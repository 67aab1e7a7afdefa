"""Captures as people have them: of each link type that an uplink may have, of files that an older program
has written, of several interfaces. What is read is what Wireshark reads; what is not is named.
"""
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from explaining import GCM, needs_tshark, pcap_of, record, wireshark
from ike_lit.capture.pcap import LARGEST, MOST_NAMED, Pieces, Captured, packet_of, read_capture
from ike_lit.wire.nat import Endpoint
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

SEEN = record(GCM, seed=71).seen
FOUR = [packet_of(m) for m in SEEN]
ENDS = Endpoint('2001:db8::1', 500), Endpoint('2001:db8::2', 500)
SIX = [packet_of(m._replace(source=ENDS[n % 2], destination=ENDS[1 - n % 2])) for n, m in enumerate(SEEN)]
MACS = bytes.fromhex('020000000001 020000000002')


def typed(packet: bytes) -> bytes: return b'\x08\0' if packet[0] >> 4 == 4 else b'\x86\xdd'


def ppp(packet: bytes) -> bytes: return b'\0\x21' if packet[0] >> 4 == 4 else b'\0\x57'


def session(packet: bytes) -> bytes:
    "A header of PPPoE (RFC 2516)."
    return struct.pack('!BBHH', 0x11, 0, 7, 2 + len(packet)) + ppp(packet)


def family(packet: bytes) -> int: return 2 if packet[0] >> 4 == 4 else 10


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    'Ethernet': (1, lambda p: MACS + typed(p)),
    'VLAN': (1, lambda p: MACS + b'\x81\0\0\7' + typed(p)),
    'VLAN in VLAN': (1, lambda p: MACS + b'\x88\xa8\0\7' + b'\x81\0\0\x08' + typed(p)),
    'VLAN in VLAN, of old': (1, lambda p: MACS + b'\x91\0\0\7' + b'\x81\0\0\x08' + typed(p)),
    'PPPoE': (1, lambda p: MACS + b'\x88\x64' + session(p)),
    'PPPoE in a VLAN': (1, lambda p: MACS + b'\x81\0\0\7\x88\x64' + session(p)),
    'MPLS': (1, lambda p: MACS + b'\x88\x47' + b'\0\1\0\x40' + b'\0\2\1\x40'),
    'LLC and SNAP': (1, lambda p: MACS + (8 + len(p)).to_bytes(2, 'big') + b'\xaa\xaa\3\0\0\0' + typed(p)),
    'PPP': (9, ppp), 'PPP with address': (9, lambda p: b'\xff\3' + ppp(p)),
    'PPP, short': (9, lambda p: ppp(p)[1:]), 'PPP in HDLC': (50, lambda p: b'\xff\3' + ppp(p)),
    'bare PPPoE': (51, session), 'Cisco HDLC': (104, lambda p: b'\x0f\0' + typed(p)),
    'pppd, out': (166, lambda p: b'\1\3' + ppp(p)), 'pppd, in': (166, lambda p: b'\0\3' + ppp(p)),
    'PPP with direction': (204, lambda p: b'\1\xff\3' + ppp(p)),
    'cooked': (113, lambda p: bytes(14) + typed(p)),
    'cooked 2': (276, lambda p: typed(p) + bytes(18)),
    'cooked, with a VLAN': (113, lambda p: bytes(14) + b'\x81\0\0\7' + typed(p)),
    'IPsec of BSD': (109, lambda p: struct.pack('<I', 2 if p[0] >> 4 == 4 else 24) + bytes(8)),
    'firewall': (239, lambda p: bytes([family(p), 0, 0, 5]) + struct.pack(
        '<HHIHHIHH', 8, 1, 0, 6, 10, 0, 4 + len(p), 9)),
    'IPv4 or IPv6': (228, lambda p: b'')}


def framed(kind: str, packets: list[bytes]) -> tuple[int, list[bytes]]:
    link, before = LINKS[kind]
    return link, [before(packet) + packet for packet in packets]


@pytest.mark.parametrize('kind', LINKS)
def test_messages_come_out_of_each_kind_of_link(kind: str) -> None:
    for packets in FOUR, SIX if kind != 'IPv4 or IPv6' else FOUR:
        link, frames = framed(kind, packets)
        found = read_capture(pcap_of(link, *frames))
        assert [m.data for m in found.messages] == [m.data for m in SEEN] and not found.remarks
        cut = read_capture(pcap_of(link, *(frame[:n] for frame in frames for n in range(len(frame)))))
        assert cut.packets == sum(map(len, frames))  # whatever is left of them, nothing is raised


@needs_tshark
@pytest.mark.parametrize('kind', [kind for kind in LINKS if 'pppd' not in kind])  # Wireshark does not know it
def test_wireshark_finds_the_same_messages(kind: str, tmp_path: Path) -> None:
    link, frames = framed(kind, FOUR)
    (tmp_path / 'a').write_bytes(pcap_of(link, *frames).getvalue())
    lines = wireshark('tshark', '-n', '-r', tmp_path / 'a', '-Y', 'isakmp', '-T', 'fields',
                      '-e', 'frame.number', '-e', 'udp.length').splitlines()
    found = read_capture(BytesIO((tmp_path / 'a').read_bytes()))
    assert [[m.number, 8 + 4 * m.source.natt + len(m.data)] for m in found.messages] == [
        list(map(int, line.split())) for line in lines]


@needs_tshark
def test_what_we_write_has_right_checksums(tmp_path: Path) -> None:
    odd = [m._replace(data=m.data[:28] + m.data[28:-n or None]) for n in range(3) for m in SEEN]
    with (tmp_path / 'a').open('wb') as file:
        file.write(pcap_of(101, *map(packet_of, odd), *SIX).getvalue())
    lines = wireshark('tshark', '-n', '-r', tmp_path / 'a', '-o', 'ip.check_checksum:TRUE', '-o',
                      'udp.check_checksum:TRUE', '-T', 'fields', '-e', 'ip.checksum.status', '-e',
                      'udp.checksum.status').splitlines()
    assert lines == ['1\t1'] * len(odd) + ['\t1'] * len(SIX)
    assert [bytes(IP(p)) for p in FOUR] == FOUR and [bytes(IPv6(p)) for p in SIX] == SIX


def test_a_link_type_may_say_that_frames_have_checksums() -> None:
    "As libpcap, which takes the link type out of the lower bits."
    link, frames = framed('Ethernet', FOUR)
    found = read_capture(pcap_of(link | 1 << 26 | 4 << 28, *(f + bytes(4) for f in frames)))
    assert [m.data for m in found.messages] == [m.data for m in SEEN] and not found.remarks


# pcapng

def block(kind: int, body: bytes, order: str = '<') -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(f'{order}I', 12 + len(body))
    return struct.pack(f'{order}I', kind) + size + body + size


def section(order: str = '<') -> bytes:
    return block(0x0A0D0D0A, struct.pack(f'{order}IHHq', 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int, order: str = '<', most: int = 0, options: bytes = b'') -> bytes:
    return block(1, struct.pack(f'{order}HHI', link, 0, most) + options, order)


def packet(kind: int, frame: bytes, which: int = 0, order: str = '<', time: int = 0) -> bytes:
    size = len(frame)
    head = (struct.pack(f'{order}I', size) if kind == 3 else
            struct.pack(f'{order}{"IIIII" if kind == 6 else "HHIIII"}', *(
                (which,) if kind == 6 else (which, 9)), time >> 32, time & 0xFFFFFFFF, size, size))
    return block(kind, head + frame, order)


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('kind', [2, 3, 6])
def test_packets_of_each_kind_of_block(kind: int, order: str, tmp_path: Path) -> None:
    "The Packet Block is what old programs wrote; the Simple Packet Block is what small ones do."
    data = section(order) + interface(101, order) + b''.join(
        packet(kind, p, 0, order, 1_500_000 * n) for n, p in enumerate(FOUR))
    found = read_capture(BytesIO(data))
    assert [m.data for m in found.messages] == [m.data for m in SEEN] and not found.remarks
    assert [m.time for m in found.messages] == [1.5 * n * (kind != 3) for n in range(len(SEEN))]


@needs_tshark
def test_wireshark_reads_these_blocks_alike(tmp_path: Path) -> None:
    ticks = struct.pack('<HHBxxx', 9, 1, 3) + struct.pack('<HHq', 14, 8, 100)  # milliseconds, from 100 s on
    data = section() + interface(1, options=ticks) + interface(101) + b''.join(
        packet(kind, (MACS + typed(p) + p) if which == 0 else p, which, time=2000 + n)
        for n, (kind, which, p) in enumerate(zip((2, 3, 6, 2), (0, 0, 1, 1), FOUR, strict=True)))
    data += section('>') + interface(101, '>', most=100) + packet(3, FOUR[0][:100], order='>')
    (tmp_path / 'a').write_bytes(data)
    lines = wireshark('tshark', '-n', '-r', tmp_path / 'a', '-T', 'fields', '-e', 'frame.number',
                      '-e', 'frame.time_epoch').splitlines()
    found = read_capture(BytesIO(data))
    assert [m.data for m in found.messages[:4]] == [m.data for m in SEEN]
    assert found.packets == len(lines) == 5
    times = {int(words[0]): float(words[1]) for words in map(str.split, lines) if len(words) > 1}
    assert {m.number: m.time for m in found.messages if m.number not in (2, 5)} == times  # simple: no time


@pytest.mark.parametrize('first', [105, 127, 147])
def test_an_interface_that_we_can_not_read_does_not_hide_the_others(first: int) -> None:
    data = section() + interface(first) + interface(101) + packet(6, b'radio' * 9, 0) + b''.join(
        packet(6, p, 1) for p in FOUR)
    found = read_capture(BytesIO(data))
    assert [m.data for m in found.messages] == [m.data for m in SEEN]
    assert found.remarks == (f'1 packet: of link type {first}, which is not read here',)
    only = data[:data.index(packet(6, FOUR[0], 1))]
    with pytest.raises(ValueError, match=f'link type {first} can not be read; IP, Ethernet, PPP'):
        read_capture(BytesIO(only))


def test_blocks_that_we_do_not_know_are_named_and_others_are_read() -> None:
    silent = b''.join(block(kind, bytes(8)) for kind in (4, 5, 9, 10, 0xBAD, 0x40000BAD))
    data = section() + interface(101) + silent + block(0x201, bytes(40)) * 3 + packet(6, FOUR[0])
    found = read_capture(BytesIO(data))
    assert [m.data for m in found.messages] == [SEEN[0].data]
    assert found.remarks == ('3 blocks: of kind 0x201, which is not read here',)
    many = read_capture(BytesIO(data + b''.join(block(0x1000 + n, b'') for n in range(5000))))
    assert len(many.remarks) == MOST_NAMED + 1 and many.remarks[-1].endswith('blocks: of yet other kinds')


def test_a_packet_of_no_interface_is_told_and_the_next_one_read() -> None:
    found = read_capture(BytesIO(section() + interface(101) + packet(6, FOUR[0], 7) + packet(6, FOUR[1])))
    assert [(m.number, m.data) for m in found.messages] == [(2, SEEN[1].data)]
    assert found.remarks == ('1 packet: of an interface that the file does not have',)


@pytest.mark.parametrize('data', [
    pcap_of(101, FOUR[0]).getvalue() + struct.pack('<IIII', 0, 0, LARGEST + 1, 9),
    section() + interface(101) + packet(6, FOUR[0]) + struct.pack('<II', 6, 0xFFFFFFF0),
    section() + interface(101) + packet(6, FOUR[0]) + struct.pack('<II', 6, 0),
    section() + interface(101) + packet(6, FOUR[0]) + struct.pack('<III', 0x0A0D0D0A, 28, 7)])
def test_a_size_that_can_not_be_ends_the_reading_and_takes_no_memory(data: bytes) -> None:
    class Watched(BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    file = Watched(data)
    found = read_capture(file)
    assert [m.data for m in found.messages] == [SEEN[0].data] and file.most <= LARGEST
    assert found.remarks == ('1 packet: the file ends in the middle of it',)


# Fragments

def piece(at: int, octets: bytes, more: bool, name: int = 7) -> bytes:
    return struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(octets), name, more << 13 | at // 8, 64, 17, 0,
                       b'\xc0\0\2\1', b'\xc0\0\2\2') + octets


def test_fragments_that_overlap_are_given_up_and_told() -> None:
    "RFC 5722, RFC 8200 §4.5: nobody sends them but to get past a firewall."
    whole = FOUR[0][20:]
    rest = piece(0, whole[:80], True, 9), piece(80, whole[80:], False, 9)
    found = read_capture(pcap_of(101, piece(0, bytes(24), True), piece(16, bytes(24), False), *rest))
    assert [m.data for m in found.messages] == [SEEN[0].data]
    assert found.remarks == ('1 datagram: given up, as its IP fragments overlap',)


def test_each_datagram_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    "However its pieces lie: the octets that are joined are no more than those that came."
    joined = 0
    real = Pieces._joined

    def counted(self: Pieces, datagram: object, parts: dict[int, bytes], end: int) -> bytes | None:
        nonlocal joined
        joined += sum(map(len, parts.values()))
        return real(self, datagram, parts, end)
    monkeypatch.setattr(Pieces, '_joined', counted)
    pieces, came = Pieces(), 0
    for n in range(4000):
        at, size, more = 8 * (n % 97), 1480 if n % 3 else 8, bool(n % 50)
        pieces.add('one', at, more, bytes(size))
        came += size
    assert pieces.overlaps and joined <= came


def test_ends_and_esp_are_seen_behind_any_link() -> None:
    esp = bytes(IP(src='192.0.2.1', dst='192.0.2.2', proto=50) / b'\xc0\xff\xee\0' / bytes(40))
    for link, before in LINKS.values():
        found = read_capture(pcap_of(link, before(esp) + esp, before(FOUR[0]) + FOUR[0]))
        assert found.esp == {('192.0.2.1', '192.0.2.2', b'\xc0\xff\xee\0'): 1}
        assert found.messages == (Captured(2, 1.0, SEEN[0].source, SEEN[0].destination, SEEN[0].data),)
