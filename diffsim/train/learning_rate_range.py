"""The learning-rate range test: which rates lower the loss, and from which on it diverges."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax
from jaxtyping import Float, PyTree
from scipy.ndimage import median_filter
from scipy.signal import savgol_filter

from .._errors import InputError, RunError
from .._types import Model
from .fit import fit
from .options import FitProgress, NonFinite
from .validate import number_of_steps

MIN_STEPS = 20
STEPS_PER_CALL = 10
DIVERGENCE = 4.0  # times the least loss before, as in fastai
MIN_RISE = 0.1  # of what the loss has fallen, below which a rise is no divergence
ROUNDING = float(np.finfo(np.float32).eps)


class LearningRateRange(NamedTuple):
    """The losses of a fit whose learning rate grows with each step.

    Attributes:
        rates: The learning rate of each step that was made.
        losses: The loss before each step; NaN or infinite where it is not finite.
        smoothed: Straight lines fitted to the losses around each step; NaN from the divergence on.
        suggested: The rate at which the smoothed loss falls most steeply over the logarithm of the rate; NaN if it
            never falls.
        divergence: The rate at which the loss diverges; None if it does not.

    Examples:
        >>> rates, losses = np.geomspace(1e-4, 1.0, 3), np.array([1.0, 0.9, 8.0])
        >>> ds.train.LearningRateRange(rates, losses, losses, 0.01, 1.0)
        LearningRateRange(suggested 0.01, diverges at 1; 3 rates from 0.0001 to 1)
    """

    rates: Float[np.ndarray, " steps"]
    losses: Float[np.ndarray, " steps"]
    smoothed: Float[np.ndarray, " steps"]
    suggested: float
    divergence: float | None

    def __repr__(self) -> str:
        """The suggested rate, that of the divergence, and the range."""
        end = "does not diverge" if self.divergence is None else f"diverges at {self.divergence:.3g}"
        count = f"{len(self.rates)} rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}"
        return f"LearningRateRange(suggested {self.suggested:.3g}, {end}; {count})"


class _Diverged(Exception):
    """Ends the fit of a range test."""


def learning_rate_range(
    loss: Callable[[Model, Any], Float[jax.Array, ""]],
    model: Model,
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation],
    batches: PyTree,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    filter_spec: PyTree[bool] | None = None,
) -> LearningRateRange:
    """The losses of a fit whose learning rate grows exponentially from `lowest` to `highest`, and a rate to train with.

    The test of Smith, "Cyclical learning rates for training neural networks" (arXiv:1506.01186), with the rules of
    fastai. It ends when the running median of the loss exceeds four times its least value and a tenth of its fall is
    lost, or at a loss or gradient that is not finite. It suggests the rate of the steepest descent. Straight lines over
    a tenth of the steps smooth the loss; they are centred and so do not shift the curve to larger rates. Good values: a
    hundred steps, and batches like those of the training. `viz.plot.learning_rate_range` draws the result.

    Args:
        loss: `loss(model, batch)`, as in `fit`.
        model: The model to start from; it is not changed.
        optimizer: A function that returns the optimizer for a learning rate, such as `optax.adam` or
            `lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))`.
        batches: A tree of arrays whose leading axis counts the steps, as in `fit`: one rate for each, at least 20.
        lowest, highest: The first and the last rate.
        filter_spec: The parameters that train, as in `fit`.

    Returns:
        The rates, the losses, the suggested rate, and the rate at which the loss diverges.

    Raises:
        InputError: For too few batches, rates that do not grow, and an optimizer that has its rate already.
        RunError: If the loss is not finite from the start.

    Examples:
        >>> loss = lambda x, noise: 5.0 * (x - noise) ** 2  # gradient descent diverges at rates above 2 / 10
        >>> batches = 0.01 * jr.normal(jr.key(0), (200,))
        >>> test = ds.train.learning_rate_range(loss, jnp.array(1.0), optax.sgd, batches, lowest=1e-4, highest=10.0)
        >>> test.suggested < test.divergence, 0.2 <= test.divergence < 0.4
        (True, True)
    """
    steps = number_of_steps(batches)
    if steps < MIN_STEPS:
        raise InputError(f"batches have {steps} steps: a range test takes at least {MIN_STEPS}, better a hundred")
    if not 0 < lowest < highest < np.inf:
        raise InputError(f"lowest={lowest:g}, highest={highest:g}: give rates with 0 < lowest < highest")
    if not callable(optimizer):
        raise InputError(
            f"optimizer={type(optimizer).__name__} has its learning rate already: give the function that makes it, "
            "such as optax.adam, or lambda rate: optax.adam(rate, b1=0.8)"
        )
    made: list[np.ndarray] = []

    def stop(progress: FitProgress) -> None:
        made.append(np.where(progress.dropped, np.nan, progress.losses).astype(float))
        if first_diverged(np.concatenate(made)) is not None:
            raise _Diverged

    schedule = optax.exponential_decay(lowest, steps - 1, highest / lowest)
    options: dict[str, Any] = {"steps_per_call": STEPS_PER_CALL, "non_finite": NonFinite("skip", limit=steps + 1)}
    options |= {"filter_spec": filter_spec, "progress": False, "callback": stop}
    with suppress(_Diverged):
        fit(loss, model, optimizer(schedule), batches, **options)
    losses = np.concatenate(made)
    return _result(np.geomspace(lowest, highest, steps)[: len(losses)], losses, window=odd(steps // 10))


def _result(rates: np.ndarray, losses: np.ndarray, window: int) -> LearningRateRange:
    """The result of a test, of which the losses before the divergence are smoothed."""
    first_bad = first_diverged(losses)
    end = len(losses) if first_bad is None else first_bad
    if end < 2:
        raise RunError(
            f"the loss diverges at its step {end + 1} of a range test, at the rate {rates[end]:g}: "
            "start with a lower one, or from a model with a finite loss and gradient"
        )
    window = min(window, odd(end - 1))
    line = lambda deriv: cast(np.ndarray, savgol_filter(losses[:end], window, min(1, window - 1), deriv=deriv))
    smoothed = np.concatenate([line(0), np.full(len(losses) - end, np.nan)])
    # Steps are evenly spaced in the logarithm of the rate. After its minimum the loss has no descent to follow.
    slopes = line(1)[: int(np.argmin(smoothed[:end])) + 1] if window > 1 else np.zeros(1)
    steepest = int(np.argmin(slopes))
    falls = slopes[steepest] < -ROUNDING * np.max(np.abs(smoothed[:end]))
    suggested = float(rates[steepest]) if falls else float("nan")
    return LearningRateRange(rates, losses, smoothed, suggested, None if first_bad is None else float(rates[first_bad]))


def first_diverged(losses: Float[np.ndarray, " steps"]) -> int | None:
    """The first step that is not finite, or whose running median rises to four times its least value.

    The rise has to be a tenth of the fall before it: noise and rounding errors of a loss that has fallen far may be
    many times its least value.
    """
    bad = ~np.isfinite(losses)
    median = median_filter(np.where(bad, np.inf, losses), size=5, mode="nearest")
    least = np.minimum.accumulate(median)
    with np.errstate(invalid="ignore"):  # infinities
        fallen = np.maximum(median[0] - least, 0.0)
        bad |= median > least + np.maximum((DIVERGENCE - 1) * np.abs(least), MIN_RISE * fallen)
    return int(np.argmax(bad)) if bad.any() else None


def odd(count: int) -> int:
    """The greatest odd number up to `count`, and at least 1."""
    return max(count - 1 + count % 2, 1)
