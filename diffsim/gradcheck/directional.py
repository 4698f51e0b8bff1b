"""The slope of a function along every probe, by reverse mode, by forward mode and by differences."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._jax.source_lines import first_line
from ..autodiff.inputs import Inputs
from ..autodiff.sweep import CHUNK, Sweep, batched, step_sizes, sweep
from .directions import ALL_ENTRIES, Probes, tangent

MAX_INPUTS_PER_BATCH = 2**24
"""The most numbers of input that the points of one batch have together."""


class Derivatives(NamedTuple):
    """Where the derivatives of a function come from.

    Attributes:
        reverse: Returns the value, the gradient with an array for each leaf, and None; or, where reverse mode is not
            available, the value or None, None and the reason.
        forward: Returns the slopes along probes and None; or None and the reason.
    """

    reverse: Callable[[], tuple[float | None, list[np.ndarray] | None, str | None]]
    forward: Callable[[Probes], tuple[np.ndarray | None, str | None]]


def derivatives_by_jax(inputs: Inputs, *, jit: bool) -> Derivatives:
    """JAX's derivatives of the function."""
    return Derivatives(
        functools.partial(reverse_gradient, inputs, jit=jit), functools.partial(forward_slopes, inputs, jit=jit)
    )


def value_of(inputs: Inputs, *, jit: bool) -> float:
    """The value of the function."""
    return float((jax.jit(inputs.call) if jit else inputs.call)(inputs.leaves))


def reverse_gradient(inputs: Inputs, *, jit: bool) -> tuple[float | None, list[np.ndarray] | None, str | None]:
    """The value, the gradient by reverse mode with an array for each leaf, and None.

    If reverse mode is not available, two times None and the reason.
    """
    derivative = jax.value_and_grad(inputs.call)
    try:
        value, gradient = (jax.jit(derivative) if jit else derivative)(inputs.leaves)
    except Exception as error:  # any kind: a user's derivative rule may raise anything
        return None, None, first_line(error)
    return float(value), [np.asarray(leaf, np.float64) for leaf in gradient], None


def slopes_along(gradient: list[np.ndarray], probes: Probes) -> np.ndarray:
    """The slopes along all probes of a function with this gradient."""
    slopes = []
    for number, entry in zip(probes.leaf, probes.entry, strict=True):
        weight = np.asarray(probes.weights[number], np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            product = (gradient[number] * weight).ravel()
            slopes.append(np.sum(product) if entry == ALL_ENTRIES else product[entry])
    return np.array(slopes)


def forward_slopes(inputs: Inputs, probes: Probes, *, jit: bool) -> tuple[np.ndarray | None, str | None]:
    """The slopes along all probes by forward mode, and None; or None and the reason why it is not available."""

    def slope(shared: tuple[list[Array], list[Array]], leaf: Any, entry: Any) -> Array:
        x, weights = shared
        return jax.jvp(inputs.call, (x,), (tangent(weights, leaf, entry),))[1]

    shared = (inputs.leaves, [jnp.asarray(w) for w in probes.weights])
    columns = (probes.leaf, probes.entry)
    try:
        slopes = batched(slope, shared, columns, jit=jit, chunk=_points_per_batch(inputs))
    except Exception as error:  # any kind: a user's derivative rule may raise anything
        return None, first_line(error)
    return slopes.astype(np.float64), None


def difference_samples(inputs: Inputs, probes: Probes, steps: np.ndarray, *, jit: bool) -> Sweep:
    """The function's values along all probes at the given steps (see `sweep`).

    A function that raises far from its point, such as a solve that exceeds its number of steps there, is tried at the
    smaller steps alone. If it raises there too, all values are NaN.
    """
    shared = (inputs.leaves, [jnp.asarray(w) for w in probes.weights])
    columns = (probes.leaf, probes.entry)
    line, chunk = functools.partial(_value_at, inputs.call), _points_per_batch(inputs)
    for chosen_steps in (steps, steps[len(steps) // 4 :], steps[len(steps) // 2 :]):
        try:
            return sweep(line, shared, columns, chosen_steps, jit=jit, chunk=chunk)
        except Exception:  # any kind: the function may raise anything
            continue
    nothing = np.full((len(steps), len(probes.leaf)), np.nan)
    return Sweep(steps, nothing[0], nothing, nothing)


def value_along(inputs: Inputs, probes: Probes, *, jit: bool) -> Callable[[int, float], float]:
    """The function's value as a function of a probe's number and a step along that probe; NaN where it raises."""
    point = functools.partial(_value_at, inputs.call)
    point = jax.jit(point) if jit else point
    shared = (inputs.leaves, [jnp.asarray(w) for w in probes.weights])

    def value(probe: int, step: float) -> float:
        try:
            return float(point(shared, step, probes.leaf[probe], probes.entry[probe]))
        except Exception:  # any kind: the function may raise anything
            return float("nan")

    return value


def _value_at(call: Callable[..., Any], shared: tuple[list[Array], list[Array]], step: Any, leaf: Any, entry: Any):
    """The function's value after a step along one probe."""
    x, weights = shared
    change = tangent(weights, leaf, entry)
    return call([a + (step * c).astype(a.dtype) for a, c in zip(x, change, strict=True)])


def steps_for(inputs: Inputs, value_dtype: Any) -> np.ndarray:
    """The step sizes for the number format with the fewest digits, of those of the inputs and of the value."""
    return step_sizes(value_dtype, *(leaf.dtype for leaf in inputs.leaves))


def _points_per_batch(inputs: Inputs) -> int:
    """The number of points that are evaluated in one compiled call."""
    return max(1, min(CHUNK, MAX_INPUTS_PER_BATCH // sum(leaf.size for leaf in inputs.leaves)))
