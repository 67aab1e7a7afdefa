"""Break the package in one place at a time, and see which breaks no test notices: `make mutants`.

A mutant is one comparison turned around, one `raise` left out, one `if` decided beforehand, one `and`
that is an `or`, or the reverse. Each is tried on a copy of the repository, with the tests that fit its
module. A test that fails, or hangs, kills it; what survives shows a guard that no test guards.

    python tests/mutants.py                     # all modules below; what is known already is not run again
    python tests/mutants.py nat fragment        # these

tests/mutants.tsv lists those that may survive: module, the line as it is, what becomes of it, and why.
"""
import argparse
import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'nbs'))
from chapters import MODULES

ARGUED = ROOT / 'tests' / 'mutants.tsv'
ENGINE = ('guards conversations exchanges handshake negotiation host moves bounded authentication scenarios '
          'how_much_an_error_ends hostile traffic_rule published_faults')
TESTS = {  # the tests that fit a module, file by file: those that fail soonest come first
    'state': ENGINE,
    'protocol': ENGINE,
    'ike_sa': ENGINE,
    'child_sa': f'{ENGINE} configuration leases',
    'create_child_sa': ENGINE,
    'informational': ENGINE,
    'host': f'guards host bounded {ENGINE}',
    'intermediate': 'additional hybrid_captures',
    'ppk': 'ppk',
    'proof': f'ppk authentication announcements diagnosis {ENGINE}',
    'additional': f'additional ppk hybrid_captures {ENGINE}',
    'fragment': 'repeats fragment hostile',
    'configuration': 'leases configuration',
    'nat': 'nat moves handshake exchanges',
    'ts': 'ts negotiation exchanges hostile',
    'install': 'installer install',
    'credential': 'key_files credentials cli_credentials',
}
PAIRS = ((ast.Eq, ast.NotEq), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Is, ast.IsNot), (ast.In, ast.NotIn),
         (ast.And, ast.Or))
SWAPS = {**dict(PAIRS), **{other: one for one, other in PAIRS}}


class Mutant(NamedTuple):
    module: str
    number: int  # of the line
    line: str
    change: str  # what becomes of what
    text: str  # the whole module, broken

    def __str__(self) -> str: return f'{path_of(self.module)}:{self.number}: {self.change}'

    @property
    def key(self) -> tuple[str, str, str]: return self.module, self.line, self.change


def changes(node: ast.AST) -> Iterator[tuple[str, object, ast.AST, str]]:
    """Yield the ways to break a node itself, not what is below it: the field, what is put there,
    the part of the source that this breaks, and what it becomes."""
    if isinstance(node, ast.Compare):
        for n, op in enumerate(node.ops):
            ops = [*node.ops[:n], SWAPS[type(op)](), *node.ops[n + 1:]]
            yield 'ops', ops, node, ast.unparse(ast.Compare(node.left, ops, node.comparators))
    if isinstance(node, ast.BoolOp):
        other = SWAPS[type(node.op)]()
        yield 'op', other, node, ast.unparse(ast.BoolOp(other, node.values))
    if isinstance(node, ast.If | ast.IfExp) and ast.unparse(node.test) != 'TYPE_CHECKING':
        for value in True, False: yield 'test', ast.Constant(value), node.test, str(value)
    for name, many in ast.iter_fields(node):
        for n, item in enumerate(many if isinstance(many, list) else []):
            if isinstance(item, ast.Raise):
                yield name, [*many[:n], ast.Pass(), *many[n + 1:]], item, 'pass'
            for value in (True, False) if name == 'ifs' else ():
                yield name, [*many[:n], ast.Constant(value), *many[n + 1:]], item, str(value)


def beyond_doubt(tree: ast.Module) -> set[int]:
    """Return the lines that ask for what is never missing: a RuntimeError says that we have made a mistake
    ourselves, and mostly the types want the question."""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If)
              and isinstance(node.body[0], ast.Raise) and 'RuntimeError' in ast.unparse(node.body[0])]
    return {line for node in guards for line in range(node.lineno, node.body[0].end_lineno + 1)}


def mutants(module: str, source: str) -> list[Mutant]:
    "Return every mutant of a module, in the order of its lines."
    tree, lines, found = ast.parse(source), source.splitlines(), []
    certain = beyond_doubt(tree)
    for node, (field, value, broken, after) in ((n, c) for n in ast.walk(tree) for c in changes(n)):
        if broken.lineno in certain: continue
        before, kept = 'raise' if after == 'pass' else ast.unparse(broken), getattr(node, field)
        setattr(node, field, value)
        found.append(Mutant(module, broken.lineno, lines[broken.lineno - 1].strip(), f'{before} -> {after}',
                            ast.unparse(tree)))
        setattr(node, field, kept)
    return sorted(found)


def argued() -> dict[tuple[str, str, str], str]:
    "Return why each of those in tests/mutants.tsv may survive."
    rows = [line.split('\t') for line in ARGUED.read_text().splitlines()[1:]]
    return {(module, line, change): why for module, line, change, why in rows}


# Trying them

class Copy:
    "A copy of the repository in which one module at a time is broken."

    def __init__(self, folder: Path):
        self.folder, self.written = folder, 0
        shutil.copytree(ROOT, folder, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns('.*', '__pycache__', '*.egg-info', '_build', 'build'))
        # before the folder of the installation, so that the copy is what the tests import
        self.env = {**os.environ, 'PYTHONPATH': str(folder), 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',
                    'PYTHONDONTWRITEBYTECODE': ''}

    def fails(self, module: str, text: str, limit: float) -> bool:
        "True if a test of this module fails, or hangs, with this text in its place."
        path = self.folder / path_of(module)
        path.write_text(text)
        self.written += 1
        os.utime(path, (self.written, self.written))  # by its seconds Python knows what it has compiled
        until = time.monotonic() + limit
        try: return any(self.one_fails(file, until - time.monotonic()) for file in files_for(module))
        finally: path.write_text(source(module))

    def one_fails(self, file: str, limit: float) -> bool:
        argv = [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', file]
        process = subprocess.Popen(argv, cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        try: return process.wait(max(0, limit)) != 0
        except subprocess.TimeoutExpired: return True
        finally:
            with suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def path_of(module: str) -> Path: return Path('ike_lit', *MODULES[module].split('.')).with_suffix('.py')


def source(module: str) -> str: return (ROOT / path_of(module)).read_text()


def files_for(module: str) -> list[str]:
    return [f'tests/test_{name}.py' for name in dict.fromkeys(TESTS[module].split())]


def digest(*texts: str) -> str: return sha256(''.join(texts).encode()).hexdigest()[:16]


def survivors(module: str, copies: list[Copy], known: dict, keep: Callable[[], None]) -> Iterator[Mutant]:
    """Try all mutants of a module; yield those that no test kills.

    `known` holds what earlier runs have found, by mutant: was it killed? What has survived other tests
    is tried again."""
    every = {digest(m.text, m.change): m for m in mutants(module, source(module))}
    tests = digest(*((ROOT / path).read_text() for path in files_for(module)))
    killed = {id: dead for id, dead in known.get('killed', {}).items()
              if id in every and (dead or tests == known['tests'])}
    known.update(tests=tests, killed=killed)
    started = time.monotonic()
    if copies[0].fails(module, source(module), 600): sys.exit(f'{module}: its tests fail as it is')
    limit = 3 * (time.monotonic() - started) + 15
    if not copies[0].fails(module, '', limit): sys.exit(f'{module}: its tests do not import the copy')
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies: free.put(copy)

    def attempt(id: str) -> bool:
        if id not in killed:
            copy = free.get()
            try: killed[id] = copy.fails(module, every[id].text, limit)
            finally: free.put(copy)
        return killed[id]

    with ThreadPoolExecutor(len(copies)) as threads:
        for mutant, dead in zip(every.values(), threads.map(attempt, every), strict=True):
            keep()
            if not dead: yield mutant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0], allow_abbrev=False)
    parser.add_argument('modules', nargs='*', metavar='MODULE', help=f'some of: {" ".join(TESTS)}')
    parser.add_argument('--processes', type=int, default=2)
    parser.add_argument('--state', type=Path, default=ROOT / '.mutants.json', help='what is known already')
    args = parser.parse_args()
    if unknown := set(args.modules) - set(TESTS): parser.error(f'no such modules: {" ".join(unknown)}')
    modules, may, totals = args.modules or list(TESTS), argued(), []
    state = json.loads(args.state.read_text()) if args.state.exists() else {}
    with ExitStack() as ends:
        copies = [Copy(Path(ends.enter_context(tempfile.TemporaryDirectory(prefix='mutants-'))))
                  for _ in range(args.processes)]
        for module in modules:
            known, count = state.setdefault(module, {}), Counter()
            for mutant in survivors(module, copies, known, lambda: args.state.write_text(json.dumps(state))):
                count[mutant.key in may] += 1
                if mutant.key not in may: print(mutant, flush=True)
            every = len(known['killed'])
            totals.append((module, every, every - count.total(), count[True], count[False]))
    columns = 'module', 'mutants', 'killed', 'argued', 'survive'
    for name, *cells in columns, *totals, ('', *(sum(t[n] for t in totals) for n in range(1, 5))):
        print(f'{name:18}' + ''.join(f'{cell:>9}' for cell in cells))
    return int(any(survive for *_, survive in totals))


if __name__ == '__main__': sys.exit(main())
