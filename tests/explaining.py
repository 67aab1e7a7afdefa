"""What the tests of chapters 31 to 36 share: conversations of ours, as somebody on the wire has
recorded them; messages by hand; what tshark says of them; and the program.
"""
import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET  # noqa: S405  # of a program that we have started
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from io import BytesIO, StringIO
from pathlib import Path
from random import Random
from shutil import which
from typing import NamedTuple

import pytest
from canonical import KEYS, configs, private_key, public_key
from ike_lit.capture.keylog import KeyTable, keylog_row, parse_keylog, secret_line
from ike_lit.capture.observer import TrustAnchors, Analysed
from ike_lit.capture.pcap import Captured, read_capture, write_capture
from ike_lit.capture.show import Story, analyse
from ike_lit.cli.credential import load_authorities, load_chain
from ike_lit.engine.host import Host
from ike_lit.engine.model import Datagram, Lifetime, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Begin
from ike_lit.explain import main
from ike_lit.testing.network import ALICE, BOB, Network
from ike_lit.wire.certificate import Authorities, Signer
from ike_lit.wire.const import ExchangeType
from ike_lit.wire.header import Dissection
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.payload import Packet, Payload
from ike_lit.wire.sk import SK, directions
from peers.strongswan import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
LIVE = sorted((Path(__file__).parent / 'vectors' / 'live').iterdir())
PATIENT = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
GCM, GCM_ESP = 'aes128gcm16-prfsha256-x25519', 'aes128gcm16'
PUBLIC = [KEYS / 'alice.pub', KEYS / 'bob.pub']
BELIEVED = TrustAnchors(tuple(map(public_key, PUBLIC)))


# Conversations of ours

@dataclass
class Recorded:
    "A conversation of two hosts of ours: what was on the wire, and what both know of it."
    alice: Host
    bob: Host
    network: Network
    table: KeyTable  # as the ends log it
    seen: list[Captured] = field(default_factory=list)
    sas: list[IKE] = field(default_factory=list)  # Alice's, the oldest first
    locks: list[tuple[SK, SK]] = field(default_factory=list)  # of each of them
    rows: str = ''  # of Wireshark's table
    children: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)  # keys by SPI

    @property
    def secrets(self) -> dict[bytes, bytes]: return self.table.secrets

    @property
    def lines(self) -> str:
        return ''.join([*(secret_line(*item) for item in self.secrets.items()),
                        *(secret_line(ni, secret, n) for (ni, n), secret in self.table.more.items())])

    def go_on(self, who: str, conversation: Begin, *args: object) -> None:
        "Let an end begin a conversation, and wait until it is over."
        host = {'alice': self.alice, 'bob': self.bob}[who]
        host.start(host.established[0], conversation, *args, now=self.network.now)
        self.rest()

    def rest(self) -> None:
        "Let a second pass, and note what there is now; an end forgets keys that it needs no more."
        self.network.run(until=self.network.now + 1)
        for ike in self.alice.established:
            for child in ike.children.values():
                for sa in child.inbound, child.outbound:
                    self.children[sa.spi] = sa.encr_key, sa.integ_key
            if ike in self.sas or not ike.keys: continue
            self.sas.append(ike)
            self.locks.append(directions(ike.suite, ike.keys))
            self.rows += keylog_row(ike.spi_i, ike.spi_r, ike.keys, ike.suite)

    def sealed(self, *payloads: Payload, exchange: ExchangeType = ExchangeType.CREATE_CHILD_SA,
               response: bool = False, initiator: bool | None = None, message_id: int = 7) -> bytes:
        "A message of the first IKE SA, as only its ends can make it."
        sender = not response if initiator is None else initiator
        ike = self.sas[0]
        return self.locks[0][not sender].seal(
            Packet(exchange, payloads), ike.spi_i, ike.spi_r, response=response, initiator=sender,
            message_id=message_id, random=Random(message_id).randbytes)  # noqa: S311

    def then(self, *messages: bytes) -> list[Captured]:
        "The recorded messages and some more."
        return [*self.seen, *seen(*messages, first=len(self.seen) + 1)]


def record(ike: str = GCM, esp: str = GCM_ESP, *, seed: int = 1, left: Endpoint = ALICE,
           right: Endpoint = BOB, natt: tuple[Endpoint, Endpoint] | None = None, cookies: int = 10,
           alices: Mapping = {}, bobs: Mapping = {}, bobs_ike: str = '',  # noqa: B006
           **both: object) -> Recorded:
    "Let two hosts have their first four messages, or what else comes of it."
    table = KeyTable()
    common = {'timing': PATIENT, 'keylog': table.learn, **both}
    mine = replace(configs(ike, esp, **common)[0], **alices)
    yours = replace(configs(bobs_ike or ike, esp, **common)[1], **bobs)
    source = Random(seed).randbytes  # noqa: S311  # the same in every run is the point
    alice, bob = Host(random=source), Host((yours,), random=source, cookie_threshold=cookies)
    ends = {left: alice, right: bob} | ({natt[0]: alice, natt[1]: bob} if natt else {})
    recorded = Recorded(alice, bob, Network(ends), table)

    def tap(d: Datagram) -> None:
        n = len(recorded.seen) + 1
        recorded.seen.append(Captured(n, 0.25 * n, d.source, d.destination, d.data))
    recorded.network.tap = tap
    alice.connect(mine, left, right, 0, natt)
    recorded.rest()
    return recorded


def certified(name: str) -> dict:
    "What an end with a certificate is configured with."
    own = private_key(KEYS / f'{name}.key')
    return {'credential': Signer(own, load_chain(KEYS / f'{name}.crt', own)),
            'trust': Authorities(load_authorities(KEYS / 'root.crt'))}


# Messages by hand

def plain(*payloads: Payload, exchange: ExchangeType = ExchangeType.IKE_SA_INIT, spi_i: bytes = b'i' * 8,
          spi_r: bytes = bytes(8), response: bool = False, initiator: bool | None = None,
          message_id: int = 0) -> bytes:
    "A message in the clear."
    sender = not response if initiator is None else initiator
    return Packet(exchange, payloads).encode(spi_i, spi_r, response=response, initiator=sender,
                                             message_id=message_id)


def seen(*messages: bytes, first: int = 1) -> list[Captured]:
    "Messages as they were seen: those with the R flag come from Bob."
    return [Captured(n, float(n), *((BOB, ALICE) if data[19:20] and data[19] & 0x20 else (ALICE, BOB)), data)
            for n, data in enumerate(messages, first)]


def numbered(messages: Iterable[Captured]) -> list[Captured]:
    return [m._replace(number=n, time=float(n)) for n, m in enumerate(messages, 1)]


def flipped(data: bytes, at: int, bits: int = 1) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1:]


# What is told of them

def pcap_of(link: int, *frames: bytes) -> BytesIO:
    "A pcap file of frames of a link type, a second after each other, written by nothing of ours."
    file = BytesIO(struct.pack('<IHHIIII', 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, link))
    file.seek(0, 2)
    for n, frame in enumerate(frames):
        file.write(struct.pack('<IIII', n, 0, len(frame), len(frame)) + frame)
    file.seek(0)
    return file


def pcap(messages: Iterable[Captured]) -> bytes:
    file = BytesIO()
    write_capture(file, messages)
    return file.getvalue()


def story(messages: Iterable[Captured], keys: str | KeyTable = '', believed: TrustAnchors = BELIEVED,
          **more: object) -> Story:
    "What is told of messages, by way of a file."
    table = parse_keylog(keys) if isinstance(keys, str) else keys
    return analyse(read_capture(BytesIO(pcap(messages))), table, believed, **more)


def remarks(told: Analysed, *grades: str) -> list[str]:
    "The remarks of a message, all or those of some grades."
    return [str(r) for r in told.remarks if not grades or r.grade in grades]


def every(found: Story, *grades: str) -> list[str]:
    return [text for told in found.told for text in remarks(told, *grades)]


def kinds(told: Analysed) -> list[int]:
    "The payload types that are told of a message."
    return [int(p.kind) for p in told.packet.payloads] if told.packet else []


def said(dissection: Dissection) -> dict[int, list[str]]:
    "What a dissection says, by the offset of the octets that it says it of."
    found: dict[int, list[str]] = {}
    at = 0
    for offset, _, text, _ in dissection.lines():
        if offset >= 0: at = offset
        if offset != -2 and text: found.setdefault(at, []).append(text.strip())
    return found


def tiled(dissection: Dissection) -> bytes:
    "The octets of a dissection, which has each once, in order."
    at = 0
    for span in dissection.spans:
        assert span.at == at and span.octets, span
        at += len(span.octets)
    return b''.join(span.octets for span in dissection.spans)


# Wireshark

needs_tshark = pytest.mark.skipif(not which('tshark'), reason=f'no tshark: apt-get install {PACKAGES}')


class Field(NamedTuple):
    "A field, as tshark shows it; the place is relative to the message, or to what was decrypted."
    name: str
    at: int
    size: int
    show: str
    octets: bytes | None


@dataclass
class Frame:
    "A packet, as tshark shows it."
    number: int
    time: float  # since the first one
    outside: list[Field]  # of the IKE message
    inside: list[Field]  # of what was decrypted, at last of all fragments
    payloads: list[int]  # the types of all


def wireshark(tool: str, *options: object, config: Path | None = None) -> str:
    "Run a program of Wireshark's, with a folder in which a key log is."
    where = {'WIRESHARK_CONFIG_DIR': str(config), 'HOME': str(config)} if config else {}
    done = subprocess.run([tool, *map(str, options)], capture_output=True, text=True, timeout=120,
                          check=False, env={**os.environ, **where})
    assert done.returncode == 0 and 'Error' not in done.stderr, done.stderr
    return done.stdout


def tshark(path: Path, keys: str, folder: Path) -> list[Frame]:
    "What tshark tells of a capture, with a key log."
    (folder / 'ikev2_decryption_table').write_text(keys)
    root = ET.fromstring(wireshark('tshark', '-n', '-r', path, '-T', 'pdml', config=folder))  # noqa: S314
    return [_frame(packet) for packet in root.iter('packet')]


def _frame(packet: ET.Element) -> Frame:
    general = {f.get('name'): f.get('show') for f in packet.iter('field')}
    frame = Frame(int(general['frame.number']), float(general['frame.time_relative']), [], [], [])
    for proto in packet.findall('proto'):
        if proto.get('name') != 'isakmp': continue
        _fields(proto, frame, int(proto.get('pos')))
        types = [int(f.get('show')) for f in proto.iter('field') if f.get('name') == 'isakmp.typepayload']
        frame.payloads += [n for n in types if n not in (2, 3)]  # proposals and transforms
    return frame


def _fields(element: ET.Element, frame: Frame, start: int) -> None:
    whole = False  # put together of fragments
    for child in element:
        name = child.get('name')
        if name == 'isakmp.enc.decrypted': frame.inside += [f for part in child for f in _leaves(part, 0)]
        elif name == 'isakmp.fragments': frame.inside, whole = [], True
        elif whole: frame.inside += [f for part in child for f in _leaves(part, 0)]
        else:
            frame.outside += _field(child, start)
            _fields(child, frame, start)


def _leaves(element: ET.Element, start: int) -> Iterator[Field]:
    yield from _field(element, start)
    for child in element: yield from _leaves(child, start)


def _field(element: ET.Element, start: int) -> Iterator[Field]:
    name, size, value = element.get('name', ''), int(element.get('size', 0)), element.get('value')
    if not name.startswith('isakmp.') or not size: return
    octets = bytes.fromhex(value) if value and len(value) == 2 * size else None
    yield Field(name, int(element.get('pos')) - start, size, element.get('show', ''), octets)


# The program

# as where people are: what is printed waits in a buffer
PLAIN = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}


class Done(NamedTuple):
    "What became of a run."
    returncode: int
    stdout: str
    stderr: str


def call(*options: object) -> Done:
    "The program, in this process."
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try: status = main(list(map(str, options)))
        except SystemExit as left: status = left.code
    return Done(status, out.getvalue(), err.getvalue())


def run(*options: object, stdin: bytes | None = None, env: Mapping[str, str] = PLAIN,
        cwd: Path | None = None) -> Done:
    "The program, as a person runs it. There is never a traceback."
    done = subprocess.run(command(*options), input=stdin, capture_output=True, timeout=120, env=env,
                          cwd=cwd, check=False)
    out, err = done.stdout.decode(errors='replace'), done.stderr.decode(errors='replace')
    assert 'Traceback' not in err and 'Exception ignored' not in err, err[-2000:]
    return Done(done.returncode, out, err)


def unread(*options: object) -> subprocess.CompletedProcess:
    "The program, whose output nobody reads any more."
    there, here = os.pipe()
    os.close(there)
    try:
        return subprocess.run(command(*options), stdout=here, stderr=subprocess.PIPE, timeout=120, env=PLAIN,
                              check=False)
    finally: os.close(here)


def command(*options: object) -> list[str]:
    return [sys.executable, '-m', 'ike_lit.explain', *map(str, options)]
