"""diffsim's answers: one problem of each level, every twelfth in a slow test, and all in an exhaustive one.

Hessian-vector products, which take longest to compile, are asked by `python -m conformance run`.
"""

import pytest

from conformance import outcomes, references, runner, worker
from conformance.problems import PROBLEMS, by_name

REFERENCES = references.read()


def verdict(problem):
    reports = worker.answers("diffsim", problem, second_order=False)["reports"]
    found = runner.judged(problem, reports, REFERENCES[problem.name], first_order=True)
    return {quantity: entry["outcome"] for quantity, entry in found.items()}


@pytest.mark.parametrize("name", ["decay", "unstable_growth", "brief_dip", "batch_with_a_missing_event", "graze"])
def test_one_problem_of_each_level(name):
    assert set(verdict(by_name(name)).values()) == {outcomes.RIGHT}


def _marked():
    """All problems; those that only an exhaustive check asks are marked so."""
    for number, problem in enumerate(PROBLEMS):
        yield pytest.param(problem, id=problem.name, marks=pytest.mark.exhaustive if number % 12 else pytest.mark.slow)


@pytest.mark.parametrize("problem", list(_marked()))
def test_no_answer_is_silently_wrong(problem):
    assert outcomes.SILENT not in verdict(problem).values()
