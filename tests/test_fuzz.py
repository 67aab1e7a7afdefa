"""Fuzzing: what the strategies build is read as it was built; spoiled, it is read or refused by an
`IkeError`; and no datagram that nobody vouches for changes anything, in any state, in either role.
Then a short run of the coverage-guided fuzzer on each target.

All of it is bounded by numbers and seeds, not by time.
"""
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from canonical import configs
from explaining import tiled
from fuzz.corpus import LONG
from fuzz.corpus import chain as long_chain
from fuzz.targets import TARGETS, Broken, Clock, again, at, forged, headed, in_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ike_lit.cli.options import Options, config_from, read_connections
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.model import Datagram
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Alarm, Task
from ike_lit.testing.network import ALICE, BOB
from ike_lit.testing.stage import Underway, talk_through
from ike_lit.wire.const import Discard, ExchangeType, IkeError, Type
from ike_lit.wire.fragment import Reassembly, split
from ike_lit.wire.header import Header, Reader, dissect
from ike_lit.wire.payload import Packet, Payload, pack_chain, parse_chain
from ike_lit.wire.proposal import Proposal
from ike_lit.wire.sk import SK
from scenes import NAMES, Scene, scene
from snapshot import changes
from spoil import Edit, spoiled
from strategies import MESSAGES, PAYLOADS, edits, locks, mutations, near_the_start, payloads, to_be_sealed

ROOT = Path(__file__).resolve().parent.parent


def examples(number: int) -> Callable:
    return settings(max_examples=number, deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(HealthCheck))


def sealed(lock: SK, packet: Packet) -> bytes:
    h = packet.header
    return lock.seal(packet, h.spi_i, h.spi_r, response=h.response, initiator=h.initiator,
                     message_id=h.message_id, random=Random(h.message_id).randbytes)  # noqa: S311


# What is built is read as it was built

@pytest.mark.parametrize('kind', PAYLOADS)
def test_every_payload_is_read_as_it_was_built(kind: str) -> None:
    @examples(10)
    @given(PAYLOADS[kind])
    def check(payload: object) -> None:
        first, octets = pack_chain([payload])
        assert parse_chain(first, Reader(octets)) == (payload,)
        assert bytes(parse_chain(first, Reader(octets))[0]) == bytes(payload)
    check()


@pytest.mark.parametrize('kind', MESSAGES)
def test_every_message_is_read_as_it_was_built(kind: str) -> None:
    @examples(6)
    @given(MESSAGES[kind])
    def check(m: Packet) -> None:
        h = m.header
        assert Packet.parse(Reader(m.data)) == m
        assert m.encode(h.spi_i, h.spi_r, response=h.response, initiator=h.initiator,
                        message_id=h.message_id) == m.data
        shown = dissect(Packet.parse, m.data)
        assert shown.error is None and tiled(shown) == m.data and repr(m) and repr(shown)
    check()


@examples(25)
@given(locks(), to_be_sealed, st.integers(80, 400))
def test_what_is_sealed_is_opened_whole_or_in_pieces(lock: SK, m: Packet, room: int) -> None:
    found = lock.open(sealed(lock, m))
    assert found.payloads == m.payloads and found.exchange_type == m.exchange_type
    h, pieces = m.header, Reassembly()
    cut = split(lock, m, h.spi_i, h.spi_r, response=h.response, initiator=h.initiator,
                message_id=h.message_id, random=Random(1).randbytes, room=max(room, 160))  # noqa: S311
    if len(cut) == 1: return
    whole = [pieces.add(lock, data, 0) for data in cut]
    assert whole[:-1] == [None] * (len(cut) - 1) and whole[-1].payloads == m.payloads


# What is spoiled is read or refused

def with_body(payload: Payload, how: list[Edit]) -> bytes:
    "A message with one payload, whose body is spoiled and whose lengths are true."
    return headed(payload.kind, long_chain(payload.kind, spoiled(bytes(payload), how), 1))


@examples(250)
@given(mutations(st.one_of(*MESSAGES.values()).map(lambda m: m.data))
       | st.builds(with_body, payloads, near_the_start))
def test_a_spoiled_message_is_read_or_refused(data: bytes) -> None:
    error = packet = None
    with in_time():
        try: packet = Packet.parse(Reader(data))
        except IkeError as raised: error = raised
        shown = dissect(Packet.parse, data)
        assert tiled(shown) == data and str(shown.error) == str(error) and repr(shown)
        if packet: again(data, packet)


@examples(50)
@given(locks(), to_be_sealed, edits, st.booleans())
def test_a_spoiled_box_is_not_opened(lock: SK, m: Packet, how: list[Edit], mend: bool) -> None:
    data = sealed(lock, m)
    changed = spoiled(data, how, mend)
    if changed == data: return
    with in_time(), pytest.raises(Discard): lock.open(changed)


@examples(40)
@given(locks(), st.lists(payloads, min_size=1, max_size=5), edits)
def test_a_box_with_anything_in_it_is_opened_or_refused(lock: SK, inside: list, how: list[Edit]) -> None:
    first, chain = pack_chain(inside)
    header = partial(Header, b'i' * 8, b'r' * 8, Type.SK, ExchangeType.IKE_AUTH, True, True, 1)
    data = lock.protect(header, first, spoiled(chain, how), Random(1).randbytes)  # noqa: S311
    with in_time(), suppress(IkeError): assert lock.open(data).header


# An end in any state

@st.composite
def forgeries(draw: st.DrawFn, here: Scene) -> bytes:
    """Octets that nobody vouches for: noise, a message of the right SPIs, flags and ID in the clear or
    sealed with other keys, a true one that was changed, one of long ago, and the end's own."""
    kind = draw(st.sampled_from(['noise', 'clear', 'sealed', 'changed', 'old']))
    if kind == 'noise': return draw(st.binary(max_size=100))
    old = [d.data for d in (*here.past, *here.own)]
    if kind == 'changed': return draw(mutations(st.sampled_from([d.data for d in here.coming] + old)))
    if kind == 'old' and old: return draw(st.sampled_from(old))
    m = draw(st.one_of(*MESSAGES.values()))
    if not here.sas: return m.data
    ike, response = draw(st.sampled_from(range(len(here.sas))).map(here.sas.__getitem__)), draw(st.booleans())
    number = ike.window.pending.message_id if response and ike.window.pending else ike.window.expected_id
    how = {'response': response, 'initiator': not ike.initiator, 'message_id': number}
    if kind == 'sealed': return draw(locks()).seal(m, ike.spi_i, ike.spi_r, random=bytes, **how)
    return m.encode(ike.spi_i, ike.spi_r, **how)


@pytest.mark.parametrize('name', NAMES)
def test_what_nobody_vouches_for_changes_nothing(name: str) -> None:
    """All that is known of every IKE SA is the same as before, and all that its host knows as well,
    but for what a first message, or an answer to one, may do (`forged` says what)."""
    model = scene(name)

    @examples(6)
    @given(forgeries(model))
    def check(octets: bytes) -> None:
        if octets in [d.data for d in model.coming]: return
        here = at(name)
        before, init = here.known(), octets[18:19] == bytes([ExchangeType.IKE_SA_INIT])
        with in_time(): forged(here, octets, Clock())
        if not init: assert not changes(before, here.known())
    check()


def outcome(here: Scene) -> list[tuple[int, int]]:
    "How many IKE SAs and Child SAs both ends have, once all has been said."
    talk_through(here.end)
    return [(len(end.host.established), sum(len(ike.children) for ike in end.host.established))
            for end in (here.end, here.peer)]


@pytest.mark.parametrize('name', NAMES)
def test_what_is_true_still_counts(name: str) -> None:
    "After some forgeries it all goes on as without them: the SAs that were to be there are."
    model, expected = scene(name), outcome(scene(name))

    @examples(2)
    @given(st.lists(forgeries(model), min_size=4, max_size=4))
    def check(forged_ones: list[bytes]) -> None:
        here = scene(name)
        for octets in forged_ones:
            if octets in [d.data for d in here.coming]: continue
            datagram = Datagram(octets, here.peer.address, here.end.address)
            with in_time(): here.end.hears(Underway('?', datagram))
        assert outcome(here) == expected
    check()


MARKS = {
    'a set': lambda ike: ike.exchange.early_deletes.add(b'1234'),
    'a time': lambda ike: setattr(ike, 'heard', 7.0),
    'a fragment': lambda ike: ike.window.pieces[1].pieces.update({1: None}),
    'a counter': lambda ike: next(ike.outgoing.cipher.counter),
    'an alarm': lambda ike: ike.alarms.update({Alarm(Task.EXPIRE): (1.0, print)}),
    'a conversation': lambda ike: ike.window.conversation.gi_frame.f_locals['ike'].children.clear()}


@pytest.mark.parametrize('mark', MARKS)
def test_a_mark_that_a_forgery_leaves_is_found(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    "The comparison sees everything that an IKE SA holds."
    here = scene('initiator: asks rekey child')
    ike, = here.host.established

    def leaves_a_mark(sk: SK, data: bytes, known: Header | None = None) -> Packet:
        MARKS[mark](ike)
        raise Discard('the message is not authentic')
    monkeypatch.setattr(SK, 'open', leaves_a_mark)
    with pytest.raises(Broken, match='not authenticated'):
        forged(here, spoiled(here.coming[0].data, [('flip', 40, 1, 1)]), Clock())


# What was found

@pytest.mark.parametrize('body', ['0000002c010100040300000c0100000c800e008003', '00000200010100040300000c'])
def test_a_dissection_ends_with_the_parsers_own_words(body: str) -> None:
    data = headed(Type.SA, long_chain(Type.SA, bytes.fromhex(body), 1))
    found, = Packet.parse(Reader(data)).payloads
    *_, last = dissect(Packet.parse, data).spans
    assert last.rows[-1].odd and last.rows[-1].meaning == found.why


def test_a_long_offer_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    "30 proposals of 255 ciphers each, in one datagram: for each, our own are looked up once."
    bob = IKE(configs()[1], BOB, ALICE, initiator=False, responders=RESPONDERS)
    asked, real = [0], Proposal.offered

    def offered(proposal: Proposal, kind: int) -> tuple:
        asked[0] += 1
        return real(proposal, kind)
    monkeypatch.setattr(Proposal, 'offered', offered)
    monkeypatch.setattr('ike_lit.wire.proposal.MAX_TRANSFORMS', 10**6)  # not the limit keeps it short
    data = headed(Type.SA, long_chain(*LONG['proposals']))
    data = data[:8] + bytes(8) + data[16:18] + bytes([ExchangeType.IKE_SA_INIT, 8]) + bytes(4) + data[24:]
    bob.receive_datagram(data, ALICE, 0)  # no host before it, which would not let so much through
    assert bob.datagrams_to_send() and 0 < asked[0] < 200


@pytest.mark.parametrize('seconds', ['-5', 'nan', 'inf', '1e-12'])
def test_a_silence_of_less_than_nothing_is_no_option(seconds: str) -> None:
    "An end with it would be woken in the past, again and again."
    args = Options(liveness=float(seconds), private_key=str(ROOT / 'keys' / 'initiator.key'),
                   peer_key=str(ROOT / 'keys' / 'responder.pub'))
    with pytest.raises(ValueError, match='--liveness'): config_from(args, '127.0.0.1', '127.0.0.1')


def test_a_file_that_is_too_deep_is_said_to_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / 'peers.toml'
    path.write_text(f'a = {"[" * 5000}{"]" * 5000}')
    with pytest.raises(ValueError, match='recursion'): read_connections(path, Options)


# The fuzzer itself

RUNS = 100  # inputs for each target


@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess:
    "What the program says of a run that is the same each time."
    words = ['--runs', RUNS, '--most', 50, '--seed', 1, '--keep', tmp_path_factory.mktemp('fuzz')]
    return subprocess.run([sys.executable, ROOT / 'tests' / 'fuzz', *map(str, words)], capture_output=True,
                          text=True, timeout=600, check=False)


@pytest.mark.skipif(not find_spec('atheris'), reason='no atheris: it has wheels for Linux on x86_64 only')
@pytest.mark.parametrize('target', TARGETS)
def test_a_short_run_of_the_fuzzer(target: str, fuzzed: subprocess.CompletedProcess,
                                   record_property: Callable) -> None:
    "A hang, a leak, or whatever is broken ends it, and stands there with the input as hex."
    said = [line for line in fuzzed.stdout.splitlines() if line.startswith(f'{target:8} {RUNS:8} inputs')]
    assert said, fuzzed.stdout[-4000:] + fuzzed.stderr[-2000:]
    record_property('fuzzed', (target, 'inputs', str(RUNS)))
    for name, figure in re.findall(r'(median|worst) ([\d.]+ ms)', said[0]):
        record_property('fuzzed', (target, name, figure))
