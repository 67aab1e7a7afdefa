"""Both ends in one process: what they agree on, what they refuse,
and what a network between them may do.
"""
from dataclasses import replace
from math import inf

import pytest
from canonical import RSA as RSA_KEYS
from canonical import configs, two_ends
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP521R1
from cryptography.hazmat.primitives.asymmetric.ec import (
    generate_private_key as generate_ec_key)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from ike_lit.engine import ike_sa, proof
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.informational import delete_ike_sa, liveness
from ike_lit.engine.model import ChildEstablished, ChildFailed, Closed, Established
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, deliver, events, family, handshake, talk
from ike_lit.wire.auth import ED25519, RSA, SCHEMES, IDr, Identity
from ike_lit.wire.certificate import Signer
from ike_lit.wire.const import (
    AuthenticationFailed, AuthenticationType, ExchangeType, Fact, Group, HashAlgorithm, MessageType,
    NoAnswer, NoProposalChosen, ProtocolID, TransformType, Type)
from ike_lit.wire.header import Reader
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.payload import Notify, Opaque, Packet
from ike_lit.wire.proposal import SA, Transform, parse_proposals
from ike_lit.wire.ts import MAX_SELECTORS, TSi, TrafficSelector


shake = handshake


def found(ike: IKE, kind: type) -> list:
    return [e for e in events(ike) if isinstance(e, kind)]


def give_up(alice: IKE, bob: IKE) -> tuple[IKE, IKE]:
    "Let time pass until the initiator has no patience left."
    while (at := alice.next_timer()) is not None: alice.handle_timer(at)
    return alice, bob


def agree(alice: IKE, bob: IKE) -> None:
    alice = family(alice)[-1]  # of an attempt, what came of it
    assert alice.state == bob.state == State.ESTABLISHED
    assert alice.keys == bob.keys and alice.suite.transforms == bob.suite.transforms
    assert alice.child.outbound == bob.child.inbound
    assert alice.child.inbound == bob.child.outbound
    assert alice.child.local_ts == bob.child.remote_ts
    assert alice.child.remote_ts == bob.child.local_ts


@pytest.mark.parametrize('ike, esp', [
    ('camellia256-sha256-modp2048', 'camellia256-sha256'),
    ('aes256-sha256-modp2048', 'aes256-sha256'),
    ('aes128-sha256-modp2048', 'camellia192-sha256'),
    ('aes256-camellia256-sha256-modp2048', 'aes256-camellia256-sha256')])
def test_suites(ike: str, esp: str) -> None:
    alice, bob = shake(*two_ends(RESPONDERS, *configs(ike, esp)))
    agree(alice, bob)
    assert len(alice.child.outbound.encr_key) * 8 == alice.child.outbound.encr.key_length


def test_fresh_randomness_gives_fresh_keys() -> None:
    pairs = []
    for _ in range(2):
        left, right = configs()
        pairs.append(shake(IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS),
                           IKE(right, BOB, ALICE, initiator=False, responders=RESPONDERS)))
    for alice, bob in pairs: agree(alice, bob)
    assert len({octets for alice, _ in pairs
                for octets in (*vars(alice.keys).values(), alice.child.outbound.encr_key)} - {b''}) == 12


# Authentication

@pytest.mark.parametrize('scheme', SCHEMES.items(), ids=lambda s: s[1].name)
def test_every_signature_scheme_of_a_peer_is_accepted(
        monkeypatch: pytest.MonkeyPatch, scheme: tuple) -> None:
    identifier, how = scheme
    way = AuthenticationType.DIGITAL_SIGNATURE, identifier
    for module in ike_sa, proof: monkeypatch.setattr(module, 'choose_method', lambda config, *accepted: way)
    left, right = configs(keys=RSA_KEYS)
    if how.key is not RSA:
        keys = [Ed25519PrivateKey.generate() if how.key is ED25519
                else generate_ec_key(curve) for curve in (SECP256R1(), SECP521R1())]
        left = replace(left, credential=Signer(keys[0]), trust=keys[1].public_key())
        right = replace(right, credential=Signer(keys[1]), trust=keys[0].public_key())
    alice, bob = shake(*two_ends(RESPONDERS, left, right))
    assert how.name in alice.agreed.proof and how.name in bob.agreed.proof


def no_rfc_7427(monkeypatch: pytest.MonkeyPatch) -> None:
    "Let both ends be older than RFC 7427: they announce no hashes."
    monkeypatch.setattr(ike_sa, 'hash_algorithms', lambda: Notify(MessageType(40000)))


def test_method_1_only_if_both_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    no_rfc_7427(monkeypatch)
    alice, bob = shake(*two_ends(RESPONDERS, *configs(keys=RSA_KEYS, allow_sha1=True)))
    agree(alice, bob)
    assert alice.agreed.proof == bob.agreed.proof == 'method 1, RSA with SHA-1, key of 2048 bits'


def test_method_1_is_refused_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    no_rfc_7427(monkeypatch)
    alice, _ = give_up(*shake(*two_ends(RESPONDERS, *configs(keys=RSA_KEYS))))
    closed, = found(alice, Closed)
    assert isinstance(closed.error, AuthenticationFailed) and Fact.SHA1 in closed.error.facts
    # and a responder that does not want it refuses an initiator that does
    left, right = configs(keys=RSA_KEYS, allow_sha1=True)[0], configs(keys=RSA_KEYS)[1]
    alice, bob = shake(*two_ends(RESPONDERS, left, right))
    assert alice.state == bob.state == State.CLOSED


def test_a_stranger_with_a_good_key_is_refused() -> None:
    left, right = configs()
    stranger = replace(left, credential=Signer(generate_private_key(65537, 2048)))
    alice, bob = shake(*two_ends(RESPONDERS, stranger, right))
    assert alice.state == bob.state == State.CLOSED
    assert alice.child is None and bob.child is None
    for end in alice, bob: assert isinstance(found(end, Closed)[0].error, AuthenticationFailed)


def test_the_right_key_under_another_name_is_refused() -> None:
    left, right = configs()
    mallory = replace(left, local_id=Identity.from_text('mallory.example.org'))
    alice, bob = shake(*two_ends(RESPONDERS, mallory, right))
    error = found(bob, Closed)[0].error
    assert 'FQDN mallory.example.org, we expect FQDN alice.example.org' in str(error)
    assert not found(alice, Established)


def test_a_responder_with_another_name_or_key_is_refused() -> None:
    left, right = configs()
    for other in (replace(right, local_id=Identity.from_text('alice.example.org')),
                  replace(right, credential=Signer(generate_private_key(65537, 2048)))):
        alice, _ = shake(*two_ends(RESPONDERS, left, other))
        assert alice.state == State.CLOSED
        assert isinstance(found(alice, Closed)[0].error, AuthenticationFailed)


def test_an_eap_gateway_gets_a_plain_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def wants_eap(ike, request):  # noqa: ANN001, ANN202
        eap = Opaque(Type.EAP, bytes.fromhex('0101000501'))
        return Packet(ExchangeType.IKE_AUTH, (IDr.of(ike.config.local_id), eap))
    alice, _ = give_up(*shake(*two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: wants_eap})))
    assert 'EAP' in str(found(alice, Closed)[0].error) and alice.child is None


# The Child SA may fail, and the IKE SA stands

@pytest.mark.parametrize('change, error', [
    ({'esp': parse_proposals('aes128-sha256', ProtocolID.ESP)}, MessageType.NO_PROPOSAL_CHOSEN),
    ({'local_ts': (TrafficSelector.from_text('172.16.0.0/12'),)}, MessageType.TS_UNACCEPTABLE),
    ({'mode': 'transport'}, MessageType.NO_PROPOSAL_CHOSEN)])
def test_child_refused_by_the_responder(change: dict, error: MessageType) -> None:
    left, right = configs()
    alice, bob = shake(*two_ends(RESPONDERS, left, replace(right, **change)))
    assert alice.state == bob.state == State.ESTABLISHED
    assert alice.child is None and bob.child is None
    for end in alice, bob: assert found(end, ChildFailed)[0].error.type == error


@pytest.mark.parametrize('lie', ['wider', 'suite', 'spi', 'transport'])
def test_child_refused_by_the_initiator_is_deleted_at_the_responder(lie: str) -> None:
    def answer(ike, request):  # noqa: ANN001, ANN202
        response = ike_sa.respond_ike_auth(ike, request)
        sa = response.one(SA)
        weaker = parse_proposals('aes128-sha256', ProtocolID.ESP)[0]
        liar = {'wider': TSi((TrafficSelector.from_text('0.0.0.0/0'),)),
                'transport': Notify(MessageType.USE_TRANSPORT_MODE),
                'suite': SA((replace(weaker, spi=b'1234'),)),
                'spi': SA((replace(sa.proposals[0], number=7),))}[lie]
        others = (p for p in response.payloads if type(p) is not type(liar))
        return Packet(response.exchange_type, (*others, liar))
    alice, bob = shake(*two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: answer}))
    assert alice.state == State.ESTABLISHED and alice.child is None and found(alice, ChildFailed)
    assert bob.child is None  # Bob had one, and was told


def test_narrowing() -> None:
    left, right = configs()
    wide = replace(left, remote_ts=(TrafficSelector.from_text('10.0.0.0/8'),))
    alice, bob = shake(*two_ends(RESPONDERS, wide, right))
    agree(alice, bob)
    assert list(map(str, alice.child.remote_ts)) == ['10.2.0.0/24']


def test_transport_mode() -> None:
    alice, bob = shake(*two_ends(RESPONDERS, *configs(mode='transport')))
    agree(alice, bob)
    assert alice.child.mode == bob.child.mode == 'transport'


# NAT

def test_a_nat_moves_both_to_port_4500() -> None:
    "Alice at 192.0.2.1 comes out of a NAT at 198.51.100.7, ports 61000 and 61001."
    alice, bob = two_ends(RESPONDERS)
    alice.natt = Endpoint(ALICE.host, 4500, natt=True), Endpoint(BOB.host, 4500, natt=True)
    seen: list[Endpoint] = []
    alice.start(ike_sa_init, now=0)
    for _ in range(2):
        alice = family(alice)[-1]
        sent, = alice.datagrams_to_send()
        seen.append(sent.destination)
        port = 61001 if sent.source.natt else 61000
        outside = Endpoint('198.51.100.7', port, natt=sent.source.natt)
        assert sent.wire.startswith(bytes(4)) == sent.source.natt
        bob.receive_datagram(sent.data, outside, 0, sent.destination)
        back, = bob.datagrams_to_send()
        assert back.destination == outside
        alice.receive_datagram(back.data, back.source, 0, sent.source)
    assert [e.port for e in seen] == [500, 4500]
    assert alice.agreed.nat.here and not alice.agreed.nat.there
    assert bob.agreed.nat.there and not bob.agreed.nat.here
    assert alice.child.encap == (4500, 4500) and bob.child.encap == (4500, 61001)
    assert bob.child.outbound.destination == '198.51.100.7'


def test_no_nat_no_move() -> None:
    alice, bob = two_ends(RESPONDERS)
    alice.natt = ALICE._replace(port=4500, natt=True), BOB._replace(port=4500, natt=True)
    alice, bob = shake(alice, bob)
    assert alice.remote.port == 500 and alice.child.encap is None


# IKE_SA_INIT's detours and refusals

def forged(alice: IKE, *payloads: Notify) -> bytes:
    packet = Packet(ExchangeType.IKE_SA_INIT, payloads)
    return packet.encode(alice.spi_i, bytes(8), response=True, initiator=False, message_id=0)


def test_endless_cookies_are_not_followed_for_ever() -> None:
    alice, _ = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    sent = len(alice.datagrams_to_send())
    alice.window.pending.resend_at = inf
    for n in range(100):
        alice.receive_datagram(forged(alice, Notify(MessageType.COOKIE, bytes([n]))), BOB, n / 5)
        alice.handle_timer(n / 5)
        sent += len(alice.datagrams_to_send())
        if alice.window.pending: alice.window.pending.resend_at = inf  # the same again is not counted
    assert sent == 1 + ike_sa.MAX_INIT_RETRIES and alice.state == State.INITIAL


@pytest.mark.parametrize('true', [0, 1])
def test_a_forged_cookie_beside_the_true_one(true: int) -> None:
    """Bob answers only the version with his own cookie, and that one has to be signed.

    So the second cookie waits for a second, in which a better answer to the first may come."""
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    alice.datagrams_to_send()
    for octets in b'one', b'other':
        alice.receive_datagram(forged(alice, Notify(MessageType.COOKIE, octets)), BOB, 0)
    version, = alice.datagrams_to_send()
    if true:
        alice.handle_timer(1)
        *_, version = alice.datagrams_to_send()
    assert Packet.parse(Reader(version.data)).notify(MessageType.COOKIE).data == (b'one', b'other')[true]
    bob.receive_datagram(version.data, ALICE, true)
    talk(bob, alice)
    agree(alice, bob)


@pytest.mark.parametrize('data', [b'', bytes(65), b'\x00\x13', b'\x00\x0e', b'\x0e'])
def test_detours_that_lead_nowhere_are_not_taken(data: bytes) -> None:
    kind = MessageType.COOKIE if len(data) in (0, 65) else MessageType.INVALID_KE_PAYLOAD
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    alice.receive_datagram(forged(alice, Notify(kind, data)), BOB, 0)
    assert alice.datagrams_to_send() == [] and alice.state == State.INITIAL
    talk(bob, alice)  # the true answer, after the forgery
    agree(alice, bob)


def test_what_came_back_is_told_at_the_end() -> None:
    alice, _ = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    refusal = Notify(MessageType.NO_PROPOSAL_CHOSEN)
    for _ in range(1000): alice.receive_datagram(forged(alice, refusal), BOB, 0)
    while (at := alice.next_timer()) is not None: alice.handle_timer(at)
    error = found(alice, Closed)[0].error
    assert isinstance(error, NoProposalChosen)
    assert ('sent 5 times in 30 s; unauthenticated answers: the peer answers NO_PROPOSAL_CHOSEN'
            in str(error))
    silent, _ = two_ends(RESPONDERS)
    silent.start(ike_sa_init, now=0)
    while (at := silent.next_timer()) is not None: silent.handle_timer(at)
    assert type(found(silent, Closed)[0].error) is NoAnswer


@pytest.mark.parametrize('lost', range(1, 5))
def test_each_message_may_be_lost_twice(lost: int) -> None:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    counts, now = {}, 0.0
    for _ in range(40):
        moved = False
        for one, other, base in (alice, bob, 1), (bob, alice, 2):
            for d in [d for member in family(one) for d in member.datagrams_to_send()]:
                auth = d.data[18] == ExchangeType.IKE_AUTH
                number = base + (2 if auth else 0)
                counts[number] = counts.get(number, 0) + 1
                if number == lost and counts[number] <= 2: continue
                family(other)[-1 if auth else 0].receive_datagram(
                    d.data, d.source, now, d.destination)
                moved = True
        waiting = [m for m in family(alice) if m.next_timer() is not None]
        if not moved and waiting:
            now = min(m.next_timer() for m in waiting)
            for member in waiting: member.handle_timer(now)
    agree(alice, bob)
    assert counts[lost] >= 3 and len(found(bob, Established)) == 1


def test_unknown_status_notifies_and_payloads_change_nothing() -> None:
    def chatty(ike, request):  # noqa: ANN001, ANN202
        response = ike_sa.respond_ike_auth(ike, request)
        extra = (Notify(MessageType(16430)), Notify(MessageType(40000), b'\xff' * 99),
                 Opaque(Type(200), b'future'), Opaque(Type.Vendor, b'\xfe\xff'))
        # in another order, too
        return Packet(response.exchange_type, (*extra, *reversed(response.payloads)))
    agree(*shake(*two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: chatty})))


def test_an_unknown_error_in_the_response_means_failure() -> None:
    def refuses(ike, request):  # noqa: ANN001, ANN202
        return Packet(ExchangeType.IKE_AUTH, (Notify(MessageType(1234)),))
    alice, _ = shake(*two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: refuses}))
    assert '1234' in str(found(alice, Closed)[0].error)


def test_payload_order_of_the_requests_is_the_rfcs() -> None:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    first = Packet.parse(Reader(deliver(alice, bob)[0]))
    assert [p.kind for p in first.payloads] == [
        Type.SA, Type.KE, Type.Nonce, *[Type.Notify] * 4]
    deliver(bob, alice)
    second = bob.incoming.open(deliver(alice, bob)[0])
    assert [p.kind for p in second.payloads] == [
        Type.IDi, Type.IDr, Type.AUTH, Type.SA, Type.TSi, Type.TSr]


def test_goodbye_from_either_side() -> None:
    for leaver in 0, 1:
        ends = shake(*two_ends(RESPONDERS))
        one, other = ends[leaver], ends[1 - leaver]
        one.start(delete_ike_sa, now=1)
        talk(one, other, now=1)
        assert one.state == other.state == State.CLOSED and found(other, Closed)[0].error is None
    assert not found(one, ChildEstablished)[1:]


def test_the_initiator_has_asked_for_the_first_child_sa() -> None:
    alice, bob = shake(*two_ends(RESPONDERS))
    assert [e.ours for end in (alice, bob) for e in found(end, ChildEstablished)] == [True, False]


# What a review broke, and what mends it

@pytest.mark.parametrize('hashes, name', [
    ([HashAlgorithm.SHA2_512], 'RSA with SHA2-512'), ([HashAlgorithm.SHA2_384], 'RSA with SHA2-384'),
    ([5, HashAlgorithm.SHA2_512, HashAlgorithm.SHA2_256], 'RSA with SHA2-256')])
def test_we_sign_with_a_hash_that_the_peer_accepts(
        monkeypatch: pytest.MonkeyPatch, hashes: list, name: str) -> None:
    data = b''.join(int(h).to_bytes(2, 'big') for h in hashes)
    monkeypatch.setattr(
        ike_sa, 'hash_algorithms', lambda: Notify(MessageType.SIGNATURE_HASH_ALGORITHMS, data))
    alice, bob = shake(*two_ends(RESPONDERS, *configs(keys=RSA_KEYS, allow_sha1=True)))
    assert name in alice.agreed.proof and name in bob.agreed.proof


def test_no_sha1_for_a_peer_that_has_announced_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    only_sha1 = Notify(MessageType.SIGNATURE_HASH_ALGORITHMS, b'\x00\x01')
    monkeypatch.setattr(ike_sa, 'hash_algorithms', lambda: only_sha1)
    alice, _ = give_up(*shake(*two_ends(RESPONDERS, *configs(keys=RSA_KEYS, allow_sha1=True))))
    assert isinstance(found(alice, Closed)[0].error, AuthenticationFailed)


def test_a_forged_answer_without_hashes_does_not_end_the_attempt() -> None:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    true, = bob.datagrams_to_send()
    packet = Packet.parse(Reader(true.data))
    fake = Packet(packet.exchange_type, packet.payloads[:3])
    alice.receive_datagram(fake.encode(alice.spi_i, b'forgery!', response=True, initiator=False,
                                       message_id=0), BOB, 0)
    assert not alice.lineage.new_sas and 'SHA2' in str(alice.unauthenticated[0])
    alice.receive_datagram(true.data, BOB, 0)
    talk(alice, bob)
    agree(alice, bob)


def test_a_refused_proof_closes_the_sa_of_the_refused() -> None:
    "The initiator's own INFORMATIONAL with AUTHENTICATION_FAILED (RFC 7296 §2.21.2)."
    alice, bob = shake(*two_ends(RESPONDERS))

    def reject(ike):  # noqa: ANN001, ANN202
        refusal = Notify(MessageType.AUTHENTICATION_FAILED)
        yield Packet(ExchangeType.INFORMATIONAL, (refusal,))
    alice.start(reject, now=1)
    talk(alice, bob, now=1)
    assert bob.state == State.CLOSED
    assert isinstance(found(bob, Closed)[0].error, AuthenticationFailed)


def answer(host: Host, data: bytes, now: float) -> bytes:
    host.receive_datagram(data, ALICE, now, BOB)
    return host.datagrams_to_send()[0].data


def test_a_lost_refusal_is_repeated() -> None:
    left, right = configs()
    bob = Host((right,))
    stranger = replace(left, credential=Signer(generate_private_key(65537, 2048)))
    alice = IKE(stranger, ALICE, BOB, initiator=True, responders=RESPONDERS)
    alice.start(ike_sa_init, now=0)
    first, = alice.datagrams_to_send()
    alice.receive_datagram(answer(bob, first.data, 0), BOB, 0)
    alice, = alice.lineage.new_sas
    second, = alice.datagrams_to_send()
    refusals = [answer(bob, second.data, now) for now in (0, 9)]
    assert refusals[0] == refusals[1]
    alice.receive_datagram(refusals[1], BOB, 9)
    assert isinstance(found(alice, Closed)[0].error, AuthenticationFailed)
    complaint = Packet.parse(Reader(answer(bob, second.data, 60)))
    assert complaint.notify(MessageType.INVALID_IKE_SPI) and not bob.sas


def test_a_wide_answer_is_cut_to_what_we_take() -> None:
    left, right = configs()
    policy = tuple(map(TrafficSelector.from_text, ('10.2.0.0/24', '10.3.0.0/24')))
    ports = tuple(TrafficSelector.from_text(f'10.0.0.0/8[tcp/{n}]') for n in range(1, 201))
    alice, bob = shake(*two_ends(RESPONDERS, replace(left, remote_ts=ports),
                                 replace(right, local_ts=policy)))
    agree(alice, bob)
    assert len(bob.child.local_ts) == MAX_SELECTORS == 32


@pytest.mark.parametrize('spi', ['00000000', '000000ff'])
def test_reserved_esp_spis_are_refused(spi: str) -> None:
    def answer(ike, request):  # noqa: ANN001, ANN202
        response = ike_sa.respond_ike_auth(ike, request)
        sa = SA((replace(response.one(SA).proposals[0], spi=bytes.fromhex(spi)),))
        return Packet(response.exchange_type,
                      tuple(sa if type(p) is SA else p for p in response.payloads))
    alice, _ = shake(*two_ends({**RESPONDERS, ExchangeType.IKE_AUTH: answer}))
    assert alice.child is None and 'reserved SPI' in str(found(alice, ChildFailed)[0].error)


def test_an_esp_offer_may_spell_out_that_it_has_no_group() -> None:
    left, right = configs()
    none = Transform(TransformType.DH, Group.NONE)
    offer = tuple(replace(p, transforms=(*p.transforms, none)) for p in left.esp)
    agree(*shake(*two_ends(RESPONDERS, replace(left, esp=offer), right)))


def test_a_tunnel_where_the_peer_would_have_liked_transport() -> None:
    left, right = configs()
    alice, bob = shake(*two_ends(RESPONDERS, replace(left, mode='transport'), right))
    assert bob.child is None  # Bob made a tunnel; Alice did not want it, and had it deleted
    assert Fact.MODE in found(alice, ChildFailed)[0].error.facts
    assert found(bob, ChildEstablished)


def test_a_request_from_elsewhere_is_answered_there_and_moves_nothing() -> None:
    alice, bob = shake(*two_ends(RESPONDERS))
    elsewhere = Endpoint('203.0.113.66', 500)
    alice.start(liveness, now=1)
    asked, = alice.datagrams_to_send()
    bob.receive_datagram(asked.data, elsewhere, 1, BOB)
    answer, = bob.datagrams_to_send()
    assert answer.destination == elsewhere and bob.remote == ALICE


def test_a_recorded_request_is_not_executed_again() -> None:
    "Sealed with the right keys, but its message ID is past (RFC 7296 §2.2)."
    alice, bob = shake(*two_ends(RESPONDERS))
    recorded = []
    for now in 1, 2:
        alice.start(liveness, now=now)
        recorded += deliver(alice, bob, now)
        deliver(bob, alice, now)
    events(bob)
    bob.receive_datagram(recorded[0], ALICE, 3)
    assert bob.datagrams_to_send() == [] and 'request 2, but 4 is next' in events(bob)[0].reason
