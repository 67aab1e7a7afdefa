"Asking a peer what it takes: with cookies, with strangers on the wire, and with nobody there."
import os
from collections import deque

import pytest
from canonical import ALICE, BOB, configs
from ike_lit import probe
from ike_lit.const import ExchangeType, MessageType
from ike_lit.header import Header, Reader
from ike_lit.host import Host
from ike_lit.payload import Notify, Packet


class Wire:
    "A socket to Bob, of which a host is the other end; `before` is what arrives before each of his answers."

    def __init__(self, host: Host | None, before: object = None):
        self.host, self.before, self.sent, self.arriving = host, before, list[bytes](), deque[bytes]()

    def settimeout(self, seconds: float) -> None: assert 0 < seconds <= probe.PATIENCE

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        if self.before: self.arriving.append(self.before(data))
        if not self.host: return
        self.host.receive_datagram(data, ALICE, 0.0, BOB)
        self.arriving += [d.data for d in self.host.datagrams_to_send()]

    def recv(self, size: int) -> bytes:
        if not self.arriving: raise TimeoutError
        return self.arriving.popleft()


def host(**options: int) -> Host: return Host((configs()[1],), **options)


def question(keyword: str) -> probe.Ask:
    return next(ask for ask in probe.asks() if ask.algorithm.keyword == keyword)


def refusal(spi_i: bytes) -> bytes:
    return Packet(ExchangeType.IKE_SA_INIT, (Notify(MessageType.NO_PROPOSAL_CHOSEN),)).encode(
        spi_i, bytes(8), response=True, initiator=False, message_id=0)


@pytest.mark.parametrize('keyword, takes', [('camellia256', True), ('aes256', False)])
def test_a_cookie_is_sent_back(keyword: str, takes: bool) -> None:
    "RFC 7296 §2.6: the same request with the cookie in front; only then there is an answer."
    bob = host(cookie_threshold=0)
    wire = Wire(bob)
    assert probe.ask_once(wire, question(keyword), os.urandom).takes is takes
    assert not bob.established and not bob.passing
    first, second = (Packet.parse(Reader(data)) for data in wire.sent)
    assert not first.notify(MessageType.COOKIE) and second.payloads[0] == second.notify(MessageType.COOKIE)


def test_what_answers_somebody_else_is_passed_by() -> None:
    "Another SPI, a request, half a message, and noise: Bob's answer comes after them."
    def other(data: bytes) -> bytes: return refusal(b'stranger')
    def noise(data: bytes) -> bytes: return data[:-1]
    def echo(data: bytes) -> bytes: return data
    for before in other, noise, echo:
        assert probe.ask_once(Wire(host(), before), question('sha256'), os.urandom).takes


def test_a_refusal_counts() -> None:
    "The test before this one would notice nothing if all answers were passed by."
    wire = Wire(None, lambda data: refusal(Header.parse(Reader(data)).spi_i))
    assert probe.ask_once(wire, question('sha256'), os.urandom) == (False, 'no', None, ())


def test_nobody_there() -> None:
    "Each question twice, three questions, and no more."
    wire = Wire(None)
    found = list(probe.probe(wire, probe.asks(), os.urandom))
    assert [answer.said for _, answer in found] == ['no answer'] * 3 and len(wire.sent) == 6
    said, hint = probe.table(found)
    assert said == 'it says nothing that helps: no answer' and 'firewalls' in hint
