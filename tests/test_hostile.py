"""Bad input: whatever arrives, the engine raises nothing, a waiting SA is not changed,
and the true answer still counts. And one test for each class of attack that has hit others:
tests/security.tsv lists them.
"""
import ast
import errno
import gc
import hashlib
import hmac
import json
import os
import random
import re
import socket
import tempfile
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from functools import cache, partial
from itertools import count, pairwise
from pathlib import Path

import pytest
from authority import ed_key, issue, key, names, rsa_key
from canonical import HERITAGE, KEYS, configs, private_key, two_ends
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat)
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.cli import driver
from ike_lit.cli.credential import load_private_key, load_public_key
from ike_lit.cli.report import as_json, report
from ike_lit.engine import ike_sa, protocol
from ike_lit.engine.child_sa import new_spi
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.host import COOKIE_THRESHOLD, FIRST_LIMIT, TRANSIENT_LIMIT, Cookies, Host
from ike_lit.engine.ike_sa import MAX_INIT_RETRIES, ike_sa_init
from ike_lit.engine.informational import liveness
from ike_lit.engine.model import (
    ChildClosed, ChildEstablished, Closed, Config, Dropped, Established, Event, Message)
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import TRANSITIONS, State
from ike_lit.kernel import entries, install
from ike_lit.kernel.dialects import (
    SETKEY, XFRM, XFRM_MARKS, InstallError, setkey_limitation, setkey_script, xfrm_script)
from ike_lit.kernel.entries import cleanup
from ike_lit.kernel.install import Installer
from ike_lit.testing.network import ALICE, BOB, deliver, events, family, handshake, talk
from ike_lit.wire import ke, payload, selftest, sk
from ike_lit.wire.auth import (
    AUTH, ENCODINGS, METHODS, RSA_SHA1, SCHEMES, IDi, IDr, Identity, SharedKey, hash_algorithms, sign, verify)
from ike_lit.wire.certificate import CERT, CERTREQ, Signer, spki
from ike_lit.wire.configuration import CP, Attribute
from ike_lit.wire.const import (
    AuthenticationFailed, AuthenticationType, CertEncoding, CfgAttribute, CfgType, Encryption, Esn,
    ExchangeType, Group, IDType, IkeError, Integrity, InvalidSyntax, MessageType, Prf, ProtocolID,
    TransformType, Type)
from ike_lit.wire.fragment import split
from ike_lit.wire.header import HEADER, Header, Reader, dissect
from ike_lit.wire.ke import GROUPS, KE, KeyExchange
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import NONCE_SIZE, Nonce, new_esp_spi
from ike_lit.wire.payload import (
    Delete, Notify, Opaque, Packet, Payload, Vendor, get_by_type, pack_chain, parse_chain)
from ike_lit.wire.proposal import (
    DEFAULT_ESP, DEFAULT_IKE, SA, Proposal, Transform, check_choice, choose, groups, parse_proposals)
from ike_lit.wire.sk import SK
from ike_lit.wire.ts import TSi, TSr, TrafficSelector, check_narrowed
from test_authentication import chain, met, pair, refused_by_alice, refused_by_bob, told
from test_certificate import MIDDLE

PACKAGE = Path(__file__).resolve().parent.parent / 'ike_lit'


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    "Every node of the package's source, with the module that it is in."
    return [(path.stem, node) for path in PACKAGE.rglob('*.py')
            for node in ast.walk(ast.parse(path.read_text()))]


# The ends in each state in which an answer is awaited: after message 1, after message 3,
# and established with a liveness check under way.


def waiting_for_init() -> tuple[IKE, bytes]:
    alice, bob = two_ends(RESPONDERS, *configs(**HERITAGE))
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    return alice, bob.datagrams_to_send()[0].data


def waiting_for_auth() -> tuple[IKE, bytes]:
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    deliver(alice, bob)
    return alice.lineage.new_sas[0], bob.datagrams_to_send()[0].data


def waiting_for_liveness() -> tuple[IKE, bytes]:
    alice, bob = two_ends(RESPONDERS)
    alice, bob = handshake(alice, bob)
    alice.start(liveness, now=0)
    deliver(alice, bob)
    return alice, bob.datagrams_to_send()[0].data


def waiting_responder() -> tuple[IKE, bytes]:
    "Bob, half open, waits for IKE_AUTH."
    alice, bob = two_ends(RESPONDERS)
    alice.start(ike_sa_init, now=0)
    deliver(alice, bob)
    deliver(bob, alice)
    return bob, alice.lineage.new_sas[0].datagrams_to_send()[0].data


WAITING = [waiting_for_init, waiting_for_auth, waiting_for_liveness, waiting_responder]
PREPARED = {make.__name__: make() for make in WAITING}


def snapshot(ike: IKE) -> dict:
    "All that an SA knows, but for its outbox and its events."
    left_out = ('outbox', 'events', 'unauthenticated', 'now', 'window', 'exchange', 'lineage', 'pending')
    state = {}
    for part in ike, ike.window, ike.exchange, ike.lineage:
        state |= {k: copy(v) if isinstance(v, list | dict | set | deque) else v
                  for k, v in vars(part).items() if k not in left_out}
    return {**state, 'pending': dict(vars(ike.window.pending)) if ike.window.pending else None,
            'pieces': [dict(direction.pieces) for direction in ike.window.pieces]}


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
    assert len(ike.datagrams_to_send()) == 0
    assert len(ike.unauthenticated) <= 16


@pytest.mark.parametrize('name', PREPARED)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_datagram(name: str, data: st.DataObject) -> None:
    ike, _ = PREPARED[name]
    header = ike.spi_i + data.draw(st.sampled_from([ike.spi_r, bytes(8)]))
    with_our_spi = st.binary(max_size=600).map(lambda tail: header + tail)
    octets = data.draw(st.one_of(st.binary(max_size=2000), with_our_spi))
    bombard(ike, octets)


@pytest.mark.parametrize('make', WAITING[1:], ids=lambda f: f.__name__)
def test_any_changed_octet_of_a_sealed_message(make: Callable) -> None:
    "S15: every octet, three changes each, every truncation: dropped; then the true one is taken."
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
    assert ike.lineage.new_sas[0].state == State.CONNECTING


def reply(ike: IKE, *payloads: Payload, spi_r: bytes = b'12345678') -> bytes:
    packet = Packet(ExchangeType.IKE_SA_INIT, payloads)
    return packet.encode(ike.spi_i, spi_r, response=True, initiator=False, message_id=0)


def test_ike_sa_init_responses_that_are_not_answers() -> None:
    "S21: each payload missing, doubled, or wrong, and what was not offered: noted, and the wait goes on."
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
        *((suite(Transform(encr.type, encr.id, bits), integ, prf, group), ke, nonce)
          for bits in (0, 128, 192, 65535)),
        (suite(encr, integ, prf, group, Transform(TransformType.ESN, Esn.NO_ESN)), ke, nonce),
        (suite(encr, integ, prf), ke, nonce), (SA((proposal, replace(proposal, number=2))), ke, nonce),
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
    assert ike.lineage.new_sas[0].state == State.CONNECTING


@pytest.mark.parametrize('exchange', list(ExchangeType) + [ExchangeType(0), ExchangeType(99)])
@pytest.mark.parametrize('response', [False, True])
@pytest.mark.parametrize('name', PREPARED)
def test_unprotected_messages_are_not_looked_at(
        name: str, response: bool, exchange: ExchangeType) -> None:
    """S14: right SPIs, right message ID, right flags, everything but the box
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
                        lambda following, _, size, reserved=0: real(following, following == 0, size))
        sealed = alice.outgoing.seal(future, alice.spi_i, alice.spi_r, response=False,
                                     initiator=True, message_id=2, random=bytes)
    bob.receive_datagram(sealed, ALICE, 1)
    answer = alice.incoming.open(bob.datagrams_to_send()[0].data)
    assert answer.notify(MessageType.UNSUPPORTED_CRITICAL_PAYLOAD).data == b'\xc8'
    assert bob.state == State.ESTABLISHED


# The responder's table

@settings(max_examples=200, deadline=None)
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
    good, bob = alice.datagrams_to_send()[0].data, Host((configs()[1],))
    rng = random.Random(7296)  # noqa: S311  # the same mutations each time, no secrets
    for n in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)): data[rng.randrange(len(data))] = rng.randrange(256)
        bob.receive_datagram(bytes(data), ALICE, n * 0.1, BOB)
        sent = bob.datagrams_to_send()
        assert len(sent) <= 1
        for d in sent: assert Header.parse(Reader(d.data)).response
        assert len(bob.sas) == len(bob.transient) == len(bob.first) <= 100


# A dissection tiles whatever it is given

@settings(max_examples=200, deadline=None)
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


# What was done to others: the classes of tests/security.tsv, by their number there.
# Those that have no test here have one elsewhere, which the table names.

SECRET = SharedKey(b'correct horse battery staple')
INIT, AUTHENTICATE = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH
CREATE, INFORM = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL
EAP_SUCCESS = Opaque(Type.EAP, bytes.fromhex('03010004'))
ELSEWHERE = Endpoint('203.0.113.66', 500)
h = bytes.fromhex


def quick(ike: str = 'aes256gcm16-prfsha256-x25519', esp: str = 'aes256gcm16',
          **changes: object) -> tuple[Config, Config]:
    "Configurations with which a handshake takes a millisecond."
    left, right = configs(ike, esp, **changes)
    return tuple(replace(c, credential=SECRET, trust=SECRET) for c in (left, right))


def shaken(**changes: object) -> tuple[IKE, IKE]:
    ends = handshake(*two_ends(RESPONDERS, *quick(**changes)))
    for end in ends: events(end)
    return ends


def to(ike: IKE, exchange: int, *payloads: Payload, message_id: int | None = None,
       response: bool = False) -> bytes:
    "A message for an end, sealed with the keys of its peer; its next request unless told otherwise."
    return ike.incoming.seal(
        Packet(ExchangeType(exchange), payloads), ike.spi_i, ike.spi_r, response=response,
        initiator=not ike.initiator, random=bytes,
        message_id=ike.window.expected_id if message_id is None else message_id)


def ask(ike: IKE, exchange: int, *payloads: Payload) -> Packet | None:
    "Put a request of its peer's to an end; return its response, if there is one."
    ike.receive_datagram(to(ike, exchange, *payloads), ike.remote, 0)
    sent = [ike.outgoing.open(d.data) for d in ike.datagrams_to_send() if ike.outgoing]
    return sent[-1] if sent else None


def lying(monkeypatch: pytest.MonkeyPatch, who: str, exchange: ExchangeType, change: Callable) -> None:
    "Change the payloads of one end's messages before they are sealed, or sent."
    encode = protocol.datagrams_for

    def changed_(ike: IKE, packet: Packet, *, response: bool, message_id: int) -> tuple[bytes, ...]:
        if packet.exchange_type != exchange or ike.initiator != (who == 'alice'):
            return encode(ike, packet, response=response, message_id=message_id)
        packet = replace(packet, payloads=tuple(change(list(packet.payloads))), data=b'')
        sent = encode(ike, packet, response=response, message_id=message_id)
        if exchange == INIT and response: ike.first_messages = sent[0], ike.first_messages[1]
        return sent
    monkeypatch.setattr(protocol, 'datagrams_for', changed_)


def established(*ends: IKE) -> list[Established | ChildEstablished]:
    return [e for end in ends for e in events(end) if isinstance(e, Established | ChildEstablished)]


def shown(found: list[tuple[IKE | None, Event]]) -> list[str]:
    "All that people may be shown of events: each line is printable, and none is long."
    lines = []
    for ike, event in found:
        lines += [*report(ike, event, verbose=True), json.dumps(as_json(ike, event))]
    for line in lines: assert line.isprintable() and len(line) < 6000, line
    return lines


def carry(*hosts: Host, now: float = 0) -> list[Event]:
    "Carry datagrams between two hosts until they have nothing to say; return what both tell."
    told_: list[Event] = []
    for _ in range(20):
        for one, other in hosts, hosts[::-1]:
            for d in one.datagrams_to_send(): other.receive_datagram(d.data, d.source, now, d.destination)
            while found := one.next_event(): told_.append(found[1])
    return told_


both = pytest.mark.parametrize('who', ['alice', 'bob'])


# Proofs

OCTETS = b'what an end has sent, and so on'
KEYS_BY_NAME = {'RSA 2048': private_key(KEYS / 'initiator.key'), 'Ed25519': ed_key(), **{
    f'P-{bits}': ec.derive_private_key(77, curve) for bits, curve in (
        (256, ec.SECP256R1()), (384, ec.SECP384R1()), (521, ec.SECP521R1()))}}
EVERY_WAY = [((AuthenticationType.DIGITAL_SIGNATURE, octets), scheme) for octets, scheme in SCHEMES.items()]
EVERY_WAY += [((method, b''), scheme) for method, scheme in METHODS.items()]


def with_identifier(identifier: bytes, signature: bytes) -> AUTH:
    return AUTH(AuthenticationType.DIGITAL_SIGNATURE, bytes([len(identifier)]) + identifier + signature)


def identifier_of(name: str) -> bytes:
    return next(octets for octets, scheme in SCHEMES.items() if scheme.name == name)


def proves_nothing(held: object, proof: AUTH, words: str, allow_sha1: bool = True) -> None:
    public = held.public_key() if hasattr(held, 'public_key') else held
    with pytest.raises(AuthenticationFailed) as caught: verify(public, OCTETS, proof, allow_sha1)
    assert words in str(caught.value)


def cube_root(prefix: bytes, size: int) -> bytes:
    "The number of `size` octets whose cube begins with these."
    target = int.from_bytes(prefix.ljust(size, b'\xff'), 'big')
    low, high = 0, 1 << 8 * size // 3 + 1
    while low < high:
        middle = (low + high + 1) // 2
        if middle ** 3 <= target: low = middle
        else: high = middle - 1
    assert (low ** 3).to_bytes(size, 'big').startswith(prefix)
    return low.to_bytes(size, 'big')


def test_a_signature_that_anybody_can_make(tmp_path: Path) -> None:
    """S01: with e = 3, a cube root makes the front of a block, and whoever reads the block
    leniently takes garbage behind it. So such a key is not even loaded."""
    public, digest = rsa_key(2048, 3).public_key(), hashlib.sha256(OCTETS).digest()
    info, no_null = h('3031300d060960864801650304020105000420'), h('302f300b0609608648016503040201' '0420')
    for fill in 0, 1, 8, 16:
        for algorithm in info, no_null, b'':
            forged = cube_root(b'\0\1' + b'\xff' * fill + b'\0' + algorithm + digest, 256)
            proves_nothing(public, with_identifier(identifier_of('RSA with SHA2-256'), forged), 'is wrong')
    for weak in rsa_key(2048, 3), rsa_key(1024):
        for name, load, data in (
                ('a.pub', load_public_key, weak.public_key().public_bytes(
                    Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
                ('a.key', load_private_key, weak.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))):
            (tmp_path / name).touch(mode=0o600)
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ValueError, match='1024 bits|public exponent 3'): load(tmp_path / name)


@pytest.mark.parametrize('number, weak', [
    (4, hashes.MD5()), (14, hashes.SHA224()), (5, hashes.SHA1())],  # noqa: S303  # that is the point
    ids=['MD5', 'SHA2-224', 'SHA-1'])
def test_the_signer_does_not_choose_the_hash(number: int, weak: hashes.HashAlgorithm) -> None:
    "S02: a right signature with a hash that we do not accept proves nothing, however it is announced."
    key = KEYS_BY_NAME['RSA 2048']
    signature = key.sign(OCTETS, padding.PKCS1v15(), weak)
    proves_nothing(key, with_identifier(h(f'300d06092a864886f70d0101{number:02x}0500'), signature),
                   'is not accepted')
    for (method, identifier), scheme in EVERY_WAY:
        if not scheme.fits(key.public_key()) or scheme is RSA_SHA1 and number == 5: continue
        proof = with_identifier(identifier, signature) if identifier else AUTH(method, signature)
        proves_nothing(key, proof, 'is wrong', allow_sha1=True)


class Showing(Signer):
    "One who shows its bare key, asked or not."

    def payloads(self, asked: object) -> tuple[CERT, ...]:
        return (CERT(CertEncoding.RAW_PUBLIC_KEY, spki(self.key.public_key())),)


@both
def test_a_key_that_the_peer_shows_is_not_believed(who: str) -> None:
    "S03: the name is one that we know, the signature is right, and the key comes along with it."
    stranger = Showing(ec.derive_private_key(777, ec.SECP384R1()))
    left, right = pair('ECDSA')
    if who == 'alice': refused_by_bob(*met(replace(left, credential=stranger), right), 'wrong for this key')
    else: refused_by_alice(*met(left, replace(right, credential=stranger)), 'wrong for this key')


def test_what_can_be_added_to_a_first_message_is_short_and_is_signed_with_sha2() -> None:
    "S05: an end that is made to sign a collision needs a broken hash, and room for the collision."
    weak = sign(KEYS_BY_NAME['RSA 2048'], OCTETS, (AuthenticationType.RSA, b''))
    proves_nothing(KEYS_BY_NAME['RSA 2048'], weak, 'SHA-1, which is not accepted', allow_sha1=False)
    assert not any(c.allow_sha1 for c in configs())
    ike, _ = waiting_for_init()
    for size in 0, 65, 66, 1000: bombard(ike, reply(ike, Notify(MessageType.COOKIE, bytes(size))))
    for size in 0, 15, 257, 1000:
        with pytest.raises(IkeError): Nonce.parse(Reader(bytes(size)))
    for size in 16, 256: assert Nonce.parse(Reader(bytes(size)))


@pytest.mark.parametrize('exchange', [INIT, CREATE, INFORM, 0, 38, 43, 99])
@pytest.mark.parametrize('make', [waiting_for_auth, waiting_responder], ids=lambda f: f.__name__)
def test_nothing_but_ike_auth_establishes(make: Callable, exchange: int) -> None:
    "S06: sealed with the right keys, in a state where nobody is authenticated yet."
    ike, good = make()
    sa, spi = ike.config.ike[0], bytes(range(8))
    contents = [(), (SA((replace(sa, spi=spi),)), Nonce(bytes(32)), KE(14, b'\2'.rjust(256, b'\1'))),
                (Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=bytes(4)),),
                (IDr.of(ike.config.remote_id), EAP_SUCCESS), (Delete(ProtocolID.IKE),)]
    for payloads in contents:
        for message_id in range(3):
            for response in False, True:
                bombard(ike, to(ike, exchange, *payloads, message_id=message_id, response=response))
    assert ike.state == State.CONNECTING
    ike.receive_datagram(good, ike.remote, 0)
    assert ike.state == State.ESTABLISHED


WITHOUT_PROOF: dict[str, Callable] = {
    'EAP success': lambda name, auth, child: [name, EAP_SUCCESS],
    'EAP success and a Child SA': lambda name, auth, child: [name, EAP_SUCCESS, *child],
    'a name': lambda name, auth, child: [name], 'nothing': lambda name, auth, child: [],
    'a name and a Child SA': lambda name, auth, child: [name, *child],
    'no name': lambda name, auth, child: [auth, *child],
    'two proofs': lambda name, auth, child: [name, auth, auth, *child],
    'two names': lambda name, auth, child: [name, name, auth, *child],
    'an empty proof': lambda name, auth, child: [name, AUTH(auth.method, b''), *child],
    'the method "none"': lambda name, auth, child: [name, AUTH(AuthenticationType.NULL, auth.data)]}


@both
@pytest.mark.parametrize('what', WITHOUT_PROOF)
def test_success_is_no_proof(monkeypatch: pytest.MonkeyPatch, what: str, who: str) -> None:
    "S07: whatever else an IKE_AUTH message says, without one good proof of one name it is refused."
    def change(payloads: list[Payload]) -> list[Payload]:
        name, = (p for p in payloads if type(p) is (IDi if who == 'alice' else IDr))
        auth, = (p for p in payloads if type(p) is AUTH)
        child = [p for p in payloads if type(p) in (SA, TSi, TSr)]
        return WITHOUT_PROOF[what](name, auth, child)
    lying(monkeypatch, who, AUTHENTICATE, change)
    alice, bob = handshake(*two_ends(RESPONDERS, *quick()))
    assert alice.state == bob.state == State.CLOSED
    assert not established(bob if who == 'alice' else alice)


def test_a_responder_that_is_certified_as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    "S08: it belongs to the same authority. It is asked for by name, and told nothing but no."
    monkeypatch.setattr(ike_sa, 'find_config', lambda ike, identity, wanted: ike.config)
    mallory = 'mallory.example.org'
    held = issue('CN=mallory', key(105), MIDDLE, names(mallory))
    left, right = pair('certificate')
    alice, bob = met(left, replace(right, credential=chain(held, MIDDLE),
                                   local_id=Identity.from_text(mallory)))
    kinds, (proof, last) = told(alice)
    assert proof.exchange_type == AUTHENTICATE and proof.one(IDr).identity == left.remote_id
    assert last.exchange_type == INFORM and not kinds[Established] and not kinds[ChildEstablished]
    assert last.payloads == (Notify(MessageType.AUTHENTICATION_FAILED),)
    assert 'we expect FQDN bob' in str(kinds[Closed][0].error)
    assert alice.state == bob.state == State.CLOSED


NAME = b'alice.example.org'
NEARLY = [*((IDType.FQDN, text) for text in (
    NAME + b'\0', NAME + b'\0.evil.example', b'\0' + NAME, NAME[:-1], NAME + b'x', b'', NAME + b'.',
    NAME.replace(b'l', b'I'), b'*.example.org', b'mallory.' + NAME, NAME + b'\n')), *(
    (kind, NAME) for kind in (IDType.RFC822_ADDR, IDType.KEY_ID, IDType.DER_ASN1_DN, IDType.IPV4_ADDR,
                              IDType(0), IDType(200)))]


@pytest.mark.parametrize('kind, octets', NEARLY, ids=str)
def test_a_name_that_is_nearly_right(
        monkeypatch: pytest.MonkeyPatch, kind: IDType, octets: bytes) -> None:
    "S09: names are a type and data, and both are compared whole."
    left, right = quick()
    near = Identity(kind, octets)
    assert not near.matches(left.local_id) and not left.local_id.matches(near)
    ends = met(replace(left, local_id=near), right)
    assert [e.state for e in ends] == [State.CLOSED] * 2 and not established(*ends)
    monkeypatch.setattr(ike_sa, 'find_config', lambda ike, identity, wanted: ike.config)
    alice, bob = met(replace(left, remote_id=left.local_id), replace(right, local_id=near))
    assert alice.state == State.CLOSED and not established(alice)


@pytest.mark.parametrize('name', KEYS_BY_NAME)
def test_zeros_and_nothing_are_no_signature(name: str) -> None:
    "S10: an error of the verifier is not success."
    sizes = 0, 1, 2, 8, 63, 64, 96, 132, 255, 256, 257, 384, 512
    for (method, identifier), scheme in EVERY_WAY:
        if not scheme.fits(KEYS_BY_NAME[name].public_key()): continue
        head = bytes([len(identifier)]) + identifier if identifier else b''
        for size in sizes:
            for octet in b'\0', b'\1', b'\xff':
                proves_nothing(KEYS_BY_NAME[name], AUTH(method, head + octet * size), 'is wrong')
    for size in sizes:
        proof = AUTH(AuthenticationType.SHARED_KEY, bytes(size))
        with pytest.raises(AuthenticationFailed): SECRET.verify(Prf.PRF_HMAC_SHA2_256, OCTETS, proof)


@both
def test_a_certificate_is_for_the_names_in_it(who: str) -> None:
    "S11: the chain is right, the signature is right, and the name is another's."
    held = chain(issue('CN=mallory', key(106), MIDDLE, names('mallory.example.org', '192.0.2.66')), MIDDLE)
    left, right = pair('certificate')
    if who == 'alice': refused_by_bob(*met(replace(left, credential=held), right), 'is not for')
    else: refused_by_alice(*met(left, replace(right, credential=held)), 'is not for')


class OnlySigns:
    "A private key that can do nothing else, and remembers what it was given."

    def __init__(self, held: ec.EllipticCurvePrivateKey): self.held, self.signed = held, []

    def public_key(self) -> ec.EllipticCurvePublicKey: return self.held.public_key()

    def sign(self, octets: bytes, how: object) -> bytes:
        self.signed.append(octets)
        return self.held.sign(octets, how)


def test_a_private_key_signs_what_its_owner_has_begun() -> None:
    "S12: it opens nothing for anybody, and signs nothing that a peer has chosen from the first octet on."
    keys = {who: OnlySigns(key(n)) for n, who in enumerate(('alice', 'bob'), 301)}
    left, right = configs()
    left = replace(left, credential=Signer(keys['alice']), trust=keys['bob'].public_key())
    right = replace(right, credential=Signer(keys['bob']), trust=keys['alice'].public_key())
    alice, bob = met(left, right)
    assert alice.state == bob.state == State.ESTABLISHED
    for end, who in (alice, 'alice'), (bob, 'bob'):
        signed, = keys[who].signed
        (mine, _), (ours, theirs) = end.first_messages, end.nonces
        assert signed.startswith(mine + theirs) and ours in mine and len(ours) == NONCE_SIZE


def test_a_mirror() -> None:
    "S13: what we have sent comes back, as it is or made up to look like an answer."
    alice, bob = two_ends(RESPONDERS, *quick())
    alice.start(ike_sa_init, now=0)
    first, = deliver(alice, bob)
    packet = Packet.parse(Reader(first))
    for spi_r in b'mirrored', alice.spi_i:
        bombard(alice, packet.encode(alice.spi_i, spi_r, response=True, initiator=False, message_id=0))
    assert not alice.lineage.new_sas and 'our own nonce' in str(alice.unauthenticated[-1])

    def back(end: IKE, data: bytes) -> str:
        events(end)
        before = snapshot(end)
        end.receive_datagram(data, end.remote, 0)
        assert snapshot(end) == before and not end.datagrams_to_send()
        return events(end)[0].reason
    assert 'our own role' in back(alice, first)
    deliver(bob, alice)
    alice, = alice.lineage.new_sas
    proof, = deliver(alice, bob)
    assert 'our own role' in back(alice, proof)
    deliver(bob, alice)
    alice.start(liveness, now=0)
    asked = alice.datagrams_to_send()[0].data
    assert 'our own role' in back(alice, asked)
    unmarked = asked[:19] + bytes([asked[19] & ~0x08]) + asked[20:]
    assert back(alice, unmarked) != back(alice, asked)
    assert alice.state == State.ESTABLISHED


# What is agreed on

def test_forged_refusals_end_nothing_and_weaken_nothing() -> None:
    "S20: Mallory has held the first message back and says no in Bob's name; or wants the weaker group."
    left, right = quick('aes256gcm16-prfsha256-ecp384-x25519')
    forgeries = [Notify(MessageType.NO_PROPOSAL_CHOSEN), Notify(MessageType.AUTHENTICATION_FAILED),
                 Notify(MessageType.INVALID_SYNTAX), Notify(MessageType.INVALID_MAJOR_VERSION, b'\1'),
                 Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\2'),
                 Notify(MessageType.INVALID_KE_PAYLOAD, b'\0\x1f')]
    for forged in forgeries:
        alice, bob = Host(), Host((right,))
        attempt = alice.connect(left, ALICE, BOB, now=0)
        held_back = alice.datagrams_to_send()
        for _ in range(9): alice.receive_datagram(reply(attempt, forged, spi_r=bytes(8)), BOB, 0, ALICE)
        again = alice.datagrams_to_send()
        for d in again or held_back: bob.receive_datagram(d.data, ALICE, 0, BOB)
        carry(bob, alice)
        up, = alice.established
        assert len(bob.established) == 1 and up.suite.single(TransformType.DH).name == 'ECP_384'
    alice, _ = two_ends(RESPONDERS, left, right)
    alice.start(ike_sa_init, now=0)
    sent = 0
    for n in range(300):
        for forged in (Notify(MessageType.INVALID_KE_PAYLOAD, bytes([0, 20 if n % 2 else 31])),
                       Notify(MessageType.COOKIE, n.to_bytes(2, 'big'))):
            alice.receive_datagram(reply(alice, forged, spi_r=bytes(8)), BOB, 0)
            sent += len(alice.datagrams_to_send())
    assert sent <= 1 + 5 == 1 + MAX_INIT_RETRIES
    assert len(alice.unauthenticated) <= 16 and alice.state == State.INITIAL


@pytest.mark.parametrize('kind, wide', [
    *((TSr, text) for text in ('0.0.0.0/0', '10.2.0.0/23', '10.2.0.0/24,10.3.0.0/24', '10.1.255.255-10.2.0.9',
                               '10.2.0.0/24,::/0', '10.0.0.0/8[tcp/80]', '192.0.2.2')),
    (TSi, '0.0.0.0/0'), (TSi, '10.1.0.0/24,10.9.0.0/24')], ids=str)
def test_more_traffic_than_was_asked_for(
        monkeypatch: pytest.MonkeyPatch, kind: type, wide: str) -> None:
    "S22: nothing of it gets as far as the kernel."
    more = kind(tuple(map(TrafficSelector.from_text, wide.split(','))))
    lying(monkeypatch, 'bob', AUTHENTICATE, lambda payloads: [
        more if type(p) is kind else p for p in payloads])
    alice, bob = handshake(*two_ends(RESPONDERS, *quick()))
    assert alice.state == State.ESTABLISHED and not alice.children and not bob.children
    assert not [e for e in established(alice) if isinstance(e, ChildEstablished)]
    for offered, answer in ('10.2.0.0/24[tcp/80]', '10.2.0.0/24'), (
            '10.2.0.0/24[tcp/80]', '10.2.0.0/24[udp/80]'), ('10.2.0.0/24[tcp/80]', '10.2.0.0/24[tcp/80-81]'):
        with pytest.raises(IkeError):
            check_narrowed([TrafficSelector.from_text(offered)], [TrafficSelector.from_text(answer)])


MANDATORY = [(who, exchange, kind) for exchange, kinds in (
    ((INIT, (SA, KE, Nonce)), (AUTHENTICATE, (AUTH, SA, TSi, TSr)), (CREATE, (SA, Nonce, KE, TSi, TSr))))
    for who in ('alice', 'bob') for kind in kinds] + [
        ('alice', AUTHENTICATE, IDi), ('bob', AUTHENTICATE, IDr)]


@pytest.mark.parametrize('copies', [0, 2, 3])
@pytest.mark.parametrize('who, exchange, kind', MANDATORY, ids=lambda v: getattr(v, '__name__', str(v)))
def test_a_payload_that_is_missing_or_there_twice(
        monkeypatch: pytest.MonkeyPatch, who: str, exchange: ExchangeType, kind: type, copies: int) -> None:
    "S23: what is needed is there once, or nothing comes of the message."
    lying(monkeypatch, who, exchange, lambda payloads: [
        p for one in payloads for p in [one] * (copies if type(one) is kind else 1)])
    alice, bob = handshake(*two_ends(RESPONDERS, *quick(esp='aes256gcm16-x25519')))
    ends = {'alice': alice, 'bob': bob}
    reader = ends['bob' if who == 'alice' else 'alice']
    if exchange == CREATE:
        assert alice.state == bob.state == State.ESTABLISHED
        before = dict(reader.children)
        events(reader)
        alice.start(rekey_child, next(iter(alice.children)), now=1)
        talk(alice, bob, now=1)
        assert set(reader.children) <= set(before)
    elif exchange == INIT: assert reader.state == State.INITIAL
    elif kind in (AUTH, IDi, IDr): assert reader.state == State.CLOSED and alice.state == State.CLOSED
    assert not [e for e in events(reader) if isinstance(e, ChildEstablished)]


@pytest.fixture
def asked_anew() -> Iterator[None]:
    "Each algorithm is asked for its answer again."
    selftest.complaint.cache_clear()
    yield
    selftest.complaint.cache_clear()


def test_what_the_library_lacks_is_not_offered(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    "S24: it would be chosen."
    monkeypatch.setattr(sk, 'BLOCK_CIPHERS', {'aes': sk.BLOCK_CIPHERS['aes']})
    wanted = parse_proposals('camellia256-sha256-x25519,aes256-sha256-x25519', ProtocolID.IKE)
    kept, told_ = selftest.tested(wanted)
    assert [p.transforms for p in kept] == [wanted[1].transforms] and 'camellia256 is not' in told_[0]


@pytest.mark.parametrize('error', [
    UnsupportedAlgorithm('FIPS'), InternalError('no', []), KeyError(5), OSError()],
    ids=lambda e: type(e).__name__)
def test_a_library_that_refuses_is_asked_first(
        monkeypatch: pytest.MonkeyPatch, asked_anew: None, error: Exception) -> None:
    "S25: not when the keys are to be made."
    def refuses(*args: object) -> bytes: raise error
    monkeypatch.setattr(selftest, 'prf', refuses)
    with pytest.raises(ValueError, match='prfsha256 is not offered'):
        selftest.tested(parse_proposals('aes256-sha256-x25519', ProtocolID.IKE))


# Diffie-Hellman, and random numbers

@pytest.mark.parametrize('group', GROUPS, ids=str)
def test_a_public_value_of_another_size(group: Group) -> None:
    "S30: it is refused before anything is computed."
    dh = object.__new__(KeyExchange)
    dh.group, dh._method = group, GROUPS[group]
    right = dh._method.answer_size
    for size in {0, 1, right - 1, right + 1, 2 * right, 65000}:
        for octet in b'\0', b'\2':
            with pytest.raises(InvalidSyntax, match=f'value of {size} octets'): dh.derive(octet * size)


@pytest.mark.parametrize('library', [True, False])
def test_a_public_value_that_makes_the_secret_known(monkeypatch: pytest.MonkeyPatch, library: bool) -> None:
    "S31: by ourselves where OpenSSL does not look, or is not asked."
    monkeypatch.setattr(ke, 'BY_LIBRARY', library and ke.BY_LIBRARY)
    modp, size = GROUPS[Group.MODP_2048], 256
    for value in 0, 1, modp.prime - 1, modp.prime, modp.prime + 1, 2 ** 2048 - 1:
        with pytest.raises(ValueError, match='between 2 and p-2'):
            modp.shared(3, value.to_bytes(size, 'big'))
    for kind in GROUPS.values():
        if isinstance(kind, ke.Modp | ke.Kem): continue  # a ciphertext of ML-KEM may be anything
        for public in bytes(kind.size), b'\1' + bytes(kind.size - 1), b'\xff' * kind.size:
            if public[:1] == b'\xff' and kind.size in (32, 56): continue  # x is taken modulo the prime
            with pytest.raises(ValueError, match='not a point|all-zero secret'):
                kind.shared(kind.secret(os.urandom), public)


@pytest.mark.parametrize('library', [True, False])
def test_zeros_in_front_of_a_secret_stay(monkeypatch: pytest.MonkeyPatch, library: bool) -> None:
    "S33: or one handshake in 256 would fail, and take another time."
    monkeypatch.setattr(ke, 'BY_LIBRARY', library and ke.BY_LIBRARY)
    for group in Group.MODP_2048, Group.MODP_3072:
        kind = GROUPS[group]
        secret = kind.shared(2, (1 << kind.bits // 2 - 30).to_bytes(kind.size, 'big'))
        assert secret == (1 << kind.bits - 60).to_bytes(kind.size, 'big') and secret.startswith(bytes(7))


def test_a_public_value_of_another_group_than_the_chosen_one() -> None:
    "S32: not even of one that some implementation uses only inside."
    ike, good = waiting_for_init()
    sa, ke, nonce, *rest = Packet.parse(Reader(good)).payloads
    alice, bob = two_ends(RESPONDERS, *configs(**HERITAGE))
    alice.start(ike_sa_init, now=0)
    first = Packet.parse(Reader(alice.datagrams_to_send()[0].data))
    for number in (*range(14), *range(15, 40), 256, 1024, 1025, 1026, 32768, 65534, 65535):
        group = Group(number)
        bombard(ike, reply(ike, sa, KE(group, ke.public), nonce, *rest))
        ours = GROUPS[group].size if group in GROUPS else 32
        bombard(ike, reply(ike, sa, KE(group, bytes(ours - 1) + b'\2'), nonce, *rest))
        _, bob = two_ends(RESPONDERS, *configs(**HERITAGE))
        asked = Packet(INIT, tuple(KE(group, p.public) if type(p) is KE else p for p in first.payloads))
        bob.receive_datagram(asked.encode(alice.spi_i, bytes(8), response=False, initiator=True,
                                          message_id=0), ALICE, 0)
        answer = Packet.parse(Reader(bob.datagrams_to_send()[0].data))
        assert answer.notify(MessageType.INVALID_KE_PAYLOAD).data == b'\0\x0e' and bob.keys is None
    ike.receive_datagram(good, BOB, 0)
    assert ike.lineage.new_sas


def test_no_public_value_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    "S34: a secret is made for one exchange, and used for it only."
    left, right = quick(esp='aes256gcm16-x25519')
    sent, used = [], Counter()
    derive = KeyExchange.derive
    monkeypatch.setattr(KeyExchange, 'derive', lambda dh, public: used.update([dh]) or derive(dh, public))
    for _ in range(2):
        ends = (IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS),
                IKE(right, BOB, ALICE, initiator=False, responders=RESPONDERS))
        ends[0].start(ike_sa_init, now=0)
        talk(*ends)
        for conversation in rekey_child, rekey_ike_sa:
            for who in 0, 1:
                one = family(ends[who])[-1]
                one.start(conversation, *list(one.children)[:conversation is rekey_child], now=1)
                talk(*ends, now=1)
        sent += [ke.public for end in ends for member in family(end) for e in events(member)
                 if isinstance(e, Message) and e.sent for ke in e.packet.all(KE)]
    assert len(sent) == len(set(sent)) == 2 * 2 * 5  # half of them are the answers
    assert len(used) == 2 * 5 and set(used.values()) == {1}


def test_a_seed_of_pythons_own_random_predicts_nothing() -> None:
    "S35: SPIs, nonces, secrets and vectors come from the system, unless a chapter says otherwise."
    def drawn() -> list[bytes]:
        random.seed(7296)
        left, right = quick('aes256-sha256-x25519')
        ends = (IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS),
                IKE(right, BOB, ALICE, initiator=False, responders=RESPONDERS))
        host = Host((right,))
        host.connect(left, ALICE, BOB, now=0)
        found = [d.data[:8] for d in host.datagrams_to_send()] + [host.cookies.bake(0, b'', b'', ALICE)]
        alice, bob = handshake(*ends)
        packets = [e.packet for end in (ends[0], bob) for e in events(end) if isinstance(e, Message)]
        found += [p.one(kind).__getattribute__(name) for p in packets if p.exchange_type == INIT
                  for kind, name in ((Nonce, 'data'), (KE, 'public'))]
        alice.start(liveness, now=0)
        return [*found, alice.spi_i, alice.spi_r, alice.child.inbound.spi, bob.child.inbound.spi,
                alice.datagrams_to_send()[0].data[32:48]]
    state = random.getstate()
    try: one, other = drawn(), drawn()
    finally: random.setstate(state)
    assert len(one) == len(other) > 10 and not set(one) & set(other)


@pytest.mark.parametrize('group', [Group(n) for n in (1, 2, 5, 22, 23, 24, 25, 26)], ids=str)
def test_a_small_group_is_neither_offered_nor_taken(group: Group) -> None:
    "S36: not by its name on the command line, and not if the peer asks for it or chooses it."
    assert group not in GROUPS
    name = group.name.lower()
    for word in name.replace('_', ''), name.replace('_', '', 1), name.replace('_', 's'), str(int(group)):
        with pytest.raises(ValueError, match='too weak|no algorithm that I know'):
            parse_proposals(f'aes256-sha256-{word}', ProtocolID.IKE)
    assert group not in groups(parse_proposals(DEFAULT_IKE, ProtocolID.IKE))
    ike, good = waiting_for_init()
    sa, ke, nonce, *rest = Packet.parse(Reader(good)).payloads
    small = tuple(Transform(t.type, group) if t.type == TransformType.DH else t
                  for t in sa.proposals[0].transforms)
    weak = SA((replace(sa.proposals[0], transforms=small),))
    bombard(ike, reply(ike, weak, KE(group, bytes(127) + b'\2'), nonce, *rest))
    bombard(ike, reply(ike, Notify(MessageType.INVALID_KE_PAYLOAD, group.to_bytes(2, 'big'))))
    _, bob = two_ends(RESPONDERS)
    first = Packet(INIT, (weak, KE(group, bytes(127) + b'\2'), nonce)).encode(
        bytes(range(1, 9)), bytes(8), response=False, initiator=True, message_id=0)
    bob.receive_datagram(first, ALICE, 0)
    answer = Packet.parse(Reader(bob.datagrams_to_send()[0].data))
    assert answer.notify(MessageType.NO_PROPOSAL_CHOSEN) and bob.keys is None


# Parsing

HOLLOW = {  # a chain, where the length of something in it stands, and how long it must be at least
    'a payload': (Type.Vendor, h('00000008 01020304'), 2, 4),
    'a proposal': (Type.SA, h('00000030 0000002c 01010004 0300000c 0100000c 800e0100'
                              '03000008 02000005 03000008 0300000c 00000008 0400000e'), 6, 8),
    'a transform': (Type.SA, h('00000030 0000002c 01010004 0300000c 0100000c 800e0100'
                               '03000008 02000005 03000008 0300000c 00000008 0400000e'), 14, 8),
    'a selector': (Type.TSi, h('00000018 01000000 07000010 0000ffff 0a010000 0a0100ff'), 10, 8),
    'two selectors': (Type.TSi, h('00000020 02000000 09000008 0000ffff 07000010 0000ffff 0a010000 0a0100ff'),
                      10, 8)}


@pytest.mark.parametrize('what', HOLLOW)
def test_what_has_no_length_is_no_place_to_stay(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    "S40: every step of the parser goes forward, or says why it can not."
    kind, chain_, at, least = HOLLOW[what]
    steps, fields, octets = count(1), Reader.fields, Reader.octets

    def bounded(step: Callable) -> Callable:
        def once(*args: object) -> object:
            assert next(steps) < 1000, 'the parser walks on the spot'
            return step(*args)
        return once
    monkeypatch.setattr(Reader, 'fields', bounded(fields))
    monkeypatch.setattr(Reader, 'octets', bounded(octets))
    assert parse_chain(kind, Reader(chain_))
    for length in range(least):
        hollow = chain_[:at] + length.to_bytes(2, 'big') + chain_[at + 2:]
        with pytest.raises(IkeError, match=rf'of length {length}\b|claims -{least - length} octets'):
            Packet(ExchangeType.INFORMATIONAL, parse_chain(kind, Reader(hollow))).one(get_by_type(kind))


def test_what_is_no_message_is_dropped_and_told() -> None:
    "S41: short ones, other versions, no SA that it could belong to; shown with everything on."
    alice, _ = two_ends(RESPONDERS, *quick())
    alice.start(ike_sa_init, now=0)
    good = alice.datagrams_to_send()[0].data
    bad = [good[:n] for n in range(28)] + [bytes(n) for n in range(40)] + [b'\xff' * n for n in range(40)]
    bad += [good[:17] + bytes([version]) + good[18:] for version in (0, 0x10, 0x1f, 0x30, 0xf0, 0xff)]
    bad += [good[:24] + n.to_bytes(4, 'big') + good[28:] for n in (0, 27, 28, len(good) + 1, 2 ** 32 - 1)]
    told_ = []
    for host in Host(), Host((quick()[1],)):
        for n, data in enumerate(bad):
            host.receive_datagram(data, ELSEWHERE, n, BOB)
            while found := host.next_event(): told_.append(found)
            assert not host.sas and len(host.datagrams_to_send()) <= 1
    assert len(told_) == 2 * len(bad) and len(shown(told_)) == 4 * len(bad)
    for ike, _ in PREPARED.values():
        for data in bad:
            ike.receive_datagram(data, ELSEWHERE, 0)
            assert not ike.datagrams_to_send() and shown([(ike, e) for e in events(ike)])


NOISE = bytes(range(256))
STRANGE = (Vendor(b'\xff\xfe\0\x1b[2J\r\n'), Vendor(NOISE), Notify(MessageType(40000), NOISE),
           Notify(MessageType(16384 + 999), b'\x1b[31m'), Opaque(Type(200), NOISE),
           CERTREQ(CertEncoding(99), NOISE),
           CP(CfgType(77), (Attribute(CfgAttribute.APPLICATION_VERSION, b'\x1b]0;\xff\x07'),
                            Attribute(CfgAttribute(9999), NOISE))))


@both
@pytest.mark.parametrize('kind', [IDType(n) for n in (0, 1, 2, 3, 5, 9, 10, 11, 12, 200, 255)], ids=str)
def test_octets_that_are_no_text_are_shown(
        monkeypatch: pytest.MonkeyPatch, kind: IDType, who: str) -> None:
    "S42: in each place where a peer may write words, and with numbers that are in no registry."
    for octets in (b'', b'\0', b'\xff\xfe', b'\x1b[2J', 'bücher.example'.encode(), NOISE):
        assert str(Identity(kind, octets)).isprintable() and repr(Identity(kind, octets)).isprintable()
    for exchange in INIT, AUTHENTICATE:
        lying(monkeypatch, who, exchange, lambda payloads: [*payloads, *STRANGE])
    left, right = quick()
    named = Identity(kind, b'\xffn\xc3\xa4me\0\x1b[31m\n')
    for believed in left.local_id, named:
        one, other = (replace(left, local_id=named), replace(right, remote_id=believed))
        if who == 'bob': one, other = replace(left, remote_id=believed), replace(right, local_id=named)
        monkeypatch.setattr(ike_sa, 'find_config', lambda ike, identity, wanted: ike.config)
        attempt, bob = two_ends(RESPONDERS, one, other)
        alice, _ = handshake(attempt, bob)
        told_ = [(end, e) for end in (attempt, alice, bob) for e in events(end)]
        words = ' '.join(shown(told_))
        assert 'N(40000' in words and repr(named)[-6:] in words
        assert (alice.state == State.ESTABLISHED) == (believed is named)


@pytest.mark.parametrize('kind', [n for n in range(256) if n not in list(Type) or n == Type.EAP])
def test_a_payload_of_any_type_anywhere(kind: int) -> None:
    "S43: other versions of IKE have payloads of these types, and we have not."
    alice, _ = two_ends(RESPONDERS, *quick())
    alice.start(ike_sa_init, now=0)
    payloads = Packet.parse(Reader(alice.datagrams_to_send()[0].data)).payloads
    for at in 0, 2, len(payloads):
        for body in b'', b'\0\0', NOISE:
            odd = Opaque(Type(kind), body)
            data = Packet(INIT, (*payloads[:at], odd, *payloads[at:])).encode(
                alice.spi_i, bytes(8), response=False, initiator=True, message_id=0)
            assert Packet.parse(Reader(data)).payloads[at] == odd
    _, bob = two_ends(RESPONDERS, *quick())
    bob.receive_datagram(data, ALICE, 0)
    assert bob.state == State.CONNECTING


@pytest.mark.parametrize('exchange', [INIT, AUTHENTICATE, CREATE, INFORM, 0, 38, 99])
@both
def test_a_sealed_message_before_there_are_keys(who: str, exchange: int) -> None:
    "S44: there is nothing that could open it, and nobody tries."
    alice, bob = two_ends(RESPONDERS, *quick())
    stranger, _ = shaken()
    alice.start(ike_sa_init, now=0)
    first = alice.datagrams_to_send()
    end = alice if who == 'alice' else bob
    events(end)
    for response, initiator in (False, True), (False, False), (True, True), (True, False):
        for message_id in 0, 1:
            for spi_r in bytes(8), b'12345678':
                sealed = stranger.outgoing.seal(
                    Packet(ExchangeType(exchange), (Delete(ProtocolID.IKE),)), alice.spi_i, spi_r,
                    response=response, initiator=initiator, message_id=message_id, random=bytes)
                before = snapshot(end)
                end.receive_datagram(sealed, end.remote, 0)
                assert snapshot(end) == before and not end.datagrams_to_send()
                told_ = events(end)
                assert all(isinstance(e, Dropped) for e in told_) or exchange == INIT
    host = Host((quick()[1],))
    host.receive_datagram(sealed, ALICE, 0, BOB)
    assert not host.sas
    for d in first: bob.receive_datagram(d.data, ALICE, 0)
    talk(alice, bob)
    assert family(alice)[-1].state == bob.state == State.ESTABLISHED


def test_what_an_authenticated_peer_may_get_wrong() -> None:
    "S45: any octet of CREATE_CHILD_SA or INFORMATIONAL may be odd: it is answered, or the SA is over."
    alice, bob = shaken()
    requests = [(INFORM, (Delete(ProtocolID.ESP, (bytes(4),) * 2), Notify(MessageType.COOKIE, bytes(3))))]
    for conversation, *args in (rekey_child, *alice.children), (rekey_ike_sa,):
        alice.start(conversation, *args, now=0)
        requests.append((CREATE, bob.incoming.open(alice.datagrams_to_send()[0].data).payloads))
        alice, bob = shaken()
    outcomes: Counter[str] = Counter()
    for exchange, payloads in requests:
        first, octets = pack_chain(payloads)
        for at, odd in ((at, odd) for at in range(len(octets)) for odd in (0, 0xff) if octets[at] != odd):
            if bob.state != State.ESTABLISHED or bob.lineage.successor: alice, bob = shaken()
            header = partial(Header, bob.spi_i, bob.spi_r, Type.SK, exchange, False, True,
                             bob.window.expected_id)
            changed_ = octets[:at] + bytes([odd]) + octets[at + 1:]
            sealed = bob.outgoing  # the keys are gone once the SA is over
            bob.receive_datagram(bob.incoming.protect(header, first, changed_, bytes), ALICE, 0)
            answer, = bob.datagrams_to_send()
            error = sealed.open(answer.data).error()
            outcomes[str(error.message_type) if error else 'granted'] += 1
            assert bob.state == State.ESTABLISHED or error.message_type == MessageType.INVALID_SYNTAX
            shown([(bob, e) for e in events(bob)])
    assert len(outcomes) >= 6 and outcomes['INVALID_SYNTAX'] > 50, outcomes


@pytest.mark.parametrize('protocol_, size', [
    (0, 4), (1, 4), (2, 4), (4, 4), (255, 4), (3, 0), (3, 3), (3, 8)])
def test_rekeying_of_what_is_no_child_sa(protocol_: int, size: int) -> None:
    "S45: the SPI may be right, the protocol has to be."
    _, bob = shaken()
    child, = bob.children.values()
    before = dict(bob.children)
    which = Notify(MessageType.REKEY_SA, protocol=ProtocolID(protocol_),
                   spi=child.outbound.spi.ljust(size, b'\1')[:size])
    esp, = bob.config.esp
    answer = ask(bob, CREATE, which, SA((replace(esp, spi=b'\1\2\3\4'),)), Nonce(bytes(32)),
                 TSi(child.remote_ts), TSr(child.local_ts))
    assert answer.error().message_type == MessageType.CHILD_SA_NOT_FOUND
    assert bob.children == before and bob.state == State.ESTABLISHED


def test_nothing_follows_a_delete() -> None:
    "S46: an SA that is over takes nothing more, in the same message or in the next."
    _, bob = shaken()
    child, = bob.children.values()
    gone = Delete(ProtocolID.ESP, (child.outbound.spi,) * 3)
    answer = ask(bob, INFORM, gone, gone, Delete(ProtocolID.ESP, (bytes(4),)))
    assert answer.payloads == (Delete(ProtocolID.ESP, (child.inbound.spi,)),)
    assert [type(e) for e in events(bob)].count(ChildClosed) == 1
    _, bob = shaken()
    child, = bob.children.values()
    later = [to(bob, exchange, Delete(ProtocolID.IKE), message_id=bob.window.expected_id + 1)
             for exchange in (CREATE, INFORM)]
    clear = Packet(INFORM, (Delete(ProtocolID.IKE),)).encode(
        bob.spi_i, bob.spi_r, response=False, initiator=True, message_id=bob.window.expected_id + 1)
    data = to(bob, INFORM, Delete(ProtocolID.IKE), Delete(ProtocolID.IKE),
              Delete(ProtocolID.ESP, (child.outbound.spi,)), Notify(MessageType.AUTHENTICATION_FAILED))
    bob.receive_datagram(data, ALICE, 0)
    assert len(bob.datagrams_to_send()) == 1 and bob.state == State.CLOSED and not bob.children
    kinds = [type(e) for e in events(bob)]
    assert kinds.count(ChildClosed) == kinds.count(Closed) == 1
    for data in *later, clear:
        bob.receive_datagram(data, ALICE, 0)
        dropped, = events(bob)
        assert isinstance(dropped, Dropped) and 'is closed' in dropped.reason
        assert not bob.datagrams_to_send()


def test_pieces_are_for_those_who_have_agreed_on_them() -> None:
    "S48: and one that is not authentic takes no memory. (tests/test_fragment.py has all the numbers.)"
    pieces = split(shaken()[0].outgoing, Packet(INFORM, (Vendor(bytes(3000)),)), *[bytes(range(1, 9))] * 2,
                   response=False, initiator=True, message_id=2, random=bytes, room=576)
    assert len(pieces) > 3
    for datagram in 0, 1280:
        alice, bob = shaken(datagram=datagram)
        assert bob.agreed.fragments == (datagram > 0)
        if datagram: events(bob)
        for forged in pieces:
            before = snapshot(bob)
            bob.receive_datagram(bob.spi_i + bob.spi_r + forged[16:], ALICE, 0)
            assert snapshot(bob) == before and not bob.window.pieces[0].pieces and not bob.datagrams_to_send()
            assert isinstance(events(bob)[0], Dropped)
        true = split(alice.outgoing, Packet(INFORM, (Vendor(bytes(3000)),)), bob.spi_i, bob.spi_r,
                     response=False, initiator=True, message_id=2, random=bytes, room=576)
        for piece in true: bob.receive_datagram(piece, ALICE, 0)
        assert len(bob.datagrams_to_send()) == (datagram > 0)


@both
def test_a_name_of_65000_octets(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    "S49: it is refused, and said in a line."
    left, right = quick()
    for kind in IDType.FQDN, IDType.KEY_ID, IDType.DER_ASN1_DN, IDType(200):
        for octets in b'a' * 65000, bytes(65000):
            long = Identity(kind, octets)
            assert len(str(long)) <= 256
            monkeypatch.setattr(ike_sa, 'find_config', lambda ike, identity, wanted: ike.config)
            monkeypatch.setattr(protocol, 'split', whole)
            one, other = replace(left, local_id=long), right
            if who == 'bob': one, other = left, replace(right, local_id=long)
            attempt, bob = two_ends(RESPONDERS, one, other)
            alice, _ = handshake(attempt, bob)
            reader = bob if who == 'alice' else alice
            told_ = [(reader, e) for e in events(reader)]
            assert alice.state == bob.state == State.CLOSED
            assert 'we expect' in ' '.join(shown(told_)) and max(map(len, shown(told_))) < 3000


def whole(sk_: SK, packet: Packet, spi_i: bytes, spi_r: bytes, *, response: bool, initiator: bool,
          message_id: int, random: Callable, room: int) -> tuple[bytes, ...]:
    "In one piece, however long it is."
    return (sk_.seal(packet, spi_i, spi_r, response=response, initiator=initiator,
                     message_id=message_id, random=random),)


def test_noise_leaves_no_memory_behind() -> None:
    "S50: nothing is kept for what was dropped."
    alice, _ = two_ends(RESPONDERS, *quick())
    alice.start(ike_sa_init, now=0)
    good = alice.datagrams_to_send()[0].data
    rng, bob = random.Random(7296), Host((quick()[1],))  # noqa: S311
    sa = int.from_bytes(good[30:32], 'big')  # octets of the SA payload

    def noise(first: int, last: int) -> None:
        for n in range(first, last):
            data = bytearray(good) if n % 2 else bytearray(rng.randbytes(rng.randrange(200)))
            for _ in range(3 * (n % 2)): data[rng.randrange(28, 200)] = rng.randrange(256)
            if n % 2: data[30:32] = rng.randrange(4, sa).to_bytes(2, 'big')
            bob.receive_datagram(bytes(data), ELSEWHERE, n / 100, BOB)
            bob.datagrams_to_send()
            while bob.next_event(): continue
    noise(0, 300)
    gc.collect()
    tracemalloc.start()
    noise(300, 500)
    before, _ = tracemalloc.get_traced_memory()
    noise(500, 1500)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not bob.sas and not bob.transient and not bob.first and not bob.timers.heap
    assert after - before < 20_000


def padded(message: bytes, size: int) -> bytes:
    "Return an IKE_SA_INIT message with Vendor IDs at its end, so that it has so many octets."
    packet = Packet.parse(Reader(message))
    room, vendors = size - len(message), list[Vendor]()
    while room > 4004: vendors, room = [*vendors, Vendor(bytes(1996))], room - 2000
    header = packet.header
    assert header
    return replace(packet, payloads=(*packet.payloads, *vendors, Vendor(bytes(room - 4)))).encode(
        header.spi_i, header.spi_r, response=header.response, initiator=header.initiator, message_id=0)


@pytest.mark.parametrize('more', [0, 1])
def test_what_nobody_can_vouch_for_is_not_long(more: int) -> None:
    "S50: neither end takes an IKE_SA_INIT of more than 10,000 octets apart; the true one counts after it."
    left, right = quick()
    alice, bob = Host(), Host((right,))
    alice.connect(left, ALICE, BOB, now=0)
    for end, other, there, here in (bob, alice, ALICE, BOB), (alice, bob, BOB, ALICE):
        message = other.datagrams_to_send()[0].data
        long = padded(message, 10_000 + more)
        assert len(long) == FIRST_LIMIT + more
        while end.next_event(): continue
        end.receive_datagram(long, there, 0, here)
        said = [event for _, event in iter(end.next_event, None)]
        if more:
            assert [type(event) for event in said] == [Dropped]
            assert not end.datagrams_to_send() and len(end.sas) == (end is alice)
            end.receive_datagram(message, there, 0, here)
        else: assert not any(isinstance(event, Dropped) for event in said)


def test_states_change_as_the_table_says() -> None:
    "S51: no message leads from one state to another in any other way, and none surprises anybody."
    for old in State:
        for new in State:
            ike, _ = two_ends(RESPONDERS, *quick())
            ike.state = old
            if new in TRANSITIONS[old]: ike.become(new)
            else:
                with pytest.raises(RuntimeError): ike.become(new)
    for exchange in (*range(34), *range(38, 43), 99, 239, 240, 255):  # none that we serve
        for who in 0, 1:
            end = shaken()[who]
            for response in True, False:  # that answers nothing; that asks for what nobody does
                before = len(end.children)
                end.receive_datagram(to(end, exchange, response=response), end.remote, 0)
                assert end.state == (State.ESTABLISHED if response else State.CLOSED)
                assert response == (len(end.children) == before)
    for exchange in INIT, ExchangeType.IKE_INTERMEDIATE, AUTHENTICATE:  # whose time is over
        for who in 0, 1:
            end = shaken()[who]
            for message_id in range(4):
                for response in False, True:
                    bombard(end, to(end, exchange, message_id=message_id, response=response))


# Strangers

def test_strangers_fill_nothing() -> None:
    "S52: who only calls answers nobody; who takes calls keeps a few, and asks the others for a cookie."
    left, right = quick()
    quiet, bob = Host(), Host((right,))
    amount = Counter()
    for n in range(300):
        ike = IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS)
        ike.start(ike_sa_init, now=0)
        data, addr = ike.datagrams_to_send()[0].data, Endpoint(f'198.51.100.{n % 250}', 1000 + n)
        quiet.receive_datagram(data, addr, n / 100, ALICE)
        assert not quiet.datagrams_to_send() and not quiet.sas
        bob.receive_datagram(data, addr, n / 100, BOB)
        answer, = bob.datagrams_to_send()
        cookie = Packet.parse(Reader(answer.data)).notify(MessageType.COOKIE)
        amount['cookies'] += cookie is not None
        if cookie: assert len(answer.data) < len(data) and answer.destination == addr
    assert len(bob.sas) == len(bob.transient) == COOKIE_THRESHOLD
    assert amount['cookies'] == 300 - COOKIE_THRESHOLD
    generous = Host((right,), cookie_threshold=10 ** 6)
    for n in range(TRANSIENT_LIMIT + 50):
        ike = IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS)
        ike.start(ike_sa_init, now=0)
        generous.receive_datagram(ike.datagrams_to_send()[0].data, ALICE, n / 100, BOB)
        assert len(generous.sas) <= TRANSIENT_LIMIT and len(generous.first) <= TRANSIENT_LIMIT


def test_noise_from_anywhere_disturbs_no_handshake() -> None:
    "S53: whatever comes in between, from an address that nobody knows or from the peer's."
    left, right = quick()
    alice, bob = Host(), Host((right,))
    attempt = alice.connect(left, ALICE, BOB, now=0)
    rng = random.Random(7296)  # noqa: S311
    told_: list[Event] = []

    def disturb(true: bytes) -> None:
        bad = [b'', b'\xff', bytes(10), true[:10], true[:-1], true + b'\0', true[:28], rng.randbytes(300)]
        # in IKE_SA_INIT most changes make another answer, which is put to the proof (the next test)
        places = (*range(8), 18, *range(20, 28)) if true[18] == INIT else range(len(true))
        bad += [true[:at] + bytes([true[at] ^ 1]) + true[at + 1:] for at in places]
        for host, here, peer in (alice, ALICE, BOB), (bob, BOB, ALICE):
            for data in bad:
                for addr in ELSEWHERE, peer._replace(port=4500), Endpoint('2001:db8::66', 1):
                    host.receive_datagram(data, addr, 0, here)
    for _ in range(6):
        for one, other, here in (alice, bob, BOB), (bob, alice, ALICE):
            for d in one.datagrams_to_send():
                if d.destination != here: continue  # what noise has been told
                if not alice.established: disturb(d.data)
                other.receive_datagram(d.data, d.source, 0, d.destination)
        for host in alice, bob:
            while found := host.next_event(): told_.append(found[1])
    assert len(alice.established) == 1 and attempt.lineage.new_sas
    assert [e for e in told_ if isinstance(e, ChildEstablished)][:1]
    assert sum(isinstance(e, Dropped) for e in told_) > 100


def test_the_first_answer_does_not_win_by_being_first() -> None:
    "S54: Mallory's answers are as good as Bob's, until they are put to the proof. (And SPIs are no guess.)"
    left, right = quick()
    alice, bob = Host(), Host((right,))
    attempt = alice.connect(left, ALICE, BOB, now=0)
    first, = alice.datagrams_to_send()
    asked = {}
    liars = [Host((replace(right, trust=SharedKey(b'x'), credential=SharedKey(b'x')),)) for _ in range(3)]
    for host in (*liars, bob):
        host.receive_datagram(first.data, ALICE, 0, BOB)
        alice.receive_datagram(host.datagrams_to_send()[0].data, BOB, 0, ALICE)
        asked[host], = alice.datagrams_to_send()
    assert len(attempt.lineage.new_sas) == 4 and not alice.established
    for host, d in asked.items():
        host.receive_datagram(d.data, ALICE, 0, BOB)
        for answer in host.datagrams_to_send(): alice.receive_datagram(answer.data, BOB, 0, ALICE)
    up, = alice.established
    assert up.spi_r == bob.established[0].spi_r and up.child
    spis = {IKE(left, ALICE, BOB, initiator=True, responders=RESPONDERS).spi_i for _ in range(100)}
    assert len(spis) == 100 and {len(spi) for spi in spis} == {8}


PSS = identifier_of('RSA-PSS with SHA2-256')
ODD_PSS = {
    'a salt of 2^31': PSS[:-3].replace(b'\x30\x41', b'\x30\x44', 1) + h('020480000000'),
    'a salt of -1': PSS[:-1] + b'\xff', 'a salt of 0': PSS[:-1] + b'\0', 'a salt of 21': PSS[:-1] + b'\x15',
    'no salt': PSS[:-5], 'no mask': PSS[:30], 'no parameters': PSS[:13], 'NULL': PSS[:13] + h('0500'),
    'an endless length': PSS[:14] + h('84ffffffff') + PSS[15:],
    'an open length': PSS[:14] + b'\x80' + PSS[15:]}


class Untouchable:
    "A key that may not be asked for anything."

    def __getattr__(self, name: str) -> object: pytest.fail(f'the key was asked for {name}')


@pytest.mark.parametrize('what', ODD_PSS)
def test_odd_parameters_never_reach_the_library(what: str) -> None:
    "S55: a signature algorithm is one of 34 rows of octets, or it is refused."
    assert ODD_PSS[what] not in ENCODINGS
    for signature in b'', bytes(256), b'\xff' * 256, bytes(5000):
        with pytest.raises(AuthenticationFailed, match='is not accepted'):
            verify(Untouchable(), OCTETS, with_identifier(ODD_PSS[what], signature))


def test_an_algorithm_identifier_is_compared_whole() -> None:
    "S56: a length beyond the end, octets behind it, a hash that we have not announced."
    signature = KEYS_BY_NAME['RSA 2048'].sign(OCTETS, padding.PKCS1v15(), hashes.SHA256())
    good, sha1 = identifier_of('RSA with SHA2-256'), h('300d06092a864886f70d0101050500')
    assert verify(KEYS_BY_NAME['RSA 2048'].public_key(), OCTETS, with_identifier(good, signature))
    for size in (*range(len(good)), *range(len(good) + 1, 256)):
        with pytest.raises(AuthenticationFailed, match='is not accepted'):
            verify(Untouchable(), OCTETS, AUTH(AuthenticationType.DIGITAL_SIGNATURE,
                                               bytes([size]) + good + signature))
    for other in sha1, good + b'\0', good[:-2], b'\x30\x0c' + good[2:-1], b'\x31' + good[1:]:
        with pytest.raises(AuthenticationFailed, match='is not accepted'):
            verify(Untouchable(), OCTETS, with_identifier(other, signature))
    announced = {int.from_bytes(hash_algorithms().data[n:n + 2], 'big') for n in range(0, 8, 2)}
    assert announced == {scheme.announced for scheme in SCHEMES.values()} == {2, 3, 4, 5}


E_ZERO = h('301a300d06092a864886f70d0101010500030900300602017f020100')  # n = 127, e = 0
JUNK = [b'', b'\0', b'0', b'0\x80', b'0\x84\xff\xff\xff\xff', E_ZERO, NOISE, b'\x30\x82\x01\x00' + NOISE]


@pytest.mark.parametrize('kind', ['PSK', 'ECDSA', 'certificate'])
@both
def test_certificates_of_any_content(monkeypatch: pytest.MonkeyPatch, who: str, kind: str) -> None:
    "S57: junk beside a proof changes nothing; as the first certificate it proves nothing."
    junk = [CERT(CertEncoding(n), data) for n in (0, 1, 4, 7, 11, 12, 13, 15, 200) for data in JUNK]
    for exchange in INIT, AUTHENTICATE: lying(monkeypatch, who, exchange, lambda p: [*p, *junk[:-9]])
    alice, bob = met(*pair(kind))
    assert (alice.state == State.ESTABLISHED) == (kind != 'certificate')
    if kind != 'certificate': return
    for first in junk:
        with monkeypatch.context() as patched:
            lying(patched, who, AUTHENTICATE, lambda p, first=first: [
                first, *(one for one in p if type(one) is not CERT)])
            ends = met(*pair(kind))
        assert [end.state for end in ends] == [State.CLOSED] * 2


@pytest.mark.parametrize('encoding', [12, 13])
def test_a_url_is_not_followed(monkeypatch: pytest.MonkeyPatch, encoding: int) -> None:
    "S58: whatever it is, and whoever has sent it."
    for name in 'socket', 'create_connection', 'getaddrinfo':
        monkeypatch.setattr(socket, name, lambda *args, **kwargs: pytest.fail('a socket'))
    _, right = pair('certificate')
    for url in b'http://127.0.0.1:9/', b'file:///etc/passwd', b'', NOISE:
        with pytest.raises(AuthenticationFailed, match='we never fetch'):
            right.trust.certified([CERT(CertEncoding(encoding), bytes(20) + url)], right.remote_id)


def test_nothing_of_a_peers_is_kept_for_later() -> None:
    "S59: what is remembered by its content is ours: words of the command line, and names of files."
    cached = {f'{name}.{node.name}' for name, node in nodes() if isinstance(node, ast.FunctionDef)
              for d in node.decorator_list if ast.unparse(d).partition('(')[0] in (
                  'cache', 'lru_cache', 'functools.cache', 'functools.lru_cache')}
    assert cached == {'selftest.complaint', 'options.passphrase', 'options._private_key'}
    left, right = quick()
    bob, random_ = Host((right,)), random.Random(7296).randbytes  # noqa: S311
    sizes = []
    for n in range(90):
        alice = Host(random=random_)
        named = replace(left, local_id=Identity(IDType.KEY_ID, random_(100)))
        alice.connect(named, ALICE, BOB, now=n)
        for _ in range(4):
            for one, other in (alice, bob), (bob, alice):
                for d in one.datagrams_to_send():
                    other.receive_datagram(d.data, d.source, n, d.destination)
                while one.next_event(): continue
        kept = bob.sas, bob.transient, bob.first, bob.timers.due, bob.attempts
        sizes.append(sum(map(len, kept)))
    assert max(sizes[40:]) <= max(sizes[:40]) and not bob.established


# The box

def test_nothing_is_decrypted_before_it_is_known_to_be_authentic(monkeypatch: pytest.MonkeyPatch) -> None:
    "S60: or padding would answer questions. There is one answer, which is none."
    _, bob = shaken(ike='camellia256-sha256-x25519')
    good = to(bob, INFORM)
    monkeypatch.setattr(sk, 'decrypt', lambda *args: pytest.fail('decrypted'))
    reasons = set()
    for at in range(32, len(good)):
        events(bob)
        bob.receive_datagram(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1:], ALICE, 0)
        reasons |= {e.reason for e in events(bob)}
        assert not bob.datagrams_to_send()
    assert reasons == {'the message is not authentic'}


def test_no_vector_twice() -> None:
    "S61: a counter for each direction, and what is sent again is sent as it was."
    alice, bob = shaken()
    seals = [alice.outgoing, bob.outgoing]
    for seal in seals:
        assert len({seal.cipher.new_iv(bytes) for _ in range(10_000)}) == 10_000
    assert seals[0].sk_e != seals[1].sk_e
    alice.start(liveness, now=0)
    sent = [d.data for d in alice.datagrams_to_send()]
    while len(sent) < 4 and (at := alice.next_timer()) is not None:
        alice.handle_timer(at)
        sent += [d.data for d in alice.datagrams_to_send()]
    assert len(sent) == 4 and len(set(sent)) == 1


@pytest.mark.parametrize('ike', [
    'aes256gcm16-prfsha256-x25519', 'aes128gcm8-prfsha256-x25519', 'aes256ccm12-prfsha256-x25519',
    'chacha20poly1305-prfsha256-x25519', 'camellia256-sha256-x25519', 'aes256ctr-aesxcbc-prfsha256-x25519'])
def test_a_box_that_is_too_small(ike: str) -> None:
    "S62: a checksum is there whole, or the message is not looked at."
    _, bob = shaken(ike=ike)
    good = to(bob, INFORM)
    for size in range(100):
        body = (bytes(size), good[32:32 + size], good[len(good) - min(size, len(good) - 32):])
        for octets in body:
            box = b'\0\0' + (4 + len(octets)).to_bytes(2, 'big') + octets
            data = good[:16] + good[16:24] + (28 + len(box)).to_bytes(4, 'big') + box
            if data != good: bombard(bob, data)
    bob.receive_datagram(good, ALICE, 0)
    assert len(bob.datagrams_to_send()) == 1


# The kernel

def test_each_spi_is_its_receivers() -> None:
    "S63: we send under the SPI that the peer has named, and receive under the one that we have named."
    attempt, bob = two_ends(RESPONDERS, *quick('aes256-sha256-x25519', 'aes256-sha256'))
    alice, _ = handshake(attempt, bob)
    named = {end: next(e.packet.one(SA).proposals[0].spi for e in events(end)
                       if isinstance(e, Message) and e.sent and e.packet.exchange_type == AUTHENTICATE)
             for end in (alice, bob)}
    for end, other in (alice, bob), (bob, alice):
        assert end.child.inbound.spi == named[end] and end.child.outbound.spi == named[other]
        assert (end.child.inbound.source, end.child.inbound.destination) == (other.local.host, end.local.host)
        line = next(line for line in xfrm_script(end.child, show_keys=True).splitlines()
                    if f'spi 0x{named[other].hex()}' in line)
        assert f'src {end.local.host} dst {other.local.host} ' in line
    scripts = [sorted(line.partition(' reqid ')[0] + line.partition(' mode ')[2] for line in xfrm_script(
        end.child, show_keys=True).splitlines() if ' state ' in line) for end in (alice, bob)]
    assert scripts[0] == scripts[1] and len(set(scripts[0])) == 2


def test_checksums_are_as_long_as_agreed() -> None:
    "S64: Linux cuts `hmac(sha256)` to 96 bits unless it is told how long it is."
    for esp, words in (('aes256-sha256', 'auth-trunc hmac(sha256) 0x{} 128'),
                       ('aes256-sha384', 'auth-trunc hmac(sha384) 0x{} 192'),
                       ('aes256-sha512', 'auth-trunc hmac(sha512) 0x{} 256')):
        alice, _ = shaken(esp=esp)
        lines = xfrm_script(alice.child, show_keys=True).splitlines()[:2]
        for line, sa in zip(lines, (alice.child.inbound, alice.child.outbound), strict=True):
            assert line.endswith(words.format(sa.integ_key.hex())) and ' auth hmac' not in line
    assert 'cuts HMAC-SHA2-256 to 96 bits' in setkey_limitation(shaken(esp='aes256-sha256')[0].child)


def test_sequence_numbers_of_64_bits_are_not_agreed_on() -> None:
    "S65: we install none, so we neither offer them nor choose them nor take them for an answer."
    offered = parse_proposals(f'{DEFAULT_ESP},aes256-sha256-modp2048', ProtocolID.ESP)
    assert {t.id for p in offered for t in p.of_type(TransformType.ESN)} == {Esn.NO_ESN}
    esn = Transform(TransformType.ESN, Esn.ESN)
    for p in offered:
        other = replace(p, transforms=tuple(esn if t.type == TransformType.ESN else t for t in p.transforms))
        with pytest.raises(IkeError): choose(SA((other,)), (p,))
        one = tuple({t.type: t for t in other.transforms}.values())
        with pytest.raises(IkeError): check_choice((p,), SA((replace(other, transforms=one),)))
        both_ = replace(p, transforms=(*p.transforms, esn))
        assert choose(SA((both_,)), (p,)).single(TransformType.ESN).id == Esn.NO_ESN


def test_the_kernel_is_told_to_refuse_replays() -> None:
    "S66: a window of at least 32 packets, in each SA and in both languages."
    alice, _ = shaken(esp='aes256-sha256')
    for script, words in (xfrm_script(alice.child), ' replay-window '), (setkey_script(alice.child), ' -r '):
        sas = [line for line in script.splitlines() if ' state add ' in line or line.startswith('add ')]
        assert len(sas) == 2
        for line in sas: assert int(line.partition(words)[2].split()[0]) >= 32


# The host

METACHARACTERS = b'$(touch x)`id`;|&\n>\'"\\ xfrm state flush\n\x1b[2J'


def test_what_a_peer_says_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    "S70: of all that a peer says, only numbers and addresses get as far as the kernel's program."
    named = Identity(IDType.KEY_ID, METACHARACTERS)
    for who in 'alice', 'bob':
        for exchange in INIT, AUTHENTICATE:
            lying(monkeypatch, who, exchange, lambda payloads: [
                *payloads, Vendor(METACHARACTERS), Notify(MessageType(40001), METACHARACTERS)])
    left, right = quick('aes256-sha256-x25519', 'aes256-sha256')
    alice, bob = met(replace(left, local_id=named), replace(right, remote_id=named))
    ran = []
    monkeypatch.setattr(install, 'run_setkey', lambda command, script='', keep=(): ran.append(
        (command, script)) or '')
    for language in XFRM, SETKEY:
        Installer(language, 3).add(ChildEstablished(replace(
            bob.child, inbound=replace(bob.child.inbound, integ=SHA512),
            outbound=replace(bob.child.outbound, integ=SHA512))), named)
    assert [command for command, _ in ran] == [XFRM.command, SETKEY.command]
    for _, script in ran:
        assert re.fullmatch(r'((xfrm (state|policy) add|add|spdadd) [\w ./:()\[\]-]+;?\n)+', script), script
        assert 'touch' not in script and 'flush' not in script
    assert all(type(word) is str for command, _ in ran for word in command)
    shown([(end, e) for end in (alice, bob) for e in events(end)])


SHA512 = Transform(TransformType.INTEG, Integrity.HMAC_SHA2_512_256)
OURS = XFRM_MARKS.reqid(7, 1)
OTHERS = (0, 1, 16383, 0x48ffffff, 0x4a000000, 0x490001, 0x070001, 0x48070001, 0x4a070001,
          XFRM_MARKS.reqid(8, 1))


def listed() -> tuple[str, str]:
    "What `ip xfrm` shows of policies and SAs: one of ours, and those of others."
    policies = ''.join(
        f'src 10.1.{n}.0/24 dst 10.2.0.0/24 uid 0\n\tdir out action allow index {81 + 8 * n} priority 1808 '
        f'share any flag  (0x00000000)\n\ttmpl src 192.0.2.1 dst 192.0.2.2\n\t\tproto esp spi 0x00000000(0) '
        f'reqid {reqid}(0x{reqid:08x}) mode tunnel\n' for n, reqid in enumerate((OURS, *OTHERS)))
    states = ''.join(
        f'src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x{1000 + n:08x}({1000 + n}) reqid {reqid}'
        f'(0x{reqid:08x}) mode tunnel\n\treplay-window 32\n' for n, reqid in enumerate((OURS, *OTHERS)))
    return policies, states


def test_what_others_have_put_into_the_kernel_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    "S71: neither at the start nor at the end, nor when we clean up after one of ours that was killed."
    scripts: list[str] = []

    def run(command: tuple[str, ...], script: str = '', keep: object = ()) -> str:
        if script: scripts.append(script)
        return '' if script else listed()['state' in command]
    for module in entries, install: monkeypatch.setattr(module, 'run_setkey', run)
    only_ours = 'xfrm policy delete index 81 dir out\nxfrm state delete src 192.0.2.1 dst 192.0.2.2 ' \
                'proto esp spi 0x000003e8\n'
    Installer(XFRM, 7).leave()
    assert scripts == [only_ours]
    monkeypatch.setattr(entries, 'held', lambda program: program != 7)
    assert cleanup(XFRM) == 2 and scripts == [only_ours] * 2
    monkeypatch.setattr(entries, 'held', lambda program: True)
    assert cleanup(XFRM) == 0 and len(scripts) == 2
    words = {node.value for _, node in nodes()
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not [word for word in words if 'flush' in word]


def test_keys_reach_the_kernels_program_by_a_pipe(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "S72: no file, no argument, no environment; and if the program fails and repeats them, we do not."
    folder = tmp_path / 'bin'
    for name in 'bin', 'tmp', 'seen': (tmp_path / name).mkdir()
    fake = folder / 'ip'
    fake.write_text(f'#!/bin/sh\ncd {tmp_path}/seen\necho "$@" > argv\nenv > environment\ncat > read\n'
                    'cat read >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))
    monkeypatch.setenv('SECRET', 'not for everybody')
    monkeypatch.chdir(tmp_path / 'tmp')
    child, = shaken(esp='aes256-sha256')[0].children.values()
    keys = [key_.hex() for sa in (child.inbound, child.outbound) for key_ in (sa.encr_key, sa.integ_key)]
    with pytest.raises(InstallError) as caught: Installer(XFRM, 3).run(XFRM.lines(child, 1))
    said = {path.name: path.read_text() for path in (tmp_path / 'seen').iterdir()}
    assert all(key_ in said['read'] for key_ in keys) and said['argv'] == '-batch -\n'
    assert 'xfrm state add' in str(caught.value) and not list((tmp_path / 'tmp').iterdir())
    for text in str(caught.value), said['argv'], said['environment']:
        assert not any(key_[:16] in text for key_ in keys) and 'not for everybody' not in text


def test_while_there_is_a_tunnel_there_is_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    "S74: through a rekeying, another choice of traffic, and the end of the old SAs."
    there: set[str] = set()
    gaps = []

    def run(installer: Installer, lines: list[str]) -> None:
        for line in lines:
            for verb, change in ('add', there.add), ('update', there.add), ('delete', there.discard):
                if line.startswith(f'xfrm policy {verb} '):
                    change(re.sub(r' priority .*', '', line.partition(f' {verb} ')[2]))
            gaps.append(not any('dir out' in policy for policy in there) and 'policy' in line)
    monkeypatch.setattr(Installer, 'run', run)
    monkeypatch.setattr(install, 'entries', lambda language: [])
    first = shaken()[0].child
    installer, children = Installer(XFRM, 3), [first]
    peer = Identity.from_text('bob.example.org')
    for n, local in enumerate(('10.1.0.0/24', '10.1.0.0/25', '10.1.0.0/24', '10.1.0.0/23'), 2):
        spi = bytes([9, 9, 9, n])
        children.append(replace(first, local_ts=(TrafficSelector.from_text(local),), inbound=replace(
            first.inbound, spi=spi), outbound=replace(first.outbound, spi=spi[::-1])))
    installer.add(ChildEstablished(first), peer)
    assert gaps and not any(gaps)
    for old, new in pairwise(children):
        installer.add(ChildEstablished(new, old, ours=new is not children[2]), peer)
        installer.close(old)
        assert any('dir out' in policy for policy in there)
    assert not any(gaps)
    assert {policy.partition(' dst ')[0] for policy in there if 'dir out' in policy} == {'src 10.1.0.0/23'}


def test_spis_that_name_nothing_or_something_else() -> None:
    "S75: below 256 they are reserved, and one that we have given away is taken."
    alice, _ = shaken()
    taken, = alice.children
    drawn = iter([bytes(4), h('00000001'), h('000000ff'), taken, taken, h('00000100')])
    alice.random = lambda size: next(drawn)
    assert new_spi(alice) == h('00000100')
    spis = {new_esp_spi(os.urandom) for _ in range(1000)}
    assert len(spis) > 990 and min(spis) >= h('00000100')
    for spi in bytes(4), h('00000001'), h('000000ff'):
        _, bob = shaken()
        esp, = bob.config.esp
        answer = ask(bob, CREATE, SA((replace(esp, spi=spi),)), Nonce(bytes(32)),
                     TSi(bob.child.remote_ts), TSr(bob.child.local_ts))
        assert answer.error().message_type == MessageType.NO_PROPOSAL_CHOSEN and len(bob.children) == 1


def test_nobody_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    "S76: without the right to take port 500 another one will do, and the service that we show has two."
    refused_: list[int] = []
    real = socket.socket.bind

    class Unprivileged(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:
            if 0 < address[1] < 1024:
                refused_.append(address[1])
                raise PermissionError(errno.EACCES, 'Permission denied')
            real(self, address)
    monkeypatch.setattr(driver.socket, 'socket', Unprivileged)
    with driver.open_socket(('127.0.0.1', 9), 500) as sock: assert sock.getsockname()[1] >= 1024
    assert refused_ == [500]
    shown = (PACKAGE.parent / 'docs' / 'operating.md').read_text()
    unit = shown.partition('[Service]')[2].partition('\n\n')[0]
    rights = 'CAP_NET_ADMIN CAP_NET_BIND_SERVICE'
    for line in ('User=ike-lit', f'AmbientCapabilities={rights}', f'CapabilityBoundingSet={rights}',
                 'NoNewPrivileges=yes'):
        assert f'    {line}\n' in unit
    calls = {ast.unparse(node.func) for _, node in nodes() if isinstance(node, ast.Call)}
    assert not [call for call in calls if re.search(r'\b(set(e|re|res)?[ug]id|system|popen|exec\w*)$', call)]


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    "S77: by `hmac.compare_digest` and nothing else: when it says no, what is right is refused."
    right = SECRET.prove(Prf.PRF_HMAC_SHA2_256, OCTETS)
    _, bob = shaken(ike='aes256-sha256-x25519')
    cookies = Cookies(bytes)
    cookie = cookies.bake(0, b'nonce', b'spi', ALICE)
    good = to(bob, INFORM)
    assert SECRET.verify(Prf.PRF_HMAC_SHA2_256, OCTETS, right)
    assert cookies.good(cookie, 0, b'nonce', b'spi', ALICE)
    monkeypatch.setattr(hmac, 'compare_digest', lambda a, b: False)
    with pytest.raises(AuthenticationFailed): SECRET.verify(Prf.PRF_HMAC_SHA2_256, OCTETS, right)
    assert not cookies.good(cookie, 0, b'nonce', b'spi', ALICE)
    bombard(bob, good)
    monkeypatch.setattr(hmac, 'compare_digest', lambda a, b: True)
    assert SECRET.verify(Prf.PRF_HMAC_SHA2_256, OCTETS, AUTH(right.method, b'?'))
    assert cookies.good(cookie[:1], 0, b'nonce', b'spi', ALICE)
    bob.receive_datagram(good[:-1] + b'?', ALICE, 0)
    assert len(bob.datagrams_to_send()) == 1
