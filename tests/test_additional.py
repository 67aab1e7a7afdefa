"""Additional key exchanges between two ends of ours (RFC 9242, RFC 9370): who may offer and choose what, what
a peer may get wrong in each exchange and what comes of it, and that nothing of it is kept for ever."""
from collections.abc import Callable
from dataclasses import replace

import pytest
from canonical import configs, ends, two_ends
from ike_lit.engine.additional import FOLLOW_SECONDS, exchange_more_keys, step
from ike_lit.engine.create_child_sa import RESPONDERS, create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_auth, ike_sa_init
from ike_lit.engine.informational import liveness
from ike_lit.engine.model import ChildFailed, Closed, Dropped, Established, Lifetime, Rekeyed, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Conversation, State
from ike_lit.testing import stage
from ike_lit.testing.network import ALICE, BOB, Network, deliver, events, family, handshake, talk
from ike_lit.testing.scripted import ScriptedPeer
from ike_lit.wire.const import ExchangeType, Group, MessageType, NoProposalChosen, ProtocolID, TransformType
from ike_lit.wire.fragment import split
from ike_lit.wire.intermediate import IntAuth, authenticated
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.payload import Notify, Packet, Vendor, parse
from ike_lit.wire.proposal import (
    DEFAULT_ESP, DEFAULT_IKE, SA, Proposal, Transform, additional, check_choice, choose, parse_proposals)

HYBRID = {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768', 'esp': 'aes256gcm16-x25519-ke1_mlkem768'}
TWO = {'ike': 'aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke4_ecp256',
       'esp': 'aes128gcm16-x25519-ke2_ecp256-ke7_mlkem1024'}
PLAIN = 'aes256gcm16-prfsha384-x25519'
MIDDLE, FOLLOW = ExchangeType.IKE_INTERMEDIATE, ExchangeType.IKE_FOLLOWUP_KE
WRONG = KE(Group.ECP_256, bytes(64))  # no point of the curve


def proposals(text: str) -> tuple[Proposal, ...]: return parse_proposals(text, ProtocolID.IKE)


def ike(*more: Transform) -> Proposal:
    plain, = proposals('aes256gcm16-prfsha384-x25519')
    return replace(plain, transforms=(*plain.transforms, *more))


def ke(place: int, group: Group) -> Transform: return Transform(TransformType(5 + place), group)


# What is offered and chosen

@pytest.mark.parametrize('offered, ours, chosen', [
    ((), (), ()), ((ke(1, Group.ML_KEM_768),), (), None), ((), (ke(1, Group.ML_KEM_768),), None),
    ((ke(1, Group.ML_KEM_768),), (ke(1, Group.ML_KEM_768),), (Group.ML_KEM_768,)),
    ((ke(1, Group.ML_KEM_768), ke(1, Group.NONE)), (), ()),
    ((), (ke(1, Group.ML_KEM_768), ke(1, Group.NONE)), ()),
    ((ke(1, Group.NONE),), (), ()), ((ke(2, Group.ML_KEM_768),), (ke(1, Group.ML_KEM_768),), None),
    # their order counts, and that of the types
    ((ke(1, Group.ML_KEM_1024), ke(1, Group.ML_KEM_768)),
     (ke(1, Group.ML_KEM_768), ke(1, Group.ML_KEM_1024)), (Group.ML_KEM_1024,)),
    ((ke(3, Group.ECP_384), ke(1, Group.ML_KEM_768)),
     (ke(1, Group.ML_KEM_768), ke(3, Group.ECP_384)), (Group.ML_KEM_768, Group.ECP_384)),
    # none of them twice, nor the first one again
    ((ke(1, Group.CURVE_25519),), (ke(1, Group.CURVE_25519),), None),
    ((ke(1, Group.CURVE_25519), ke(1, Group.ECP_256)),
     (ke(1, Group.CURVE_25519), ke(1, Group.ECP_256)), (Group.ECP_256,)),
    ((ke(1, Group.ECP_256), ke(2, Group.ECP_256)), (ke(1, Group.ECP_256), ke(2, Group.ECP_256)), None),
    ((ke(1, Group.ECP_256), ke(2, Group.ECP_256), ke(2, Group.NONE)),
     (ke(1, Group.ECP_256), ke(2, Group.ECP_256), ke(2, Group.NONE)), (Group.ECP_256,))])
def test_what_is_chosen(offered: tuple, ours: tuple, chosen: tuple | None) -> None:
    try: suite = choose(SA((ike(*offered),)), (ike(*ours),))
    except NoProposalChosen: suite = None
    assert (additional(suite) if suite else None) == chosen
    if suite:
        assert {t.type for t in suite.transforms} == {t.type for t in ike(*offered).transforms}
        assert check_choice((ike(*offered),), SA((suite,))) == suite


@pytest.mark.parametrize('answer, why', [
    ((ke(1, Group.ML_KEM_1024),), 'was not offered'), ((ke(1, Group.NONE),), 'was not offered'),
    ((), 'was not offered'), ((ke(1, Group.ML_KEM_768), ke(1, Group.ML_KEM_768)), '2 transforms'),
    ((ke(1, Group.ML_KEM_768), ke(2, Group.ML_KEM_768)), 'was not offered')])
def test_an_answer_that_is_none_is_refused(answer: tuple, why: str) -> None:
    "None of them can be left out on the way, and none added."
    with pytest.raises(NoProposalChosen, match=why):
        check_choice((ike(ke(1, Group.ML_KEM_768)),), SA((ike(*answer),)))


def test_an_answer_with_a_method_twice_is_refused() -> None:
    twice = ike(ke(1, Group.ECP_256), ke(2, Group.ECP_256))
    with pytest.raises(NoProposalChosen, match='the same key exchange twice'):
        check_choice((twice,), SA((twice,)))


@pytest.mark.parametrize('side', [0, 1])
def test_without_the_notification_nothing_but_the_plain_proposal_counts(side: int) -> None:
    "§2.2.1, at both ends: an offer is passed over, an answer is none."
    mine, yours = configs(DEFAULT_IKE, DEFAULT_ESP)
    alice, bob = two_ends(RESPONDERS, mine, yours)
    alice.start(ike_sa_init, now=0)
    if side: deliver(alice, bob)
    sender, receiver = (bob, alice) if side else (alice, bob)
    sent, = sender.datagrams_to_send()
    packet = parse(sent.data)
    kept = [p for p in packet.payloads
            if getattr(p, 'message_type', None) != MessageType.INTERMEDIATE_EXCHANGE_SUPPORTED]
    assert len(kept) == len(packet.payloads) - 1
    receiver.receive_datagram(bytes(replace(packet, payloads=tuple(kept))), sent.source, 0, sent.destination)
    if side: assert not alice.lineage.new_sas and 'does not know' in str(alice.unauthenticated[-1])
    else: assert bob.suite and not additional(bob.suite)


# What a peer may get wrong

def scripted(changes: dict, config: int = 0, **suite: str) -> tuple[ScriptedPeer, Host]:
    mine, yours = configs(**(suite or HYBRID))
    return ScriptedPeer(mine, changes), Host((yours,))


@pytest.mark.parametrize('what, change', {
    'another method': lambda p: replace(p, payloads=(WRONG,)),
    'no KE': lambda p: replace(p, payloads=()),
    'two': lambda p: replace(p, payloads=p.payloads * 2),
    'too short': lambda p: replace(p, payloads=(KE(Group.ML_KEM_768, bytes(1183)),)),
    'no key': lambda p: replace(p, payloads=(KE(Group.ML_KEM_768, b'\xff' * 1184),))}.items())
def test_a_bad_request_ends_the_half_open_sa(what: str, change: Callable[[Packet], Packet]) -> None:
    peer, host = scripted({MIDDLE: change})
    network = Network({ALICE: peer, BOB: host})
    peer.connect()
    network.run(until=1)
    told = [e for _, e in network.events(host)]
    assert peer.answers[-1].error().message_type == MessageType.INVALID_SYNTAX
    assert not host.established and any(isinstance(e, Closed) for e in told)
    assert not any(isinstance(e, Established) for e in told)


def middle(**suite: str) -> tuple[IKE, IKE, IKE]:
    "An attempt, its candidate, and a responder, when IKE_INTERMEDIATE has been asked and answered."
    alice, bob = two_ends(RESPONDERS, *configs(**(suite or HYBRID)))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    deliver(alice, bob)
    return alice, alice.lineage.new_sas[0], bob


@pytest.mark.parametrize('payloads, why', [
    ((Notify(MessageType.INVALID_SYNTAX),), 'INVALID_SYNTAX'), ((WRONG,), 'the turn of ML_KEM_768'),
    ((Notify(MessageType.NO_PROPOSAL_CHOSEN),), 'NO_PROPOSAL_CHOSEN'), ((), 'no KE payload'),
    ((KE(Group.ML_KEM_768, bytes(1087)),), '1087 octets')])
def test_a_bad_answer_ends_the_candidate_and_tells_nobody(payloads: tuple, why: str) -> None:
    attempt, alice, bob = middle()
    bob.datagrams_to_send()
    sealed = alice.incoming.seal(Packet(MIDDLE, payloads), alice.spi_i, alice.spi_r, response=True,
                                 initiator=False, message_id=1, random=bytes)
    alice.receive_datagram(sealed, alice.remote, now=0)
    closed = [e for e in events(alice) if isinstance(e, Closed)]
    assert alice.state == State.CLOSED and why in str(closed[0].error)
    assert not alice.datagrams_to_send() and attempt.state == State.INITIAL


def test_the_answer_can_be_had_again_and_nothing_else_changes() -> None:
    "It is sealed with keys that are not in use any longer; a copy of the request gets the same octets."
    attempt, alice, bob = middle()
    first = bob.datagrams_to_send()
    keys = bob.keys
    request = alice.window.pending.datagrams
    for data in request: bob.receive_datagram(data, bob.remote, now=1)
    assert bob.datagrams_to_send() == first and bob.keys is keys
    assert [type(e) for e in events(bob)[-1:]] == [Dropped]


def test_a_request_that_is_cut_anew_gets_its_answer_again() -> None:
    "RFC 7383 §2.6.1: it was opened with keys that have been replaced since."
    attempt, alice, bob = middle()
    first = bob.datagrams_to_send()
    pieces = split(alice.outgoing, alice.window.pending.packet, alice.spi_i, alice.spi_r, response=False,
                   initiator=True, message_id=1, random=bytes, room=500)
    assert len(pieces) > 2
    for data in pieces: bob.receive_datagram(data, bob.remote, now=1)
    assert bob.datagrams_to_send() == first


def test_no_more_of_them_than_agreed_and_none_before_its_turn() -> None:
    attempt, alice, bob = middle()
    deliver(bob, attempt)
    for exchange, number in (MIDDLE, 1), (FOLLOW, 2), (ExchangeType.CREATE_CHILD_SA, 2):
        data = alice.outgoing.seal(Packet(exchange, (WRONG,)), alice.spi_i, alice.spi_r, response=False,
                                   initiator=True, message_id=number, random=bytes)
        bob.receive_datagram(data, bob.remote, now=0)
        assert not bob.datagrams_to_send() and bob.state == State.CONNECTING, exchange
    talk(attempt, bob)
    assert alice.state == bob.state == State.ESTABLISHED


def test_one_more_key_exchange_than_agreed_ends_it() -> None:
    attempt, alice, bob = middle()
    deliver(bob, attempt)
    bob.receive_datagram(alice.outgoing.seal(
        Packet(MIDDLE, (WRONG,)), alice.spi_i, alice.spi_r, response=False, initiator=True, message_id=2,
        random=bytes), bob.remote, now=0)
    assert bob.state == State.CLOSED and 'that was not agreed on' in str(events(bob)[-1].error)


@pytest.mark.parametrize('suite', [PLAIN, HYBRID['ike']], ids=['none', 'one'])
@pytest.mark.parametrize('spare', [1, 4, 5])
def test_an_exchange_that_nothing_needs(suite: str, spare: int) -> None:
    "RFC 9242 §3.2: 'the initiator may use one or more these exchanges'; both proofs cover that it did."
    def idle(ike: IKE) -> Conversation:
        yield from exchange_more_keys(ike)
        before = ike.keys
        for n in range(spare):
            request = Packet(MIDDLE, (Vendor(b'of another RFC'),) * (n % 2))
            response = yield request
            if response.error(): return
            assert response.payloads == () and ike.keys is before
            asked = authenticated(ike.window.sent, request.chain()[1])
            step(ike, asked, authenticated(response.data, response.chain()[1]), b'', None)
        yield from ike_auth(ike)
    attempt, bob = two_ends(RESPONDERS, *configs(f'{suite},{HYBRID["ike"]}'))
    attempt.start(ike_sa_init, idle, now=0)
    talk(attempt, bob)
    alice, = attempt.lineage.new_sas
    assert (bob.state == State.ESTABLISHED) == (alice.state == State.ESTABLISHED) == (spare < 5)
    if spare < 5: assert alice.intauth.exchanges == spare + len(additional(alice.suite))
    else: assert 'are enough' in str(events(bob)[-1].error) and bob.state == State.CLOSED


def test_an_exchange_that_nobody_has_announced_is_none() -> None:
    "RFC 9242 §3.1: only if both have; otherwise it is out of turn, as any other exchange before IKE_AUTH."
    attempt, bob = two_ends(RESPONDERS, *configs(PLAIN))

    def idle(ike: IKE) -> Conversation: yield Packet(MIDDLE, ())
    attempt.start(ike_sa_init, idle, now=0)
    talk(attempt, bob)
    assert bob.state == State.CONNECTING and not bob.intauth.exchanges
    assert 'IKE_INTERMEDIATE request in state CONNECTING' in str(events(bob)[-1].reason)


@pytest.mark.parametrize('suite', [HYBRID, TWO], ids=['one', 'two'])
@pytest.mark.parametrize('conversation', ['child', 'ike', 'another'])
@pytest.mark.parametrize('first', [0, 1])
def test_a_series_makes_one_new_sa_with_fresh_keys(suite: dict, conversation: str, first: int) -> None:
    pair = handshake(*two_ends(RESPONDERS, *configs(**suite)))
    one, other = pair[first], pair[1 - first]
    before = one.child
    events(one)
    if conversation == 'another':
        for end in pair: end.children.clear()
        one.start(create_child, now=1)
    elif conversation == 'child': one.start(rekey_child, before.inbound.spi, now=1)
    else: one.start(rekey_ike_sa, now=1)
    talk(one, other, now=1)
    asked = [e.packet.exchange_type for e in events(one) if getattr(e, 'sent', False)]
    count = len(additional((one.config.ike if conversation == 'ike' else one.config.esp)[0]))
    assert asked.count(FOLLOW) == count and asked[0] == ExchangeType.CREATE_CHILD_SA
    last, its = family(one)[-1], family(other)[-1]
    assert last.keys == its.keys and last.state == State.ESTABLISHED
    assert last.child.outbound == its.child.inbound and len(last.children) == 1
    if conversation == 'ike': assert last is not one and last.keys != one.keys
    else: assert last.child.inbound.encr_key != before.inbound.encr_key
    assert not other.window.answering and not [a for a in other.alarms if a.task.name == 'FOLLOW']


@pytest.mark.parametrize('payloads, why, closed', [
    ((WRONG,), 'it is the turn of', False), ((), 'no KE payload', False),
    ((KE(Group.ML_KEM_768, bytes(7)),), 'a public value of 7 octets', True),
    ((Notify(MessageType.STATE_NOT_FOUND),), 'STATE_NOT_FOUND', False),
    ((Notify(MessageType.TEMPORARY_FAILURE),), 'TEMPORARY_FAILURE', False)])
def test_a_bad_answer_to_a_follow_up(payloads: tuple, why: str, closed: bool) -> None:
    """The old Child SA stays, and is rekeyed again later; a ciphertext that is none ends the IKE SA
    (draft-ietf-ipsecme-ikev2-mlkem: "the initiator MUST delete the existing IKE SA")."""
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    old = alice.child.inbound.spi
    alice.start(rekey_child, old, now=1)
    deliver(alice, bob, now=1), deliver(bob, alice, now=1), deliver(alice, bob, now=1)
    events(alice), bob.datagrams_to_send()  # which would have been the right one
    sealed = alice.incoming.seal(Packet(FOLLOW, payloads), alice.spi_i, alice.spi_r, response=True,
                                 initiator=False, message_id=alice.window.pending.message_id, random=bytes)
    alice.receive_datagram(sealed, alice.remote, now=1)
    talk(alice, bob, now=1)
    told = ' '.join(str(getattr(e, 'error', '')) for e in events(alice))
    if closed: assert alice.state == State.CLOSED and why in told
    else:
        assert old in alice.children and any(a.task.name == 'REKEY' for a in alice.alarms)
        assert (why in told) == ('FAILURE' not in why and 'FOUND' not in why)


def begun(alice: IKE, bob: IKE) -> None:
    "Let Alice rekey the Child SA, until she has Bob's answer, but not yet asked for what follows."
    alice.start(rekey_child, alice.child.inbound.spi, now=1)
    deliver(alice, bob, now=1)


def test_a_grant_without_a_link_is_refused() -> None:
    "§2.2.4: a key exchange is to follow, and ADDITIONAL_KEY_EXCHANGE, which has to come back, is missing."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    old = alice.child.inbound.spi
    begun(alice, bob)
    grant = alice.incoming.open(bob.datagrams_to_send()[0].data)
    kept = tuple(p for p in grant.payloads if not isinstance(p, Notify))
    number = alice.window.pending.message_id
    alice.receive_datagram(alice.incoming.seal(
        replace(grant, payloads=kept), alice.spi_i, alice.spi_r, response=True, initiator=False,
        message_id=number, random=bytes), alice.remote, now=1)
    asked = [e.packet for e in events(alice) if getattr(e, 'packet', None) and e.sent]
    assert asked[-1].exchange_type != FOLLOW and list(alice.children) == [old]


@pytest.mark.parametrize('change', [
    lambda link: (), lambda link: (replace(link, data=link.data[:-1] + bytes([link.data[-1] ^ 1])),),
    lambda link: (replace(link, data=b''),)], ids=['none', 'another', 'empty'])
def test_a_request_with_another_link_finds_nothing(change: Callable[[Notify], tuple]) -> None:
    "§2.2.4: the responder 'MUST send back a STATE_NOT_FOUND'; the series is over, and no SA comes of it."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    before = set(bob.children)
    begun(alice, bob)
    deliver(bob, alice, now=1)
    alice.datagrams_to_send()
    asked = alice.window.pending.packet
    link = asked.notify(MessageType.ADDITIONAL_KEY_EXCHANGE)
    payloads = (*(p for p in asked.payloads if p is not link), *change(link))
    bob.receive_datagram(bob.incoming.seal(
        replace(asked, payloads=payloads), bob.spi_i, bob.spi_r, response=False, initiator=True,
        message_id=alice.window.pending.message_id, random=bytes), bob.remote, now=1)
    answer = bob.outgoing.open(bob.datagrams_to_send()[-1].data)
    assert answer.error().message_type == MessageType.STATE_NOT_FOUND
    assert set(bob.children) == before and not bob.window.answering


def test_a_series_that_is_done_ends_the_time_of_refusals() -> None:
    "After TEMPORARY_FAILURE a rekeying that begins does not count as an answer, one that is done does."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    alice.refused_since = 0.5
    begun(alice, bob)
    deliver(bob, alice, now=1)
    assert alice.refused_since == 0.5
    talk(alice, bob, now=1)
    assert alice.refused_since is None
    # and who grants no key exchange to follow says nothing about those that do
    plain, other = handshake(*two_ends(RESPONDERS, *configs()))
    plain.refused_since = 0.5
    plain.start(liveness, now=1)
    talk(plain, other, now=1)
    assert plain.refused_since == 0.5


def test_what_is_authenticated_begins_as_it_was_sent() -> None:
    "RFC 9242 §3.3.2: A is the message up to the box, with what may stand in front of that."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    sealed = alice.outgoing.seal(Packet(MIDDLE, (WRONG,)), alice.spi_i, alice.spi_r, response=False,
                                 initiator=True, message_id=1, random=bytes)
    vendor = bytes([46, 0, 0, 7]) + b'abc'
    size = (len(sealed) + len(vendor)).to_bytes(4, 'big')
    data = sealed[:16] + bytes([43]) + sealed[17:24] + size + vendor + sealed[28:]
    inside = b'0123456789'
    whole = authenticated(data, inside)
    assert whole[:24] == data[:24] and whole[28:28 + len(vendor)] == vendor
    assert int.from_bytes(whole[24:28], 'big') == len(whole) and whole.endswith(b'\0\x0e' + inside)
    assert IntAuth().octets == b'' and IntAuth(b'i', b'r', 1).octets == b'ir\0\0\0\2'


@pytest.mark.parametrize('answers', [1, 100])
def test_state_not_found_for_too_long_ends_the_ike_sa(answers: int) -> None:
    "§2.2.4: 'after several retries, it MUST treat this situation as a fatal error and delete the IKE SA'."
    timing = Timing(child=Lifetime(), ike=Lifetime(), liveness=0, retry=5, out_of_step=60)
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(timing=timing, **HYBRID)))
    alice.start(rekey_child, alice.child.inbound.spi, now=0)
    now, refused = 0.0, 0
    while now < 200 and alice.state != State.CLOSED and alice.busy | bool(alice.next_timer()):
        if FOLLOW in bob.window.answering and refused < answers:
            bob.window.answering.clear()
            refused += 1
        deliver(alice, bob, now)
        if FOLLOW in bob.window.answering and refused < answers:
            bob.window.answering.clear()
            refused += 1
        deliver(bob, alice, now)
        if not alice.outbox: now = alice.next_timer() or 201
        alice.handle_timer(now)
    assert (alice.state == State.CLOSED) == (answers == 100)
    if answers == 1: assert len(alice.children) == 1 and refused == 1


def test_a_series_that_is_not_gone_on_with_is_forgotten() -> None:
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    alice.start(rekey_child, alice.child.inbound.spi, now=1)
    deliver(alice, bob, now=1)
    assert FOLLOW in bob.window.answering
    bob.handle_timer(now=FOLLOW_SECONDS + 0.9)
    assert FOLLOW in bob.window.answering
    bob.handle_timer(now=FOLLOW_SECONDS + 1)
    assert not bob.window.answering and len(bob.children) == 1
    deliver(bob, alice, now=2)
    talk(alice, bob, now=22)
    assert len(alice.children) == len(bob.children) == 1
    again = [a for a in alice.alarms if a.task.name == 'REKEY' and a.spi]
    assert again  # STATE_NOT_FOUND: she tries again


def test_another_series_takes_the_place_of_an_unfinished_one() -> None:
    "A peer can't fill our memory by beginning and beginning again."
    peer, host = scripted({})
    network = Network({ALICE: peer, BOB: host})
    peer.connect()
    network.run(until=1)
    bob, = host.established
    for n in range(5):
        peer.ike and peer.start(rekey_child, next(iter(peer.ike.children), b''))
        network.run(until=2 + n)
    assert len(bob.window.answering) <= 1


# Both at once

@pytest.mark.parametrize('mover', ['initiator', 'responder'])
@pytest.mark.parametrize('low', ['a', 'b'])
@pytest.mark.parametrize('kind', ['child', 'ike'])
@pytest.mark.parametrize('suite', [HYBRID, TWO], ids=['one', 'two'])
def test_the_loser_stops_and_one_sa_is_left(mover: str, low: str, kind: str, suite: dict) -> None:
    a, b = ends(mover, **suite)
    for end in (a, b): end.low = 'asks' if end.name == low else ''
    for end, spi in ((a, 'a1'), (b, 'b1')):
        if kind == 'child': end.begins(rekey_child, stage.spi(spi))
        else: end.begins(rekey_ike_sa)
    said = stage.talk_through(a)
    assert not [s for s in said if s.startswith(f'{low} -> add a key')], said
    left = stage.sas(a)
    assert left == stage.sas(b) and left.count('a') == left.count('b') == 1
    assert not [e for _, e in (*a.told, *b.told) if isinstance(e, ChildFailed)]
    if kind == 'ike': assert sum(isinstance(e, Rekeyed) for _, e in a.told) == 1


@pytest.mark.parametrize('kind', ['child', 'ike'])
def test_a_request_that_comes_too_late_has_to_wait(kind: str) -> None:
    "§2.2.4: 'a TEMPORARY_FAILURE notification MUST be sent in response to such a request'."
    a, b = ends('initiator', **HYBRID)
    for end, spi in ((a, 'a1'), (b, 'b1')):
        if kind == 'child': end.begins(rekey_child, stage.spi(spi))
        else: end.begins(rekey_ike_sa)
    late, first = ('rekey b1', 'rekey a1') if kind == 'child' else ('rekey A1 B1', 'rekey A1 B1')
    promise = 'promise b3' if kind == 'child' else 'promise B3'
    stage.play(a, f'''
        b -| {late}
        a -> {first}
        b -> {promise}
        b ~> {late}
        a -> add a key exchange
        a -> add a key exchange
        a -> TEMPORARY_FAILURE''')
    stage.talk_through(a)
    assert stage.sas(a) == stage.sas(b) and stage.sas(a).count('a') == 1


def test_closing_forgets_what_was_begun() -> None:
    "Secrets of a series go with the IKE SA."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(**HYBRID)))
    alice.start(rekey_child, alice.child.inbound.spi, now=1)
    deliver(alice, bob, now=1)
    bob.close()
    assert not bob.window.answering and bob.window.answered.sk is None and bob.window.once_sealed is None


def test_each_exchange_has_a_key_of_its_own() -> None:
    made = {KeyExchange(Group.ML_KEM_768).public for _ in range(3)}
    assert len(made) == 3
