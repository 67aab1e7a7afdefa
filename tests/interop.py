"""What the tests with a real strongSwan share: our two programs, the events that they tell,
and whether both ends mean the same SAs."""
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

import pytest
from peers.strongswan import LEFT, RIGHT, Lab, missing, poll

INSIDE = os.geteuid() == 0
lack = missing()
needs_strongswan = pytest.mark.skipif(bool(lack), reason=lack or '')
# charon would wait for 4 s before it sends again
HASTE = 'retransmit_timeout = 0.3\nretransmit_base = 1.2\nretransmit_tries = 20'
TS = ['--local-ts', '10.1.0.0/24', '--remote-ts', '10.2.0.0/24']


def inside(test: Callable) -> Callable | None:
    """Keep a test for where there are namespaces to work with; elsewhere it runs
    by way of `test_in_a_user_namespace` in test_interop_strongswan.py."""
    return test if INSIDE else None


def start(lab: Lab, keys: Path, **more: object) -> None:
    "Start charon with the keys that our programs know; `more`: see `Lab.start`."
    lab.start(left_pub=keys / 'left.pub', right_key=keys / 'right.key',
              right_pub=keys / 'right.pub', **more)


# strongSwan's side of the lab has Camellia, unless a test wants something else
SUITES = ['--ike', 'camellia256-sha256-modp2048,aes256-sha256-modp2048',
          '--esp', 'camellia256-sha256,aes256-sha256']


def command(keys: Path, *options: str, module: str = 'initiator', peer: str = RIGHT,
            selectors: list[str] = TS) -> list[str]:
    "The command line of our initiator, or of our responder: then the peer is a --listen address."
    where = [peer] if module == 'initiator' else ['--listen', peer]
    where += ['--retry', 'never'] if module == 'initiator' else []  # but for tests of that
    return [sys.executable, '-m', f'ike_lit.{module}', *where, '--local-id', 'alice.example.org',
            '--remote-id', 'bob.example.org', '--json', '--private-key', str(keys / 'left.key'),
            '--install', 'none', '--peer-key', str(keys / 'right.pub'), *selectors, *SUITES, *options]


class Program:
    "A running program of ours, and the events that it has told so far."

    def __init__(self, process: subprocess.Popen[str]):
        self.process, self.events = process, list[dict]()
        self.position, self.rest = 0, b''  # of the first event not yet waited for; half a line

    def wait(self, name: str, timeout: float = 20, **fields: object) -> dict:
        "The next event of this name and with these values; those before it are passed by."
        deadline = time.monotonic() + timeout
        while True:
            while self.position < len(self.events):
                event = self.events[self.position]
                self.position += 1
                if {'event': name, **fields}.items() <= event.items(): return event
            if self.read(deadline): continue
            over = time.monotonic() < deadline
            why = self.process.communicate(timeout=10)[1] if over else f'{timeout} s have passed'
            pytest.fail(f'no {name} {fields}: {why}, after {self.events}')

    def read(self, deadline: float) -> bool:
        "Take what the program says next; False if that is nothing."
        if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        said = os.read(self.process.stdout.fileno(), 65536)
        *lines, self.rest = (self.rest + said).split(b'\n')
        self.events += map(json.loads, lines)
        return bool(said)

    def end(self, number: int | None = signal.SIGINT, timeout: float = 20,
            status: int = 0) -> list[dict]:
        """Ask the program to leave, or with None wait until it does: it must do so in order.
        All of its events."""
        if number and self.process.poll() is None: self.process.send_signal(number)
        deadline = time.monotonic() + timeout
        while self.read(deadline): pass
        _, errors = self.process.communicate(timeout=max(1, deadline - time.monotonic()))
        assert self.process.returncode == status and not errors, f'{errors} {self.events}'
        return self.events

    def all(self, name: str, **fields: object) -> list[dict]:
        "Every event so far of this name and with these values."
        return [e for e in self.events if {'event': name, **fields}.items() <= e.items()]


@contextmanager
def running(lab: Lab, argv: list[str], namespace: str = '') -> Iterator[Program]:
    "A program of ours, on the left side unless told otherwise; at the end it leaves in order."
    with lab._popen(namespace or lab.left, argv) as process:
        try:
            program = Program(process)
            yield program
            if process.poll() is None: program.end()
        finally: process.kill()


@contextmanager
def responder(lab: Lab, keys: Path, *options: str, peer: str = LEFT,
              **more: object) -> Iterator[Program]:
    "Our responder, listening."
    with running(lab, command(keys, *options, module='responder', peer=peer, **more)) as program:
        program.wait('Listening', 90)
        yield program


@contextmanager
def called(lab: Lab, keys: Path, *options: str, **more: object) -> Iterator[Program]:
    "Our responder, after strongSwan has called it."
    with responder(lab, keys, *options, **more) as program:
        lab.swanctl('--initiate', '--child', 'net', '--timeout', '20')
        yield program


@contextmanager
def calling(lab: Lab, keys: Path, *options: str, **more: object) -> Iterator[Program]:
    "Our initiator, calling strongSwan."
    with running(lab, command(keys, *options, **more)) as program: yield program


def end_all(lab: Lab) -> None:
    "End the IKE SAs that charon still has."
    for sa in lab.list_sas():
        with suppress(RuntimeError):  # it may be gone by now
            lab.swanctl('--terminate', '--ike-id', sa['uniqueid'], '--force')


def states(lab: Lab) -> list[tuple[str, list[str]]]:
    "The state of every IKE SA that charon has, and those of its Child SAs."
    return [(sa['state'], [c['state'] for c in sa['child-sas']]) for sa in lab.list_sas()]


# makes charon log the keys of Child SAs, for `same_keys`; our program needs --dry-run
SHOW_KEYS = 'filelog { lab { chd = 4 } }\n'


def same_keys(lab: Lab, ours: Program) -> None:
    """Compare the keys in the last Script event so far with the last that charon has logged:
    four, or two of an AEAD."""
    script = ours.all('Script')[-1]['script']
    keys = re.findall(r'0x([0-9a-f]{32,})\b', script)
    dumps = re.findall(r'(?:encryption|integrity) (?:initiator|responder) key => \d+ bytes.*\n'
                       r'((?:.*\[CHD\] +\d+: .*\n)+)', lab.log())
    theirs = {''.join(re.findall(r'\d: ((?:[0-9A-F]{2} )+)', dump)).replace(' ', '').lower()
              for dump in dumps[-len(keys):]}
    assert len(theirs) == (2 if ' aead ' in script else 4) and theirs == set(keys)


def algorithms(sa: dict, *more: str) -> str:
    "The cipher, the integrity and `more` algorithms of an SA of charon's, as we name them."
    encr = '_'.join(sa[k] for k in ('encr-alg', 'encr-keysize') if k in sa)
    rest = [sa[k] for k in ('integ-alg', *more) if k in sa]
    return re.sub(r'\bECP_(\d+)_BP\b', r'BRAINPOOL_\1', '/'.join([encr, *rest]))


def both_agree(lab: Lab, ours: dict, child: dict) -> dict:
    """Compare the only IKE SA and the only Child SA that charon has, soon at least,
    with what our program said of them; what charon says of the Child SA."""
    poll(lambda: states(lab) == [('ESTABLISHED', ['INSTALLED'])])
    assert states(lab) == [('ESTABLISHED', ['INSTALLED'])], lab.sas() + lab.log()[-3000:]
    theirs, = lab.list_sas()
    net, = theirs['child-sas']
    assert (theirs['initiator-spi'], theirs['responder-spi']) == (ours['spi_i'], ours['spi_r'])
    assert (theirs['local-id'], theirs['remote-id']) == ('bob.example.org', 'alice.example.org')
    assert ours['suite'] == f'IKE:{algorithms(theirs, "prf-alg", "dh-group")}'
    assert (net['spi-in'], net['spi-out']) == (child['spi_out'], child['spi_in'])
    assert (net['local-ts'], net['remote-ts']) == (child['remote_ts'], child['local_ts'])
    assert algorithms(net) == '/'.join(filter(None, (child['encr'], child['integ'])))
    assert net['mode'].lower() == child['mode']
    return net


def paragraph(said: str) -> str:
    "What a program says of a failure: the line that begins so, and those below it, as one."
    lines = said.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(('failed: ', 'no Child SA: ')))
    below = takewhile(lambda line: line.startswith('  '), lines[at + 1:])
    return ' '.join([lines[at], *map(str.strip, below)])
