"""What is fuzzed: each target takes any octets, makes an input of them, and raises if an invariant is broken.

Only `IkeError` comes out (of what people write: `ValueError`), no state is changed by what was not
authenticated, and what can grow has a bound. What takes the time of the product goes through
`timed`, so that what the target does itself is not counted.
"""
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import cache, partial
from io import BytesIO, StringIO
from math import isfinite
from pathlib import Path
from random import Random
from time import thread_time
from types import FrameType
from typing import NamedTuple, TypeVar, cast

ROOT = Path(__file__).resolve().parents[2]
for folder in ROOT / 'nbs', ROOT / 'tests': sys.path.insert(0, str(folder))

from canonical import KEYS, configs
from explaining import BELIEVED, GCM, LIVE, Recorded, record, tiled
from ike_lit.capture.keylog import KeyTable, parse_keylog
from ike_lit.capture.pcap import RAW, Capture, Captured, read_capture
from ike_lit.capture.show import Story, notebook, story_html, story_json, analyse
from ike_lit.cli.credential import parse_secret
from ike_lit.cli.options import InitiatorOptions, config_from, declared, read_connections, warnings
from ike_lit.cli.report import as_json, report
from ike_lit.engine.create_child_sa import CHILD_LIMIT, rekey_child, rekey_ike_sa
from ike_lit.engine.host import TRANSIENT_LIMIT, REPLIES, Host
from ike_lit.engine.ike_sa import CANDIDATES
from ike_lit.engine.informational import EARLY_LIMIT
from ike_lit.engine.model import Closed, Config
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.initiator import build_parser
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.auth import IDi, Identity
from ike_lit.wire.const import Discard, ExchangeType, IkeError, ProtocolID, TransformType, Type
from ike_lit.wire.fragment import SKF, MAX_FRAGMENTS, MAX_MESSAGE, Reassembly
from ike_lit.wire.header import Header, Reader, dissect
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Packet
from ike_lit.wire.proposal import ALGORITHMS, NO_INTEG, SA, key_size, parse_proposals
from ike_lit.wire.sk import SK, parse_outer, parse_inside
from ike_lit.wire.ts import TrafficSelector
from scenes import CONVERSATIONS, NAMES, SECRET, TOLD, Scene, scene
from snapshot import Tree, changes, tree
from spoil import EDITS, Edit, honest, spoiled
from test_hybrid_captures import SESSIONS, Session

T = TypeVar('T')


class Broken(AssertionError):
    "An invariant does not hold."


def must(holds: object, what: str) -> None:
    if not holds: raise Broken(what)


HANG = 5.0  # seconds of the processor


class Hang(BaseException):
    "An input takes too long. No `except Exception` takes it for something else."


def _alarm(signum: int, frame: FrameType | None) -> None: raise Hang(f'more than {HANG:g} s for one input')


@contextmanager
def in_time() -> Iterator[None]:
    "Raise `Hang` if something takes much too long; time in which others use the processor does not count."
    before = signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Octets:
    "Octets that are used up; after the last one come zeros."

    def __init__(self, data: bytes): self.data, self.at = data, 0

    @property
    def left(self) -> int: return max(0, len(self.data) - self.at)

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size: int = 1) -> int: return int.from_bytes(self.take(size).ljust(size, b'\0'), 'big')

    def pick(self, things: Sequence[T]) -> T: return things[self.number() % len(things)]

    def some(self) -> bytes: return self.take(self.number(2))

    def rest(self) -> bytes: return self.take(self.left)

    def edits(self) -> list[Edit]:
        return [(self.pick(EDITS), self.number(2), self.number(), 1 + self.number() % 64)
                for _ in range(1 + self.number() % 4)]


class Clock:
    """The time of the processor that the product takes for one input.

    That of the thread: while a timer of the process is set, Linux counts the process's in whole ticks."""

    def __init__(self) -> None: self.seconds = 0.0

    def __call__(self, work: Callable[..., T], *args: object, **named: object) -> T:
        begun = thread_time()
        try: return work(*args, **named)
        finally: self.seconds += thread_time() - begun


# The parser

def parser(data: bytes, timed: Clock) -> None:
    "A message, also one whose lengths are true, so that more of it is read; and what is told of it."
    o = Octets(data)
    match o.number() % 4:
        case 0: message = o.rest()
        case 1: message = honest(o.rest())
        case 2: message = headed(Type(o.number()), o.rest())
        case _:  # one payload
            kind, critical, body = Type(o.number()), o.number() & 0x80, o.rest()
            message = headed(kind, bytes([0, critical]) + (4 + len(body) & 0xffff).to_bytes(2, 'big') + body)
    error = packet = None
    try: packet = timed(Packet.parse, Reader(message))
    except IkeError as raised: error = raised
    shown = dissect(Packet.parse, message)
    must(tiled(shown) == message, 'the dissection has each octet once')
    must(str(shown.error) == str(error), 'the dissection ends where the parser does')
    if len(message) < 500: must(repr(shown) and shown._repr_html_(), 'it can be shown')
    if packet: again(message, packet)


def headed(first: Type, chain: bytes) -> bytes:
    return bytes(Header(b'initiate', b'responds', first, ExchangeType.INFORMATIONAL, False, True, 7,
                        28 + len(chain))) + chain


def again(message: bytes, packet: Packet) -> None:
    "What was read is written as it came."
    must(repr(packet), 'it can be shown')
    must(bytes(replace(packet, data=b'')) == message, 'built again, it is the same')


# SK

def _locks() -> Iterator[SK]:
    for cipher in (a.transform for a in ALGORITHMS.values() if a.transform.type == TransformType.ENCR):
        checks = [NO_INTEG] if cipher.aead else [
            a.transform for a in ALGORITHMS.values() if a.transform.type == TransformType.INTEG]
        for check in checks:
            yield SK(cipher, check, bytes(range(key_size(cipher))), bytes(range(key_size(check))))


LOCKS = list(_locks())


def chance(size: int) -> bytes: return bytes(range(size))


def head(o: Octets, kind: Type) -> Callable[[int], Header]:
    flags = o.number()
    return partial(Header, b'initiate', b'responds', kind, ExchangeType(o.number()), bool(flags & 1),
                   bool(flags & 2), o.number(2))


def sk(data: bytes, timed: Clock) -> None:
    "Boxes as they come, authentic ones with anything inside, changed ones, and fragments."
    o = Octets(data)
    lock = o.pick(LOCKS)
    match o.number() % 4:
        case 0:
            with suppress(IkeError): timed(lock.open, o.rest())
        case 1: opened(o, lock, timed)
        case 2:  # the plaintext is padded as it likes
            fixed, iv, plain = head(o, Type.SK), lock.cipher.new_iv(chance), o.rest()
            plain = plain[:len(plain) // lock.cipher.block_size * lock.cipher.block_size]
            size = 4 + len(iv) + len(plain) + lock.cipher.icv_size
            if size > 0xffff: return
            seen = bytes(fixed(28 + size)) + bytes([Type.Notify, 0]) + size.to_bytes(2, 'big')
            with suppress(IkeError):
                timed(lock.open, seen + iv + (lock.cipher.seal(seen, iv, plain) if plain else
                                              bytes(lock.cipher.icv_size)))
        case _: fragments(o, lock, timed)


def opened(o: Octets, lock: SK, timed: Clock) -> None:
    made, edits, first = head(o, Type.SK), o.edits(), Type(o.number())
    content = o.rest()[:60000]
    message = lock.protect(made, first, content, chance)
    try: inside, _ = parse_inside(first, content)
    except IkeError as error:
        try: timed(lock.open, message)
        except IkeError as found: must(str(found) == str(error), 'the error is that of the content')
        else: raise Broken('a content that makes no sense is opened')
    else: must(timed(lock.open, message).payloads == inside, 'what was sealed is opened')
    changed = spoiled(message, edits, mend=True)
    if changed == message: return
    try: timed(lock.open, changed)
    except Discard: return
    raise Broken('a message that was changed is opened')


def fragments(o: Octets, lock: SK, timed: Clock) -> None:
    pieces, now = Reassembly(), 0.0
    made = head(o, Type.SKF)
    while o.left:
        how, number, total, first = o.number(), o.number(), o.number(), Type(o.number())
        now += how >> 4
        if how & 1: made = head(o, Type.SKF)
        content = o.some()[:4000] * (1 if how & 2 else 12)
        data = lock.protect(made, first, content, chance, SKF.pack(number, total))
        if how & 4:
            before = tree(pieces)
            changed = spoiled(data, o.edits(), mend=True)
            if changed != data:
                with suppress(Discard):
                    timed(pieces.add, lock, changed, now)
                    raise Broken('a fragment that was changed is believed')
                must(not changes(before, tree(pieces)), 'a fragment that was changed changes nothing')
        with suppress(IkeError): timed(pieces.add, lock, data, now)
        must(len(pieces.pieces) < MAX_FRAGMENTS, 'fragments are bounded')
        must(sum(len(p.content) for p in pieces.pieces.values()) <= MAX_MESSAGE, 'and so are their octets')


# The engine

def vouched(host: Host) -> dict[int, Tree]:
    "What is known of each IKE SA that has, or had, keys: in itself, and in the tables of its host."
    first, found = {id(ike): data for data, ike in host.first.items()}, {}
    for spi, named in host.sas.items():
        for ike in named:
            if ike.state == State.INITIAL: continue
            found[id(ike)] = tree(ike, '', TOLD) | {
                'called': spi, 'first': first.get(id(ike)), 'passes': host.transient.get(ike),
                'due': host.timers.due.get(ike), 'attempt': id(host.attempts.get(ike))}
    return found


def forged(here: Scene, data: bytes, timed: Clock) -> None:
    """Let a datagram arrive that nobody vouches for.

    It may begin a half-open SA, and answer an IKE_SA_INIT request of ours, which makes a candidate,
    a repetition or a remark. Whatever has keys stays as it is, unless its time was up anyway."""
    before, now = vouched(here.host), here.end.now + 0.25  # a little later, or a time would be no news
    for ike, until in here.host.transient.items():
        if until <= now: before.pop(id(ike), None)
    waiting = [ike for ike in here.sas if ike.state == State.INITIAL]
    timed(here.hear, data, now)
    after = vouched(here.host)
    for name, known in before.items():
        must(name in after, 'an IKE SA is gone')
        must(not (paths := changes(known, after[name])), f'changed by what was not authenticated: {paths}')
    must(all(ike.state == State.INITIAL for ike in waiting), 'an attempt is over')
    fresh = [ike for ike in here.sas if id(ike) not in before and ike not in waiting]
    for ike in fresh:
        must(ike.state != State.ESTABLISHED and not ike.children, 'a stranger is in')
        must(ike.initiator or ike.nonces[1], 'an SA without a request')
    told = heard(here, timed)
    must(not any(isinstance(e, Closed) and ike and id(ike) in before for ike, e in told), 'an end is told')
    if fresh or waiting: SCENES.pop(here.name, None)  # the next input begins anew


def heard(here: Scene, timed: Clock) -> list[tuple[IKE | None, object]]:
    "Take what the end tells, and let people read it; see that nothing has grown too much."
    host, told = here.host, []
    while found := host.next_event():
        told.append(found)
        timed(lambda: (list(report(*found, verbose=True)), json.dumps(as_json(*found))))  # noqa: B023
    here.own += timed(host.datagrams_to_send)
    here.own = here.own[-20:]
    must(len(host.transient) <= TRANSIENT_LIMIT and len(host.replies) <= REPLIES, 'what passes is bounded')
    for ike in here.sas:
        must(len(ike.lineage.new_sas) <= CANDIDATES and len(ike.unauthenticated) <= 16, 'answers are bounded')
        must(len(ike.children) <= CHILD_LIMIT, 'Child SAs are bounded')
        must(len(ike.exchange.early_deletes) <= EARLY_LIMIT, 'early Deletes are bounded')
        must(len(ike.outbox) == len(ike.events) == 0, 'all was told')
        for pieces in ike.window.pieces: must(len(pieces.pieces) < MAX_FRAGMENTS, 'fragments are bounded')
        if ike.state == State.CLOSED: must(not (ike.keys or ike.incoming or ike.children), 'secrets are gone')
    return told


SCENES: dict[str, Scene] = {}
STEPS = 8  # of an input


def forget() -> None:
    "Forget what is kept between inputs, so that it does not count as a leak."
    SCENES.clear()


def at(name: str) -> Scene:
    "Return an end in a state, as it was left by the last input if that has changed nothing."
    return SCENES.get(name) or SCENES.setdefault(name, scene(name))


def engine(data: bytes, timed: Clock) -> None:
    "A sequence of datagrams to an end in any state, either role."
    o = Octets(data)
    here = at(o.pick(NAMES))
    for _ in range(STEPS):
        if not o.left: break
        STEP[o.number() % len(STEP)](here, o, timed)


def noise(here: Scene, o: Octets, timed: Clock) -> None: forged(here, o.some(), timed)


def changed(here: Scene, o: Octets, timed: Clock) -> None:
    "A true message, of either side, old or new, that was changed."
    known = [*here.coming, *here.past, *here.own]
    if not known: return
    datagram, mend, edits = o.pick(known), o.number() & 1, o.edits()
    data = spoiled(datagram.data, edits, bool(mend))
    if data not in {d.data for d in here.coming}: forged(here, data, timed)


def addressed(here: Scene, o: Octets) -> tuple[IKE | None, Callable[[Type], Callable[[int], Header]]]:
    "An IKE SA of the end, and the header of a message for it, mostly with the right flags and ID."
    ike = o.pick(here.sas) if here.sas else None
    how, kind = o.number(), o.pick([*ExchangeType, ExchangeType(99)])
    response = bool(how & 1)
    sender = not ike.initiator if ike else True
    if how & 0xf0 == 0xf0: sender = not sender
    spi_i, spi_r = (ike.spi_i, ike.spi_r) if ike else (b'stranger', bytes(8))
    number = 0
    if ike:
        pending = ike.window.pending
        number = pending.message_id if response and pending else ike.window.expected_id
    if how & 0xe == 0xe: number = o.number(4)
    return ike, lambda box: partial(Header, spi_i, spi_r, box, kind, response, sender, number)


def in_the_clear(here: Scene, o: Octets, timed: Clock) -> None:
    "The right SPIs, flags and Message ID, and no protection."
    _, header = addressed(here, o)
    first, chain = Type(o.number()), o.some()
    data = bytes(header(first)(28 + len(chain))) + chain
    if data not in {d.data for d in here.coming}: forged(here, data, timed)


def by_a_stranger(here: Scene, o: Octets, timed: Clock) -> None:
    "A box or a fragment, sealed with other keys."
    _, header = addressed(here, o)
    lock, first, content = o.pick(LOCKS), Type(o.number()), o.some()[:60000]
    fixed = SKF.pack(1 + o.number() % 3, 1 + o.number() % 3) if o.number() & 1 else b''
    kind = Type.SKF if fixed else Type.SK
    forged(here, lock.protect(header(kind), first, content, chance, fixed), timed)


def by_the_peer(here: Scene, o: Octets, timed: Clock) -> None:
    "Anything at all, sealed by the true other end."
    ike, header = addressed(here, o)
    theirs = here.counterpart(ike) if ike else None
    first, content, edits = Type(o.number()), o.some()[:60000], o.edits()
    if o.number() & 1:  # what it would say, with changes inside
        for d in here.coming[:1]:
            with suppress(IkeError):
                if theirs and theirs.outgoing:
                    _, box = parse_outer(d.data, Type.SK)
                    first, content = box.first, spoiled(theirs.outgoing.decrypted(d.data, box), edits)
    if theirs is None or theirs.outgoing is None: return
    fixed = SKF.pack(1 + o.number() % 3, 1 + o.number() % 3) if o.number() & 1 else b''
    kind = Type.SKF if fixed else Type.SK
    SCENES.pop(here.name, None)
    data = theirs.outgoing.protect(header(kind), first, content, chance, fixed)
    if fixed and ike: ike.agreed = replace(ike.agreed, fragments=True)
    timed(here.hear, data)
    heard(here, timed)


def true(here: Scene, o: Octets, timed: Clock) -> None:
    "What is on its way arrives."
    SCENES.pop(here.name, None)
    if here.coming: timed(here.hear, here.coming.pop(0).data)
    heard(here, timed)


def begins(here: Scene, o: Octets, timed: Clock) -> None:
    "The end begins a conversation."
    SCENES.pop(here.name, None)
    what = o.pick(list(CONVERSATIONS))
    if not here.host.established: return
    ike = here.host.established[0]
    args = (next(iter(ike.children), b''),) if what in ('rekey child', 'delete child') else ()
    timed(here.host.start, ike, CONVERSATIONS[what], *args, now=here.end.now)
    heard(here, timed)


def waits(here: Scene, o: Octets, timed: Clock) -> None:
    "Time passes, at most as long as it takes to give up."
    SCENES.pop(here.name, None)
    here.end.now += o.number() / 8
    timed(here.host.handle_timer, here.end.now)
    at = here.host.next_timer()
    must(at is None or at > here.end.now, 'it wants to be woken in the past')
    heard(here, timed)


STEP = noise, changed, in_the_clear, by_a_stranger, by_the_peer, changed, true, begins, waits


# What explains

@cache
def life() -> Recorded:
    "A conversation with all kinds of exchange."
    r = record(f'{GCM}-ke1_ecp256', 'aes128gcm16-x25519-ke1_ecp256', seed=43)
    r.go_on('alice', rekey_child, next(iter(r.alice.established[0].children)))
    r.go_on('bob', rekey_ike_sa)
    return r


@cache
def first_locks() -> tuple[SK, SK]:
    "What protects IKE_INTERMEDIATE in that one."
    seen = life().seen
    story = analyse(Capture(tuple(seen), len(seen), Counter()), life().table)
    (_, locks), = story.observer.sas[0].earlier
    return locks


@cache
def key_table() -> KeyTable:
    "The secrets of that one, and of each recorded one; of a plain one, those of its first IKE SA."
    table = parse_keylog(life().lines + ''.join(Session(folder).lines for folder in SESSIONS))
    for folder in LIVE:
        with (folder / 'capture.pcap').open('rb') as file: first = read_capture(file).messages[0]
        shared = json.loads((folder / 'keys.json').read_text())['ike_sas'][0]['shared']
        table.learn(Packet.parse(Reader(first.data)).one(Nonce).data, bytes.fromhex(shared))
    return table


def explain(data: bytes, timed: Clock) -> None:
    "A capture as a file, as frames, or as messages of a conversation, some of them changed, with its keys."
    o = Octets(data)
    how, table = o.number(), key_table()
    match how % 3:
        case 0:
            try: capture = timed(read_capture, BytesIO(o.rest()))
            except ValueError: return
        case 1: capture = timed(read_capture, BytesIO(framed(o)))
        case _:
            messages = said(o)
            capture = Capture(tuple(messages), len(messages), Counter())
    capture = replace(capture, messages=capture.messages[:MESSAGES])
    shown(timed(analyse, capture, table, BELIEVED), how // 3, timed)


MESSAGES = 6  # of a capture
LINKS = 1, RAW, 0, 113, 276, 108, 9, 51, 104, 239


def framed(o: Octets) -> bytes:
    "A pcap file of any frames."
    out = bytes.fromhex('d4c3b2a1020004000000000000000000ffff0000') + o.pick(LINKS).to_bytes(4, 'little')
    while o.left:
        frame = o.some()
        out += bytes(8) + 2 * len(frame).to_bytes(4, 'little') + frame
    return out


def said(o: Octets) -> list[Captured]:
    "Messages of a conversation: true, changed, changed by somebody who has the keys, and others."
    found: list[Captured] = []
    while o.left and len(found) < MESSAGES:
        how, true = o.number(), o.pick(life().seen)
        data = true.data
        if how & 3 == 1: data = spoiled(data, o.edits(), bool(how & 4))
        if how & 3 == 2: data = resealed(data, o)
        if how & 3 == 3: data = headed(Type(o.number()), o.some())
        found.append(true._replace(number=len(found) + 1, time=float(len(found)), data=data))
    return found


def resealed(data: bytes, o: Octets) -> bytes:
    "A message of the first IKE SA with something else in the box."
    first, edits = life().seen[0].data[:8], o.edits()
    if data[16] != Type.SK or data[:8] != first: return data
    header, box = parse_outer(data, Type.SK)
    early = header.exchange_type == ExchangeType.IKE_INTERMEDIATE
    lock = (first_locks() if early else life().locks[0])[not header.initiator]
    made = partial(Header, header.spi_i, header.spi_r, Type.SK, header.exchange_type, header.response,
                   header.initiator, header.message_id)
    return lock.protect(made, box.first, spoiled(lock.decrypted(data, box), edits), chance)


def shown(story: Story, how: int, timed: Clock) -> None:
    "Show a story in one of the ways that there are."
    for told in story.told: must(tiled(told.outside) == told.seen.data, 'each octet is shown once')
    match how % 4:
        case 0: text = '\n'.join(timed(lambda: list(story.lines(octets=True))))
        case 1: text = json.dumps(timed(story_json, story))
        case 2: text = timed(story_html, story)
        case _: text = timed(notebook, story, 'story')
    must('\x1b' not in text, 'no control characters')


# What people write

def config(data: bytes, timed: Clock) -> None:
    "Proposals, selectors, names, secrets, key logs, options and files of connections."
    o = Octets(data)
    read = o.pick(READERS)
    octets = o.rest()
    try: read(octets if read is secret else octets.decode('utf-8', 'surrogateescape'), timed)
    except ValueError as error: must('\n' not in str(error) or read is toml, 'one line says why')


def proposal(text: str, timed: Clock) -> None:
    for protocol in ProtocolID.IKE, ProtocolID.ESP:
        with suppress(ValueError):
            made = timed(parse_proposals, text, protocol)
            if len(made) > 255: continue
            spi = b'' if protocol == ProtocolID.IKE else b'1234'
            sa = SA(tuple(replace(p, spi=spi) for p in made))
            must(SA.parse(Reader(bytes(sa))) == sa, 'what was typed can be sent')
            words = ','.join(p.words for p in made)
            must(timed(parse_proposals, words, protocol) == made, 'and said again')


def selector(text: str, timed: Clock) -> None:
    ts = timed(TrafficSelector.from_text, text)
    must(TrafficSelector.from_text(str(ts)) == ts, 'a selector can be said again')


def identity(text: str, timed: Clock) -> None:
    name = timed(Identity.from_text, text)
    sent = IDi.of(name)
    must(IDi.parse(Reader(bytes(sent))) == sent and repr(name), 'a name can be sent')


def keylog(text: str, timed: Clock) -> None: timed(parse_keylog, text)


def secret(octets: bytes, timed: Clock) -> None: must(timed(parse_secret, octets), 'a secret is never empty')


class File(NamedTuple):
    "A file of connections that is nowhere."
    text: str
    parent: Path = Path('/nowhere')

    def read_text(self) -> str: return self.text

    def __str__(self) -> str: return 'peers.toml'


def toml(text: str, timed: Clock) -> None:
    found = timed(read_connections, cast(Path, File(text)), InitiatorOptions)
    for given in found.values(): options(given, timed)


def words(text: str, timed: Clock) -> None:
    given = text.split()
    given = [w for w in given if w.removeprefix('--').partition('=')[0] not in (*PATHS, 'config')]
    given = [w for w in given if w.startswith('--') and '=' in w or w in BARE]
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            found = timed(build_parser().given, ['127.0.0.1', *given])
    except SystemExit: return
    if 'config' not in found: options(InitiatorOptions(**found), timed)


PATHS = {name: one.name for name, one in declared(InitiatorOptions).items() if one.metadata['path']}


def options(args: InitiatorOptions, timed: Clock) -> None:
    "What was configured works: an end that has it goes on in time."
    given = {name: getattr(args, name) for name in PATHS.values()}
    if any(value for name, value in given.items() if name != 'psk_file'): return
    args = replace(args, psk_file=None, private_key=str(KEYS / 'initiator.key'),
                   peer_key=str(KEYS / 'responder.pub'))
    made = timed(config_from, args, '127.0.0.1', '127.0.0.1')
    list(timed(warnings, made, args))
    lives(replace(made, credential=SECRET, trust=SECRET, remote_id=made.local_id, ike=QUICK.ike, pool=None,
                  esp=QUICK.esp, childless='allow', mode='tunnel', require_request=False, request=()), timed)


BARE = '--allow-sha1', '--rsa-pss', '--childless', '--single-pair', '--initial-contact', '--verbose', '--json'
QUICK = configs('aes128gcm16-prfsha256-x25519', 'aes128gcm16')[0]


def lives(made: Config, timed: Clock) -> None:
    theirs = replace(made, local_ts=made.remote_ts, remote_ts=made.local_ts)
    source = Random(1).randbytes  # noqa: S311  # the same in every run is the point
    ends = {ALICE: Host((made,), random=source), BOB: Host((theirs,), random=source)}
    timed(ends[ALICE].connect, made, ALICE, BOB, 0.0)
    now = 0.0
    for _ in range(12):
        way = [d for host in ends.values() for d in host.datagrams_to_send()]
        for d in way: timed(ends[d.destination].receive_datagram, d.data, d.source, now, d.destination)
        times = [at for host in ends.values() if (at := host.next_timer()) is not None]
        if way or not times: continue
        must(all(map(isfinite, times)), 'an alarm at no time')
        must(min(times) > now, 'an alarm in the past')
        now = min(times)
        for host in ends.values(): timed(host.handle_timer, now)


READERS = proposal, selector, identity, keylog, secret, toml, words

Target = Callable[[bytes, Clock], None]
TARGETS: dict[str, Target] = {
    'parser': parser, 'sk': sk, 'engine': engine, 'explain': explain, 'config': config}
