"""Files that are broken, mixed or somebody else's, floods, full disks and readers that have gone:
the explainer says what it can, in a line, and in time.
"""
import gc
import json
import os
import signal
import struct
import subprocess
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from explaining import (
    LIVE, PLAIN, Recorded, call, command, needs_tshark, pcap, pcap_of, plain, record, run, seen, unread,
    wireshark)
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.capture.keylog import KeyTable, parse_keylog
from ike_lit.capture.pcap import Capture, Pieces, Captured, open_capture, read_capture
from ike_lit.capture.show import analyse
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.const import ExchangeType, Type
from ike_lit.wire.header import Header
from ike_lit.wire.nonce import Nonce
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether

CLEAN = LIVE[0] / 'capture.pcap'
FILE = CLEAN.read_bytes()
NI = Nonce(b'\xa0' * 16)


@pytest.fixture(scope='module')
def r() -> Recorded: return record(seed=51)


def raw(*packets: bytes, link: int = 101) -> BytesIO:
    return pcap_of(link, *packets)


def test_a_capture_may_be_larger_than_memory(tmp_path: Path, r: Recorded) -> None:
    "Of 64 MB of other traffic nothing is kept, while one packet of IKE is found in it."
    whole = bytes(IP(src='1.1.1.1', dst='2.2.2.2') / UDP(sport=500, dport=500) / r.seen[0].data)
    other = bytes(IP(src='1.1.1.1', dst='2.2.2.2') / UDP(sport=53, dport=53) / bytes(60_000))
    with (tmp_path / 'large.pcap').open('wb') as file:
        file.write(pcap_of(101).getvalue())
        for packet in *[other] * 1024, whole:
            file.write(bytes(8) + 2 * len(packet).to_bytes(4, 'little') + packet)
    tracemalloc.start()
    with open_capture(str(tmp_path / 'large.pcap')) as file: found = read_capture(file)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [m.data for m in found.messages] == [r.seen[0].data] and most < 8_000_000


@pytest.mark.parametrize('size', range(8))
def test_a_datagram_that_is_shorter_than_udp(size: int, r: Recorded) -> None:
    "As in a file that ends there, or behind a sniffer that keeps 24 octets: the other packets are read."
    short = bytes(IP(src='1.1.1.1', dst='2.2.2.2', proto=17) / bytes(size))
    whole = bytes(IP(src='1.1.1.1', dst='2.2.2.2') / UDP(sport=500, dport=500) / r.seen[0].data)
    found = read_capture(raw(short, whole))
    assert [m.data for m in found.messages] == [r.seen[0].data] and len(found.remarks) == 1


@needs_tshark
@pytest.mark.parametrize('format_', ['pcap', 'nsecpcap', 'pcapng'])
def test_a_file_that_ends_anywhere(format_: str, tmp_path: Path, r: Recorded) -> None:
    "What was written before the end is there, and half a packet is told; what is left of it is a half."
    (tmp_path / 'a.pcap').write_bytes(pcap(r.seen))
    wireshark('editcap', '-F', format_, tmp_path / 'a.pcap', tmp_path / 'b')
    data = (tmp_path / 'b').read_bytes()
    whole = [m.data for m in r.seen]
    tail = 8 if format_ == 'pcapng' else 0  # the end of a block
    before, ends = -1, [data.index(octets) + len(octets) for octets in whole]
    for size in (*range(300), *range(300, len(data), 11), len(data)):
        try: found = read_capture(BytesIO(data[:size]))
        except ValueError as error:
            assert str(error) == 'this is neither pcap nor pcapng' and before == -1
            continue
        before, complete = size, sum(end + tail <= size for end in ends)
        there = [m.data for m in found.messages]
        assert there[:complete] == whole[:complete] and len(there) <= complete + 1
        for half in there[complete:]: assert whole[complete].startswith(half)
        assert len(found.remarks) <= 1 and found.packets >= len(there)
    assert before == len(data) and there == whole


@given(st.lists(st.tuples(st.integers(24, 1800), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_file_with_other_octets(changes: list[tuple[int, int]]) -> None:
    "In the headers of packets too."
    data = bytearray(FILE)
    for at, octet in changes: data[at % len(data)] = octet
    data[20:24] = FILE[20:24]  # the link type
    found = read_capture(BytesIO(bytes(data)))
    assert len(found.messages) <= found.packets
    list(analyse(found, KeyTable()).lines())


def test_a_fragment_that_comes_twice_is_not_one_that_is_missing(r: Recorded) -> None:
    "As in a capture of all interfaces, where each packet is seen on two of them."
    big = IP(src='1.1.1.1', dst='2.2.2.2') / UDP(sport=500, dport=500) / r.seen[2].data
    parts = [bytes(p) for p in big.fragment(200)]
    found = read_capture(raw(*(p for p in parts for _ in (0, 1))))
    assert {m.data for m in found.messages} == {r.seen[2].data} and not found.remarks


def test_esp_in_ipv6_is_counted() -> None:
    spi, head = bytes.fromhex('c0ffee00'), {'src': '2001:db8::1', 'dst': '2001:db8::2'}
    packet = ESP(spi=0xc0ffee00, seq=1, data=bytes(64))
    frames = IPv6(**head, nh=50) / packet, IPv6(**head) / IPv6ExtHdrHopByHop(nh=50) / packet
    found = read_capture(raw(*map(bytes, frames)))
    assert found.esp == {('2001:db8::1', '2001:db8::2', spi): 2} and not found.remarks


@needs_tshark
def test_interfaces_of_two_kinds_in_one_file(tmp_path: Path, r: Recorded) -> None:
    "pcapng: each packet has the link type, and the clock, of its interface."
    frames = [bytes(IP(src=m.source.host, dst=m.destination.host) / UDP(sport=500, dport=500) / m.data)
              for m in r.seen]
    ether = [bytes(Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02', type=0x800)) + f for f in frames]
    (tmp_path / 'a').write_bytes(raw(*ether[:2], link=1).getvalue())
    (tmp_path / 'b').write_bytes(raw(*frames[2:]).getvalue())
    wireshark('editcap', '-F', 'nsecpcap', '-t', '5', tmp_path / 'b', tmp_path / 'c')
    wireshark('mergecap', '-F', 'pcapng', '-w', tmp_path / 'd', tmp_path / 'a', tmp_path / 'c')
    times = wireshark('tshark', '-n', '-r', tmp_path / 'd', '-T', 'fields', '-e', 'frame.time_epoch')
    found = read_capture((tmp_path / 'd').open('rb'))
    assert [m.data for m in found.messages] == [m.data for m in r.seen]
    assert [m.time for m in found.messages] == list(map(float, times.split()))


def test_a_key_log_with_a_line_of_any_length() -> None:
    for text in 'a' * 200_000, '# Ni,' + 'a' * 200_001, ',' * 200_000, f'"{"a" * 200_000}",,,,,,,':
        with pytest.raises(ValueError, match=r'^line 1: .{1,150}$'): parse_keylog(text)


def test_a_key_log_that_an_editor_has_marked_as_unicode(r: Recorded) -> None:
    assert parse_keylog(f'\ufeff{r.lines}{r.rows}').secrets == r.secrets


def test_an_error_does_not_show_what_is_in_the_line() -> None:
    "Chapter 31: a mistyped line may hold a key all the same; here a column is missing."
    secret = '0123456789abcdef' * 4
    for row in (f'c1,d1,e1,e2,{secret},a2,,x', f'c1,d1,{secret}g,',
                f'c1,d1,e1,e2,"AES-CBC-128 [RFC3602]",a1,a2,{secret}'):
        with pytest.raises(ValueError) as caught: parse_keylog(row)
        assert secret[:8] not in str(caught.value)


# It stays quick and short

def seconds(doing: Callable[[], object]) -> float:
    gc.disable()  # it looks at all that there is, again and again
    try:
        begun = time.process_time()
        doing()
        return time.process_time() - begun
    finally: gc.enable()


def flood(count: int) -> None:
    messages = tuple(Captured(n, 0.0, ALICE, BOB, plain(NI, spi_i=n.to_bytes(8, 'big')))
                     for n in range(1, count + 1))
    list(analyse(Capture(messages, count, Counter()), KeyTable()).lines())


def strays(count: int) -> None:
    data = [struct.pack('!QQBBBBII', n, n, 0, 0x20, 37, 8, 0, 28) for n in range(1, count + 1)]
    analyse(Capture(tuple(seen(*data)), count, Counter()), KeyTable())


def endless(count: int) -> None:
    pieces = Pieces()
    for n in range(count): pieces.add('one', 8 * n, True, bytes(8))


@pytest.mark.parametrize('doing, count', [(flood, 500), (strays, 800), (endless, 500)])
def test_eight_times_as_much_takes_eight_times_as_long(doing: Callable, count: int) -> None:
    "Half-open IKE SAs, messages of unknown ones, pieces of one datagram: not the square of it."
    doing(count)
    few, many = seconds(lambda: doing(count)), seconds(lambda: doing(8 * count))
    assert many < 16 * few + 0.1


def test_a_message_can_not_fill_the_screen() -> None:
    "With 8,000 payloads, in each a reserved bit; or 4,000 errors. Without --octets some lines will do."
    def full(kind: int, body: bytes, count: int) -> bytes:
        one = bytes([0x7f]) + (4 + len(body)).to_bytes(2, 'big') + body
        octets = (bytes([kind]) + one) * (count - 1) + bytes([0]) + one
        return bytes(Header(b'i' * 8, bytes(8), Type(kind), ExchangeType.IKE_SA_INIT, False, True, 0,
                            28 + len(octets))) + octets
    for data in full(43, b'', 8000), full(41, bytes([0, 0, 0, 7]), 4000):
        found = analyse(Capture(tuple(seen(data)), 1, Counter()), KeyTable())
        assert len(list(found.lines())) < 500


# The program

@pytest.mark.parametrize('options', [(), ('--json',)], ids=str)
def test_a_reader_that_has_gone_before_a_short_story(options: tuple[str, ...]) -> None:
    "What is still in the buffer at the end is nobody's, without a word about it."
    done = unread(CLEAN, *options)
    assert done.returncode in (0, 1) and not done.stderr


@pytest.mark.parametrize('options', [(), ('--octets',), ('--json',)], ids=str)
def test_a_full_disk(options: tuple[str, ...]) -> None:
    "One line, and a status that says that it was not written."
    with Path('/dev/full').open('w') as full:
        done = subprocess.run(command(CLEAN, *options), stdout=full, stderr=subprocess.PIPE, timeout=120,
                              env=PLAIN, check=False)
    assert done.returncode == 2 and done.stderr.count(b'\n') == 1 and b'No space left' in done.stderr


def test_no_standard_input() -> None:
    done = subprocess.run(['/bin/sh', '-c', 'exec "$@" <&-', 'sh', *command('-')], capture_output=True,
                          timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.count(b'\n') == 1 and b'Traceback' not in done.stderr


def test_a_name_that_no_file_can_have() -> None:
    "A pasted text, or the file itself in place of its name."
    for name in 'a' * 300, 'a/' * 3000:
        done = call(name)
        assert done.returncode == 2 and done.stderr.endswith('File name too long\n')


@contextmanager
def as_nobody() -> Iterator[None]:
    "Root reads everything; for a while it is somebody else."
    if os.geteuid(): yield
    else:
        os.seteuid(65534)
        try: yield
        finally: os.seteuid(0)


def test_what_may_not_be_read() -> None:
    "A folder, a file in it, and a file: one line each, and the rest is explained."
    with TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / 'good.pcap').write_bytes(FILE)
        (folder / 'shut.pcap').touch(mode=0)
        (folder / 'shut').mkdir(mode=0)
        with as_nobody():
            done = call(*(folder / name for name in ('shut', 'shut/a.pcap', 'shut.pcap', 'good.pcap')))
        (folder / 'shut').chmod(0o700)
    assert done.returncode == 2 and done.stdout.startswith('good.pcap: 14 IKE messages')
    assert done.stderr.count('Permission denied') == done.stderr.count('\n') == 3


def test_a_folder_without_a_capture(tmp_path: Path) -> None:
    "1: no IKE was found; and it says so."
    done = call(tmp_path)
    assert done.returncode == 1 and str(tmp_path) in done.stderr


def test_a_notebook_of_what_came_by_a_pipe_can_not_be_run_again(tmp_path: Path) -> None:
    "So it is refused, or reads what it was made of."
    done = run('-', '--notebook', tmp_path / 'a.ipynb', stdin=FILE)
    if done.returncode == 0:
        cell = json.loads((tmp_path / 'a.ipynb').read_text())['cells'][1]['source']
        name = ''.join(cell).partition("read_story('")[2].partition("'")[0]
        assert Path(name).is_file()
    else: assert done.returncode == 2 and done.stderr.count('\n') >= 1


NAMES = {'escape': b'\x1b[31mred.pcap', 'line': b'one\ntwo.pcap', 'octets': b'\xff\xfe.pcap'}


@pytest.mark.parametrize('kind', NAMES)
def test_file_names_of_others(kind: str, tmp_path: Path) -> None:
    "In a folder that was unpacked from somewhere: explained, and nothing of the name acts on the terminal."
    name = os.fsencode(tmp_path) + b'/' + NAMES[kind]
    with open(name, 'wb') as file: file.write(FILE)  # noqa: PTH123  # a name of octets
    done = run(tmp_path)
    assert done.returncode == 0 and '\x1b' not in done.stdout
    assert 'IKE messages in 14 packets' in done.stdout.splitlines()[0]
    page = tmp_path / 'page.html'
    assert run(os.fsdecode(name), '--html', page).returncode == 0
    assert '\x1b' not in page.read_text()


def test_a_terminal_and_a_locale_without_the_paragraph_sign(tmp_path: Path) -> None:
    "What is written says that it is UTF-8, and is; what is printed comes as well as it can."
    old = {**PLAIN, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    page = tmp_path / 'page.html'
    done = run(CLEAN, '--html', page, env=old)
    assert done.returncode == 0 and 'RFC 7296 §3.3' in page.read_text(encoding='utf-8')
    done = run(CLEAN, env=old)
    assert done.returncode == 0 and 'offers aes128-sha256-prfsha256-modp2048' in done.stdout


@pytest.mark.parametrize('option', ['--html', '--notebook'])
@pytest.mark.parametrize('name', ['a.pcap', 'keylog', 'link'])
def test_what_is_read_is_not_written_over(option: str, name: str, tmp_path: Path) -> None:
    "A slip of the hand costs no capture and no keys."
    (tmp_path / 'a.pcap').write_bytes(FILE)
    (tmp_path / 'keylog').write_text('# Ni,aa,g^ir,bb\n')
    (tmp_path / 'link').symlink_to('a.pcap')
    before = (tmp_path / name).read_bytes()
    done = call(tmp_path / 'a.pcap', '--keys', tmp_path / 'keylog', option, tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert done.returncode == 2 and name in done.stderr


def test_ctrl_c(tmp_path: Path) -> None:
    "While it waits for what is to come through a pipe."
    os.mkfifo(tmp_path / 'pipe')
    program = subprocess.Popen(command(tmp_path / 'pipe'), stderr=subprocess.PIPE, env=PLAIN)
    errors = None
    with (tmp_path / 'pipe').open('wb'):  # it is about to read
        for _ in range(60):
            program.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired): errors = program.communicate(timeout=1)[1]
            if errors is not None: break  # else it came just before Python began to wait
    assert program.returncode in (130, -signal.SIGINT) and b'Traceback' not in errors
