"""The slope of a function along every probe, by reverse mode, by forward mode and by differences."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._jax.source_lines import first_line
from ..autodiff.inputs import Inputs
from ..autodiff.ridders import CHUNK, Sweep, batched, step_sizes, sweep
from .directions import WHOLE, Probes, tangent

ELEMENTS = 2**24
"""Numbers of input held at once by a batch of points."""


def value_of(inputs: Inputs, *, jit: bool) -> float:
    """Returns the value of the function."""
    return float((jax.jit(inputs.call) if jit else inputs.call)(inputs.leaves))


def reverse(inputs: Inputs, *, jit: bool) -> tuple[float | None, list[np.ndarray] | None, str | None]:
    """Returns the value and the gradient by reverse mode, an array per leaf; or None, and why jax has none."""
    derivative = jax.value_and_grad(inputs.call)
    try:
        value, gradient = (jax.jit(derivative) if jit else derivative)(inputs.leaves)
    except Exception as error:  # any kind: rules of users raise what they like
        return None, None, first_line(error)
    return float(value), [np.asarray(leaf, np.float64) for leaf in gradient], None


def along(gradient: list[np.ndarray], probes: Probes) -> np.ndarray:
    """Returns the slopes along all probes of a function with this gradient."""
    slopes = []
    for number, entry in zip(probes.leaf, probes.entry, strict=True):
        weight = np.asarray(probes.weights[number], np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            product = (gradient[number] * weight).ravel()
            slopes.append(np.sum(product) if entry == WHOLE else product[entry])
    return np.array(slopes)


def forward(inputs: Inputs, probes: Probes, *, jit: bool) -> tuple[np.ndarray | None, str | None]:
    """Returns the slopes along all probes by forward mode; or None, and the reason why jax has none."""

    def slope(shared: tuple[list[Array], list[Array]], leaf: Any, entry: Any) -> Array:
        x, weights = shared
        return jax.jvp(inputs.call, (x,), (tangent(weights, leaf, entry),))[1]

    shared = (inputs.leaves, [jnp.asarray(w) for w in probes.weights])
    columns = (probes.leaf, probes.entry)
    try:
        slopes = batched(slope, shared, columns, jit=jit, chunk=_chunk(inputs))
    except Exception as error:  # any kind: rules of users raise what they like
        return None, first_line(error)
    return slopes.astype(np.float64), None


def differences(inputs: Inputs, probes: Probes, steps: np.ndarray, *, jit: bool) -> Sweep:
    """Returns the function's values along all probes at the given steps (see `differences.sweep`).

    A function that raises far from its point, as a solve does that takes too many steps, is tried at the smaller
    steps alone. If it raises there too all values are NaN.
    """
    shared = (inputs.leaves, [jnp.asarray(w) for w in probes.weights])
    columns = (probes.leaf, probes.entry)
    line, chunk = functools.partial(_point, inputs.call), _chunk(inputs)
    for smaller in (steps, steps[len(steps) // 4 :], steps[len(steps) // 2 :]):
        try:
            return sweep(line, shared, columns, smaller, jit=jit, chunk=chunk)
        except Exception:  # any kind: the function raises what it likes
            continue
    nothing = np.full((len(steps), len(probes.leaf)), np.nan)
    return Sweep(steps, nothing[0], nothing, nothing)


def value_along(inputs: Inputs, probes: Probes, *, jit: bool) -> Callable[[int, float], float]:
    """Returns the function's value as a function of a probe's number and a step along it; NaN where it raises."""
    point = functools.partial(_point, inputs.call)
    point = jax.jit(point) if jit else point
    shared = (inputs.leaves, [jnp.asarray(w) for w in probes.weights])

    def value(probe: int, step: float) -> float:
        try:
            return float(point(shared, step, probes.leaf[probe], probes.entry[probe]))
        except Exception:  # any kind: the function raises what it likes
            return float("nan")

    return value


def _point(call: Callable[..., Any], shared: tuple[list[Array], list[Array]], step: Any, leaf: Any, entry: Any):
    x, weights = shared
    change = tangent(weights, leaf, entry)
    return call([a + (step * c).astype(a.dtype) for a, c in zip(x, change, strict=True)])


def steps_for(inputs: Inputs, form: Any) -> np.ndarray:
    """Returns the step sizes that suit the coarsest number format among the inputs and the value's, `form`."""
    return step_sizes(form, *(leaf.dtype for leaf in inputs.leaves))


def _chunk(inputs: Inputs) -> int:
    return max(1, min(CHUNK, ELEMENTS // sum(leaf.size for leaf in inputs.leaves)))
