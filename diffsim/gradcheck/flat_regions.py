"""Changes of a function where its derivatives are exactly zero: jumps, and kinks at the end of a flat region."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..autodiff.sweep import Sweep
from .directions import ALL_ENTRIES
from .evidence import Evidence
from .verdict import Row, row_of

FLAT_STEPS = 4
"""The number of smallest steps at which a function with a kink further away must not change at all."""

HALVINGS_OF_A_JUMP = 8
"""Halvings of a step over which a jump keeps its height; a square root shrinks to a sixteenth."""


def change_beyond_flat(evidence: Evidence, coarse: Sweep, value_at: Callable[[int, float], float]) -> Row | None:
    """The row of a parameter that moves the function at a large step although its derivatives are exactly zero.

    Such are entries behind a comparison, a rounding or a clip. Bisection for the end of the flat region tells a jump
    from a kink and from a smooth function that is flat here: near that end the change of the latter two vanishes.
    A kink counts only if no entry of the parameter has a derivative, since a network has units that are inactive.

    Args:
        evidence: The evidence on the parameter.
        coarse: Values of the function at steps larger than those of the evidence.
        value_at: The value of the function as a function of a probe and a step along it.

    Returns:
        The row with the verdict "zero?", or None if there is no such entry.
    """
    steps, change = _changes(evidence, coarse)
    centre = evidence.points.centre
    slopes = list(evidence.modes.values())
    least = np.sqrt(evidence.eps) * np.fmax(np.max(change, axis=0), np.abs(centre))
    no_derivative = not np.any(slopes)
    halvings = int(-np.log2(evidence.eps)) - 4
    candidates = ~np.any(slopes, axis=0) & (evidence.entry != ALL_ENTRIES) & (np.max(change, axis=0) > least)
    for probe in np.flatnonzero(candidates).tolist():
        smallest_outside = steps[np.argmin(np.where(change[:, probe] > 0, np.abs(steps), np.inf))]
        change_at = lambda step, probe=probe: value_at(probe, step) - centre[probe]
        edge, heights = _edge_of_flat(change_at, smallest_outside, halvings)
        jumps = heights[-1] > max(least[probe], heights[-HALVINGS_OF_A_JUMP] / 2)
        kinks = heights[0] > least[probe] and abs(smallest_outside) > evidence.points.steps[-FLAT_STEPS]
        if jumps or (no_derivative and kinks):
            step, height = abs(edge * evidence.unit[probe]), heights[-1 if jumps else 0]
            verb = "jumps" if jumps else "then changes"
            note = f"flat to a step of {step:.3g}, {verb} by {height:.3g}"
            return replace(row_of(evidence, probe, 1.0, "zero?"), notes=(note,))
    return None


def _changes(evidence: Evidence, coarse: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """All steps, those behind the point negative, and how far the function's value is from that at the point.

    The changes have an axis of steps and one of probes; those that are not finite count as zero.
    """
    steps = np.concatenate([coarse.steps, evidence.points.steps])
    values = np.concatenate([coarse.ahead, evidence.points.ahead, coarse.behind, evidence.points.behind])
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(values - evidence.points.centre)
    return np.concatenate([steps, -steps]), np.where(np.isfinite(change), change, 0.0)


def _edge_of_flat(
    change_at: Callable[[float], float | np.floating], outside: float, halvings: int
) -> tuple[float, list[float | np.floating]]:
    """The largest step at which a function has its value at 0, and its changes just beyond in each bisection.

    Args:
        change_at: The change of the function as a function of the step.
        outside: A step at which the value has changed.
        halvings: The number of bisections.
    """
    inside, changes = 0.0, [abs(change_at(outside))]
    for _ in range(halvings):
        middle = (inside + outside) / 2
        change = abs(change_at(middle))
        inside, outside = (inside, middle) if change else (middle, outside)
        changes.append(change or changes[-1])
    return inside, changes
