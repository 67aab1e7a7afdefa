"""An attacker between the two ends: some of the runs of `make mitm`, and that they can fail."""
import pytest
from attacker import KINDS
from mitm import GUARDS, SETUPS, Broken, Outcome, run, without

RUNS, PARTS = 300, 3
# What each of these guards keeps out, another one keeps out as well, so that it needs two to go:
# the names are part of the keys and of what is signed, each direction has keys of its own,
# a suite that was not offered gives other keys, and who claims our own name calls us by hers.
TWICE = {'name', 'nonce signed', 'name signed', 'role', 'spi', 'offer', 'group', 'own nonce'}
RARE = {'icv', 'request id', 'response id', 'turn', 'names'}  # found by more runs than there is time for here


def played(first: int, count: int) -> list[Outcome]:
    return [run(seed) for seed in range(first, first + count)]


@pytest.mark.parametrize('part', range(PARTS))
def test_nobody_is_established_with_anybody_else(part: int) -> None:
    "Nor with other keys; and both hold the same in the end."
    outcomes = played(part * RUNS // PARTS, RUNS // PARTS)
    assert not [(o.seed, o.broken) for o in outcomes if o.broken]
    assert {k for o in outcomes for k in o.kinds} == set(KINDS)
    assert {'gcm', 'pfs', 'shared', 'choice'} <= {o.setup for o in outcomes} <= set(SETUPS)
    called, served, forged = (sum(getattr(o, n) for o in outcomes) for n in ('called', 'served', 'forged'))
    assert called / 3 < served < called and forged > 3 * called  # both ends of it have been tested


@pytest.mark.parametrize('seed', [21032, 670524])
def test_what_was_broken_once(seed: int) -> None:
    "21032: who has asked for a Child SA. 670524: a new IKE SA that was replaced before it was chosen."
    assert not run(seed).broken


def test_a_seed_is_the_same_run_again() -> None:
    assert played(7, 5) == played(7, 5)


@pytest.mark.parametrize('guard', sorted(GUARDS.keys() - TWICE - RARE))
def test_without_a_guard_it_is_found(guard: str) -> None:
    "One line of the product is taken out, and within two hundred runs an invariant breaks."
    with without(guard): assert any(run(seed).broken for seed in range(200))
    assert not played(0, 1)[0].broken


def test_a_broken_invariant_says_what_it_is() -> None:
    with without('proof'): said = [o.broken for o in played(0, 120) if o.broken]
    assert any('established with nobody' in words for words in said)
    assert issubclass(Broken, AssertionError)
