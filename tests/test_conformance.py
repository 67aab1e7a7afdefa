"""Each requirement of RFC 7296 (and 7815, 8247, 8784, 9242, 9370, 9593, 9867) has a place where it is done
and a test that shows it, or says why not. tests/conformance.tsv is the table; the index of the book shows it.
"""
import ast
from functools import cache
from pathlib import Path

import pytest
from conformance import Requirement, counts, requirements, table
from test_house import MODULES, module_tree

HERE = Path(__file__).parent
by_id = pytest.mark.parametrize('row', requirements(), ids=lambda row: row.id)


@cache
def names(tree: ast.Module) -> set[str]:
    "The names that a module defines at its top."
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, 'target', None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@cache
def module(name: str) -> ast.Module: return module_tree(name)


@cache
def file(name: str) -> ast.Module: return ast.parse((HERE / f'{name}.py').read_text())


@by_id
def test_it_is_shown_or_says_why_not(row: Requirement) -> None:
    assert row.state != 'missing', f'{row.id} has no chapter or no test, and no note'
    assert row.requirement and row.level and row.role in ('I', 'R', 'I+R')


@by_id
def test_what_it_names_is_there(row: Requirement) -> None:
    for name in row.chapter.split():
        where, _, what = name.partition('.')
        assert where in MODULES and what in names(module(where)), name
    for name in row.tests.split():
        where, _, what = name.partition('.')
        assert what.startswith('test_') and what in names(file(where)), name


def test_the_ids_are_what_they_were() -> None:
    rows = requirements()
    assert len({row.id for row in rows}) == len(rows) == 213


def test_the_count(capsys: pytest.CaptureFixture) -> None:
    with capsys.disabled(): print(f'\nrequirements: {counts()}')
    assert counts().endswith(', 0 missing')


def test_the_table_of_the_index_has_every_row() -> None:
    text = table().data
    for row in requirements(): assert f'| {row.id} | {row.level} | {row.requirement} |' in text
