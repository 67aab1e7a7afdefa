"""All that an object knows, as a flat table of paths and values, so that two moments can be compared.

It goes through attributes, tables, sequences, conversations that are under way (generators, with
their local variables) and what is to be done later (functions, with what they hold on to).
"""
import re
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from enum import Enum
from functools import cached_property, partial
from inspect import isfunction, isgenerator, ismethod
from itertools import count

from ike_lit.engine.model import Config
from ike_lit.wire.sk import SK

ATOMS = (int, float, str, bytes, type(None), Enum, type, range)
CHANGING = (Config, SK)  # frozen, but what they hold is not: a pool, a counter
Tree = dict[str, object]


def _is_atom(value: object) -> bool:
    if isinstance(value, ATOMS): return True
    if not is_dataclass(value) or isinstance(value, CHANGING): return False
    return value.__dataclass_params__.frozen  # type: ignore[union-attr]


def _parts(value: object) -> Iterator[tuple[str, object]]:
    "Yield what a value consists of, and how that is called."
    match value:
        case SK():
            yield '.cipher', value.cipher  # made when it is needed first, which changes nothing
            yield from ((f'.{name}', getattr(value, name)) for name in ('encr', 'integ', 'sk_e', 'sk_a'))
        case dict():
            yield '.keys', ' '.join(map(repr, value))
            yield from ((f'[{key!r}]', part) for key, part in value.items())
        case set() | frozenset(): yield '.members', ' '.join(sorted(map(repr, value)))
        case count(): yield '.next', repr(value)
        case partial():
            yield from (('.func', value.func), ('.args', value.args), ('.keywords', value.keywords))
        case BaseException(): yield '.args', (type(value).__name__, *map(repr, value.args))
        case _ if isgenerator(value):
            frame = value.gi_frame
            yield '.at', frame.f_lasti if frame else 'over'
            if frame: yield from ((f'.{name}', part) for name, part in frame.f_locals.items())
        case _ if isfunction(value):
            yield '.code', f'{value.__module__}.{value.__qualname__}'
            yield '.holds', tuple(cell.cell_contents for cell in value.__closure__ or ())
            yield '.defaults', value.__defaults__
        case _ if ismethod(value): yield from (('.of', value.__self__), ('.code', value.__func__))
        case _ if hasattr(value, '__dict__'):
            cached = {n for n in dir(type(value)) if isinstance(getattr(type(value), n), cached_property)}
            yield from ((f'.{name}', part) for name, part in vars(value).items() if name not in cached)
        case _ if isinstance(value, Iterable) and hasattr(value, '__len__'):
            yield '.size', len(value)
            yield from ((f'[{n}]', part) for n, part in enumerate(value))
        case _: yield '.is', f'{type(value).__name__} {id(value)}'  # of a library: the same, or another


def tree(value: object, name: str = '', leave_out: str = '(?!)') -> Tree:
    "Return all there is to know, but for the paths that a regular expression describes."
    found: Tree = {}
    places: dict[int, tuple[str, object]] = {}  # the objects are kept, or their ids come again
    left_out, todo = re.compile(leave_out), [(name, value)]
    while todo:
        path, value = todo.pop()
        if left_out.search(path): continue
        if _is_atom(value): found[path] = value
        elif id(value) in places: found[path] = f'the same as {places[id(value)][0]}'
        else:
            places[id(value)] = path, value
            todo += reversed([(path + part, inner) for part, inner in _parts(value)])
            found[path] = type(value).__name__
    return found


def changes(before: Tree, after: Tree) -> list[str]:
    "Return the paths at which two trees are not the same."
    return [path for path in dict.fromkeys((*before, *after))
            if before.get(path, '(absent)') != after.get(path, '(absent)')]
