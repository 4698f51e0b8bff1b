"""Random systems against independent truths: none may have the status FINISHED and a wrong number."""

from types import ModuleType

import numpy as np
import pytest
import random_grammar
import random_systems

from diffsim import Status


def check(module: ModuleType, kind: str, seed: int, count: int, failed: float) -> None:
    outcome = module.outcome(kind, seed, count)
    assert not outcome.wrong.size, f"{kind}, seed {seed}: {outcome.wrong}, errors {outcome.value[outcome.wrong]}"
    assert outcome.status.size > count // 3
    assert np.mean(outcome.status != Status.FINISHED) <= failed


@pytest.mark.parametrize(("kind", "seed"), [("at_rest", 0), ("crossings", 1), ("jumps", 1), ("captured", 0)])
def test_some(kind, seed):
    check(random_systems, kind, seed, 20, 0.0)


@pytest.mark.slow
def test_some_of_the_grammar():
    check(random_grammar, "tsit5", 0, 60, 0.02)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", random_grammar.SOLVERS)
def test_many_of_the_grammar(kind):
    """`random_grammar.py` searches any number."""
    check(random_grammar, kind, 1, 200, 0.02)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("kind", random_systems.KINDS)
def test_many(kind, seed):
    """700 systems; `random_systems.py` searches any number. A solve may say that it failed, but rarely."""
    check(random_systems, kind, seed, 100, 0.05)
