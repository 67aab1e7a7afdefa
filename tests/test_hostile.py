"""Bad input: whatever arrives, the engine raises nothing, a waiting SA is not changed,
and the true answer still counts.
"""
import random
from collections.abc import Callable

import pytest
from canonical import ALICE, BOB, configs, deliver, events, handshake, talk, two_ends
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit import payload
from ike_lit.const import Encryption, ExchangeType, IkeError, MessageType, ProtocolID, Type
from ike_lit.header import HEADER, Header, Reader, dissect
from ike_lit.create_child_sa import RESPONDERS
from ike_lit.host import Host
from ike_lit.ike_sa import ike_sa_init
from ike_lit.informational import liveness
from ike_lit.interface import Dropped, Message, State
from ike_lit.ke import KE
from ike_lit.nonce import Nonce
from ike_lit.payload import Delete, Notify, Opaque, Packet, Payload, parse_chain
from ike_lit.proposal import SA, Proposal, Transform
from ike_lit.protocol import IKE

# The ends in each state in which an answer is awaited: after message 1, after message 3,
# and established with a liveness check under way.


def waiting_for_init() -> tuple[IKE, bytes]:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    return alice, bob.datagrams_to_send(0)[0].data


def waiting_for_auth() -> tuple[IKE, bytes]:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    deliver(alice, bob)
    return alice.heirs[0], bob.datagrams_to_send(0)[0].data


def waiting_for_liveness() -> tuple[IKE, bytes]:
    alice, bob = two_ends(RESPONDERS)
    alice, bob = handshake(alice, bob)
    alice.start(liveness, now=0)
    deliver(alice, bob)
    return alice, bob.datagrams_to_send(0)[0].data


def waiting_responder() -> tuple[IKE, bytes]:
    "Bob, half open, waits for IKE_AUTH."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    return bob, alice.heirs[0].datagrams_to_send(0)[0].data


WAITING = [waiting_for_init, waiting_for_auth, waiting_for_liveness, waiting_responder]
PREPARED = {make.__name__: make() for make in WAITING}


def snapshot(ike: IKE) -> dict:
    "All that an SA knows, but for its outbox and its events."
    left_out = ('_outbox', '_events', 'remarks', '_pending', 'now')
    state = {k: v for k, v in vars(ike).items() if k not in left_out}
    return {**state, 'pending': dict(vars(ike._pending)) if ike._pending else None}


def bombard(ike: IKE, data: bytes) -> None:
    peer = ALICE if not ike.initiator else BOB
    events(ike)
    before = snapshot(ike)
    ike.receive_datagram(data, peer, 0)
    seen = events(ike)
    assert snapshot(ike) == before
    # one line for each: dropped, or in IKE_SA_INIT,
    # where nobody can vouch for anything, seen and not believed
    assert len(seen) == 1 and isinstance(seen[0], Dropped if ike.incoming else Dropped | Message)
    assert len(ike.datagrams_to_send(0)) == 0
    assert len(ike.remarks) <= 16


@pytest.mark.parametrize('name', PREPARED)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_datagram(name: str, data: st.DataObject) -> None:
    ike, _ = PREPARED[name]
    header = ike.spi_i + data.draw(st.sampled_from([ike.spi_r, bytes(8)]))
    with_our_spi = st.binary(max_size=600).map(lambda tail: header + tail)
    octets = data.draw(st.one_of(st.binary(max_size=2000), with_our_spi))
    bombard(ike, octets)


@pytest.mark.parametrize('make', WAITING[1:], ids=lambda f: f.__name__)
def test_any_changed_octet_of_a_sealed_message(make: Callable) -> None:
    "Every octet, three changes each, every truncation: dropped; then the true one is taken."
    ike, good = make()
    for at in range(len(good)):
        for mask in 0x01, 0x80, 0xff:
            bombard(ike, good[:at] + bytes([good[at] ^ mask]) + good[at + 1:])
        bombard(ike, good[:at])
    bombard(ike, good + b'\0')
    ike.receive_datagram(good, BOB if ike.initiator else ALICE, 0)
    assert ike.state == State.ESTABLISHED


def test_truncations_and_impossible_lengths_of_ike_sa_init() -> None:
    ike, good = waiting_for_init()
    for at in range(len(good)): bombard(ike, good[:at])
    for at in range(HEADER.size, len(good) - 1):  # a length of 0 or 65535 anywhere
        for length in b'\0\0', b'\xff\xff':
            changed = good[:at] + length + good[at + 2:]
            if changed != good:
                try: Packet.parse(Reader(changed))
                except IkeError: bombard(ike, changed)
    ike.receive_datagram(good, BOB, 0)
    assert ike.heirs[0].state == State.CONNECTING


def reply(ike: IKE, *payloads: Payload, spi_r: bytes = b'12345678') -> bytes:
    packet = Packet(ExchangeType.IKE_SA_INIT, payloads)
    return packet.encode(ike.spi_i, spi_r, response=True, initiator=False, message_id=0)


def test_ike_sa_init_responses_that_are_not_answers() -> None:
    "Each payload missing, doubled, or wrong: noted, and the wait goes on."
    ike, good = waiting_for_init()
    sa, ke, nonce, *rest = Packet.parse(Reader(good)).payloads
    proposal = sa.proposals[0]
    encr, integ, prf, group = proposal.transforms

    def suite(*transforms: Transform, number: int = 1, spi: bytes = b'') -> SA:
        return SA((Proposal(number, ProtocolID.IKE, spi, transforms),))
    weak = Transform(encr.type, Encryption.TRIPLE_DES)
    lies = [
        (), (sa,), (sa, ke), (sa, nonce), (ke, nonce),
        (sa, sa, ke, nonce), (sa, ke, ke, nonce), (sa, ke, nonce, nonce),
        (suite(weak, integ, prf, group), ke, nonce), (suite(encr, prf, group), ke, nonce),
        (suite(encr, encr, integ, prf, group), ke, nonce),
        (suite(encr, integ, prf, group, number=2), ke, nonce),
        (suite(encr, integ, prf, group, spi=bytes(8)), ke, nonce),
        (sa, KE(19, ke.public), nonce), (sa, KE(14, ke.public[1:]), nonce),
        (sa, KE(14, bytes(256)), nonce), (sa, KE(14, bytes(255) + b'\1'), nonce),
        (sa, KE(14, b'\xff' * 256), nonce),
        (sa, ke, Opaque(Type.Nonce, bytes(15))), (sa, ke, Opaque(Type.Nonce, bytes(257))),
        (sa, ke, Nonce(bytes(range(0xa0, 0xc0)))),  # our own nonce, reflected
        (Notify(MessageType.NO_PROPOSAL_CHOSEN),), (Notify(MessageType(999)),),
        (Notify(MessageType.AUTHENTICATION_FAILED), sa, ke, nonce),
        (Delete(ProtocolID.IKE),),
        *((Notify(MessageType.INVALID_KE_PAYLOAD, bytes(n) + b'\xff'),) for n in (0, 2, 3, 1999)),
        *((Notify(MessageType.COOKIE, bytes(n)),) for n in (0, 65, 1999)),
    ]
    for payloads in lies: bombard(ike, reply(ike, *payloads, *rest))
    bombard(ike, reply(ike, sa, ke, nonce, *rest[:2]))  # no hash that we could sign with
    bombard(ike, reply(ike, sa, ke, nonce, *rest, spi_r=bytes(8)))
    answer = reply(ike, sa, ke, nonce, *rest)
    bombard(ike, answer[:16] + b'\x21\x20\x22\x28' + answer[20:])  # I bit of our role
    ike.receive_datagram(good, BOB, 0)
    assert ike.heirs[0].state == State.CONNECTING


@pytest.mark.parametrize('exchange', list(ExchangeType) + [ExchangeType(0), ExchangeType(99)])
@pytest.mark.parametrize('response', [False, True])
@pytest.mark.parametrize('name', PREPARED)
def test_unprotected_messages_are_not_looked_at(
        name: str, response: bool, exchange: ExchangeType) -> None:
    """Right SPIs, right message ID, right flags, everything but the box
    (some implementations delete the SA)."""
    ike, _ = PREPARED[name]
    if ike.incoming is None: return
    for message_id in range(4):
        for payloads in ((), (Delete(ProtocolID.IKE),),
                         (Notify(MessageType.AUTHENTICATION_FAILED),),
                         (Notify(MessageType.INVALID_IKE_SPI),)):
            packet = Packet(exchange, payloads)
            bombard(ike, packet.encode(ike.spi_i, ike.spi_r, response=response,
                                       initiator=not ike.initiator, message_id=message_id))


@pytest.mark.parametrize('kind', [
    Type.Vendor, Type.SA, Type.KE, Type.Nonce, Type.Notify, Type.Delete, Type.TSi, Type.IDi,
    Type(200), Type.CP])
@pytest.mark.parametrize('length', [0, 1, 2, 3, 65535])
def test_no_step_of_zero_octets(kind: Type, length: int) -> None:
    chain = bytes([kind, 0, *length.to_bytes(2, 'big')]) + bytes(36)
    with pytest.raises(IkeError): parse_chain(kind, Reader(chain))


def test_a_malformed_request_inside_the_box_is_answered_and_fatal() -> None:
    alice, bob = two_ends(RESPONDERS)
    alice, bob = handshake(alice, bob)

    def nonsense(ike):  # noqa: ANN001, ANN202
        delete = Opaque(Type.Delete, b'\x03\x04\x00\x09')
        answer = yield Packet(ExchangeType.INFORMATIONAL, (delete,))
        assert answer.notify(MessageType.INVALID_SYNTAX)
    alice.start(nonsense, now=1)
    talk(alice, bob, now=1)
    assert bob.state == State.CLOSED


def test_a_critical_payload_inside_the_box_is_answered_with_its_type(
        monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = two_ends(RESPONDERS)
    alice, bob = handshake(alice, bob)
    future = Packet(ExchangeType.INFORMATIONAL,
                    (Opaque(Type.Vendor, b''), Opaque(Type(200), b'')))
    real = payload.GENERIC.pack
    with monkeypatch.context() as patched:  # we never set the flag ourselves
        patched.setattr(payload.GENERIC, 'pack',
                        lambda following, _, size: real(following, following == 0, size))
        sealed = alice.outgoing.seal(future, alice.spi_i, alice.spi_r, response=False,
                                     initiator=True, message_id=2, random=bytes)
    bob.receive_datagram(sealed, ALICE, 1)
    answer = alice.incoming.open(bob.datagrams_to_send(1)[0].data)
    assert answer.notify(MessageType.UNSUPPORTED_CRITICAL_PAYLOAD).data == b'\xc8'
    assert bob.state == State.ESTABLISHED


# The responder's table

@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=1000))
def test_the_responder_answers_no_noise(data: bytes) -> None:
    bob = Host((configs()[1],))
    bob.receive_datagram(data, ALICE, 0, BOB)
    _, event = bob.next_event()
    assert isinstance(event, Dropped) and not bob.sas and not bob.next_event()
    # a request for an SPI that it does not have is told so, and nothing else is said
    for d in bob.datagrams_to_send():
        complaint, = Packet.parse(Reader(d.data)).payloads
        assert complaint.message_type in (
            MessageType.INVALID_IKE_SPI, MessageType.INVALID_MAJOR_VERSION)
        assert len(d.data) <= len(data) + 9 and not data[19] & 0x20


def test_the_responder_survives_mutations_of_a_first_message() -> None:
    alice, _ = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    good, bob = alice.datagrams_to_send(0)[0].data, Host((configs()[1],))
    rng = random.Random(7296)  # noqa: S311  # the same mutations each time, no secrets
    for n in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)): data[rng.randrange(len(data))] = rng.randrange(256)
        bob.receive_datagram(bytes(data), ALICE, n * 0.1, BOB)
        sent = bob.datagrams_to_send()
        assert len(sent) <= 1
        for d in sent: assert Header.parse(Reader(d.data)).response
        assert len(bob.sas) == len(bob.passing) == len(bob.first) <= 100


# A dissection tiles whatever it is given

@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_dissection_has_no_gap_and_no_overlap(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([good for _, good in PREPARED.values()]))
    octets = bytearray(good)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at] = data.draw(st.integers(0, 255))
    cut = octets[:data.draw(st.integers(0, len(octets)))]
    message = bytes(cut) + data.draw(st.binary(max_size=9))
    shown = dissect(Packet.parse, message)
    at = 0
    for span in shown.spans:
        assert span.at == at and span.octets
        at += len(span.octets)
    assert at == len(message)
    try: Packet.parse(Reader(message))
    except IkeError as error: assert str(shown.error) == str(error)
    else: assert shown.error is None
    assert repr(shown) and shown._repr_html_()
