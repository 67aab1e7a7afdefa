"""Nothing that is said about a failure is false: for each sentence of chapter 29 there is a failure in which
it would be, and must not appear.

The table has a row for each sentence. A sentence without a row is found by reading the chapter's code.
"""
import ast
import errno
import inspect
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from canonical import HERITAGE, KEYS, configs, private_key, public_key, two_ends
from ike_lit.cli import diagnosis
from ike_lit.cli.diagnosis import NOBODY, compare_proposals, from_system, why
from ike_lit.engine.create_child_sa import RESPONDERS, rekey_child, rekey_ike_sa
from ike_lit.engine.model import ChildFailed, Closed, Config
from ike_lit.testing.network import events, handshake, talk
from ike_lit.wire.auth import Identity, SharedKey
from ike_lit.wire.certificate import Signer
from ike_lit.wire.configuration import Pool
from ike_lit.wire.const import (
    Discard, ExchangeType, Fact, IkeError, InvalidKePayload, NoAnswer, NoProposalChosen,
    ProtocolID, TsUnacceptable)
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.payload import Notify, Packet
from ike_lit.wire.ppk import Ppk
from ike_lit.wire.proposal import parse_proposals
from ike_lit.wire.ts import TrafficSelector
from test_cli import DEMO_KEYS, HERE, NAMES, OTHER, run, there, until
from test_diagnosis import RSA_SHA256, parts, signed

ALICE, BOB = configs(**HERITAGE)
WRONG_NAME = Identity.from_text('carol.example.org')
SECRET, OTHER_SECRET = SharedKey(b'c2f1a7e0b6d94f3358d1'), SharedKey(b'99f1a7e0b6d94f335800')


def read(text: str) -> tuple: return parse_proposals(text, ProtocolID.IKE)


def ts(text: str) -> tuple: return (TrafficSelector.from_text(text),)


def fail(alice: Config = ALICE, bob: Config = BOB, who: str = 'alice',
         configs: tuple[Config, ...] = ()) -> str:
    "What one end is told of a handshake that fails."
    attempt, other = two_ends(RESPONDERS, alice, bob)
    if configs: other.configs = configs
    handshake(attempt, other)
    while (at := attempt.next_timer()) is not None: attempt.handle_timer(at)
    ends = [*attempt.lineage.new_sas, attempt] if who == 'alice' else [other]
    failed = [(end, e.error) for end in ends for e in events(end)
              if isinstance(e, Closed | ChildFailed) and e.error]
    end, error = failed[0]
    return '\n'.join([str(error), *why(end, error)])


def rekeying(begin: Callable, **changes: object) -> str:
    "What Alice is told when Bob has had another mind since IKE_AUTH."
    alice, bob = handshake(*two_ends(RESPONDERS, ALICE, BOB))
    bob.config = replace(bob.config, **changes)
    alice.start(begin, *(alice.children if begin is rekey_child else ()), now=1)
    talk(alice, bob, now=1)
    error, = [e.error for e in events(alice) if isinstance(e, ChildFailed)]
    return '\n'.join([str(error), *why(alice, error)])


def shared(ours: SharedKey, theirs: SharedKey | None = None) -> dict[str, object]:
    return {'credential': ours, 'trust': theirs or ours}


def silence(*remarks: IkeError, established: bool = False, big: bool = False, answered: bool = False,
            nat: bool = False, error: str = '') -> str:
    "What is told when an attempt has met with these."
    ike, bob = two_ends(RESPONDERS, ALICE, BOB)
    if established or answered: ike, _ = handshake(ike, bob)
    if answered: ike.agreed = replace(ike.agreed, proof='')
    ike.window.sent = bytes(3000 if big else 300)
    ike.agreed = replace(ike.agreed, fragments=False)
    ike.local = replace_natt(ike.local, nat)
    for remark in remarks: ike.note_unauthenticated(remark)
    facts = Fact.NONE if error else Fact.SILENCE
    return '\n'.join(why(ike, NoAnswer(error or 'no answer that can be believed', facts=facts)))


def replace_natt(end: Endpoint, natt: bool) -> Endpoint:
    return Endpoint(end.host, 4500 if natt else 500, natt)


def by(proof: Callable) -> str:
    "What Alice is told when Bob proves himself like that."
    from ike_lit.engine import ike_sa
    honest = ike_sa.make_auth
    ike_sa.make_auth = lambda ike, *how: proof(ike, *how[:2])
    try: return fail()
    finally: ike_sa.make_auth = honest


def named(name: Identity, config: Config = ALICE) -> Config: return replace(config, remote_id=name)


LEASE = {'pool': Pool(['10.99.0.0/29'])}
garbage = by(lambda ike, config, identity: signed(b'anything', config, RSA_SHA256))
sha1 = by(lambda ike, config, identity: signed(b''.join(parts(ike, identity)), config))
wrong_octets = by(lambda ike, config, identity: signed(
    parts(ike, identity)[0] + parts(ike, identity)[2], config, RSA_SHA256))
wrong_name = fail(bob=named(WRONG_NAME, BOB), who='bob')  # and the key is right
by_secret = replace(ALICE, **shared(SECRET))
right_psk_wrong_name = fail(by_secret, replace(named(WRONG_NAME, BOB), **shared(SECRET)), 'bob')
other_psk = fail(by_secret, replace(BOB, **shared(OTHER_SECRET)), 'bob')
newline = fail(replace(ALICE, **shared(SharedKey(SECRET.secret + b'\n'))),
               replace(BOB, **shared(SECRET)), 'bob')
two_keys = shared(OTHER_SECRET, SECRET)
swapped_psk = fail(replace(ALICE, **two_keys), replace(BOB, **two_keys), 'bob')
no_suite = fail(bob=replace(BOB, ike=read('camellia256-sha256-x25519')))
pfs = rekeying(rekey_child, esp=parse_proposals('camellia256-sha256-modp2048', ProtocolID.ESP))
no_rekey = rekeying(rekey_ike_sa, ike=read('camellia256-sha256-x25519'))
no_child = fail(bob=replace(BOB, esp=parse_proposals('aes256-sha256', ProtocolID.ESP)))
we_refuse_child = fail(bob=replace(BOB, esp=parse_proposals('aes256-sha256', ProtocolID.ESP)), who='bob')
other_mode = fail(replace(ALICE, mode='transport'))
childless = fail(bob=replace(BOB, childless='force'), who='bob')
same_key = fail(bob=replace(BOB, credential=Signer(private_key(KEYS / 'initiator.key'))))
wrong_ts = fail(replace(ALICE, remote_ts=ts('10.20.0.0/24')))
we_refuse_ts = fail(replace(ALICE, remote_ts=ts('10.20.0.0/24')), who='bob')
swapped_ts = fail(replace(ALICE, local_ts=ALICE.remote_ts, remote_ts=ALICE.local_ts), who='bob')
no_request = fail(bob=replace(BOB, require_request=True, **LEASE))
we_want_a_request = fail(bob=replace(BOB, require_request=True, **LEASE), who='bob')
stranger = replace(BOB, trust=public_key(KEYS / 'responder.pub'))
one_of_two = fail(bob=BOB, who='bob', configs=(named(WRONG_NAME, stranger), stranger))
none_of_two = fail(bob=BOB, who='bob', configs=(named(WRONG_NAME, BOB), named(BOB.local_id, BOB)))
two_of_two = fail(bob=BOB, who='bob', configs=(stranger, stranger))
no_ppk = fail(bob=replace(BOB, ppk=Ppk(b'winter', bytes(32))), who='bob')
quiet = silence()
aead = '\n'.join(compare_proposals(read('aes256gcm16-prfsha256-x25519,aes128-sha256-modp2048'),
                         read('aes256gcm16-prfsha256-modp2048,aes256-sha256-x25519')))
no_aead = '\n'.join(compare_proposals(read('aes256-sha256-x25519,aes128-sha512-ecp256'),
                                      read('aes256-sha512-x25519')))
other_group = '\n'.join(compare_proposals(read('aes256-sha256-modp2048'), read('aes256-sha256-x25519')))
same = '\n'.join(compare_proposals(read('aes256-sha256-x25519'), read('aes256-sha256-x25519')))


def guess() -> str:
    "A stranger has sent a public value of another group, and is asked for ours."
    _, bob = two_ends(RESPONDERS, ALICE, BOB)
    return '\n'.join(['', *why(bob, InvalidKePayload('KE of group 15, we want 14', b'\0\x0e'))])


def same_group_again() -> str:
    alice, _ = two_ends(RESPONDERS, ALICE, BOB)
    return '\n'.join(why(alice, InvalidKePayload('the peer asks for group 14')))


def alone(kind: type[IkeError], fact: Fact) -> str: return '\n'.join(why(None, kind('', facts=fact)))


IKEV1, SHORT = Discard('IKE version 1', facts=Fact.OLD_VERSION), Discard('too short')
REFUSED, NO_ROUTE = (
    from_system(OSError(n, os.strerror(n))) for n in (errno.ECONNREFUSED, errno.EHOSTUNREACH))
# how a sentence begins, or what is in it: what was said where it is true, and where it would be false
SENTENCES = {
    ': both have ': (same, 'DH: both', other_group),
    ': the peer has ': (other_group, 'DH: the peer has', same),
    'nothing in common': (other_group, 'nothing in common', same),
    'each type has something in common': (no_aead, 'each type', other_group),
    ': a cipher with its own integrity check (AEAD)': (aead, '(AEAD)', no_aead),
    'We offered ': (no_suite, 'We offered', we_refuse_child + childless),
    'Compare --esp and --mode': (no_child, '--esp and --mode', no_suite + childless + no_rekey),
    'It has taken our ciphers before': (pfs, 'perfect forward secrecy (PFS)', no_child + no_rekey + no_suite),
    'Compare --mode with': (other_mode, 'Compare --mode', no_child + childless),
    'Compare --ike with': (no_suite, 'Compare --ike', no_child + we_refuse_child),
    'To ask which suites it takes': (no_suite, '--probe', no_child + childless),
    'The signature is right': (same_key, 'The signature is right', garbage),
    'It is made with SHA-1': (sha1, 'It is made with SHA-1', garbage + wrong_name + same_key),
    'Both ends have been given the same private key': (same_key, 'same private key', wrong_name + sha1),
    'The peer has signed the wrong octets': (wrong_octets, 'wrong octets', garbage + wrong_name),
    'Otherwise it is right': (wrong_octets, 'Otherwise', garbage + wrong_name),
    'It does not fit ': (garbage, 'It does not fit', wrong_name + right_psk_wrong_name + newline),
    'To compare, on the peer': (garbage, 'openssl pkey', wrong_name + other_psk),
    'The shared key is right': (right_psk_wrong_name, 'The shared key is right', other_psk + newline),
    'It fits our shared key': (newline, 'with a newline at the end', right_psk_wrong_name + other_psk),
    'It is made with our own key': (swapped_psk, 'swapped', other_psk + right_psk_wrong_name),
    'It does not fit our shared key': (other_psk, 'not fit our shared key', newline + swapped_psk),
    'It calls itself': (wrong_name, 'It calls itself', garbage + other_psk + one_of_two),
    'Its log says why. Usually': (fail(bob=named(WRONG_NAME, BOB)), 'Its log says why', wrong_name + garbage),
    'We are ': (garbage, 'and expect FQDN bob.example.org', none_of_two + two_of_two),
    'Compare --local-id': (garbage, 'Compare --local-id', no_suite),
    'of our connections are for that name': (two_of_two, 'for that name', one_of_two + none_of_two),
    'Our {} connections are for': (none_of_two, 'connections are for FQDN carol', one_of_two + garbage),
    'The peer says ': (we_refuse_ts, 'in common: nothing', wrong_ts),
    'It is what we have for the other side': (swapped_ts, 'swapped?', we_refuse_ts),
    'We are configured for ': (wrong_ts, 'configured for 10.1.0.0/24', we_refuse_ts),
    'Compare --local-ts': (wrong_ts, 'Compare --local-ts', no_child),
    'The host is there, or a firewall': (silence(REFUSED), 'says that nobody listens', silence(REFUSED, IKEV1)
                                         + silence(NO_ROUTE) + quiet),
    'There is no way to that address': (silence(NO_ROUTE), 'There is no way',
                                        silence(NO_ROUTE, IKEV1) + quiet),
    'Is the address right': (quiet, NOBODY, silence(IKEV1) + silence(REFUSED)),
    'To see whether our packets arrive': (quiet, 'tcpdump', silence(IKEV1) + silence(answered=True)),
    'So somebody answers': (silence(IKEV1), 'So somebody answers', quiet + silence(REFUSED)),
    'It speaks IKE version 1': (silence(IKEV1), 'It speaks IKE version 1', silence(SHORT)),
    'It was there a while ago': (silence(established=True), 'a while ago', silence(answered=True) + quiet),
    'Its log says why.': (silence(answered=True, error='the peer has closed the IKE SA'), 'Its log says why.',
                          quiet),
    'IKE_SA_INIT was answered': (silence(answered=True), 'was answered', quiet + silence(IKEV1)
                                 + silence(answered=True, error='the peer has closed the IKE SA')),
    'Since then a NAT was seen': (silence(answered=True, nat=True), 'UDP port', silence(answered=True)),
    'The request has ': (silence(answered=True, big=True), 'travels in IP fragments', silence(answered=True)),
    'Or the peer does not like our name': (silence(answered=True), 'does not like', quiet),
    'Name the packet': (fail(bob=replace(BOB, single_pair=True)), '--packet',
                        fail(bob=replace(BOB, single_pair=True), who='bob')),
    'Its log says why it has no inner address': (fail(replace(ALICE, request=tuple(
        map(__import__('ipaddress').ip_address, ['0.0.0.0'])), local_ts=ts('0.0.0.0/0'))),  # noqa: S104
        'no inner address for us', we_want_a_request),
    'Ask for an inner address': (no_request, '--request-address', we_want_a_request),
    'Try --mode tunnel': (alone(NoProposalChosen, Fact.NAT_MODE), '--mode tunnel', other_mode),
    'If it can do no better': (sha1, '--allow-sha1', garbage + same_key),
    'To check its signatures': (fail(alice=replace(ALICE, trust=SECRET)), '--peer-key', garbage + other_psk),
    'Compare --ppk-file': (no_ppk, '--ppk-file and --ppk-id', garbage + no_suite + other_psk),
    'It has to ask later': (childless, '--childless', no_suite + no_child),
    'Name its traffic': (alone(TsUnacceptable, Fact.NO_SELECTORS), '--remote-ts, or',
                         wrong_ts + we_refuse_ts),
    'ICMP or the system': (str(REFUSED), 'ICMP or the system', str(IKEV1)),
    'Compare the group in --ike': (same_group_again(), 'Compare the group', guess()),
}


@pytest.mark.parametrize('sentence', SENTENCES)
def test_it_is_said_where_it_is_true(sentence: str) -> None:
    said, words, _ = SENTENCES[sentence]
    assert words in said


@pytest.mark.parametrize('sentence', SENTENCES)
def test_it_is_not_said_where_it_is_false(sentence: str) -> None:
    _, words, said = SENTENCES[sentence]
    assert words not in said


def literals() -> Iterator[str]:
    "Yield how the sentences of the chapter begin."
    tree = ast.parse(inspect.getsource(diagnosis))
    # what is odd about a proposal by itself has a table of its own, in test_explain_requests.py
    tree.body = [node for node in tree.body if getattr(node, 'name', '') != 'flaws']
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Yield | ast.Return) else None
        for part in ast.walk(value) if value else ():
            if isinstance(part, ast.JoinedStr):
                text = ''.join(p.value if isinstance(p, ast.Constant) else '{}' for p in part.values)
                yield text
            elif isinstance(part, ast.Constant) and isinstance(part.value, str): yield part.value
    yield from (*diagnosis.ADVICE.values(), *diagnosis.OPTION_ADVICE.values())


def test_each_sentence_has_a_row() -> None:
    "Those that are long enough to be one, and begin with a capital letter."
    known = [key.replace('{}', '') for key in SENTENCES]
    sentences = [text for text in literals() if len(text.split()) > 3 and text[0].isupper()]
    assert len(sentences) > 25
    for text in sentences:
        plain = text.replace('{}', '')
        assert any(plain.startswith(key) or key in plain for key in known), text


def test_a_secret_that_has_no_white_space_is_not_said_to_have_lost_it() -> None:
    "The example that gave this file its name."
    assert 'white space' not in right_psk_wrong_name and 'quotes' not in right_psk_wrong_name


def test_the_command_that_is_named_leads_to_the_peer() -> None:
    alice, _ = two_ends(RESPONDERS, ALICE, BOB)
    assert diagnosis.program(alice) == 'python -m ike_lit.initiator 192.0.2.2'
    alice.remote = Endpoint('192.0.2.2', 5500)
    assert diagnosis.program(alice).endswith('192.0.2.2 --port 5500')


def test_the_connection_that_is_meant_is_the_one_that_is_judged() -> None:
    "The first one of the file is another peer's, and its key is not spoken of."
    first = named(WRONG_NAME, replace(BOB, trust=SECRET))
    said = fail(who='bob', configs=(first, stranger))
    assert 'It does not fit the key that we have for it' in said
    assert 'expect FQDN alice.example.org' in said and 'carol' not in said


# What came back, and was of no use

@contextmanager
def answering(answer: Callable[[bytes], bytes | list[bytes]]) -> Iterator[tuple[str, ...]]:
    "A peer that answers everything in its own way."
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('127.0.0.1', 0))
        sock.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try: data, addr = sock.recvfrom(65535)
                except TimeoutError: continue
                said = answer(data)
                for one in said if isinstance(said, list) else [said]: sock.sendto(one, addr)
        thread = threading.Thread(target=serve)
        thread.start()
        try: yield '127.0.0.1', '--port', str(sock.getsockname()[1]), '--timeout', '1.5'
        finally:
            over.set()
            thread.join()


def ikev1(data: bytes) -> bytes:
    "An informational message of IKEv1, as from racoon: INVALID-MAJOR-VERSION."
    body = bytes.fromhex('0000000c0000000101000005')
    return data[:8] + b'\1' * 8 + b'\x0b\x10\x05\0' + bytes(4) + (28 + len(body)).to_bytes(4, 'big') + body


def response(data: bytes, *payloads: object) -> bytes:
    return Packet(ExchangeType.IKE_SA_INIT, payloads).encode(
        data[:8], bytes(8), response=True, initiator=False, message_id=0)


def padded(data: bytes) -> bytes: return response(data, Notify(14)) + bytes(4)


def redirect(data: bytes) -> bytes: return response(data, Notify(16407, b'\1\4\xc0\0\2\7'))


@pytest.mark.parametrize('answer, words', [
    (ikev1, ['IKE version 1 (2 times)', 'It speaks IKE version 1: let it speak version 2']),
    (padded, ['40 octets that were dropped: the header says 36 octets, the datagram has 40 (2 times)']),
    (redirect, ['REDIRECT, to another gateway (RFC 5685), where we do not go (2 times)']),
    (lambda data: b'go away', ['7 octets that were dropped'])])
def test_what_came_back_is_told_and_counted(answer: Callable[[bytes], bytes], words: list[str]) -> None:
    with answering(answer) as peer: done = run(*peer, *NAMES, *DEMO_KEYS)
    assert done.returncode == 3, done.stdout
    for word in [*words, 'So somebody answers on UDP port']: assert word in done.stdout
    for lie in 'nothing came back', NOBODY, 'tcpdump': assert lie not in done.stdout


def test_noise_does_not_push_out_what_counts() -> None:
    "A hundred kinds of datagrams, and the refusal is still the explanation."
    def answer(data: bytes) -> list[bytes]:
        return [response(data, Notify(14)), *(bytes(n) for n in range(2, 102))]
    with answering(answer) as peer: done = run(*peer, *NAMES, *DEMO_KEYS, '--timeout', '0.9')
    assert done.returncode == 4 and 'NO_PROPOSAL_CHOSEN' in done.stdout


# An ordinary detour

def test_another_group_is_no_failure() -> None:
    "The initiator guesses, is asked for another group, and has its tunnel; nobody says that anything failed."
    ours, theirs = 'aes256gcm16-prfsha256-modp2048-x25519', 'aes256gcm16-prfsha256-x25519'
    with until('listening', 'responder', *HERE, *OTHER, '--ike', theirs) as bob:
        done = run(*there(bob), *NAMES, *DEMO_KEYS, '--once', '--ike', ours)
        bob.terminate()
        said = bob.said + bob.stdout.read()
    assert done.returncode == 0 and 'N(INVALID_KE_PAYLOAD)' in done.stdout
    assert 'failed' not in done.stdout + said and 'Compare' not in said
    assert 'asked for another group: KE of group MODP_2048, we want CURVE_25519' in said
