"""References: closed forms against a simulation in many digits, their derivatives, and the committed numbers."""

import json

import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from conformance import make_references, references
from conformance.problem import Problem
from conformance.problems import PROBLEMS, by_name
from conformance.simulate import simulate

CLOSED = [problem for problem in PROBLEMS if problem.exact]
SERIES = [problem for problem in PROBLEMS if not problem.exact]
MILD = {
    "stiff_relaxation": (20.0, 1.5, 0.3),
    "stiff_reactions": (20.0, 1.0, 1.0),
    "stiff_event": (20.0, 1.0, 1.0, 0.5),
    "stiff_rest": (0.5, 20.0),
}
"""Parameters for which the simulation of a stiff problem takes less time; the formulas are the same."""
QUICK = (
    "decay",
    "stiff_relaxation",
    "dose_at_the_start",
    "one_bounce",
    "two_events_at_one_time",
    "diode",
    "peak_current",
)
NAMES = [
    pytest.param(problem.name, marks=() if problem.name in QUICK else pytest.mark.exhaustive)
    for problem in CLOSED
    if not problem.refusal
]


def row_of(problem: Problem):
    return [mp.mpf(x) for x in MILD.get(problem.name, problem.parameters)]


@pytest.mark.parametrize("name", NAMES)
def test_closed_forms_are_those_of_the_simulation(name):
    """Value, event times and gradient, the last by differences of the simulation; 22 digits, steps of 1e-7."""
    problem = by_name(name)
    assert problem.exact is not None
    with mp.workdps(22):
        p, h = row_of(problem), mp.mpf("1e-7")
        own, right = simulate(problem, p), problem.exact(mp, p)
        value = problem.measure(mp, right)
        # A growth by a factor of 1e9 multiplies the rounding.
        assert abs(problem.measure(mp, own) - value) < mp.mpf("1e-15") * (1 + abs(value))
        assert len(own.event_times) == len(right.event_times)
        assert all(abs(a - b) < mp.mpf("1e-17") for a, b in zip(own.event_times, right.event_times, strict=True))
        for i in range(len(p)):
            ends = [[x + sign * h * (k == i) for k, x in enumerate(p)] for sign in (1, -1)]
            slopes = [
                (problem.measure(mp, run(ends[0])) - problem.measure(mp, run(ends[1]))) / (2 * h)
                for run in (lambda p: simulate(problem, p), lambda p: problem.exact(mp, p))
            ]
            assert abs(slopes[0] - slopes[1]) < mp.mpf("1e-7") * (1 + abs(slopes[1])), i


@pytest.mark.parametrize("problem", CLOSED, ids=lambda problem: problem.name)
def test_committed_numbers_are_those_of_the_closed_forms(problem):
    """To the last digit: formulas and numbers belong together."""
    committed = json.loads(references.PATH.read_text())[problem.name]
    rows = problem.batch or (problem.parameters,)
    assert len(committed) == len(rows)
    # The first row that has a solution; the others are made in the same way.
    first = next(i for i in range(len(rows)) if i not in problem.failing)
    assert committed[first][0] == make_references.reference(problem, problem.exact, rows[first])
    assert [not accepted for accepted in committed] == [i in problem.failing for i in range(len(rows))]


@pytest.mark.parametrize("problem", SERIES, ids=lambda problem: problem.name)
def test_references_of_series_are_those_of_scipy(problem):
    """Value and gradient, by differences of an eighth-order solve with a tolerance of 1e-12."""

    def final(p):
        field = lambda t, y: problem.phases[0].field(np, t, y, p)
        start = problem.start(np, p)
        return solve_ivp(field, problem.span, start, method="DOP853", rtol=1e-12, atol=1e-13).y[0, -1]

    right = references.read()[problem.name][0][0]
    p, h = np.array(problem.parameters), 1e-5
    np.testing.assert_allclose(final(p), right["value"], rtol=1e-9)
    slopes = [(final(p + h * e) - final(p - h * e)) / (2 * h) for e in np.eye(len(p))]
    # Differences of values that are right to about 1e-11 by steps of 1e-5.
    np.testing.assert_allclose(slopes, right["gradient"], rtol=1e-5, atol=1e-5)
    slope_along = lambda p: np.array([(final(p + h * e) - final(p - h * e)) / (2 * h) for e in np.eye(len(p))])
    step = 1e-4 * np.array(problem.direction)
    np.testing.assert_allclose(
        (slope_along(p + step) - slope_along(p - step)) / 2e-4, right["hvp"], rtol=1e-3, atol=0.1
    )


def test_problems_are_complete():
    """Names are unique, levels go from 1 to 5, each has a sentence, and there are more events allowed than happen."""
    right = references.read()
    assert len({problem.name for problem in PROBLEMS}) == len(PROBLEMS) >= 40
    assert {problem.level for problem in PROBLEMS} == {1, 2, 3, 4, 5}
    for problem in PROBLEMS:
        assert problem.about.endswith("."), problem.name
        times = [one["event_times"] or [] for accepted in right[problem.name] for one in accepted]
        assert problem.max_events > max(map(len, times), default=0) or not problem.phases[0].events, problem.name
