"""Slopes over larger steps that differ from a right derivative: the function jumps or oscillates between them."""

import numpy as np

from .directions import ALL_ENTRIES
from .evidence import Evidence
from .verdict import place

HALVINGS = 4
"""Successive steps over which the slope is to be the same; a smooth function then has this derivative too."""

SPREAD = 0.3
"""How much these slopes may differ, relative to their mean."""

LEAST_CHANGE = 1e-6
"""The least change of the function that counts, relative to its largest along any entry of the parameter."""

DIFFERENCE = 0.6
"""How far the derivative is off, relative to the larger of the two; a kink right beside the point makes 0.5."""


def note_on_coarse_slope(evidence: Evidence) -> str | None:
    """A remark on the first entry whose derivative says nothing of how the function changes over larger steps.

    An example is the force of a contact that begins with a jump: between the jumps the function falls, and by each of
    them it rises. The derivative is right, and misleads whoever follows it.
    """
    steps, points = evidence.points.steps, evidence.points
    with np.errstate(invalid="ignore", over="ignore"):
        slopes = (points.ahead.astype(np.float64) - points.behind) / (2.0 * steps[:, None])
    derivative = np.mean(list(evidence.modes.values()), axis=0)
    finite = np.abs(slopes[np.isfinite(slopes)])
    least = max(LEAST_CHANGE * np.max(finite, initial=0.0), 1e3 * evidence.eps * np.max(np.abs(points.centre)))
    for probe in np.flatnonzero(np.isfinite(derivative)).tolist():
        for first in range(len(steps) - HALVINGS + 1):
            window = slopes[first : first + HALVINGS, probe]
            mean = float(np.mean(window))
            if not np.isfinite(mean) or np.ptp(window) > SPREAD * abs(mean) or abs(mean) < least:
                continue
            exact = float(derivative[probe])
            if abs(mean - exact) > DIFFERENCE * max(abs(mean), abs(exact)):
                return _note(evidence, probe, mean, exact, float(steps[first + HALVINGS - 1]), float(steps[first]))
    return None


def _note(evidence: Evidence, probe: int, slope: float, derivative: float, least: float, most: float) -> str:
    unit, entry = float(evidence.unit[probe]), int(evidence.entry[probe])
    index = "direction" if entry == ALL_ENTRIES else tuple(map(int, np.unravel_index(entry, evidence.leaf.shape)))
    at = f" at {place(index)}" if evidence.leaf.ndim or entry == ALL_ENTRIES else ""
    least, most = abs(least * unit), abs(most * unit)
    return (
        f"slope {slope / unit:.3g} over steps of {least:.2g} to {most:.2g}{at}, where the derivative is "
        f"{derivative / unit:.3g}: between these steps the function jumps or oscillates"
    )
