"The tool of `make mutants` breaks what it says it does, and the list of those that may survive is true."
import pytest
from mutants import TESTS, argued, mutants, source, files_for
from test_house import MODULES, ROOT

SOURCE = '''"What is guarded."

def check(a, b):
    if a < b and b:  # in order
        raise ValueError(a)
    return [n for n in (a, b) if n is not None]
'''


def test_each_guard_is_broken_once() -> None:
    found = mutants('check', SOURCE)
    assert [(m.number, m.change) for m in found] == [
        (4, 'a < b -> a <= b'), (4, 'a < b and b -> False'), (4, 'a < b and b -> True'),
        (4, 'a < b and b -> a < b or b'), (5, 'raise -> pass'),
        (6, 'n is not None -> False'), (6, 'n is not None -> True'), (6, 'n is not None -> n is None')]
    assert found[0].line == 'if a < b and b:  # in order'
    assert 'if a <= b and b:\n        raise ValueError(a)\n' in found[0].text
    assert 'if a < b and b:\n        pass\n' in found[4].text
    assert len({m.text for m in found}) == len(found)


@pytest.mark.parametrize('module', TESTS)
def test_a_module_has_files_for_its_own(module: str) -> None:
    assert module in MODULES
    for path in files_for(module): assert (ROOT / path).exists(), path


def test_what_may_survive_is_a_mutant_and_says_why() -> None:
    every = {m.key for module in TESTS for m in mutants(module, source(module))}
    for key, why in argued().items(): assert key in every and len(why) > 20, key
