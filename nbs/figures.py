"""What was measured, for chapter 55: the programs in tests/ keep what they find in nbs/measured/."""
import json
from pathlib import Path
from typing import Any

from IPython.display import Markdown

KEPT = Path(__file__).resolve().parent / 'measured'


def kept(name: str) -> dict[str, Any]: return json.loads((KEPT / f'{name}.json').read_text())


def show(*names: str) -> Markdown:
    "Return what was kept under some names, as tables."
    return Markdown('\n'.join(line for name in names for line in lines(kept(name))))


def lines(found: dict[str, Any]) -> list[str]:
    "Write what was kept as a table: columns as they are, or pairs with the ratios of both."
    unit = found.get('unit')
    columns = found.get('columns') or ['', f'ours, {unit}', f'{found["base"]}, {unit}', 'ratio']
    rows = found['rows'] if 'columns' in found else [
        [row['what'], *(figures(row[side]) for side in ('ours', 'base', 'ratio'))] for row in found['rows']]
    aim = '' if found.get('aim', 'none') == 'none' else f' Aim: {found["aim"]}.'
    return ['', f'**{found["title"]}.**{aim}', '',
            f'| {" | ".join(columns)} |', '|---' + '|--:' * (len(columns) - 1) + '|',
            *(f'| {" | ".join(map(str, row))} |' for row in rows), '',
            f'`python {found["program"]}`, {found["where"]}', '']


def figures(spread: list[float]) -> str:
    "Write a median, and from where to where eight of ten are."
    places = 0 if spread[0] >= 1000 else 1 if spread[0] >= 10 else 2
    middle, low, high = (f'{figure:.{places}f}' for figure in spread)
    return f'**{middle}** ({low} to {high})'
