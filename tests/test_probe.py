"Asking a peer what it takes: with cookies, with strangers on the wire, and with nobody there."
import os
from collections import deque

import pytest
from canonical import HERITAGE, configs
from ike_lit.cli import probe
from ike_lit.cli.diagnosis import no_way
from ike_lit.engine.host import Host
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.const import ExchangeType, Fact, Group, MessageType, TransformType
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.ke import KE
from ike_lit.wire.payload import Notify, Packet
from ike_lit.wire.proposal import SA


class Wire:
    "A socket to Bob, of which a host is the other end; `before` is what arrives before each of his answers."

    def __init__(self, host: Host | None, before: object = None):
        self.host, self.before, self.sent, self.arriving = host, before, list[bytes](), deque[bytes]()

    def settimeout(self, seconds: float) -> None: assert 0 < seconds <= probe.ANSWER_SECONDS

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        if self.before: self.arriving.append(self.before(data))
        if not self.host: return
        self.host.receive_datagram(data, ALICE, 0.0, BOB)
        self.arriving += [d.data for d in self.host.datagrams_to_send()]

    def recv(self, size: int) -> bytes:
        if not self.arriving: raise TimeoutError
        return self.arriving.popleft()


def host(**options: int) -> Host: return Host((configs(**HERITAGE)[1],), **options)


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
    assert not bob.established and not bob.transient
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
    assert probe.ask_once(wire, question('sha256'), os.urandom) == (False, 'no', None, (), Fact.NONE)


def test_nobody_there() -> None:
    "Each question twice, three questions, and no more."
    wire = Wire(None)
    found = list(probe.probe(wire, probe.asks(), os.urandom))
    assert [answer.said for _, answer in found] == ['no answer'] * 3 and len(wire.sent) == 6
    said, hint = probe.table(found)
    assert said == 'it says nothing that helps: no answer' and 'firewalls' in hint


def test_who_falls_silent_is_not_said_to_refuse_the_rest() -> None:
    wire = Wire(host())
    send = wire.send

    def until_ten(data: bytes) -> None:
        if len(wire.sent) == 10: wire.host = None
        send(data)
    wire.send = until_ten
    said = list(probe.table(list(probe.probe(wire, probe.asks(), os.urandom))))
    assert said[-1] == 'then it has given no answer that says anything; 49 were not asked about'
    assert sum(len(line.split()) - 2 for line in said if ' refuses ' in line) == 10


@pytest.mark.parametrize('where', ['send', 'recv'])
def test_a_closed_port_is_explained_as_the_initiator_does(where: str) -> None:
    "The system tells it with the answer, or with the next question."
    wire = Wire(None)

    def refused(_: object) -> bytes: raise ConnectionRefusedError(111, 'Connection refused')
    setattr(wire, where, refused)
    said, hint = probe.table(list(probe.probe(wire, probe.asks(), os.urandom)), port=501)
    assert said == 'it says nothing that helps: Connection refused'
    assert hint.strip() == no_way(Fact.REFUSED, 501)


def test_the_question_is_one_that_daemons_take() -> None:
    """libreswan answers INVALID_SYNTAX to a group of KE that it has never heard of (test_kernel_probe.py);
    so the group is of the registry, its public value of the right size, and no question asks for it."""
    for ask in probe.asks():
        packet = probe.question(ask.proposals, os.urandom)
        ke, decoy = packet.one(KE), packet.one(SA).proposals[-1]
        assert ke.group == Group.MODP_768 and len(ke.public) == 96
        assert [t.id for t in decoy.of_type(TransformType.DH)] == [ke.group]
        assert ke.group not in {t.id for p in ask.proposals for t in p.of_type(TransformType.DH)}
