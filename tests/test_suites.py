"Whole lives with every algorithm: handshake, rekeying, fragments; and nothing changed is believed."
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from canonical import RSA, configs, two_ends
from ike_lit.cli.report import as_json, report
from ike_lit.engine import create_child_sa
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.informational import liveness
from ike_lit.engine.model import Dropped, Established, Message
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, Network, deliver, events, family, handshake, talk
from ike_lit.wire import selftest
from ike_lit.wire.const import ExchangeType, InvalidSyntax, Prf, ProtocolID, TransformType, Type
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.keys import skeyseed
from ike_lit.wire.payload import Packet
from ike_lit.wire.proposal import ALGORITHMS, DEFAULT_ESP, DEFAULT_IKE, key_size, parse_proposals

AEAD, CLASSIC = 'aes256gcm16-prfsha384-x25519', 'aes256ctr-sha512-ecp256'


def words(kind: TransformType) -> list[str]:
    return [word for word, row in ALGORITHMS.items()
            if row.transform.type == kind and not row.weak and word not in ('modpnone', 'mlkem512')]


def with_integrity(cipher: str) -> str:
    return cipher if ALGORITHMS[cipher].transform.aead else f'{cipher}-sha256'


SUITES = [  # every cipher, group, PRF and checksum, in both places where it can be
    *((f'{with_integrity(c)}-prfsha256-x25519', f'{with_integrity(c)}-x25519')
      for c in words(TransformType.ENCR)),
    *((f'aes128gcm16-prfsha256-{g}', f'aes128gcm16-{g}') for g in words(TransformType.DH)),
    *((f'chacha20poly1305-{p}-x25519', 'chacha20poly1305-ecp256')
      for p in words(TransformType.PRF)),
    *((f'aes128ctr-{i}-x25519', f'camellia128-{i}-x25519') for i in words(TransformType.INTEG)),
    (DEFAULT_IKE, DEFAULT_ESP)]


def mirrored(alice: IKE, bob: IKE) -> None:
    "Both ends have the same keys, each the sizes of its algorithm, and the same Child SA."
    assert alice.state == bob.state == State.ESTABLISHED
    assert alice.keys == bob.keys and alice.suite.transforms == bob.suite.transforms
    assert alice.child.outbound == bob.child.inbound and alice.child.inbound == bob.child.outbound
    assert alice.child.local_ts == bob.child.remote_ts
    assert alice.child.remote_ts == bob.child.local_ts
    prf, integ, encr = (key_size(alice.suite.single(t)) for t in
                        (TransformType.PRF, TransformType.INTEG, TransformType.ENCR))
    sizes = [len(key) for key in vars(alice.keys).values()]
    assert sizes == [prf, integ, integ, encr, encr, prf, prf]
    for sa in alice.child.outbound, alice.child.inbound:
        assert len(sa.encr_key) == key_size(sa.encr) and len(sa.integ_key) == key_size(sa.integ)


def octets_of(alice: IKE) -> list[bytes]:
    "All keys that there are, but for those that are empty."
    keys = [*vars(alice.keys).values(), *(key for child in alice.children.values()
            for sa in (child.outbound, child.inbound) for key in (sa.encr_key, sa.integ_key))]
    return [key for key in keys if key]


@pytest.mark.parametrize('ike, esp', SUITES)
def test_a_whole_life(ike: str, esp: str) -> None:
    """Handshake; Alice rekeys the Child SA, with a group; Bob the IKE SA; all keys are fresh,
    and with the last of them both still talk."""
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(ike, esp)))
    mirrored(alice, bob)
    assert alice.suite.words == alice.config.ike[0].words
    assert alice.child.outbound.encr == alice.config.esp[0].of_type(TransformType.ENCR)[0]
    keys, old = octets_of(alice), alice.child
    alice.start(rekey_child, old.inbound.spi, now=1)
    talk(alice, bob, now=1)
    mirrored(alice, bob)
    assert alice.child.outbound.spi != old.outbound.spi and len(alice.children) == 1
    keys += octets_of(alice)[-4:]
    bob.start(rekey_ike_sa, now=2)
    talk(bob, alice, now=2)
    assert alice.state == bob.state == State.CLOSED
    new_alice, new_bob = alice.lineage.successor, bob.lineage.successor
    mirrored(new_alice, new_bob)
    assert (new_alice.initiator, new_bob.initiator) == (False, True)
    keys += [key for key in vars(new_alice.keys).values() if key]
    assert len(set(keys)) >= len(keys) - 4  # the Child SA kept its own; all else is new
    new_alice.start(liveness, now=3)
    talk(new_alice, new_bob, now=3)
    assert not new_alice.busy and new_alice.heard == new_bob.heard == 3


@pytest.mark.parametrize('before, after', [
    (AEAD, CLASSIC), (CLASSIC, AEAD), ('aes128ccm8-prfaesxcbc-x25519', 'aes128-sha512-x448'),
    ('aes128-sha256-x25519', 'chacha20poly1305-prfaescmac-ecp521')])
def test_an_ike_sa_is_replaced_by_one_of_another_suite(
        monkeypatch: pytest.MonkeyPatch, before: str, after: str) -> None:
    """RFC 7296 §2.18: "Because the rekeying exchange belongs to the old IKE SA,
    it is the old IKE SA's PRF that is used to generate SKEYSEED\""""
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(before, 'aes128gcm16')))
    for end, config in zip((alice, bob), configs(after, 'aes128gcm16'), strict=True):
        end.config = config
    kinds = []

    def noted(kind: Prf, ni: bytes, nr: bytes, secret: bytes, sk_d: bytes, more: bytes) -> bytes:
        kinds.append(kind)
        assert sk_d == alice.keys.sk_d
        return skeyseed(kind, ni, nr, secret, sk_d, more)
    monkeypatch.setattr(create_child_sa, 'skeyseed', noted)
    old = alice.suite.single(TransformType.PRF).id
    alice.start(rekey_ike_sa, now=1)
    talk(alice, bob, now=1)
    assert kinds == [old, old] and old != alice.lineage.successor.suite.single(TransformType.PRF).id
    mirrored(alice.lineage.successor, bob.lineage.successor)
    alice.lineage.successor.start(liveness, now=2)
    talk(alice.lineage.successor, bob.lineage.successor, now=2)
    assert bob.lineage.successor.heard == alice.lineage.successor.heard == 2


WITHOUT = """
import sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
Cipher(algorithms.AES(bytes(16)), modes.CBC(bytes(16))).encryptor()  # looks for the old ones too
sys.modules['cryptography.hazmat.decrepit.ciphers.algorithms'] = None
from dataclasses import replace
from canonical import configs, two_ends
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.testing.network import handshake
from ike_lit.wire.selftest import tested
try: ends = [replace(c, ike=tested(c.ike)[0], esp=tested(c.esp)[0]) for c in configs(*sys.argv[1:])]
except ValueError as error: print(error)
else:
    for end in handshake(*two_ends(RESPONDERS, *ends)): print(end.state.name, end.suite.words)
"""


@pytest.mark.parametrize('ike, esp, outcome', [
    ('aes256-sha256-x25519', 'aes256-sha256', 'ESTABLISHED aes256-sha256-prfsha256-x25519'),
    ('aes256gcm16-prfsha256-x25519', 'aes256gcm16', 'ESTABLISHED aes256gcm16-prfsha256-x25519'),
    ('camellia256-aes128-sha256-x25519', 'camellia256-aes128-sha256',
     'ESTABLISHED aes128-sha256-prfsha256-x25519'),
    ('camellia256-sha256-x25519', 'aes256-sha256', 'camellia256 is not offered'),
    ('aes256-sha256-x25519', 'camellia128-sha256', 'camellia128 is not offered')])
def test_without_the_old_ciphers_nothing_falls_over(ike: str, esp: str, outcome: str) -> None:
    "In a process where Camellia can't be imported it is not offered, and all else works."
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, '-c', WITHOUT, ike, esp], cwd=root, check=False,
                          env={**os.environ, 'PYTHONPATH': f'{root}:{root / "nbs"}'},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-300:]
    assert done.stdout.startswith(outcome)


@pytest.mark.parametrize('line, protocol, broken, kept', [
    ('aes256gcm16-x448', ProtocolID.ESP, 'x448', None),
    ('aes256gcm16-x448-x25519', ProtocolID.ESP, 'x448', ['aes256gcm16-x25519']),
    ('aes256gcm16-x448,aes256-sha256-x25519', ProtocolID.ESP, 'x448', ['aes256-sha256-x25519']),
    ('aes256gcm16-x448-modpnone', ProtocolID.ESP, 'x448', ['aes256gcm16-modpnone']),
    ('aes256-sha256', ProtocolID.ESP, 'sha256', None),
    ('aes256-sha256-sha512', ProtocolID.ESP, 'sha256', ['aes256-sha512']),
    ('chacha20poly1305,aes128ctr-sha512', ProtocolID.ESP, 'chacha20poly1305', ['aes128ctr-sha512']),
    ('aes256gcm16-prfsha256-x25519', ProtocolID.IKE, 'prfsha256', None),
    ('aes256gcm16-prfsha256-x448-x25519', ProtocolID.IKE, 'x448', ['aes256gcm16-prfsha256-x25519']),
    ('aes256gcm16-prfsha256-x448', ProtocolID.IKE, 'x448', None)])
def test_what_is_broken_is_left_out_but_no_proposal_loses_a_type(
        monkeypatch: pytest.MonkeyPatch, line: str, protocol: ProtocolID, broken: str,
        kept: list[str] | None) -> None:
    "Else a Child SA would be made without the perfect forward secrecy that was asked for."
    monkeypatch.setattr(selftest, 'complaint', lambda word: f'{word} is bad' * (word == broken))
    if kept is None:
        with pytest.raises(ValueError, match=f'{broken} is bad'):
            selftest.tested(parse_proposals(line, protocol))
        return
    proposals, complaints = selftest.tested(parse_proposals(line, protocol))
    assert [p.words for p in proposals] == kept and complaints == [f'{broken} is bad']
    assert [p.number for p in proposals] == list(range(1, len(kept) + 1))


@pytest.mark.parametrize('ike', [AEAD, CLASSIC, 'chacha20poly1305-prfaescmac-ecp256'])
def test_what_is_told_contains_no_key(ike: str) -> None:
    alice, bob = handshake(*two_ends(RESPONDERS, *configs(ike, 'aes256gcm16,aes256-sha512')))
    secrets = [key for end in (alice, bob) for key in octets_of(end)]
    for end in alice, bob:
        told = [repr(end), repr(vars(end)), repr(end.config), *map(repr, end.children.values())]
        for event in events(end):
            told += [repr(event), repr(as_json(end, event)), *report(end, event)]
        for text in told:
            for key in secrets: assert key.hex() not in text and repr(key)[2:-1] not in text


# Fragments

MANY = ','.join(f'{c}-{g}' for c in ('aes256gcm16', 'chacha20poly1305', 'aes128ccm8')
                for g in ('x25519', 'modpnone')) + ',' + ','.join(
    f'aes256-{i}' for i in ('sha256', 'sha384', 'sha512', 'aesxcbc'))


@pytest.mark.parametrize('ike', [AEAD, CLASSIC, 'chacha20poly1305-prfaesxcbc-x448',
                                 'aes128ccm8-prfsha512-x25519'])
def test_fragments_arrive_and_their_numbers_are_covered(ike: str) -> None:
    "IKE_AUTH in pieces: one with another number changes nothing; the true ones are joined."
    alice, bob = two_ends(RESPONDERS, *configs(ike, MANY, RSA, datagram=576))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    alice, = alice.lineage.new_sas
    pieces = alice.datagrams_to_send()
    assert len(pieces) > 1 and all(len(d.data) <= 548 for d in pieces)
    events(bob)
    for d in pieces:
        assert d.data[16] == Type.SKF
        for at in range(32, 36):  # Fragment Number, Total Fragments
            for mask in 1, 2, 3, 0x80:
                wrong = d.data[:at] + bytes([d.data[at] ^ mask]) + d.data[at + 1:]
                bob.receive_datagram(wrong, ALICE, 0, BOB)
                assert isinstance(events(bob)[0], Dropped)
        held = dict(bob.window.pieces[False].pieces)
        assert len(held) == pieces.index(d)
        bob.receive_datagram(d.data, ALICE, 0, BOB)
    assert bob.state == State.ESTABLISHED
    told, = [e for e in events(bob) if isinstance(e, Message) and not e.sent]
    assert told.fragments == len(pieces)
    talk(bob, alice)
    mirrored(alice, bob)


def test_every_fragment_has_a_vector_of_its_own() -> None:
    alice, bob = two_ends(RESPONDERS, *configs(AEAD, MANY, RSA, datagram=300))
    alice.start(ike_sa_init, now=0)
    sent: list[bytes] = []
    while True:
        moved = deliver(alice, bob) + deliver(bob, alice)
        if not moved: break
        sent += [data for data in moved if data[16] == Type.SKF]
    vectors = {(Header.parse(Reader(data)).initiator, data[36:44]) for data in sent}
    assert len(vectors) == len(sent) > 4
    mirrored(family(alice)[-1], bob)


# Tampering: one bit of each octet of each of the four messages

def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1:]


def begun(ike: str) -> tuple[IKE, IKE]:
    alice, bob = two_ends(RESPONDERS, *configs(ike, 'aes256gcm16'))
    alice.start(ike_sa_init, now=0)
    return alice, bob


def length_of(ike: str, nth: int) -> int:
    alice, bob = begun(ike)
    if nth == 1: return len(alice.datagrams_to_send()[0].data)
    deliver(alice, bob)
    return len(bob.datagrams_to_send()[0].data)


PARTS = 8
every_part = pytest.mark.parametrize('part', range(PARTS))
both_kinds = pytest.mark.parametrize('ike', [AEAD, CLASSIC])


@every_part
@both_kinds
def test_a_changed_first_message_establishes_nothing(ike: str, part: int) -> None:
    "The responder has what was sent signed, and it is not what it received (RFC 7296 §2.15)."
    for at in range(part, length_of(ike, 1), PARTS):
        alice, bob = begun(ike)
        first, = alice.datagrams_to_send()
        bob.receive_datagram(changed(first.data, at), ALICE, 0, BOB)
        talk(bob, alice)
        for end in (*family(alice), bob):
            assert end.state != State.ESTABLISHED and not end.children, at
            assert not [e for e in events(end) if isinstance(e, Established)]


@every_part
@both_kinds
def test_a_changed_second_message_does_not_establish_its_receiver(ike: str, part: int) -> None:
    "The responder has sent what it signs; that the initiator has another it learns, and believes."
    for at in range(part, length_of(ike, 2), PARTS):
        alice, bob = begun(ike)
        deliver(alice, bob)
        second, = bob.datagrams_to_send()
        alice.receive_datagram(changed(second.data, at), BOB, 0, ALICE)
        talk(alice, bob)
        for end in family(alice):
            assert end.state != State.ESTABLISHED and not end.children, at
            assert not [e for e in events(end) if isinstance(e, Established)]
        assert bob.state != State.ESTABLISHED and not bob.children or alice.lineage.new_sas == []


@both_kinds
def test_changed_octets_of_ike_auth_are_dropped_and_the_true_message_counts(ike: str) -> None:
    alice, bob = begun(ike)
    deliver(alice, bob)
    deliver(bob, alice)
    alice, = alice.lineage.new_sas
    for sender, receiver in (alice, bob), (bob, alice):
        true, = sender.datagrams_to_send()
        events(receiver)
        for at in range(len(true.data)):
            for wrong in changed(true.data, at), true.data[:at]:
                receiver.receive_datagram(wrong, sender.local, 0, receiver.local)
                dropped, = events(receiver)
                assert isinstance(dropped, Dropped) and receiver.state == State.CONNECTING
                assert not receiver.datagrams_to_send() and not receiver.children
        receiver.receive_datagram(true.data, sender.local, 0, receiver.local)
        assert receiver.state == State.ESTABLISHED
    mirrored(alice, bob)


def test_a_detour_to_another_group_leads_to_the_same_proposal() -> None:
    left, _ = configs('aes256gcm16-prfsha256-x25519-ecp384', 'aes256gcm16')
    _, right = configs('aes256gcm16-prfsha256-ecp384', 'aes256gcm16')
    random = Random(7296).randbytes  # noqa: S311  # the same in every run is the point
    alice, bob = Host(random=random), Host((right,), random=random)
    network = Network({ALICE: alice, BOB: bob})
    alice.connect(left, ALICE, BOB, now=0)
    network.run(until=1)
    (one,), (other,) = alice.established, bob.established
    mirrored(one, other)
    assert one.suite.words == 'aes256gcm16-prfsha256-ecp384'
    assert one.nonces == other.nonces[::-1] and len(one.nonces[0]) == 32


def test_a_public_value_that_is_none_is_answered_with_nothing_but_an_error() -> None:
    "A point of small order as KE: no keys, at either end (RFC 8031 §3.2)."
    alice, bob = begun(AEAD)
    first, = alice.datagrams_to_send()
    packet = Packet.parse(Reader(first.data))
    bad = tuple(replace(p, public=bytes(32)) if p.kind == Type.KE else p for p in packet.payloads)
    data = Packet(ExchangeType.IKE_SA_INIT, bad).encode(
        alice.spi_i, bytes(8), response=False, initiator=True, message_id=0)
    bob.receive_datagram(data, ALICE, 0, BOB)
    assert bob.keys is None and bob.state != State.ESTABLISHED
    for d in bob.datagrams_to_send():
        assert Packet.parse(Reader(d.data)).error().message_type == InvalidSyntax('').type
