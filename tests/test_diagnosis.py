"""A proof that is refused: the peer's mistake is made here, by the RFC's formula, and has to be found."""
from dataclasses import replace

import pytest
from canonical import HERITAGE, configs, two_ends
from ike_lit.cli.diagnosis import compare_proposals, why
from ike_lit.engine import ike_sa
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.model import ChildFailed, Closed
from ike_lit.engine.protocol import IKE
from ike_lit.testing.network import events, family, handshake
from ike_lit.wire.auth import AUTH, SCHEMES, IDi, sign
from ike_lit.wire.const import AuthenticationType, OtherTransform, Prf, ProtocolID, TransformType
from ike_lit.wire.keys import prf
from ike_lit.wire.proposal import Transform, parse_proposals
from ike_lit.wire.ts import TrafficSelector

KIND = Prf.PRF_HMAC_SHA2_256


def parts(bob: IKE, identity: IDi) -> tuple[bytes, bytes, bytes]:
    "RFC 7296 §2.15: ResponderSignedOctets = RealMessage2 | NonceIData | MACedIDForR."
    return bob.first_messages[0], bob.nonces[1], prf(KIND, bob.keys.sk_pr, identity.body)


MISTAKES = {
    'its own nonce in place of ours': lambda b, i: parts(b, i)[0] + b.nonces[0] + parts(b, i)[2],
    'our first message in place of its own': lambda b, i: b.first_messages[1] + b''.join(parts(b, i)[1:]),
    'SK_p of the other side': lambda b, i: b''.join(parts(b, i)[:2]) + prf(KIND, b.keys.sk_pi, i.body),
    'its name without type and RESERVED':
        lambda b, i: b''.join(parts(b, i)[:2]) + prf(KIND, b.keys.sk_pr, i.body[4:]),
    'no name': lambda b, i: b''.join(parts(b, i)[:2]),
    'no nonce': lambda b, i: parts(b, i)[0] + parts(b, i)[2]}


def said_by_alice(monkeypatch: pytest.MonkeyPatch, proof: object) -> list[str]:
    "What Alice's operator is told when Bob proves himself like that."
    monkeypatch.setattr(ike_sa, 'make_auth', lambda ike, *how: proof(ike, *how[:2]))
    attempt, bob = two_ends(RESPONDERS, *configs(**HERITAGE))
    handshake(attempt, bob)
    alice, told = family(attempt)[-1], []
    while event := alice.next_event(): told.append(event)
    closed = [event for event in told if isinstance(event, Closed)]
    assert len(closed) == 1 and not alice.agreed.proof
    return why(alice, closed[0].error)


def signed(octets: bytes, config: object, identifier: bytes = b'') -> AUTH:
    method = AuthenticationType.DIGITAL_SIGNATURE if identifier else AuthenticationType.RSA
    return sign(config.credential.key, octets, (method, identifier))


RSA_SHA256 = next(octets for octets, scheme in SCHEMES.items() if scheme.name == 'RSA with SHA2-256')
ED25519 = next(octets for octets, scheme in SCHEMES.items() if scheme.name == 'Ed25519')
PSS_SHA512 = next(octets for octets, scheme in SCHEMES.items() if scheme.name == 'RSA-PSS with SHA2-512')


@pytest.mark.parametrize('mistake', MISTAKES)
def test_wrong_octets_are_named(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = said_by_alice(monkeypatch, lambda ike, config, identity: signed(
        MISTAKES[mistake](ike, identity), config, RSA_SHA256))
    assert told[0].startswith(f'The peer has signed the wrong octets: {mistake} (RFC 7296 §2.15).')


@pytest.mark.parametrize('suite, what, mistake', [
    ({}, b'\0\0\0\1', 'an IKE_INTERMEDIATE that did not take place'),
    ({'ike': 'aes256gcm16-prfsha256-x25519-ke1_mlkem768'}, b'', 'nothing of IKE_INTERMEDIATE (RFC 9242)')])
def test_what_comes_after_the_octets_is_named(
        monkeypatch: pytest.MonkeyPatch, suite: dict, what: bytes, mistake: str) -> None:
    "RFC 9242 §3.3.2: daemons have left it out, and have counted an exchange that there was not."
    def proof(ike: IKE, config: object, identity: IDi, *more: object) -> AUTH:
        octets = b''.join(parts(ike, identity)) + what
        return sign(config.credential.key, octets, (AuthenticationType.DIGITAL_SIGNATURE, ED25519))
    monkeypatch.setattr(ike_sa, 'make_auth', proof)
    attempt, bob = two_ends(RESPONDERS, *configs(transcript=False, **suite))
    handshake(attempt, bob)
    alice = family(attempt)[-1]
    closed, = (event for event in events(alice) if isinstance(event, Closed))
    assert why(alice, closed.error)[0].startswith(f'The peer has signed the wrong octets: {mistake}')


def test_sha1_is_named_with_the_option_that_would_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = said_by_alice(monkeypatch, lambda ike, config, identity: signed(
        b''.join(parts(ike, identity)), config))
    right = 'The signature is right, by the key that we have for it: method 1, RSA with SHA-1'
    assert told[0].startswith(right)
    assert 'RFC 7427' in told[1] and '--allow-sha1' in told[-1]


def test_a_signature_of_another_kind_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    "PSS, and the AlgorithmIdentifier says PKCS #1 v1.5."
    def proof(ike: IKE, config: object, identity: IDi) -> AUTH:
        signature = signed(b''.join(parts(ike, identity)), config, PSS_SHA512).data[1 + len(PSS_SHA512):]
        return AUTH(AuthenticationType.DIGITAL_SIGNATURE, bytes([len(RSA_SHA256)]) + RSA_SHA256 + signature)
    told = said_by_alice(monkeypatch, proof)
    assert told[0].startswith('The signature is right') and 'RSA-PSS with SHA2-512' in told[0]


def test_garbage_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    "No mistake is made up where there is none."
    told = said_by_alice(monkeypatch, lambda ike, config, identity: signed(b'anything', config, RSA_SHA256))
    assert told[0].startswith('It does not fit the key that we have for it')
    assert not any('wrong octets' in line for line in told)
    assert 'SHA-256' in told[0]


@pytest.mark.parametrize('swapped, theirs', [
    (True, '10.1.0.0/24'), (False, '10.1.0.0/24'), (False, '0.0.0.0/0')])
def test_traffic_that_is_swapped(swapped: bool, theirs: str) -> None:
    "Only the responder can see it: it has both sides of both ends."
    left, right = configs(**HERITAGE)
    if swapped: left = replace(left, local_ts=left.remote_ts, remote_ts=left.local_ts)
    else: left = replace(left, remote_ts=(TrafficSelector.from_text('10.9.0.0/24'),))
    right = replace(right, remote_ts=(TrafficSelector.from_text(theirs),))
    alice, bob = two_ends(RESPONDERS, left, right)
    handshake(alice, bob)
    failed, = (e for e in events(bob) if isinstance(e, ChildFailed))
    said = why(bob, failed.error)
    assert any('swapped' in line for line in said) == swapped and 'in common: nothing' in said[0]


def test_types_that_a_stranger_has_invented_are_counted_and_not_listed() -> None:
    ours = parse_proposals('aes256-sha256-x25519', ProtocolID.IKE)
    invented = tuple(Transform(TransformType(n), OtherTransform(n)) for n in range(13, 256))
    theirs = (replace(ours[0], transforms=(*ours[0].transforms, *invented)),)
    said = list(compare_proposals(theirs, ours))
    assert said[-1] == '231 more types of algorithm, which we do not have'
    assert sum(map(len, said)) < 2000 and not any('each type has something in common' in s for s in said)
