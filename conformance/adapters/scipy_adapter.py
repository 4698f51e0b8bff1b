"""SciPy: `solve_ivp` with terminal events, begun again after each of them; derivatives by central differences."""

import functools

import numpy as np
import scipy
from scipy.integrate import solve_ivp

from ..problem import Phase, Problem
from .answers import Answer, NotExpressible, Refused, each
from .segments import simulate, turned

DIRECTIONS = {"rising": 1.0, "falling": -1.0, "both": 0.0}
STEP, SECOND_STEP = 1e-5, 3e-4
"""Relative steps of the differences, near the best for an error of 1e-12 in the values."""


def version() -> str:
    """Returns the version of SciPy."""
    return scipy.__version__


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    if problem.single:
        raise NotExpressible("solve_ivp computes in double precision")
    return Solver(problem)


class Solver:
    """Value and differences."""

    def __init__(self, problem: Problem):
        self.problem = problem

    def value(self, p) -> Answer:
        """Returns the quantity and the event times."""
        p = np.asarray(p, float)
        solve = functools.partial(_one_phase, self.problem, p)
        run = simulate(self.problem, p, np, lambda parts: np.array(parts, float), solve, float)
        return Answer(float(self.problem.measure(np, run)), [float(t) for t in run.event_times])

    def gradient(self, p) -> list[float]:
        """Returns the gradient by central differences."""
        return self._gradient(np.asarray(p, float), STEP).tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the central difference, along v, of gradients with the same step."""
        p, v = np.asarray(p, float), np.asarray(v, float)
        step = SECOND_STEP
        ends = [self._gradient(p + sign * step * v, step) for sign in (1, -1)]
        return ((ends[0] - ends[1]) / (2 * step)).tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row, one after the other."""
        return each(self, rows)

    def _gradient(self, p, relative):
        slopes = []
        for i in range(len(p)):
            step = relative * max(1e-3, abs(p[i])) if p[i] else relative
            ends = [self.value(p + sign * step * np.eye(len(p))[i]).value for sign in (1, -1)]
            slopes.append((ends[0] - ends[1]) / (2 * step))
        return np.array(slopes)


def _one_phase(problem: Problem, p, phase: Phase, t, y, stop, saves, happened):
    """Time, state, event and saved states of one phase, for the loop of `segments`."""
    field = lambda s, z: np.array(phase.field(np, s, z, p), float)
    functions = []
    for event, formula in phase.searched:
        function = lambda s, z, formula=formula: formula(np, s, z, p)
        again = event is happened and event.direction == "both"
        direction = turned(event, np, t, y, p, field) if again else event.direction
        function.terminal, function.direction = True, DIRECTIONS[direction]  # type: ignore[attr-defined]
        functions.append(function)
    inside = [s for s in saves if t <= s <= stop]
    result = solve_ivp(
        field,
        (t, stop),
        y,
        method="Radau" if problem.stiff else "DOP853",
        rtol=1e-12,
        atol=1e-13,
        events=functions or None,
        dense_output=bool(inside),
    )
    if result.status < 0:
        raise Refused(result.message)
    states = {s: result.sol(s) for s in inside if s <= result.t[-1]}
    hits = [pair[0] for pair, at in zip(phase.searched, result.t_events or [], strict=False) if len(at)]
    return result.t[-1], result.y[:, -1], hits[0] if result.status == 1 else None, states
