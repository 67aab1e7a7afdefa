"""Two ends with real cryptography and a seeded attacker between them: `make mitm`.

Each seed is one run: a suite, how both prove who they are, one IKE SA or two, what Mallory does and
when, and what the ends do after the handshake. Whatever happens, an end is established only with the
other one, and both agree on every value and key; when Mallory has gone, both hold the same. If all
that she did was to add datagrams, the handshake was completed.

    python tests/mitm.py --runs 100000 --state runs.json   # goes on where it has stopped
    python tests/mitm.py --first 7296 --runs 1             # one seed again
    python tests/mitm.py --without icv --runs 1000         # with a guard taken out
"""
import argparse
import contextlib
import inspect
import json
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from heapq import heappush
from importlib import import_module
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == '__main__': sys.path[:0] = [str(ROOT / 'nbs'), str(ROOT / 'tests')]

from attacker import KINDS, MOVES, ON_TIME, Attacker, Past, in_the_clear
from bench.measure import keep
from chapters import MODULES
from canonical import HERITAGE, RSA, configs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ike_lit.engine.create_child_sa import create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.engine.model import (
    ChildEstablished, ChildSA, Config, Datagram, Established, Event, Lifetime, Rekeyed, Timing)
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, Network
from ike_lit.wire.auth import SharedKey
from ike_lit.wire.certificate import Signer
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.ppk import Ppk
from ike_lit.wire.proposal import DEFAULT_ESP, DEFAULT_IKE, Transform

NATT = {end: end._replace(port=4500, natt=True) for end in (ALICE, BOB)}
TIMING = Timing(timeout=15, liveness=25, retry=2, child=Lifetime(), ike=Lifetime())
ONE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
SECRET = SharedKey(b'a secret of both ends')


class Setup(NamedTuple):
    "What both ends are configured for."
    weight: int
    ike: str
    esp: str
    proof: str  # of Alice and of Bob: e: Ed25519, s: a shared key, r: RSA
    more: dict = {}


SETUPS = {
    'gcm': Setup(30, 'aes256gcm16-prfsha256-x25519', 'aes256gcm16', 'ee'),
    'pfs': Setup(14, 'aes128gcm16-prfsha256-x25519', 'aes128gcm16-x25519', 'ee'),
    'shared': Setup(20, 'aes128-sha256-x25519', 'aes128-sha256', 'ss'),
    'counter': Setup(10, 'aes128ctr-sha256-x25519', 'aes128ctr-sha256', 'es'),
    'choice': Setup(20, 'aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp256,'
                    'aes256-aes128-sha384-sha256-x25519-ecp256',
                    'aes256gcm16-aes128gcm16,aes256-sha256', 'se', {'transcript': True}),
    'default': Setup(4, DEFAULT_IKE, DEFAULT_ESP, 'rr'),
    'hybrid': Setup(8, 'aes256gcm16-prfsha384-x25519-ke1_mlkem768', 'aes256gcm16-x25519-ke1_mlkem768', 'ee'),
    'threefold': Setup(6, 'aes128gcm16-prfsha256-x25519-ecp256-ke1_mlkem768-ke1_none-ke2_ecp384-ke2_none',
                       'aes128gcm16-x25519-ke1_ecp256-ke1_none', 'es'),
    'mixed': Setup(5, 'aes256gcm16-prfsha256-x25519', 'aes256gcm16', 'es', {
        'ppk': Ppk(b'winter', bytes(range(32)), mandatory=False), 'transcript': True}),
    'heritage': Setup(2, HERITAGE['ike'], HERITAGE['esp'], 'rr', {'datagram': 576}),
}


@cache
def ends(setup: str) -> tuple[Config, Config]:
    "Return the configurations of both ends."
    s = SETUPS[setup]
    left, right = configs(s.ike, s.esp, RSA, timing=TIMING, **s.more)
    proofs = {'e': ((Signer(ONE), ONE.public_key()), (Signer(OTHER), OTHER.public_key())),
              's': ((SECRET, SECRET),) * 2,
              'r': ((left.credential, right.trust), (right.credential, left.trust))}
    (mine, by_mine), (its, by_its) = proofs[s.proof[0]][0], proofs[s.proof[1]][1]
    return replace(left, credential=mine, trust=by_its), replace(right, credential=its, trust=by_mine)


# What must hold

class View(NamedTuple):
    "What one end knows of an IKE SA that the other one has to know as well."
    initiator: bool
    suite: frozenset[Transform]
    keys: tuple[bytes, ...]
    nonces: tuple[bytes, bytes]
    first_messages: tuple[bytes, bytes]
    fragments: bool

    @property
    def other(self) -> 'View':
        return self._replace(initiator=not self.initiator, nonces=self.nonces[::-1],
                             first_messages=self.first_messages[::-1])


def view(ike: IKE) -> View:
    born = ike.first_messages == (b'', b'')  # by rekeying
    return View(ike.initiator, frozenset(ike.suite.transforms), tuple(vars(ike.keys).values()),
                ike.nonces, ike.first_messages, ike.agreed.fragments and not born)


def crosswise(child: ChildSA, addresses: bool) -> tuple:
    "Return a Child SA as the other end has to see it."
    def esp(sa: object) -> tuple:
        where = (sa.source, sa.destination) if addresses else ()
        return sa.spi, sa.encr, sa.encr_key, sa.integ, sa.integ_key, *where
    udp = (bool(child.encap),) if addresses else ()
    return esp(child.outbound), esp(child.inbound), child.remote_ts, child.local_ts, child.mode, *udp


def seen_here(child: ChildSA, addresses: bool) -> tuple:
    out, into, remote, local, *rest = crosswise(child, addresses)
    return into, out, local, remote, *rest


class Broken(AssertionError):
    "An invariant does not hold."


def require(holds: bool, what: str) -> None:
    if not holds: raise Broken(what)


@dataclass
class Ledger:
    "What one end has been through."
    config: Config
    views: dict[tuple[bytes, bytes], View] = field(default_factory=dict)  # by both SPIs
    up: set[tuple[bytes, bytes]] = field(default_factory=set)
    children: dict[tuple[bytes, bytes], ChildSA] = field(default_factory=dict)  # by both ESP SPIs
    calls: int = 0  # IKE SAs that this end has begun
    served: int = 0  # of which so many were established


class Wire(Network):
    "A network in Mallory's hands, and a judge who compares both ends after each step."

    def __init__(self, alice: Host, bob: Host, both: tuple[Config, Config], mallory: Attacker | None):
        super().__init__({ALICE: alice, BOB: bob, NATT[ALICE]: alice, NATT[BOB]: bob})
        self.mallory, self.addresses = mallory, 'elsewhere' not in (mallory.kinds if mallory else ())
        self.ledgers = Ledger(both[0]), Ledger(both[1])
        self.pair = alice, bob

    def carry(self, d: Datagram) -> None:
        if self.tap: self.tap(d)
        for seconds, sent in self.mallory.touch(d) if self.mallory else [(ON_TIME, d)]:
            heappush(self._way, (self.now + seconds, next(self._serial), sent))

    def collect(self) -> None:
        for host, ours, theirs in zip(self.pair, self.ledgers, self.ledgers[::-1], strict=True):
            for named in list(host.sas.values()):
                for ike in named:
                    if ike.keys and (ike.spi_i, ike.spi_r) not in ours.views:
                        ours.views[ike.spi_i, ike.spi_r] = view(ike)
            while found := host.next_event(): self.judge(*found, ours, theirs)
            for d in host.datagrams_to_send(): self.carry(d)

    def judge(self, ike: IKE | None, event: Event, ours: Ledger, theirs: Ledger) -> None:
        "Raise `Broken` if an end has believed what the other one does not know."
        match event:
            case Established(who):
                name = ike.spi_i, ike.spi_r
                require(who == theirs.config.local_id, f'established with {who!r}')
                require(name in theirs.views, f'{ike} is established with nobody')
                mine, its = ours.views[name], theirs.views[name].other
                # whether its own first message arrived as it was sent, a responder can't know:
                # the initiator finds out by the next message, and says so
                if not ike.initiator: its = its._replace(first_messages=(
                    mine.first_messages[0], its.first_messages[1]), fragments=mine.fragments)
                require(mine == its, f'{ike} is established in disagreement')
                require(name not in ours.up, f'{ike} is established twice')
                require(not ike.initiator or name in theirs.up, f'{ike} is alone')
                ours.up.add(name)
                ours.served += ike.initiator
            case Rekeyed(spi_i, spi_r):
                mine, its = (end.views.get((spi_i, spi_r)) for end in (ours, theirs))
                require(mine is not None, 'rekeyed to nothing')
                require(its is None or mine == its.other, 'rekeyed in disagreement')
                require(its is not None or not mine.initiator, 'rekeyed with nobody')
            case ChildEstablished(child, _, asked):
                name = child.inbound.spi, child.outbound.spi
                require(name not in ours.children, 'a Child SA is established twice')
                ours.children[name] = child
                its = theirs.children.get(name[::-1])
                require(its is not None or not asked, 'a Child SA with nobody')
                require(its is None or crosswise(its, self.addresses) == seen_here(child, self.addresses),
                        'a Child SA in disagreement')

    def compare(self) -> int:
        "Both ends hold the same, and nothing half done; return how many IKE SAs there are."
        ikes = [{(i.spi_i, i.spi_r, view(i) if first else view(i).other) for i in host.established}
                for host, first in zip(self.pair, (True, False), strict=True)]
        require(ikes[0] == ikes[1], f'in the end {len(ikes[0])} and {len(ikes[1])} IKE SAs, or others')
        children = [{(seen_here if first else crosswise)(c, self.addresses)
                     for i in host.established for c in i.children.values()}
                    for host, first in zip(self.pair, (True, False), strict=True)]
        require(children[0] == children[1], 'in the end the Child SAs are others')
        for host in self.pair:
            host.handle_timer(self.now)  # half open ones are forgotten
            left = [i for named in host.sas.values() for i in named
                    if i.state in (State.CONNECTING, State.INITIAL)]
            require(not left, f'in the end there is {left}')
        return len(ikes[0])


# A run

def rekey_its_child(ike: IKE):  # noqa: ANN201
    return rekey_child(ike, ike.child.inbound.spi if ike.child else b'')


def delete_its_child(ike: IKE):  # noqa: ANN201
    return delete_child(ike, ike.child.inbound.spi if ike.child else b'')


def make_another_child(ike: IKE):  # noqa: ANN201
    yield from delete_its_child(ike)
    yield from create_child(ike)


STEPS = (rekey_its_child, rekey_its_child, rekey_ike_sa, rekey_ike_sa, make_another_child,
         make_another_child, create_child, delete_its_child, liveness)


@cache
def past(setup: str, number: int) -> Past:
    "Return an earlier run between the same ends, in which nobody has meddled."
    random, sent, drawn = Random(f'past {setup} {number}'), list[Datagram](), list[bytes]()  # noqa: S311

    def octets(size: int) -> bytes:
        drawn.append(random.randbytes(size))
        return drawn[-1]
    both = ends(setup)
    alice, bob = Host((both[0],), random=octets), Host((both[1],), random=octets)
    network = Wire(alice, bob, both, None)
    network.tap = sent.append
    caller = alice if number % 2 == 0 else bob
    call(network, caller)
    network.run(until=1)
    ike = caller.established[0]
    other = (bob if caller is alice else alice).established[0]
    first = tuple(in_the_clear(d.data) for d in sent if in_the_clear(d.data))[-2:]
    proofs = tuple(opened(end, [d.data for d in sent if d.source.host == host])
                   for end, host in ((other, sent[0].source.host), (ike, sent[0].destination.host)))
    for end, make in ((alice, rekey_its_child), (bob, rekey_ike_sa), (alice, delete_its_child)):
        for sa in end.established: end.start(sa, make, now=network.now)
        network.run(until=network.now + 1)
    exponents = tuple(exponent(p.one(KE), drawn) for p in first)
    return Past(tuple(sent), first, exponents, proofs)


def opened(ike: IKE, messages: list[bytes]) -> tuple:
    "Return the payloads of the IKE_AUTH message among these, by the keys of its receiver."
    for data in messages:
        if data[18] != 35: continue
        if data[16] == 46: return ike.incoming.open(data).payloads
        whole = ike.window.pieces[bool(data[19] & 0x20)].add(ike.incoming, data, 0)
        if whole: return whole.payloads
    raise RuntimeError('no IKE_AUTH')


def exponent(ke: KE, drawn: list[bytes]) -> KeyExchange:
    "Return the secret half of a public value, which is among the octets that were drawn."
    for octets in drawn:
        def again(size: int, octets: bytes = octets) -> bytes:
            if size != len(octets): raise ValueError
            return octets
        with contextlib.suppress(ValueError):
            if (dh := KeyExchange(ke.group, again)).public == ke.public: return dh
    raise RuntimeError('no exponent')


def call(network: Wire, host: Host) -> None:
    first = host is network.pair[0]
    here, there = (ALICE, BOB) if first else (BOB, ALICE)
    ledger = network.ledgers[not first]
    ledger.calls += 1
    host.connect(ledger.config, here, there, network.now, (NATT[here], NATT[there]))


@dataclass
class Outcome:
    "How a run went."
    seed: int
    kinds: tuple[str, ...]
    setup: str
    beside: bool
    called: int  # IKE SAs that were begun
    served: int  # and established
    forged: int  # datagrams of Mallory's
    broken: str = ''


def run(seed: int) -> Outcome:
    "Play one run."
    chance = Random(seed)  # noqa: S311
    setup, = chance.choices(list(SETUPS), [s.weight for s in SETUPS.values()])
    kinds = (chance.choice(KINDS),) if chance.random() < 0.75 else tuple(
        k for k in chance.sample(KINDS, 4) if k != 'lose')
    beside = set(kinds) <= {*MOVES, 'impostor'} - {'lose'} and chance.random() < 0.5
    known = past(setup, chance.randrange(4)), past(setup, chance.randrange(4))
    mallory = Attacker(Random(chance.random()), known, kinds, beside,  # noqa: S311
                       chance.choice((0.15, 0.4, 0.8, 1.0)))
    both, octets = ends(setup), Random(chance.random()).randbytes  # noqa: S311
    alice, bob = (Host((c,), random=octets, cookie_threshold=chance.choice((0, 10, 10, 10))) for c in both)
    network = Wire(alice, bob, both, mallory)
    when = chance.choice(('always', 'always', 'handshake', 'later'))
    outcome = Outcome(seed, kinds, setup, beside, 0, 0, 0)
    try:
        play(network, mallory, chance, when)
        if beside:
            for ledger in network.ledgers:
                require(ledger.served == ledger.calls, 'no handshake, although nothing was lost')
    except Broken as error: outcome.broken = str(error)
    outcome.called, outcome.served = (sum(getattr(end, name) for end in network.ledgers)
                                      for name in ('calls', 'served'))
    outcome.forged = mallory.forged
    return outcome


def play(network: Wire, mallory: Attacker, chance: Random, when: str) -> None:
    "Handshake, what comes after it, and the time in which both find out what is left."
    mallory.active = when != 'later'
    for host in chance.choice((network.pair[:1], network.pair[1:], network.pair, network.pair[:1] * 2)):
        call(network, host)
        network.run(until=network.now + chance.choice((0, 0, 0.015, 0.05)))
    network.run(until=6)
    mallory.active = when != 'handshake'
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        host, step = chance.choice(network.pair), chance.choice(STEPS)
        if chance.random() < 0.05: step = delete_ike_sa
        for ike in host.established: host.start(ike, step, now=network.now)
        network.run(until=network.now + chance.choice((0, 0.02, 0.5, 6)))
    network.run(until=network.now + 2)
    mallory.active = False
    network.run(until=network.now + 75)
    network.compare()


# With a guard taken out

class Guard(NamedTuple):
    "A line of the product, and what it is replaced by."
    module: str
    function: str  # or Class.method
    line: str
    instead: str


GUARDS = {
    'proof': [Guard('proof', 'check_auth',
                    'verify_auth(config, identity.identity, kind, octets, auth, seen)', "''")],
    'name': [Guard('proof', 'check_auth', 'not identity.identity.matches(config.remote_id)', 'False')],
    'names': [Guard('proof', 'check_auth', 'not identity.identity.matches(config.remote_id)', 'False'),
              Guard('ike_sa', 'find_config', 'if not wanted or', 'if True or')],
    'first message signed': [Guard('auth', 'signed_octets', 'message + nonce', 'nonce')],
    'nonce signed': [Guard('auth', 'signed_octets', 'message + nonce', 'message')],
    'name signed': [Guard('auth', 'signed_octets', ' + prf(kind, sk_p, id_body)', '')],
    'nonce and name signed': [Guard('auth', 'signed_octets', 'message + nonce + prf(kind, sk_p, id_body)',
                                    'message')],
    'icv': [Guard('sk', 'EncryptThenMac.open', 'if not hmac.compare_digest(icv, expected)', 'if False')],
    'tag': [Guard('sk', 'AeadCipher.open', 'return self.aead.decrypt(self.salt + iv, ciphertext + icv, aad)',
                  'return unlocked(self, iv, ciphertext)')],
    'protection': [Guard('protocol', 'open_message', 'if ike.incoming is None:',
                         'if header.next_payload not in (Type.SK, Type.SKF):')],
    'role': [Guard('protocol', 'receive', 'if header.initiator == ike.initiator', 'if False')],
    'spi': [Guard('protocol', 'receive', 'if header.spi_i != ike.spi_i', 'if False'),
            Guard('protocol', 'receive', 'header.spi_r != ike.spi_r', 'False'),
            Guard('host', 'named_sa', '(ike.spi_i, ike.spi_r) == (header.spi_i, header.spi_r)',
                  'ike.spi_r == header.spi_r')],
    'request id': [Guard('protocol', 'receive_request', 'header.message_id != ike.window.expected_id',
                          'False')],
    'response id': [Guard('protocol', 'receive_response',
                          '(header.message_id, header.exchange_type) != asked',
                          'header.exchange_type != asked[1]')],
    'turn': [Guard('protocol', 'receive_request', 'if not in_turn(ike, kind)', 'if False')],
    'offer': [Guard('proposal', 'check_choice', 'offered, chosen = tuple(offered), answer.proposals[0]',
                    'return answer.proposals[0]')],
    'group': [Guard('ike_sa', 'wanted_group', 'or group not in groups(offer.proposals)', '')],
    'own nonce': [Guard('ike_sa', 'accept_init', 'if nr.data == ni.data', 'if False')],
    'rivals': [Guard('ike_sa', 'accept_init', 'if len(before) >= MAX_ANSWERS', 'if before')],
    'refusal': [Guard('ike_sa', 'ike_sa_init', 'except IkeError as error: ike.note_unauthenticated(error)',
                      'except IkeError as error: raise')],
}


def unlocked(lock: object, iv: bytes, ciphertext: bytes) -> bytes:
    "Return the plaintext without a look at the tag: the key stream is what zeros are sealed to."
    stream = lock.aead.encrypt(lock.salt + iv, bytes(len(ciphertext)), b'')
    return bytes(a ^ b for a, b in zip(ciphertext, stream, strict=False))


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    "Run with a guard taken out; nothing where there is no name."
    texts: dict[tuple[str, str], str] = {}
    with contextlib.ExitStack() as stack:
        for guard in GUARDS[name] if name else ():
            module = import_module(f'ike_lit.{MODULES[guard.module]}')
            owner, _, function = guard.function.rpartition('.')
            where = getattr(module, owner) if owner else module
            true, key = getattr(where, function), (guard.module, guard.function)
            text = texts.get(key) or textwrap.dedent(inspect.getsource(true))
            if guard.line not in text: raise ValueError(f'{guard.function} has no {guard.line!r}')
            texts[key], made = text.replace(guard.line, guard.instead, 1), {}
            stack.enter_context(patch.object(module, 'unlocked', unlocked, create=True))
            exec(compile(texts[key], f'<{guard.function} without {name}>', 'exec'),  # noqa: S102
                 vars(module), made)
            users = [where] if owner else [
                m for m in list(sys.modules.values()) if getattr(m, '__name__', '').startswith('ike_lit')
                and getattr(m, function, None) is true]
            for user in users: stack.enter_context(patch.object(user, function, made[function]))
        past.cache_clear()
        try: yield
        finally: past.cache_clear()


# Many runs

def some(first: int, count: int, guard: str) -> list[Outcome]:
    "Play the runs of some seeds."
    with without(guard): return [run(seed) for seed in range(first, first + count)]


def add(state: dict, outcome: Outcome) -> None:
    "Count a run."
    kind = outcome.kinds[0] if len(outcome.kinds) == 1 else 'several'
    for row in kind, f'  {outcome.setup}', 'all':
        cells = Counter(state['rows'].get(row, {}))
        cells.update({'runs': 1, 'added only': outcome.beside, 'IKE SAs begun': outcome.called,
                      'established': outcome.served, "Mallory's datagrams": outcome.forged,
                      'broken': bool(outcome.broken)})
        state['rows'][row] = dict(cells)
    if outcome.broken: state['broken'].append([outcome.seed, outcome.broken])


def table(rows: dict[str, dict[str, int]]) -> Iterator[str]:
    "Yield the lines of a table in Markdown: kinds of attack, suites, all."
    columns = list(rows['all'])
    yield '| | ' + ' | '.join(columns) + ' |'
    yield '|---|' + '---:|' * len(columns)
    for row in *(k for k in (*KINDS, 'several') if k in rows), *sorted(k for k in rows if k[0] == ' '), 'all':
        yield f'| {row.strip()} | ' + ' | '.join(f'{rows[row][c]:,}' for c in columns) + ' |'


def keep_counts(state: dict) -> None:
    "Let chapter 55 have the counts."
    _, _, *lines = table(state['rows'])
    rows = [line.strip('| ').split(' | ') for line in lines]
    keep('mitm', {'title': 'Mallory between two ends, by what she did and by suite',
                  'columns': ['', *state['rows']['all']], 'rows': rows}, 'tests/mitm.py')


def play_all(args: argparse.Namespace, state: dict, chunks: list[tuple[int, int, str]]) -> None:
    "Play the runs that are left, and keep count of them."
    began, before = time.perf_counter(), state['seconds']
    with ProcessPoolExecutor(args.processes) as pool:
        for (at, count, _), outcomes in zip(chunks, pool.map(some, *zip(*chunks, strict=True)), strict=True):
            for outcome in outcomes:
                add(state, outcome)
                if outcome.broken: print(f'seed {outcome.seed}: {outcome}', flush=True)
            state['next'], state['seconds'] = at + count, before + time.perf_counter() - began
            if args.state: args.state.write_text(json.dumps(state))
            if args.until_broken and state['broken']:
                pool.shutdown(cancel_futures=True)
                break
            if state['next'] % 5000 == 0: print(f"{state['next']} runs, {state['seconds']:.0f} s", flush=True)


def main() -> int:
    "Run the command line; return 1 if an invariant was broken."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=1000)
    parser.add_argument('--first', type=int, default=0, metavar='SEED')
    parser.add_argument('--processes', type=int, default=1, choices=(1, 2))
    parser.add_argument('--state', type=Path, metavar='FILE', help='where the counts are kept')
    parser.add_argument('--without', choices=list(GUARDS), default='', metavar='GUARD',
                        help=', '.join(GUARDS))
    parser.add_argument('--until-broken', action='store_true', help='stop at the first run that is')
    args = parser.parse_args()
    state = {'next': args.first, 'seconds': 0.0, 'rows': {}, 'broken': []}
    if args.state and args.state.exists(): state = json.loads(args.state.read_text())
    end, size = args.first + args.runs, 50 if args.until_broken else 250
    chunks = [(at, min(size, end - at), args.without) for at in range(state['next'], end, size)]
    if chunks: play_all(args, state, chunks)
    print(*table(state['rows']), sep='\n')
    if args.state and not args.without: keep_counts(state)
    print(f"\n{state['rows']['all']['runs']:,} runs, {len(state['broken'])} broken, {state['seconds']:.0f} s "
          f'by {args.processes} process{"es" * (args.processes > 1)}')
    return bool(state['broken'])


if __name__ == '__main__': sys.exit(main())
