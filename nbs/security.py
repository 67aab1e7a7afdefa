"""The table of what has hit others, for chapter 53 and the tests."""
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from chapters import BOOK, WRITTEN
from conformance import rows_of
from IPython.display import Markdown

TABLE = BOOK.parent / 'tests' / 'security.tsv'
GROUPS = {'S0': 'proofs', 'S1': 'proofs', 'S2': 'what is agreed on',
          'S3': 'Diffie-Hellman and random numbers', 'S4': 'messages', 'S5': 'messages',
          'S6': 'the box, and what the kernel gets', 'S7': 'the host', 'S8': 'what people read and write',
          'S9': 'what a peer may have, keep and end'}


class Attack(NamedTuple):
    "A row of the table: a class of attacks, or of mistakes that invite them."
    id: str
    what: str
    advisory: str  # where it has happened to others
    must: str  # what has to happen instead
    tests: str  # what shows it: FILE::TEST ...
    guards: str  # what holds it off: MODULE.NAME ...
    note: str  # why it does not apply, or what else there is to say

    @property
    def state(self) -> str:
        if self.tests and self.guards: return 'held off'
        return 'not applicable' if self.note and not self.tests and not self.guards else 'missing'


def attacks() -> list[Attack]: return rows_of(TABLE, Attack)


def counts() -> str:
    "Say how many classes are in which state."
    states = [row.state for row in attacks()]
    return ', '.join(f'{states.count(name)} {name}' for name in ('held off', 'not applicable', 'missing'))


def table() -> Markdown:
    "Return the classes by what they attack, each group folded."
    lines = [f'**{counts()}**', '']
    for group, rows in groupby(attacks(), lambda row: GROUPS[row.id[:2]]):
        found = list(rows)
        lines += [f'<details><summary>{group}: {len(found)} classes</summary>', '',
                  '| | attack or mistake | seen in | instead | guard | test |', '|---|---|---|---|---|---|']
        lines += [f'| {row.id} | {row.what} | {row.advisory} | {row.must} | {where(row)} | '
                  f'{" ".join(f"`{name}`" for name in row.tests.split()[:1])}'
                  f'{" ..." * (" " in row.tests)} |' for row in found]
        lines += ['', '</details>', '']
    return Markdown('\n'.join(lines))


def where(row: Attack) -> str:
    "Return links to the guards of a class, and the note."
    return ' '.join([*links(row), row.note]).strip()


def links(row: Attack) -> Iterator[str]:
    for name in row.guards.split():
        book = WRITTEN[name.partition('.')[0]].name
        yield f'[{book[:2]}]({book})&nbsp;`{name.partition(".")[2]}`'
