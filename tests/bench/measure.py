"""How the benchmarks measure, print, and keep what they have found.

A figure is never alone: two things are done in turns, so that whatever else the machine does hits both alike,
and the ratio of each pair is taken. What is printed is kept in nbs/measured/, from where chapter 55 shows it.
"""
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / 'nbs' / 'measured'
Work = Callable[[], object]
Seconds = Callable[[], float]  # does something, and says how long it took


def timed(work: Work, calls: int = 1, clock: Callable[[], float] = time.process_time) -> Seconds:
    "Return what does it several times in a row, and says how long one of them took."
    def run() -> float:
        began = clock()
        for _ in range(calls): work()
        return (clock() - began) / calls
    return run


def spread(values: Sequence[float]) -> list[float]:
    "Return the median, and from where to where eight of ten are."
    ordered = sorted(values)
    return [ordered[int(len(ordered) * at)] for at in (.5, .1, .9)]


def shown(figures: Sequence[float]) -> str:
    "Write a median and its spread, with as many digits as mean something."
    places = 0 if figures[0] >= 1000 else 1 if figures[0] >= 10 else 2
    middle, low, high = (f'{figure:.{places}f}' for figure in figures)
    return f'{middle:>8} {f"{low}-{high}":14}'


class Table:
    "Pairs of things that were done in turns: ours, and what it is compared with."

    def __init__(self, name: str, title: str, base: str, aim: str, unit: str = 'µs'):
        self.name, self.rows = name, list[dict[str, Any]]()
        self.head = {'title': title, 'base': base, 'aim': aim, 'unit': unit}
        self.scale = {'µs': 1e6, 'ms': 1e3}[unit]
        print(f'\n{title}. Aim: {aim}.')
        print(f'{f"{unit}: median, and eight of ten":44}{"ours":>8}{base:>23}{"ratio":>23}')

    def compare(self, what: str, ours: Seconds, base: Seconds, rounds: int) -> None:
        "Do two things in turns, once before it counts; print and keep the medians, and that of the ratios."
        for work in ours, base: work()
        pairs = [(ours(), base()) for _ in range(rounds)]
        self.add(what, *([x * self.scale for x in side] for side in zip(*pairs, strict=True)))

    def add(self, what: str, ours: Sequence[float], base: Sequence[float]) -> None:
        "Print and keep what was found in turns."
        ratios = [a / b for a, b in zip(ours, base, strict=True)]
        row = {'ours': spread(ours), 'base': spread(base), 'ratio': spread(ratios)}
        self.rows.append({'what': what, 'rounds': len(ratios)} | row)
        print(f'{what:44}{"".join(map(shown, row.values()))}'.rstrip(), flush=True)

    def keep(self) -> None: keep(self.name, self.head | {'rows': self.rows})


def keep(name: str, found: dict[str, Any], program: str = '') -> None:
    "Write what was found into nbs/measured/, with the program that found it, and where."
    KEPT.mkdir(exist_ok=True)
    program = program or Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix()
    where = f'Python {platform.python_version()}, {os.cpu_count()} processors'
    text = json.dumps({'program': program, 'where': where} | found, indent=1, ensure_ascii=False)
    (KEPT / f'{name}.json').write_text(text + '\n')
