"""Whole handshakes with every kind of proof, and all those who lie about who they are."""
from collections.abc import Callable
from dataclasses import replace

import pytest
from authority import Holder, ed_key, issue, key, names, revocations, trusting
from canonical import KEYS, configs, private_key, two_ends
from cryptography.hazmat.primitives.asymmetric import ec
from ike_lit.engine import ike_sa, protocol
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.informational import liveness
from ike_lit.engine.model import ChildEstablished, Closed, Config, Established, Message
from ike_lit.engine.proof import choose_method
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, deliver, events, family, handshake, talk
from ike_lit.wire.auth import AUTH, IDi, IDr, Identity, SharedKey, sign, signed_octets
from ike_lit.wire.certificate import CERT, CERTREQ, Signer, spki
from ike_lit.wire.const import AuthenticationType, CertEncoding, ExchangeType, MessageType, Prf, Type
from ike_lit.wire.header import Reader
from ike_lit.wire.payload import Opaque, Packet, Payload
from test_certificate import MIDDLE, OTHER, ROOT

SECRET = SharedKey(b'correct horse battery staple')
EXCHANGE, X509 = ExchangeType.IKE_AUTH, CertEncoding.X509_SIGNATURE
NAMES = {'alice': 'alice.example.org', 'bob': 'bob.example.org'}
OWN = {'alice': key(101), 'bob': key(102)}
HELD = {who: issue(f'CN={who}', OWN[who], MIDDLE, names(NAMES[who])) for who in NAMES}
EDWARDS = {who: issue(f'CN={who}', ed_key(ord(who[0])), MIDDLE, names(NAMES[who])) for who in NAMES}
P384 = {who: ec.derive_private_key(ord(who[0]), ec.SECP384R1()) for who in NAMES}
RSA_KEYS = {'alice': private_key(KEYS / 'initiator.key'), 'bob': private_key(KEYS / 'responder.key')}


def chain(holder: Holder, *others: Holder) -> Signer:
    return Signer(holder.key, tuple(h.der for h in (holder, *others)))


# How an end proves itself, and what the other believes; for each name
KINDS: dict[str, Callable] = {
    'PSK': lambda who: (SECRET, SECRET),
    'RSA': lambda who: (Signer(RSA_KEYS[who]), RSA_KEYS[who].public_key()),
    'PSS': lambda who: (Signer(RSA_KEYS[who], pss=True), RSA_KEYS[who].public_key()),
    'ECDSA': lambda who: (Signer(P384[who]), P384[who].public_key()),
    'Ed25519': lambda who: (Signer(EDWARDS[who].key), EDWARDS[who].key.public_key()),
    'certificate': lambda who: (chain(HELD[who], MIDDLE), trusting(ROOT)),
    'Ed25519 certificate': lambda who: (chain(EDWARDS[who], MIDDLE), trusting(ROOT)),
    'certificate, known by key': lambda who: (chain(HELD[who], MIDDLE), OWN[who].public_key())}
PROVEN = {'PSK': 'method 2, shared key', 'RSA': 'RSA with SHA2-256, key of 2048 bits', 'PSS': 'RSA-PSS',
          'ECDSA': 'ECDSA with SHA2-384, key on P-384', 'Ed25519': 'method 14, Ed25519',
          'certificate': 'P-256, certified by CN=middle', 'Ed25519 certificate': 'certified by CN=middle',
          'certificate, known by key': 'method 14, ECDSA with SHA2-256, key on P-256'}


def pair(alices: str = 'certificate', bobs: str = '', **changes: object) -> tuple[Config, Config]:
    "Return configurations in which Alice proves herself in one way, Bob in the same or another."
    left, right = configs(**changes)
    proof_a, trust_a = KINDS[alices]('alice')
    proof_b, trust_b = KINDS[bobs or alices]('bob')
    return (replace(left, credential=proof_a, trust=trust_b),
            replace(right, credential=proof_b, trust=trust_a))


def met(left: Config, right: Config) -> tuple[IKE, IKE]:
    return handshake(*two_ends(RESPONDERS, left, right))


def told(ike: IKE) -> tuple[dict[type, list], list[Packet]]:
    "What an end has told, by kind, and the messages that it has sent."
    seen = events(ike)
    kinds = {kind: [e for e in seen if isinstance(e, kind)]
             for kind in (Established, ChildEstablished, Closed)}
    return kinds, [e.packet for e in seen if isinstance(e, Message) and e.sent]


def refused_by_bob(alice: IKE, bob: IKE, words: str = '',
                   error: MessageType = MessageType.AUTHENTICATION_FAILED) -> None:
    kinds, sent = told(bob)
    assert [p.message_type for p in sent[-1].payloads] == [error]
    assert sent[-1].exchange_type == EXCHANGE
    assert not kinds[Established] and not kinds[ChildEstablished]
    assert words in str(kinds[Closed][0].error), str(kinds[Closed][0].error)
    over(bob)
    over(alice)
    kinds, _ = told(alice)
    assert not kinds[Established] and not kinds[ChildEstablished]


def refused_by_alice(alice: IKE, bob: IKE, words: str = '') -> None:
    kinds, sent = told(alice)
    assert sent[-1].exchange_type == ExchangeType.INFORMATIONAL
    # §2.21.2: a message that can't be read is told as that, everything else as one thing
    malformed = kinds[Closed][0].error.type == MessageType.INVALID_SYNTAX
    expected = MessageType.INVALID_SYNTAX if malformed else MessageType.AUTHENTICATION_FAILED
    assert [p.message_type for p in sent[-1].payloads] == [expected]
    assert not kinds[Established] and not kinds[ChildEstablished]
    assert words in str(kinds[Closed][0].error), str(kinds[Closed][0].error)
    over(alice)
    over(bob)  # he thought that all was well, and was told
    assert told(bob)[0][Closed][0].error.type == expected


def over(ike: IKE) -> None:
    "Nothing is left of it, and nothing will come of it."
    assert ike.state == State.CLOSED and not ike.children and ike.keys is None
    assert ike.next_timer() is None and not ike.datagrams_to_send()


# Those who are let in

@pytest.mark.parametrize('bobs', KINDS)
@pytest.mark.parametrize('alices', KINDS)
def test_every_proof_with_every_other_and_what_follows(alices: str, bobs: str) -> None:
    alice, bob = met(*pair(alices, bobs))
    assert PROVEN[bobs] in alice.agreed.proof and PROVEN[alices] in bob.agreed.proof
    pair_ = alice, bob
    for first in 0, 1:
        for conversation in rekey_ike_sa, rekey_child, liveness:
            one = family(pair_[first])[-1]
            args = list(one.children)[:1] if conversation is rekey_child else []
            one.start(conversation, *args, now=1)
            talk(*pair_, now=1)
    alice, bob = (family(end)[-1] for end in pair_)
    assert pair_[0].lineage.successor and alice.state == bob.state == State.ESTABLISHED
    assert alice.keys == bob.keys and len(alice.children) == len(bob.children) == 1
    assert PROVEN[bobs] in alice.agreed.proof and PROVEN[alices] in bob.agreed.proof


def in_init(alices: str, bobs: str) -> tuple[list[Payload], list[Payload]]:
    "The payloads of the two IKE_SA_INIT messages."
    alice, bob = two_ends(RESPONDERS, *pair(alices, bobs))
    alice.start(ike_sa_init, now=0)
    return tuple(Packet.parse(Reader(deliver(one, other)[0])).payloads
                 for one, other in ((alice, bob), (bob, alice)))


@pytest.mark.parametrize('bobs', KINDS)
@pytest.mark.parametrize('alices', KINDS)
def test_a_responder_asks_in_its_first_message_if_it_believes_in_authorities(
        alices: str, bobs: str) -> None:
    request, response = in_init(alices, bobs)
    assert not [p for p in request if p.kind in (Type.CERTREQ, Type.CERT)]
    asked = [p for p in response if p.kind == Type.CERTREQ]
    certified = alices in ('certificate', 'Ed25519 certificate')
    assert asked == [trusting(ROOT).request()] * certified
    assert not [p for p in response if p.kind == Type.CERT]


@pytest.mark.parametrize('bobs', KINDS)
@pytest.mark.parametrize('alices', KINDS)
def test_the_order_of_payloads_in_ike_auth(alices: str, bobs: str) -> None:
    "RFC 7296 §1.2: IDi, CERT, CERTREQ, IDr, AUTH and the rest; IDr, CERT, AUTH and the rest."
    alice, bob = met(*pair(alices, bobs))
    first, second = told(alice)[1][-1], told(bob)[1][-1]

    def certificates(who: str, kind: str) -> list[CERT]:
        return [CERT(X509, der) for der in KINDS[kind](who)[0].certificates] if kind != 'PSK' else []
    asks = [trusting(ROOT).request()] * (bobs in ('certificate', 'Ed25519 certificate'))
    shown, back = certificates('alice', alices), certificates('bob', bobs)
    kinds = [type(p) for p in first.payloads]
    assert kinds[:3 + len(shown) + len(asks)] == [
        IDi, *[CERT] * len(shown), *[CERTREQ] * len(asks), IDr, AUTH]
    assert first.all(CERT) == shown and first.all(CERTREQ) == asks
    assert [type(p) for p in second.payloads][:2 + len(back)] == [IDr, *[CERT] * len(back), AUTH]
    assert second.all(CERT) == back and not second.all(CERTREQ)


# Those who are not

def other_by(who: str, change: Callable, alices: str = 'certificate') -> tuple[IKE, IKE]:
    "A handshake in which one end's configuration was changed."
    left, right = pair(alices)
    return met(change(left), right) if who == 'alice' else met(left, change(right))


def credential(held: object) -> Callable: return lambda config: replace(config, credential=held)


def stranger(who: str, **how: object) -> Signer:
    "A certificate of the right name."
    return chain(issue(f'CN={who}', OWN[who], how.pop('by', MIDDLE), names(NAMES[who]), **how), MIDDLE)


WRONG: dict[str, tuple[str, Callable, str]] = {  # the other end's way, a credential, why it fails
    'a shared key for a certificate': ('certificate', lambda who: SECRET, 'we want a signature'),
    'a shared key for a key': ('RSA', lambda who: SECRET, 'we want a signature'),
    'the public key as a shared key': (
        'RSA', lambda who: SharedKey(spki(RSA_KEYS[who].public_key())), 'we want a signature'),
    'a signature for a shared key': ('PSK', lambda who: Signer(OWN[who]), 'only a shared key'),
    'a certificate for a shared key': ('PSK', lambda who: chain(HELD[who], MIDDLE), 'only a shared key'),
    'another shared key': ('PSK', lambda who: SharedKey(SECRET.secret + b'\n'), 'shared key is wrong'),
    'no shared key': ('PSK', lambda who: SharedKey(b''), 'shared key is wrong'),
    'another key': ('ECDSA', lambda who: Signer(OWN[who]), 'wrong for this key'),
    'another kind of key': ('ECDSA', lambda who: Signer(ed_key()), 'of another kind'),
    "the other end's name, certified": (
        'certificate', lambda who: chain(HELD['bob' if who == 'alice' else 'alice'], MIDDLE), 'not for'),
    'no certificate': ('certificate', lambda who: Signer(OWN[who]), 'sends no certificate'),
    'no middle': ('certificate', lambda who: chain(HELD[who]), 'no chain'),
    'the middle first': ('certificate', lambda who: Signer(OWN[who], (MIDDLE.der, HELD[who].der)),
                         "an authority's"),
    'a key that is not certified': (
        'certificate', lambda who: Signer(key(9), (HELD[who].der, MIDDLE.der)), 'wrong for this key'),
    'the key of the middle': (
        'certificate', lambda who: Signer(MIDDLE.key, (HELD[who].der, MIDDLE.der)), 'wrong for'),
    'expired': ('certificate', lambda who: stranger(who, days=(-9, -1)), 'expired'),
    'certified by another': ('certificate', lambda who: stranger(who, by=OTHER), 'no chain'),
    'signed by itself': ('certificate', lambda who: chain(issue(
        f'CN={who}', OWN[who], None, names(NAMES[who]))), 'signed by itself'),
    'a certificate of another key': ('ECDSA', lambda who: chain(HELD[who], MIDDLE), 'wrong for this key')}


@pytest.mark.parametrize('who', NAMES)
@pytest.mark.parametrize('what', WRONG)
def test_the_wrong_credential_lets_nobody_in(what: str, who: str) -> None:
    kind, held, words = WRONG[what]
    ends = other_by(who, credential(held(who)), kind)
    (refused_by_bob if who == 'alice' else refused_by_alice)(*ends, words)


@pytest.mark.parametrize('who', NAMES)
@pytest.mark.parametrize('kind', KINDS)
def test_another_name_lets_nobody_in(
        monkeypatch: pytest.MonkeyPatch, kind: str, who: str) -> None:
    "Nor does it matter that Bob says nothing when he is called by a name that is not his."
    monkeypatch.setattr(ike_sa, 'find_config', lambda ike, identity, wanted: ike.config)
    for name in ('mallory.example.org', 'alice.example.org.', '10.0.0.1', f'CN={NAMES[who]}',
                 '@#' + NAMES[who].encode().hex(), NAMES['bob' if who == 'alice' else 'alice']):
        mallory = Identity.from_text(name)
        ends = other_by(who, lambda config, m=mallory: replace(config, local_id=m), kind)
        (refused_by_bob if who == 'alice' else refused_by_alice)(*ends, 'we expect')


@pytest.mark.parametrize('who', NAMES)
def test_a_revoked_certificate_lets_nobody_in(who: str) -> None:
    left, right = pair()
    trust = trusting(ROOT, crls=(revocations(MIDDLE, 1000),))
    if who == 'alice': refused_by_bob(*met(left, replace(right, trust=trust)), 'was revoked')
    else: refused_by_alice(*met(replace(left, trust=trust), right), 'was revoked')


def changed(monkeypatch: pytest.MonkeyPatch, who: str, change: Callable, kind: str) -> tuple[IKE, IKE]:
    "A handshake in which one end's IKE_AUTH message is changed before it is sealed."
    encode = protocol.datagrams_for

    def lying(ike: IKE, packet: Packet, *, response: bool, message_id: int) -> tuple[bytes, ...]:
        if packet.exchange_type == EXCHANGE and ike.initiator == (who == 'alice'):
            payloads = list(packet.payloads)
            change(ike, payloads)
            packet = replace(packet, payloads=tuple(payloads))
        return encode(ike, packet, response=response, message_id=message_id)
    monkeypatch.setattr(protocol, 'datagrams_for', lying)
    return met(*pair(kind))


def at(payloads: list[Payload], kind: type) -> int:
    return next(n for n, p in enumerate(payloads) if type(p) is kind)


def edit(kind: type, change: Callable) -> Callable:
    "Replace the first payload of a kind by what `change` makes of it: several or none."
    def apply(ike: IKE, payloads: list[Payload]) -> None:
        n = at(payloads, kind)
        payloads[n:n + 1] = change(payloads[n])
    return apply


def as_method(number: int) -> Callable:
    return edit(AUTH, lambda auth: [AUTH(AuthenticationType(number), auth.data)])


def with_data(change: Callable) -> Callable:
    return edit(AUTH, lambda auth: [AUTH(auth.method, change(auth.data))])


def name(ike: IKE) -> type: return IDi if ike.initiator else IDr


def edit_name(change: Callable) -> Callable:
    return lambda ike, payloads: edit(name(ike), lambda i: [type(i).parse(Reader(change(i.body)))])(
        ike, payloads)


def swap_certificates(ike: IKE, payloads: list[Payload]) -> None:
    shown = [n for n, p in enumerate(payloads) if type(p) is CERT]
    for n, m in zip(shown[:1], shown[1:], strict=False):
        payloads[n], payloads[m] = payloads[m], payloads[n]


def proof_of_the_other_end(ike: IKE, payloads: list[Payload]) -> None:
    "Reflect: sign what the other end would have to sign, as if it were his."
    sk_p = ike.keys.sk_pr if ike.initiator else ike.keys.sk_pi
    octets = signed_octets(ike.first_messages[1], ike.nonces[0], Prf.PRF_HMAC_SHA2_256, sk_p,
                           payloads[at(payloads, name(ike))].body)
    n = at(payloads, AUTH)
    held = ike.config.credential
    payloads[n] = (held.prove(Prf.PRF_HMAC_SHA2_256, octets) if isinstance(held, SharedKey)
                   else sign(held.key, octets,
                             choose_method(ike.config, ike.agreed.peer_hashes)))


SYNTAX = {'two proofs', 'a good proof, then a bad one', 'two names'}
LIES: dict[str, Callable] = {
    **{f'method {n}': as_method(n) for n in (0, 1, 3, 9, 10, 11, 12, 13, 15, 255)},
    'no proof': edit(AUTH, lambda auth: []),
    'two proofs': edit(AUTH, lambda auth: [auth, auth]),
    'a good proof, then a bad one': edit(AUTH, lambda auth: [auth, AUTH(auth.method, b'x')]),
    'an empty proof': with_data(lambda data: b''), 'zeros': with_data(lambda data: bytes(len(data))),
    'one bit': with_data(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    'cut': with_data(lambda data: data[:-1]), 'longer': with_data(lambda data: data + b'\0'),
    'no algorithm': with_data(lambda data: data[1:]),
    'two names': lambda ike, payloads: payloads.append(payloads[at(payloads, name(ike))]),
    'another name': edit_name(lambda body: body + b'x'),
    'another type of name': edit_name(lambda body: b'\3' + body[1:]),
    'other reserved octets': edit_name(lambda body: body[:3] + b'\1' + body[4:]),
    'the proof of the other end': proof_of_the_other_end}


@pytest.mark.parametrize('who', NAMES)
@pytest.mark.parametrize('kind', ['PSK', 'RSA', 'ECDSA', 'Ed25519', 'certificate'])
@pytest.mark.parametrize('lie', LIES)
def test_every_lie_in_ike_auth_is_found_out(
        monkeypatch: pytest.MonkeyPatch, lie: str, kind: str, who: str) -> None:
    alice, bob = changed(monkeypatch, who, LIES[lie], kind)
    if who == 'alice':
        error = MessageType.INVALID_SYNTAX if lie in SYNTAX else MessageType.AUTHENTICATION_FAILED
        refused_by_bob(alice, bob, error=error)
    else: refused_by_alice(alice, bob)


CERTIFICATE_LIES = {
    'swapped': swap_certificates, 'none': lambda ike, payloads: [
        payloads.remove(p) for p in list(payloads) if type(p) is CERT],
    'only the middle': edit(CERT, lambda cert: []),
    'another encoding': edit(CERT, lambda cert: [CERT(CertEncoding(1), cert.data)]),
    'another first': edit(CERT, lambda cert: [issue(
        'CN=x', key(9), MIDDLE, names('x.org')).payload, cert]),
    "the peer's own first": lambda ike, payloads: edit(CERT, lambda cert: [
        HELD['bob' if ike.initiator else 'alice'].payload, cert])(ike, payloads),
    'a bit string for a name': edit(CERT, lambda cert: [
        CERT(X509, cert.data.replace(b'\x0c\x06middle', b'\3\6middle'))]),
    'eleven': edit(CERT, lambda cert: [cert] * 10), 'junk': edit(CERT, lambda cert: [CERT(X509, b'0')])}


@pytest.mark.parametrize('who', NAMES)
@pytest.mark.parametrize('lie', CERTIFICATE_LIES)
def test_every_lie_about_certificates_is_found_out(
        monkeypatch: pytest.MonkeyPatch, lie: str, who: str) -> None:
    ends = changed(monkeypatch, who, CERTIFICATE_LIES[lie], 'certificate')
    (refused_by_bob if who == 'alice' else refused_by_alice)(*ends)


@pytest.mark.parametrize('who', NAMES)
@pytest.mark.parametrize('change', [
    edit(CERT, lambda cert: [cert, cert]), edit(CERT, lambda cert: [cert, ROOT.payload, OTHER.payload]),
    edit(CERT, lambda cert: [CERT(CertEncoding.RAW_PUBLIC_KEY, b'x'), cert]),
    lambda ike, payloads: payloads.append(Opaque(Type(200), b'new')),
    lambda ike, payloads: payloads.sort(key=lambda p: -p.kind)],
    ids=['twice', 'more', 'a hint', 'another payload', 'another order'])
def test_what_changes_nothing(monkeypatch: pytest.MonkeyPatch, change: Callable, who: str) -> None:
    alice, bob = changed(monkeypatch, who, change, 'certificate')
    assert alice.state == bob.state == State.ESTABLISHED and alice.child and bob.child


# Several peers

def caller(name_: str, held: object, trust: object) -> Config:
    left, _ = configs()
    return replace(left, local_id=Identity.from_text(name_), credential=held, trust=trust)


@pytest.mark.parametrize('claimed', ['alice', 'carol', 'dave'])
@pytest.mark.parametrize('really', ['alice', 'carol', 'dave', 'nobody'])
def test_each_of_several_peers_is_only_itself(really: str, claimed: str) -> None:
    "Alice has a certificate, Carol a shared key, Dave a key of his own."
    _, right = pair()
    carols, daves = SharedKey(b"carol's and bob's"), key(103)
    held = {'alice': chain(HELD['alice'], MIDDLE), 'carol': carols, 'dave': Signer(daves),
            'nobody': chain(issue('CN=n', key(104), MIDDLE, names('n.example.org')), MIDDLE)}
    trust = {'alice': trusting(ROOT), 'carol': carols, 'dave': daves.public_key()}
    bob = Host(tuple(replace(right, remote_id=Identity.from_text(f'{who}.example.org'),
                             trust=believed, credential=Signer(P384['bob']))
                     for who, believed in trust.items()))
    alice = Host()
    attempt = alice.connect(caller(f'{claimed}.example.org', held[really], P384['bob'].public_key()),
                            ALICE, BOB, now=0)
    for _ in range(6):
        for one, other in (alice, bob), (bob, alice):
            for d in one.datagrams_to_send(): other.receive_datagram(d.data, d.source, 0, d.destination)
    up = really == claimed
    assert len(bob.established) == len(alice.established) == up
    assert attempt.lineage.new_sas[0].state == (State.ESTABLISHED if up else State.CLOSED)


def test_a_name_that_breaks_the_library_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    "A bit string in a distinguished name, from a peer that nobody knows."
    broken = Identity.from_text('CN=alice')
    broken = replace(broken, data=broken.data.replace(b'\x0c\5', b'\3\5'))
    monkeypatch.setattr(ike_sa, 'find_config', lambda ike, identity, wanted: ike.config)
    refused_by_bob(*other_by('alice', lambda config: replace(config, local_id=broken)))
    refused_by_alice(*other_by('bob', lambda config: replace(config, local_id=broken)))
