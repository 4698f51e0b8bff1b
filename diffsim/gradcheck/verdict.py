"""The verdict on one parameter: do its derivatives agree with each other and with differences?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ..autodiff.ridders import Slope, Sweep
from .directions import WHOLE

Verdict: TypeAlias = Literal["agrees", "inconclusive", "disagrees", "zero?", "non-finite"]

BARS = 2.0
"""Error bars by which a derivative may miss the differences: one bar is exceeded now and then."""

RESOLUTION = 1e-2
"""The widest error bar, relative to the slope, that still counts as evidence."""

NIL = 1e3
"""Slopes whose bar is below so many roundings of the function's value are as good as zero."""

NOISE = 32.0
"""Roundings of the function's value by which four values of it may seem to bend."""

SEVERITY: tuple[Verdict, ...] = ("agrees", "inconclusive", "disagrees", "zero?", "non-finite")


@dataclass(frozen=True)
class Row:
    """The evidence on one parameter, at the entry (`index`) where it is worst.

    `index` is "direction" where that is a random direction over all entries, whose slopes are changes of the
    function per step, and None where no entry is to blame. `reverse` and `forward` are None where a mode was
    not asked for or is not available; `difference` and `error` are the differences and their error bar.
    `suspects` are the operations that may have spoiled the derivative. Of a thorough check, `imaginary` is how
    far a complex step is from reverse mode, `precision` how far the other number format is, both relative.
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


class Evidence(NamedTuple):
    """All that is known about one parameter; arrays have one number per probe, slopes are per unit step.

    `entry` and `unit` are those of the probes, `points` the samples behind `slope`, `eps` the rounding of the
    coarsest number format in use, `slack` the errors of slopes that are known to come from solves.
    """

    name: str
    leaf: np.ndarray
    entry: np.ndarray
    unit: np.ndarray
    modes: Mapping[str, np.ndarray]
    slope: Slope
    points: Sweep
    eps: float
    slack: np.ndarray | float = 0.0


def judge(evidence: Evidence, rtol: float, atol: float) -> Row:
    """Returns the row of one parameter: the verdict at its worst probe, and why.

    With `a` a derivative, `d` the difference and `e` its error bar, a probe disagrees where
    |a - d| > rtol max(|a|, |d|) + atol + 2 e, and is inconclusive where 2 e is more than a hundredth of the
    slope, more than rounding makes of the function's value and more than rtol of the largest slope; where the slope
    jumps (a kink) by more than rounding could feign; or where the smallest step by itself does not exclude `a`: then a
    kink nearby misleads the larger steps.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        slopes, d = np.stack(list(evidence.modes.values())), evidence.slope.value
        size = np.fmax(np.max(np.abs(slopes), axis=0), np.abs(d))
        gap = np.max(np.abs(slopes - d), axis=0)
        rounding, bar, bends = _rounding(evidence), BARS * evidence.slope.error, _bends(evidence.points)
        nil = np.fmax(NIL * rounding + evidence.slack, rtol * np.fmax.reduce(np.where(np.isfinite(size), size, 0.0)))
        noise = NOISE * rounding / evidence.points.steps[-1]
        bend = np.where(np.ptp(bends, axis=0) <= 0.25 * np.abs(bends[-1]), bends[-1], 0.0)
        kinked = np.abs(bend) > np.fmax(np.fmax(RESOLUTION * size, nil), noise)
        nearest = evidence.slope.values[-1]
        doubt = evidence.slope.errors[-1] + np.where(kinked, 0.0, np.abs(bends[-1]) / 2)
        allowed = max(rtol, 100 * evidence.eps) * size + atol * np.abs(evidence.unit) + bar + evidence.slack
        dead = np.any(slopes == 0, axis=0) & (np.abs(d) > allowed) & (np.abs(nearest) > doubt)
        off = gap > allowed + np.where(kinked, np.abs(bend) / 2, 0.0)
        blurred = off | kinked | ~(bar <= np.fmax(RESOLUTION * size, nil))
        off &= np.max(np.abs(slopes - nearest), axis=0) > doubt
        severity = np.select([~_finite(evidence), dead, off, blurred], [4, 3, 2, 1], 0)
        disagreement = np.where(gap == 0, 0.0, gap / np.fmax(size, nil))
    order = (-np.arange(len(d)), np.nan_to_num(disagreement, nan=np.inf), severity)
    probe = int(np.lexsort(order)[-1])
    row = row_of(evidence, probe, float(disagreement[probe]), SEVERITY[severity[probe]])
    return replace(row, notes=tuple(_notes(row, float(bend[probe]) if kinked[probe] else 0.0)))


def _finite(evidence: Evidence) -> np.ndarray:
    """Whether the entry and all its derivatives are finite, per probe; of whole leaves, the derivatives."""
    values = np.where(evidence.entry == WHOLE, 0.0, evidence.leaf.ravel()[evidence.entry])
    return np.all(np.isfinite([values, *evidence.modes.values()]), axis=0)


def _notes(row: Row, bend: float) -> Iterator[str]:
    parts = {"the parameter itself": row.value, "reverse": row.reverse, "forward": row.forward}
    for part, number in parts.items():
        if number is not None and not math.isfinite(number):
            yield f"{part} is {number}" + (f" at {place(row.index)}" if row.index else "")
    if bend and row.difference is not None:
        yield f"kink: slope {row.difference - bend / 2:.3g} below, {row.difference + bend / 2:.3g} above"


def place(index: tuple[int, ...] | str | None) -> str:
    """Returns an entry as it is written in a table: [0, 2], a word, or "-" for a scalar or none."""
    return index if isinstance(index, str) else str(list(index)) if index else "-"


def _rounding(evidence: Evidence) -> np.ndarray:
    """One rounding of the largest value that the function takes along each probe."""
    values = np.concatenate([evidence.points.ahead, evidence.points.behind, evidence.points.centre[None]])
    return evidence.eps * np.fmax.reduce(np.abs(np.where(np.isfinite(values), values, 0.0)), axis=0)


def _bends(points: Sweep) -> np.ndarray:
    """How much larger the slope is ahead than behind at the four smallest steps, per probe.

    A smooth function's bend halves with every step, noise doubles it; only at a kink does it stay.
    """
    ahead, behind = (side[-4:].astype(np.float64) for side in (points.ahead, points.behind))
    return (ahead + behind - 2.0 * points.centre) / points.steps[-4:, None]


def row_of(evidence: Evidence, probe: int, disagreement: float, verdict: Verdict) -> Row:
    whole, unit = evidence.entry[probe] == WHOLE, evidence.unit[probe]
    index = tuple(int(k) for k in np.unravel_index(max(evidence.entry[probe], 0), evidence.leaf.shape))
    slopes = {mode: float(values[probe] / unit) for mode, values in evidence.modes.items()}
    return Row(
        evidence.name,
        evidence.leaf.shape,
        "direction" if whole else index,
        None if whole else float(evidence.leaf[index]),
        slopes.get("reverse"),
        slopes.get("forward"),
        float(evidence.slope.value[probe] / unit),
        float(evidence.slope.error[probe] / abs(unit)),
        disagreement,
        verdict,
    )
