"""A postquantum preshared key between two ends of ours, in IKE_AUTH (RFC 8784) and in IKE_INTERMEDIATE
(RFC 9867): each row of their tables 1, what is mixed and what is not; that a rekeying does not mix it in
again, but may mix in another. And both first messages in both signatures."""
from dataclasses import replace
from hashlib import sha256, sha384
from hmac import HMAC

import pytest
from canonical import configs, two_ends
from ike_lit.cli.diagnosis import why
from ike_lit.engine import additional, ike_sa
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.model import Closed
from ike_lit.engine.state import State
from ike_lit.testing.network import deliver, events, family, handshake, talk
from ike_lit.wire.auth import AUTH, IDi, Identity
from ike_lit.wire.const import AuthenticationFailed, AuthenticationType, ExchangeType, MessageType, Prf
from ike_lit.wire.keys import Keys, prf
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Notify, Packet, parse
from ike_lit.wire.ppk import LOGGED, Ppk, known_ppk, ppk_for

WINTER = Ppk(b'winter', b'x' * 32)
MAY, OTHER = replace(WINTER, mandatory=False), Ppk(b'summer', b'y' * 32)
WRONG = replace(WINTER, secret=b'z' * 32)
MAY_OTHER, MAY_WRONG = (replace(ppk, mandatory=False) for ppk in (OTHER, WRONG))
HYBRID = {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768', 'esp': 'aes256gcm16-x25519-ke1_mlkem768'}
LATE, EARLY = MessageType.USE_PPK, MessageType.USE_PPK_INT
suites = pytest.mark.parametrize('suite', [{}, HYBRID], ids=['one key exchange', 'two'])


@pytest.fixture(params=[LATE, EARLY], ids=['IKE_AUTH', 'IKE_INTERMEDIATE'])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MessageType:
    "Let the initiator know only one way to use a PPK."
    only(monkeypatch, request.param)
    return request.param


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None: only(monkeypatch, LATE)


def only(monkeypatch: pytest.MonkeyPatch, way: MessageType) -> None:
    monkeypatch.setattr(ike_sa, 'use_ppk', lambda ppk: (Notify(way),) if ppk else ())


def met(ours: Ppk | None, theirs: Ppk | None, suite: dict) -> tuple:
    left, right = configs(**suite)
    return handshake(*two_ends(RESPONDERS, replace(left, ppk=ours), replace(right, ppk=theirs)))


def answered(ike: object) -> list[str]:
    "In which exchanges does a PPK_IDENTITY answer?"
    return [e.packet.exchange_type.name for e in events(ike)
            if getattr(e, 'packet', None) and e.response and e.packet.notify(MessageType.PPK_IDENTITY)]


@suites
@pytest.mark.parametrize('ours, theirs, used', [
    (WINTER, WINTER, True), (MAY, WINTER, True), (WINTER, MAY, True), (MAY, MAY, True),
    (MAY, None, False), (None, MAY, False), (None, None, False),
    (MAY, replace(OTHER, mandatory=False), False)])
def test_who_gets_together(
        way: MessageType, suite: dict, ours: Ppk | None, theirs: Ppk | None, used: bool) -> None:
    alice, bob = met(ours, theirs, suite)
    assert alice.state == bob.state == State.ESTABLISHED and alice.keys == bob.keys
    assert answered(bob) == ['IKE_AUTH' if way == LATE else 'IKE_INTERMEDIATE'] * used
    assert [end.agreed.proof.endswith(', and a PPK') for end in (alice, bob)] == [used] * 2
    if theirs is None:  # and there is nothing to say about it
        said = [p.message_type for e in events(alice) if getattr(e, 'packet', None) and e.sent
                and e.packet.exchange_type != ExchangeType.IKE_SA_INIT for p in e.packet.all(Notify)]
        assert not [kind for kind in said if 'PPK' in str(kind)]
    assert alice.child.outbound == bob.child.inbound


@suites
@pytest.mark.parametrize('ours, theirs, why', [
    (WINTER, None, 'has no PPK for us'), (None, WINTER, 'ours is mandatory'), (MAY, OTHER, 'no such'),
    (WINTER, replace(OTHER, mandatory=False), 'no such'),
    (WINTER, WRONG, 'is wrong'), (MAY, WRONG, 'is wrong')])
def test_who_does_not(late: None, suite: dict, ours: Ppk | None, theirs: Ppk | None, why: str) -> None:
    alice, bob = met(ours, theirs, suite)
    told = [str(e.error) for e in (*events(alice), *events(bob)) if isinstance(e, Closed)]
    assert any(why in text for text in (*told, *map(str, alice.unauthenticated)))
    assert not (alice.children or bob.children) and State.ESTABLISHED not in (alice.state, bob.state)


def test_an_initiator_that_must_use_it_wants_to_know_that_it_was_used(late: None) -> None:
    "§3: 'it MUST either fail the IKE SA negotiation ... (if the PPK was configured as mandatory)'."
    left, right = configs()
    right = replace(right, ppk=replace(OTHER, mandatory=False))
    alice, bob = two_ends(RESPONDERS, replace(left, ppk=MAY), right)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    alice, = alice.lineage.new_sas
    deliver(alice, bob)
    alice.config = replace(alice.config, ppk=WINTER)
    talk(bob, alice)
    assert alice.state == State.CLOSED and 'has not used the PPK' in str(events(alice)[-1].error)


@suites
def test_what_seals_messages_stays_and_a_rekeying_does_not_mix_it_in_again(
        late: None, monkeypatch: pytest.MonkeyPatch, suite: dict) -> None:
    "§3: 'the PPK is used in SK_d, SK_pi, and SK_pr calculations only during the initial IKE SA setup.'"
    mixed, real = [], Ppk.mixed

    def noted(self: Ppk, kind: Prf, keys: Keys) -> Keys:
        mixed.append((keys, made := real(self, kind, keys)))
        return made
    monkeypatch.setattr(Ppk, 'mixed', noted)
    alice, bob = met(WINTER, WINTER, suite)
    assert len(mixed) == 2
    for before, after in mixed:
        same = {name for name, key in vars(before).items() if key == getattr(after, name)}
        assert same == {'sk_ai', 'sk_ar', 'sk_ei', 'sk_er'}
        kind = Prf.PRF_HMAC_SHA2_384 if suite else Prf.PRF_HMAC_SHA2_256
        assert after.sk_d == prf(kind, WINTER.secret, before.sk_d + b'\1') == alice.keys.sk_d
    alice.start(rekey_child, alice.child.inbound.spi, now=1)
    talk(alice, bob, now=1)
    bob.start(rekey_ike_sa, now=2)
    talk(bob, alice, now=2)
    assert len(mixed) == 2 and family(alice)[-1].keys == family(bob)[-1].keys != alice.keys


def test_a_request_must_say_which_ppk_it_means() -> None:
    "§3: the responder has been told USE_PPK."
    request = Packet(ExchangeType.IKE_AUTH, (AUTH(AuthenticationType.SHARED_KEY, bytes(32)),))
    with pytest.raises(AuthenticationFailed, match='does not say which'): ppk_for(MAY, True, request)
    assert ppk_for(MAY, False, request) == (None, request)


@pytest.mark.parametrize('theirs, late, number', [
    (WINTER, True, 1), (WINTER, False, 1), (MAY_WRONG, False, 2)])
def test_sealing_goes_on_with_the_same_counter(
        monkeypatch: pytest.MonkeyPatch, theirs: Ppk, late: bool, number: int) -> None:
    "A new one with the same key would seal two messages with the same nonce."
    if late: only(monkeypatch, LATE)
    alice, bob = met(MAY, theirs, {})
    sealed = [end.outgoing.cipher.new_iv(bytes) for end in (alice, bob)]
    assert [int.from_bytes(iv, 'big') for iv in sealed] == [number] * 2


# RFC 9867, in IKE_INTERMEDIATE

def test_who_knows_both_ways_takes_the_early_one() -> None:
    "§3.1: 'it MUST return either a USE_PPK_INT or a USE_PPK notification in the response but not both.'"
    alice, bob = met(WINTER, WINTER, {})
    said = [[n.name for n in (LATE, EARLY) if parse(m).notify(n)] for m in alice.first_messages]
    assert said == [['USE_PPK', 'USE_PPK_INT'], ['USE_PPK_INT']]
    assert answered(bob) == ['IKE_INTERMEDIATE'] and alice.state == State.ESTABLISHED
    sealed = [e.packet for e in events(bob) if getattr(e, 'packet', None)
              and e.packet.exchange_type == ExchangeType.IKE_AUTH]
    assert not any(p.notify(m) for p in sealed for m in (MessageType.PPK_IDENTITY, MessageType.NO_PPK_AUTH))


def test_data_in_the_notification_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    "§3.1: 'Implementations MUST ignore any data in the notification that they do not understand.'"
    monkeypatch.setattr(ike_sa, 'use_ppk', lambda ppk: (Notify(EARLY, b'of next year'),))
    alice, bob = met(WINTER, WINTER, {})
    assert alice.state == State.ESTABLISHED and alice.agreed.mixed == bob.agreed.mixed == WINTER


def test_it_comes_in_the_last_exchange() -> None:
    three = {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp256'}
    alice, bob = met(WINTER, WINTER, three)
    named = [bool(e.packet.notify(MessageType.PPK_IDENTITY_KEY)) for e in events(bob)
             if getattr(e, 'packet', None) and not e.sent
             and e.packet.exchange_type == ExchangeType.IKE_INTERMEDIATE]
    assert named == [False, True] and alice.keys == bob.keys and alice.state == State.ESTABLISHED


@suites
@pytest.mark.parametrize('ours, theirs, why', [
    (WINTER, None, 'has no PPK for us'), (None, WINTER, 'ours is mandatory'),
    (WINTER, MAY_OTHER, 'does not have our PPK'), (MAY, OTHER, 'the peer has no PPK that we have'),
    (WINTER, WRONG, 'the peer has no PPK that we have'), (WINTER, MAY_WRONG, 'does not have our PPK')])
def test_who_does_not_early(suite: dict, ours: Ppk | None, theirs: Ppk | None, why: str) -> None:
    alice, bob = met(ours, theirs, suite)
    told = [str(e.error) for e in (*events(alice), *events(bob)) if isinstance(e, Closed)]
    assert any(why in text for text in (*told, *map(str, alice.unauthenticated)))
    assert not (alice.children or bob.children) and State.ESTABLISHED not in (alice.state, bob.state)


@suites
def test_another_secret_is_found_out_by_its_confirmation(suite: dict) -> None:
    alice, bob = met(MAY, MAY_WRONG, suite)
    assert alice.state == bob.state == State.ESTABLISHED and answered(bob) == []
    assert alice.agreed.mixed is None and alice.keys == bob.keys


@suites
def test_all_keys_are_new(suite: dict) -> None:
    "§3.1.1: 'SKEYSEED\' = prf+ (PPK, SK_d)', and all seven keys anew, after everything else."
    logged: list[tuple] = []
    left, right = configs(**suite)
    left = replace(left, ppk=WINTER, keylog=lambda *row: logged.append(row))
    alice, bob = handshake(*two_ends(RESPONDERS, left, replace(right, ppk=WINTER)))
    digest = sha384 if suite else sha256
    ni, nr = alice.nonces
    expected = {n: secret for _, secret, n in logged if n < 2}
    seed = HMAC(ni + nr, expected[0], digest).digest()
    for step in range(2 if suite else 1):
        keys = stream(digest, seed, ni + nr + alice.spi_i + alice.spi_r, 512)
        sk_d, before = keys[:digest().digest_size], keys
        if suite and step == 0: seed = HMAC(sk_d, expected[1] + ni + nr, digest).digest()
    root = HMAC(WINTER.secret, sk_d + b'\1', digest).digest()
    assert logged[-1][1:] == (root, LOGGED) and logged[-1][0] == ni
    keys = stream(digest, root, ni + nr + alice.spi_i + alice.spi_r, 512)
    assert b''.join(vars(alice.keys).values()) == keys[:sum(map(len, vars(alice.keys).values()))] != before
    assert alice.keys == bob.keys
    confirmed = HMAC(WINTER.secret, ni + nr + alice.spi_i + alice.spi_r, digest).digest()[:8]
    named, = [n for e in events(bob) if getattr(e, 'packet', None) and not e.response
              for n in e.packet.all(Notify) if n.message_type == MessageType.PPK_IDENTITY_KEY]
    assert named.data == b'\2winter' + confirmed


def stream(digest: object, key: bytes, seed: bytes, size: int) -> bytes:
    "prf+ (RFC 7296 §2.13), by the standard library alone."
    out, block, n = b'', b'', 1
    while len(out) < size:
        block = HMAC(key, block + seed + bytes([n]), digest).digest()
        out, n = out + block, n + 1
    return out[:size]


def test_a_ppk_that_is_another_callers() -> None:
    "§3.1: the responder has this PPK, but not for this initiator; 'the responder SHOULD abort negotiation'."
    left, right = configs()
    others = replace(right, remote_id=Identity.from_text('carol.example.org'), ppk=WINTER)
    alice, bob = two_ends(RESPONDERS, replace(left, ppk=WINTER), replace(right, ppk=OTHER))
    bob.configs = (bob.config, others)
    alice, bob = handshake(alice, bob)
    assert alice.state == bob.state == State.CLOSED
    assert any('a PPK that is not meant for it' in str(e.error) for e in events(bob) if isinstance(e, Closed))


def test_a_ppk_that_was_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    "§3.1: 'the initiator MUST treat this as fatal and abort the IKE SA establishment'."
    monkeypatch.setattr(additional, 'known_ppk', lambda *asked: OTHER)
    alice, bob = met(WINTER, WINTER, {})
    assert alice.state == State.CLOSED and 'which we have not named' in str(events(alice)[-1].error)


def test_only_the_notification_for_it_names_a_ppk() -> None:
    "PPK_IDENTITY has the same name in it, and an answer with it would be taken for a confirmation."
    confirmed = prf(Prf.PRF_HMAC_SHA2_256, WINTER.secret, b'seen')[:8]
    data = WINTER.identity + confirmed
    for kind, found in (MessageType.PPK_IDENTITY_KEY, WINTER), (MessageType.PPK_IDENTITY, None):
        request = Packet(ExchangeType.IKE_INTERMEDIATE, (Notify(kind, data),))
        assert known_ppk(Prf.PRF_HMAC_SHA2_256, [OTHER, WINTER], b'seen', request) == found


def test_of_several_callers_ppks_the_right_one_is_found() -> None:
    left, right = configs()
    others = replace(right, remote_id=Identity.from_text('carol.example.org'), ppk=OTHER)
    alice, bob = two_ends(RESPONDERS, replace(left, ppk=WINTER), replace(right, ppk=WINTER))
    bob.configs = (others, bob.config)
    alice, bob = handshake(alice, bob)
    assert alice.state == bob.state == State.ESTABLISHED and bob.agreed.mixed == WINTER


# RFC 9867, in CREATE_CHILD_SA

@suites
@pytest.mark.parametrize('theirs, used', [
    ([OTHER], True), ([MAY, OTHER], True), ([WINTER], False), ([], False),
    ([replace(OTHER, secret=b'z' * 32)], False)])
@pytest.mark.parametrize('asks', ['alice', 'bob'])
def test_a_fresh_one(suite: dict, theirs: list[Ppk], used: bool, asks: str) -> None:
    "§3.2: Child SAs and the IKE SA are rekeyed; who does not have it creates the SA without it."
    logs: dict[str, list] = {'alice': [], 'bob': []}
    left, right = (replace(c, keylog=lambda *row, who=who: logs[who].append(row))
                   for c, who in zip(configs(**suite), logs, strict=True))
    has = {asks: [OTHER], 'bob' if asks == 'alice' else 'alice': theirs}
    alice, bob = handshake(*two_ends(RESPONDERS, replace(left, fresh_ppks=lambda: has['alice']),
                                     replace(right, fresh_ppks=lambda: has['bob'])))
    for log in logs.values(): log.clear()
    one, other = (alice, bob) if asks == 'alice' else (bob, alice)
    sk_d, kind = one.keys.sk_d, Prf.PRF_HMAC_SHA2_384 if suite else Prf.PRF_HMAC_SHA2_256
    one.start(rekey_child, one.child.inbound.spi, now=1)
    talk(one, other, now=1)
    one.start(rekey_ike_sa, now=2)
    talk(one, other, now=2)
    ones, others = family(one)[-1], family(other)[-1]
    assert ones.keys == others.keys and ones.child.outbound == others.child.inbound
    root = prf(kind, OTHER.secret, sk_d + b'\1')
    for log in logs.values(): assert [row[1] for row in log if row[2] == LOGGED] == [root] * 2 * used
    assert sorted(logs['alice']) == sorted(logs['bob'])


def test_a_fresh_one_is_in_the_keys() -> None:
    "Not only in the log: KEYMAT is prf+ of the mixed SK_d (§3.2.1)."
    left, right = configs()
    alice, bob = handshake(*two_ends(RESPONDERS, replace(left, fresh_ppks=lambda: [OTHER]),
                                     replace(right, fresh_ppks=lambda: [OTHER])))
    before = alice.child
    alice.start(rekey_child, before.inbound.spi, now=1)
    talk(alice, bob, now=1)
    packets = [e.packet for e in events(alice) if getattr(e, 'packet', None)]
    ni, nr = (p.one(Nonce).data for p in packets if p.exchange_type == ExchangeType.CREATE_CHILD_SA)
    root = HMAC(OTHER.secret, alice.keys.sk_d + b'\1', sha256).digest()
    keymat = stream(sha256, root, ni + nr, 200)
    size = len(alice.child.outbound.encr_key)
    assert alice.child is not before and alice.child.outbound.encr_key == keymat[:size]


# Both first messages in both signatures

@pytest.mark.parametrize('ours, theirs', [(True, True), (True, False), (False, True), (False, False)])
def test_both_messages_are_signed_if_both_have_said_so(ours: bool, theirs: bool) -> None:
    "draft-ietf-ipsecme-ikev2-downgrade-prevention: by who has sent the notification and received it."
    left, right = configs(transcript=ours)[0], configs(transcript=theirs)[1]
    alice, bob = handshake(*two_ends(RESPONDERS, left, right))
    assert alice.state == bob.state == State.ESTABLISHED
    assert alice.agreed.transcript == bob.agreed.transcript == (ours and theirs)
    kind = MessageType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH
    assert [int(kind), *(bool(parse(m).notify(kind)) for m in alice.first_messages)] == [16447, ours, theirs]


@pytest.mark.parametrize('both', [True, False])
def test_the_octets_that_are_signed(both: bool) -> None:
    "§4 of the draft: 'ZeroPrefix | RealMessage2 | RealMessage1 | NonceRData | MACedIDForI'; or RFC 7296's."
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(transcript=both)))
    sent = [e.packet for e in events(alice) if getattr(e, 'packet', None)
            and e.packet.exchange_type == ExchangeType.IKE_AUTH]
    one, two = alice.first_messages
    ni, nr = alice.nonces
    for packet, own, other, nonce, sk_p, key in (
            (sent[0], one, two, nr, alice.keys.sk_pi, bob.config.trust),
            (sent[1], two, one, ni, alice.keys.sk_pr, alice.config.trust)):
        name = next(bytes(p) for p in packet.payloads if isinstance(p, IDi))
        octets = (bytes(8) + other + own if both else own) + nonce + HMAC(sk_p, name, sha256).digest()
        data = packet.one(AUTH).data
        key.verify(data[1 + data[0]:], octets)  # raises if it is another


@pytest.mark.parametrize('which', [0, 1])
def test_a_message_that_was_changed_on_the_way_is_noticed_by_both(which: int) -> None:
    left, right = configs(transcript=True)
    attempt, bob = two_ends(RESPONDERS, left, right)
    attempt.start(ike_sa_init, now=0)

    def flipped(data: bytes) -> bytes:  # an octet of what nobody looks at: a reserved bit of the header
        return data[:19] + bytes([data[19] ^ 1]) + data[20:]
    for n, (one, other) in enumerate(((attempt, bob), (bob, attempt))):
        for d in one.datagrams_to_send():
            other.receive_datagram(flipped(d.data) if n == which else d.data, d.source, 0, d.destination)
    talk(attempt, bob)
    alice, = attempt.lineage.new_sas
    assert alice.state == bob.state == State.CLOSED


@pytest.mark.parametrize('ours, theirs', [(WINTER, None), (None, WINTER), (WINTER, OTHER), (WINTER, WRONG)])
def test_what_to_compare_is_said(way: MessageType, ours: Ppk | None, theirs: Ppk | None) -> None:
    "Whoever notices names the options, and not the keys that prove who is who."
    alice, bob = met(ours, theirs, {})
    told = [' '.join(why(ike, e.error)) for ike in (alice, bob) for e in events(ike) if isinstance(e, Closed)]
    told += [' '.join(why(alice, error)) for error in alice.unauthenticated]
    if way == LATE and WRONG in (ours, theirs): return  # it looks like any wrong proof
    assert any(text.startswith('Compare --ppk-file and --ppk-id with what the peer has') for text in told)
