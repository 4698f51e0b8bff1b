"""Slopes by finite differences, each with an error estimate from values at many step sizes.

Source: C. Ridders, Accurate computation of F'(x) and F'(x) F''(x), Advances in Engineering Software 4 (1982).
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .sweep import Sweep, natural_size, step_sizes, sweep

NUMBER_OF_ORDERS = 8
"""Orders of extrapolation that are tried at each step, from 0; more of them amplify rounding."""


class Slope(NamedTuple):
    """A slope by differences.

    Attributes:
        value: The slope.
        error: Its error estimate.
        steps: The step sizes.
        values: The best slope with each step as the smallest one, with a leading axis of steps.
        errors: The error estimates of `values`.
    """

    value: np.ndarray
    error: np.ndarray
    steps: np.ndarray
    values: np.ndarray
    errors: np.ndarray


def ridders(points: Sweep) -> Slope:
    """The slope at the centre of a sweep by Ridders' extrapolation of central differences to step 0.

    The difference at every step size is extrapolated with those at up to seven larger ones. The error estimate of an
    extrapolation is the larger of its distances from the two numbers that it is computed from, plus the effect of the
    function's noise on a difference over that step. It is increased until it agrees with the results of all smaller
    steps. The extrapolation with the least error estimate is the slope.

    The noise and the comparison with smaller steps are additions to Ridders' method.

    Returns:
        The slope; NaN with an infinite error estimate where no extrapolation is finite.
    """
    steps = points.steps.reshape(-1, *(1 for _ in points.centre.shape))
    with np.errstate(invalid="ignore", over="ignore"):
        columns = _extrapolations((points.ahead.astype(np.float64) - points.behind) / (2 * steps))
        order = 4 if steps.min() < 2.0**-16 else 2
        noise = _noise(columns[order], steps[order:], points.centre, 2.0 ** -(9 + order)) / steps
        values, errors = np.full_like(columns[0], np.nan), np.full_like(columns[0], np.inf)
        for order, (column, extrapolated) in enumerate(pairwise(columns), start=1):
            distance = np.fmax(np.abs(extrapolated - column[1:]), np.abs(extrapolated - column[:-1]))
            error = np.where(np.isfinite(extrapolated), distance + noise[order:], np.inf)
            better = error < errors[order:]
            values[order:] = np.where(better, extrapolated, values[order:])
            errors[order:] = np.where(better, error, errors[order:])
        for row in range(1, len(steps) - 1):
            contradiction = np.abs(values[row] - values[row + 1 :]) - errors[row + 1 :]
            errors[row] = np.fmax(errors[row], np.fmax.reduce(contradiction, axis=0))
    best = np.argmin(errors, axis=0)[None]
    value, error = (np.take_along_axis(a, best, axis=0)[0] for a in (values, errors))
    return Slope(value, error, points.steps, values, errors)


def _extrapolations(column: np.ndarray) -> list[np.ndarray]:
    """The differences extrapolated 0, 1, 2, ... times; each array has one row less than the one before."""
    columns = [column]
    for order in range(1, min(NUMBER_OF_ORDERS, len(column))):
        columns.append(columns[-1][1:] + np.diff(columns[-1], axis=0) / (4**order - 1))
    return columns


def _noise(
    column: np.ndarray, steps: np.ndarray, centre: np.ndarray | np.floating, small: float
) -> np.ndarray | np.floating:
    """The noise of the function: at least two roundings, more where the scatter of slopes at `small` steps shows it.

    The slopes of `column` are extrapolated so often that their truncation error is below rounding at these steps, even
    for a function that varies over a hundredth of an entry's size.
    """
    small_enough = steps[1:].ravel() <= max(small, 4 * steps.min())
    scatter = np.max((np.abs(np.diff(column, axis=0)) * steps[1:])[small_enough], axis=0)
    return np.fmax(scatter, 2 * float(jnp.finfo(centre.dtype).eps) * np.abs(centre.astype(np.float64)))


def directional_difference(
    f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], direction: PyTree, *, jit: bool = True
) -> Slope:
    """The derivative of `f` at `x` along a tree like `x`: d f(x + h direction) / dh at h = 0.

    Args:
        f: A function of a tree of floating-point arrays that returns an array.
        x: The point.
        direction: A tree like `x`. The steps h begin at 1/2, so that it should be a change of the order of `x` itself.
        jit: Whether to compile `f`. Without, it is called from Python, once for each point.

    Raises:
        InputError: If `x` and `direction` differ in shape, and if `f` does not return a floating-point array.
    """
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (x, direction)]
    if shapes[0] != shapes[1]:
        raise InputError(f"direction has shapes {shapes[1]} but x has {shapes[0]}: give them the same structure")

    def line(shared, step):
        return f(jax.tree.map(lambda a, d: a + (step * d).astype(a.dtype), *shared))

    x, direction = jax.tree.map(jnp.asarray, (x, direction))
    output = jax.eval_shape(f, x) if jit else jax.eval_shape(lambda: f(x))
    if not jnp.issubdtype(getattr(output, "dtype", bool), jnp.floating):
        raise InputError(f"f returns {output}: return one array of floating-point numbers")
    steps = step_sizes(output.dtype, *(leaf.dtype for leaf in jax.tree.leaves(x)))
    points = sweep(line, (x, direction), [], steps, jit=jit)
    return ridders(Sweep(steps, points.centre[0], points.ahead[:, 0], points.behind[:, 0]))


def partial_difference(
    f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], index: int, *, jit: bool = True
) -> Slope:
    """The partial derivative of `f` at `x` with respect to entry `index` of the flattened tree, shaped as `f(x)`.

    The steps are relative to that entry's `natural_size`. The `steps` of the result are in the units of the entry.

    Raises:
        InputError: If the tree has no such entry.
    """
    flat, unravel = ravel_pytree(x)
    if not -flat.size <= index < flat.size:
        raise InputError(f"index {index} is out of range: x has {flat.size} entries")
    sizes = np.concatenate([natural_size(leaf).ravel() for leaf in jax.tree.leaves(x)])
    direction = unravel(jnp.zeros_like(flat).at[index].set(sizes[index]))
    slope = directional_difference(f, x, direction, jit=jit)
    value, error, steps, values, errors = slope
    size = sizes[index]
    return Slope(value / size, error / size, steps * size, values / size, errors / size)
