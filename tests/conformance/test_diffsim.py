"""diffsim's answers: one problem of each level, and all of them in a slow test."""

import pytest

from conformance import outcomes, references, runner, worker
from conformance.problems import PROBLEMS, by_name

REFERENCES = references.read()


def verdict(problem, second_order=True):
    reports = worker.answers("diffsim", problem, second_order)["reports"]
    found = runner.judged(problem, reports, REFERENCES[problem.name], not second_order)
    return {quantity: entry["outcome"] for quantity, entry in found.items()}


@pytest.mark.parametrize(
    "name", ["decay", "jump_at_trained_time", "two_events_in_one_step", "single_and_late", "graze"]
)
def test_one_problem_of_each_level(name):
    assert set(verdict(by_name(name), second_order=False).values()) == {outcomes.RIGHT}


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_no_answer_is_silently_wrong(problem):
    assert outcomes.SILENT not in verdict(problem).values()
