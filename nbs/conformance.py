"""The table of requirements, for the index and the tests."""
import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

from chapters import BOOK, WRITTEN
from IPython.display import Markdown

T = TypeVar('T', bound=NamedTuple)
TABLE = BOOK.parent / 'tests' / 'conformance.tsv'


class Requirement(NamedTuple):
    "A row of the table."
    id: str
    section: str  # of RFC 7296, unless it names another
    level: str
    role: str  # I, R, or both
    requirement: str
    chapter: str  # where it is done: MODULE.NAME ...
    tests: str  # what shows it: FILE.TEST ...
    note: str  # why not, or what else there is to say

    @property
    def state(self) -> str:
        if self.tests and self.chapter: return 'shown'
        if self.note.startswith('not yet'): return 'not yet'
        return 'not applicable' if self.note else 'missing'


def rows_of(path: Path, kind: type[T]) -> list[T]:
    "Read a table whose first line names the fields."
    with path.open(newline='') as file:
        rows = list(csv.reader(file, delimiter='\t', quoting=csv.QUOTE_NONE))
    assert rows[0] == list(kind._fields)
    return [kind(*row) for row in rows[1:]]


def requirements() -> list[Requirement]: return rows_of(TABLE, Requirement)


def counts() -> str:
    "Say how many requirements are in which state."
    states = [row.state for row in requirements()]
    names = 'shown', 'not applicable', 'not yet', 'missing'
    return ', '.join(f'{states.count(name)} {name}' for name in names)


def table() -> Markdown:
    "Return the requirements by section, each group folded."
    lines = [f'**{counts()}**', '']
    for chapter, rows in groupby(requirements(), lambda row: row.id.split('.')[0].split('-')[0]):
        found = list(rows)
        what = f'RFC {chapter}' if len(chapter) > 1 else f'RFC 7296 §{chapter}'
        lines += [f'<details><summary>{what}: {len(found)} requirements</summary>', '',
                  '| | level | requirement | chapter | test |', '|---|---|---|---|---|']
        lines += [f'| {row.id} | {row.level} | {row.requirement} | {where(row)} | '
                  f'{" ".join(f"`{name}`" for name in row.tests.split()[:2])}'
                  f'{" ..." * (row.tests.count(" ") > 1)} |' for row in found]
        lines += ['', '</details>', '']
    return Markdown('\n'.join(lines))


def where(row: Requirement) -> str:
    "Return links to the chapters of a requirement, or the note that it has instead."
    return ' '.join(links(row)) or row.note


def links(row: Requirement) -> Iterator[str]:
    for module in dict.fromkeys(name.partition('.')[0] for name in row.chapter.split()):
        book = WRITTEN[module].name
        yield f'[{book[:2]} {module}]({book})'
