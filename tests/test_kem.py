"""A key exchange whose two sides differ, as those of a KEM do: a key goes out, a ciphertext of another
size comes back, and the responder has nothing to say before it has the key.

It stands in for a group of the table; no exchange of ours knows the difference. At the end, ML-KEM.
"""
import hashlib
import json
from pathlib import Path

import pytest
from canonical import configs, two_ends
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.state import State
from ike_lit.testing.network import events, family, handshake, talk
from ike_lit.wire.const import ExchangeType, Fact, Group, InvalidSyntax
from ike_lit.wire.ke import GROUPS, KE, KeyExchange, answer_ke
from ike_lit.wire.ke import Kem as KemMethod
from ike_lit.wire.nonce import Random

SUITE, ESP = 'aes128gcm16-prfsha256-x25519', 'aes128gcm16-x25519'


class Kem:
    "Encapsulation by X25519: an ephemeral key is the ciphertext, and a tag that says whose."
    size, answer_size = 32, 48

    def secret(self, random: Random) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(random(32))

    def public(self, secret: X25519PrivateKey) -> bytes: return secret.public_key().public_bytes_raw()

    def answer(self, public: bytes, random: Random) -> tuple[bytes, bytes]:
        if not any(public): raise ValueError('no key')
        ephemeral = self.secret(random)
        ciphertext = self.public(ephemeral) + public[:16]
        return ciphertext, self.mixed(ephemeral, public, ciphertext)

    def shared(self, secret: X25519PrivateKey, public: bytes) -> bytes:
        return self.mixed(secret, public[:32], public)

    def mixed(self, secret: X25519PrivateKey, peer: bytes, ciphertext: bytes) -> bytes:
        shared = secret.exchange(X25519PublicKey.from_public_bytes(peer))
        return hashlib.sha256(shared + ciphertext).digest()


@pytest.fixture(autouse=True)
def kem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUPS, Group.CURVE_25519, Kem())


def test_both_come_to_the_same_secret() -> None:
    mine = KeyExchange(Group.CURVE_25519)
    answer, secret = answer_ke(Group.CURVE_25519, mine.public)
    assert mine.derive(answer) == secret and len(answer) == 48


@pytest.mark.parametrize(('size', 'wanted'), [(48, 32), (31, 32), (0, 32)])
def test_a_key_of_another_size_is_refused(size: int, wanted: int) -> None:
    with pytest.raises(InvalidSyntax, match=f'{size} octets, CURVE_25519 has {wanted}'):
        answer_ke(Group.CURVE_25519, bytes(size))
    with pytest.raises(InvalidSyntax, match='32 octets, CURVE_25519 has 48'):
        KeyExchange(Group.CURVE_25519).derive(bytes(32))


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidSyntax, match='the public value of CURVE_25519 is no key'):
        answer_ke(Group.CURVE_25519, bytes(32))


def test_a_handshake_and_each_kind_of_rekeying() -> None:
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(SUITE, ESP)))
    assert alice.state == bob.state == State.ESTABLISHED and alice.keys == bob.keys
    for one, other, begin in (alice, bob, rekey_child), (bob, alice, rekey_child):
        before = one.child
        one.start(begin, before.inbound.spi, now=1)
        talk(one, other, now=1)
        assert one.child.outbound == other.child.inbound and one.child != before
    said = [e.packet for e in events(bob) if getattr(e, 'packet', None)
            and e.packet.exchange_type == ExchangeType.CREATE_CHILD_SA]
    assert {(len(ke.public)) for p in said for ke in p.all(KE)} == {32, 48}
    for one, other in (alice, bob), (family(bob)[-1], family(alice)[-1]):
        one.start(rekey_ike_sa, now=2)
        talk(one, other, now=2)
    assert family(alice)[-1].keys == family(bob)[-1].keys != alice.keys


# ML-KEM itself, by NIST's answers

VECTORS = json.loads((Path(__file__).parent / 'vectors' / 'ml_kem.json').read_text())
SETS = {'ML-KEM-768': Group.ML_KEM_768, 'ML-KEM-1024': Group.ML_KEM_1024}


def key_of(v: dict) -> tuple[KemMethod, object]:
    method = GROUPS[SETS[v['set']]]
    return method, method.secret(lambda size: bytes.fromhex(v['d'] + v['z']))


@pytest.mark.parametrize('v', VECTORS['keygen'], ids=lambda v: f"{v['set']} {v['tcId']}")
def test_keys_follow_from_seeds_as_nist_says(v: dict) -> None:
    method, key = key_of(v)
    assert hashlib.sha256(method.public(key)).hexdigest() == v['ek_sha256']


@pytest.mark.parametrize('v', VECTORS['decapsulation'], ids=lambda v: f"{v['set']} {v['tcId']}")
def test_secrets_come_out_of_ciphertexts_as_nist_says(v: dict) -> None:
    "Also of those which were changed: there is no error, and another secret."
    method, key = key_of(v)
    assert method.shared(key, bytes.fromhex(v['c'])).hex() == v['k']


@pytest.mark.parametrize('v', VECTORS['encapsulation_key_check'], ids=lambda v: f"{v['set']} {v['tcId']}")
def test_encapsulation_keys_are_checked_as_nist_says(v: dict) -> None:
    if v['valid']: assert len(answer_ke(SETS[v['set']], bytes.fromhex(v['ek']))[1]) == 32
    else:
        with pytest.raises(InvalidSyntax, match='no encapsulation key'):
            answer_ke(SETS[v['set']], bytes.fromhex(v['ek']))


@pytest.mark.parametrize('group, sizes', [
    (Group.ML_KEM_768, (1184, 1088)), (Group.ML_KEM_1024, (1568, 1568))])
def test_sizes(group: Group, sizes: tuple[int, int]) -> None:
    ours = KeyExchange(group)
    ciphertext, secret = answer_ke(group, ours.public)
    assert (len(ours.public), len(ciphertext)) == sizes == (GROUPS[group].size, GROUPS[group].answer_size)
    assert ours.derive(ciphertext) == secret and len(secret) == 32
    again, other = answer_ke(group, ours.public)
    assert again != ciphertext and other != secret  # never the same randomness twice
    with pytest.raises(InvalidSyntax, match=f'{sizes[1] - 1} octets') as raised: ours.derive(ciphertext[1:])
    assert Fact.CIPHERTEXT in raised.value.facts
