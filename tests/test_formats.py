"""What RFC 7296 says from §2.13 on, and RFC 8247 about algorithms: keys, proofs, errors, NAT,
and the format of every payload, each rule obeyed by us and broken by a peer.
"""
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from itertools import count

import pytest
from canonical import HERITAGE, KEYS, configs, public_key, two_ends
from ike_lit.cli.options import Options
from ike_lit.engine import create_child_sa, ike_sa
from ike_lit.engine.create_child_sa import RESPONDERS, create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.engine.model import (
    AddressAssigned, ChildFailed, Closed, Config, Dropped, Established, Lifetime, Timing)
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, deliver, events, family, handshake, talk
from ike_lit.wire import sk
from ike_lit.wire.auth import AUTH, IDi, Identity, verify
from ike_lit.wire.configuration import CP, Attribute, Pool
from ike_lit.wire.const import (
    AuthenticationFailed, AuthenticationType, CfgAttribute, CfgType, Encryption, Esn, ExchangeType, Group,
    IDType, IkeError, Integrity, InvalidSyntax, MessageType, NoProposalChosen, Prf, ProtocolID,
    TemporaryFailure, TransformType, Type)
from ike_lit.wire.header import HEADER, Header, Reader
from ike_lit.wire.ke import GROUPS, KE, KeyExchange, Modp
from ike_lit.wire.keys import prfplus
from ike_lit.wire.nat import KEEPALIVE, Endpoint, Nat, detect, address_hash, nat_detection, unwrap, wrap
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import (
    GENERIC, Delete, Notify, Opaque, Packet, Payload, Unreadable, pack_chain, parse_chain)
from ike_lit.wire.proposal import ALGORITHMS, SA, Proposal, Transform, check_choice, choose, parse_proposals
from ike_lit.wire.sk import BLOCK_SIZE, SK, compute_icv, encrypt
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

INIT, LATER = ExchangeType.IKE_SA_INIT, ExchangeType.INFORMATIONAL
CREATE = ExchangeType.CREATE_CHILD_SA
ENCR, PRF, INTEG, DH = (
    TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.DH)
BOTH = pytest.mark.parametrize('who', [0, 1], ids=['initiator', 'responder'])
h = bytes.fromhex


def old(**changes: object) -> tuple[Config, Config]: return configs(**{**HERITAGE, **changes})


def shaken(**changes: object) -> tuple[IKE, IKE]:
    return handshake(*two_ends(RESPONDERS, *old(**changes)))


def boxed(sender: IKE, first: Type, chain: bytes, message_id: int, *, kind: ExchangeType = LATER,
          response: bool = False, initiator: bool | None = None) -> bytes:
    "A message of an end with any octets inside, sealed with its own keys."
    claimed = sender.initiator if initiator is None else initiator

    def header(size: int) -> Header:
        return Header(sender.spi_i, sender.spi_r, Type.SK, kind, response, claimed, message_id,
                      size)
    return sender.outgoing.protect(header, first, chain, bytes)


def sealed(sender: IKE, packet: Packet, message_id: int, **how: object) -> bytes:
    first, chain = pack(*((p.kind, bytes(p)) for p in packet.payloads))
    return boxed(sender, first, chain, message_id, kind=packet.exchange_type, **how)


def pack(*payloads: tuple[int, bytes], critical: bool = False) -> tuple[Type, bytes]:
    "A chain of payloads with any types and bodies."
    kinds = [*(kind for kind, _ in payloads), 0]
    return Type(kinds[0]), b''.join(
        bytes([following, 0x80 * critical]) + (4 + len(body)).to_bytes(2, 'big') + body
        for (_, body), following in zip(payloads, kinds[1:], strict=True))


def parsed(kind: int, body: bytes) -> Payload:
    "A payload with this body, parsed by its class."
    first, chain = pack((kind, body))
    payload, = parse_chain(first, Reader(chain))
    if isinstance(payload, Unreadable): raise InvalidSyntax(payload.why)
    return payload


def replies(sender: IKE, receiver: IKE, data: bytes, now: float = 1) -> list[Packet]:
    "What an end has to say to a sealed message, opened."
    receiver.receive_datagram(data, sender.local, now)
    return [sender.incoming.open(d.data) for d in receiver.datagrams_to_send()]


def asked(sender: IKE, receiver: IKE, *payloads: Payload, kind: ExchangeType = LATER) -> Packet:
    "The answer to the next request of an end."
    message_id = receiver.window.expected_id
    answer, = replies(sender, receiver, sealed(sender, Packet(kind, payloads), message_id))
    assert answer.header.response and answer.header.message_id == message_id
    return answer


def answering(change: Callable[[Packet], Packet],
              kind: ExchangeType = ExchangeType.IKE_AUTH) -> dict:
    "Responders whose answers to one kind of request are changed before they are sealed."
    return {**RESPONDERS, kind: lambda ike, request: change(RESPONDERS[kind](ike, request))}


def with_spi(words: str) -> tuple[Proposal, ...]:
    "Proposals for ESP."
    return tuple(replace(p, spi=b'abcd') for p in parse_proposals(words, ProtocolID.ESP))


def told(ike: IKE, kind: type) -> list:
    return [e for e in events(ike) if isinstance(e, kind)]


def first_request(**changes: object) -> tuple[IKE, IKE, bytes]:
    "Both ends, and the first message."
    alice, bob = two_ends(RESPONDERS, *old(**changes))
    alice.start(ike_sa_init, now=0)
    return alice, bob, alice.datagrams_to_send()[0].data


def respelt(packet: Packet, payloads: tuple[Payload, ...]) -> bytes:
    "A message of IKE_SA_INIT with other payloads."
    header = packet.header
    return Packet(INIT, payloads).encode(header.spi_i, header.spi_r, response=header.response,
                                         initiator=header.initiator, message_id=0)


# §2.13, §2.14: keys, computed here once more with nothing but HMAC and integers

def mac(key: bytes, data: bytes) -> bytes: return hmac.digest(key, data, 'sha256')


def stretched(key: bytes, seed: bytes, *sizes: int) -> list[bytes]:
    out = block = b''
    for n in range(1, 256): out += (block := mac(key, block + seed + bytes([n])))
    ends = [sum(sizes[:n + 1]) for n in range(len(sizes))]
    return [out[end - size:end] for end, size in zip(ends, sizes, strict=True)]


def recorded(ike: IKE) -> list[bytes]:
    "The random octets that an end will draw."
    drawn, real = [], ike.random

    def random(size: int) -> bytes:
        drawn.append(real(size))
        return drawn[-1]
    ike.random = random
    return drawn


MODP_2048 = GROUPS[Group.MODP_2048]
assert isinstance(MODP_2048, Modp)


def secret_of(drawn: list[bytes], ours: bytes, theirs: bytes) -> bytes:
    "g^ir of a public value of an end, and of one of its peer's."
    prime = MODP_2048.prime
    for octets in drawn:
        exponent = int.from_bytes(octets, 'big') | 1 << 255
        if len(octets) == 32 and pow(2, exponent, prime).to_bytes(256, 'big') == ours:
            return pow(int.from_bytes(theirs, 'big'), exponent, prime).to_bytes(256, 'big')
    raise AssertionError('the public value is not of these octets')


def test_prf_plus_counts_in_one_octet() -> None:
    octets, = stretched(b'key', b'seed', 255 * 32)
    for size in 1, 31, 32, 33, 255 * 32:
        assert prfplus(Prf.PRF_HMAC_SHA2_256, b'key', b'seed', size) == octets[:size]
    with pytest.raises(ValueError, match='8160'):
        prfplus(Prf.PRF_HMAC_SHA2_256, b'key', b'seed', 255 * 32 + 1)


@pytest.mark.parametrize('cipher', ['aes128', 'aes256', 'camellia192'])
def test_keys_of_an_ike_sa(cipher: str) -> None:
    "Their order and sizes: SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr."
    alice, bob, request = first_request(ike=f'{cipher}-sha256-modp2048')
    drawn = recorded(bob)
    bob.receive_datagram(request, ALICE, 0)
    mine, theirs = Packet.parse(Reader(bob.first_messages[0])), Packet.parse(Reader(request))
    secret = secret_of(drawn, mine.one(KE).public, theirs.one(KE).public)
    ni, nr = theirs.one(Nonce).data, mine.one(Nonce).data
    size = int(cipher[-3:]) // 8
    expected = stretched(mac(ni + nr, secret), ni + nr + bob.spi_i + bob.spi_r,
                         32, 32, 32, size, size, 32, 32)
    assert list(vars(bob.keys).values()) == expected
    assert [p.spi_r for p in (mine.header, bob)] == [bob.spi_r] * 2


def test_leading_zeros_stay_where_they_are() -> None:
    "§2.14: g^ir \"padded with zeros if necessary to make it the length of the modulus\"."
    def end(number: int) -> KeyExchange:
        return KeyExchange(Group.MODP_2048, lambda _: hashlib.sha256(b'%d' % number).digest())
    alice, bob = end(47), end(517)  # found by trying
    assert alice.public[0] == 0 and len(alice.public) == 256
    assert alice.derive(bob.public) == bob.derive(alice.public)
    assert alice.derive(bob.public)[0] == 0 and len(alice.derive(bob.public)) == 256
    assert bytes(KE(Group.MODP_2048, alice.public)) == h('000e0000') + alice.public


def zero_first(salt: bytes) -> Callable[[int], bytes]:
    "A source of octets of which the first is zero."
    rounds = count()

    def random(size: int) -> bytes:
        fresh = hashlib.shake_128(salt + bytes([next(rounds)])).digest(size)
        return bytes(1) + fresh[1:] if size > 4 else fresh
    return random


def test_spis_and_nonces_with_leading_zeros() -> None:
    left, right = old()
    ends = []
    for config, mine, peer, begins in (left, ALICE, BOB, True), (right, BOB, ALICE, False):
        ends.append(IKE(config, mine, peer, initiator=begins, responders=RESPONDERS,
                        random=zero_first(mine.host.encode())))
    drawn = recorded(ends[1])
    alice, bob = handshake(*ends)
    request, response = (Packet.parse(Reader(m)) for m in alice.first_messages)
    ni, nr = request.one(Nonce).data, response.one(Nonce).data
    assert ni[0] == nr[0] == bob.spi_i[0] == bob.spi_r[0] == 0 and len(ni) == len(nr) == 32
    secret = secret_of(drawn, response.one(KE).public, request.one(KE).public)
    sk_d, = stretched(mac(ni + nr, secret), ni + nr + bob.spi_i + bob.spi_r, 32)
    assert alice.keys.sk_d == bob.keys.sk_d == sk_d and alice.child and bob.child


@BOTH
def test_each_end_has_its_own_keys_for_requests_and_responses(who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    one.start(liveness, now=1)
    request, = deliver(one, other, now=1)
    response, = deliver(other, one, now=1)
    keys, encr, integ = one.keys, one.outgoing.encr, one.outgoing.integ
    initiators, responders = (SK(encr, integ, keys.sk_ei, keys.sk_ai),
                              SK(encr, integ, keys.sk_er, keys.sk_ar))
    for data, begins in (request, who == 0), (response, who == 1):
        (initiators if begins else responders).open(data)
        assert Header.parse(Reader(data)).initiator == begins
        with pytest.raises(IkeError): (responders if begins else initiators).open(data)


# §2.15: the proof

def test_what_is_signed_is_the_request_that_was_answered() -> None:
    "It carries a cookie, and is of the second group that was tried."
    left, right = old(ike='aes256-sha256-modp2048-modp3072')
    right = replace(right, ike=parse_proposals('aes256-sha256-modp3072', ProtocolID.IKE))
    bob = Host((right,), cookie_threshold=0)
    alice = IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS)
    alice.start(ike_sa_init, now=0)
    sent = []
    for _ in range(4):
        for d in [d for member in family(alice) for d in member.datagrams_to_send()]:
            sent.append(d.data)
            bob.receive_datagram(d.data, d.source, 0, d.destination)
        for d in bob.datagrams_to_send(): family(alice)[-1].receive_datagram(d.data, d.source, 0)
    assert [data[18] for data in sent] == [INIT] * 3 + [ExchangeType.IKE_AUTH]
    assert Packet.parse(Reader(sent[2])).payloads[0].message_type == MessageType.COOKIE
    ike, = bob.established
    request = ike.incoming.open(sent[3])
    tail = ike.nonces[0] + mac(ike.keys.sk_pi, request.one(IDi).body)
    key = public_key(KEYS / 'initiator.pub')
    assert verify(key, sent[2] + tail, request.one(AUTH))
    for other in sent[:2]:
        with pytest.raises(AuthenticationFailed): verify(key, other + tail, request.one(AUTH))


@pytest.mark.parametrize('at', [17, 19, 29, -1, 'front', 'end'], ids=str)
@pytest.mark.parametrize('answer', [False, True], ids=['request', 'response'])
def test_a_first_message_that_was_changed_on_its_way(answer: bool, at: int | str) -> None:
    "In an octet that means nothing to its reader: minor version, flag X, reserved ones, and so on."
    alice, bob, request = first_request()

    def changed(data: bytes) -> bytes:
        octets, packet = bytearray(data), Packet.parse(Reader(data))
        if isinstance(at, int):
            octets[at] ^= 1
            return bytes(octets)
        extra, others = Opaque(Type(201), b'unknown'), packet.payloads
        return respelt(packet, (extra, *others) if at == 'front' else (*others, extra))
    bob.receive_datagram(request if answer else changed(request), ALICE, 0)
    response, = bob.datagrams_to_send()
    alice.receive_datagram(changed(response.data) if answer else response.data, BOB, 0)
    assert alice.lineage.new_sas
    talk(alice, bob)
    suspicious = alice.lineage.new_sas[0] if answer else bob
    assert isinstance(told(suspicious, Closed)[0].error, AuthenticationFailed)
    assert bob.state == State.CLOSED and not told(suspicious, Established)


def test_no_other_configured_key_proves_an_identity() -> None:
    "A responder with two peers: the key of one under the name of the other."
    left, right = old()
    carol = Identity.from_text('carol.example.org')
    carols = replace(right, remote_id=carol, trust=public_key(KEYS / 'responder.pub'))
    bob = IKE(right, BOB, ALICE, initiator=False, responders=RESPONDERS, configs=(right, carols))
    alice = IKE(replace(left, local_id=carol), ALICE, BOB, initiator=True, responders=RESPONDERS)
    alice, bob = handshake(alice, bob)
    assert alice.state == bob.state == State.CLOSED and not told(bob, Established)


# §2.16: we have no EAP

@pytest.mark.parametrize('payloads', [
    (), (Opaque(Type.EAP, h('03010004')),), (Opaque(Type.EAP, h('0101000501')),),
    (AUTH(AuthenticationType.SHARED_KEY, bytes(32)),), (AUTH(AuthenticationType(13), b''),),
    (AUTH(AuthenticationType.DSS, bytes(46)),), (AUTH(AuthenticationType.ECDSA_256, bytes(64)),)],
    ids=repr)
@BOTH
def test_success_without_a_proof_is_failure(who: int, payloads: tuple[Payload, ...]) -> None:
    def unproven(packet: Packet) -> Packet:
        return replace(packet, payloads=(
            *(p for p in packet.payloads if not isinstance(p, AUTH)), *payloads))
    alice, bob = two_ends(answering(unproven) if who == 0 else RESPONDERS, *old())
    if who == 0: alice, bob = handshake(alice, bob)
    else:
        alice.start(ike_sa_init, now=0)
        deliver(alice, bob), deliver(bob, alice)
        alice = alice.lineage.new_sas[0]
        packet = unproven(bob.incoming.open(alice.datagrams_to_send()[0].data))
        refusal, = replies(alice, bob, sealed(alice, packet, 1))[0].payloads
        assert refusal.message_type == MessageType.AUTHENTICATION_FAILED
    deceived = (alice, bob)[who]
    assert deceived.state == State.CLOSED and deceived.child is None
    assert not told(deceived, Established)


# §2.17, §2.18: keys of Child SAs, and of an IKE SA that replaces another

@BOTH
def test_keys_of_a_child_sa(who: int) -> None:
    """§2.17: prf+(SK_d, g^ir (new) | Ni | Nr): encryption before integrity, and first those of the
    end that asked, whoever began the IKE SA."""
    ends = shaken(esp='aes128-sha256-modp2048')
    one, other = ends[who], ends[1 - who]
    drawn = recorded(one)
    one.start(rekey_child, one.child.inbound.spi, now=1)
    packets = [receiver.incoming.open(deliver(sender, receiver, now=1)[0])
               for sender, receiver in ((one, other), (other, one))]
    secret = secret_of(drawn, *(p.one(KE).public for p in packets))
    seed = secret + b''.join(p.one(Nonce).data for p in packets)
    encr_i, integ_i, encr_r, integ_r = stretched(one.keys.sk_d, seed, 16, 32, 16, 32)
    sends, hears = one.child.outbound, one.child.inbound
    assert (sends.encr_key, sends.integ_key) == (encr_i, integ_i)
    assert (hears.encr_key, hears.integ_key) == (encr_r, integ_r)
    assert (other.child.inbound, other.child.outbound) == (sends, hears)


@BOTH
def test_a_new_ike_sa_has_keys_of_its_own_and_counts_from_zero(who: int) -> None:
    "§2.18: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), Diffie-Hellman always."
    ends = shaken(ike='aes256-sha256-modp2048')
    one, other = ends[who], ends[1 - who]
    drawn = recorded(one)
    one.start(rekey_ike_sa, now=1)
    packets = [receiver.incoming.open(deliver(sender, receiver, now=1)[0])
               for sender, receiver in ((one, other), (other, one))]
    secret = secret_of(drawn, *(p.one(KE).public for p in packets))
    nonces = b''.join(p.one(Nonce).data for p in packets)
    spis = b''.join(p.one(SA).proposals[0].spi for p in packets)
    assert len(spis) == 16 and ends[0].spi_i not in spis
    expected = stretched(mac(one.keys.sk_d, secret + nonces), nonces + spis, *(32,) * 7)
    talk(one, other, now=1)
    new, peers = one.lineage.successor, other.lineage.successor
    assert list(vars(new.keys).values()) == list(vars(peers.keys).values()) == expected
    assert new.initiator and not peers.initiator  # whoever asked for it has begun it
    for sender, receiver in (new, peers), (peers, new):
        sender.start(liveness, now=2)
        data, = deliver(sender, receiver, now=2)
        header = Header.parse(Reader(data))
        assert header.message_id == 0 and header.initiator == sender.initiator
        deliver(receiver, sender, now=2)
        assert not sender.busy


# §2.19: inner addresses

def test_an_inner_address_is_asked_for_before_the_sa() -> None:
    left, right = old()
    anywhere = (TrafficSelector.from_text('0.0.0.0/0'),)
    left = replace(left, request=(ip_address('0.0.0.0'),), local_ts=anywhere)  # noqa: S104
    alice, bob = two_ends(RESPONDERS, left, replace(right, pool=Pool(['10.9.0.0/24'])))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob), deliver(bob, alice)
    request = bob.incoming.open(deliver(alice, bob)[0])
    kinds = [p.kind for p in request.payloads]
    assert kinds.index(Type.CP) + 1 == kinds.index(Type.SA)
    asked_for = request.one(CP)
    assert asked_for.cfg_type == CfgType.CFG_REQUEST
    assert asked_for.all(CfgAttribute.INTERNAL_IP4_ADDRESS) == [
        Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS)]
    reply = alice.lineage.new_sas[0].incoming.open(deliver(bob, alice)[0])
    kinds = [p.kind for p in reply.payloads]
    assert kinds.index(Type.CP) + 1 == kinds.index(Type.SA)
    assert told(alice.lineage.new_sas[0], AddressAssigned)


def test_an_inner_address_that_nobody_asked_for_changes_nothing() -> None:
    address = Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS, h('0a090001'))
    gift = CP(CfgType.CFG_REPLY, (address,))
    pushy = answering(lambda p: replace(p, payloads=(*p.payloads[:2], gift, *p.payloads[2:])))
    alice, bob = handshake(*two_ends(pushy, *old()))
    assert alice.child.outbound == bob.child.inbound
    assert not [e for e in events(alice) if isinstance(e, AddressAssigned | ChildFailed)]


def test_nobody_is_given_an_inner_address_who_has_not_asked() -> None:
    left, right = old()
    alice, bob = two_ends(RESPONDERS, left, replace(right, pool=Pool(['10.9.0.0/24'])))
    alice.start(ike_sa_init, now=0)
    for _ in range(2): deliver(alice, bob), [reply := d for d in deliver(bob, alice)]
    assert not alice.lineage.new_sas[0].incoming.open(reply).all(CP) and alice.lineage.new_sas[0].child


# §2.21: errors

def test_a_malformed_response_is_not_answered_with_an_error() -> None:
    "§2.21: \"not to send back any error message\"; the SA is closed with a Delete instead."
    alice, bob = shaken()
    alice.start(liveness, now=1)
    alice.datagrams_to_send()
    first, chain = pack((Type.Notify, h('03040009')))
    said, = replies(bob, alice, boxed(bob, first, chain, 2, response=True))
    assert said.payloads == (Delete(ProtocolID.IKE),) and not said.header.response
    while (at := alice.next_timer()) is not None: alice.handle_timer(at)
    assert alice.state == State.CLOSED


def test_a_malformed_first_response_is_not_answered_at_all() -> None:
    alice, bob, request = first_request()
    bob.receive_datagram(request, ALICE, 0)
    good = bob.datagrams_to_send()[0].data
    at = HEADER.size + int.from_bytes(good[30:32], 'big')  # KE, after SA
    after = at + GENERIC.size + 4 + 256
    critical = good[:at] + b'\xc8' + good[at + 1:after + 1] + b'\x80' + good[after + 2:]
    for broken in good[:at + 2] + h('ffff') + good[at + 4:], critical:
        alice.receive_datagram(broken, BOB, 0)
        assert alice.datagrams_to_send() == [] and told(alice, Dropped)
    alice.receive_datagram(good, BOB, 0)
    assert alice.lineage.new_sas[0].state == State.CONNECTING


def test_a_malformed_proof_is_told_once() -> None:
    "§2.21.2: INVALID_SYNTAX in an INFORMATIONAL exchange of its own, and nothing else."
    alice, bob = two_ends(answering(lambda p: replace(p, payloads=p.payloads[1:])), *old())  # no IDr
    alice.start(ike_sa_init, now=0)
    for one, other in (alice, bob), (bob, alice), (alice, bob), (bob, alice): deliver(one, other)
    alice = alice.lineage.new_sas[0]
    said, = (bob.incoming.open(d.data) for d in alice.datagrams_to_send())
    assert said.exchange_type == LATER and said.header.message_id == 2
    assert said.payloads == (Notify(MessageType.INVALID_SYNTAX),)
    while (at := alice.next_timer()) is not None:
        alice.handle_timer(at)
        for d in alice.datagrams_to_send():
            assert bob.incoming.open(d.data).payloads == said.payloads
    assert alice.state == State.CLOSED and not told(alice, Established)


@pytest.mark.parametrize('error, fatal', [
    (MessageType.AUTHENTICATION_FAILED, True), (MessageType.INVALID_SYNTAX, True),
    (MessageType.UNSUPPORTED_CRITICAL_PAYLOAD, True), (MessageType.NO_PROPOSAL_CHOSEN, False),
    (MessageType.TS_UNACCEPTABLE, False), (MessageType.INTERNAL_ADDRESS_FAILURE, False),
    (MessageType.FAILED_CP_REQUIRED, False), (MessageType(1234), False)], ids=str)
def test_three_errors_right_after_ike_auth_end_the_ike_sa(error: MessageType, fatal: bool) -> None:
    "§2.21.2: they \"are the only ones to cause the IKE SA to be deleted\" without a Delete."
    alice, bob = shaken()
    data = b'\xc9' * (error == MessageType.UNSUPPORTED_CRITICAL_PAYLOAD)
    assert asked(alice, bob, Notify(error, data)).payloads == ()
    assert bob.state == (State.CLOSED if fatal else State.ESTABLISHED)
    assert bool(bob.child) != fatal


MALFORMED = {
    'Delete counts 9': (Type.Delete, h('03040009')), 'Notify ends': (Type.Notify, h('000040')),
    'nonce of 3': (Type.Nonce, b'abc'), 'KE ends': (Type.KE, b'\0'), 'SA is empty': (Type.SA, b''),
    'TS counts 2': (Type.TSi, h('0200000007000010 0000ffff 0a000000 0a0000ff')),
    'ID ends': (Type.IDi, b'\2'), 'AUTH ends': (Type.AUTH, b'\1'), 'CP ends': (Type.CP, b'\1\0')}


USED = {  # by the responder of each exchange, here without a pool
    ExchangeType.IKE_AUTH: {'Notify ends', 'SA is empty', 'TS counts 2', 'ID ends', 'AUTH ends'},
    CREATE: {'Notify ends', 'SA is empty', 'TS counts 2', 'nonce of 3', 'KE ends'},
    LATER: {'Notify ends', 'Delete counts 9'}}


@pytest.mark.parametrize('kind', USED)
@pytest.mark.parametrize('what', MALFORMED)
def test_a_malformed_payload_is_refused_where_it_is_used(what: str, kind: ExchangeType) -> None:
    """It gets INVALID_SYNTAX and nothing else, in IKE_AUTH before anybody is believed, and it is fatal
    (§2.21.2, §2.21.3); a payload that nobody looks at changes nothing."""
    alice, bob = two_ends(RESPONDERS, *old())
    if kind == ExchangeType.IKE_AUTH:
        alice.start(ike_sa_init, now=0)
        deliver(alice, bob), deliver(bob, alice)
        alice = alice.lineage.new_sas[0]
        proof = bob.incoming.open(alice.datagrams_to_send()[0].data).payloads
    else:
        alice, bob = shaken(esp='aes256-sha256-modp2048')
        proof = (SA(with_spi('aes256-sha256-modp2048')), Nonce(bytes(32)), KE(
            Group.MODP_2048, KeyExchange(Group.MODP_2048).public), TSi(alice.config.local_ts),
            TSr(alice.config.remote_ts)) if kind == CREATE else ()
    first, chain = pack(*((p.kind, bytes(p)) for p in proof), MALFORMED[what])
    answer, = replies(alice, bob, boxed(alice, first, chain, bob.window.expected_id, kind=kind))
    if what not in USED[kind]:
        assert answer.error() is None and bob.state == State.ESTABLISHED and bob.child
        return
    assert answer.payloads == (Notify(MessageType.INVALID_SYNTAX),)
    assert bob.state == State.CLOSED and bob.child is None
    if kind == ExchangeType.IKE_AUTH: assert not told(bob, Established)


@pytest.mark.parametrize('kind', [ExchangeType.IKE_AUTH, CREATE, LATER])
def test_an_unknown_critical_payload_gets_its_error_and_nothing_else(kind: ExchangeType) -> None:
    alice, bob = two_ends(RESPONDERS, *old())
    proof = ()
    if kind == ExchangeType.IKE_AUTH:
        alice.start(ike_sa_init, now=0)
        deliver(alice, bob), deliver(bob, alice)
        alice = alice.lineage.new_sas[0]
        proof = bob.incoming.open(alice.datagrams_to_send()[0].data).payloads
    else: alice, bob = handshake(alice, bob)
    first, chain = pack(*((p.kind, bytes(p)) for p in proof), (201, b''), critical=True)
    answer, = replies(alice, bob, boxed(alice, first, chain, bob.window.expected_id, kind=kind))
    assert answer.payloads == (Notify(MessageType.UNSUPPORTED_CRITICAL_PAYLOAD, b'\xc9'),)
    assert bob.state == (State.CLOSED if proof else State.ESTABLISHED)
    if proof: assert not told(bob, Established)


@BOTH
@pytest.mark.parametrize('wrong, error', [
    ('suite', MessageType.NO_PROPOSAL_CHOSEN), ('traffic', MessageType.TS_UNACCEPTABLE),
    ('old', MessageType.CHILD_SA_NOT_FOUND), ('group', MessageType.INVALID_KE_PAYLOAD),
    ('nonce', MessageType.INVALID_SYNTAX), ('exchange', MessageType.INVALID_SYNTAX)])
def test_every_request_with_an_error_is_answered_with_it(
        wrong: str, error: MessageType, who: int) -> None:
    "§2.21.3: and of those errors only INVALID_SYNTAX ends the IKE SA."
    ends = shaken(esp='aes256-sha256-modp2048')
    one, other = ends[who], ends[1 - who]
    offer = with_spi('aes256-sha256-modp2048')
    ke = KE(Group.MODP_2048, KeyExchange(Group.MODP_2048).public)
    traffic = TSi(one.config.local_ts), TSr(one.config.remote_ts)
    payloads = {
        'suite': (SA(with_spi('camellia128-sha256-modp2048')), ke, *traffic),
        'traffic': (SA(offer), ke, TSi(one.config.remote_ts), TSr(one.config.local_ts)),
        'old': (Notify(MessageType.REKEY_SA, b'', ProtocolID.ESP, b'none'), SA(offer), ke,
                *traffic),
        'group': (SA(offer), replace(ke, group=Group.ECP_256), *traffic),
    }.get(wrong, (SA(offer), ke, *traffic))
    nonce = () if wrong == 'nonce' else (Nonce(bytes(32)),)
    kind = ExchangeType(99) if wrong == 'exchange' else CREATE
    answer = asked(one, other, *payloads, *nonce, kind=kind)
    assert [n.message_type for n in answer.payloads] == [error]
    assert (other.state == State.CLOSED) == (error == MessageType.INVALID_SYNTAX)


@BOTH
@pytest.mark.parametrize('make', [liveness, create_child, rekey_ike_sa, rekey_child, delete_child],
                         ids=lambda f: f.__name__)
def test_invalid_syntax_is_fatal_for_the_one_who_asked_too(make: Callable, who: int) -> None:
    "§2.21.3: \"considered fatal in both peers\", without a Delete."
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    arguments = (one.child.inbound.spi,) if make in (rekey_child, delete_child) else ()
    if make is create_child: one.children.clear()
    one.start(make, *arguments, now=1)
    request = other.incoming.open(one.datagrams_to_send()[0].data)
    refusal = Packet(request.exchange_type, (Notify(MessageType.INVALID_SYNTAX),))
    said = replies(other, one, sealed(other, refusal, request.header.message_id, response=True))
    assert one.state == State.CLOSED and said == []


@pytest.mark.parametrize('size', [1, 15, 17, 31])
def test_an_authentic_request_that_is_no_whole_blocks_is_answered(size: int) -> None:
    "§2.21.3: authentic, so it is among \"all requests having errors\"."
    alice, bob = shaken()
    key = alice.outgoing
    length = HEADER.size + 4 + BLOCK_SIZE + size + key.cipher.icv_size
    header = Header(alice.spi_i, alice.spi_r, Type.SK, LATER, False, True, 2, length)
    covered = bytes(header) + bytes([0, 0]) + (length - HEADER.size).to_bytes(2, 'big') + bytes(
        BLOCK_SIZE + size)
    data = covered + compute_icv(Integrity(key.integ.id), key.sk_a, covered)
    answer, = replies(alice, bob, data)
    assert answer.payloads == (Notify(MessageType.INVALID_SYNTAX),)


@BOTH
def test_an_unprotected_invalid_ike_spi_is_neither_believed_nor_answered(who: int) -> None:
    left, right = old()
    hosts = Host(), Host((right,))
    hosts[0].connect(left, ALICE, BOB, now=0)
    for _ in range(2):
        for d in hosts[0].datagrams_to_send(): hosts[1].receive_datagram(d.data, ALICE, 0, BOB)
        for d in hosts[1].datagrams_to_send(): hosts[0].receive_datagram(d.data, BOB, 0, ALICE)
    (ike,), (here, there) = hosts[who].established, ((ALICE, BOB), (BOB, ALICE))[who]
    if who == 0: hosts[0].start(ike, liveness, now=1)
    hosts[who].datagrams_to_send()
    before = ike.children.copy()
    complaint = Packet(LATER, (Notify(MessageType.INVALID_IKE_SPI),))
    for response in True, False:
        for message_id in 0, 2:
            data = complaint.encode(ike.spi_i, ike.spi_r, response=response,
                                    initiator=not ike.initiator, message_id=message_id)
            hosts[who].receive_datagram(data, there, 1, here)
    assert hosts[who].datagrams_to_send() == [] and hosts[who].established == [ike]
    assert ike.children == before and ike.busy == (who == 0)


# §2.22: we know no IPComp

def test_ip_compression_is_not_taken_and_not_granted() -> None:
    offer = Notify(MessageType(16387), h('4321') + b'\2')  # IPCOMP_SUPPORTED: a CPI, DEFLATE
    alice, bob = two_ends(answering(lambda p: replace(p, payloads=(*p.payloads, offer))), *old())
    alice, bob = handshake(alice, bob)
    plain, _ = shaken()
    assert alice.child == plain.child  # as if it were not there
    answer = asked(alice, bob, SA(with_spi('camellia256-sha256')), Nonce(bytes(32)),
                   TSi(alice.config.local_ts), TSr(alice.config.remote_ts), offer, kind=CREATE)
    assert answer.all(SA) and not answer.all(Notify)


# §2.23: NAT

def sha1(octets: bytes) -> bytes: return hashlib.sha1(octets, usedforsecurity=False).digest()


def test_both_tell_their_addresses_right_after_the_nonce() -> None:
    alice, bob, request = first_request()
    bob.receive_datagram(request, ALICE, 0)
    for data, end, peer in (request, ALICE, BOB), (bob.datagrams_to_send()[0].data, BOB, ALICE):
        packet = Packet.parse(Reader(data))
        at = [p.kind for p in packet.payloads].index(Type.Nonce)
        expected = [(16388, sha1(data[:16] + ip_address(end.host).packed + h('01f4'))),
                    (16389, sha1(data[:16] + ip_address(peer.host).packed + h('01f4')))]
        assert expected == [(int(n.message_type), n.data) for n in packet.payloads[at + 1:at + 3]]
    assert request[8:16] == bytes(8)


@pytest.mark.parametrize('end, octets', [
    (Endpoint('192.0.2.1', 500), 'c0000201 01f4'),
    (Endpoint('192.0.2.1', 4500, True), 'c0000201 1194'),
    (Endpoint('2001:db8::1', 500), '20010db8000000000000000000000001 01f4')], ids=str)
def test_the_hash_of_an_address(end: Endpoint, octets: str) -> None:
    spis = bytes(range(1, 9)), bytes(8)
    assert address_hash(*spis, end) == sha1(b''.join(spis) + h(octets))


def test_one_of_several_source_addresses_is_enough() -> None:
    spis, elsewhere = (b'8 octets', bytes(8)), Endpoint('198.51.100.7', 500)
    right, to = nat_detection(*spis, ALICE, BOB)
    wrong, _ = nat_detection(*spis, elsewhere, BOB)
    for sources, there in ((wrong, right), False), ((right, wrong), False), ((wrong, wrong), True):
        packet = Packet(INIT, (*sources, to))
        assert detect(packet, *spis, source=ALICE, destination=BOB) == Nat(True, False, there)
    assert detect(Packet(INIT, (right, to)), *spis, ALICE, elsewhere) == Nat(True, True, False)
    assert detect(Packet(INIT, ()), *spis, ALICE, BOB) == Nat(False)


def behind_a_nat(**timing: object) -> tuple[Host, Host, IKE, Endpoint]:
    "Alice behind a NAT, connected; and her address outside of it."
    left, right = old(timing=Timing(**timing))
    alice, bob = Host(), Host((right,))
    ports = Endpoint(ALICE.host, 4500, natt=True), Endpoint(BOB.host, 4500, natt=True)
    alice.connect(left, ALICE, BOB, now=0, natt=ports)
    for _ in range(2):
        for d in alice.datagrams_to_send():
            outside = Endpoint('198.51.100.7', 61000 + d.source.natt, natt=d.source.natt)
            bob.receive_datagram(d.data, outside, 0, d.destination)
        for d in bob.datagrams_to_send(): alice.receive_datagram(
            d.data, d.source, 0, ports[0] if d.source.natt else ALICE)
    return alice, bob, alice.established[0], outside


def test_behind_a_nat_everything_goes_through_port_4500() -> None:
    alice, bob, ike, outside = behind_a_nat()
    for host, peer in (alice, BOB.host), (bob, outside.host):
        only, = host.established
        host.start(only, liveness, now=1)
        said, = host.datagrams_to_send()
        assert said.source.port == 4500 and said.destination.host == peer
        assert said.wire[:4] == bytes(4) and said.wire[4:] == said.data
        assert only.child.encap == (4500, said.destination.port) != (500, 500)
    assert said.destination.port == outside.port


def test_without_port_4500_there_is_no_child_sa_through_a_nat() -> None:
    "§2.23: \"UDP encapsulation MUST NOT be done on port 500\"."
    alice, bob = two_ends(RESPONDERS, *old())  # nobody has told Alice about port 4500
    alice.start(ike_sa_init, now=0)
    outside = Endpoint('198.51.100.7', 61000)
    for _ in range(2):
        for d in [d for m in family(alice) for d in m.datagrams_to_send()]:
            bob.receive_datagram(d.data, outside, 0, BOB)
        for d in bob.datagrams_to_send(): family(alice)[-1].receive_datagram(d.data, BOB, 0, ALICE)
    assert bob.agreed.nat.there and bob.state == State.ESTABLISHED and bob.child is None
    assert alice.lineage.new_sas[0].child is None


def test_keepalives_are_sent_from_behind_a_nat_and_by_nobody_else() -> None:
    alice, bob, _, _ = behind_a_nat(liveness=0, child=Lifetime(), ike=Lifetime(), keepalive=20)
    sent = []
    while (at := alice.next_timer()) <= 60:
        alice.handle_timer(at)
        sent += [(at, d.wire, d.source.port) for d in alice.datagrams_to_send()]
    assert sent == [(20, b'\xff', 4500), (40, b'\xff', 4500), (60, b'\xff', 4500)]
    assert bob.next_timer() is None


@BOTH
def test_keepalives_and_esp_are_not_for_us(who: int) -> None:
    alice, bob, _, outside = behind_a_nat()
    port = Endpoint('192.0.2.9', 4500, natt=True)
    for octets in KEEPALIVE, b'\0\0\1\0' + bytes(40), b'', b'\0\0\0':
        assert unwrap(octets, port) is None
    assert unwrap(wrap(b'a message', port), port) == b'a message'
    assert unwrap(b'a message', ALICE) == wrap(b'a message', ALICE) == b'a message'
    host, peer = ((alice, BOB._replace(port=4500, natt=True)), (bob, outside))[who]
    ike, = host.established
    heard, remote = ike.heard, ike.remote
    host.receive_datagram(KEEPALIVE, peer, 9, port)  # and on port 500, where it has no business
    assert host.datagrams_to_send() == [] and host.established == [ike]
    assert (ike.heard, ike.remote) == (heard, remote)


# §2.25: later, not now

@BOTH
@pytest.mark.parametrize('make', [create_child, rekey_child, rekey_ike_sa],
                         ids=lambda f: f.__name__)
def test_after_a_temporary_failure_we_wait(make: Callable, who: int) -> None:
    def busy(ike: IKE, request: Packet) -> Packet: raise TemporaryFailure('not now')
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    spi = one.child.inbound.spi
    if make is create_child: one.children.clear()
    other.responders = {**RESPONDERS, CREATE: busy}
    one.start(make, *((spi,) if make is rekey_child else ()), now=1)
    talk(one, other, now=1)
    assert one.state == State.ESTABLISHED and not one.busy
    again_at = one.next_timer()
    assert 0.5 <= (again_at - 1) / one.timing.retry <= 1.5
    for now in 1.001, 5, again_at - 0.1:
        one.handle_timer(now)
        assert one.datagrams_to_send() == []
    other.responders = RESPONDERS
    one.handle_timer(again_at)
    again, = deliver(one, other, now=again_at)
    assert Header.parse(Reader(again)).exchange_type == CREATE
    talk(one, other, now=again_at)
    assert (one.lineage.successor or one).child.inbound == (other.lineage.successor or other).child.outbound


# §3.1: the header

def test_the_responders_spi_is_zero_until_it_has_chosen_one() -> None:
    left, right = old()
    alice, bob = Host(), Host((right,), cookie_threshold=0)
    alice.connect(left, ALICE, BOB, now=0)
    sent = []
    for _ in range(2):
        d, = alice.datagrams_to_send()
        sent.append(Header.parse(Reader(d.data)))
        bob.receive_datagram(d.data, ALICE, 0, BOB)
        alice.receive_datagram(bob.datagrams_to_send()[0].data, BOB, 0, ALICE)
    assert [(header.spi_r, header.message_id) for header in sent] == [(bytes(8), 0)] * 2
    assert sent[0].spi_i == sent[1].spi_i != bytes(8) and sent[1].length > sent[0].length
    auth = Header.parse(Reader(alice.datagrams_to_send()[0].data))
    assert any(auth.spi_r) and auth.message_id == 1


@BOTH
def test_a_response_that_is_marked_as_a_request_answers_nothing(who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    one.start(liveness, now=1)
    request = Header.parse(Reader(one.datagrams_to_send()[0].data))
    assert not request.response
    answer = Packet(LATER, ())
    for message_id in {request.message_id, one.window.expected_id}:
        replies(other, one, sealed(other, answer, message_id))
        assert one.busy and one.window.pending.message_id == request.message_id
    assert replies(other, one, sealed(other, answer, request.message_id, response=True)) == []
    assert not one.busy


@BOTH
def test_a_message_that_is_marked_as_a_response_is_never_answered(who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    goodbye = Packet(LATER, (Delete(ProtocolID.IKE),))
    for message_id in range(4):
        assert replies(one, other, sealed(one, goodbye, message_id, response=True)) == []
    host = Host((old()[who],))
    for exchange in ExchangeType:
        for spi_r in bytes(8), b'somebody':
            host.receive_datagram(Packet(exchange, ()).encode(
                b'whatever', spi_r, response=True, initiator=True, message_id=0), ALICE, 0, BOB)
    assert other.state == State.ESTABLISHED and host.datagrams_to_send() == []


@BOTH
def test_our_own_role_in_a_message_is_not_believed(who: int) -> None:
    "§3.1: the flag I of a sealed message that is right in all else; and our own one, reflected."
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    message_id = other.window.expected_id
    data = sealed(one, Packet(LATER, ()), message_id, initiator=other.initiator)
    assert replies(one, other, data) == [] and told(other, Dropped)
    other.start(liveness, now=1)
    mine, = other.datagrams_to_send()
    assert replies(one, other, mine.data) == [] and other.busy
    assert Header.parse(Reader(mine.data)).initiator == other.initiator


FLAGS = range(256)


def test_reserved_flags_are_sent_as_zero_and_ignored() -> None:
    "All 256 octets of flags, of a sealed request: R and I decide, X and V mean nothing."
    alice, bob = shaken()
    for flags in FLAGS:
        message_id = bob.window.expected_id

        def header(size: int, flags: int = flags, message_id: int = message_id) -> bytes:
            plain = bytes(Header(alice.spi_i, alice.spi_r, Type.SK, LATER, False, True,
                                 message_id, size))
            assert plain[19] == 0x08
            return plain[:19] + bytes([flags]) + plain[20:]
        data = alice.outgoing.protect(header, Type.NONE, b'', bytes)
        answers = replies(alice, bob, data)
        assert len(answers) == (flags & 0x28 == 0x08)
        for answer in answers: assert answer.data[19] == 0x20


@pytest.mark.parametrize('claimed', [0, 27, 28, -1, 1, 4, 0xffffffff])
@BOTH
def test_the_length_is_that_of_the_datagram(who: int, claimed: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    message_id = other.window.expected_id

    def header(size: int) -> bytes:
        length = size + claimed if claimed in (-1, 1, 4) else claimed
        plain = bytes(Header(one.spi_i, one.spi_r, Type.SK, LATER, False, one.initiator,
                             message_id, size))
        return plain[:24] + length.to_bytes(4, 'big')
    data = one.outgoing.protect(header, Type.NONE, b'', bytes)
    good = sealed(one, Packet(LATER, ()), message_id)
    for wrong in data, good[:27], good[:28], good[:-1], good + b'\0':
        assert replies(one, other, wrong) == []
    assert replies(one, other, good)


@BOTH
@pytest.mark.parametrize('which', ['spi_i', 'spi_r'])
def test_a_message_with_another_spi_is_dropped(which: str, who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    real = getattr(one, which)
    for spi in bytes(8), real[:7] + bytes([real[7] ^ 1]), b'somebody':
        setattr(one, which, spi)
        data = sealed(one, Packet(LATER, ()), other.window.expected_id)
        setattr(one, which, real)
        assert replies(one, other, data) == []
    assert replies(one, other, sealed(one, Packet(LATER, ()), other.window.expected_id))


# §3.2: the chain of payloads

@pytest.mark.parametrize('length, good', [
    (0, False), (1, False), (3, False), (4, True), (7, True), (8, True), (9, False), (12, False),
    (0xffff, False)])
def test_the_length_of_a_payload(length: int, good: bool) -> None:
    "Of one with four octets, in a box: shorter leaves octets after the last payload, longer has too few."
    alice, bob = shaken()
    chain = bytes([0, 0]) + length.to_bytes(2, 'big') + b'data'
    answer, = replies(alice, bob, boxed(alice, Type.Vendor, chain, 2))
    assert (answer.notify(MessageType.INVALID_SYNTAX) is None) == good
    assert (bob.state == State.ESTABLISHED) == good


def test_octets_after_the_last_payload_are_ignored() -> None:
    "Within the Length of the header; beyond it the datagram is no message."
    alice, bob, request = first_request()
    longer = request[:24] + (len(request) + 2).to_bytes(4, 'big') + request[28:] + bytes(2)
    assert Packet.parse(Reader(longer)).payloads == Packet.parse(Reader(request)).payloads
    bob.receive_datagram(request + bytes(2), ALICE, 0)
    assert bob.datagrams_to_send() == [] and bob.state == State.INITIAL and told(bob, Dropped)
    bob.receive_datagram(longer, ALICE, 0)
    assert bob.datagrams_to_send() and bob.state == State.CONNECTING
    alice, bob = shaken()
    first, chain = pack((Type.Vendor, b'data'))
    assert replies(alice, bob, boxed(alice, first, chain + bytes(2), 2))[0].error() is None


@BOTH
def test_octets_behind_the_box_are_not_covered_and_refused(who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    good = sealed(one, Packet(LATER, ()), other.window.expected_id)
    longer = good[:24] + (len(good) + 2).to_bytes(4, 'big') + good[28:] + bytes(2)
    with pytest.raises(InvalidSyntax, match='2 octets after the Encrypted payload'):
        Packet.parse(Reader(longer))
    assert replies(one, other, longer) == [] and told(other, Dropped) and replies(one, other, good)


OTHER_TYPES = [kind for kind in range(33, 55) if kind not in (Type.SK, Type.SKF)]


@pytest.mark.parametrize('critical', [False, True])
@pytest.mark.parametrize('kind', [*OTHER_TYPES, 1, 32, 128, 255])
def test_every_type_of_payload_can_be_skipped(kind: int, critical: bool) -> None:
    "§2.5, §4: as critical, what RFC 7296 defines is accepted, and what we don't know is not."
    alice, bob = shaken()
    traffic = bytes(TSi(alice.config.local_ts))
    bodies = {33: OFFER, 34: h('000e0000') + bytes(256), 35: h('02000000') + b'a',
              36: h('02000000') + b'a', 39: h('01000000'), 40: bytes(16), 41: h('00004000'),
              42: h('03040000'), 44: traffic, 45: traffic, 47: h('01000000')}
    first, chain = pack((kind, bodies.get(kind, b'\4\xfe\xff\0')), critical=critical)
    answer, = replies(alice, bob, boxed(alice, first, chain, 2))
    refused = critical and kind not in range(33, 49)
    expected = (Notify(MessageType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([kind])),) * refused
    assert answer.payloads == expected and bob.state == State.ESTABLISHED and bob.child


# §3.3: proposals

PROPOSALS = parse_proposals('aes256-sha256-modp2048,camellia256-sha256-modp2048', ProtocolID.IKE)
OFFER, ESP_OFFER = bytes(SA(PROPOSALS)), bytes(SA(with_spi('aes256-sha256')))


def test_the_octets_of_an_offer() -> None:
    "Numbers from 1, the right SPI sizes, Key Length as a short attribute, and no ESN for IKE."
    transforms = ('0300000c 0100000c 800e0100', '03000008 0300000c', '03000008 02000005',
                  '00000008 0400000e')
    second = ('0300000c 01000017 800e0100', *transforms[1:])
    assert h('0200002c 01010004' + ''.join(transforms)
             + '0000002c 02010004' + ''.join(second)) == OFFER
    assert h('00000028 01030403' + b'abcd'.hex() + '0300000c 0100000c 800e0100'
                          '03000008 0300000c 00000008 05000000') == ESP_OFFER


@pytest.mark.parametrize('name', ['IKE', 'ESP'])
def test_lengths_and_counts_of_a_proposal_agree(name: str) -> None:
    good = {'IKE': OFFER, 'ESP': ESP_OFFER}[name]
    spi = good[6]
    fields = [(0, 1), (2, 2), (6, 1), (7, 1), (8 + spi, 1), (10 + spi, 2), (8 + spi + 14, 2)]
    assert parsed(Type.SA, good)
    for at, size in fields:
        value = int.from_bytes(good[at:at + size], 'big')
        for wrong in {value - 1, value + 1, 0, 256 ** size - 1} - {value, -1}:
            octets = good[:at] + wrong.to_bytes(size, 'big') + good[at + size:]
            with pytest.raises(InvalidSyntax): parsed(Type.SA, octets)
    for end in range(len(good)):
        with pytest.raises(InvalidSyntax): parsed(Type.SA, good[:end])
    with pytest.raises(InvalidSyntax): parsed(Type.SA, good + bytes(1))


@pytest.mark.parametrize('numbers, good', [
    ((1, 2), True), ((1, 1), False), ((1, 3), False), ((2, 1), False)])
def test_proposals_are_numbered_one_after_another(numbers: tuple[int, int], good: bool) -> None:
    first, second = (replace(p, number=n) for p, n in zip(PROPOSALS, numbers, strict=True))
    octets = bytes(SA((first, second)))
    if good: assert parsed(Type.SA, octets) == SA((first, second))
    else:
        with pytest.raises(InvalidSyntax): parsed(Type.SA, octets)


def test_each_key_length_is_a_transform_of_its_own() -> None:
    proposal, = parse_proposals('aes128-aes256-sha256-modp2048', ProtocolID.IKE)
    assert bytes(SA((proposal,))).hex().count('0100000c800e') == 2
    assert [t.key_length for t in proposal.of_type(ENCR)] == [128, 256]


@pytest.mark.parametrize('attributes', [
    '800e0100 800e0100', '800e0080 800e0100', '800e0100 800e0000', '800e0000 800e0100'])
def test_two_key_lengths_in_one_transform(attributes: str) -> None:
    "§3.3.2: an attribute of a type comes once at most."
    one = h('800e0100')
    octets = OFFER.replace(one, h(attributes), 1)
    octets = h('02000030') + octets[4:8] + h('03000010') + octets[12:]
    assert len(octets) == len(OFFER) + 4
    try: sa = parsed(Type.SA, octets)
    except InvalidSyntax: return
    assert sa.proposals[0] != PROPOSALS[0] and choose(sa, PROPOSALS).number == 2


def suite(change: Callable[[Transform], tuple[Transform, ...]], protocol: ProtocolID) -> Proposal:
    words = {ProtocolID.IKE: 'aes256-sha256-modp2048', ProtocolID.ESP: 'aes256-sha256'}[protocol]
    one, = parse_proposals(words, protocol)
    spi = b'' if protocol == ProtocolID.IKE else b'abcd'
    return replace(one, spi=spi, transforms=tuple(t for old in one.transforms for t in change(old)))


def refused_by_both(weak: Proposal, good: Proposal) -> None:
    "As an offer, and as the answer to one, read from the wire."
    read = parsed(Type.SA, bytes(SA((weak,))))
    for ours in good, replace(good, number=weak.number):
        with pytest.raises(NoProposalChosen): choose(read, [ours])
        with pytest.raises(NoProposalChosen): check_choice([ours], read)


@pytest.mark.parametrize('protocol', [ProtocolID.IKE, ProtocolID.ESP])
def test_a_suite_lacks_no_type_of_transform_and_has_no_other(protocol: ProtocolID) -> None:
    "§3.3.3: IKE needs ENCR, PRF, INTEG and D-H; ESP needs ENCR, INTEG and ESN."
    good = suite(lambda t: (t,), protocol)
    assert choose(SA((good,)), [good]) == check_choice([good], SA((good,))) == good
    for kind in {t.type for t in good.transforms}:
        refused_by_both(suite(lambda t, kind=kind: (t,) * (t.type != kind), protocol), good)
    foreign = {ProtocolID.IKE: Transform(TransformType.ESN, Esn.NO_ESN),
               ProtocolID.ESP: Transform(PRF, Prf.PRF_HMAC_SHA2_256)}[protocol]
    refused_by_both(replace(good, transforms=(*good.transforms, foreign)), good)


@pytest.mark.parametrize('wrong', [
    Transform(ENCR, Encryption.AES_CBC), Transform(ENCR, Encryption.AES_CBC, 512),
    Transform(ENCR, Encryption.AES_CBC, 255), Transform(ENCR, Encryption.CAMELLIA_CBC),
    Transform(PRF, Prf.PRF_HMAC_SHA2_256, 256), Transform(INTEG, Integrity.HMAC_SHA2_256_128, 256),
    Transform(DH, Group.MODP_2048, 2048)], ids=repr)
def test_key_lengths_are_where_they_must_be_and_nowhere_else(wrong: Transform) -> None:
    "§3.3.5: never without one for AES, never with one for what has a fixed key."
    good = suite(lambda t: (t,), ProtocolID.IKE)
    refused_by_both(suite(lambda t: (wrong if t.type == wrong.type else t,), ProtocolID.IKE), good)


def test_a_key_length_of_zero_is_one_too_many() -> None:
    "§3.3.5: it \"MUST NOT be used with transforms that use a fixed-length key\", not even as 0."
    good = suite(lambda t: (t,), ProtocolID.IKE)
    octets = bytes(SA((good,))).replace(h('03000008 0300000c'), h('0300000c 0300000c 800e0000'))
    read = parsed(Type.SA, octets[:2] + len(octets).to_bytes(2, 'big') + octets[4:])
    assert len(octets) == len(bytes(SA((good,)))) + 4
    with pytest.raises(NoProposalChosen): choose(read, [good])
    with pytest.raises(NoProposalChosen): check_choice([good], read)


@BOTH
def test_spis_in_the_proposals_of_each_exchange(who: int) -> None:
    "§3.3.1: none in IKE_SA_INIT, 4 octets for ESP, 8 when an IKE SA is rekeyed; in answers, too."
    alice, bob, request = first_request()
    bob.receive_datagram(request, ALICE, 0)
    answer = bob.datagrams_to_send()[0].data
    sizes = [[len(p.spi) for p in Packet.parse(Reader(m)).one(SA).proposals]
             for m in (request, answer)]
    assert sizes == [[0], [0]]
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    for make, arguments, size in (rekey_child, (one.child.inbound.spi,), 4), (rekey_ike_sa, (), 8):
        one.start(make, *arguments, now=1)
        packets = [receiver.incoming.open(deliver(sender, receiver, now=1)[0])
                   for sender, receiver in ((one, other), (other, one))]
        spis = [p.spi for packet in packets for p in packet.one(SA).proposals]
        assert [len(spi) for spi in spis] == [size] * 2 and spis[0] != spis[1]
        talk(one, other, now=1)


@pytest.mark.parametrize('size', [0, 4, 7, 9])
def test_a_new_ike_sa_needs_an_spi_of_8_octets(size: int) -> None:
    alice, bob = shaken(ike='aes256-sha256-modp2048')
    offer = replace(suite(lambda t: (t,), ProtocolID.IKE), spi=b'\1' * size)
    ke = KE(Group.MODP_2048, KeyExchange(Group.MODP_2048).public)
    answer = asked(alice, bob, SA((offer,)), Nonce(bytes(32)), ke, kind=CREATE)
    assert answer.error() and not answer.all(SA) and not bob.lineage.successor


# §3.4, §3.9: public values and nonces

@pytest.mark.parametrize('public', [
    b'', b'\2' * 255, b'\2' * 257, bytes(1) + b'\2' * 256, bytes(256), bytes(255) + b'\1',
    b'\xff' * 256],
    ids=['none', 'short', 'long', 'zero first', 'zero', 'one', 'not below p'])
def test_a_responder_takes_no_public_value_that_can_not_be(public: bytes) -> None:
    alice, bob, request = first_request()
    packet = Packet.parse(Reader(request))
    payloads = tuple(KE(14, public) if isinstance(p, KE) else p for p in packet.payloads)
    bob.receive_datagram(respelt(packet, payloads), ALICE, 0)
    assert bob.datagrams_to_send() == [] and bob.state == State.INITIAL and told(bob, Dropped)


def test_the_public_value_is_of_the_first_group_of_the_first_proposal() -> None:
    for words, group in (('aes256-sha256-modp3072-modp2048', 15),
                         ('aes256-sha256-modp2048,aes128-sha256-modp3072', 14)):
        _, _, request = first_request(ike=words)
        packet = Packet.parse(Reader(request))
        assert packet.one(KE).group == packet.one(SA).proposals[0].of_type(DH)[0].id == group
        assert len(packet.one(KE).public) == GROUPS[Group(group)].size


@pytest.mark.parametrize('size, good', [
    (0, False), (15, False), (16, True), (256, True), (257, False)])
@BOTH
def test_sizes_of_a_nonce(who: int, size: int, good: bool) -> None:
    alice, bob, request = first_request()

    def other(data: bytes) -> bytes:
        packet, nonce = Packet.parse(Reader(data)), Opaque(Type.Nonce, b'\7' * size)
        return respelt(packet, tuple(nonce if isinstance(p, Nonce) else p for p in packet.payloads))
    bob.receive_datagram(other(request) if who else request, ALICE, 0)
    if who: assert (bob.state == State.CONNECTING) == good
    else:
        alice.receive_datagram(other(bob.datagrams_to_send()[0].data), BOB, 0)
        assert bool(alice.lineage.new_sas) == good


def test_nonces_are_of_32_octets_and_never_used_twice() -> None:
    "Half of the largest PRF key at least, so 16 (§2.10); in each exchange another one."
    left, right = old(ike='aes256-sha256-modp2048')
    seen = []
    alice = IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS)
    bob = IKE(right, BOB, ALICE, initiator=False, responders=RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob), deliver(bob, alice)
    seen += [Packet.parse(Reader(m)).one(Nonce).data for m in bob.first_messages]
    talk(alice, bob)
    alice = alice.lineage.new_sas[0]
    for make in rekey_child, rekey_ike_sa, rekey_child:
        one, other = alice.lineage.successor or alice, bob.lineage.successor or bob
        one.start(make, *((one.child.inbound.spi,) if make is rekey_child else ()), now=1)
        seen += [receiver.incoming.open(deliver(sender, receiver, now=1)[0]).one(Nonce).data
                 for sender, receiver in ((one, other), (other, one))]
        talk(one, other, now=1)
    assert len(set(seen)) == 8 and {len(nonce) for nonce in seen} == {32}


# §3.5, §3.6: names, and certificates that we do not read

NAMES = [('192.0.2.7', IDType.IPV4_ADDR, h('c0000207')),
         ('gw.example.org', IDType.FQDN, b'gw.example.org'),
         ('user@example.org', IDType.RFC822_ADDR, b'user@example.org'),
         ('2001:db8::7', IDType.IPV6_ADDR, h('20010db8000000000000000000000007')),
         ('@#00ff', IDType.KEY_ID, b'\0\xff')]


@pytest.mark.parametrize('name, kind, octets', NAMES)
def test_every_kind_of_name_is_sent_and_accepted(name: str, kind: IDType, octets: bytes) -> None:
    left, right = old()
    identity = Identity.from_text(name)
    assert identity == Identity(kind, octets) and str(identity) == name
    assert bytes(IDi.of(identity)) == bytes([kind, 0, 0, 0]) + octets
    for mine, theirs in (left, right), (right, left):
        ends = {id(mine): replace(mine, local_id=identity),
                id(theirs): replace(theirs, remote_id=identity)}
        alice, bob = handshake(*two_ends(RESPONDERS, ends[id(left)], ends[id(right)]))
        assert alice.child.outbound == bob.child.inbound
        assert identity in [e.remote_id for end in (alice, bob) for e in told(end, Established)]


@pytest.mark.parametrize('claimed', [
    (IDType.FQDN, b'alice.example.org\0'), (IDType.FQDN, b'alice.example.org.'),
    (IDType.FQDN, b'alice.example.org\n'), (IDType.FQDN, b'alice.example\xeforg'),
    (IDType.RFC822_ADDR, b'alice.example.org'), (IDType.KEY_ID, b'alice.example.org'),
    (IDType(9), b'alice.example.org'), (IDType(200), b'alice.example.org'),
    (IDType.FQDN, b'')], ids=repr)
def test_a_name_is_compared_by_its_type_and_all_its_octets(claimed: tuple) -> None:
    left, right = old()
    alice, bob = handshake(*two_ends(RESPONDERS, replace(left, local_id=Identity(*claimed)), right))
    assert bob.state == State.CLOSED and bob.child is None
    assert isinstance(told(bob, Closed)[0].error, AuthenticationFailed)


@pytest.mark.parametrize('text', [
    'a.example.org\0', 'a.example.org\n', 'u@example.org\0', 'a b', ''])
def test_no_name_of_ours_ends_in_a_terminator(text: str) -> None:
    with pytest.raises(ValueError, match='is no identity'): Identity.from_text(text)


@BOTH
@pytest.mark.parametrize('extra', [
    Opaque(Type.CERT, b'\4' + bytes(99)), Opaque(Type.CERT, b'\x0b' + bytes(99)),
    Opaque(Type.CERT, b'\x0f' + bytes(99)), Opaque(Type.CERTREQ, b'\4' + bytes(20)),
    Opaque(Type.CERTREQ, b'\x0f'), Opaque(Type.Vendor, b'\xfe\xff\0'), Notify(MessageType(16430)),
    Notify(MessageType(40000), b'\xff'), Notify(MessageType.HTTP_CERT_LOOKUP_SUPPORTED)], ids=repr)
def test_certificates_and_what_else_we_do_not_read_change_nothing(extra: Payload, who: int) -> None:
    "In all four messages of a handshake; the key is the configured one."
    def more(packet: Packet) -> Packet:
        return replace(packet, payloads=(*packet.payloads[:2], extra, *packet.payloads[2:]))
    left, right = old()
    alice, bob = two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: lambda ike, request: more(
        ike_sa.respond_ike_auth(ike, request))}, left, right)
    if who == 0:
        alice, bob = handshake(alice, bob)
        assert alice.child.outbound == bob.child.inbound
        return
    alice.start(ike_sa_init, now=0)
    request = Packet.parse(Reader(alice.datagrams_to_send()[0].data))
    bob.receive_datagram(respelt(request, more(request).payloads), ALICE, 0)
    assert bob.state == State.CONNECTING  # and what is signed is another message now: start afresh
    alice, bob = two_ends(RESPONDERS, *old())
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob), deliver(bob, alice)
    alice = alice.lineage.new_sas[0]
    packet = more(bob.incoming.open(alice.datagrams_to_send()[0].data))
    answer, = replies(alice, bob, sealed(alice, packet, 1))
    assert answer.all(SA) and bob.child


# §3.8 and RFC 8247 §3: what proves

def test_a_sha1_signature_in_method_14_proves_nothing() -> None:
    "RFC 8247: sha1WithRSAEncryption, DSA with SHA-1, PSS with default parameters: MUST NOT."
    for identifier in ('300d06092a864886f70d0101050500', '300906072a8648ce380403',
                       '300d06092a864886f70d01010a3000', '300d06092a864886f70d01010a0500'):
        octets = h(identifier)
        auth = AUTH(AuthenticationType.DIGITAL_SIGNATURE,
                    bytes([len(octets)]) + octets + bytes(256))
        with pytest.raises(AuthenticationFailed, match='is not accepted'):
            verify(public_key(KEYS / 'initiator.pub'), b'', auth, allow_sha1=True)


def test_only_sha2_and_what_has_it_inside_is_announced_for_signatures() -> None:
    _, _, request = first_request(allow_sha1=True)
    notify = Packet.parse(Reader(request)).notify(MessageType.SIGNATURE_HASH_ALGORITHMS)
    assert notify.data == h('0002 0003 0004 0005')


# §3.10, §3.11: notifications and Deletes

def test_a_notification_about_no_child_sa_has_no_spi() -> None:
    "§3.10: protocol 0 and SPI size 0 when sent, whatever protocol when received."
    for kind in MessageType.NO_PROPOSAL_CHOSEN, MessageType.COOKIE, MessageType.USE_TRANSPORT_MODE:
        assert bytes(Notify(kind, b'data')) == bytes(2) + kind.to_bytes(2, 'big') + b'data'
        for protocol in range(256):
            octets = bytes([protocol, 0]) + kind.to_bytes(2, 'big') + b'data'
            assert replace(parsed(Type.Notify, octets), octets=b'') == Notify(kind, b'data')
    alice, bob, request = first_request()
    bob.receive_datagram(request, ALICE, 0)
    for data in request, bob.datagrams_to_send()[0].data:
        for n in Packet.parse(Reader(data)).all(Notify): assert bytes(n)[:2] == bytes(2)


def test_a_notification_about_a_child_sa_names_it() -> None:
    octets = h('0304400912345678') + b'data'
    notify = Notify(MessageType.REKEY_SA, b'data', ProtocolID.ESP, h('12345678'))
    assert bytes(notify) == octets and parsed(Type.Notify, octets) == notify
    for body in h('0304400912'), h('03ff4009'), h('030440'), b'':
        with pytest.raises(InvalidSyntax): parsed(Type.Notify, body)


@BOTH
def test_notifications_that_nobody_knows_are_ignored_in_requests(who: int) -> None:
    "§3.10.1: errors and status alike, in INFORMATIONAL and in CREATE_CHILD_SA."
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    numbers = 1234, 8192, 16383, 16430, 40000, 65535
    unknown = [Notify(MessageType(n), b'\xff' * 3) for n in numbers]
    assert asked(one, other, *unknown).payloads == ()
    answer = asked(one, other, *unknown, SA(with_spi('camellia256-sha256')), Nonce(bytes(32)),
                   TSi(one.config.local_ts), TSr(one.config.remote_ts), kind=CREATE)
    assert answer.all(SA) and len(other.children) == 2


@BOTH
@pytest.mark.parametrize('make', [create_child, rekey_child, rekey_ike_sa],
                         ids=lambda f: f.__name__)
def test_an_unknown_error_means_that_the_request_has_failed(make: Callable, who: int) -> None:
    "§3.10.1: \"MUST assume that the corresponding request has failed entirely\"."
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    spi = one.child.inbound.spi
    if make is create_child: one.children.clear()
    before = set(one.children)
    refusal = Packet(CREATE, (Notify(MessageType(1234)),))
    other.responders = {**RESPONDERS, CREATE: lambda ike, request: refusal}
    one.start(make, *((spi,) if make is rekey_child else ()), now=1)
    talk(one, other, now=1)
    failed, = told(one, ChildFailed)
    assert '1234' in str(failed.error) and set(one.children) == before
    assert one.state == State.ESTABLISHED and not one.lineage.successor


@pytest.mark.parametrize('body, spis', [
    ('01000000', ()), ('03040000', ()), ('03040001 12345678', ('12345678',)),
    ('03040002 12345678 9abcdef0', ('12345678', '9abcdef0')), ('02040001 12345678', ('12345678',)),
    ('01000001', ()), ('0100ffff', ()), ('01080000', ()), ('03000000', ()), ('03000001', ()),
    ('09ff0000', ()), ('01080001 1234567812345678', ('1234567812345678',)),
    ('01040001 12345678', ('12345678',)),
    ('03080001 1234567812345678', ('1234567812345678',)), ('03010002 1234', ('12', '34')),
    ('03ff0001 12345678', None), ('03000001 12345678', None),
    ('03040002 12345678', None), ('03040001 12345678 9abcdef0', None), ('0304ffff 12345678', None),
    ('03040000 12345678', None), ('03040001 123456', None), ('030400', None), ('', None)])
def test_the_parts_of_a_delete_agree(body: str, spis: tuple[str, ...] | None) -> None:
    octets = h(body)
    if spis is None:
        with pytest.raises(InvalidSyntax): parsed(Type.Delete, octets)
    else:
        delete = parsed(Type.Delete, octets)
        assert (delete.protocol, delete.spis) == (ProtocolID(octets[0]), tuple(map(h, spis)))
        usual = Delete(delete.protocol, delete.spis)
        assert (delete == usual) == (delete.octets == b'') == (bytes(usual) == octets)
        assert pack_chain([delete])[1].endswith(octets)


@BOTH
@pytest.mark.parametrize('body', [
    '03000000', '03040000', '03000009', '02000000', '09ff0000', '03080001' + '12' * 8, '03010002 1234'])
def test_a_delete_of_nothing_that_is_there_deletes_nothing(body: str, who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    first, chain = pack((Type.Delete, h(body)))
    answer, = replies(one, other, boxed(one, first, chain, other.window.expected_id))
    assert answer.payloads == () and other.state == State.ESTABLISHED and other.child


def test_deletes_as_they_are_sent() -> None:
    alice, bob = shaken()
    spi = alice.child.inbound.spi
    alice.start(delete_child, spi, now=1)
    request = bob.incoming.open(deliver(alice, bob, now=1)[0])
    assert bytes(request.one(Delete)) == h('03040001') + spi
    deliver(bob, alice, now=1)
    alice.start(delete_ike_sa, now=1)
    assert bytes(bob.incoming.open(deliver(alice, bob, now=1)[0]).one(Delete)) == h('01000000')


# §3.13: traffic selectors

V4, V6 = '0700 0010 0000 ffff 0a000000 0a0000ff', '0800 0028 0000 ffff' + '00' * 32


@pytest.mark.parametrize('count, selectors, known', [
    (1, V4, 1), (1, V6, 1), (2, V4 + V6, 2), (2, V4 + '0900 000c 0000 0000 00000000', 1),
    (1, '0900 0008 0000 0000', 0), (1, '0711 0010 0050 0050 0a000000 0a000000', 1),
    (1, '0701 0010 ffff 0000 0a000000 0a000000', 1),  # OPAQUE
    (0, '', None), (0, V4, None), (2, V4, None), (255, V4, None), (1, V4 + V4, None),
    (1, V4 + '00', None),
    *((1, V4.replace('0010', length, 1), None) for length in (
        '0000', '0007', '0008', '000c', '000f', '0011', '0028', 'ffff')),
    (1, V6.replace('0028', '0010', 1), None), (1, V4.replace('0700', '0800', 1), None),
    (1, '0700 0010 0000 ffff 0a0000ff 0a000000', None),
    (1, '0706 0010 0051 0050 0a000000 0a000000', None),
    (1, '0706 0010 ffff 0001 0a000000 0a000000', None), (1, V4[:29], None), (1, '0700', None)])
@pytest.mark.parametrize('kind', [Type.TSi, Type.TSr])
def test_the_parts_of_traffic_selectors_agree(
        kind: Type, count: int, selectors: str, known: int | None) -> None:
    octets = bytes([count, 0, 0, 0]) + h(selectors)
    if known is None:
        with pytest.raises(InvalidSyntax): parsed(kind, octets)
    else: assert len(parsed(kind, octets).selectors) == known


def test_the_octets_of_traffic_selectors() -> None:
    "Any port is 0 to 65535; the end of a network is its last address."
    both = tuple(map(TrafficSelector.from_text, ('10.0.0.0/24', '::/128')))
    assert bytes(TSi(both)) == h('02000000' + V4 + V6)


# §3.14: the box

@BOTH
def test_what_is_in_no_box_or_in_two_is_refused(who: int) -> None:
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    message_id = other.window.expected_id
    good = sealed(one, Packet(LATER, ()), message_id)
    chain = good[28:]
    naked = Packet(LATER, ()).encode(one.spi_i, one.spi_r, response=False, initiator=one.initiator,
                                     message_id=message_id)
    behind = good[:24] + (len(good) + 4).to_bytes(4, 'big') + chain + bytes([0, 0, 0, 4])

    def resealed(first: int, octets: bytes) -> bytes:
        "With a checksum that is right for it."
        size = HEADER.size + len(octets) + one.outgoing.cipher.icv_size
        header = Header(one.spi_i, one.spi_r, Type(first), LATER, False, one.initiator, message_id,
                        size)
        covered = bytes(header) + octets
        return covered + compute_icv(Integrity.HMAC_SHA2_256_128, one.outgoing.sk_a, covered)
    payload = bytes([0, 0, 0, 4 + 16])
    for data in naked, behind, resealed(Type.Vendor, payload):
        assert replies(one, other, data) == [] and other.child and told(other, Dropped)
    inner, octets = pack((Type.SK, chain[4:]))
    answer, = replies(one, other, boxed(one, inner, octets, message_id))
    assert answer.payloads == (Notify(MessageType.INVALID_SYNTAX),) and other.state == State.CLOSED


def test_each_message_has_a_vector_of_its_own_but_not_its_repetition() -> None:
    left, right = old(timing=Timing(first=1))
    alice, bob = handshake(IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS),
                           IKE(right, BOB, ALICE, initiator=False, responders=RESPONDERS))
    seen = []
    for n in range(500):
        alice.start(liveness, now=n)
        once, = alice.datagrams_to_send()
        if n % 50 == 0:
            alice.handle_timer(n + 1)
            assert [d.data for d in alice.datagrams_to_send()] == [once.data]
        bob.receive_datagram(once.data, ALICE, n)
        seen += [once.data[32:48], *(data[32:48] for data in deliver(bob, alice, now=n))]
    assert len(set(seen)) == len(seen) == 1000
    for at in range(16): assert len({iv[at] for iv in seen}) > 200  # no counter


@pytest.mark.parametrize('vector', [bytes(16), b'\xff' * 16, bytes(range(16))])
def test_any_vector_is_accepted(vector: bytes) -> None:
    alice, bob = shaken()
    for _ in range(2):  # even the same again
        data = alice.outgoing.seal(
            Packet(LATER, ()), alice.spi_i, alice.spi_r, response=False, initiator=True,
            message_id=bob.window.expected_id, random=lambda _: vector)
        assert data[32:48] == vector and replies(alice, bob, data)


def padded(sender: IKE, first: Type, plaintext: bytes, message_id: int) -> bytes:
    "A message with this plaintext, padding included."
    key, iv = sender.outgoing, bytes(range(16))
    body = iv + encrypt(Encryption(key.encr.id), key.sk_e, iv, plaintext)
    size = 4 + len(body) + 16
    header = Header(sender.spi_i, sender.spi_r, Type.SK, LATER, False, True, message_id,
                    HEADER.size + size)
    covered = bytes(header) + bytes([first, 0]) + size.to_bytes(2, 'big') + body
    return covered + compute_icv(Integrity.HMAC_SHA2_256_128, key.sk_a, covered)


def test_padding_of_any_length_and_content_is_accepted() -> None:
    alice, bob = shaken()
    for size in range(256):
        mark = bytes(-(size + 1 + 4) % 16)
        chain = bytes([0, 0, 0, 4 + len(mark)]) + mark
        plaintext = chain + bytes(255 - n for n in range(size)) + bytes([size])
        answer, = replies(
            alice, bob, padded(alice, Type.Vendor, plaintext, bob.window.expected_id))
        assert answer.payloads == ()


@pytest.mark.parametrize('size', [16, 17, 200, 255])
def test_padding_that_is_longer_than_all_is_invalid(size: int) -> None:
    alice, bob = shaken()
    answer, = replies(alice, bob, padded(alice, Type.NONE, bytes(15) + bytes([size]), 2))
    assert answer.payloads == (Notify(MessageType.INVALID_SYNTAX),) and bob.state == State.CLOSED


@BOTH
def test_nothing_is_decrypted_before_the_checksum_is_right(
        monkeypatch: pytest.MonkeyPatch, who: int) -> None:
    "It covers everything from the header on, and is compared in constant time."
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    good = sealed(one, Packet(LATER, ()), other.window.expected_id)
    expected = compute_icv(Integrity.HMAC_SHA2_256_128, one.outgoing.sk_a, good[:-16])
    assert good.endswith(expected)
    decrypted, compared = [], []
    real, compare = sk.decrypt, hmac.compare_digest
    monkeypatch.setattr(sk, 'decrypt', lambda *a: decrypted.append(a) or real(*a))
    monkeypatch.setattr(sk.hmac, 'compare_digest', lambda a, b: compared.append(a) or compare(a, b))
    for at in range(len(good)):
        changed = good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1:]
        assert replies(one, other, changed) == []
    assert decrypted == [] and len(compared) > len(good) - 40
    assert replies(one, other, good) and len(decrypted) == 2  # the request, and here its answer


# §4, §5 and RFC 8247: algorithms

FORBIDDEN = [Transform(ENCR, Encryption(n)) for n in (1, 2, 11)] + [
    Transform(PRF, Prf.PRF_HMAC_MD5), *(Transform(INTEG, Integrity(n)) for n in (0, 1, 3, 4)),
    *(Transform(DH, Group(n)) for n in (0, 1, 22))]
DISCOURAGED = [Transform(DH, Group(n)) for n in (2, 5, 23, 24)]


@pytest.mark.parametrize('weak', FORBIDDEN + DISCOURAGED, ids=lambda t: f'{t.type}-{int(t.id)}')
@BOTH
def test_weak_algorithms_are_refused(who: int, weak: Transform) -> None:
    "RFC 8247: DES, MD5, groups 1 and 22; RFC 7296 §5: no encryption or no integrity."
    alice, bob, request = first_request(ike='aes256-sha256-modp2048')

    def weaker(data: bytes) -> bytes:
        packet = Packet.parse(Reader(data))
        sa = SA((suite(lambda t: (weak if t.type == weak.type else t,), ProtocolID.IKE),))
        return respelt(packet, tuple(sa if isinstance(p, SA) else p for p in packet.payloads))
    bob.receive_datagram(weaker(request) if who else request, ALICE, 0)
    answer, = bob.datagrams_to_send()
    if who:
        refusal, = Packet.parse(Reader(answer.data)).payloads
        assert refusal.message_type == MessageType.NO_PROPOSAL_CHOSEN and bob.keys is None
    else:
        alice.receive_datagram(weaker(answer.data), BOB, 0)
        assert not alice.lineage.new_sas and alice.unauthenticated and alice.keys is None
        alice.receive_datagram(answer.data, BOB, 0)
        assert alice.lineage.new_sas


@pytest.mark.parametrize('weak', FORBIDDEN[:3] + FORBIDDEN[4:8],
                         ids=lambda t: f'{t.type}-{int(t.id)}')
def test_weak_algorithms_are_refused_for_esp(weak: Transform) -> None:
    good = suite(lambda t: (t,), ProtocolID.ESP)
    refused_by_both(suite(lambda t: (weak if t.type == weak.type else t,), ProtocolID.ESP), good)


def test_no_word_means_a_weak_algorithm() -> None:
    ours = {(a.transform.type, int(a.transform.id)) for a in ALGORITHMS.values() if not a.weak}
    weak = {(t.type, int(t.id)) for t in FORBIDDEN + DISCOURAGED}
    assert ours & weak == {(DH, 0)}  # modpnone, which has no place in an IKE proposal
    words = 'aes128-sha256-modp2048,aes256-sha256-modp2048'  # what RFC 8247 says MUST be known
    for proposal in parse_proposals(words, ProtocolID.IKE):
        assert [int(t.id) for t in proposal.transforms] == [12, 12, 5, 14]
    for word in 'des', '3des', 'null', 'md5', 'modp768', 'modp1024', 'modp1536', 'none', 'sha1':
        with pytest.raises(ValueError, match='is no algorithm|too weak'):
            parse_proposals(f'aes256-sha256-modp2048-{word}', ProtocolID.IKE)


def test_what_is_offered_by_default_is_no_weaker_than_rfc_8247_wants() -> None:
    defaults = Options()
    for words, protocol in (defaults.ike, ProtocolID.IKE), (defaults.esp, ProtocolID.ESP):
        proposals = parse_proposals(words, protocol)
        offered = {(t.type, int(t.id)) for p in proposals for t in p.transforms}
        assert (ENCR, 12) in offered and (INTEG, 12) in offered
        weak = offered & {(t.type, int(t.id)) for t in FORBIDDEN + DISCOURAGED}
        assert weak == ({(DH, 0)} if protocol == ProtocolID.ESP else set())  # a group is optional there


# RFC 7815: what a minimal initiator does, and others may

def test_initial_contact_closes_what_the_peer_has_forgotten() -> None:
    left, right = old()
    bob, ikes = Host((right,)), []
    for contact in False, False, True:
        alice = Host()  # without a memory
        alice.connect(replace(left, initial_contact=contact), ALICE, BOB, now=0)
        for _ in range(2):
            for d in alice.datagrams_to_send(): bob.receive_datagram(d.data, ALICE, 0, BOB)
            for d in bob.datagrams_to_send(): alice.receive_datagram(d.data, BOB, 0, ALICE)
        ikes.append(len(bob.established))
    assert ikes == [1, 2, 1] and bob.established[0].spi_i == alice.established[0].spi_i


@BOTH
def test_a_child_sa_too_many_is_refused(monkeypatch: pytest.MonkeyPatch, who: int) -> None:
    monkeypatch.setattr(create_child_sa, 'CHILD_LIMIT', 1)
    ends = shaken()
    one, other = ends[who], ends[1 - who]
    answer = asked(one, other, SA(with_spi('camellia256-sha256')), Nonce(bytes(32)),
                   TSi(one.config.local_ts), TSr(one.config.remote_ts), kind=CREATE)
    assert answer.payloads == (Notify(MessageType.NO_ADDITIONAL_SAS),)
    assert other.state == State.ESTABLISHED and len(other.children) == 1
