"""Each class of attack that has hit others is held off by something in a chapter, and a test shows it,
or the row says why it does not apply. tests/security.tsv is the table; chapter 53 shows it.
"""
import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from security import GROUPS, Attack, attacks, counts, table
from test_conformance import module, names
from test_house import MODULES

HERE = Path(__file__).parent
by_id = pytest.mark.parametrize('row', attacks(), ids=lambda row: row.id)


@pytest.fixture(scope='module')
def collected() -> dict[str, set[str]]:
    "The tests of each file that the table names, as pytest finds them; those of the kernel, too."
    files = sorted({test.partition('::')[0] for row in attacks() for test in row.tests.split()})
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '--collect-only', '-q', '-p', 'no:cacheprovider',
         *(str(HERE / name) for name in files)], cwd=HERE.parent, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, 'KERNEL_TESTS': '1'})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, set[str]] = {name: set() for name in files}
    for line in done.stdout.splitlines():
        path, mark, test = line.partition('::')
        if mark: found[Path(path).name].add(test.partition('[')[0])
    return found


@cache
def functions(name: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((HERE / name).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@by_id
def test_it_is_held_off_or_says_why_not(row: Attack) -> None:
    assert row.state != 'missing', f'{row.id} has no guard or no test, and no note'
    assert row.what and row.must and row.id[:2] in GROUPS
    assert row.what.endswith('.') and row.must.endswith('.')


@by_id
def test_its_guards_are_public_and_there(row: Attack) -> None:
    for name in row.guards.split():
        where, _, what = name.partition('.')
        assert where in MODULES and what in names(module(where)) and not what.startswith('_'), name


@by_id
def test_its_tests_are_collected_and_not_skipped(row: Attack, collected: dict[str, set[str]]) -> None:
    "One at least runs everywhere; those that need a kernel of their own (`make vm`) come on top."
    for name in row.tests.split():
        file, _, what = name.partition('::')
        assert what in collected[file], name
        text = ast.unparse(functions(file)[what])
        assert 'pytest.skip' not in text and 'skipif' not in text and 'xfail' not in text, name
    everywhere = [n for n in row.tests.split() if not n.startswith('test_kernel')]
    assert everywhere or row.state == 'not applicable'


def test_what_is_called_by_a_number_is_in_that_row() -> None:
    "A test in test_hostile.py begins with the number of its class, and the row names the test."
    docs = {name: ast.get_docstring(node) or '' for name, node in functions('test_hostile.py').items()}
    for row in attacks():
        ours = [n.partition('::')[2] for n in row.tests.split() if n.startswith('test_hostile.py::')]
        said = [name for name, doc in docs.items() if doc.startswith(f'{row.id}:')]
        assert set(said) <= set(ours), f'{row.id}: the table does not name {said}'
    assert len({doc.partition(':')[0] for doc in docs.values() if re.match(r'S\d\d:', doc)}) > 50


def test_the_ids_are_what_they_were() -> None:
    rows = attacks()
    assert len({row.id for row in rows}) == len(rows) == 98
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_the_count(capsys: pytest.CaptureFixture) -> None:
    with capsys.disabled(): print(f'\nclasses of attack: {counts()}')
    assert counts() == '98 held off, 0 not applicable, 0 missing'


def test_the_table_of_chapter_37_has_every_row() -> None:
    text = table().data
    for row in attacks(): assert f'| {row.id} | {row.what} | ' in text


def test_what_else_speaks_of_the_table_is_true() -> None:
    for name in 'SECURITY.md', 'nbs/53_attack.ipynb':
        assert f'{len(attacks())} classes of attacks' in (HERE.parent / name).read_text(), name
    targets = re.findall(r'\]\(([^)]+)\)', (HERE.parent / 'SECURITY.md').read_text())
    assert len(targets) > 15 and all((HERE.parent / target).exists() for target in targets)
