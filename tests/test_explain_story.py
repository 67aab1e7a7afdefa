"""The story of a capture of ours is what the two ends themselves have, and what they had to refuse is
said to be wrong: proofs, choices, traffic, addresses, reserved bits, and what is not sealed.
"""
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from itertools import permutations

import pytest
from authority import ed_key, key, rsa_key
from canonical import KEYS, RSA, private_key, public_key
from explaining import (
    BELIEVED, Recorded, certified, every, flipped, kinds, numbered, plain, record, remarks, seen, story)
from ike_lit.capture.examine import NOTIFICATION_SIZES
from ike_lit.capture.observer import TrustAnchors
from ike_lit.capture.show import Story
from ike_lit.capture.story import Observer
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.engine.informational import liveness
from ike_lit.testing.network import ALICE
from ike_lit.wire.auth import AUTH, IDi, Identity, SharedKey, sign, signed_octets
from ike_lit.wire.certificate import CERT, Signer, spki
from ike_lit.wire.const import (
    AuthenticationType, CertEncoding, Encryption, ExchangeType, Group, Integrity, MessageType, Prf,
    ProtocolID, TransformType, Type)
from ike_lit.wire.header import Header
from ike_lit.wire.ke import KE
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Delete, Notify, Payload, Vendor
from ike_lit.wire.proposal import NO_ESN, SA, Proposal, Transform, parse_proposals
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

h = bytes.fromhex


# What our own ends have

def keys_as_told(found: Story) -> dict[bytes, tuple[bytes, bytes]]:
    "The keys of each ESP SA, by the SPI under which its receiver knows it."
    children = [child for ike in found.observer.sas for child in ike.children]
    return {spi: keys for c in children for spi, keys in (
        (c.spi_i, (c.keys.encr_r, c.keys.integ_r)), (c.spi_r, (c.keys.encr_i, c.keys.integ_i)))}


@pytest.mark.parametrize('who', ['alice', 'bob'])
@pytest.mark.parametrize('esp', ['aes128-sha256', 'aes256gcm16-x25519'])
def test_rekeyings_from_either_side(who: str, esp: str) -> None:
    """A Child SA, the IKE SA, the Child SA of the new one, both again by the other end:
    keys, names, directions and selectors are those of the ends."""
    r = record(esp=esp, seed=5)
    other = 'bob' if who == 'alice' else 'alice'
    first, *_ = getattr(r, who).established[0].children
    for end, conversation in ((who, rekey_child), (who, rekey_ike_sa), (who, rekey_child),
                              (other, rekey_ike_sa), (other, rekey_child)):
        spis = list(getattr(r, end).established[0].children)
        r.go_on(end, conversation, *spis[:conversation is rekey_child])
    found = story(r.seen, r.lines)
    assert not every(found, 'odd', 'wrong')
    assert [(sa.spi_i, sa.spi_r) for sa in found.observer.sas] == [(i.spi_i, i.spi_r) for i in r.sas]
    assert len(r.sas) == 3 and len(found.conversations()) == 1
    assert keys_as_told(found) == r.children and len(r.children) == 2 * 4
    last, kept = found.observer.sas[-1], r.alice.established[0]
    assert (last.keys, str(last.suite)) == (kept.keys, str(kept.suite))
    for ike, onlooked in zip(r.sas, found.observer.sas, strict=True):
        mine = f'FQDN {ike.config.local_id}'
        assert onlooked.names[ike.initiator] == mine != onlooked.names[not ike.initiator]
    text = '\n'.join(found.lines())
    for spi, child in kept.children.items():
        assert f'SPI {spi.hex()}  10.2.0.0/24 -> 10.1.0.0/24  0 ESP' in text
        assert f'SPI {child.outbound.spi.hex()}  10.1.0.0/24 -> 10.2.0.0/24  0 ESP' in text
    assert f'to replace the one with the SPI {first.hex()} (RFC 7296 §1.3.3)' in every(found)
    for told in found.told: assert told.from_first_initiator == (told.seen.source == ALICE)


def test_who_answers_whom() -> None:
    "A response answers the request with its Message ID, from the other side, of the same IKE SA."
    r = record()
    r.go_on('alice', liveness)
    r.go_on('bob', liveness)
    r.go_on('bob', rekey_ike_sa)
    r.go_on('alice', liveness)
    r.go_on('bob', liveness)
    found = story(r.seen, r.lines)
    told = found.told
    for request, response in zip(told[::2], told[1::2], strict=True):
        assert not request.header.response and request.request is None
        assert response.request is request and response.from_first_initiator != request.from_first_initiator


def test_a_cookie_and_another_group_on_the_way() -> None:
    "What was signed is the last version of the first message (RFC 7296 §2.15)."
    r = record('aes128gcm16-prfsha256-x25519-ecp256', bobs_ike='aes128gcm16-prfsha256-ecp256', cookies=0)
    found = story(r.seen, r.lines)
    titles = [t.title for t in found.told]
    assert titles == 3 * ['IKE_SA_INIT request 0', 'IKE_SA_INIT response 0'] + [
        'IKE_AUTH request 1', 'IKE_AUTH response 1']
    assert 'asks for the same request again, with this cookie (RFC 7296 §2.6)' in remarks(found.told[1])
    assert 'asks for ECP_256 in KE (RFC 7296 §1.2)' in remarks(found.told[3])
    assert sum('AUTH is right: method 14' in text for text in every(found)) == 2
    assert len(found.observer.sas) == 1 and not every(found, 'odd', 'wrong')


def test_what_is_sent_again_changes_nothing() -> None:
    r = record(seed=3)
    once = story(r.seen, r.lines)
    twice = story(numbered(m for m in r.seen for _ in range(3)), r.lines)
    assert keys_as_told(twice) == keys_as_told(once) and len(twice.observer.sas) == 1
    for n, told in enumerate(twice.told):
        first = 3 * (n // 3) + 1
        again = f'sent again: a copy of number {first} (RFC 7296 §2.1)'
        assert (remarks(told) == [again]) == (told.seen.number != first)
    assert every(twice).count('AUTH is right: method 14, Ed25519, key of 256 bits, '
                              'a key that was given (RFC 7296 §2.15)') == 2


def test_fragments_in_any_order() -> None:
    "RFC 7383: only the last to arrive tells what is inside; as long as one is missing, none does."
    r = record(datagram=260, seed=4, keys=RSA)
    believed = TrustAnchors(tuple(public_key(KEYS / f'{end}.pub') for end in RSA))
    asked = [m for m in r.seen if m.data[18] == ExchangeType.IKE_AUTH and m.source == ALICE]
    after = r.seen[r.seen.index(asked[-1]) + 1:]
    assert len(asked) == 3
    for order in permutations(asked):
        found = story(numbered([*r.seen[:2], *order, *after]), r.lines, believed)
        told = found.told[2:5]
        assert [kinds(t) for t in told] == [[53], [53], [35, 36, 39, 33, 44, 45]]
        numbers = [asked.index(m) + 1 for m in order]
        for t, n in zip(told, numbers, strict=True):
            assert f'fragment {n} of 3 (RFC 7383 §2.5)' in remarks(t)
        assert keys_as_told(found) == r.children and not every(found, 'odd', 'wrong')
    for missing in asked:
        found = story(numbered([m for m in r.seen if m is not missing]), r.lines, believed)
        assert not any(t.header.initiator and 35 in kinds(t) for t in found.told)
        assert not found.observer.sas[0].children and not every(found, 'odd', 'wrong')


def test_conversations_that_interleave_are_kept_apart() -> None:
    rs = [record(seed=n, left=Endpoint(f'192.0.2.{n}', 500)) for n in (21, 22, 23)]
    messages = numbered(m for step in zip(*(r.seen for r in rs), strict=True) for m in step)
    found = story(messages, ''.join(r.lines for r in rs))
    assert len(found.conversations()) == 3
    for r, one in zip(rs, found.conversations(), strict=True):
        assert [t.seen.data for t in one.messages] == [m.data for m in r.seen]
        assert one.root.keys == r.sas[0].keys
    assert keys_as_told(found) == rs[0].children | rs[1].children | rs[2].children
    one = story(messages, rs[1].lines)
    assert [bool(t.inside) for t in one.told] == [
        t.seen.data in {m.data for m in rs[1].seen[2:]} for t in one.told]


# Proofs

SECRET = SharedKey(b'a secret that both ends have')


def test_shared_keys() -> None:
    shared = {'credential': SECRET, 'trust': SECRET}
    r = record(alices=shared, bobs=shared)
    for psk, words, grade in ((SECRET, 'AUTH is right: method 2, shared key', 'fact'),
                              (SharedKey(b'another'), 'AUTH does not fit the shared key', 'wrong')):
        found = story(r.seen, r.lines, TrustAnchors(shared=psk))
        assert every(found, grade).count(f'{words} (RFC 7296 §2.15)') == 2
    assert not any('AUTH is right' in t for t in every(story(r.seen, r.rows, TrustAnchors(shared=SECRET))))


def test_certificates_prove_by_the_key_beside_the_signature() -> None:
    r = record(alices=certified('initiator'), bobs=certified('responder'))
    found = story(r.seen, r.lines, TrustAnchors())
    assert sum('the key of the certificate beside it' in text for text in every(found)) == 2
    assert not every(found, 'odd', 'wrong')


class Bare(Signer):
    "Shows its public key, or whatever else it is told to, without having been asked."

    def payloads(self, asked: object) -> tuple[CERT, ...]:
        return CERT(*self.certificates),


@pytest.mark.parametrize('encoding, data, count', [
    (CertEncoding.RAW_PUBLIC_KEY, None, 1), (CertEncoding.RAW_PUBLIC_KEY, b'0', 0),
    (CertEncoding.X509_SIGNATURE, b'0', 0), (CertEncoding.X509_SIGNATURE, None, 0),
    (CertEncoding.RAW_RSA_KEY, None, 0)])
def test_a_bare_key_beside_the_signature(encoding: CertEncoding, data: bytes | None, count: int) -> None:
    "RFC 7670: it holds a SubjectPublicKeyInfo. Where it can't be read, the key that was given is taken."
    key = private_key(KEYS / 'alice.key')
    r = record(alices={'credential': Bare(key, (encoding, data or spki(key.public_key())))})
    found = [every(story(r.seen, r.lines, believed)) for believed in (TrustAnchors(), BELIEVED)]
    assert [sum('the bare key beside it' in t for t in texts) for texts in found] == [count, count]
    assert sum('a key that was given' in t for t in found[1]) == 2 - count


def proof(r: Recorded, signer: object, way: tuple, identity: IDi) -> AUTH:
    "What Alice signs (RFC 7296 §2.15)."
    ike = r.sas[0]
    nr = story(r.seen[:2]).told[1].packet.one(Nonce).data
    octets = signed_octets(r.seen[0].data, nr, Prf.PRF_HMAC_SHA2_256, ike.keys.sk_pi, identity.body)
    return sign(signer, octets, way)


METHODS = [(1, rsa_key, 'RSA with SHA-1'), (9, partial(key, 7), 'ECDSA with SHA2-256')]


@pytest.mark.parametrize('method, make, words', METHODS, ids=[str(m) for m, *_ in METHODS])
def test_older_methods(method: int, make: Callable, words: str) -> None:
    "A signature by another key, of another identity, or with one bit changed is not said to be right."
    r, signer = record(seed=6), make()
    identity = IDi.of(Identity.from_text('old.example.org'))
    auth = proof(r, signer, (AuthenticationType(method), b''), identity)
    shown = partial(r.sealed, exchange=ExchangeType.IKE_AUTH, message_id=1)
    believed = TrustAnchors((signer.public_key(),))
    told = story([*r.seen[:2], *seen(shown(identity, auth), first=3)], r.lines, believed).told[2]
    assert any(text.startswith(f'AUTH is right: method {method}, {words}') for text in remarks(told))
    assert remarks(told, 'odd') == ['signed with SHA-1 (RFC 8247 §3.1)'] * (method == 1)
    other = IDi.of(Identity.from_text('new.example.org'))
    changed = AUTH(auth.method, flipped(auth.data, 9))
    for who, what, keys in ((other, auth, believed), (identity, changed, believed),
                            (identity, auth, TrustAnchors((ed_key().public_key(),)))):
        told = story([*r.seen[:2], *seen(shown(who, what), first=3)], r.lines, keys).told[2]
        assert not any('AUTH is right' in text for text in remarks(told))


def test_a_first_message_that_was_changed_on_the_way_is_found_out() -> None:
    "A weaker offer, as the responder would have seen it: Alice has signed what she had sent."
    r = record('aes256gcm16-aes128gcm16-prfsha256-x25519', seed=7)
    at = r.seen[0].data.index(h('800e0100'))
    changed = r.seen[0]._replace(data=r.seen[0].data[:at] + h('800e0080') + r.seen[0].data[at + 4:])
    found = story([changed, *r.seen[1:]], r.lines)
    assert 'AUTH fits none of 2 keys (RFC 7296 §2.15)' in remarks(found.told[2], 'wrong')
    assert any('AUTH is right' in text for text in remarks(found.told[3]))


# Algorithms, traffic, addresses

T = TransformType


def suite(*transforms: Transform, number: int = 1, protocol: ProtocolID = ProtocolID.IKE,
          spi: bytes = b'') -> Proposal: return Proposal(number, protocol, spi, transforms)


AES, GOOD = parse_proposals('aes128-sha256-prfsha256-modp2048', ProtocolID.IKE)[0].transforms[:3], (
    Transform(T.DH, Group.MODP_2048))
OLD = [Transform(T.ENCR, Encryption.DES), Transform(T.PRF, Prf.PRF_HMAC_MD5),
       Transform(T.INTEG, Integrity.HMAC_MD5_96), *(Transform(T.DH, Group(n)) for n in (1, 2, 5, 22, 23, 24))]
NI, NR = Nonce(b'\xa0' * 16), Nonce(b'\xe0' * 16)


def init(offer: SA, choice: SA, *more: Payload) -> Story:
    group, = {t.id for p in offer.proposals[:1] for t in p.of_type(T.DH)[:1]}
    ke = KE(Group(group), bytes(256))
    return story(seen(plain(offer, ke, NI), plain(choice, NR, *more, spi_r=b'r' * 8, response=True)))


@pytest.mark.parametrize('old', OLD, ids=str)
def test_what_rfc_8247_advises_against(old: Transform) -> None:
    "It is odd to offer it, and odder to choose it; strong algorithms beside it are not named."
    rest = tuple(t for t in (*AES, GOOD) if t.type != old.type)
    both = SA((suite(*AES, GOOD, old),))
    chosen, better = SA((suite(old, *rest),)), SA((suite(*AES, GOOD),))
    asked, got = init(both, chosen).told
    assert remarks(asked, 'odd') == [f'offers {old.name}, too weak for today (RFC 8247 §2)']
    assert remarks(got, 'odd') == [f'{old.name} is too weak for today (RFC 8247 §2)']
    assert remarks(init(both, better).told[1], 'odd', 'wrong') == []
    assert not every(init(better, better), 'odd', 'wrong')


def test_weak_algorithms_are_named_once_each() -> None:
    offer = SA((suite(*AES, *OLD), suite(*AES, *OLD, number=2)))
    told = story(seen(plain(offer, KE(Group.MODP_1024, bytes(128)), NI))).told[0]
    text, = remarks(told, 'odd')
    for old in OLD: assert text.count(old.name + ',') == 1


@pytest.mark.parametrize('choice', [
    SA((suite(*AES[:2], AES[2], Transform(T.DH, Group.ECP_256)),)),  # another group
    SA((suite(*AES, GOOD, number=2),)), SA((suite(*AES, GOOD), suite(*AES, GOOD, number=2))),
    SA((suite(*AES, GOOD, Transform(T.DH, Group.MODP_3072)),)), SA((suite(*AES[1:], GOOD),)),
    SA((suite(Transform(T.ENCR, Encryption.AES_CBC, 256), *AES[1:], GOOD),)),
    SA((suite(*AES, GOOD, NO_ESN.transform),))], ids=str)
def test_a_choice_that_was_not_offered(choice: SA) -> None:
    "Another algorithm, number or key length; two of a type; one that lacks a type (RFC 7296 §3.3.6)."
    told = init(SA((suite(*AES, GOOD, Transform(T.DH, Group.MODP_3072)),)), choice).told[1]
    assert any(text.endswith('(RFC 7296 §3.3.6)') for text in remarks(told, 'wrong'))


def test_a_public_value_of_another_group_than_the_chosen_one() -> None:
    offer = SA((suite(*AES, GOOD, Transform(T.DH, Group.ECP_256)),))
    value = KE(Group.ECP_256, bytes(64))
    told = init(offer, SA((suite(*AES, GOOD),)), value).told[1]
    assert remarks(told, 'wrong') == ['KE is of ECP_256, which was not chosen (RFC 7296 §3.4)']
    right = KE(Group.MODP_2048, bytes(256))
    assert not remarks(init(offer, SA((suite(*AES, GOOD),)), right).told[1], 'wrong')


def selectors(*texts: str) -> tuple[TrafficSelector, ...]:
    return tuple(map(TrafficSelector.from_text, texts))


ESP_SA = SA((replace(parse_proposals('aes128gcm16', ProtocolID.ESP)[0], spi=b'\xc0\0\0\1'),))
TRAFFIC = [  # asked, got, and which grade the answer has
    ('10.1.0.0/16', '10.1.0.0/16', ''), ('10.1.0.0/16', '10.1.7.0/24', 'fact'),
    ('0.0.0.0/0', '10.1.0.0/24[tcp/443]', 'fact'), ('10.1.0.0/24', '10.1.0.0/16', 'wrong'),
    ('10.1.0.0/24', '10.2.0.0/24', 'wrong'), ('10.1.0.0/24[tcp]', '10.1.0.0/24', 'wrong'),
    ('10.1.0.0/24[tcp/80-90]', '10.1.0.0/24[tcp/80-91]', 'wrong'),
    ('10.1.0.0/24', '2001:db8::/64', 'wrong'), ('::/0', '2001:db8::1', 'fact'),
    ('10.1.0.0-10.1.0.9', '10.1.0.0-10.1.0.10', 'wrong')]


@pytest.mark.parametrize('asked, got, grade', TRAFFIC)
@pytest.mark.parametrize('side', [TSi, TSr])
def test_selectors_that_were_narrowed_or_widened(asked: str, got: str, grade: str, side: type) -> None:
    "RFC 7296 §2.9: an answer is a subset; a wider one had to be refused."
    r = record(seed=8)
    payloads = [[cls(selectors(text if cls is side else '10.9.0.0/24')) for cls in (TSi, TSr)]
                for text in (asked, got)]
    messages = r.sealed(ESP_SA, NI, *payloads[0]), r.sealed(ESP_SA, NR, *payloads[1], response=True)
    told = story(r.then(*messages), r.lines).told[-1]
    about = [(t.grade, str(t)) for t in told.remarks if '§2.9' in str(t)]
    assert [g for g, _ in about] == [grade] * bool(grade)
    if grade: assert got in about[0][1] and asked in about[0][1]
    if grade == 'fact': assert f'{side.__name__} narrowed from {asked} to {got}' in about[0][1]


def test_nat_detection() -> None:
    "RFC 7296 §2.23: the hashes are of the addresses that the sender believes in."
    r = record()
    plain_ways = story(r.seen).told[:2]
    for told in plain_ways: assert 'no NAT on the way to here (RFC 7296 §2.23)' in remarks(told)
    elsewhere = Endpoint('198.51.100.9', 61000)
    for end, words in (('source', 'a NAT has changed the source 198.51.100.9:61000'),
                       ('destination', 'not sent to 198.51.100.9:61000: a NAT is before it')):
        moved = [m._replace(**{end: elsewhere}) for m in r.seen[:2]]
        for told in story(moved).told:
            about = [text for text in remarks(told) if '§2.23' in text]
            assert len(about) == 1 and about[0].startswith(words)


# What should not be

def reserved_bits(data: bytes) -> set[tuple[int, int]]:
    "Where a message in the clear has reserved bits, told by hand (RFC 7296 §3.1 to §3.15)."
    found = {(19, bit) for bit in (0x80, 0x40, 0x10, 4, 2, 1)}
    at, kind = 28, data[16]
    while kind:
        size = int.from_bytes(data[at + 2:at + 4], 'big')
        found |= {(at + 1, 1 << n) for n in range(7)}
        whole: list[int] = []
        if kind == 33:
            whole, p = [at + 5], at + 4 + 8 + data[at + 10]
            while p < at + size:
                whole += [p + 1, p + 5]
                p += int.from_bytes(data[p + 2:p + 4], 'big')
        if kind == 34: whole = [at + 6, at + 7]
        if kind in (35, 36, 39, 44, 45, 47): whole = [at + 5, at + 6, at + 7]
        p = at + 8
        while kind == 47 and p < at + size:
            found.add((p, 0x80))  # the R bit of an attribute
            p += 4 + int.from_bytes(data[p + 2:p + 4], 'big')
        found |= {(octet, 1 << n) for octet in whole for n in range(8)}
        kind, at = data[at], at + size
    return found


def test_every_reserved_bit_is_found_and_no_other() -> None:
    "One bit after the other is set; those of §2.5 are odd, and the message is read all the same."
    r = record(seed=9, alices={'request': (ip_address('0.0.0.0'),)})  # noqa: S104
    inside = story(r.seen, r.lines).told[2].packet.payloads
    assert [int(p.kind) for p in inside] == [35, 36, 39, 47, 33, 44, 45]
    inner = [AUTH(AuthenticationType(3), b'proof') if type(p) is AUTH else p for p in inside]
    data = plain(ESP_SA, KE(Group.CURVE_25519, bytes(32)), NI, *inner[:5], *inner[5:], Vendor(b'v'))
    before = story(seen(data)).told[0]
    found = set()
    for at in range(17, len(data)):
        for bit in (1 << n for n in range(8)):
            if data[at] & bit: continue
            told = Observer().look(*seen(flipped(data, at, bit)))
            texts = [text for text in remarks(told, 'odd') if 'reserved bits are set' in text]
            if not texts or kinds(told) != kinds(before): continue  # or it has become another message
            found.add((at, bit))
            assert len(texts) == 1
    assert found == reserved_bits(data)


def test_reserved_bits_inside_the_box() -> None:
    r = record()
    clean = r.sealed(Delete(ProtocolID.IKE), exchange=ExchangeType.INFORMATIONAL)
    assert not remarks(story(r.then(clean), r.lines).told[-1], 'odd')
    lock, ike = r.locks[0][0], r.sas[0]
    header = partial(Header, ike.spi_i, ike.spi_r, Type.SK, ExchangeType.INFORMATIONAL, False, True, 8)
    data = lock.protect(header, Type.Delete, h('0015000801000000'), bytes)
    odd = remarks(story(r.then(data), r.lines).told[-1], 'odd')
    assert odd == ['inside, octet 0x0001 of Payload 1: Delete: reserved bits are set (0x15) (RFC 7296 §2.5)']


ERRORS = (1, 4, 5, 7, 9, 11, 14, 24, 34, 35, 36, 37, 38, 39, 43, 44)  # RFC 7296 §3.10.1, but for 17


@pytest.mark.parametrize('number', [*ERRORS, 45, 8191, 16383])
def test_errors_are_wrong_and_named(number: int) -> None:
    "Sealed or not; below 16384 is an error, also one that nobody knows. Unsealed it proves nothing."
    data = bytes(NOTIFICATION_SIZES[number][0][0]) if number in NOTIFICATION_SIZES else b''
    r, notify = record(seed=10), Notify(MessageType(number), data)
    for data, sealed in ((r.sealed(notify, response=True), True),
                         (plain(notify, exchange=ExchangeType.INFORMATIONAL, spi_i=r.sas[0].spi_i,
                                spi_r=r.sas[0].spi_r, response=True), False)):
        told = story(r.then(data), r.lines).told[-1]
        about = remarks(told, 'wrong')
        assert len(about) == 1 and about[0].startswith(f'{MessageType(number)}: ')
        odd = 'not protected: nobody may believe it (RFC 7296 §2.21.4)'
        assert remarks(told, 'odd') == [odd] * (not sealed)
    status = story(r.then(r.sealed(Notify(MessageType(17000 + number)), response=True)), r.lines)
    assert not remarks(status.told[-1], 'odd', 'wrong')


@pytest.mark.parametrize('at', [0, 17, 18, 19, 23, 31, 32, 40, -17, -16, -1])
def test_a_sealed_message_with_a_changed_bit_does_not_open(at: int) -> None:
    "Header, vector, ciphertext or checksum."
    r = record()
    bad = r.seen[2]._replace(data=flipped(r.seen[2].data, at, 2))
    told = story([*r.seen[:2], bad], r.lines).told[2]
    assert not told.inside and not any(n in (35, 36, 39) for n in kinds(told))
    assert bool(remarks(told, 'wrong')) == (at != 0)  # then it is of another IKE SA, without keys
    if at not in (0, 17, 31): assert any('does not open' in text for text in remarks(told, 'wrong'))


def test_rows_without_a_key_for_checksums() -> None:
    "As Wireshark wants them for AES-XCBC: what was changed opens; with g^ir it does not."
    r = record('aes128-aesxcbc-prfsha256-x25519', seed=16)
    assert 'No Checking' in r.rows
    bad = r.seen[2]._replace(data=flipped(r.seen[2].data, -1))
    for messages, keys, opens in ((r.seen, r.rows, True), ([*r.seen[:2], bad], r.rows, True),
                                  (r.seen, r.lines, True), ([*r.seen[:2], bad], r.lines, False)):
        assert bool(story(messages, keys).told[2].inside) == opens
    found = story(r.seen, r.rows)
    assert [kinds(t) for t in found.told[2:]] == [[35, 36, 39, 33, 44, 45], [36, 39, 33, 44, 45]]


def test_esp_packets_are_counted_by_spi() -> None:
    r = record()
    child = r.alice.established[0].child
    esp = Counter({('192.0.2.1', '192.0.2.2', child.outbound.spi): 3,
                   ('192.0.2.2', '192.0.2.1', child.inbound.spi): 2, ('1.1.1.1', '2.2.2.2', b'abcd'): 5})
    found = story(r.seen, r.lines)
    found.capture = replace(found.capture, esp=esp)
    text = '\n'.join(found.lines())
    assert f'SPI {child.outbound.spi.hex()}  10.1.0.0/24 -> 10.2.0.0/24  3 ESP packets seen' in text
    assert f'SPI {child.inbound.spi.hex()}  10.2.0.0/24 -> 10.1.0.0/24  2 ESP packets seen' in text
    assert '10 of ESP' in found.summary()


def test_the_mode_is_told() -> None:
    for mode in 'tunnel', 'transport':
        r = record(mode=mode, seed=17)
        found = story(r.seen, r.lines)
        assert found.observer.sas[0].children[0].mode == mode == r.alice.established[0].child.mode
        assert f'ESP:AES_GCM_16_128/NO_ESN, {mode} mode' in '\n'.join(found.lines())
