"""Changes of a function that its derivatives keep silent about: steps, and kinks beyond which it wakes up."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..autodiff.ridders import Sweep
from .directions import WHOLE
from .verdict import Evidence, Row, row_of

RESTING = 4
"""Smallest steps at which a function with a kink beyond must not change at all."""

NARROWER = 8
"""Halvings of a step over which a jump stays as high as it is; a square root shrinks to a sixteenth."""


def silent_change(evidence: Evidence, coarse: Sweep, value_at: Callable[[int, float], float]) -> Row | None:
    """Returns the row of a parameter with an entry that rests at small steps and moves the function at a larger one.

    None where there is no such entry. For entries whose derivatives are all exactly zero, as behind a
    comparison, a rounding or a clip; `coarse` has samples at steps larger than those of the evidence, and
    `value_at(probe, step)` takes more. Bisection for the step at which the function leaves its value tells a jump
    from a kink and from a smooth function that is flat here, which leave it by ever less. A kink counts only where
    no entry has a derivative: a network has units that sleep.
    """
    centre = evidence.points.centre
    steps = np.concatenate([coarse.steps, evidence.points.steps])
    steps = np.concatenate([steps, -steps])
    values = np.concatenate([coarse.ahead, evidence.points.ahead, coarse.behind, evidence.points.behind])
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(values - centre)
    change = np.where(np.isfinite(change), change, 0.0)
    least = np.sqrt(evidence.eps) * np.fmax(np.max(change, axis=0), np.abs(centre))
    asleep = not np.any(list(evidence.modes.values()))
    halvings = int(-np.log2(evidence.eps)) - 4
    silent = ~np.any(list(evidence.modes.values()), axis=0) & (evidence.entry != WHOLE)
    for probe in np.flatnonzero(silent & (np.max(change, axis=0) > least)).tolist():
        moved = np.where(change[:, probe] > 0, np.abs(steps), np.inf)
        out = steps[np.argmin(moved)]
        rest, heights = _edge(lambda step, probe=probe: value_at(probe, step) - centre[probe], out, halvings)
        jumps = heights[-1] > max(least[probe], heights[-NARROWER] / 2)
        wakes = heights[0] > least[probe] and abs(out) > evidence.points.steps[-RESTING]
        if jumps or (asleep and wakes):
            step, height = abs(rest * evidence.unit[probe]), heights[-1 if jumps else 0]
            verb = "jumps" if jumps else "then changes"
            note = f"flat to a step of {step:.3g}, {verb} by {height:.3g}"
            return replace(row_of(evidence, probe, 1.0, "zero?"), notes=(note,))
    return None


def _edge(change_at: Callable[[float], float], out: float, halvings: int) -> tuple[float, list[float]]:
    """The step to which a function keeps its value, and its changes just beyond as that is narrowed down.

    Found by bisection from a step `out` where the value has changed.
    """
    rest, changes = 0.0, [abs(change_at(out))]
    for _ in range(halvings):
        middle = (rest + out) / 2
        change = abs(change_at(middle))
        rest, out = (rest, middle) if change else (middle, out)
        changes.append(change or changes[-1])
    return rest, changes
