"""Floods: first messages from addresses that do not exist, and answers that nobody has asked for.

The bound is that of the design: a responder keeps a hundred SAs that are half open or closed, and no
more than ten of strangers who have not shown that they receive; an initiator has fifty candidates at a
time, and sends six versions of its first message.
"""
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from canonical import configs
from ike_lit.engine.host import COOKIE_THRESHOLD, TRANSIENT_LIMIT, Host
from ike_lit.engine.model import Config, Lifetime, Timing
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.const import ExchangeType, Group, MessageType, Type
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.nat import NON_ESP_MARKER, Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Notify, Packet, Payload
from ike_lit.wire.proposal import SA
from test_cli import DEMO_KEYS, NAMES, OTHER

SUITE = 'aes256gcm16-prfsha256-x25519'
TIMING = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)


def both() -> tuple[Config, Config]: return configs(SUITE, 'aes256gcm16', timing=TIMING)


def first_messages(seed: int = 0) -> Iterator[tuple[bytes, Endpoint]]:
    "Yield first messages of Alice's kind, each with another SPI, nonce and address."
    chance = Random(seed)  # noqa: S311  # the same in every run is the point
    someone = Host()
    someone.connect(both()[0], ALICE, BOB, now=0)
    data = someone.datagrams_to_send()[0].data
    at = data.index(Packet.parse(Reader(data)).one(Nonce).data)
    while True:
        made = chance.randbytes(8) + data[8:at] + chance.randbytes(32) + data[at + 32:]
        host = str(ip_address(0x7f010001 + chance.randrange(0xfdfffe)))  # 127.1.0.1 and on
        yield made, Endpoint(host, chance.randrange(1024, 65536))


def drained(host: Host) -> list[bytes]:
    "Return what a host sends, and forget what it tells, as a program does."
    while host.next_event(): continue
    return [d.data for d in host.datagrams_to_send()]


def cookie(data: bytes) -> Notify | None: return Packet.parse(Reader(data)).notify(MessageType.COOKIE)


@contextmanager
def measured() -> Iterator[Callable[[], int]]:
    "Yield what tells how many octets of objects there are."
    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    tracemalloc.start()
    try: yield held
    finally: tracemalloc.stop()


# The responder

def test_forged_addresses_leave_nothing_behind() -> None:
    "Ten strangers are answered, all others asked for a cookie; memory does not grow with their number."
    bob, forged, said = Host((both()[1],)), first_messages(), Counter[bool]()

    def flood(count: int, now: float) -> None:
        for _ in range(count):
            data, addr = next(forged)
            bob.receive_datagram(data, addr, now, BOB)
            answer, = drained(bob)
            said[cookie(answer) is not None] += 1
            assert len(answer) < (100 if cookie(answer) else 250) and len(bob.sas) <= COOKIE_THRESHOLD
    flood(500, now=0)
    with measured() as held:
        before = held()
        flood(2000, now=10)
        assert held() - before < 64 * 1024
    assert said == {False: COOKIE_THRESHOLD, True: 2490}
    flood(500, now=45)  # those ten are forgotten, and others are answered
    assert said[False] == 2 * COOKIE_THRESHOLD and len(bob.sas) == COOKIE_THRESHOLD


def test_strangers_with_real_addresses_are_at_most_a_hundred() -> None:
    "They bring their cookies, and never go on: the oldest makes room."
    bob, forged = Host((both()[1],)), first_messages()

    def calls(now: float) -> None:
        data, addr = next(forged)
        bob.receive_datagram(data, addr, now, BOB)
        answer, = drained(bob)
        if not (wanted := cookie(answer)): return
        packet = Packet.parse(Reader(data))
        again = Packet(packet.exchange_type, (wanted, *packet.payloads)).encode(
            data[:8], bytes(8), response=False, initiator=True, message_id=0)
        bob.receive_datagram(again, addr, now, BOB)
        answer, = drained(bob)
        assert Packet.parse(Reader(answer)).all(KE)
    with measured() as held:
        before = held()
        for _ in range(TRANSIENT_LIMIT): calls(now=0)
        full = held() - before
        for n in range(200):
            calls(now=n / 100)
            assert len(bob.sas) == len(bob.first) == len(bob.transient) == TRANSIENT_LIMIT
        assert full < TRANSIENT_LIMIT * 24 * 1024 and held() - before < full + 128 * 1024
    assert len(bob.timers.heap) <= TRANSIENT_LIMIT


def test_a_real_initiator_gets_in_between() -> None:
    "For each datagram of hers, hundreds of others come before it."
    left, right = both()
    alice, bob, forged = Host(), Host((right,)), first_messages()
    alice.connect(left, ALICE, BOB, now=0)
    trips = 0
    while not alice.established and trips < 5:
        for d in alice.datagrams_to_send():
            for _ in range(300): bob.receive_datagram(*next(forged), 0, BOB)
            assert drained(bob)
            bob.receive_datagram(d.data, ALICE, 0, BOB)
        for data in drained(bob): alice.receive_datagram(data, BOB, 0, ALICE)
        trips += 1
    assert trips == 3 and len(bob.established) == 1  # with the cookie it is three round trips


@contextmanager
def responder(log: Path, *options: str) -> Iterator[tuple[subprocess.Popen, int, int]]:
    "The program, as a process of its own; yields it and its ports."
    command = [sys.executable, '-m', 'ike_lit.responder', '--port', '0', '--nat-port', '0', *OTHER, *options]
    with log.open('wb') as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        try:
            words = process.stdout.readline().split()
            ports = [int(w.rstrip(',').rpartition(':')[2]) for w in words if ':' in w]
            rest = threading.Thread(target=process.stdout.read, daemon=True)  # or it would wait for us
            rest.start()
            yield process, ports[0], ports[1]
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)
            rest.join(timeout=10)


class Flood(threading.Thread):
    """First messages from many addresses of this machine, as many as the responder can answer:
    there are always some that wait for it, and never more than its socket can hold."""
    waiting = 64

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.port, self.over, self.sent, self.cookies = port, threading.Event(), 0, 0
        self.asked = threading.Event()  # a cookie has been demanded
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
        for n, sock in enumerate(self.sockets):
            sock.setblocking(False)
            sock.bind((f'127.{1 + n // 50}.{n % 50}.{1 + n}', 0))

    def run(self) -> None:
        forged, open_ = first_messages(), 0
        while not self.over.is_set():
            for _ in range(self.waiting - open_):
                sock = self.sockets[self.sent % len(self.sockets)]
                with unhurried(): sock.sendto(next(forged)[0], ('127.0.0.1', self.port))
                self.sent += 1
            ready, _, _ = select.select(self.sockets, [], [], 0.5)
            open_ = self.waiting - sum(map(self.read, ready)) if ready else 0  # nothing: they were lost

    def read(self, sock: socket.socket) -> int:
        "Return how many answers have come."
        count = 0
        with unhurried():
            while data := sock.recv(4096):
                count += 1
                if cookie(data):
                    self.cookies += 1
                    self.asked.set()
        return count

    def __enter__(self) -> 'Flood':
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(timeout=10)
        for sock in self.sockets: sock.close()


@contextmanager
def unhurried() -> Iterator[None]:
    "Nothing is waited for: a full buffer loses a datagram, as a network does."
    with suppress(BlockingIOError, ConnectionRefusedError): yield


def resident(pid: int) -> int:
    "Return how many octets of memory a process has."
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def called(port: int, nat_port: int) -> float:
    "Run the initiator program once; return the seconds until it is established."
    command = [sys.executable, '-m', 'ike_lit.initiator', '127.0.0.1', '--port', str(port), '--nat-port',
               str(nat_port), *NAMES, *DEMO_KEYS, '--ike', SUITE, '--once', '--json']
    began = sent = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(20, process.kill)
        killer.start()
        seconds = None
        for line in process.stdout:
            event = json.loads(line)
            if event['event'] == 'Message' and began is None: began = time.monotonic()
            if event['event'] == 'Established': seconds = time.monotonic() - began
            sent = event
        killer.cancel()
    assert process.returncode == 0 and seconds is not None, sent
    return seconds


def test_the_program_under_a_flood(tmp_path: Path, record_property: Callable) -> None:
    "The responder demands cookies and does not grow; an initiator gets in (aim: within 2 s)."
    with responder(tmp_path / 'log', '--ike', SUITE) as (process, port, nat_port):
        calm = called(port, nat_port)
        before = resident(process.pid)
        began = time.monotonic()
        with Flood(port) as flood:
            assert flood.asked.wait(timeout=10)
            seconds = [called(port, nat_port) for _ in range(3)]
        rate = flood.cookies / (time.monotonic() - began)
        assert max(seconds) < 10 and flood.cookies > 100
        grown = resident(process.pid) - before
    assert grown < 16 * 1024 * 1024
    row = f'{flood.sent} first messages from {len(flood.sockets)} addresses'
    for column, cell in (('a second', f'{rate:.0f}'), ('alone', f'{calm:.2f} s'),
                         ('in it', f'{max(seconds):.2f} s'), ('grown', f'{grown // 1024} KiB')):
        record_property('flood', (row, column, cell))
    assert not (tmp_path / 'log').read_text()


# The initiator

def forged_answers(request: bytes, seed: int = 0) -> Iterator[bytes]:
    "Yield what somebody could answer who has seen a first message, and is nobody."
    chance = Random(seed)  # noqa: S311
    packet = Packet.parse(Reader(request))
    offer, ke = packet.one(SA).proposals[0], packet.one(KE)
    first = {t.type: t for t in reversed(offer.transforms)}
    suite = SA((offer.__class__(1, offer.protocol, b'', tuple(first[k] for k in sorted(first))),))
    hashes = [n for n in packet.all(Notify) if n.message_type == MessageType.SIGNATURE_HASH_ALGORITHMS]

    def answer(*payloads: Payload, spi_r: bytes = bytes(8)) -> bytes:
        return Packet(ExchangeType.IKE_SA_INIT, payloads).encode(
            request[:8], spi_r, response=True, initiator=False, message_id=0)
    while True:
        public = KeyExchange(ke.group, chance.randbytes).public
        yield answer(suite, KE(ke.group, public), Nonce(chance.randbytes(32)), *hashes,
                     spi_r=chance.randbytes(8))
        yield answer(Notify(MessageType.COOKIE, chance.randbytes(16)))
        yield answer(Notify(MessageType.NO_PROPOSAL_CHOSEN))
        yield answer(Notify(MessageType.INVALID_KE_PAYLOAD, Group.ECP_256.to_bytes(2, 'big')))
        yield answer(suite, KE(ke.group, bytes(len(public))), Nonce(bytes(32)), *hashes, spi_r=b'12345678')
        yield answer(suite, KE(ke.group, public), spi_r=b'12345678')
        yield bytes(Header(request[:8], chance.randbytes(8), Type.SK, ExchangeType.IKE_AUTH, True, False, 1,
                           160)) + chance.randbytes(132)
        yield chance.randbytes(200)


@pytest.mark.parametrize('count', [8, 80, 400])
def test_an_initiator_finishes_among_forged_answers(count: int) -> None:
    "Before each true answer come as many forged ones, of eight kinds."
    left, right = both()
    alice, bob = Host(), Host((right,))
    alice.connect(left, ALICE, BOB, now=0)
    forged: Iterator[bytes] | None = None
    with measured() as held:
        before = held()
        for _ in range(20):
            for d in alice.datagrams_to_send():
                forged = forged or forged_answers(d.data)
                bob.receive_datagram(d.data, ALICE, 0, BOB)
                true = drained(bob)
                if d.data[18] == ExchangeType.IKE_SA_INIT:
                    for _ in range(count): alice.receive_datagram(next(forged), BOB, 0, ALICE)
                for data in true: alice.receive_datagram(data, BOB, 0, ALICE)
            if alice.established: break
        drained(alice), drained(bob)
        assert held() - before < 4 * 1024 * 1024
    assert len(alice.established) == 1 and len(bob.established) == 1
    assert len(alice.sas[alice.established[0].spi_i]) < 2 * TRANSIENT_LIMIT


class Between(threading.Thread):
    "A wire with somebody in it who answers each first message many times before it is handed on."

    def __init__(self, ports: tuple[int, int], count: int):
        super().__init__(daemon=True)
        self.count, self.over, self.forged = count, threading.Event(), 0
        self.near = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
        self.far = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
        for near, far, port in zip(self.near, self.far, ports, strict=True):
            near.bind(('127.0.0.1', 0))
            far.connect(('127.0.0.1', port))
        self.ports = [near.getsockname()[1] for near in self.near]
        self.caller: dict[socket.socket, tuple] = {}

    def run(self) -> None:
        opposite = dict(zip(self.near, self.far, strict=True))
        back = dict(zip(self.far, self.near, strict=True))
        while not self.over.is_set():
            ready, _, _ = select.select([*self.near, *self.far], [], [], 0.1)
            for sock in ready:
                data, addr = sock.recvfrom(65536)
                if sock in opposite:
                    self.caller[sock] = addr
                    self.answer(sock, data, addr)
                    opposite[sock].send(data)
                elif (near := back[sock]) in self.caller: near.sendto(data, self.caller[near])

    def answer(self, near: socket.socket, data: bytes, addr: tuple) -> None:
        marker = NON_ESP_MARKER * data.startswith(NON_ESP_MARKER)
        if data[18:19] != bytes([ExchangeType.IKE_SA_INIT]): return
        for _, forged in zip(range(self.count), forged_answers(data), strict=False):
            near.sendto(marker + forged, addr)
            self.forged += 1

    def __enter__(self) -> 'Between':
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(timeout=10)
        for sock in (*self.near, *self.far): sock.close()


def test_the_initiator_program_among_forged_answers(tmp_path: Path, record_property: Callable) -> None:
    with (responder(tmp_path / 'log', '--ike', SUITE) as (_, port, nat_port),
          Between((port, nat_port), 200) as wire):
        seconds = called(*wire.ports)
    assert wire.forged >= 200 and seconds < 10
    row = f'{wire.forged} forged answers'
    record_property('flood', (row, 'in it', f'{seconds:.2f} s'))
