"""What nbval needs to be told.

nbdev-clean removes execution counts, and for a cell without one nbval compares nothing.
With a count of 0 it compares every stored output, and notices an output that was dropped.
"""
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        cell = getattr(item, 'cell', None)
        if cell is not None and cell.get('execution_count') is None: cell['execution_count'] = 0
