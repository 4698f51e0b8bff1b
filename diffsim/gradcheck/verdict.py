"""The verdict on one parameter: do its derivatives agree with each other and with differences?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from ..autodiff.sweep import Sweep
from .directions import ALL_ENTRIES
from .evidence import Evidence

Verdict: TypeAlias = Literal["agrees", "inconclusive", "disagrees", "zero?", "non-finite"]

ERROR_FACTOR = 2.0
"""Error estimates by which a derivative may differ from the differences, since one estimate is exceeded at times."""

RESOLUTION = 1e-2
"""The largest error estimate, relative to the slope, with which differences count as evidence."""

ZERO_ROUNDINGS = 1e3
"""Slopes are as good as zero if their error estimate is below this number of roundings of the function's value."""

KINK_ROUNDINGS = 32.0
"""Roundings of the function's value that may look like a kink in four of its values."""

SUSPECT: tuple[Verdict, ...] = ("inconclusive", "disagrees", "zero?")
"""The verdicts whose cause is searched for among the operations."""

SEVERITY: tuple[Verdict, ...] = ("agrees", "inconclusive", "disagrees", "zero?", "non-finite")


@dataclass(frozen=True)
class Row:
    """The evidence on one parameter, at the entry where it is worst.

    Attributes:
        name: The name of the parameter.
        shape: Its shape.
        index: The entry where the evidence is worst. It is "direction" for a random direction over all entries, whose
            slopes are changes of the function per step, and None where no entry is to blame.
        value: The value of that entry.
        reverse: The derivative by reverse mode; None where that was not asked for or is not available.
        forward: The derivative by forward mode, likewise.
        difference: The derivative by differences.
        error: The error estimate of the differences.
        disagreement: The largest distance of a derivative from the differences, relative to the slope.
        verdict: One of "agrees", "inconclusive", "disagrees", "zero?" and "non-finite"; see `check_gradients`.
        notes: Remarks that explain the verdict.
        suspects: The operations that may have spoiled the derivative.
        imaginary: Of a thorough check, the relative difference of a complex step from reverse mode.
        precision: Of a thorough check, the relative difference of the gradient in the other number format.
    """

    name: str
    shape: tuple[int, ...]
    index: tuple[int, ...] | str | None
    value: float | None
    reverse: float | None
    forward: float | None
    difference: float | None
    error: float | None
    disagreement: float
    verdict: Verdict
    notes: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    imaginary: float | None = None
    precision: float | None = None


def judge(evidence: Evidence, rtol: float, atol: float) -> Row:
    """The row of one parameter: the verdict at its worst probe, and the reasons.

    With a derivative a, the difference d and its error estimate e, a probe disagrees where

        |a - d| > rtol max(|a|, |d|) + atol + 2 e.

    It is inconclusive in three cases:
    - 2 e is more than a hundredth of the slope, more than rounding of the function's value can cause, and more than
      rtol of the largest slope.
    - The slope has a jump (a kink) that is larger than rounding can cause.
    - The smallest step by itself does not exclude a. Then a kink nearby spoils the larger steps.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        slopes, difference = np.stack(list(evidence.modes.values())), evidence.slope.value
        size = np.fmax(np.max(np.abs(slopes), axis=0), np.abs(difference))
        gap = np.max(np.abs(slopes - difference), axis=0)
        error = ERROR_FACTOR * evidence.slope.error
        largest = np.fmax.reduce(np.where(np.isfinite(size), size, 0.0))
        negligible = np.fmax(ZERO_ROUNDINGS * _rounding(evidence) + evidence.slack, rtol * largest)
        bend, kink = _bend_and_kink(evidence, np.fmax(RESOLUTION * size, negligible))
        smallest_step = evidence.slope.values[-1]
        its_error = evidence.slope.errors[-1] + np.where(kink != 0, 0.0, np.abs(bend) / 2)
        allowed = max(rtol, 100 * evidence.eps) * size + atol * np.abs(evidence.unit) + error + evidence.slack
        zero = np.any(slopes == 0, axis=0) & (np.abs(difference) > allowed) & (np.abs(smallest_step) > its_error)
        off = gap > allowed + np.abs(kink) / 2
        inconclusive = off | (kink != 0) | ~(error <= np.fmax(RESOLUTION * size, negligible))
        off &= np.max(np.abs(slopes - smallest_step), axis=0) > its_error
        severity = np.select([~_finite(evidence), zero, off, inconclusive], [4, 3, 2, 1], 0)
        disagreement = np.where(gap == 0, 0.0, gap / np.fmax(size, negligible))
    # The worst probe: by severity, then by disagreement, then the first.
    order = (-np.arange(len(difference)), np.nan_to_num(disagreement, nan=np.inf), severity)
    probe = int(np.lexsort(order)[-1])
    row = row_of(evidence, probe, float(disagreement[probe]), SEVERITY[severity[probe]])
    return replace(row, notes=tuple(_notes(row, float(kink[probe]))))


def _finite(evidence: Evidence) -> np.ndarray:
    """Whether the entry and all its derivatives are finite, for each probe; of a direction, the derivatives alone."""
    values = np.where(evidence.entry == ALL_ENTRIES, 0.0, evidence.leaf.ravel()[evidence.entry])
    return np.all(np.isfinite([values, *evidence.modes.values()]), axis=0)


def _notes(row: Row, kink: float) -> Iterator[str]:
    """Remarks on numbers of the row that are not finite, and on a kink of this size."""
    parts = {"the parameter itself": row.value, "reverse": row.reverse, "forward": row.forward}
    for part, number in parts.items():
        if number is not None and not math.isfinite(number):
            yield f"{part} is {number}" + (f" at {place(row.index)}" if row.index else "")
    if kink and row.difference is not None:
        yield f"kink: slope {row.difference - kink / 2:.3g} below, {row.difference + kink / 2:.3g} above"


def place(index: tuple[int, ...] | str | None) -> str:
    """An entry as it is written in a table: [0, 2], a word, or "-" for a scalar or none."""
    return index if isinstance(index, str) else str(list(index)) if index else "-"


def _rounding(evidence: Evidence) -> np.ndarray:
    """One rounding of the largest value that the function takes along each probe."""
    values = np.concatenate([evidence.points.ahead, evidence.points.behind, evidence.points.centre[None]])
    return evidence.eps * np.fmax.reduce(np.abs(np.where(np.isfinite(values), values, 0.0)), axis=0)


def _bend_and_kink(evidence: Evidence, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The difference of the slopes ahead and behind at the smallest step; and the same where it is a kink, else 0.

    It is a kink where it is about the same at the four smallest steps and above `threshold` and rounding.
    """
    bends = _bends(evidence.points)
    rounding = KINK_ROUNDINGS * _rounding(evidence) / evidence.points.steps[-1]
    steady = np.where(np.ptp(bends, axis=0) <= 0.25 * np.abs(bends[-1]), bends[-1], 0.0)
    return bends[-1], np.where(np.abs(steady) > np.fmax(threshold, rounding), steady, 0.0)


def _bends(points: Sweep) -> np.ndarray:
    """How much larger the slope is ahead than behind at the four smallest steps, for each probe.

    With every halving of the step it halves if the function is smooth and doubles if it is noise; at a kink alone it
    stays the same.
    """
    ahead, behind = (side[-4:].astype(np.float64) for side in (points.ahead, points.behind))
    return (ahead + behind - 2.0 * points.centre) / points.steps[-4:, None]


def row_of(evidence: Evidence, probe: int, disagreement: float, verdict: Verdict) -> Row:
    """The row of one parameter with the numbers of one probe."""
    is_direction, unit = evidence.entry[probe] == ALL_ENTRIES, evidence.unit[probe]
    index = tuple(int(k) for k in np.unravel_index(max(evidence.entry[probe], 0), evidence.leaf.shape))
    slopes = {mode: float(values[probe] / unit) for mode, values in evidence.modes.items()}
    return Row(
        evidence.name,
        evidence.leaf.shape,
        "direction" if is_direction else index,
        None if is_direction else float(evidence.leaf[index]),
        slopes.get("reverse"),
        slopes.get("forward"),
        float(evidence.slope.value[probe] / unit),
        float(evidence.slope.error[probe] / abs(unit)),
        disagreement,
        verdict,
    )
