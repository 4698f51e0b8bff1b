"""Slopes by finite differences, each with the error bar that its own sweep of step sizes reveals."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError

ORDERS = 8
"""Extrapolations tried at each step; more only amplify rounding."""

CHUNK = 512
"""Points evaluated in one compiled call."""


class Sweep(NamedTuple):
    """Values of a function on a line through a point: there, ahead of it and behind it, a row per step."""

    steps: np.ndarray
    centre: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray


class Slope(NamedTuple):
    """A slope and its error bar, and what every step by itself gives (`values`, `errors`: a row each)."""

    value: np.ndarray
    error: np.ndarray
    steps: np.ndarray
    values: np.ndarray
    errors: np.ndarray


def step_sizes(*dtypes: Any) -> np.ndarray:
    """Returns the steps of a sweep, relative to an entry's natural size: powers of two from 1/2 down.

    The last is a little below eps^(1/3) of the coarsest of the `dtypes`, where a plain central difference is
    at its best; larger steps serve extrapolation. Powers of two make `x + h` exact, or exact but for one bit.
    """
    digits = min(int(jnp.finfo(dtype).nmant) for dtype in dtypes)
    return 2.0 ** -np.arange(1, digits // 3 + 4)


def natural_size(x: Any) -> np.ndarray:
    """Returns for every entry of an array the power of two just below its magnitude.

    An entry below a thousandth of the array's root mean square counts as zero and takes that instead; an
    array of zeros takes 1.
    """
    magnitude = np.abs(np.asarray(x, np.float64))
    typical = np.sqrt(np.mean(magnitude**2)) if magnitude.size else 0.0
    size = np.where(magnitude > 1e-3 * typical, magnitude, typical if typical > 0 else 1.0)
    return 2.0 ** np.floor(np.log2(np.where(np.isfinite(size), size, 1.0)))


def batched(
    function: Callable[..., Any],
    shared: Any,
    columns: Sequence[Any],
    *,
    jit: bool = True,
    chunk: int = CHUNK,
) -> np.ndarray:
    """Returns `function(shared, *row)` for every row of the columns, stacked.

    With `jit`, one function is compiled for `chunk` rows and called as often as needed; without, `function`
    is called row by row and need not be traceable at all.
    """
    columns = [np.asarray(column) for column in columns]
    count = len(columns[0])
    if not jit:
        return np.stack([np.asarray(function(shared, *row)) for row in zip(*columns, strict=True)])
    chunk = min(chunk, count)
    rows = np.minimum(np.arange(-(-count // chunk) * chunk), count - 1).reshape(-1, chunk)
    # On a CPU one row after another is faster, and compiles faster, than all of them in lockstep.
    width = None if jax.default_backend() == "cpu" else chunk
    compiled = jax.jit(lambda shared, *rows: lax.map(lambda row: function(shared, *row), rows, batch_size=width))
    parts = [np.asarray(compiled(shared, *(column[row] for column in columns))) for row in rows]
    return np.concatenate(parts)[:count]


def sweep(
    line: Callable[..., Any],
    shared: Any,
    columns: Sequence[Any],
    steps: np.ndarray,
    *,
    jit: bool = True,
    chunk: int = CHUNK,
) -> Sweep:
    """Returns the values of `line(shared, step, *row)` for every row of the columns, at 0 and at +-steps.

    Axes of the result: step (not in `centre`), row, then those of the function's own output. No column counts
    as a single row.
    """
    offsets = np.concatenate([[0.0], steps, -steps])
    count = len(columns[0]) if columns else 1
    step_column = np.repeat(offsets, count)
    points = [step_column, *(np.concatenate([np.asarray(c)] * len(offsets)) for c in columns)]
    values = batched(line, shared, points, jit=jit, chunk=chunk)
    values = values.reshape(len(offsets), count, *values.shape[1:])
    return Sweep(steps, values[0], values[1 : len(steps) + 1], values[len(steps) + 1 :])


def ridders(points: Sweep) -> Slope:
    """Returns the slope at the centre of a sweep by Ridders' extrapolation of central differences to step 0.

    Every step size is refined with up to seven larger ones; the error bar of a refinement is the larger of
    its distances to its two parents plus what the function's noise does to a difference over that step,
    widened until no finer step contradicts it. The refinement with the least error bar is returned; NaN with
    an infinite error bar where none is finite.
    After C. Ridders, Advances in Engineering Software 4 (1982); the noise and the contradiction are added.
    """
    steps = points.steps.reshape(-1, *(1 for _ in points.centre.shape))
    with np.errstate(invalid="ignore", over="ignore"):
        columns = _refinements((points.ahead.astype(np.float64) - points.behind) / (2 * steps))
        order = 4 if steps.min() < 2.0**-16 else 2
        floor = _noise(columns[order], steps[order:], points.centre, 2.0 ** -(9 + order)) / steps
        values, errors = np.full_like(columns[0], np.nan), np.full_like(columns[0], np.inf)
        for order, (column, refined) in enumerate(pairwise(columns), start=1):
            distance = np.fmax(np.abs(refined - column[1:]), np.abs(refined - column[:-1]))
            bar = np.where(np.isfinite(refined), distance + floor[order:], np.inf)
            better = bar < errors[order:]
            values[order:] = np.where(better, refined, values[order:])
            errors[order:] = np.where(better, bar, errors[order:])
        for row in range(1, len(steps) - 1):
            contradiction = np.abs(values[row] - values[row + 1 :]) - errors[row + 1 :]
            errors[row] = np.fmax(errors[row], np.fmax.reduce(contradiction, axis=0))
    best = np.argmin(errors, axis=0)[None]
    value, error = (np.take_along_axis(a, best, axis=0)[0] for a in (values, errors))
    return Slope(value, error, points.steps, values, errors)


def _refinements(column: np.ndarray) -> list[np.ndarray]:
    """The differences extrapolated 0, 1, 2, ... times; each list is one shorter than the one before."""
    columns = [column]
    for order in range(1, min(ORDERS, len(column))):
        columns.append(columns[-1][1:] + np.diff(columns[-1], axis=0) / (4**order - 1))
    return columns


def _noise(column: np.ndarray, steps: np.ndarray, centre: np.ndarray, small: float) -> np.ndarray:
    """The scatter of the function itself: two roundings at least, more where `small` steps show it.

    Taken from slopes extrapolated so often that their truncation error is below rounding there, even of a function
    that varies over a hundredth of an entry's size.
    """
    counted = steps[1:].ravel() <= max(small, 4 * steps.min())
    scatter = np.max((np.abs(np.diff(column, axis=0)) * steps[1:])[counted], axis=0)
    return np.fmax(scatter, 2 * float(jnp.finfo(centre.dtype).eps) * np.abs(centre.astype(np.float64)))


def directional_difference(
    f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], direction: PyTree, *, jit: bool = True
) -> Slope:
    """Returns the derivative of `f` at `x` along a tree like `x`: d f(x + h direction) / dh at h = 0.

    `f` takes a tree of floating-point arrays and returns an array. The steps h run from 1/2 down, so scale
    `direction` to a change of the order of `x` itself. `jit=False` calls `f` from Python, once a point.
    Raises InputError where `x` and `direction` differ in shape, or `f` returns no floating-point array.
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
    """Returns the partial derivative of `f` at `x` by entry `index` of the flattened tree, shaped as `f(x)`.

    The steps are relative to that entry (see `natural_size`); `steps` of the result are in its units.
    Raises InputError where the tree has no such entry.
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
