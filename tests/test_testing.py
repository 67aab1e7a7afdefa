"""`ike_lit.testing`, as the tests of another IKE would use it: without keys/, nbs/, pytest or IPython,
a network that is the same in every run, and a peer whose broken messages are sealed and signed all the same.
"""
import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import ike_lit
import pytest
from canonical import configs
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import MAX_INIT_RETRIES
from ike_lit.engine.informational import delete_ike_sa, liveness
from ike_lit.engine.model import Closed, Config, Datagram, Dropped, Event
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, Network, handshake, two_ends
from ike_lit.testing.scripted import Change, Raw, ScriptedPeer, When, over_udp
from ike_lit.testing.stage import PATIENT, Drawing, drawn, ends, play, sas, strangers, talk_through
from ike_lit.wire.auth import AUTH, IDi
from ike_lit.wire.const import AuthenticationType, ExchangeType, MessageType, Type
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.ke import KE
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Opaque, Packet, Payload, Vendor, pack_chain
from test_house import ROOT, cells, source

INIT, AUTHENTICATE = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH
INFORMATIONAL = ExchangeType.INFORMATIONAL
SUITE = {'ike': 'aes256gcm16-prfsha256-x25519', 'esp': 'aes256gcm16'}


def chances() -> tuple[Callable[[int], bytes], Callable[[int], bytes]]:
    "Octets for two ends, the same in every run."
    return Random(1).randbytes, Random(2).randbytes  # noqa: S311


def shared(**more: object) -> tuple[Config, Config]:
    "Alice and Bob, who share a secret."
    names, traffic = ('alice.example.org', 'bob.example.org'), ('10.1.0.0/24', '10.2.0.0/24')
    return tuple(Config.psk(*names[::way], b'a secret', local_ts=traffic[::way][0],
                            remote_ts=traffic[::way][1], **{**SUITE, **more}) for way in (1, -1))


def payloads(make: Callable[[tuple[Payload, ...]], object]) -> Change:
    return lambda packet: replace(packet, payloads=tuple(make(packet.payloads)))


def more(*new: Payload) -> Change: return payloads(lambda old: (*old, *new))


def without(kind: Type) -> Change: return payloads(lambda old: (p for p in old if p.kind != kind))


def instead(new: Payload) -> Change:
    return payloads(lambda old: (new if p.kind == new.kind else p for p in old))


def met(changes: dict[When, Change], two: tuple[Config, Config] | None = None, until: float = 0.5,
        host: Host | None = None) -> tuple[ScriptedPeer, Host, list[Event], Network]:
    "The peer has called Bob: both, what Bob has told, and the network."
    alice, bob = two or shared()
    peer, called = ScriptedPeer(alice, changes), host or Host((bob,))
    network = Network({ALICE: peer, BOB: called})
    peer.connect()
    network.run(until=until)
    return peer, called, [event for _, event in network.events(called)], network


# what a user of the wheel has

def test_the_wing_needs_nothing_that_a_wheel_does_not_bring() -> None:
    script = ('import sys\nimport ike_lit.testing.network, ike_lit.testing.stage, ike_lit.testing.scripted\n'
              'print(*{name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)')
    done = subprocess.run([sys.executable, '-I', '-c', script], capture_output=True, text=True,
                          timeout=60, check=True)
    assert 'ike_lit' in done.stdout.split()
    assert not {'IPython', 'pytest', 'numpy', 'canonical', 'fastcore'} & set(done.stdout.split())


def test_the_script_of_the_chapter_runs_by_itself() -> None:
    chapter, = (ROOT / 'nbs').glob('*_scripted.ipynb')
    script, = (source(cell) for cell in cells(chapter) if source(cell).startswith('from dataclasses'))
    assert len(script.splitlines()) <= 15
    done = subprocess.run([sys.executable, '-I', '-c', script], capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stdout == 'IKE_AUTH(N(UNSUPPORTED_CRITICAL_PAYLOAD, 1 octets))\n'


# the network, and two ends by hand

def test_two_ends_with_keys_of_ones_own() -> None:
    i, r = handshake(*two_ends(*shared(), random=chances()))
    assert i.state == r.state == State.ESTABLISHED and i.child.outbound == r.child.inbound
    again, _ = handshake(*two_ends(*shared(), random=chances()))
    assert vars(i.keys) == vars(again.keys)


def carried(seed: int) -> list[Datagram]:
    seen: list[Datagram] = []
    alice, bob = shared()
    one, other = chances()
    caller, called = Host(random=one), Host((bob,), random=other)
    network = Network({ALICE: caller, BOB: called}, seed=seed, loss=0.4, twice=0.3, delay=3, tap=seen.append)
    caller.connect(alice, ALICE, BOB, now=0)
    network.run(until=25)
    return seen


def test_a_bad_network_is_equally_bad_in_every_run() -> None:
    assert carried(5) == carried(5) != carried(6)


# the stage

@pytest.mark.parametrize('mover', ['initiator', 'responder'])
def test_a_ladder_with_keys_of_ones_own(mover: str) -> None:
    a, b = ends(*shared(timing=PATIENT), mover)
    assert (a.ike.initiator, sas(a), sas(b)) == (mover == 'initiator', 'A1 B1: a1 b1', 'A1 B1: a1 b1')
    assert (a.address, a.config == b.config) == (ALICE if mover == 'initiator' else BOB, False)
    a.begins(liveness)
    play(a, '''
        a -x alive?''')
    with pytest.raises(AssertionError, match='it says'): play(a, 'b -> nothing')
    with pytest.raises(ValueError, match='no arrow'): play(a, 'b >> nothing')
    picture = drawn(a)
    assert isinstance(picture, Drawing) and 'a-xb: alive? (lost)' in repr(picture)
    assert picture._repr_markdown_() == f'```mermaid\n{picture!r}\n```'


def test_strangers_meet_when_one_calls() -> None:
    a, b = strangers(*shared(timing=PATIENT), 'responder')
    assert (sas(a), sas(b)) == ('', '')
    b.calls()
    assert len(talk_through(a)) == 4 and sas(a) == sas(b) == 'A1 B1: a1 b1'


# the critical flag

def test_only_a_payload_that_says_so_is_critical() -> None:
    kind, chain = pack_chain([Raw(Type(200), b'ab', critical=True), Raw(Type(201), b'c'), Vendor(b'd')])
    assert (kind, chain) == (Type(200), bytes.fromhex('c9 80 0006 6162  2b 00 0005 63  00 00 0005 64'))
    assert not any(cls.critical for cls in (Vendor, Nonce, KE, IDi, Opaque))


# the peer: what is sent is what is signed, and what keys are made from

KINDS = {'shared keys': shared, 'signatures': configs}


@pytest.mark.parametrize('two', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize('change', [
    more(Raw(Type(200), b'?')), payloads(reversed), instead(Raw(Type.Nonce, b'n' * 256)),
    instead(Raw(Type.Nonce, b'n' * 16)), more(Vendor(b'somebody')),
    payloads(lambda old: (p for p in old if not str(p).startswith('N(NAT_DETECTION')))],
    ids=['unknown', 'backwards', 'long nonce', 'short nonce', 'vendor', 'no NAT detection'])
def test_a_changed_first_message_is_the_one_that_is_proven(two: Callable, change: Change) -> None:
    "Bob accepts it only if AUTH and the keys are of what was sent."
    seen: list[Packet] = []
    peer, host, _, _ = met({INIT: lambda packet: seen.append(change(packet)) or seen[-1]}, two())
    assert peer.ike.state == State.ESTABLISHED and len(host.established) == 1
    first = Packet.parse(Reader(host.established[0].first_messages[1]))
    assert tuple(map(bytes, first.payloads)) == tuple(map(bytes, seen[0].payloads))
    assert peer.ike.child.outbound == host.established[0].child.inbound


@pytest.mark.parametrize('two', KINDS.values(), ids=KINDS)
def test_a_changed_identity_is_the_one_that_is_proven(two: Callable) -> None:
    alice = two()[0].local_id
    odd = Raw(Type.IDi, bytes([alice.type, 7, 7, 7]) + alice.data)
    peer, host, _, _ = met({AUTHENTICATE: instead(odd)}, two())
    assert peer.ike.state == State.ESTABLISHED and len(host.established) == 1


@pytest.mark.parametrize(('when', 'kind', 'octets'), [
    (INIT, Type.Nonce, bytes(40)), (AUTHENTICATE, Type.IDi, b'\2\7\7\7alice.example.org')])
def test_a_body_given_as_octets_is_the_one_that_is_proven(when: When, kind: Type, octets: bytes) -> None:
    change = payloads(lambda old: (replace(p, octets=octets) if p.kind == kind else p for p in old))
    peer, host, _, _ = met({when: change})
    assert peer.ike.state == State.ESTABLISHED and len(host.established) == 1


def test_a_proof_that_the_change_has_made_stays() -> None:
    odd = Raw(Type.IDi, b'\2\1\0\0alice.example.org')
    false = AUTH(AuthenticationType.SHARED_KEY, bytes(32))
    peer, host, _, _ = met({AUTHENTICATE: lambda packet: instead(false)(instead(odd)(packet))})
    assert peer.answers[-1].error().message_type == MessageType.AUTHENTICATION_FAILED
    assert not host.established


def test_a_cookie_comes_back_and_another_group_is_taken() -> None:
    alice = shared(ike='aes256gcm16-prfsha256-ecp256-x25519')[0]
    bob = shared()[1]
    peer, host, _, _ = met({}, (alice, bob), host=Host((bob,), cookie_threshold=0))
    assert [str(p.payloads[0]).partition(',')[0] for p in peer.answers[:2]] == [
        'N(COOKIE', 'N(INVALID_KE_PAYLOAD']
    assert len(host.established) == 1 and peer.ike.state == State.ESTABLISHED


def test_a_change_may_keep_the_cookie_back_but_not_for_ever() -> None:
    host = Host((shared()[1],), cookie_threshold=0)
    peer, _, _, network = met({INIT: lambda packet: replace(packet, payloads=tuple(
        p for p in packet.payloads if getattr(p, 'message_type', None) != MessageType.COOKIE))}, host=host)
    assert len(peer.answers) == 1 + MAX_INIT_RETRIES and peer.ike.state == State.CLOSED


# what Bob says to what is not allowed

REFUSED: dict[str, tuple[dict, str]] = {
    'two KE': ({INIT: payloads(lambda old: (p for q in old for p in (q,) * (1 + (q.kind == Type.KE))))},
               'IKE_SA_INIT with 2 KE payloads'),
    'critical': ({INIT: more(Raw(Type(200), b'', critical=True))}, 'UNSUPPORTED_CRITICAL_PAYLOAD'),
    'critical inside': ({AUTHENTICATE: more(Raw(Type(49), b'', critical=True))},
                        'UNSUPPORTED_CRITICAL_PAYLOAD'),
    'nonce of 15': ({INIT: instead(Raw(Type.Nonce, bytes(15)))}, 'a nonce of 15 octets'),
    'nonce of 257': ({INIT: instead(Raw(Type.Nonce, bytes(257)))}, 'a nonce of 257 octets'),
    'no KE': ({INIT: without(Type.KE)}, 'no KE'),
    'no TSi': ({AUTHENTICATE: without(Type.TSi)}, 'INVALID_SYNTAX'),
    'two IDi': ({AUTHENTICATE: payloads(lambda old: (old[0], *old))}, 'INVALID_SYNTAX'),
    'by predicate': ({lambda packet: len(packet.payloads) == 6: without(Type.AUTH)}, 'AUTHENTICATION_FAILED')}


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_not_allowed_is_sent_and_refused(name: str) -> None:
    changes, expected = REFUSED[name]
    peer, host, told, _ = met(changes)
    reasons = [event.reason for event in told if isinstance(event, Dropped)]
    assert expected in ' '.join([*reasons, str(peer.answers[-1:])])
    assert not host.established and peer.ike.state != State.ESTABLISHED


def test_changes_are_made_in_their_order() -> None:
    peer, _, _, _ = met({INIT: more(Vendor(b'1')), lambda packet: True: more(Vendor(b'2'))})
    assert [p.data for p in Packet.parse(Reader(peer.ike.first_messages[0])).all(Vendor)] == [b'1', b'2']


# after the handshake

def test_any_octets_message_id_and_flags() -> None:
    peer, host, _, network = met({})
    sent: list[bytes] = []
    network.tap = lambda d: sent.append(d.data) if d.source == ALICE else None
    alive = Packet(INFORMATIONAL, ())
    for octets in (b'anything', peer.encode(alive, message_id=5), peer.encode(alive, response=True),
                   peer.encode(alive, initiator=False), peer.encode(Packet(INIT, ()), message_id=3)):
        peer.send(octets)
    network.run(until=1)
    headers = [Header.parse(Reader(data)) for data in sent[1:]]
    assert sent[0] == b'anything'
    assert [(h.message_id, h.response, h.initiator) for h in headers] == [
        (5, False, True), (2, True, True), (2, False, False), (3, False, True)]
    assert peer.ike.state == State.ESTABLISHED and len(host.established) == 1
    peer.send(peer.encode(alive))
    network.run(until=2)
    assert str(peer.answers[-1]) == 'INFORMATIONAL()' and peer.answers[-1].header.message_id == 2


def test_a_later_request_is_changed_and_has_the_message_id_that_was_set() -> None:
    peer, host, _, network = met({INFORMATIONAL: more(Raw(Type(200), b'', critical=True))})
    peer.start(liveness, now=network.now)
    network.run(until=1)
    assert peer.answers[-1].error().message_type == MessageType.UNSUPPORTED_CRITICAL_PAYLOAD
    peer.message_id = 70
    peer.start(liveness, now=network.now)
    network.run(until=1.5)
    assert [event.reason for _, event in network.events(host) if isinstance(event, Dropped)] == [
        'request 70, but 3 is next']
    assert peer.message_id == 71


def test_the_other_end_may_rekey_and_leave() -> None:
    peer, host, _, network = met({})
    for conversation in (lambda ike: rekey_child(ike, ike.child.inbound.spi)), rekey_ike_sa:
        host.start(host.established[0], conversation, now=network.now)
        network.run(until=network.now + 1)
    peer.start(liveness, now=network.now)
    network.run(until=network.now + 1)
    assert str(peer.answers[-1]) == 'INFORMATIONAL()' and len(host.established) == 1
    network.events(peer)
    host.start(host.established[0], delete_ike_sa, now=network.now)
    network.run(until=network.now + 1)
    assert Counter(type(event) for _, event in network.events(peer))[Closed] == 1


def test_a_message_in_fragments_is_read_whole() -> None:
    two = tuple(replace(c, datagram=256) for c in configs())
    peer, host, told, _ = met({AUTHENTICATE: more(Vendor(bytes(1000)))}, two)
    assert peer.ike.state == State.ESTABLISHED
    assert [packet.exchange_type for packet in peer.answers] == [INIT, AUTHENTICATE]
    assert len(peer.answers[-1].sizes) > 1


def test_a_request_that_is_lost_is_sent_again_as_it_was() -> None:
    seen: list[bytes] = []
    peer = ScriptedPeer(shared()[0], {INIT: more(Vendor(b'!'))})
    network = Network({ALICE: peer}, tap=lambda d: seen.append(d.data))
    peer.connect()
    network.run(until=2)
    assert len(seen) == 2 and len(set(seen)) == 1
    network.run(until=60)
    assert [type(event) for _, event in network.events(peer)][-1] is Closed


# as a responder

def called(changes: dict[When, Change], two: tuple[Config, Config]) -> tuple[Host, list[Event]]:
    peer, caller = ScriptedPeer(two[1], changes, local=BOB, remote=ALICE, initiator=False), Host()
    network = Network({ALICE: caller, BOB: peer})
    caller.connect(two[0], ALICE, BOB, now=0)
    network.run(until=10)
    return caller, [event for _, event in network.events(caller)]


@pytest.mark.parametrize('two', KINDS.values(), ids=KINDS)
def test_a_changed_first_response_is_the_one_that_is_proven(two: Callable) -> None:
    caller, _ = called({INIT: more(Raw(Type(200), b'?'))}, two())
    assert len(caller.established) == 1


@pytest.mark.parametrize(('changes', 'why'), [
    ({AUTHENTICATE: without(Type.AUTH)}, 'no proof'),
    ({AUTHENTICATE: more(Raw(Type(200), b'', critical=True))}, 'critical and unknown'),
    ({INIT: without(Type.Nonce)}, 'no Nonce')], ids=['no AUTH', 'critical', 'no nonce'])
def test_what_a_responder_must_not_say_is_refused(changes: dict, why: str) -> None:
    caller, told = called(changes, shared(timing=replace(PATIENT, timeout=5)))
    assert not caller.established
    assert why in str([event.error for event in told if isinstance(event, Closed)])


# over UDP

def test_over_loopback() -> None:
    alice, bob = shared()

    async def against_a_daemon() -> list[Packet]:
        async with ike_lit.serve('127.0.0.1', [bob], port=0, nat_port=0) as daemon:
            peer = ScriptedPeer(alice, {AUTHENTICATE: more(Raw(Type(200), b'', critical=True))},
                                local=Endpoint('127.0.0.1', 0), remote=Endpoint('127.0.0.1', daemon.port))
            peer.connect()
            return await asyncio.to_thread(over_udp, peer, seconds=0.5)
    assert [str(packet.payloads[0]) for packet in asyncio.run(against_a_daemon())][1:] == [
        'N(UNSUPPORTED_CRITICAL_PAYLOAD, 1 octets)']
