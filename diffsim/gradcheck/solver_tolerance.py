"""What the tolerances of solves do to a derivative: the function is evaluated again with tighter ones."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import diffrax as dfx
import jax
import numpy as np

from ..autodiff.inputs import Inputs
from .directional import difference_samples, forward_slopes, reverse_gradient, value_of
from .directions import Probes
from .evidence import Evidence, gather, slopes_by_mode
from .verdict import SUSPECT, Row, judge

_factor = jax.make_user_context(1.0)  # part of the key of JAX's caches of traced functions
_METHODS = ("init", "adapt_step_size")


def tighter_by(eps: float) -> float:
    """The factor on tolerances for a number format: 1/1000, or 1/10 in float32, which has too few digits for that."""
    return 1e-3 if eps < 1e-12 else 0.1


@contextmanager
def tightened(factor: float) -> Iterator[None]:
    """A context in which all that is traced has solves by diffrax's PIDController with `factor` times their tolerances.

    Functions close over their controller, so that it can be changed only where it is used: in the context the class has
    other methods. What is traced before or after is not affected.
    """
    original = {name: getattr(dfx.PIDController, name) for name in _METHODS}
    try:
        for name, method in original.items():
            setattr(dfx.PIDController, name, _scaled(method, factor))
        with _factor(factor):
            yield
    finally:
        for name, method in original.items():
            setattr(dfx.PIDController, name, method)


def _scaled(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """A method of a controller that has `factor` times its tolerances."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        return method(replace(self, rtol=factor * self.rtol, atol=factor * self.atol), *args, **kwargs)

    return call


def judge_with_tighter_solves(
    inputs: Inputs,
    probes: Probes,
    evidence: Sequence[Evidence],
    rows: list[Row],
    tolerances: tuple[float, float],
    *,
    jit: bool,
) -> list[Row]:
    """The rows, with the verdict "agrees" for those that agree once the function's solves have tighter tolerances.

    A derivative of a solve is taken along the steps that were made, while differences see these steps change. Either
    is the derivative of the exact solution up to the solver's error, so that both converge to the same number as the
    tolerances are tightened. A wrong derivative does not.
    """
    factor = tighter_by(max(each.eps for each in evidence))
    tighter = _evidence_of_tighter_solves(inputs, probes, evidence, factor, jit=jit)
    if tighter is None:
        return rows
    judged = []
    for each, tighter_each, row in zip(evidence, tighter, rows, strict=True):
        slack = remaining_error(each, tighter_each, factor)
        tighter_row = judge(tighter_each._replace(slack=slack), *tolerances)
        if row.verdict in SUSPECT and tighter_row.verdict == "agrees":
            note = f"within the solver's tolerance: at {factor:g} times that, derivatives and differences agree"
            shown = row if row.difference is not None and np.isfinite(row.difference) else tighter_row
            row = replace(shown, verdict="agrees", notes=(note,))
        elif row.verdict == "inconclusive" and tighter_row.verdict == "disagrees":
            note = f"the differences are those of solves to {factor:g} times their tolerance"
            row = replace(tighter_row, notes=(*tighter_row.notes, note))
        judged.append(row)
    return judged


def _evidence_of_tighter_solves(
    inputs: Inputs, probes: Probes, evidence: Sequence[Evidence], factor: float, *, jit: bool
) -> list[Evidence] | None:
    """The evidence with `factor` times the tolerances; None if these do not change the value or the function raises."""
    modes, steps = list(evidence[0].modes), evidence[0].points.steps
    steps = steps[len(steps) // 4 :]  # far from the point a solve may take too many steps for a tighter tolerance
    try:
        value = value_of(inputs, jit=jit)
        with tightened(factor):
            if value_of(inputs, jit=jit) == value:
                return None
            gradient = reverse_gradient(inputs, jit=jit)[1] if "reverse" in modes else None
            forward = forward_slopes(inputs, probes, jit=jit)[0] if "forward" in modes else None
            points = difference_samples(inputs, probes, steps, jit=jit)
    except Exception:  # any kind: a solve that takes too many steps for the tighter tolerance may raise anything
        return None
    slopes = slopes_by_mode(gradient, forward, probes)
    return gather(inputs, probes, slopes, points) if len(slopes) == len(modes) else None


def remaining_error(evidence: Evidence, tighter: Evidence, factor: float) -> np.ndarray:
    """The error that slopes may have at tolerances tightened by `factor`, from their change, for each probe.

    The error of a solution falls in proportion to the tolerance; that of a derivative is assumed to fall at least with
    the square root of the tolerance. Changes of differences within their error estimates do not count.
    """
    modes = [np.abs(slopes - tighter.modes[mode]) for mode, slopes in evidence.modes.items()]
    with np.errstate(invalid="ignore"):
        estimates = evidence.slope.error + tighter.slope.error
        moved = np.abs(evidence.slope.value - tighter.slope.value) - estimates
    return np.sqrt(factor) * np.max(np.nan_to_num([*modes, moved], neginf=0.0), axis=0, initial=0.0)
