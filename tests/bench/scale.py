"""One responder with many IKE SAs: what each costs in memory, and a handshake in time, as a table.

    python tests/bench/scale.py [number of IKE SAs ...]

Each line is a process of its own. The initiators are thrown away after their handshake. Time is the
processor's, of the responder's side of a handshake (or of a liveness check) alone; memory is what
Python's objects take, by tracemalloc in a second run, and what the system gives the process.
"""
import gc
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'nbs'))
warnings.simplefilter('ignore')

from measure import keep
from canonical import configs
from ike_lit.engine import host
from ike_lit.engine.host import Host
from ike_lit.engine.informational import liveness
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.nat import Endpoint

SIZES = 10, 1_000, 10_000
SUITE, ESP = 'aes256gcm16-prfsha256-x25519', 'aes256gcm16'
COLUMNS = ['IKE SAs', 'handshake, ms', 'liveness, ms', 'goodbye of all, s', 'octets of objects each',
           'octets of the process each']


def resident() -> int:
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def carried(one: Host, other: Host, here: Endpoint, there: Endpoint, now: float) -> float:
    "Carry all that two hosts have to say; return the seconds that the other one took."
    spent = 0.0
    while sent := one.datagrams_to_send():
        for d in sent:
            began = time.process_time()
            other.receive_datagram(d.data, here, now, there)
            while other.next_event(): continue
            answers = other.datagrams_to_send()
            spent += time.process_time() - began
            for a in answers: one.receive_datagram(a.data, there, now, here)
        while one.next_event(): continue
    return spent


def measure(count: int, traced: bool) -> tuple[float, ...]:
    "Return ms of a handshake, of a liveness check, s of leaving, and octets of an IKE SA."
    left, right = configs(SUITE, ESP)
    host.PEER_LIMIT = count + 1  # all are of one peer, and stand for as many peers
    bob, times, checks = Host((right,)), list[float](), list[float]()
    handshake(bob, left, 0)  # whatever is made only once
    gc.collect()
    if traced: tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else resident()
    for n in range(1, count + 1):
        spent, alice, here = handshake(bob, left, n)
        times.append(spent)
        if n > count - 100:
            alice.start(alice.established[0], liveness, now=n / 10)
            checks.append(carried(alice, bob, here, BOB, n / 10))
        del alice
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if traced else resident()
    if len(bob.established) != count + 1: raise RuntimeError(f'{len(bob.established)} IKE SAs')
    began = time.process_time()
    bob.close_all(now=count / 10)
    while bob.next_event(): continue
    left_in = time.process_time() - began
    return (statistics.median(times[-200:]) * 1000, statistics.median(checks) * 1000, left_in,
            (after - before) / count)


def handshake(bob: Host, config: object, n: int) -> tuple[float, Host, Endpoint]:
    "Make an IKE SA with a new initiator, the number of which is its address."
    here = ALICE._replace(host=f'10.{n >> 16}.{n >> 8 & 255}.{n & 255}')
    alice = Host()
    alice.connect(config, here, BOB, now=n / 10)
    return carried(alice, bob, here, BOB, n / 10), alice, here


def rows(sizes: tuple[int, ...] = SIZES) -> list[tuple[int, float, float, float, float, float]]:
    "Return a row for each size."
    found = []
    for size in sizes:
        runs = [subprocess.run([sys.executable, __file__, '--one', str(size), traced],
                               capture_output=True, text=True, check=True).stdout.split()
                for traced in ('', 'traced')]
        timed, traced = (tuple(map(float, r)) for r in runs)
        found.append((size, *timed[:3], traced[3], timed[3]))
    return found


def main() -> None:
    if sys.argv[1:2] == ['--one']:
        print(*measure(int(sys.argv[2]), bool(sys.argv[3])))
        return
    print('\nOne responder with many IKE SAs', ' | '.join(COLUMNS), sep='\n')
    table = []
    for size in tuple(map(int, sys.argv[1:])) or SIZES:
        (n, *times, objects, process), = rows((size,))
        table.append([f'{n:,}', *(f'{t:.2f}' for t in times), f'{objects:,.0f}', f'{process:,.0f}'])
        print(' | '.join(table[-1]), flush=True)
    if not sys.argv[1:]:
        keep('scale', {'title': 'One responder with many IKE SAs', 'columns': COLUMNS, 'rows': table})


if __name__ == '__main__': main()
