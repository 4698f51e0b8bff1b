"""Profile likelihood: how far one parameter may move while all others are fitted anew."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from .._errors import InputError, RunError
from .._types import Model
from ..optimize.iterations import Solver, run_iterations, traced_now
from ..optimize.least_squares import LEVENBERG_MARQUARDT, SumOfSquares
from ..parameters import parameters, partition, replace, trainable, unconstrain
from ..train.fit import check_on_host
from .covariance import posterior

DOUBLINGS = 40  # of a step away from the fit, before an interval counts as open
ROUNDS = 60  # at most, to narrow down an end
CLOSE = 1e-4  # relative, of the distance in standard deviations at an end


class ProfileLikelihood(NamedTuple):
    """The interval of a parameter by profile likelihood; an end that is a bound, or infinite, is open.

    `points` (points, 2) are the values tried and their distance from the fit in standard deviations,
    sqrt(2 (loss - least loss)) / noise, with a sign; for a linear model that is a straight line.
    """

    path: str
    value: float
    low: float
    high: float
    open: tuple[bool, bool]
    points: Float[np.ndarray, "points 2"]

    def __repr__(self) -> str:
        """The value and its interval, as `ProfileLikelihood(rate = 2.01, from 1.7 to 2.6)`."""
        ends = [f"{x:.6g}{' (open)' if is_open else ''}" for x, is_open in zip(self[2:4], self.open, strict=True)]
        return f"ProfileLikelihood({self.path} = {self.value:.6g}, from {ends[0]} to {ends[1]})"


def profile_likelihood(
    residuals: Callable,
    model: Model,
    data: PyTree = None,
    *,
    path: str,
    level: float = 0.9,
    noise: float | None = None,
    measurements: int | None = None,
    filter_spec: PyTree[bool] | None = None,
    solver: Solver = LEVENBERG_MARQUARDT,
    steps: int = 100,
) -> ProfileLikelihood:
    """The interval of the parameter at `path`: where the best fit with that value is no worse than `level` allows.

    The ends are where sqrt(2 (loss - least loss)) / noise is the quantile of Student's distribution (the normal one, if
    `noise` is given), the loss being sum(residuals^2) / 2 with all other trained parameters fitted to that value.
    Unlike `posterior`, it does not take the model for linear nor the interval for symmetric; it costs some ten fits.
    `model` is the fitted one; all else is as in `posterior`, which says what counts as a measurement.

    Raises InputError for a parameter that is not one trained number, RunError if it meets a better fit than `model`.

    Source: D. M. Bates, D. G. Watts, Nonlinear Regression Analysis and Its Applications, Wiley 1988, section 6.1.
    """
    check_on_host("profile_likelihood", model, data)
    residuals = traced_now(residuals, model, data)
    trained, _ = partition(model, filter_spec)
    known = parameters(trained)
    if path not in known or known[path].value.size != 1:
        raise InputError(f"path={path!r}: give one trained number, one of {', '.join(known)}")
    found = posterior(residuals, model, data, noise=noise, measurements=measurements, filter_spec=filter_spec)
    at = list(known).index(path)
    std = float(found.std()[sum(entry.value.size for entry in list(known.values())[:at])])
    entry, aim = known[path], float(found.critical_value(level))
    value = float(entry.value)
    step = 1.1 * aim * std if 0 < std < np.inf else 0.1 * (abs(value) or 1.0)
    distance = _Distance(residuals, model, data, path, float(found.noise), filter_spec, solver, steps)
    ends = [_end(distance, value, side * step, aim, entry.bounds) for side in (-1, 1)]
    points = np.array([[value, 0.0], *distance.points])
    points = points[np.argsort(points[:, 0])]
    return ProfileLikelihood(path, value, ends[0][0], ends[1][0], (ends[0][1], ends[1][1]), points)


class _Distance:
    """How many standard deviations a value of the parameter is away from the fit; keeps the points it was asked for."""

    def __init__(self, residuals, model, data, path, noise, filter_spec, solver, steps):
        others = trainable(model) if filter_spec is None else filter_spec
        mask = trainable(model, path)
        self.others = jax.tree.map(lambda chosen, here: bool(chosen) and not here, others, mask)
        self.residuals, self.model, self.data, self.path, self.noise = residuals, model, data, path, noise
        self.solver, self.steps = solver, steps
        self.loss = eqx.filter_jit(SumOfSquares(residuals))
        self.least = float(self.loss(model, data))
        self.value = float(parameters(model)[path].value)
        self.points: list[tuple[float, float]] = []

    def __call__(self, value: float) -> float:
        loss = float(self.loss(self.fitted(value), self.data))
        excess = 2 * (loss - self.least) / self.noise**2 if np.isfinite(loss) else np.inf
        if excess < -1e-3:
            better = f"{self.path}={value:g} fits better (loss {loss:g}) than the model given ({self.least:g})"
            raise RunError(f"{better}: fit it again from there")
        distance = float(np.sqrt(max(excess, 0.0)))
        self.points.append((value, float(np.copysign(distance, value - self.value))))
        return distance

    def fitted(self, value: float) -> Model:
        """The best model with that value."""
        model = replace(self.model, {self.path: np.reshape(value, parameters(self.model)[self.path].value.shape)})
        trained, fixed = eqx.partition(model, self.others)
        if not parameters(trained):
            return model
        start = unconstrain(_inside(trained))
        end = run_iterations(self.residuals, self.solver, start, fixed, self.data, self.steps, jnp.array(True))
        return eqx.combine(end.trained, fixed)


def _end(distance: _Distance, value: float, step: float, aim: float, bounds) -> tuple[float, bool]:
    """Where the distance comes to `aim` in the direction of `step`, and whether it is open there."""
    bound = bounds[0] if step < 0 else bounds[1]
    if value == bound:
        return value, True
    near, far = (value, 0.0), (value, 0.0)
    for _ in range(DOUBLINGS):
        there = value + step
        there = max(there, bound) if step < 0 else min(there, bound)
        near, far = far, (there, distance(there))
        if far[1] >= aim or there == bound:
            break
        step *= 2
    if far[1] < aim:
        return (far[0] if np.isfinite(bound) else float(np.copysign(np.inf, step))), True
    return _narrowed(distance, near, far, aim), False


def _narrowed(distance: _Distance, near, far, aim: float) -> float:
    """The end between a point too near and one too far, by regula falsi that halves a side it keeps (Illinois)."""
    a, b = (near[0], near[1] - aim), (far[0], far[1] - aim)
    for _ in range(ROUNDS):
        bad = not np.isfinite(b[1])
        x = 0.5 * (a[0] + b[0]) if bad else a[0] - a[1] * (b[0] - a[0]) / (b[1] - a[1])
        y = distance(x) - aim
        if abs(y) <= CLOSE * aim:
            return x
        if y > 0:
            a, b = (a if bad else (a[0], 0.5 * a[1])), (x, y)
        else:
            a, b = (x, y), (b[0], 0.5 * b[1])
    return b[0]


def _inside(trained: Model) -> Model:
    """The parameters, those on a bound put a little inside so that they can move."""

    def leaf(entry):
        low, high = entry.bounds
        width = high - low if np.isfinite(high - low) else np.maximum(np.abs(entry.value), 1.0)
        x = np.asarray(entry.value)
        return np.where(x <= low, low + 0.05 * width, np.where(x >= high, high - 0.05 * width, x))

    return replace(trained, {path: leaf(entry) for path, entry in parameters(trained).items()})
