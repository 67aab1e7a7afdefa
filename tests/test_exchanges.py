"RFC 7296 §1 to §2.12, rule by rule, at both ends: exchanges, message IDs, patience, lifetimes."
import gc
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from random import Random
from types import FrameType, FunctionType, ModuleType

import pytest
from canonical import HERITAGE, configs, two_ends
from ike_lit import initiator
from ike_lit.cli.options import InitiatorOptions
from ike_lit.engine import host, ike_sa, proof
from ike_lit.engine.child_sa import new_spi
from ike_lit.engine.create_child_sa import RESPONDERS, create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.engine.model import (
    ChildClosed, ChildEstablished, ChildFailed, Closed, Datagram, Dropped, Established, Lifetime,
    Message, Rekeyed, Timing)
from ike_lit.engine.protocol import IKE, LAST_ID
from ike_lit.engine.state import Alarm, Pending, State, Task
from ike_lit.testing.network import ALICE, BOB, Network, deliver, events, family, handshake, talk
from ike_lit.wire import payload
from ike_lit.wire.auth import AUTH
from ike_lit.wire.configuration import CP
from ike_lit.wire.const import (
    AuthenticationFailed, CfgType, ExchangeType, Group, MessageType, NoAnswer, ProtocolID,
    TransformType, Type)
from ike_lit.wire.header import HEADER, RESERVED, Header, Layout, Reader, Span, dissect
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.nat import Endpoint, unwrap
from ike_lit.wire.nonce import Nonce, new_ike_spi
from ike_lit.wire.payload import (
    GENERIC, UNDERSTOOD, Delete, Notify, Opaque, Packet, Payload, Vendor, parse_chain)
from ike_lit.wire.proposal import SA, parse_proposals
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

INIT, AUTHENTICATE = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH
CREATE, INFORM = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL
NEVER = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
PFS = 'aes256-sha256-modp2048'
both_roles = pytest.mark.parametrize('first', [0, 1], ids=['initiator', 'responder'])


def found(ike: IKE, kind: type) -> list:
    return [e for e in events(ike) if isinstance(e, kind)]


def up(first: int = 0, **changes: object) -> tuple[IKE, IKE]:
    "Return both ends of an established IKE SA, the original initiator or its responder first."
    ends = handshake(*two_ends(RESPONDERS, *configs(**changes)))
    for end in ends: events(end)
    return ends[first], ends[1 - first]


def said(ike: IKE) -> list[bytes]: return [d.data for d in ike.datagrams_to_send()]


def request(ike: IKE, conversation: Callable, *args: object, now: float = 1) -> bytes:
    "Begin a conversation and return its first message."
    ike.start(conversation, *args, now=now)
    data, = said(ike)
    return data


def sealed(ike: IKE, packet: Packet, message_id: int, response: bool = False) -> bytes:
    "Return a message as an end would send it, with its keys."
    return ike.outgoing.seal(packet, ike.spi_i, ike.spi_r, response=response,
                             initiator=ike.initiator, message_id=message_id, random=bytes)


def put(asker: IKE, other: IKE, *payloads: Payload,
        exchange: ExchangeType = INFORM) -> Packet | None:
    "Send a request that no conversation of ours makes; return the response if there is one."
    data = sealed(asker, Packet(exchange, payloads), asker.window.next_id)
    asker.window.next_id += 1
    other.receive_datagram(data, asker.local, 1)
    sent = said(other)
    return asker.incoming.open(sent[0]) if sent else None


def two_hosts(timing: Timing = NEVER, tap: Callable[[Datagram], None] | None = None,
              **changes: object) -> tuple[Network, Host, Host, IKE]:
    "Return a network with two hosts that have talked for a second, and the attempt of the first."
    (left, right), random = configs(timing=timing, **changes), Random(7296).randbytes  # noqa: S311
    alice, bob = Host(random=random), Host((right,), random=random)
    network = Network({ALICE: alice, BOB: bob}, tap=tap)
    attempt = alice.connect(left, ALICE, BOB, now=0)
    network.run(until=1)
    return network, alice, bob, attempt


def only(end: Host) -> IKE:
    ike, = end.established
    return ike


# A whole life, for rules that hold for every message

def whole_life(tap: Callable[[Datagram], None] | None = None, **changes: object) -> list[list[str]]:
    """Handshake, both rekey the Child SA and the IKE SA and ask for life, one deletes the Child SA,
    the other makes a new one and leaves. Return what both ends tell, but for messages."""
    network, alice, bob, _ = two_hosts(tap=tap, esp=PFS, **changes)

    def step(end: Host, conversation: Callable, *args: object) -> None:
        for ike in end.established: end.start(ike, conversation, *args, now=network.now)
        network.run(until=network.now + 1)
    for end in alice, bob:
        for ike in end.established: step(end, rekey_child, *ike.children)
        step(end, rekey_ike_sa)
        step(end, liveness)
    for ike in alice.established: step(alice, delete_child, *ike.children)
    step(bob, create_child)
    step(bob, delete_ike_sa)
    return [[type(e).__name__ for _, e in network.events(end) if not isinstance(e, Message)]
            for end in (alice, bob)]


@cache
def ordinary_life() -> list[list[str]]: return whole_life()


def test_a_whole_life_is_one() -> None:
    for told in ordinary_life():
        kinds = Established, ChildEstablished, ChildClosed, Rekeyed, Dropped, ChildFailed
        assert [told.count(kind.__name__) for kind in kinds] == [1, 4, 4, 2, 0, 0]
        assert told[-1] == 'Closed'


def chains(monkeypatch: pytest.MonkeyPatch, change: Callable) -> None:
    "Let both ends change the payloads of every message that they send."
    real = payload.pack_chain
    monkeypatch.setattr(payload, 'pack_chain', lambda payloads: real(change(list(payloads))))


def everything_sent(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[list[Span]]]:
    "Return the datagrams of a whole life, and dissections of their headers and of all payloads."
    real, inside, datagrams = payload.pack_chain, [], []

    def noted(payloads: list) -> tuple[Type, bytes]:
        inside.append(real(payloads))
        return inside[-1]
    monkeypatch.setattr(payload, 'pack_chain', noted)
    whole_life(tap=lambda d: datagrams.append(d.data))
    spans = [dissect(Header.parse, data).spans[:HEADER.size] for data in datagrams]
    for first, chain in inside:
        shown = dissect(lambda r, first=first: parse_chain(first, r), chain)
        assert shown.error is None
        spans.append(shown.spans)
    assert len(datagrams) >= 30 and len(inside) >= 30
    return datagrams, spans


def values(spans: list[Span], names: frozenset[str]) -> Iterator[int]:
    "Yield the values of the fields with these names."
    for span in spans:
        left = 8 * len(span.octets)
        for row in span.rows:
            left -= row.bits
            if row.bits and row.name in names:
                yield int.from_bytes(span.octets, 'big') >> left & (1 << row.bits) - 1


# §1: the order of exchanges

def test_nothing_but_the_initial_exchanges_comes_first() -> None:
    "§1: 'all IKE_SA_INIT exchanges MUST complete before any other exchange type'."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    kinds = []
    for _ in range(2):
        kinds += [data[18] for data in deliver(alice, bob)]
        assert State.ESTABLISHED not in [end.state for end in family(alice)]
        kinds += [data[18] for data in deliver(bob, alice)]
    assert kinds == [INIT, INIT, AUTHENTICATE, AUTHENTICATE]
    assert family(alice)[-1].state == bob.state == State.ESTABLISHED


@pytest.mark.parametrize('exchange', [AUTHENTICATE, CREATE, INFORM])
@pytest.mark.parametrize('response', [False, True])
def test_no_other_exchange_while_ike_sa_init_is_under_way(
        exchange: ExchangeType, response: bool) -> None:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    for message_id in 0, 1:
        data = Packet(exchange, (Notify(MessageType.AUTHENTICATION_FAILED),)).encode(
            alice.spi_i, bob.spi_r, response=response, initiator=False, message_id=message_id)
        alice.receive_datagram(data, BOB, 0)
        assert isinstance(events(alice)[-1], Dropped) and not said(alice)
    talk(alice, bob)
    assert bob.state == State.ESTABLISHED


@pytest.mark.parametrize('exchange', [CREATE, INFORM])
def test_a_half_open_sa_serves_nothing_but_ike_auth(exchange: ExchangeType) -> None:
    "§1.4: 'MUST ONLY occur after the initial exchanges', though sealed with the right keys."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    candidate = alice.lineage.new_sas[0]
    data = sealed(candidate, Packet(exchange, ()), 1)
    bob.receive_datagram(data, ALICE, 0)
    assert not said(bob) and isinstance(events(bob)[-1], Dropped)
    data = sealed(bob, Packet(exchange, ()), 0)
    candidate.receive_datagram(data, BOB, 0)
    assert isinstance(events(candidate)[-1], Dropped) and candidate.state == State.CONNECTING
    talk(alice, bob)
    assert candidate.state == bob.state == State.ESTABLISHED


@both_roles
@pytest.mark.parametrize('exchange', [INIT, AUTHENTICATE])
def test_the_initial_exchanges_are_not_repeated(first: int, exchange: ExchangeType) -> None:
    one, other = up(first)
    assert put(one, other, exchange=exchange) is None
    assert isinstance(events(other)[-1], Dropped) and other.state == State.ESTABLISHED


# §1.2: the initial exchanges

def flipped(octets: bytes) -> bytes: return octets[:-1] + bytes([octets[-1] ^ 1])


@both_roles
@pytest.mark.parametrize('what', ['signature', 'SK_p', 'messages', 'nonces', 'identity'])
def test_a_proof_covers_all_of_it(monkeypatch: pytest.MonkeyPatch, first: int, what: str) -> None:
    "§1.2: both parties 'MUST verify that all signatures and' MACs 'are computed correctly'."
    real, signed = proof.make_auth, []

    def prove(ike: IKE, config: object, identity: ike_sa.IDi, *more: object) -> AUTH:
        if ike.initiator == bool(first): return real(ike, config, identity)
        before = ike.keys, ike.first_messages, ike.nonces
        if what == 'SK_p': ike.keys = replace(ike.keys, sk_pi=bytes(32), sk_pr=bytes(32))
        if what == 'messages': ike.first_messages = tuple(map(flipped, ike.first_messages))
        if what == 'nonces': ike.nonces = tuple(map(flipped, ike.nonces))
        if what == 'identity':
            identity = replace(identity, body=identity.body[:3] + b'\1' + identity.body[4:])
        auth = real(ike, config, identity)
        ike.keys, ike.first_messages, ike.nonces = before
        signed.append(auth)
        return replace(auth, data=flipped(auth.data)) if what == 'signature' else auth
    for module in ike_sa, proof: monkeypatch.setattr(module, 'make_auth', prove)
    ends = handshake(*two_ends(RESPONDERS))
    deceived = ends[1 - first]
    seen = events(deceived)
    assert signed and not deceived.children and deceived.state == State.CLOSED
    assert not [e for e in seen if isinstance(e, Established | ChildEstablished)]
    assert [type(e.error) for e in seen if isinstance(e, Closed)] == [AuthenticationFailed]


GROUPS = 'aes256-sha256-modp2048-modp3072'


def detour(*kinds: str) -> list[Packet]:
    "Let a responder answer with cookies ('c') and with the other group ('k'); return the requests."
    left, right = configs(ike=GROUPS)
    alice, bob = two_ends(RESPONDERS, left, replace(
        right, ike=parse_proposals('aes256-sha256-modp3072', ProtocolID.IKE)))
    alice.start(ike_sa_init, now=0)
    requests = said(alice)
    for n, kind in enumerate(kinds):
        answer = (Notify(MessageType.COOKIE, bytes([n, 7])) if kind == 'c'
                  else Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\x0f'))
        alice.receive_datagram(Packet(INIT, (answer,)).encode(
            alice.spi_i, bytes(8), response=True, initiator=False, message_id=0), BOB, 0)
        requests += said(alice)
    bob.receive_datagram(requests[-1], ALICE, 0)
    if 'k' in kinds:
        for one, other in (bob, alice), (alice, bob), (bob, alice): deliver(one, other)
        assert bob.state == family(alice)[-1].state == State.ESTABLISHED
    return [Packet.parse(Reader(data)) for data in requests]


def test_another_group_is_used_with_the_same_offer() -> None:
    "§1.2: 'MUST retry the IKE_SA_INIT with the corrected' group and the 'full set' of suites."
    before, after = detour('k')
    assert [p.one(KE).group for p in (before, after)] == [Group.MODP_2048, Group.MODP_3072]
    assert len(after.one(KE).public) == 384
    assert bytes(before.one(SA)) == bytes(after.one(SA))
    for packet in before, after:
        assert packet.header.message_id == 0 and packet.header.spi_r == bytes(8)
        assert packet.header.initiator and not packet.header.response
    assert before.header.spi_i == after.header.spi_i


def test_a_cookie_comes_back_in_front_and_nothing_else_changes() -> None:
    "§2.6: 'as the first payload, and all other payloads unchanged'."
    before, after = detour('c')
    assert after.payloads[0] == Notify(MessageType.COOKIE, b'\0\7')
    assert after.data[28 + 8 + 2:] == before.data[28:]
    assert after.header.message_id == 0 and after.header.spi_i == before.header.spi_i


def test_a_cookie_stays_and_a_new_one_takes_its_place() -> None:
    "§2.6.1: the shorter exchange, and responders that do not know it."
    _, cookie, both, again = detour('c', 'k', 'c')
    assert [p.payloads[0].data for p in (cookie, both, again)] == [b'\0\7', b'\0\7', b'\2\7']
    assert [p.one(KE).group for p in (cookie, both, again)] == [14, 15, 15]
    assert again.one(KE) == both.one(KE) and again.one(Nonce) == cookie.one(Nonce)
    assert len(again.payloads) == len(cookie.payloads)  # one cookie, not two


def test_forged_detours_of_all_kinds_are_followed_a_few_times_only() -> None:
    "§2.6: 'limit the number of cookie exchanges'; §2.4: 'MUST limit the rate'."
    requests = detour(*'ck' * 100)[1:]
    assert len(requests) <= 10


def test_ike_auth_has_no_group_no_public_value_and_no_nonce() -> None:
    alice, bob = two_ends(RESPONDERS, *configs(esp='aes256-sha256-modp2048,aes128-sha256-modp3072'))
    alice.start(ike_sa_init, now=0)
    for one, other in (alice, bob), (bob, alice): deliver(one, other)
    keys = bob.incoming, alice.lineage.new_sas[0].incoming
    messages = [sk.open(deliver(one, other)[0])
                for sk, (one, other) in zip(keys, ((alice, bob), (bob, alice)), strict=True)]
    for packet in messages:
        assert packet.exchange_type == AUTHENTICATE and not packet.all(KE) and not packet.all(Nonce)
        for proposal in packet.one(SA).proposals: assert not proposal.of_type(TransformType.DH)
    assert [len(p.one(SA).proposals) for p in messages] == [2, 1]


# §1.3: CREATE_CHILD_SA

def creations(first: int, **changes: object) -> tuple[IKE, IKE]:
    "Return two ends of an established IKE SA that has no Child SA."
    one, other = up(first, **changes)
    one.start(delete_child, *one.children, now=1)
    talk(one, other, now=1)
    for end in one, other: events(end)
    return one, other


@both_roles
@pytest.mark.parametrize('esp, group', [
    (PFS, Group.MODP_2048), ('aes256-sha256-modp4096-modp3072', Group.MODP_4096),
    ('aes256-sha256-modp3072-x25519-modpnone', Group.CURVE_25519),  # that of the IKE SA comes first
    ('aes256-sha256,aes256-sha256-modp2048', Group.MODP_2048), ('aes256-sha256', None)])
@pytest.mark.parametrize('conversation', [create_child, rekey_child])
def test_the_public_value_is_of_a_group_that_is_offered(
        first: int, esp: str, group: Group | None, conversation: Callable) -> None:
    one, other = creations(first, esp=esp) if conversation is create_child else up(first, esp=esp)
    packet = other.incoming.open(request(one, conversation, *one.children))
    offered = {t.id for p in packet.one(SA).proposals for t in p.of_type(TransformType.DH)}
    assert [ke.group for ke in packet.all(KE)] == ([] if group is None else [group])
    assert group is None or group in offered


@both_roles
def test_a_public_value_of_another_group_is_refused_with_the_preferred_one(first: int) -> None:
    "§1.3: 'MUST reject the request and indicate its preferred Diffie-Hellman group'."
    left, right = configs(esp='aes256-sha256-modp2048-modp3072')
    narrow = parse_proposals('aes256-sha256-modp3072', ProtocolID.ESP)
    both = [replace(c, esp=narrow) if n != first else c for n, c in enumerate((left, right))]
    ends = handshake(*two_ends(RESPONDERS, *both))
    one, other = ends[first], ends[1 - first]
    other.receive_datagram(request(one, rekey_child, *one.children), one.local, 1)
    refusal, = said(other)
    assert one.incoming.open(refusal).notify(MessageType.INVALID_KE_PAYLOAD).data == b'\0\x0f'
    assert len(other.children) == 1
    one.receive_datagram(refusal, other.local, 1)
    packet = other.incoming.open(said(one)[0])
    assert packet.one(KE).group == Group.MODP_3072 and packet.header.message_id > 0


@both_roles
def test_a_child_sa_that_is_refused_leaves_the_ike_sa(first: int) -> None:
    "§1.3.1: 'SHOULD NOT tear down the IKE SA'."
    one, other = creations(first)
    other.config = replace(other.config, esp=parse_proposals('aes128-sha256', ProtocolID.ESP))
    one.start(create_child, now=1)
    talk(one, other, now=1)
    assert one.state == other.state == State.ESTABLISHED and not one.children and not other.children
    assert found(one, ChildFailed)[0].error.type == MessageType.NO_PROPOSAL_CHOSEN
    one.start(liveness, now=2)
    talk(one, other, now=2)
    assert not one.busy


@both_roles
def test_a_new_child_sa_that_is_no_transport_is_deleted(first: int) -> None:
    "§1.3.1: the request asked for transport mode, the answer does not grant it."
    one, other = creations(first)
    one.config = replace(one.config, mode='transport')
    packet = other.incoming.open(request(one, create_child))
    assert packet.notify(MessageType.USE_TRANSPORT_MODE)
    other.receive_datagram(sealed(one, packet, packet.header.message_id), one.local, 1)
    answer, = said(other)
    assert len(other.children) == 1
    one.receive_datagram(answer, other.local, 1)
    delete = other.incoming.open(said(one)[0])
    assert delete.one(Delete) == Delete(ProtocolID.ESP, (packet.one(SA).proposals[0].spi,))
    other.receive_datagram(sealed(one, delete, delete.header.message_id), one.local, 1)
    assert not one.children and not other.children and one.state == State.ESTABLISHED


@both_roles
def test_rekeying_an_ike_sa_takes_a_public_value_and_a_new_spi(first: int) -> None:
    one, other = up(first)
    old = {one.spi_i, one.spi_r}
    asked = other.incoming.open(request(one, rekey_ike_sa))
    assert asked.exchange_type == CREATE and asked.one(KE).group == Group.CURVE_25519
    assert not asked.all(TSi) and not asked.notify(MessageType.REKEY_SA)
    spi, = {p.spi for p in asked.one(SA).proposals}
    assert len(spi) == 8 and any(spi) and spi not in old
    other.receive_datagram(sealed(one, asked, asked.header.message_id), one.local, 1)
    granted = one.incoming.open(said(other)[0])
    theirs = granted.one(SA).proposals[0].spi
    assert granted.one(KE).group == Group.CURVE_25519
    assert len(theirs) == 8 and any(theirs) and theirs not in {*old, spi}
    heir = other.lineage.successor
    assert (heir.spi_i, heir.spi_r, heir.initiator) == (spi, theirs, False)


@both_roles
@pytest.mark.parametrize('lost', [KE, Nonce, SA])
def test_rekeying_an_ike_sa_without_a_public_value_is_refused(first: int, lost: type) -> None:
    "§1.3.2: 'The KEi payload MUST be included'."
    one, other = up(first)
    asked = other.incoming.open(request(one, rekey_ike_sa))
    left = [p for p in asked.payloads if not isinstance(p, lost)]
    one.window.next_id = asked.header.message_id
    answer = put(one, other, *left, exchange=CREATE)
    assert answer.notify(MessageType.INVALID_SYNTAX) and not other.lineage.new_sas


@both_roles
def test_rekeying_a_child_sa_names_the_spi_under_which_we_receive(first: int) -> None:
    one, other = up(first)
    spi, = one.children
    asked = other.incoming.open(request(one, rekey_child, spi))
    which = asked.notify(MessageType.REKEY_SA)
    assert (which.protocol, which.spi, which.data) == (ProtocolID.ESP, spi, b'')
    assert asked.one(SA).proposals[0].spi != spi
    other.receive_datagram(sealed(one, asked, asked.header.message_id), one.local, 1)
    assert found(other, ChildEstablished)[0].replaces.outbound.spi == spi


@both_roles
def test_only_the_spi_of_the_asker_names_its_child_sa(first: int) -> None:
    one, other = up(first)
    asked = other.incoming.open(request(one, rekey_child, *one.children))
    one.window.next_id = asked.header.message_id
    for wrong in (Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=one.child.outbound.spi),
                  Notify(MessageType.REKEY_SA, protocol=ProtocolID.AH, spi=one.child.inbound.spi)):
        answer = put(one, other, wrong, *asked.payloads[1:], exchange=CREATE)
        assert answer.notify(MessageType.CHILD_SA_NOT_FOUND) and len(other.children) == 1


# §1.4: INFORMATIONAL

STATUS = (Notify(MessageType.ADDITIONAL_TS_POSSIBLE), Notify(MessageType(40000), b'what'),
          Vendor(b'mine'))


@both_roles
@pytest.mark.parametrize('payloads', [
    (), STATUS, (Notify(MessageType.INVALID_SPI, b'1234'),), (Notify(MessageType(1234)),),
    (CP(CfgType.CFG_SET, ()),), (Opaque(Type(200), b'future'),),
    (Delete(ProtocolID.AH, (b'1234',)),),
    (Delete(ProtocolID.ESP),)], ids=str)
def test_every_informational_request_is_answered(first: int, payloads: tuple) -> None:
    "§1.4: 'MUST send some response', with the ID and the roles of the request."
    one, other = up(first)
    data = sealed(one, Packet(INFORM, payloads), one.window.next_id)
    other.receive_datagram(data, one.local, 1)
    answer, = said(other)
    packet = one.incoming.open(answer)
    assert packet.payloads == () and packet.exchange_type == INFORM
    header = packet.header
    assert header.message_id == one.window.next_id
    assert header.response and header.initiator == bool(first)
    assert (header.spi_i, header.spi_r) == (one.spi_i, one.spi_r)
    assert other.state == State.ESTABLISHED and len(other.children) == 1


@both_roles
def test_a_delete_closes_the_pair_and_is_answered_with_the_other_direction(first: int) -> None:
    one, other = up(first)
    child = other.child
    answer = put(one, other, Delete(ProtocolID.ESP, (child.outbound.spi, b'none')))
    assert answer.payloads == (Delete(ProtocolID.ESP, (child.inbound.spi,)),)
    assert not other.children and found(other, ChildClosed) == [ChildClosed(child)]
    again = put(one, other, Delete(ProtocolID.ESP, (child.outbound.spi,)))
    assert again.payloads == () and not found(other, ChildClosed)


@both_roles
def test_a_delete_names_the_spi_of_its_sender(first: int) -> None:
    "§1.4.1: SPIs 'as they would be expected in the headers of inbound packets' of the sender."
    one, other = up(first)
    assert put(one, other, Delete(ProtocolID.ESP, (other.child.inbound.spi,))).payloads == ()
    assert len(other.children) == 1
    packet = other.incoming.open(request(one, delete_child, *one.children))
    assert packet.payloads == (Delete(ProtocolID.ESP, (one.child.inbound.spi,)),)


@both_roles
def test_deletes_that_cross_are_not_answered_with_deletes(first: int) -> None:
    "§1.4.1: 'the responses MUST NOT include Delete payloads for the deleted SAs'."
    one, other = up(first)
    crossing = [request(end, delete_child, *end.children) for end in (one, other)]
    other.receive_datagram(crossing[0], one.local, 1)
    one.receive_datagram(crossing[1], other.local, 1)
    answers = said(one), said(other)
    assert other.incoming.open(answers[0][0]).payloads == ()
    assert one.incoming.open(answers[1][0]).payloads == ()
    other.receive_datagram(answers[0][0], one.local, 1)
    one.receive_datagram(answers[1][0], other.local, 1)
    for end in one, other:
        assert not end.children and not end.busy and len(found(end, ChildClosed)) == 1


@both_roles
def test_a_delete_of_the_ike_sa_is_answered_with_nothing_and_closes_all(first: int) -> None:
    one, other = up(first)
    child = other.child
    answer = put(one, other, Delete(ProtocolID.IKE))
    assert answer.payloads == () and other.state == State.CLOSED
    closed = [e for e in events(other) if isinstance(e, ChildClosed | Closed)]
    assert closed == [ChildClosed(child), Closed(None)]


@both_roles
def test_an_spi_is_not_given_twice_while_its_sa_is_half_closed(first: int) -> None:
    "§1.4.1: 'MUST NOT unilaterally close them and reuse the SPIs'."
    one, _ = up(first)
    spi, = one.children
    request(one, delete_child, spi)
    drawn = [spi, bytes(4), b'\0\0\0\xff', spi, b'new!']
    one.random = lambda size: drawn.pop(0)
    assert new_spi(one) == b'new!'


# §1.5: outside of an IKE SA

def stray(packet: Packet, response: bool, initiator: bool = True, message_id: int = 0) -> bytes:
    return packet.encode(b'strange1', b'strange2', response=response, initiator=initiator,
                         message_id=message_id)


SEALED = Packet(INFORM, (Opaque(Type.SK, bytes(64)),))


def test_a_response_to_nobody_is_not_answered() -> None:
    "§2.21.4: 'If the message is marked as a response, the node ... MUST NOT respond'."
    _, alice, bob, _ = two_hosts()
    for end, there, here in (alice, BOB, ALICE), (bob, ALICE, BOB):
        for kind in INIT, AUTHENTICATE, CREATE, INFORM:
            for begun in False, True:
                data = stray(replace(SEALED, exchange_type=kind), True, begun)
                end.receive_datagram(data, there, 2, here)
                assert not end.datagrams_to_send() and isinstance(end.next_event()[1], Dropped)


@pytest.mark.parametrize('kind', [
    MessageType.INVALID_SPI, MessageType.INVALID_IKE_SPI, MessageType.INVALID_MAJOR_VERSION])
def test_an_unprotected_notification_is_not_answered(kind: MessageType) -> None:
    """§1.5: 'the receiving node MUST NOT respond to it'.

    INVALID_SPI comes with random SPIs and without the R flag."""
    _, alice, bob, _ = two_hosts()
    for end, there, here in (alice, BOB, ALICE), (bob, ALICE, BOB):
        for response in True, False:
            data = stray(Packet(INFORM, (Notify(kind, b'1234'),)), response)
            end.receive_datagram(data, there, 2, here)
            assert not end.datagrams_to_send() and isinstance(end.next_event()[1], Dropped)
        assert only(end).state == State.ESTABLISHED


def test_a_sealed_request_to_nobody_is_told_so() -> None:
    "§1.5: a response in the clear, with SPIs, message ID and exchange type of the request."
    _, _, bob, _ = two_hosts()
    for kind in CREATE, INFORM, AUTHENTICATE:
        data = stray(replace(SEALED, exchange_type=kind), False, True, 77)
        there = Endpoint('203.0.113.9', 999)
        bob.receive_datagram(data, there, 2, BOB)
        d, = bob.datagrams_to_send()
        assert (d.source, d.destination) == (BOB, there)
        packet = Packet.parse(Reader(d.data))
        assert packet.payloads == (Notify(MessageType.INVALID_IKE_SPI),)
        assert packet.exchange_type == kind
        header = packet.header
        assert (header.spi_i, header.spi_r, header.message_id) == (b'strange1', b'strange2', 77)
        assert header.response and not header.initiator


# §2: datagrams

@pytest.mark.parametrize('size', [1280, 3000])
def test_messages_of_this_size_are_sent_and_received(
        monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    "§2: 'MUST be able to send, receive, and process IKE messages that are up to 1280 octets long'."
    real, sizes = payload.pack_chain, []
    ordinary_life()
    chains(monkeypatch, lambda payloads: [
        *payloads, Vendor(bytes(size - 96 - len(real(payloads)[1])))])
    assert whole_life(tap=lambda d: sizes.append(len(d.data)), datagram=0) == ordinary_life()
    assert min(sizes) > size - 80 and max(sizes) <= size


def test_port_4500_has_a_marker_that_nothing_else_counts() -> None:
    "§2: 'MUST begin with the prefix of four zeros'; lengths, checksums and AUTH do without it."
    natt = ALICE._replace(port=4500, natt=True), BOB._replace(port=4500, natt=True)
    (left, right), wires = configs(timing=NEVER), []
    alice, bob = Host(), Host((right,))
    alice.connect(left, *natt, now=0)
    for _ in range(3):
        for one, other in (alice, bob), (bob, alice):
            for d in one.datagrams_to_send():
                wires.append(d.wire)
                assert d.wire[:4] == bytes(4) and unwrap(d.wire, d.destination) == d.data
                assert int.from_bytes(d.wire[28:32], 'big') == len(d.wire) - 4
                other.receive_datagram(unwrap(d.wire, d.destination), d.source, 0, d.destination)
    assert only(alice).child.outbound == only(bob).child.inbound and len(wires) == 4
    assert unwrap(wires[0][4:], natt[0]) is None  # without the marker it is ESP


# §2.1: retransmission

def waiting(kind: str) -> tuple[IKE, IKE]:
    "Return an end that waits for an answer, and the other, which has not heard of it."
    alice, bob = two_ends(RESPONDERS, *configs(datagram=256))
    alice.start(ike_sa_init, now=0)
    if kind == INIT: return alice, bob
    deliver(alice, bob)
    deliver(bob, alice)
    if kind == AUTHENTICATE: return alice.lineage.new_sas[0], bob
    talk(alice, bob)
    one, other = (alice.lineage.new_sas[0], bob) if 'alice' in kind else (bob, alice.lineage.new_sas[0])
    one.start(liveness, now=0)
    return one, other


@pytest.mark.parametrize('kind', [INIT, AUTHENTICATE, 'alice asks', 'bob asks'])
def test_a_request_is_repeated_bit_by_bit_and_ever_more_rarely(kind: str) -> None:
    """Until it is answered. §2.1: 'MUST be bitwise identical', §2.4: 'MUST increase exponentially'.

    IKE_AUTH goes in fragments here."""
    one, other = waiting(kind)
    original, times = one.datagrams_to_send(), [0.0]
    assert (len(original) > 1) == (kind == AUTHENTICATE)
    for _ in range(4):
        times.append(one.next_timer())
        one.handle_timer(times[-1] - 0.001)
        assert not one.datagrams_to_send()
        one.handle_timer(times[-1])
        assert one.datagrams_to_send() == original
    waits = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert all(b >= 2 * a > 0 for a, b in zip(waits, waits[1:], strict=False))
    for d in original: other.receive_datagram(d.data, d.source, 20, d.destination)
    if kind != INIT:
        deliver(other, one, 20)
        assert one.window.pending is None and one.state == State.ESTABLISHED
        one.handle_timer(29.9)
        assert not one.datagrams_to_send()
    else:
        deliver(other, one, 20)
        assert one.lineage.new_sas[0].state == State.CONNECTING


@both_roles
def test_a_response_is_repeated_only_for_its_request_and_that_is_not_done_again(first: int) -> None:
    "§2.1: 'MUST never retransmit a response unless it receives a retransmission of the request'."
    one, other = up(first, timing=NEVER)
    spi, = one.children
    data = request(one, delete_child, spi)
    answers = []
    for now in 1, 2, 200, 500:
        other.receive_datagram(data, one.local, now)
        answers += said(other)
        assert other.next_timer() is None  # nothing that would send it without being asked
    assert len(answers) == 3 and len(set(answers)) == 1
    assert one.incoming.open(answers[0]).one(Delete)
    assert len(found(other, ChildClosed)) == 1 and other.window.expected_id == one.window.next_id


@both_roles
def test_requests_are_remembered_until_answered_and_responses_until_the_next_request(
        first: int) -> None:
    one, other = up(first)
    before = request(one, liveness)
    assert isinstance(one.window.pending, Pending) and one.window.pending.datagrams == (before,)
    other.receive_datagram(before, one.local, 1)
    answer, = said(other)
    one.receive_datagram(answer, other.local, 1)
    assert one.window.pending is None
    other.receive_datagram(before, one.local, 100)
    assert said(other) == [answer]
    one.start(liveness, now=101)
    talk(one, other, now=101)
    events(other)
    other.receive_datagram(before, one.local, 102)  # forgotten: 'it MUST ignore the request'
    assert not said(other) and isinstance(events(other)[-1], Dropped)
    one.receive_datagram(answer, other.local, 102)
    assert isinstance(events(one)[-1], Dropped) and not said(one)


def test_a_repeated_first_message_makes_no_second_sa() -> None:
    "§2.1: the same answer while the SA is half open, none once IKE_AUTH has been received."
    alice, (left, right) = Host(), configs()
    bob = Host((right,))
    alice.connect(left, ALICE, BOB, now=0)
    hello, = alice.datagrams_to_send()
    answers = []
    for now in range(3):
        bob.receive_datagram(hello.data, ALICE, now, BOB)
        answers += [d.data for d in bob.datagrams_to_send()]
    assert len(answers) == 3 and len(set(answers)) == 1 and len(bob.sas) == 1
    alice.receive_datagram(answers[0], BOB, 3, ALICE)
    proof, = alice.datagrams_to_send()
    bob.receive_datagram(proof.data, ALICE, 3, BOB)
    answer, = bob.datagrams_to_send()
    bob.receive_datagram(hello.data, ALICE, 100, BOB)
    assert not bob.datagrams_to_send() and len(bob.sas) == 1
    bob.receive_datagram(proof.data, ALICE, 100, BOB)
    assert bob.datagrams_to_send() == [answer]
    # another message from there, be it with the same SPI, is another SA
    other = bytearray(hello.data)
    other[-1] ^= 1
    bob.receive_datagram(bytes(other), ALICE, 101, BOB)
    assert len(bob.sas) == 2


@both_roles
def test_without_an_answer_all_state_is_discarded(first: int) -> None:
    "§2.1: 'discards all state associated with the IKE SA and any Child SAs'."
    one, _ = up(first)
    child = one.child
    request(one, rekey_child, child.inbound.spi)
    while (at := one.next_timer()) is not None:
        one.handle_timer(at)
        assert at <= 1 + one.timing.timeout
    assert one.state == State.CLOSED and not one.children
    assert one.keys is one.outgoing is one.incoming is None
    said(one)
    gone, over = [e for e in events(one) if isinstance(e, ChildClosed | Closed)]
    assert gone.child == child and isinstance(over.error, NoAnswer)
    assert initiator.exit_status(over.error) == 3
    one.start(liveness, now=99)
    assert not said(one)


# §2.2: message IDs

def test_message_ids_of_requests() -> None:
    "§2.2: 0 for IKE_SA_INIT, whatever detour it takes, 1 for IKE_AUTH, each direction for itself."
    datagrams: list[bytes] = []
    network, alice, bob, _ = two_hosts(tap=lambda d: datagrams.append(d.data))
    for end in alice, bob, bob, bob, alice:
        end.start(only(end), liveness, now=network.now)
        network.run(until=network.now + 1)
    headers = [Header.parse(Reader(data)) for data in datagrams]
    asked = [(h.initiator, h.message_id) for h in headers if not h.response]
    assert asked == [(True, 0), (True, 1), (True, 2), (False, 0), (False, 1), (False, 2), (True, 3)]
    for ask, answer in zip(headers[::2], headers[1::2], strict=True):
        assert answer.response and answer.initiator != ask.initiator
        assert (answer.message_id, answer.exchange_type) == (ask.message_id, ask.exchange_type)
    datagrams.clear()
    for end in alice, bob:
        end.start(only(end), rekey_ike_sa, now=network.now)
        network.run(until=network.now + 1)
        datagrams.clear()
        for one in alice, bob:  # the new IKE SA begins at 0 on both sides
            one.start(only(one), liveness, now=network.now)
            network.run(until=network.now + 1)
        assert [Header.parse(Reader(data)).message_id for data in datagrams] == [0] * 4


@pytest.mark.parametrize('detours', ['c', 'k', 'ck', 'ckc'])
def test_ike_sa_init_has_message_id_0_after_each_detour(detours: str) -> None:
    assert [p.header.message_id for p in detour(*detours)] == [0] * (len(detours) + 1)


@both_roles
@pytest.mark.parametrize('off', [-2, -1, 1, 2, 2 ** 31])
def test_a_response_with_another_id_is_dropped_unread(first: int, off: int) -> None:
    one, other = up(first)
    for now in 1, 2:
        one.start(liveness, now=now)
        talk(one, other, now=now)
    good, n = request(one, liveness), one.window.next_id - 1
    events(one)
    for packet in Packet(INFORM, ()), Packet(INFORM, (Opaque(Type.Delete, b'\xff'),)):
        one.receive_datagram(sealed(other, packet, n + off, response=True), other.local, 3)
        dropped, = events(one)
        assert isinstance(dropped, Dropped) and 'answers nothing that we asked' in dropped.reason
    assert one.window.pending.datagrams == (good,) and not said(one) and one.state == State.ESTABLISHED
    other.receive_datagram(good, one.local, 3)
    one.receive_datagram(said(other)[0], other.local, 3)
    assert one.window.pending is None


@both_roles
def test_the_ids_of_both_directions_are_independent(first: int) -> None:
    one, other = up(first)
    for now in range(1, 9):
        one.start(liveness, now=now)
        talk(one, other, now=now)
    n = other.window.next_id
    data = request(other, liveness, now=9)
    assert Header.parse(Reader(data)).message_id == n < one.window.next_id - 5
    one.receive_datagram(data, other.local, 9)
    other.receive_datagram(said(one)[0], one.local, 9)
    assert not other.busy
    # our own request, reflected, is none of the peer's
    mine = request(one, liveness, now=10)
    one.receive_datagram(mine, other.local, 10)
    assert not said(one) and one.window.pending


@both_roles
def test_an_ike_sa_ends_with_its_message_ids(first: int) -> None:
    "§2.2: 'MUST be closed or rekeyed'."
    one, other = up(first)
    one.window.next_id = other.window.expected_id = LAST_ID
    one.start(liveness, now=1)
    assert [data[20:24] for data in deliver(one, other, 1)] == [b'\xff' * 4]
    deliver(other, one, 1)
    assert one.state == State.ESTABLISHED and not one.busy
    one.start(liveness, now=2)
    assert not said(one) and one.state == State.CLOSED and not one.children


# §2.3: one request at a time

@both_roles
@pytest.mark.parametrize('window', [None, b'\0\0\0\4', b'\0\0\4', b'', b'\0\0\0\0\4'])
def test_a_second_request_waits_for_the_first(first: int, window: bytes | None) -> None:
    """§2.3: 'MUST wait for a response to each of its messages'.

    A larger window of the peer's is not used, and a malformed one changes nothing."""
    one, other = up(first)
    if window is not None:
        assert put(other, one, Notify(MessageType.SET_WINDOW_SIZE, window)).payloads == ()
    before = request(one, liveness)
    one.start(rekey_child, *one.children, now=1)
    one.start(liveness, now=1)
    assert not said(one)
    other.receive_datagram(before, one.local, 1)
    one.receive_datagram(said(other)[0], other.local, 1)
    after, = said(one)
    assert Header.parse(Reader(after)).exchange_type == CREATE
    assert Header.parse(Reader(after)).message_id == Header.parse(Reader(before)).message_id + 1


@both_roles
@pytest.mark.parametrize('ends', ['ike', 'child'])
def test_the_goodbye_waits_for_the_answer_to_an_earlier_request(first: int, ends: str) -> None:
    "A lifetime ends while a request is on its way, which is lost; a Delete beyond it would be dropped."
    life = {'ike': Lifetime(0, 100)} if ends == 'ike' else {'child': Lifetime(99.9, 100)}
    timing = Timing(**{'child': Lifetime(), 'ike': Lifetime(), 'liveness': 0, **life})
    network, *hosts, _ = two_hosts(timing)
    end, peer = hosts[first], hosts[1 - first]
    only(peer).alarms.clear()
    only(end).alarms.pop(Alarm(Task.REKEY, *only(end).children), None)
    network.run(until=99.5)
    end.start(only(end), liveness, now=99.5)
    asked, = (d.data for d in end.datagrams_to_send())
    end.handle_timer(100)
    assert {d.data for d in end.datagrams_to_send()} <= {asked}
    network.run(until=150)
    assert not end.established and not peer.established


@both_roles
def test_a_request_is_answered_while_our_own_waits(first: int) -> None:
    "§2.3: 'MUST be prepared to accept and process a request while it has a request outstanding'."
    one, other = up(first)
    asked = request(one, liveness)
    assert put(other, one).payloads == ()
    answer = put(other, one, Delete(ProtocolID.ESP, (other.child.inbound.spi,)))
    assert answer.one(Delete) and one.window.pending.datagrams == (asked,)
    other.receive_datagram(asked, one.local, 1)
    one.receive_datagram(said(other)[0], other.local, 1)
    assert not one.busy


@both_roles
@pytest.mark.parametrize('off', [-2, 1, 2, 1000])
def test_a_request_out_of_turn_is_not_acknowledged(first: int, off: int) -> None:
    "§2.3: 'MUST NOT be sent in a response; the invalid request MUST NOT be acknowledged'."
    one, other = up(first)
    for _ in range(3): put(one, other)
    for _ in range(100):
        data = sealed(one, Packet(INFORM, (Delete(ProtocolID.IKE),)), one.window.next_id + off)
        other.receive_datagram(data, one.local, 1)
    assert not said(other) and other.state == State.ESTABLISHED and not other.busy
    assert put(one, other, Notify(MessageType.INVALID_MESSAGE_ID, bytes(4))).payloads == ()
    assert other.state == State.ESTABLISHED


# §2.4: who is alive

@pytest.mark.parametrize('wanted', [False, True])
def test_initial_contact_is_in_the_first_ike_auth_or_nowhere(wanted: bool) -> None:
    "§2.4: 'if sent, MUST be in the first IKE_AUTH'; and only if the operator says so."
    network, alice, bob, _ = two_hosts(initial_contact=wanted)
    for end in alice, bob:
        end.start(only(end), liveness, now=1)
        end.start(only(end), rekey_ike_sa, now=1)
        network.run(until=network.now + 1)
    sent = [(end is alice, m.packet.exchange_type, m.response) for end in (alice, bob)
            for _, m in network.events(end) if isinstance(m, Message) and m.sent
            and m.packet.notify(MessageType.INITIAL_CONTACT)]
    assert sent == [(True, AUTHENTICATE, False)] * wanted


def test_initial_contact_counts_only_with_a_proof_and_in_ike_auth() -> None:
    network, alice, bob, _ = two_hosts()
    first, (left, _) = only(bob), configs(timing=NEVER)
    put(only(alice), first, Notify(MessageType.INITIAL_CONTACT))
    liar = replace(left, initial_contact=True, credential=configs()[1].credential)
    alice.connect(liar, ALICE, BOB, now=2)
    network.run(until=10)
    assert only(bob) is first and first.state == State.ESTABLISHED
    alice.connect(replace(left, initial_contact=True), ALICE, BOB, now=10)
    network.run(until=11)
    assert first.state == State.CLOSED and only(bob) is not first


@both_roles
def test_a_silent_peer_is_asked_and_only_then_believed_to_be_dead(first: int) -> None:
    "§2.4: 'only when repeated attempts to contact it have gone unanswered for a timeout period'."
    timing = Timing(child=Lifetime(), ike=Lifetime(), liveness=60, timeout=30)
    sent: list[Datagram] = []
    network, *hosts, _ = two_hosts(timing, sent.append)
    end, peer = hosts[first], hosts[1 - first]
    only(peer).alarms.clear()  # so that the peer does not ask by itself
    sent.clear()
    network.run(until=300)
    asked = [d.data for d in sent if not d.data[19] & 0x20]
    assert 4 <= len(asked) <= 5 and only(end) and only(peer)
    for data in asked: assert only(peer).incoming.open(data).payloads == ()
    network.loss = 1
    sent.clear()
    network.run(until=only(end).heard + 60 + 29.9)
    assert len({d.data for d in sent}) == 1 and len(sent) >= 5 and end.established
    network.run(until=network.now + 0.2)
    assert not end.established
    closed = [e for _, e in network.events(end) if isinstance(e, Closed)]
    assert isinstance(closed[-1].error, NoAnswer)


def test_a_fresh_message_is_a_sign_of_life_and_a_repeated_or_forged_one_is_not() -> None:
    one, other = up()
    one.heard = 1
    put(other, one)
    assert one.heard == 1 == one.now
    data = sealed(other, Packet(INFORM, ()), other.window.next_id)
    one.receive_datagram(data, BOB, 50)
    assert one.heard == 50
    one.receive_datagram(data, BOB, 60)
    one.receive_datagram(flipped(data), BOB, 60)
    clear = Packet(INFORM, ()).encode(one.spi_i, one.spi_r, response=False, initiator=False,
                                      message_id=other.window.next_id + 1)
    one.receive_datagram(clear, BOB, 60)
    assert one.heard == 50


def test_what_the_system_says_about_a_socket_ends_nothing() -> None:
    "§2.4: 'MUST NOT conclude that the other endpoint has failed based on any routing information'."
    session = initiator.Session(configs()[0], InitiatorOptions(install='none'), io.StringIO())
    session.attempt = session.host.connect(configs()[0], ALICE, BOB, now=0)
    for _ in range(1000): session.failed(ConnectionRefusedError(111, 'Connection refused'))
    assert session.attempt.state == State.INITIAL and session.attempt.window.pending
    assert len(session.attempt.unauthenticated) <= 16


def test_a_false_answer_does_not_end_an_attempt_that_the_true_one_may_still_answer() -> None:
    """§2.4: who answers first may be an attacker: 'treat each response as potentially legitimate'.

    The true answer to IKE_AUTH comes after nine seconds."""
    left, right = configs()
    alice, bob = Host(), Host((right,))
    mallory = Host((replace(right, credential=left.credential),))
    alice.connect(left, ALICE, BOB, now=0)
    hello, = alice.datagrams_to_send()
    proofs = []
    for end in mallory, bob:
        end.receive_datagram(hello.data, ALICE, 0, BOB)
        alice.receive_datagram(end.datagrams_to_send()[0].data, BOB, 0, ALICE)
        proofs += alice.datagrams_to_send()
    mallory.receive_datagram(proofs[0].data, ALICE, 0, BOB)
    alice.receive_datagram(mallory.datagrams_to_send()[0].data, BOB, 0, ALICE)
    while (at := alice.next_timer()) is not None and at < 9: alice.handle_timer(at)
    bob.receive_datagram(proofs[1].data, ALICE, 9, BOB)
    alice.receive_datagram(bob.datagrams_to_send()[0].data, BOB, 9, ALICE)
    told = []
    while event := alice.next_event(): told.append(event[1])
    assert not [e for e in told if isinstance(e, Closed)]
    assert [e for e in told if isinstance(e, Established)] and only(alice).child


@pytest.mark.parametrize('make', [
    lambda n: stray(SEALED, False, True, n),
    lambda n: stray(SEALED, False, True, n).replace(b'\x2e\x20\x25', b'\x2e\x30\x25')],
    ids=['unknown SPI', 'higher version'])
def test_complaints_in_the_clear_are_rare(make: Callable) -> None:
    "§2.4: 'MUST limit the rate at which they take actions based on unprotected messages'."
    _, _, bob, _ = two_hosts()
    for now, at_most in (2, host.REPLIES), (2.5, 0), (3.5, host.REPLIES):
        for n in range(1, 1001): bob.receive_datagram(make(n), ALICE, now, BOB)
        assert len(bob.datagrams_to_send()) == at_most


@both_roles
@pytest.mark.parametrize('conversation, news', [
    (delete_child, ProtocolID.ESP), (delete_ike_sa, ProtocolID.IKE)])
def test_the_peer_is_told_what_we_delete(
        first: int, conversation: Callable, news: ProtocolID) -> None:
    "§2.4: 'MUST send Delete payloads to the other end', and until it answers nothing is forgotten."
    one, other = up(first)
    spis = tuple(one.children) if news == ProtocolID.ESP else ()
    data = request(one, conversation, *spis)
    assert other.incoming.open(data).payloads == (Delete(news, spis),)
    assert one.children and one.state == State.ESTABLISHED
    other.receive_datagram(data, one.local, 1)
    one.receive_datagram(said(other)[0], other.local, 1)
    assert not one.children and not other.children
    over = State.CLOSED if news == ProtocolID.IKE else State.ESTABLISHED
    assert one.state == other.state == over


@pytest.mark.parametrize('replaced', [False, True])
def test_the_peer_is_told_of_a_child_sa_that_has_expired(replaced: bool) -> None:
    "§2.4: 'If an IKE endpoint chooses to delete Child SAs, it MUST send Delete payloads'."
    timing = Timing(child=Lifetime(0, 60), ike=Lifetime(), liveness=0, timeout=120)
    network, alice, bob, _ = two_hosts(timing)
    old = only(bob).child
    if replaced:  # by a peer that never deletes what it has replaced
        asked = only(bob).incoming.open(request(only(alice), rekey_child, *only(alice).children))
        bob.receive_datagram(sealed(only(alice), asked, asked.header.message_id), ALICE, 1, BOB)
        bob.datagrams_to_send()
        assert old.inbound.spi in only(bob).replaced
    only(alice).alarms.clear()
    network.events(bob)
    bob.handle_timer(61)
    deletes = [spi for _, m in network.events(bob) if isinstance(m, Message) and m.sent
               for d in m.packet.all(Delete) for spi in d.spis]
    assert old.inbound.spi in deletes


# §2.5: versions and what is reserved

def test_the_version_is_2_0(monkeypatch: pytest.MonkeyPatch) -> None:
    datagrams, _ = everything_sent(monkeypatch)
    assert {data[17] for data in datagrams} == {0x20}


@both_roles
@pytest.mark.parametrize('version', [0x30, 0x31, 0xf0])
def test_a_higher_major_version_is_dropped_and_told_about(first: int, version: int) -> None:
    "§2.5: 'it MUST drop the message and SHOULD send an unauthenticated Notify'."
    _, *hosts, _ = two_hosts()
    end, peer = hosts[first], hosts[1 - first]
    here, there = (BOB, ALICE) if first else (ALICE, BOB)
    data = sealed(only(peer), Packet(INFORM, (Delete(ProtocolID.IKE),)), only(peer).window.next_id)
    changed = data[:17] + bytes([version]) + data[18:]
    end.receive_datagram(changed, there, 2, here)
    d, = end.datagrams_to_send()
    packet = Packet.parse(Reader(d.data))
    assert packet.notify(MessageType.INVALID_MAJOR_VERSION).data in (b'', b'\2')
    assert d.data[17] == 0x20 and packet.header.response and d.destination == there
    assert only(end).state == State.ESTABLISHED
    response = changed[:19] + bytes([changed[19] | 0x20]) + changed[20:]
    end.receive_datagram(response, there, 2, here)  # a complaint is never complained about
    assert not end.datagrams_to_send()
    only(end).receive_datagram(changed, there, 2)
    assert not said(only(end)) and only(end).state == State.ESTABLISHED


def test_the_minor_version_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary_life()
    real, versions = HEADER.pack, set()
    monkeypatch.setattr(HEADER, 'pack', lambda *fields, reserved: real(*fields[:4], 9, *fields[5:]))
    assert whole_life(tap=lambda d: versions.add(d.data[17])) == ordinary_life()
    assert versions == {0x29}


def test_reserved_bits_are_sent_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    _, spans = everything_sent(monkeypatch)
    reserved = [value for message in spans for value in values(message, RESERVED)]
    assert len(reserved) > 300 and set(reserved) == {0}


def test_reserved_bits_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    "§2.5: 'their content MUST be ignored': both ends set every one of them in every message."
    ordinary_life()
    real, flags = Layout.pack, set()

    def filled(layout: Layout, *fields: object, reserved: int = 0) -> bytes:
        at = ones = 0
        for row in layout.rows:
            at += row.bits
            if row.name in RESERVED: ones |= (1 << row.bits) - 1 << 8 * layout.size - at
        return (int.from_bytes(real(layout, *fields), 'big') | ones).to_bytes(layout.size, 'big')
    monkeypatch.setattr(Layout, 'pack', filled)
    assert whole_life(tap=lambda d: flags.add(d.data[19])) == ordinary_life()
    assert flags == {0xd7, 0xdf, 0xf7, 0xff}


def test_unknown_payloads_are_skipped_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    "§2.5: 'If the critical flag is not set ... that payload MUST be ignored'."
    ordinary_life()
    unknown = Opaque(Type(200), b'future'), Opaque(Type(1), b''), Opaque(Type(255), bytes(99))
    chains(monkeypatch, lambda payloads: [
        *unknown, *(each for p in payloads for each in (p, unknown[len(payloads) % 3])), *unknown])
    assert whole_life() == ordinary_life()


def critical(*payloads: Payload) -> tuple[Type, bytes]:
    "Return a chain in which payloads of unknown types are critical."
    kinds, chain = [p.kind for p in payloads], b''
    for p, following in zip(payloads, (*kinds[1:], Type.NONE), strict=True):
        body = bytes(p)
        chain += GENERIC.pack(following, p.kind not in UNDERSTOOD, GENERIC.size + len(body)) + body
    return kinds[0], chain


@both_roles
@pytest.mark.parametrize('exchange', [CREATE, INFORM])
@pytest.mark.parametrize('kind', [1, 49, 200, 255])
def test_an_unknown_critical_payload_in_a_request_is_told_about_and_nothing_is_done(
        monkeypatch: pytest.MonkeyPatch, first: int, exchange: ExchangeType, kind: int) -> None:
    one, other = up(first)
    strange = Opaque(Type(kind), b'future')
    monkeypatch.setattr(payload, 'pack_chain', lambda payloads: critical(*payloads))
    data = sealed(one, Packet(exchange, (Delete(ProtocolID.IKE), strange)), one.window.next_id)
    monkeypatch.undo()
    other.receive_datagram(data, one.local, 1)
    answer, = (one.incoming.open(d) for d in said(other))
    assert answer.payloads == (Notify(MessageType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([kind])),)
    assert other.state == State.ESTABLISHED and other.children


def test_an_unknown_critical_payload_in_a_first_message_is_told_about() -> None:
    alice, bob = two_ends(RESPONDERS)[0], Host((configs()[1],))
    alice.start(ike_sa_init, now=0)
    good = Packet.parse(Reader(said(alice)[0]))
    kind, chain = critical(*good.payloads, Opaque(Type(200), b''))
    data = bytes(replace(good.header, next_payload=kind, length=HEADER.size + len(chain))) + chain
    bob.receive_datagram(data, ALICE, 0, BOB)
    d, = bob.datagrams_to_send()
    assert Packet.parse(Reader(d.data)).payloads == (
        Notify(MessageType.UNSUPPORTED_CRITICAL_PAYLOAD, b'\xc8'),)
    assert d.data[8:16] == bytes(8) and not bob.sas


@both_roles
def test_a_response_with_an_unknown_critical_payload_is_rejected(
        monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    "§2.5: 'the message MUST be rejected', all of it."
    one, other = up(first)
    other.receive_datagram(request(one, rekey_child, *one.children), one.local, 1)
    true = one.incoming.open(said(other)[0])
    monkeypatch.setattr(payload, 'pack_chain', lambda payloads: critical(*payloads))
    strange = replace(true, payloads=(*true.payloads, Opaque(Type(200), b'future')))
    answer = sealed(other, strange, true.header.message_id, response=True)
    monkeypatch.undo()
    one.receive_datagram(answer, other.local, 1)
    assert not found(one, ChildEstablished) and len(one.children) <= 1


def test_an_answer_to_a_first_message_with_an_unknown_critical_payload_is_not_believed() -> None:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    data, = said(bob)
    good = Packet.parse(Reader(data))
    kind, chain = critical(*good.payloads, Opaque(Type(200), b''))
    header = replace(good.header, next_payload=kind, length=HEADER.size + len(chain))
    alice.receive_datagram(bytes(header) + chain, BOB, 0)
    assert not alice.lineage.new_sas and isinstance(events(alice)[-1], Dropped)
    alice.receive_datagram(data, BOB, 0)
    assert alice.lineage.new_sas[0].state == State.CONNECTING


def test_the_critical_bit_is_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    _, spans = everything_sent(monkeypatch)
    bits = [value for message in spans for value in values(message, frozenset({'C'}))]
    assert len(bits) > 70 and set(bits) == {0}


def test_the_critical_bit_of_a_known_payload_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary_life()
    real = GENERIC.pack
    monkeypatch.setattr(GENERIC, 'pack', lambda following, _, size, reserved=0: real(following, 1, size))
    assert whole_life() == ordinary_life()


def test_payloads_may_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    "§2.5: 'MUST NOT reject as invalid a message with those payloads in any other order'."
    ordinary_life()
    chance = Random(7296)  # noqa: S311
    for change in lambda p: p[::-1], lambda p: chance.sample(p, len(p)):
        with monkeypatch.context() as patched:
            chains(patched, change)
            assert whole_life() == ordinary_life()


def test_payloads_are_sent_in_the_order_of_the_figures() -> None:
    "§1.2, §1.3 and §2.19, requests and responses."
    orders = []
    network, alice, bob, _ = two_hosts(esp=PFS)
    alice.start(only(alice), rekey_child, *only(alice).children, now=1)
    network.run(until=2)
    alice.start(only(alice), rekey_ike_sa, now=2)
    network.run(until=3)
    for end in alice, bob:
        orders.append([[p.kind for p in m.packet.payloads] for _, m in network.events(end)
                       if isinstance(m, Message) and m.sent and m.packet.exchange_type != INFORM])
    start, notes = [Type.SA, Type.KE, Type.Nonce], [Type.Notify] * 4
    child = [Type.SA, Type.Nonce, Type.KE, Type.TSi, Type.TSr]
    first_child = [Type.SA, Type.TSi, Type.TSr]
    assert orders[0] == [[*start, *notes], [Type.IDi, Type.IDr, Type.AUTH, *first_child],
                         [Type.Notify, *child], child[:3]]
    assert [o[:3] if n == 0 else o for n, o in enumerate(orders[1])] == [
        start, [Type.IDr, Type.AUTH, *first_child], child, child[:3]]


# §2.6: SPIs and cookies

def test_an_spi_is_not_zero() -> None:
    drawn = [bytes(8), bytes(8), b'12345678']
    assert new_ike_spi(lambda size: drawn.pop(0)[:size]) == b'12345678'
    assert len({new_ike_spi(Random(n).randbytes) for n in range(10_000)}) == 10_000  # noqa: S311


def test_an_spi_of_ours_names_one_sa_even_if_chance_repeats_itself() -> None:
    "§2.6: 'MUST choose them so as to be unique identifiers of an IKE SA'."
    left, drawn = configs()[0], [b'repeated', b'repeated', b'another!']
    chance = Random(7296).randbytes  # noqa: S311
    alice = Host(random=lambda size: drawn.pop(0) if size == 8 and drawn else chance(size))
    first, second = (alice.connect(left, ALICE, BOB, now=0) for _ in range(2))
    assert first.spi_i != second.spi_i


def test_a_cookie_is_believed_only_where_it_belongs() -> None:
    "§2.6: one that does not match is ignored: 'as if no cookie had been included'."
    left, right = configs()
    bob = Host((right,), cookie_threshold=0)

    def answer(data: bytes, addr: Endpoint, now: float) -> Packet:
        bob.receive_datagram(data, addr, now, BOB)
        return Packet.parse(Reader(bob.datagrams_to_send()[0].data))

    def first_message() -> IKE:
        ike = IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS)
        ike.start(ike_sa_init, now=0)
        return ike
    alice, other = first_message(), first_message()
    plain, = said(alice)
    refusal = answer(plain, ALICE, 0)
    cookie = refusal.notify(MessageType.COOKIE)
    assert 1 <= len(cookie.data) <= 64 and not bob.sas and refusal.header.spi_r == bytes(8)
    alice.receive_datagram(refusal.data, BOB, 0)
    other.receive_datagram(refusal.data.replace(alice.spi_i, other.spi_i), BOB, 0)
    good, stolen = said(alice)[0], said(other)[1]
    wrong = good.replace(cookie.data, flipped(cookie.data))
    for data, addr, now in ((wrong, ALICE, 0), (stolen, ALICE, 0), (plain, ALICE, 0),
                            (good, Endpoint('203.0.113.66', 500), 0), (good, ALICE, 500)):
        assert answer(data, addr, now).notify(MessageType.COOKIE) and not bob.sas
    bob.receive_datagram(plain, ALICE, 1000, BOB)
    fresh = Packet.parse(Reader(bob.datagrams_to_send()[0].data)).notify(MessageType.COOKIE)
    assert fresh.data != cookie.data
    assert answer(good.replace(cookie.data, fresh.data), ALICE, 1000).one(SA) and len(bob.sas) == 1


# §2.8: lifetimes

def test_an_ike_sa_that_nobody_has_replaced_ends_with_its_lifetime() -> None:
    "§2.8: 'the Security Association MUST NOT be used'."
    network, alice, bob, _ = two_hosts(Timing(child=Lifetime(), ike=Lifetime(0, 100), liveness=0))
    network.run(until=99.9)
    assert alice.established and bob.established
    network.run(until=105)
    assert not alice.established and not bob.established
    for end in alice, bob:
        told = [e for _, e in network.events(end) if isinstance(e, ChildClosed | Closed)]
        assert [type(e) for e in told] == [ChildClosed, Closed]


@pytest.mark.parametrize('soft', [0, 30])
def test_an_expired_child_sa_is_gone_whether_the_peer_answers_or_not(soft: float) -> None:
    timing = Timing(child=Lifetime(soft, 60), ike=Lifetime(), liveness=0, timeout=120)
    network, alice, bob, _ = two_hosts(timing)
    only(bob).alarms.clear()
    network.loss = 1
    network.run(until=59)
    assert only(alice).children
    network.run(until=62)
    assert not any(ike.children for named in alice.sas.values() for ike in named)
    assert [e for _, e in network.events(alice) if isinstance(e, ChildClosed)]


@pytest.mark.parametrize('conversation', [rekey_child, rekey_ike_sa])
def test_an_sa_that_can_not_be_replaced_in_time_takes_all_with_it(conversation: Callable) -> None:
    "§2.8: rekeying fails: 'MUST close the IKE SA and any associated Child SAs'."
    life = {'child' if conversation is rekey_child else 'ike': Lifetime(30, 90)}
    timing = Timing(**{'child': Lifetime(), 'ike': Lifetime(), 'liveness': 0, **life})
    network, alice, bob, _ = two_hosts(timing)
    only(bob).alarms.clear()
    only(bob).config = replace(only(bob).config, ike=configs(ike='aes128-sha256-modp2048')[0].ike,
                               esp=configs(esp='aes128-sha256')[0].esp)
    network.run(until=89)
    failed = [e for _, e in network.events(alice) if isinstance(e, ChildFailed)]
    assert alice.established and len(failed) > 2
    network.run(until=100)
    for end in alice, bob:
        assert not end.established
        assert not any(ike.children for named in end.sas.values() for ike in named)


@both_roles
def test_the_delete_is_the_last_request_on_a_replaced_ike_sa(first: int) -> None:
    "§2.8: 'MUST be the last request sent over the old IKE SA', whatever else was planned."
    sent: list[Datagram] = []
    network, *hosts, _ = two_hosts(tap=sent.append)
    old, peer = only(hosts[first]), only(hosts[1 - first])
    keys = peer.incoming
    end = hosts[first]
    sent.clear()
    end.start(old, rekey_ike_sa, now=1)
    end.start(old, liveness, now=1)
    end.start(old, rekey_child, *old.children, now=1)
    network.run(until=2)
    end.start(old, liveness, now=2)
    for one in hosts: one.start(only(one), liveness, now=2)
    network.run(until=100)
    on_old = [d.data for d in sent
              if d.data[:16] == old.spi_i + old.spi_r and not d.data[19] & 0x20]
    assert [data[18] for data in on_old] == [CREATE, INFORM]
    assert keys.open(on_old[-1]).payloads == (Delete(ProtocolID.IKE),)
    assert old.state == peer.state == State.CLOSED and only(end).children


@both_roles
def test_a_replaced_ike_sa_takes_no_new_child_sas(first: int) -> None:
    one, other = up(first)
    asked = other.incoming.open(request(one, rekey_ike_sa))
    other.receive_datagram(sealed(one, asked, asked.header.message_id), one.local, 1)
    said(other)
    assert put(one, other, exchange=CREATE).notify(MessageType.TEMPORARY_FAILURE)
    assert other.lineage.successor.children and not other.children


# §2.9: traffic selectors

@both_roles
@pytest.mark.parametrize('side', [TSi, TSr])
@pytest.mark.parametrize('lie', [
    '0.0.0.0/0', '10.0.0.0/8', '10.3.0.0/24', '10.1.0.0/23', '10.2.0.0/23', '::/0', 'none'])
def test_wider_selectors_in_an_answer_are_refused(first: int, side: type, lie: str) -> None:
    one, other = creations(first)
    other.receive_datagram(request(one, create_child), one.local, 1)
    true = one.incoming.open(said(other)[0])
    chosen = side(() if lie == 'none' else (TrafficSelector.from_text(lie),))
    payloads = tuple(chosen if type(p) is side else p for p in true.payloads)
    answer = sealed(other, Packet(CREATE, payloads), true.header.message_id, response=True)
    one.receive_datagram(answer, other.local, 1)
    assert not one.children and not found(one, ChildEstablished)
    assert other.incoming.open(said(one)[0]).all(Delete)  # of the Child SA, or of it all



def test_the_packet_that_wants_to_go_comes_first() -> None:
    "§2.9: 'the first Traffic Selector in each of TSi and TSr' is the packet's."
    packet = tuple(map(TrafficSelector.from_text, ('10.1.0.5[tcp/40000]', '10.2.0.9[tcp/80]')))
    alice, bob = two_ends(RESPONDERS, *configs(packet=packet))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    asked = bob.incoming.open(said(alice.lineage.new_sas[0])[0])
    assert asked.one(TSi).selectors == (packet[0], *alice.config.local_ts)
    assert asked.one(TSr).selectors == (packet[1], *alice.config.remote_ts)
    assert bytes(asked.one(TSi))[4:20].hex() == '070600109c409c400a0100050a010005'


# §2.10: nonces

def test_nonces_are_long_enough_and_never_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    "§2.10: 'randomly chosen, MUST be at least 128 bits', and half the key of the largest PRF."
    nonces: list[bytes] = []

    def noted(payloads: list) -> list:
        nonces.extend(p.data for p in payloads if isinstance(p, Nonce))
        return payloads
    chains(monkeypatch, noted)
    whole_life()
    assert len(set(nonces)) == len(nonces) == 12
    assert {len(n) for n in nonces} == {32}  # enough for PRF_HMAC_SHA2_512, too


@both_roles
@pytest.mark.parametrize('size', [0, 15, 257])
def test_nonces_of_another_size_are_refused(first: int, size: int) -> None:
    one, other = up(first)
    asked = other.incoming.open(request(one, rekey_child, *one.children))
    one.window.next_id = asked.header.message_id
    answer = put(one, other, *(Opaque(Type.Nonce, bytes(size)) if isinstance(p, Nonce) else p
                               for p in asked.payloads), exchange=CREATE)
    assert answer.notify(MessageType.INVALID_SYNTAX) and not found(other, ChildEstablished)


# §2.11: addresses

def test_answers_go_where_requests_come_from() -> None:
    "§2.11: 'MUST accept incoming requests even if the source port is not 500 or 4500'."
    right, alice = configs()[1], two_ends(RESPONDERS)[0]
    bob = Host((right,))
    strange = [Endpoint('198.51.100.7', port) for port in (1, 1023, 61000, 65535)]
    here = [BOB, BOB._replace(port=4500, natt=True), Endpoint('192.0.2.99', 500)]
    alice.start(ike_sa_init, now=0)
    hello, = said(alice)
    for n, (there, at) in enumerate((there, at) for there in strange for at in here):
        data = n.to_bytes(8, 'big').replace(bytes(7), b'another') + hello[8:]
        bob.receive_datagram(data, there, 60 * n, at)
        d, = bob.datagrams_to_send()
        assert (d.source, d.destination) == (at, there) and Packet.parse(Reader(d.data)).one(SA)
        for again in strange[0], there:  # the same message from elsewhere
            bob.receive_datagram(data, again, 60 * n, here[0])
            d, = bob.datagrams_to_send()
            assert (d.source, d.destination) == (here[0], again)


# §2.12: what is forgotten

def reachable(*roots: object) -> Iterator[object]:
    "Yield all that can be reached from some objects, but for code and other people's frames."
    seen, todo = set(), list(roots)
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type | ModuleType | FunctionType): continue
        if isinstance(item, FrameType) and 'ike_lit' not in item.f_code.co_filename: continue
        seen.add(id(item))
        yield item
        todo += gc.get_referents(item)


@pytest.mark.parametrize('forged', [False, True], ids=['', 'after a forged answer'])
@pytest.mark.parametrize('end', ['alice leaves', 'bob leaves', 'silence'])
def test_nothing_is_left_from_which_the_keys_could_be_had(
        monkeypatch: pytest.MonkeyPatch, end: str, forged: bool) -> None:
    "§2.12: 'any information that could be used to recompute those keys'."
    secrets: set[object] = set()
    real = KeyExchange.derive

    def derive(dh: KeyExchange, public: bytes) -> bytes:
        secret = real(dh, public)
        secrets.update((secret, dh._secret))
        return secret
    monkeypatch.setattr(KeyExchange, 'derive', derive)
    left, right = configs(**{**HERITAGE, 'timing': NEVER, 'esp': PFS})  # no key is empty
    random = Random(7296).randbytes  # noqa: S311
    alice, bob = Host(random=random), Host((right,), random=random)
    network = Network({ALICE: alice, BOB: bob})
    attempt = alice.connect(left, ALICE, BOB, now=0)
    if forged:
        refusal = Packet(INIT, (Notify(MessageType.NO_PROPOSAL_CHOSEN),)).encode(
            attempt.spi_i, bytes(8), response=True, initiator=False, message_id=0)
        alice.receive_datagram(refusal, BOB, 0, ALICE)
    network.run(until=1)

    def note() -> None:
        for host_ in alice, bob:
            secrets.update(vars(only(host_).keys).values())
            for child in only(host_).children.values():
                for esp in child.inbound, child.outbound:
                    secrets.update((esp.encr_key, esp.integ_key))
    note()
    alice.start(only(alice), rekey_child, *only(alice).children, now=1)
    network.run(until=2)
    note()
    bob.start(only(bob), rekey_ike_sa, now=2)
    network.run(until=3)
    note()

    def secret(*roots: object) -> Iterator[object]:
        for item in reachable(*roots):
            known = isinstance(item, bytes | int) and item in secrets
            if known or isinstance(item, KeyExchange): yield item

    everything = attempt, *alice.established, *bob.established, alice, bob
    assert len(secrets) > 20 and list(secret(*everything))  # so we can see what is there
    if end == 'silence':
        network.loss = 1
        for host_ in alice, bob: host_.start(only(host_), liveness, now=3)
    else: (alice if end == 'alice leaves' else bob).close_all(now=3)
    network.run(until=100)
    for host_ in alice, bob:
        network.events(host_)
        assert not host_.established
    gc.collect()
    assert list(secret(*everything)) == []
