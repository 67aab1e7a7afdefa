"""The explainer as a person runs it: files of all kinds, what it prints and writes, exit statuses."""
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
from authority import authority, key
from canonical import KEYS, RSA
from cryptography.x509 import Name, NameAttribute, NameOID
from explaining import (
    LIVE, PUBLIC, ROOT, Recorded, call, certified, every, needs_tshark, pcap, pcap_of, plain, record, run,
    story, unread, wireshark)
from ike_lit.capture.keylog import KeyTable
from ike_lit.capture.pcap import Captured, read_capture
from ike_lit.capture.show import story_html, analyse
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.wire.auth import IDi, Identity, SharedKey
from ike_lit.wire.const import ExchangeType, IDType, MessageType
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.payload import Notify, Vendor
from scapy.layers.inet import IP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, fragment6)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Packet as Frame

CLEAN = LIVE[0] / 'capture.pcap'
PROOFS = [word for path in PUBLIC for word in ('--peer-key', path)]


@pytest.fixture(scope='module')
def life() -> Recorded:
    "A conversation with a rekeyed Child SA and a rekeyed IKE SA."
    r = record(esp='aes128gcm16-x25519', seed=31, keys=RSA)
    r.go_on('alice', rekey_child, next(iter(r.alice.established[0].children)))
    r.go_on('bob', rekey_ike_sa)
    return r


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory, life: Recorded) -> Path:
    "A folder with a capture and its key log."
    folder = tmp_path_factory.mktemp('files')
    (folder / 'life.pcap').write_bytes(pcap(life.seen))
    (folder / 'keylog').write_text(life.lines + life.rows)
    return folder


# Files

MACS = {'src': '02:00:00:00:00:01', 'dst': '02:00:00:00:00:02'}
LINKS: dict[str, tuple[int, Callable[[Frame], bytes]]] = {
    'Ethernet': (1, lambda p: bytes(Ether(**MACS) / p)),
    'VLAN': (1, lambda p: bytes(Ether(**MACS) / Dot1Q(vlan=7) / p)),
    'VLAN in VLAN': (1, lambda p: bytes(Ether(**MACS) / Dot1AD(vlan=7) / Dot1Q(vlan=8) / p)),
    'cooked': (113, lambda p: bytes(CookedLinux() / p)),
    'cooked 2': (276, lambda p: bytes(CookedLinuxV2() / p)),
    'null': (0, lambda p: bytes(Loopback(type=2 if p.version == 4 else 30) / p)),
    'null, big end first': (0, lambda p: bytes([0, 0, 0, 2 if p.version == 4 else 24]) + bytes(p)),
    'loop': (108, lambda p: bytes([0, 0, 0, 2 if p.version == 4 else 28]) + bytes(p)),
    **{f'raw {n}': (n, bytes) for n in (12, 14, 101)}}


def four(m: Captured) -> Frame:
    data = bytes(4) * m.source.natt + m.data
    return IP(src=m.source.host, dst=m.destination.host) / UDP(
        sport=m.source.port, dport=m.destination.port) / data


def six(m: Captured, *headers: Frame) -> Frame:
    packet = IPv6(src='2001:db8::1', dst='2001:db8::2')
    for header in headers: packet /= header
    return packet / UDP(sport=m.source.port, dport=m.destination.port) / m.data


@pytest.mark.parametrize('kind', LINKS)
def test_link_types(kind: str, life: Recorded) -> None:
    "Each message comes out as it went in, with the addresses of its packet."
    link, wrap = LINKS[kind]
    for build, ends in (four, ('192.0.2.1', '192.0.2.2')), (six, ('2001:db8::1', '2001:db8::2')):
        found = read_capture(pcap_of(link, *(wrap(build(m)) for m in life.seen[:3])))
        assert [m.data for m in found.messages] == [m.data for m in life.seen[:3]]
        assert [m.number for m in found.messages] == [1, 2, 3] and found.packets == 3
        first = found.messages[0]
        assert (first.source, first.destination) == tuple(Endpoint(host, 500) for host in ends)
        assert not found.remarks


@pytest.mark.parametrize('headers', [
    (IPv6ExtHdrHopByHop(),), (IPv6ExtHdrDestOpt(),), (IPv6ExtHdrRouting(),),
    (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()), (IPv6ExtHdrFragment(id=3),)], ids=lambda h: h[0].name)
def test_headers_between_ip_and_udp(headers: tuple, life: Recorded) -> None:
    found = read_capture(pcap_of(101, bytes(six(life.seen[0], *headers)),
                                 bytes(four(life.seen[1]).__class__(
                                     bytes(IP(src='1.1.1.1', dst='2.2.2.2', options=[IPOption_NOP()] * 4)
                                           / four(life.seen[1])[UDP])))))
    assert [m.data for m in found.messages] == [m.data for m in life.seen[:2]]


def pieces(version: int, m: Captured) -> list[bytes]:
    made = (fragment(four(m), 160) if version == 4 else
            fragment6(six(m, IPv6ExtHdrFragment(id=9)), 200))
    return [bytes(p) for p in made]


@pytest.mark.parametrize('version', [4, 6])
def test_ip_fragments(version: int, life: Recorded) -> None:
    "Any order will do; the message has the number of the last; what lacks one is told and is no message."
    m = life.seen[2]
    parts = pieces(version, m)
    assert len(parts) >= 3
    for seed in range(6):
        order = Random(seed).sample(parts, len(parts))  # noqa: S311
        found = read_capture(pcap_of(101, *order))
        assert [(s.data, s.number) for s in found.messages] == [(m.data, len(parts))]
        assert not found.remarks
    other = pieces(version, life.seen[4])
    for n in range(len(parts)):
        found = read_capture(pcap_of(101, *parts[:n], *parts[n + 1:], bytes(four(life.seen[0]))))
        assert [s.data for s in found.messages] == [life.seen[0].data]
        assert found.remarks == ('1 packet: lack some of their IP fragments',)
    if version == 4:  # two datagrams between each other's pieces; scapy gives all the same identification
        other = [bytes(IP(p)) for p in other]
        other = [p[:4] + b'\x77\x77' + p[6:] for p in other]
        mixed = [p for pair in zip(parts, other, strict=False) for p in pair]
        found = read_capture(pcap_of(101, *mixed, *parts[len(other):], *other[len(parts):]))
        assert {s.data for s in found.messages} == {m.data, life.seen[4].data}


@needs_tshark
def test_both_formats_and_what_tshark_sees(tmp_path: Path, life: Recorded) -> None:
    "pcapng, and pcap with nanoseconds: the same messages, tshark's numbers and times."
    noise = [bytes(Ether(**MACS) / IP(src='1.1.1.1', dst='2.2.2.2') / UDP(sport=53, dport=53) / b'dns'),
             bytes(Ether(**MACS, type=0x806) / bytes(28))]
    frames = [f for m in life.seen for f in (*noise, bytes(Ether(**MACS) / four(m)))]
    (tmp_path / 'a.pcap').write_bytes(pcap_of(1, *frames).getvalue())
    for format_ in 'pcapng', 'nsecpcap', 'pcap':
        name = tmp_path / f'b.{format_}'
        wireshark('editcap', '-F', format_, '-t', '0.125', tmp_path / 'a.pcap', name)
        lines = wireshark('tshark', '-n', '-r', name, '-Y', 'isakmp', '-T', 'fields',
                          '-e', 'frame.number', '-e', 'frame.time_epoch', config=tmp_path).splitlines()
        with name.open('rb') as file: found = read_capture(file)
        assert [(m.number, m.time) for m in found.messages] == [
            (int(number), float(time)) for number, time in map(str.split, lines)]
        assert [m.data for m in found.messages] == [m.data for m in life.seen]
        assert found.packets == len(frames) and not found.remarks


def test_ports() -> None:
    "Port 500 has IKE, 4500 has it after four zero octets; anywhere else the length in the header decides."
    message = plain(Vendor(b'here'))
    esp = b'\xc0\0\0\1' + bytes(60)
    quic = b'\x40' + bytes(range(1, 99))
    rows = [(500, 500, message, 1, 0), (4500, 4500, bytes(4) + message, 1, 0),
            (4500, 61000, bytes(4) + message, 1, 0), (4500, 4500, esp, 0, 1), (4500, 4500, b'\xff', 0, 0),
            (4500, 4500, quic, 0, 1), (5500, 40000, message, 1, 0), (5500, 40000, bytes(4) + message, 1, 0),
            (5500, 40000, message[:-1], 0, 0), (53, 53, bytes(range(60)), 0, 0), (500, 61000, b'x', 1, 0)]
    for source, destination, data, messages, packets in rows:
        frame = bytes(IP(src='1.1.1.1', dst='2.2.2.2') / UDP(sport=source, dport=destination) / data)
        found = read_capture(pcap_of(101, frame))
        assert (len(found.messages), sum(found.esp.values())) == (messages, packets), (source, data[:8])
        for m in found.messages:
            assert m.data in (message, b'x') and m.source.natt == m.destination.natt == (data[:4] == bytes(4))


def test_esp_is_counted_by_ends_and_spi() -> None:
    head = {'src': '1.1.1.1', 'dst': '2.2.2.2'}
    packet = ESP(spi=0xc0ffee00, seq=1, data=bytes(64))
    frames = [IP(**head, proto=50) / packet, IP(**head) / UDP(sport=4500, dport=4500) / bytes(packet),
              IP(src='2.2.2.2', dst='1.1.1.1', proto=50) / packet]
    found = read_capture(pcap_of(101, *map(bytes, frames)))
    spi = bytes.fromhex('c0ffee00')
    assert found.esp == {('1.1.1.1', '2.2.2.2', spi): 2, ('2.2.2.2', '1.1.1.1', spi): 1}


def test_a_sniffer_that_cuts_packets(life: Recorded) -> None:
    "It is told how many; the messages are not taken for whole."
    found = read_capture(pcap_of(101, *(bytes(four(m))[:96] for m in life.seen)))
    cut = [len(m.data) > 96 - 20 - 8 for m in life.seen]
    assert found.remarks == (f'{sum(cut)} packets: cut off by the sniffer',) and not all(cut)
    told = analyse(found, KeyTable()).told
    assert ['not readable as IKEv2' in t.remarks[0].text for t in told] == cut


# What it prints

def test_statuses_and_folders(files: Path, tmp_path: Path) -> None:
    "0: explained; 1: no IKE in it; 2: something could not be read, and the rest is explained all the same."
    folder = tmp_path / 'several'
    folder.mkdir()
    shutil.copy(files / 'life.pcap', folder / 'b.pcap')
    shutil.copy(CLEAN, folder / 'a.pcap')
    done = call(folder)
    assert done.returncode == 0 and not done.stderr
    heads = re.findall(r'^(\S+): \d+ IKE messages in \d+ packets', done.stdout, re.MULTILINE)
    assert heads == ['a.pcap', 'b.pcap']
    (folder / 'nothing.pcap').write_bytes(pcap_of(101).getvalue())
    (folder / 'below').mkdir()
    done = call(folder)
    assert done.returncode == 1 and 'no IKE message in 0 packets' in done.stderr
    assert done.stdout.count(' IKE messages in ') == 3
    (folder / 'words.txt').write_text('no capture')
    done = call(folder, tmp_path / 'absent')
    assert done.returncode == 2 and done.stdout.count(' IKE messages in ') == 3
    assert 'words.txt: this is neither pcap nor pcapng' in done.stderr
    assert 'absent: No such file or directory' in done.stderr
    assert call().returncode == call(CLEAN, '--what').returncode == 2


def test_standard_input(files: Path) -> None:
    data = (files / 'life.pcap').read_bytes()
    by_pipe, by_name = run('-', stdin=data).stdout, call(files / 'life.pcap').stdout
    assert by_pipe.partition('\n')[2] == by_name.partition('\n')[2]
    assert run('-', stdin=b'').returncode == 2


WRONG_KEYS = {
    'a capture': (lambda f: f / 'life.pcap', 'is no text'), 'nothing': (lambda f: f / 'no', 'No such file'),
    'a folder': (lambda f: f, 'Is a directory'),
    'a private key': (lambda f: KEYS / 'initiator.key', "line 1: 1 fields, a row of Wireshark's table has 8"),
    'JSON': (lambda f: LIVE[0] / 'keys.json', 'line 1: 1 fields')}


@pytest.mark.parametrize('what', WRONG_KEYS)
def test_a_wrong_file_for_keys(what: str, files: Path) -> None:
    "One line that names the file and what is wrong, and nothing of what is in it."
    make, words = WRONG_KEYS[what]
    path = make(files)
    done = call(files / 'life.pcap', '--keys', path)
    error = done.stderr
    assert done.returncode == 2 and not done.stdout
    assert error.startswith(f'ike_lit.explain: {path}: ') and words in error and error.count('\n') == 1


@pytest.mark.parametrize('option, path, words', [
    ('--peer-key', KEYS / 'initiator.key', 'but a private one'),
    ('--peer-key', KEYS / 'initiator.crt', 'but a certificate'), ('--peer-key', CLEAN, 'no public key'),
    ('--psk-file', '/dev/null', 'the shared key is empty'), ('--psk-file', CLEAN, 'others may read it'),
    ('--html', ROOT, 'Is a directory'), ('--html', '/dev/full', 'No space left'),
    ('--notebook', '/dev/null/x', 'Not a directory')])
def test_other_wrong_files(option: str, path: object, words: str) -> None:
    done = call(CLEAN, option, path)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count('\n') == 1


def test_one_page_is_for_one_capture(tmp_path: Path) -> None:
    for option in '--html', '--notebook':
        done = call(CLEAN, CLEAN, option, tmp_path / 'x')
        assert done.returncode == 2 and not (tmp_path / 'x').exists()


def test_a_reader_that_has_enough() -> None:
    "`| head`: no error, no traceback, and it does not go on."
    done = unread(CLEAN, '--octets')
    assert done.returncode == 1 and not done.stderr


def test_octets_are_shown_once_each(files: Path, life: Recorded) -> None:
    "With --octets, the hex of each message; without, none."
    keys = ['--keys', files / 'keylog']
    text = call(files / 'life.pcap', *keys, '--octets').stdout
    for m in life.seen: assert m.data[:8].hex(' ') in text
    shown = ''.join(re.findall(r'^ {10}(?:[0-9a-f]{4}| {4})  ((?:[0-9a-f]{2} ?){1,8})', text, re.MULTILINE))
    assert bytes.fromhex(shown).startswith(life.seen[0].data + life.seen[1].data)
    plain_text = call(files / 'life.pcap', *keys).stdout
    assert life.seen[0].data[:8].hex(' ') not in plain_text


# Secrets

def secrets_of(life: Recorded) -> list[bytes]:
    found = story(life.seen, life.lines)
    keys = [v for ike in found.observer.sas for v in vars(ike.keys).values()]
    keys += [v for ike in found.observer.sas for c in ike.children for v in vars(c.keys).values()]
    return [*life.secrets.values(), *filter(None, keys)]


def test_keys_are_shown_to_those_who_ask_and_nobody_else(files: Path, life: Recorded, tmp_path: Path) -> None:
    "With --show-keys in the text, and in files that only their owner may read; JSON never has them."
    secrets = secrets_of(life)
    assert len(secrets) > 15
    base = [files / 'life.pcap', '--keys', files / 'keylog']
    html, book = tmp_path / 'a.html', tmp_path / 'a.ipynb'
    for path in html, book:
        path.write_text('there before')
        path.chmod(0o644)
    text = call(*base, '--octets', '--show-keys').stdout
    call(*base, '--html', html, '--notebook', book, '--show-keys')
    for path in html, book: assert stat.S_IMODE(path.stat().st_mode) == 0o600
    derived = [s.hex() for s in secrets if s not in life.secrets.values()]
    for shown in text, html.read_text(), book.read_text():
        assert all(key in shown for key in derived)
        assert not any(s.hex() in shown for s in life.secrets.values())
    said = call(*base, '--octets').stdout + call(*base, '--json', '--show-keys').stdout
    call(*base, '--html', html, '--notebook', book)
    for shown in said, html.read_text(), book.read_text():
        flat = re.sub(r'[^0-9a-f]', '', shown)
        assert not any(s.hex() in shown or s.hex() in flat for s in secrets)


def test_a_shared_key_is_never_shown(tmp_path: Path) -> None:
    words = b'not for everybody'
    shared = {'credential': SharedKey(words), 'trust': SharedKey(words)}
    r = record(alices=shared, bobs=shared)
    (tmp_path / 'a.pcap').write_bytes(pcap(r.seen))
    (tmp_path / 'keylog').write_text(r.lines)
    (tmp_path / 'psk').touch(0o600)
    (tmp_path / 'psk').write_bytes(words + b'\n')
    base = [tmp_path / 'a.pcap', '--keys', tmp_path / 'keylog', '--psk-file', tmp_path / 'psk', '--show-keys']
    text = call(*base, '--octets').stdout
    call(*base, '--html', tmp_path / 'a.html', '--notebook', tmp_path / 'a.ipynb')
    assert text.count('AUTH is right: method 2, shared key') == 2
    for shown in text, (tmp_path / 'a.html').read_text(), (tmp_path / 'a.ipynb').read_text():
        assert words.decode() not in shown and words.hex() not in shown


# JSON

def test_json_says_what_the_text_says(files: Path, life: Recorded) -> None:
    found = json.loads(call(files / 'life.pcap', '--keys', files / 'keylog', *PROOFS, '--json').stdout)
    there = story(life.seen, life.lines + life.rows)
    assert found['packets'] == len(life.seen) and found['remarks'] == []
    assert [m['octets'] for m in found['messages']] == [len(m.data) for m in life.seen]
    texts = [f'{r["text"]} ({r["section"]})' if r['section'] else r['text']
             for m in found['messages'] for r in m['remarks']]
    assert texts == every(there)
    assert [m['spi_i'] for m in found['messages']] == [m.data[:8].hex() for m in life.seen]
    assert [m['sealed'] and m['opened'] for m in found['messages']] == [m.data[16] == 46 for m in life.seen]
    assert [m['answers'] for m in found['messages'] if m['response']] == [
        n + 1 for n, m in enumerate(life.seen) if not m.data[19] & 0x20]
    first, second = found['ike_sas']
    assert (first['initiator'], second['initiator']) == ('FQDN alice.example.org', 'FQDN bob.example.org')
    assert second['replaces'] == first['spi_i'] and first['keys'] and second['keys']
    spis = {spi for child in first['children'] for spi in (child['spi_i'], child['spi_r'])}
    assert spis == {spi.hex() for spi in life.children}


# HTML

class Page(HTMLParser):
    "What a browser would see."

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None: self.tags.append((tag, dict(attrs)))
    def handle_data(self, data: str) -> None: self.words.append(data)

    @property
    def ids(self) -> list[str]: return [attrs['id'] for _, attrs in self.tags if 'id' in attrs]

    @property
    def links(self) -> list[str]:
        return [v for _, attrs in self.tags for k, v in attrs.items() if k in ('href', 'src', 'action')]


TAGS = {'html', 'meta', 'title', 'style', 'h1', 'h2', 'p', 'svg', 'text', 'line', 'a', 'pre', 'details',
        'summary', 'b', 'br', 'ul', 'li', 'span', 'div'}
RFC = re.compile(r'https://www\.rfc-editor\.org/rfc/rfc\d{4}#section-\d+(\.\d+)*')


def check_page(text: str, book: str = '') -> Page:
    "One file that needs nothing else; every link leads somewhere; nothing runs."
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith('#'): assert link[1:] in page.ids
        elif book and link.startswith(book): assert Path(link.removeprefix('file://')).exists(), link
        else: assert RFC.fullmatch(link), link
    assert {tag for tag, _ in page.tags} <= TAGS
    assert not [k for _, attrs in page.tags for k in attrs if k.startswith('on')]
    assert 'url(' not in text and '@import' not in text and '\x1b' not in text
    return page


def test_html(files: Path, life: Recorded, tmp_path: Path) -> None:
    "Each message is there, with a line in the drawing that leads to it, and its octets."
    target = tmp_path / 'a.html'
    done = call(files / 'life.pcap', '--keys', files / 'keylog', '--html', target, *PROOFS)
    assert done.returncode == 0 and not done.stdout and not done.stderr
    page = check_page(target.read_text(), (ROOT / 'nbs').as_uri())
    assert page.ids == [f'm{m.number}' for m in life.seen]
    assert [link for link in page.links if link[0] == '#'] == [f'#m{m.number}' for m in life.seen]
    words = ''.join(page.words)
    for text in every(story(life.seen, life.lines + life.rows)): assert text in words
    assert any('04_proposal' in link for link in page.links)
    call(files / 'life.pcap', '--html', target, '--book', 'https://book.example/*.html')
    assert 'href="https://book.example/04_proposal.html"' in target.read_text()
    call(files / 'life.pcap', '--html', target, '--book', '')
    check_page(target.read_text())


MARKUP = '<script>alert(1)</script>&"\'><img src=x onerror=alert(2)>'
EVIL = f'\x1b[31m{MARKUP}'


def dn(text: str) -> bytes:
    return Name([NameAttribute(NameOID.COMMON_NAME, text)]).public_bytes()


@pytest.mark.parametrize('text', [MARKUP, EVIL], ids=['markup', 'escape'])
def test_nothing_of_a_peers_text_is_believed(text: str) -> None:
    "Names, vendor IDs, notifications, certificates, and a cut message on port 500: markup and escapes."
    r, raw = record(alices=certified('initiator'), bobs=certified('responder')), text.encode()
    names = [IDi.of(Identity(kind, data)) for kind, data in (
        (IDType.FQDN, raw), (IDType.RFC822_ADDR, raw), (IDType.KEY_ID, raw), (IDType(77), raw),
        (IDType.IPV4_ADDR, raw), (IDType.DER_ASN1_DN, raw), (IDType.DER_ASN1_DN, dn(text)))]
    more = Vendor(raw), Notify(MessageType.AUTHENTICATION_FAILED, raw), Notify(MessageType(40000), raw)
    ca = authority('CN=x', key(3)).payload
    sealed = [r.sealed(name, *more, ca, exchange=ExchangeType.IKE_AUTH, message_id=n)
              for n, name in enumerate(names, 3)]
    messages = r.then(*sealed, plain(*more), raw)
    found = story(messages, r.lines, name=MARKUP)
    assert len(found.told) == len(messages)
    page = check_page(story_html(found))
    words = ''.join(page.words)
    assert words.count(MARKUP) > (2 if text is MARKUP else 0)  # as text: names, and that of the file
    found.name = 'capture'
    shown = '\n'.join(found.lines(octets=True))
    assert '\x1b' not in shown + ''.join(every(found)) + repr(found[5])
    for n in range(1, len(messages) + 1): check_page(found[n]._repr_html_())


# A notebook

def test_a_notebook_can_be_run_again(files: Path, tmp_path: Path) -> None:
    "nbval: every cell gives what is stored."
    target = tmp_path / 'story.ipynb'
    (tmp_path / 'psk').touch(0o600)
    (tmp_path / 'psk').write_bytes(b'words')
    options = ['--keys', files / 'keylog', '--peer-key', PUBLIC[0], '--psk-file', tmp_path / 'psk']
    done = run(os.path.relpath(files / 'life.pcap', ROOT), *options, '--notebook', target, cwd=ROOT)
    assert done.returncode == 0 and not done.stdout
    book = json.loads(target.read_text())
    assert len([c for c in book['cells'] if c['cell_type'] == 'code']) == 1 + len(seen_in(files))
    assert book['nbformat'] == 4 and len({c['id'] for c in book['cells']}) == len(book['cells'])
    again = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--nbval',
                            target], capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert again.returncode == 0, again.stdout[-3000:]


def seen_in(files: Path) -> list[Captured]:
    with (files / 'life.pcap').open('rb') as file: return list(read_capture(file).messages)
