"""A postquantum preshared key between two ends of ours (RFC 8784): each row of its table 1, what is mixed and
what is not, and that a rekeying does not mix it in again. And both first messages in both signatures."""
from dataclasses import replace

import pytest
from canonical import configs, two_ends
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.model import Closed
from ike_lit.engine.state import State
from ike_lit.testing.network import deliver, events, family, handshake, talk
from ike_lit.wire.const import ExchangeType, MessageType, Prf
from ike_lit.wire.keys import Keys, prf
from ike_lit.wire.payload import parse
from ike_lit.wire.ppk import Ppk

WINTER = Ppk(b'winter', b'x' * 32)
MAY, OTHER = replace(WINTER, mandatory=False), Ppk(b'summer', b'y' * 32)
WRONG = replace(WINTER, secret=b'z' * 32)
HYBRID = {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768', 'esp': 'aes256gcm16-x25519-ke1_mlkem768'}
suites = pytest.mark.parametrize('suite', [{}, HYBRID], ids=['one key exchange', 'two'])


def met(ours: Ppk | None, theirs: Ppk | None, suite: dict) -> tuple:
    left, right = configs(**suite)
    return handshake(*two_ends(RESPONDERS, replace(left, ppk=ours), replace(right, ppk=theirs)))


def without(ike: object) -> bool:
    "Has no IKE_AUTH message of an end a PPK_IDENTITY that answers?"
    answers = [e.packet for e in events(ike) if getattr(e, 'packet', None) and e.response
               and e.packet.exchange_type == ExchangeType.IKE_AUTH]
    return not any(p.notify(MessageType.PPK_IDENTITY) for p in answers)


@suites
@pytest.mark.parametrize('ours, theirs, used', [
    (WINTER, WINTER, True), (MAY, WINTER, True), (WINTER, MAY, True), (MAY, MAY, True),
    (MAY, None, False), (None, MAY, False), (None, None, False),
    (MAY, replace(OTHER, mandatory=False), False)])
def test_who_gets_together(suite: dict, ours: Ppk | None, theirs: Ppk | None, used: bool) -> None:
    alice, bob = met(ours, theirs, suite)
    assert alice.state == bob.state == State.ESTABLISHED and alice.keys == bob.keys
    assert without(bob) == (not used)
    assert alice.child.outbound == bob.child.inbound


@suites
@pytest.mark.parametrize('ours, theirs, why', [
    (WINTER, None, 'has no PPK for us'), (None, WINTER, 'ours is mandatory'), (MAY, OTHER, 'no such'),
    (WINTER, replace(OTHER, mandatory=False), 'no such'),
    (WINTER, WRONG, 'is wrong'), (MAY, WRONG, 'is wrong')])
def test_who_does_not(suite: dict, ours: Ppk | None, theirs: Ppk | None, why: str) -> None:
    alice, bob = met(ours, theirs, suite)
    told = [str(e.error) for e in (*events(alice), *events(bob)) if isinstance(e, Closed)]
    assert any(why in text for text in (*told, *map(str, alice.unauthenticated)))
    assert not (alice.children or bob.children) and State.ESTABLISHED not in (alice.state, bob.state)


def test_an_initiator_that_must_use_it_wants_to_know_that_it_was_used() -> None:
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
        monkeypatch: pytest.MonkeyPatch, suite: dict) -> None:
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


def test_sealing_goes_on_with_the_same_counter() -> None:
    "A new one with the same key would seal two messages with the same nonce."
    alice, bob = met(WINTER, WINTER, {})
    sealed = [end.outgoing.cipher.new_iv(bytes) for end in (alice, bob)]
    assert [int.from_bytes(iv, 'big') for iv in sealed] == [1, 1]


@pytest.mark.parametrize('ours, theirs', [(True, True), (True, False), (False, True), (False, False)])
def test_both_messages_are_signed_if_both_have_said_so(ours: bool, theirs: bool) -> None:
    "draft-ietf-ipsecme-ikev2-downgrade-prevention: by who has sent the notification and received it."
    left, right = configs(transcript=ours)[0], configs(transcript=theirs)[1]
    alice, bob = handshake(*two_ends(RESPONDERS, left, right))
    assert alice.state == bob.state == State.ESTABLISHED
    assert alice.agreed.transcript == bob.agreed.transcript == (ours and theirs)
    kind = MessageType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH
    assert [int(kind), *(bool(parse(m).notify(kind)) for m in alice.first_messages)] == [16447, ours, theirs]


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
