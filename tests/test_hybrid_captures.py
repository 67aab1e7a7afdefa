"""Two sessions of strongSwan 6.1 with additional key exchanges (RFC 9370): X25519 and ML-KEM-768, and
MODP-3072, ML-KEM-512 and P-256. In each a Child SA and the IKE SA are rekeyed. charon has logged every secret
in its own order; all of it is computed again, from the shared secrets of the key exchanges alone.
"""
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ike_lit.capture.keylog import KeyTable, parse_keylog, secret_line
from ike_lit.capture.observer import ObservedSA, TrustAnchors
from ike_lit.capture.pcap import Capture, read_capture
from ike_lit.capture.show import Story, analyse
from ike_lit.wire.auth import SharedKey, signed_octets
from ike_lit.wire.const import ExchangeType, Prf, TransformType
from ike_lit.wire.intermediate import IntAuth, authenticated
from ike_lit.wire.ke import KE
from ike_lit.wire.keys import Keys
from ike_lit.wire.payload import Encrypted, parse

SESSIONS = sorted((Path(__file__).parent / 'vectors' / 'live_hybrid').iterdir())
NONCE, ML_KEM = 32, 32  # octets of a nonce of charon's, and of a secret of ML-KEM


class Session:
    "A capture, what charon has logged, and the key log that follows from it."

    def __init__(self, path: Path):
        rows = json.loads((path / 'secrets.json').read_text())['rows']
        self.rows = [(row['label'], bytes.fromhex(row['hex'])) for row in rows]
        with (path / 'capture.pcap').open('rb') as file: self.capture = read_capture(file)
        self.lines = ''.join(secret_line(*entry) for entry in self.entries())
        psk = next(octets for label, octets in self.rows if label == 'secret')
        self.believed = TrustAnchors(shared=SharedKey(psk))

    def all(self, label: str) -> list[bytes]:
        return [octets for name, octets in self.rows if name == label]

    def entries(self) -> Iterator[tuple[bytes, bytes, int]]:
        "Each Ni with its secrets, numbered: those of IKE_INTERMEDIATE have a row each, others are joined."
        known: list[bytes] = []
        for (_, secret), (_, more), (label, third) in zip(*(self.rows[n:] for n in range(3)), strict=False):
            if label == 'nonces': ni = third[:NONCE]
            elif label == 'seed' and third.startswith(secret) and secret: ni = third[len(secret):][:NONCE]
            else: continue
            yield ni, secret, known.count(ni)
            known.append(ni)
            for at in range(0, len(more), ML_KEM):
                yield ni, more[at:at + ML_KEM], known.count(ni)
                known.append(ni)

    def story(self, table: KeyTable | None = None, capture: Capture | None = None) -> Story:
        return analyse(capture or self.capture, table or parse_keylog(self.lines), self.believed)


@pytest.fixture(scope='module', params=SESSIONS, ids=lambda path: path.name)
def live(request: pytest.FixtureRequest) -> Session: return Session(request.param)


def test_every_message_opens_and_both_proofs_are_right(live: Session) -> None:
    story = live.story()
    closed = [t.seen.number for t in story.told if t.sealed and t.content is None]
    assert len(story.told) >= 14 and not closed
    assert {str(t.header.exchange_type) for t in story.told} == {
        'IKE_SA_INIT', 'IKE_INTERMEDIATE', 'IKE_AUTH', 'CREATE_CHILD_SA', 'IKE_FOLLOWUP_KE', 'INFORMATIONAL'}
    assert not [r for t in story.told for r in t.remarks if r.grade == 'wrong']
    assert sum('AUTH is right' in r.text for t in story.told for r in t.remarks) == 2


def test_every_message_is_built_as_it_came(live: Session) -> None:
    "In the clear, and what was sealed."
    for told in live.story().told:
        assert bytes(parse(told.seen.data)) == told.seen.data
        whole = told.content is not None and told.packet.all(Encrypted) == []
        if not whole: continue
        chain = told.packet.chain()[1]
        assert told.content.startswith(chain) and len(told.content) - len(chain) <= 1  # or a Pad Length


def generations(sa: ObservedSA) -> list[Keys]: return [*(keys for keys, _ in sa.earlier), sa.keys]


def test_all_keys_are_charons(live: Session) -> None:
    story = live.story()
    ours = [keys for sa in story.observer.sas for keys in generations(sa)]
    assert len(ours) == len(live.all('SKEYSEED')) >= 3
    for name in 'd', 'ei', 'er', 'pi', 'pr':
        assert [getattr(keys, f'sk_{name}') for keys in ours] == live.all(f'Sk_{name} secret')
    children = [child.keys for sa in story.observer.sas for child in sa.children]
    assert [k.encr_i for k in children] == live.all('encryption initiator key')
    assert [k.encr_r for k in children] == live.all('encryption responder key') and len(children) == 2


def test_intauth_is_charons(live: Session) -> None:
    "What is covered, octet by octet; what comes of it, after each exchange; and the octets that are signed."
    story = live.story()
    sa = story.observer.sas[0]
    told = [t for t in story.told if t.header.exchange_type == ExchangeType.IKE_INTERMEDIATE
            and t.packet.all(KE)]  # fragments are told with the last of them
    covered = [authenticated(t.packet.data, t.packet.chain()[1]) for t in told]
    assert covered == live.all('IntAuth_A|P')
    kind, intauth, values = Prf(sa.suite.single(TransformType.PRF).id), IntAuth(), []
    for keys, request, response in zip(generations(sa), covered[::2], covered[1::2], strict=False):
        intauth = intauth.after(kind, keys, request, response)
        values += [intauth.initiator, intauth.responder]
    assert values == live.all('IntAuth_N = prf(Sk_px, data)')
    assert intauth == sa.intauth and intauth.exchanges == len(covered) // 2
    octets = [signed_octets(message, nonce, kind, sk_p, sa.bodies[initiator]) + intauth.octets
              for message, nonce, sk_p, initiator in (
                  (sa.first[0], sa.nr, sa.keys.sk_pi, True), (sa.first[1], sa.ni, sa.keys.sk_pr, False))]
    assert octets == live.all('octets = message + nonce + prf(Sk_px, IDx\') + IntAuth')


def test_the_key_log_says_the_same_when_it_is_read_again(live: Session) -> None:
    table = parse_keylog(live.lines)
    assert len(table.secrets) == 3 and not table.remarks
    assert live.lines == ''.join(line for ni in table.secrets for line in (
        secret_line(ni, table.secrets[ni]),
        *(secret_line(ni, secret, n) for (name, n), secret in table.more.items() if name == ni)))


def test_what_can_not_be_opened_without_a_secret(live: Session) -> None:
    "All up to the exchange that brings it, and nothing after it; the reader is told which secret is missing."
    first = live.rows[2][1][:NONCE]
    for lost in [n for ni, n in parse_keylog(live.lines).more if ni == first]:
        table = parse_keylog(live.lines)
        del table.more[first, lost]
        opens_up_to(live.story(table), lost)


def opens_up_to(story: Story, lost: int) -> None:
    sealed = [t for t in story.told if t.sealed]
    opened = [t.header.exchange_type for t in sealed if t.content is not None]
    assert set(opened) == {ExchangeType.IKE_INTERMEDIATE}
    assert max(t.header.message_id for t in sealed if t.content is not None) == lost
    closed = next(t for t in sealed if t.header.exchange_type == ExchangeType.IKE_AUTH)
    why = ' '.join(r.text for r in closed.remarks)
    assert f'SK({lost}), of an additional key exchange, is not in the key log' in why


def test_a_proof_needs_every_message_that_it_covers(live: Session) -> None:
    missing = next(m for m in live.capture.messages if m.data[18] == ExchangeType.IKE_INTERMEDIATE)
    rest = tuple(m for m in live.capture.messages if m is not missing)
    story = live.story(capture=replace(live.capture, messages=rest))
    proofs = [r for t in story.told for r in t.remarks if 'AUTH' in r.text]
    assert len(proofs) == 2
    assert all('covers IKE_INTERMEDIATE exchanges that are not in the capture' in r.text for r in proofs)
