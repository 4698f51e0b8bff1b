"""Random systems against their closed forms: none may have the status FINISHED and a wrong number."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from diffsim import Status

spec = importlib.util.spec_from_file_location("random_systems", Path(__file__).with_name("random_systems.py"))
assert spec is not None
assert spec.loader is not None
random_systems = importlib.util.module_from_spec(spec)
sys.modules["random_systems"] = random_systems
spec.loader.exec_module(random_systems)


def check(kind: str, seed: int, count: int, failed: float) -> None:
    outcome = random_systems.outcome(kind, seed, count)
    assert not outcome.wrong.size, f"{kind}, seed {seed}: {outcome.wrong}, errors {outcome.value[outcome.wrong]}"
    assert np.mean(outcome.status != Status.FINISHED) <= failed


@pytest.mark.parametrize(("kind", "seed"), [("at_rest", 0), ("crossings", 1), ("jumps", 1), ("captured", 0)])
def test_some(kind, seed):
    check(kind, seed, 20, 0.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("kind", random_systems.KINDS)
def test_many(kind, seed):
    """700 systems; `random_systems.py` searches any number. A solve may say that it failed, but rarely."""
    check(kind, seed, 100, 0.05)
