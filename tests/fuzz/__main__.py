"""Coverage-guided fuzzing, by atheris: `make fuzz SECONDS=60`, or one target by itself.

    python tests/fuzz [--seconds S | --runs N] [--seed N] [--keep DIR] [TARGET ...]
    python tests/fuzz --replay HEX TARGET

Each target (parser, sk, engine, explain, config) runs in a process of its own, which ends at the first
input that breaks an invariant, saves it, and prints it as hex, which `--replay` takes. What a target
counts: inputs, those that found something new, places of the code that were reached, the growth of
memory in objects of Python. Afterwards, without the counting of places, which costs time itself, a
sample of all inputs and the slowest ones are run again: those are the times that are told.
"""
import argparse
import gc
import json
import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from hashlib import sha256
from heapq import heappush, heappushpop
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

NAMES = 'parser', 'sk', 'engine', 'explain', 'config'
MEDIAN, WORST = 0.010, 0.100  # what an input is to take, without counting
WARM = 2000  # inputs until caches are full
LEAK = 2.0  # objects for each input that stay: more is a leak
SAMPLE, SLOWEST = 400, 20
LONGEST = 4096  # octets; what is longer is measured, and not changed


# In the process of a target

class Fuzzing:
    "One target under way."

    def __init__(self, args: argparse.Namespace, report: str, target: Callable, clock: type,
                 in_time: Callable):
        self.args, self.report, self.target, self.clock, self.in_time = args, report, target, clock, in_time
        self.begun, self.count, self.blocks, self.at = time.monotonic(), 0, 0, 0
        self.chance = random.Random(args.seed)  # noqa: S311
        self.sample: list[bytes] = []
        self.slowest: list[tuple[float, int, bytes]] = []
        self.spent = 0.0

    def one(self, data: bytes) -> None:
        self.count += 1
        timed = self.clock()
        try:
            with self.in_time(): self.target(data, timed)
        except BaseException: self.end(data, traceback.format_exc())
        self.remember(data, timed.seconds)
        if self.count == WARM: self.blocks, self.at = blocks(), self.count
        a = self.args
        if (self.count >= a.runs if a.runs else time.monotonic() - self.begun > a.seconds): self.end()

    def remember(self, data: bytes, seconds: float) -> None:
        self.spent += seconds
        if len(self.sample) < SAMPLE: self.sample.append(data)
        elif (n := self.chance.randrange(self.count)) < SAMPLE: self.sample[n] = data
        entry = seconds, self.count, data
        if len(self.slowest) < SLOWEST: heappush(self.slowest, entry)
        else: heappushpop(self.slowest, entry)

    def end(self, data: bytes | None = None, broken: str = '') -> None:
        "Write down what is known, and leave: the fuzzer itself would not come back."
        since = self.count - self.at if self.at else 0
        growth = (blocks() - self.blocks) / since if since else 0.0
        if not broken and growth > LEAK: broken = f'memory grows by {growth:.1f} objects for each input'
        report = {'inputs': self.count, 'seconds': time.monotonic() - self.begun, 'growth': growth,
                  'spent': self.spent, 'broken': broken, 'data': data.hex() if data is not None else '',
                  'sample': [d.hex() for d in self.sample],
                  'slowest': [d.hex() for _, _, d in sorted(self.slowest, reverse=True)]}
        Path(self.report).write_text(json.dumps(report))
        sys.stderr.flush()
        os._exit(3 if broken else 0)


def blocks() -> int:
    from fuzz.targets import forget
    forget()
    gc.collect()
    return sys.getallocatedblocks()


def child(args: argparse.Namespace) -> None:
    "Run targets one after the other, each in a process that forks off; say when one has ended."
    import atheris
    with atheris.instrument_imports(include=['ike_lit'], enable_loader_override=False):
        from fuzz.targets import TARGETS, Clock, in_time
    for name in args.targets:
        report = str(Path(args.child) / f'{name}.json')
        if not (pid := os.fork()):
            with Path(f'{report}.log').open('wb') as log:
                for stream in 1, 2: os.dup2(log.fileno(), stream)
            corpus = str(Path(args.keep or args.child) / name)
            limits = [f'-seed={args.seed}', f'-max_len={LONGEST}', '-timeout=600', '-rss_limit_mb=4096',
                      f'-artifact_prefix={report}-', '-len_control=20', '-runs=-1']
            running = Fuzzing(args, report, TARGETS[name], Clock, in_time)
            atheris.Setup([sys.argv[0], *limits, corpus], running.one)
            atheris.Fuzz()
            os._exit(0)
        print(name, os.waitpid(pid, 0)[1], flush=True)


# In the process of who asks

def run(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict]]:
    "Fuzz each target, and yield what it reports."
    from fuzz.corpus import seeds
    begun = {}
    for name in args.targets:
        corpus = Path(args.keep or folder) / name
        corpus.mkdir(parents=True, exist_ok=True)
        begun[name] = seeds(name)
        if args.most: begun[name] = begun[name][::-(-len(begun[name]) // args.most)]
        for data in begun[name]: (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    words = [*args.targets, '--child', folder, '--seed', args.seed, '--seconds', args.seconds,
             '--runs', args.runs, *(['--keep', args.keep] if args.keep else [])]
    with subprocess.Popen([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True,
                          stderr=(folder / 'log').open('w'),  # with the same order of sets in every run
                          env={**os.environ, 'PYTHONHASHSEED': '0'}) as process:
        done = [ended(*said.split(), folder) for said in process.stdout or ()]
        for name, report in done:
            report['seeds'] = len(begun[name])
            yield name, report if report['broken'] else report | measure(name, report, not args.most)
    if missing := set(args.targets) - {name for name, _ in done}:
        yield min(missing), {'broken': (folder / 'log').read_text()[-3000:], 'data': ''}


def ended(name: str, status: str, folder: Path) -> tuple[str, dict]:
    report, said = folder / f'{name}.json', (folder / f'{name}.json.log').read_text(errors='replace')
    if not report.exists(): return name, {'broken': f'ended by itself ({status})\n{said[-3000:]}', 'data': ''}
    places = re.findall(r'cov: (\d+) ft: (\d+) corp: (\d+)', said) or [(0, 0, 0)]
    return name, json.loads(report.read_text()) | dict(
        zip(('places', 'features', 'corpus'), map(int, places[-1]), strict=True))


def measure(name: str, given: dict[str, list[str]], thorough: bool) -> dict[str, object]:
    "Return the time that inputs take, each the best of three, without anything that counts places."
    from fuzz.corpus import long
    from fuzz.targets import TARGETS, Clock, in_time

    def takes(data: bytes) -> float:
        found = []
        for _ in range(3):
            timed = Clock()
            with in_time(): TARGETS[name](data, timed)
            found.append(timed.seconds)
        return min(found)
    inputs = {kind: [bytes.fromhex(d) for d in given[kind]] for kind in ('sample', 'slowest')}
    if not thorough: inputs = {kind: some[:20] for kind, some in inputs.items()}
    for data in inputs['sample'][:20]: takes(data)
    usual = [(takes(d), d.hex()) for d in inputs['sample']]
    slow = max(usual + [(takes(d), d.hex()) for d in inputs['slowest']])
    return {'median': median(seconds for seconds, _ in usual), 'worst': slow[0], 'slow': slow[1],
            'long': max(map(takes, long(name) if thorough else ()), default=0.0)}


def line(name: str, r: dict) -> str:
    return (f'{name:8} {r["inputs"]:8} inputs ({r["seeds"]} to begin with) in {r["seconds"]:.0f} s; '
            f'{r.get("places", 0)} places, {r.get("features", 0)} features, {r.get("corpus", 0)} kept; '
            f'median {1000 * r["median"]:.2f} ms{" (over)" * (r["median"] > MEDIAN)}, '
            f'worst {1000 * r["worst"]:.1f} ms{" (OVER)" * (r["worst"] > WORST)}'
            + f', of a datagram of 60 KB {1000 * r["long"]:.1f} ms' * bool(r['long']) + '; '
            f'memory {r["growth"]:+.3f} objects an input')


COLUMNS = ['what reads them', 'inputs', 'seconds', 'places reached', 'median, ms', 'worst, ms',
           'objects kept, each']


def row(name: str, r: dict) -> list[str]:
    "The same for a table."
    return [name, f'{r["inputs"]:,}', f'{r["seconds"]:.0f}', f'{r.get("places", 0):,}',
            f'{1000 * r["median"]:.2f}', f'{1000 * r["worst"]:.1f}', f'{r["growth"]:.3f}']


def save(name: str, data: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}-{sha256(bytes.fromhex(data)).hexdigest()[:16]}'
    path.write_bytes(bytes.fromhex(data))
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser('tests/fuzz', description='Coverage-guided fuzzing.')
    add = parser.add_argument
    add('targets', nargs='*', metavar='TARGET', help=f'{", ".join(NAMES)}; default: all')
    add('--seconds', type=float, default=60.0, metavar='S', help='for each target; default: %(default)g')
    add('--runs', type=int, default=0, metavar='N', help='inputs for each target, instead of a time')
    add('--most', type=int, default=0, metavar='N', help='begin with so many inputs; default: all there are')
    add('--seed', type=int, default=7296, metavar='N', help='of chance; default: %(default)d')
    add('--keep', metavar='DIR', help='where what was found is kept for the next time')
    add('--replay', metavar='HEX', help='run one input, given as hex or as a file')
    add('--child', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.targets = args.targets or list(NAMES)
    if set(args.targets) - set(NAMES): parser.error(f'targets are {", ".join(NAMES)}')
    if args.replay: return replay(args.targets, args.replay)
    if args.child: return child(args) or 0
    status, kept, rows = 0, Path(args.keep or '.'), list[list[str]]()
    with TemporaryDirectory() as folder:
        for name, report in run(args, Path(folder)):
            if report['broken']:
                data = str(report['data'])
                print(f'{name}: broken after {report.get("inputs")} inputs:\n{report["broken"]}', flush=True)
                if data: print(f'{data}\n{save(name, data, kept / "found")}', flush=True)
                status = 1
                continue
            print(line(name, report), flush=True)
            rows.append(row(name, report))
            if report['worst'] > WORST:
                print(f'{"":8} the slowest: {save(name, report["slow"], kept / "slow")}', flush=True)
    if args.keep and not args.runs and not status:
        from bench.measure import keep
        found = {'title': 'Octets that nobody would send', 'columns': COLUMNS, 'rows': rows}
        keep('fuzz', found, 'tests/fuzz')
    return status


def replay(targets: list[str], given: str) -> int:
    from fuzz.targets import TARGETS, Clock
    data = Path(given).read_bytes() if Path(given).is_file() else bytes.fromhex(given)
    for name in targets:
        timed = Clock()
        TARGETS[name](data, timed)
        print(f'{name}: {len(data)} octets, {1000 * timed.seconds:.1f} ms')
    return 0


if __name__ == '__main__': sys.exit(main())
