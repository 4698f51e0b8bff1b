"""What the error tolerances of solves do to a derivative: the function once more, solved to tighter ones."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import diffrax as dfx
import jax
import numpy as np

from .verdict import Evidence

_factor = jax.make_user_context(1.0)  # part of the key under which jax keeps what it has traced
_METHODS = ("init", "adapt_step_size")


def tighter_by(eps: float) -> float:
    """Returns the factor on tolerances for a number format: a thousandth, of which float32 has not the digits."""
    return 1e-3 if eps < 1e-12 else 0.1


@contextmanager
def tightened(factor: float) -> Iterator[None]:
    """Within it, all that is traced has solves by diffrax's PIDController with `factor` times their tolerances.

    The controller is a value that functions close over, so it is met where it is used: its methods are exchanged for
    the time being. What was traced before, or is traced after, is not affected.
    """
    plain = {name: getattr(dfx.PIDController, name) for name in _METHODS}
    try:
        for name, method in plain.items():
            setattr(dfx.PIDController, name, _scaled(method, factor))
        with _factor(factor):
            yield
    finally:
        for name, method in plain.items():
            setattr(dfx.PIDController, name, method)


def _scaled(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self, *args, **kwargs):
        return method(replace(self, rtol=factor * self.rtol, atol=factor * self.atol), *args, **kwargs)

    return call


def remaining_error(evidence: Evidence, tighter: Evidence, factor: float) -> np.ndarray:
    """Returns how far slopes at tolerances tightened by `factor` may still be off, from how far they moved, per probe.

    A solution's error falls in proportion to the tolerance. That of a derivative is taken to fall with its root at
    least. What differences move within their error bars does not count.
    """
    modes = [np.abs(slopes - tighter.modes[mode]) for mode, slopes in evidence.modes.items()]
    with np.errstate(invalid="ignore"):
        bars = evidence.slope.error + tighter.slope.error
        moved = np.abs(evidence.slope.value - tighter.slope.value) - bars
    return np.sqrt(factor) * np.max(np.nan_to_num([*modes, moved], neginf=0.0), axis=0, initial=0.0)
