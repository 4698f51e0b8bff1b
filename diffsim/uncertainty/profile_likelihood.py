"""Profile likelihood: how far one parameter may move while all others are fitted to its value."""

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
from ..train.validate import check_on_host
from .covariance import posterior

MAX_DOUBLINGS = 40  # of a step away from the fit, after which an interval counts as open
MAX_ROUNDS = 60  # of the root search for an end
RTOL = 1e-4  # of the distance, in standard deviations, at an end


class ProfileLikelihood(NamedTuple):
    """The interval of a parameter by profile likelihood.

    Attributes:
        path: The path of the parameter.
        value: Its fitted value.
        low, high: The ends of the interval.
        open: Whether each end is open: a bound, or infinite.
        points: The values tried and their signed distances from the fit in standard deviations,
            sqrt(2 (loss - least loss)) / noise, shape (points, 2). For a linear model they lie on a straight line.

    Examples:
        >>> residuals = lambda decay, seen: jnp.exp(-decay["rate"] * jnp.array([1.0, 2.0])) - seen
        >>> decay, seen = {"rate": jnp.array(1.0)}, jnp.exp(-jnp.array([1.0, 2.0]))
        >>> rate = ds.profile_likelihood(residuals, decay, seen, path="rate", noise=0.05)
        >>> print(f"{rate.low:.3f} {rate.value:.3f} {rate.high:.3f}", rate.open)
        0.839 1.000 1.206 (False, False)
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
    """The interval of the parameter at `path`: the values whose best fit is no worse than `level` allows.

        sqrt(2 (loss - least loss)) / noise = critical value,  loss = sum(residuals^2) / 2

    at both ends, where all other trained parameters are fitted to the value. The critical value is the quantile of
    Student's distribution, of the normal one if `noise` is given. Unlike `posterior` this takes the model neither as
    linear nor the interval as symmetric. It costs about ten fits.

    Args:
        residuals: `residuals(model, data)`, an array or a tree of arrays.
        model: The fitted model.
        data: The second argument of `residuals`.
        path: The path of the parameter, one trained number.
        level: The probability of the interval.
        noise, measurements: As in `posterior`.
        filter_spec: The parameters that were fitted; by default all.
        solver, steps: As in `fit_least_squares`, for the fits of the other parameters.

    Raises:
        InputError: For a parameter that is not one trained number.
        RunError: If a value fits better than `model`.

    Source: D. M. Bates, D. G. Watts, Nonlinear Regression Analysis and Its Applications, Wiley 1988, section 6.1.

    Examples:
        >>> ts = jnp.array([1.0, 2.0, 3.0])
        >>> residuals = lambda line, seen: line["slope"] * ts + line["offset"] - seen
        >>> line, seen = {"slope": jnp.array(2.0), "offset": jnp.array(1.0)}, jnp.array([3.0, 5.0, 7.0])
        >>> slope = ds.profile_likelihood(residuals, line, seen, path="slope", noise=0.1)
        >>> print(f"{slope.low:.3f} {slope.high:.3f}")  # 2 +- 1.645 * 0.1 / sqrt(2)
        1.884 2.116
    """
    check_on_host("profile_likelihood", model, data)
    residuals = traced_now(residuals, model, data)
    trained, _ = partition(model, filter_spec)
    known = parameters(trained)
    if path not in known or known[path].value.size != 1:
        single = [name for name, entry in known.items() if entry.value.size == 1]
        arrays = ", ".join(name for name in known if name not in single)
        cure = f"; split arrays ({arrays}) into fields of one number each" if arrays else ""
        raise InputError(f"path={path!r}: give one trained number, one of {', '.join(single) or 'none'}{cure}")
    normal = posterior(residuals, model, data, noise=noise, measurements=measurements, filter_spec=filter_spec)
    position = list(known).index(path)
    std = float(normal.std()[sum(entry.value.size for entry in list(known.values())[:position])])
    entry, target = known[path], float(normal.critical_value(level))
    value = float(entry.value)
    step = 1.1 * target * std if 0 < std < np.inf else 0.1 * (abs(value) or 1.0)
    distance = _ProfileDistance(residuals, model, data, path, float(normal.noise), filter_spec, solver, steps)
    ends = [_find_end(distance, value, side * step, target, entry.bounds) for side in (-1, 1)]
    points = np.array([[value, 0.0], *distance.points])
    points = points[np.argsort(points[:, 0])]
    return ProfileLikelihood(path, value, ends[0][0], ends[1][0], (ends[0][1], ends[1][1]), points)


class _ProfileDistance:
    """The distance of a value of the parameter from the fit, in standard deviations; remembers the points evaluated."""

    def __init__(self, residuals, model, data, path, noise, filter_spec, solver, steps):
        trained = trainable(model) if filter_spec is None else filter_spec
        profiled = trainable(model, path)
        self.others = jax.tree.map(lambda trains, is_profiled: bool(trains) and not is_profiled, trained, profiled)
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
        shape = parameters(self.model)[self.path].value.shape
        model = replace(self.model, {self.path: np.reshape(value, shape)})
        trained, fixed = eqx.partition(model, self.others)
        if not parameters(trained):
            return model
        start = unconstrain(_off_bounds(trained))
        result = run_iterations(self.residuals, self.solver, start, fixed, self.data, self.steps, jnp.array(True))
        return eqx.combine(result.trained, fixed)


def _find_end(distance: _ProfileDistance, value: float, step: float, target: float, bounds) -> tuple[float, bool]:
    """Where the distance reaches `target` in the direction of `step`, and whether the interval is open there."""
    bound = bounds[0] if step < 0 else bounds[1]
    if value == bound:
        return value, True
    near, far = (value, 0.0), (value, 0.0)
    for _ in range(MAX_DOUBLINGS):
        trial = max(value + step, bound) if step < 0 else min(value + step, bound)
        near, far = far, (trial, distance(trial))
        if far[1] >= target or trial == bound:
            break
        step *= 2
    if far[1] < target:
        return (far[0] if np.isfinite(bound) else float(np.copysign(np.inf, step))), True
    return _root(distance, near, far, target), False


def _root(distance: _ProfileDistance, near, far, target: float) -> float:
    """The value at which the distance is `target`, between a point too near and one too far.

    Regula falsi with the Illinois modification, which halves the function value at an end that does not move.
    """
    a, b = (near[0], near[1] - target), (far[0], far[1] - target)
    for _ in range(MAX_ROUNDS):
        bisect = not np.isfinite(b[1])
        x = 0.5 * (a[0] + b[0]) if bisect else a[0] - a[1] * (b[0] - a[0]) / (b[1] - a[1])
        y = distance(x) - target
        if abs(y) <= RTOL * target:
            return x
        if y > 0:
            a, b = (a if bisect else (a[0], 0.5 * a[1])), (x, y)
        else:
            a, b = (x, y), (b[0], 0.5 * b[1])
    return b[0]


def _off_bounds(trained: Model) -> Model:
    """The parameters, those on a bound moved a little inside, from where a fit can start."""

    def leaf(entry):
        low, high = entry.bounds
        width = high - low if np.isfinite(high - low) else np.maximum(np.abs(entry.value), 1.0)
        x = np.asarray(entry.value)
        return np.where(x <= low, low + 0.05 * width, np.where(x >= high, high - 0.05 * width, x))

    return replace(trained, {path: leaf(entry) for path, entry in parameters(trained).items()})
