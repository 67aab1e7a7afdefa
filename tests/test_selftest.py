"""Known answers: what is missing or wrong on this machine is not offered, and is told."""
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import key
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat)
from ike_lit import initiator
from ike_lit.cli.options import InitiatorOptions, config_from, warnings
from ike_lit.wire import selftest, sk
from ike_lit.wire.const import Discard, ProtocolID, TransformType
from ike_lit.wire.proposal import ALGORITHMS, DEFAULT_ESP, DEFAULT_IKE, NO_GROUP, Proposal, parse_proposals
from ike_lit.wire.selftest import KNOWN_ANSWERS, answer, complaint

what_is_left = selftest.tested  # under its own name pytest would run it
IKE, ESP = ProtocolID.IKE, ProtocolID.ESP
CALCULATE = {keyword: a for keyword, a in ALGORITHMS.items()
             if a.transform.type != TransformType.ESN and a.transform != NO_GROUP}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    "Each test asks its own questions."
    complaint.cache_clear()
    yield
    complaint.cache_clear()


def breaks(monkeypatch: pytest.MonkeyPatch, error: object, *keywords: str) -> None:
    "Let the library lack some algorithms, or give other answers for them."
    def worse(algorithm: object) -> bytes:
        if algorithm.keyword not in keywords: return answer(algorithm)
        if isinstance(error, bytes): return error
        raise error
    monkeypatch.setattr(selftest, 'answer', worse)


def keywords_of(proposals: tuple[Proposal, ...]) -> list[set[str]]:
    names = {a.transform: k for k, a in ALGORITHMS.items()}
    return [{names[t] for t in p.transforms if names.get(t) in KNOWN_ANSWERS} for p in proposals]


# The table

@pytest.mark.parametrize('keyword', [
    k for k, a in ALGORITHMS.items() if (not a.weak or k in KNOWN_ANSWERS) and k != 'mlkem512'])
def test_whatever_calculates_has_an_answer(keyword: str) -> None:
    algorithm = ALGORITHMS[keyword]
    given = answer(algorithm)
    if keyword in KNOWN_ANSWERS:
        assert given[-8:].hex() == KNOWN_ANSWERS[keyword] and len(KNOWN_ANSWERS[keyword]) == 16
        assert answer(algorithm) == given and complaint(keyword) == ''
    else: assert given == b'' and keyword not in CALCULATE


def test_the_table_has_no_answers_to_questions_that_nobody_asks() -> None:
    assert set(KNOWN_ANSWERS) <= set(ALGORITHMS)
    assert {k for k, a in CALCULATE.items() if not a.weak and a.transform.id != 0} <= set(KNOWN_ANSWERS)


def test_no_two_answers_are_the_same() -> None:
    "Or a mistake in the table of algorithms might give one in place of the other."
    assert len(set(KNOWN_ANSWERS.values())) == len(KNOWN_ANSWERS)


@pytest.mark.parametrize('text, protocol', [(DEFAULT_IKE, IKE), (DEFAULT_ESP, ESP)])
def test_a_machine_that_has_everything_offers_everything(text: str, protocol: ProtocolID) -> None:
    wanted = parse_proposals(text, protocol)
    assert what_is_left(wanted) == (wanted, [])


# What is wrong

@pytest.mark.parametrize('error', [
    UnsupportedAlgorithm('no'), KeyError('no'), ValueError('no'), NotImplementedError('no')],
    ids=lambda e: type(e).__name__)
def test_what_is_missing_is_not_offered(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    breaks(monkeypatch, error, 'aes256', 'prfsha256', 'x25519')
    offer = parse_proposals('aes256-aes128-sha256-sha512-x25519-ecp256', IKE)
    left, complaints = what_is_left(offer)
    assert keywords_of(left) == [{'aes128', 'sha256', 'sha512', 'prfsha512', 'ecp256'}]
    assert len(complaints) == 3 and all('does not have it' in c for c in complaints)
    assert not any('WRONG' in c for c in complaints)


@pytest.mark.parametrize('error', [b'', b'\0' * 8, b'x' * 40, Discard('what it has sealed')], ids=repr)
def test_what_gives_a_wrong_answer_is_not_offered(
        monkeypatch: pytest.MonkeyPatch, error: object) -> None:
    breaks(monkeypatch, error, 'aes256', 'ecp256')
    left, complaints = what_is_left(parse_proposals('aes256-aes128-sha256-x25519-ecp256', IKE))
    assert keywords_of(left) == [{'aes128', 'sha256', 'prfsha256', 'x25519'}]
    assert sorted(complaints) == [f'{k} is not offered: it gives a WRONG ANSWER to a known question'
                                  for k in ('aes256', 'ecp256')]


@pytest.mark.parametrize('error', [InternalError('no', []), TypeError('no'), AttributeError('no')],
                         ids=lambda e: type(e).__name__)
def test_a_library_may_fail_in_any_way(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    breaks(monkeypatch, error, 'aes256')
    left, complaints = what_is_left(parse_proposals('aes256-aes128-sha256-x25519', IKE))
    assert keywords_of(left) == [{'aes128', 'sha256', 'prfsha256', 'x25519'}] and len(complaints) == 1


def test_a_proposal_without_an_algorithm_for_a_job_goes_and_the_others_are_renumbered(
        monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, UnsupportedAlgorithm('no'), 'camellia256')
    offer = parse_proposals('camellia256-sha256-x25519,aes256-sha256-x25519,aes128-sha256-x25519', IKE)
    left, complaints = what_is_left(offer)
    assert [p.number for p in left] == [1, 2] and len(complaints) == 1
    assert [p.transforms for p in left] == [p.transforms for p in offer[1:]]
    assert [p.number for p in offer] == [1, 2, 3]


@pytest.mark.parametrize('keyword', ['aes256', 'sha256', 'prfsha256', 'x25519'])
def test_if_nothing_is_left_it_is_an_error(monkeypatch: pytest.MonkeyPatch, keyword: str) -> None:
    breaks(monkeypatch, UnsupportedAlgorithm('no'), keyword)
    with pytest.raises(ValueError, match=f'{keyword} is not offered'):
        what_is_left(parse_proposals('aes256-sha256-x25519', IKE))


def test_a_question_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(selftest, 'answer', lambda a: asked.append(a.keyword) or answer(a))
    offer = parse_proposals('aes256-sha256-x25519', IKE)
    for _ in range(3): what_is_left(offer)
    assert sorted(asked) == ['aes256', 'prfsha256', 'sha256', 'x25519']


def test_a_cipher_that_can_not_open_what_it_has_sealed_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest.SK, 'cipher', property(lambda self: OneWay()))
    assert 'WRONG ANSWER' in complaint('aes256gcm16')


class OneWay:
    "A lock that opens to something else."
    iv_size, icv_size = 8, 16

    def seal(self, seen: bytes, iv: bytes, plaintext: bytes) -> bytes:
        return bytes(40) + bytes.fromhex(KNOWN_ANSWERS['aes256gcm16'])  # what was expected

    def open(self, *sealed: bytes) -> bytes: return b'something else'


# The programs

@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    "Credentials, and suites of which one part may be missing."
    private, public = tmp_path / 'key', tmp_path / 'pub'
    private.touch(mode=0o600)
    private.write_bytes(key(3).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key(4).public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return ['127.0.0.1', '--private-key', str(private), '--peer-key', str(public),
            '--ike', 'camellia256-aes256-sha256-x25519', '--esp', 'camellia256-aes256-sha256',
            '--install', 'none']


def said(options: list[str]) -> tuple[list[set[str]], list[str]]:
    args = InitiatorOptions(**initiator.build_parser().given(options))
    config = config_from(args, '127.0.0.1', '127.0.0.2')
    return keywords_of(config.ike + config.esp), list(warnings(config, args))


def test_what_is_missing_is_told_if_people_want_to_know(
        monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.delitem(sk.BLOCK_CIPHERS, 'camellia')
    offered, words = said(options)
    assert not any('camellia256' in keywords for keywords in offered) and not words
    offered, words = said([*options, '-v'])
    assert words and set(words) == {
        'camellia256 is not offered: the cryptography package here does not have it'}


def test_a_wrong_answer_is_told_always(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setitem(KNOWN_ANSWERS, 'camellia256', '00' * 8)
    for verbose in [], ['-v']:
        offered, words = said([*options, *verbose])
        assert not any('camellia256' in keywords for keywords in offered)
        assert words and all('camellia256' in w and 'WRONG ANSWER' in w for w in words)


def test_it_is_told_once(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setitem(KNOWN_ANSWERS, 'camellia256', '00' * 8)
    assert len(said(options)[1]) == 1


WITHOUT = '''
from ike_lit.wire import sk
sk.BLOCK_CIPHERS.pop('camellia')
'''


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    "The program on a machine without Camellia."
    (tmp_path / 'sitecustomize.py').write_text(WITHOUT)
    path = os.pathsep.join((str(tmp_path), str(Path(initiator.__file__).parent.parent)))
    done = subprocess.run([sys.executable, '-m', 'ike_lit.initiator', *arguments],
                          env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True,
                          timeout=30, check=False)
    assert 'Traceback' not in done.stderr
    return done


def test_the_program_on_a_machine_without_an_algorithm(tmp_path: Path, options: list[str]) -> None:
    only = [*options, '--ike', 'camellia256-sha256-x25519']
    done = run(tmp_path, *only)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == ('ike-lit: camellia256 is not offered: '
                           'the cryptography package here does not have it\n')
    done = run(tmp_path, *options, '--port', '9', '--timeout', '0.1', '-v')
    assert done.returncode == 3 and 'warning: camellia256 is not offered' in done.stderr
    quiet = run(tmp_path, *options, '--port', '9', '--timeout', '0.1')
    assert quiet.returncode == 3 and 'camellia' not in quiet.stderr
