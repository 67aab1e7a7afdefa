"""Which signatures an end accepts (RFC 9593): who says so where, in which octets; and what the other end
does about it, also when the list is nonsense."""
import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from authority import issue, names, trusting
from canonical import configs, two_ends
from ike_lit.engine import additional, ike_sa
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.model import Closed, Config
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import events, handshake
from ike_lit.wire.certificate import CERTREQ, Authorities, announced, announcement
from ike_lit.wire.const import CertEncoding, ExchangeType, MessageType
from ike_lit.wire.payload import Notify, Packet, parse
from test_authentication import KINDS, NAMES, RSA_KEYS, chain, met, pair
from test_certificate import MIDDLE, ROOT

CERTIFIED = {who: chain(issue(f'CN={who}', RSA_KEYS[who], MIDDLE, names(name)), MIDDLE)
             for who, name in NAMES.items()}
LISTED = MessageType.SUPPORTED_AUTH_METHODS
# RFC 7427 appendix A.3.2, A.1.2, and RFC 8420 appendix A
ECDSA_SHA384 = bytes.fromhex('300a06082a8648ce3d040303')
RSA_SHA256 = bytes.fromhex('300d06092a864886f70d01010b0500')
ED25519 = bytes.fromhex('300506032b6570')
# RFC 7427 appendix A.4.2: RSASSA-PSS with SHA-256
PSS_SHA256 = bytes.fromhex('304106092a864886f70d01010a3034a00f300d06096086480165030402010500'
                           'a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120')


def method(identifier: bytes, link: int = 0) -> bytes:
    return bytes([3 + len(identifier), 14, link]) + identifier


def listed(*blobs: bytes) -> Notify: return Notify(LISTED, b''.join(blobs))


def understood(payloads: Iterable) -> list[str]:
    return [way.scheme.name for way in announced(Packet(ExchangeType.IKE_SA_INIT, tuple(payloads)))]


def test_the_list_is_in_the_octets_of_the_rfcs() -> None:
    data = announcement().data
    blobs = []
    while data: blobs, data = [*blobs, data[:data[0]]], data[data[0]:]
    assert {method(ECDSA_SHA384), method(RSA_SHA256), method(ED25519)} < set(blobs)
    # "RSA Digital Signature" (1), if it is accepted, and the ECDSA methods have three octets each
    assert [blob for blob in blobs if len(blob) == 3] == [bytes([3, n, 0]) for n in (9, 10, 11)]
    assert bytes([3, 1, 0]) in announcement(allow_sha1=True).data and len(blobs) == 13


@pytest.mark.parametrize('alices', KINDS)
@pytest.mark.parametrize('bobs', KINDS)
def test_who_believes_authorities_says_so_once(alices: str, bobs: str) -> None:
    "§3.1: the responder in IKE_SA_INIT, the initiator in IKE_AUTH, each beside its CERTREQ."
    left, right = pair(alices, bobs)
    alice, bob = met(left, right)
    assert alice.state == bob.state == State.ESTABLISHED
    sent = [(e.sent, e.packet.exchange_type) for e in events(alice)
            if getattr(e, 'packet', None) and e.packet.notify(LISTED)]
    inits = [bool(parse(m).notify(LISTED)) for m in alice.first_messages]
    by_alice, by_bob = (isinstance(config.trust, Authorities) for config in (left, right))
    assert sent == [(True, ExchangeType.IKE_AUTH)] * by_alice and inits == [False, by_bob]


def rsa_pair() -> tuple[Config, Config]:
    "RSA keys, in certificates: there is a choice between two formats."
    left, right = pair('certificate')
    return replace(left, credential=CERTIFIED['alice']), replace(right, credential=CERTIFIED['bob'])


@pytest.mark.parametrize('who', [0, 1], ids=['initiator', 'responder'])
@pytest.mark.parametrize('blobs, name', [
    ((), 'RSA with SHA2-256'), ((method(PSS_SHA256),), 'RSA-PSS with SHA2-256'),
    ((b'\2\2', method(ED25519), method(PSS_SHA256)), 'RSA-PSS with SHA2-256'),
    ((method(ED25519),), 'RSA with SHA2-256'), ((b'\2\2',), 'RSA with SHA2-256'),
    ((method(PSS_SHA256, 9),), 'RSA with SHA2-256')],
    ids=['no list', 'PSS', 'others, PSS', 'Ed25519', 'a shared key', 'no such authority'])
def test_a_signature_that_is_welcome(
        monkeypatch: pytest.MonkeyPatch, who: int, blobs: tuple, name: str) -> None:
    "Not what comes first with us, but what is announced; if that is nothing of ours, as without a list."
    left, right = rsa_pair()
    peer = right if who == 0 else left
    monkeypatch.setattr(ike_sa, 'welcome_proofs', lambda configs: (listed(*blobs),) * (peer in configs))
    alice, bob = met(left, right)
    assert alice.state == bob.state == State.ESTABLISHED
    assert name in (bob if who == 0 else alice).agreed.proof


def test_a_refused_signature_that_was_not_welcome_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = rsa_pair()
    right = replace(right, trust=trusting())  # so Bob refuses whatever comes
    others = listed(method(ED25519), method(ECDSA_SHA384))
    monkeypatch.setattr(ike_sa, 'welcome_proofs', lambda configs: (others,))
    alice, _ = met(left, right)
    error, = (str(e.error) for e in events(alice) if isinstance(e, Closed))
    assert error.endswith('; we sign by RSA with SHA2-256, and the peer has announced '
                          'Ed25519, ECDSA with SHA2-384')
    monkeypatch.setattr(ike_sa, 'welcome_proofs', lambda configs: (listed(method(RSA_SHA256)),))
    alice, _ = met(left, right)
    error, = (str(e.error) for e in events(alice) if isinstance(e, Closed))
    assert 'announced' not in error


def test_a_list_that_comes_in_ike_intermediate(monkeypatch: pytest.MonkeyPatch) -> None:
    "§3.1: the responder may send an empty one first, and the list there; a CERTREQ need not come with it."
    left, right = (replace(config, ike=config.ike[:1]) for config in hybrid(*rsa_pair()))
    monkeypatch.setattr(ike_sa, 'welcome_proofs', lambda configs: (listed(),) * (right in configs))
    monkeypatch.setattr(additional, 'takes_ppk', lambda ppk: (listed(method(PSS_SHA256, 1)),))
    alice, bob = met(left, right)
    assert alice.intauth.exchanges == 1 and 'RSA-PSS with SHA2-256' in bob.agreed.proof


def test_a_list_of_ike_sa_init_outlasts_ike_intermediate(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = (replace(config, ike=config.ike[:1]) for config in hybrid(*rsa_pair()))
    hint = listed(method(PSS_SHA256))
    monkeypatch.setattr(ike_sa, 'welcome_proofs', lambda configs: (hint,) * (right in configs))
    alice, bob = met(left, right)
    assert alice.intauth.exchanges == 1 and 'RSA-PSS with SHA2-256' in bob.agreed.proof


def hybrid(*both: Config) -> tuple[Config, ...]:
    suite = configs('aes256gcm16-prfsha384-x25519-ke1_mlkem768')[0].ike
    return tuple(replace(config, ike=suite) for config in both)


# What they mean

def test_what_is_not_understood_is_ignored() -> None:
    "§3.2: 'Implementations MUST ignore announcements whose semantics they don't understand.'"
    strange = [b'\3\x0d\0', b'\2\x0c', b'\4\x09\0\0', method(b'\x30\3\6\1\1'), b'\5\xc8\0\1\2', b'\2\x09']
    found = understood([listed(*strange, method(ED25519)), listed(method(ECDSA_SHA384))])
    assert found == ['Ed25519', 'ECDSA with SHA2-384']


@pytest.mark.parametrize('end', [b'\0', b'\1', b'\1\x0e', b'\xff', b'\x0e\x0e\0\x30'], ids=bytes.hex)
def test_nonsense_ends_the_list(end: bytes) -> None:
    assert understood([listed(method(ED25519), end, method(ECDSA_SHA384))])[:1] == ['Ed25519']


def test_a_link_counts_all_requests_and_nothing_without_them() -> None:
    "§3.2.2: 'the CAs from all of them are treated as a single list'; without any it is 'treated as zero'."
    requests = [CERTREQ(CertEncoding.X509_SIGNATURE, bytes([n]) * 20) for n in (1, 2)]
    linked = listed(*(method(ED25519, n) for n in range(4)))
    found = [[way.authority and way.authority[0]
              for way in announced(Packet(ExchangeType.IKE_AUTH, (*asked, linked)))]
             for asked in (requests, [])]
    assert found == [[None, 1, 2], [None] * 4]


def test_the_authority_of_ours_counts() -> None:
    "Only what is meant for the authority in our chain is welcome; if none of them is ours, anything may be."
    left, right = rsa_pair()
    ours, other = trusting(ROOT).request().data, bytes(20)
    for order, name in (ours + other, 'RSA-PSS with SHA2-256'), (other + ours, 'RSA with SHA2-256'):
        chain = (*left.credential.certificates, ROOT.der)
        shows = replace(left, credential=replace(left.credential, certificates=chain))
        alice, bob = two(shows, right, order)
        assert name in bob.agreed.proof


def two(left: Config, right: Config, order: bytes) -> tuple[IKE, IKE]:
    with pytest.MonkeyPatch.context() as patch:
        request = CERTREQ(CertEncoding.X509_SIGNATURE, order)
        hint = listed(method(PSS_SHA256, 1), method(RSA_SHA256, 2))
        patch.setattr(ike_sa, 'certificate_requests', lambda configs: (request,))
        patch.setattr(ike_sa, 'welcome_proofs', lambda configs: (hint,))
        return handshake(*two_ends(RESPONDERS, left, right))


@pytest.mark.parametrize('size', [65000, 65001])
def test_a_long_list_costs_little(size: int) -> None:
    data = (b'\3\x09\0' * size)[:size]
    assert len(announced(Packet(ExchangeType.IKE_SA_INIT, (Notify(LISTED, data),)))) == 50


def test_anything_can_be_read() -> None:
    rng = random.Random(9593)  # noqa: S311
    for _ in range(3000):
        blobs = [rng.choice([rng.randbytes(rng.randrange(9)), method(ED25519, rng.randrange(4)), b'\2\2'])
                 for _ in range(5)]
        assert len(announced(Packet(ExchangeType.IKE_AUTH, (listed(*blobs),)))) <= 10
