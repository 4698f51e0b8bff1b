"""Finite differences of functions of trees by the classical schemes, with a step chosen by the function's noise."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .sweep import CHUNK, natural_size

Scheme: TypeAlias = Literal["forward", "backward", "central", "richardson"]

STENCILS: dict[Scheme, tuple[tuple[float, float], ...]] = {
    "forward": ((0.0, -1.0), (1.0, 1.0)),
    "backward": ((-1.0, -1.0), (0.0, 1.0)),
    "central": ((-1.0, -1 / 2), (1.0, 1 / 2)),
    "richardson": ((-1.0, 1 / 6), (-0.5, -4 / 3), (0.5, 4 / 3), (1.0, -1 / 6)),
}
"""For each scheme, the points at which it evaluates the function, in steps, and the weights of the values."""

ORDERS: dict[Scheme, int] = {"forward": 1, "backward": 1, "central": 2, "richardson": 4}
"""The power of the step to which the truncation error of each scheme is proportional."""

NOISE_POINTS = 9


def noise(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]]) -> float:
    """The standard deviation of the noise in the values of `f` near `x`, of the noisiest output.

    It is computed from a table of differences of nine neighbouring values, and is at least one rounding of the value.

    Source: J. Moré, S. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011).
    """
    flat = _flat(x)
    spacing = 2.0 ** -(int(jnp.finfo(flat.dtype).nmant) // 2 + 4)
    table = _values(f, x, spacing * np.arange(NOISE_POINTS)[:, None] * _sizes(x))
    rounding = float(jnp.finfo(flat.dtype).eps) * np.max(np.abs(table[0]), initial=0.0)
    levels = []
    for order in range(1, NOISE_POINTS - 2):
        table = np.diff(table, axis=0)
        weight = math.factorial(order) ** 2 / math.factorial(2 * order)
        levels.append(math.sqrt(weight) * np.sqrt(np.mean(table**2, axis=0)))
    # Truncation falls from level to level while noise stays: the first three levels that agree are noise.
    for k in range(len(levels) - 2):
        three = np.stack(levels[k : k + 3])
        if np.all(np.max(three, axis=0) <= 4 * np.min(three, axis=0) + rounding):
            return float(max(np.max(three[0], initial=0.0), rounding))
    return float(rounding)


def best_step(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], scheme: Scheme = "central") -> float:
    """The step, relative to an entry's natural size, at which truncation error and noise are about equal:

        step = (noise / |f|)^(1 / (order + 1)),

    which holds for a function that changes by about its own value over a natural size.

    Args:
        f: The function.
        x: The point, a tree of arrays.
        scheme: The scheme, one of `STENCILS`, whose `order` is in `ORDERS`.

    Raises:
        InputError: For an unknown scheme, and for a tree without floating-point numbers.
    """
    _check_scheme(scheme)
    flat = _flat(x)
    value = np.max(np.abs(_values(f, x, np.zeros((1, flat.size)))), initial=0.0)
    relative = noise(f, x) / value if value > 0 else 0.0
    least = float(jnp.finfo(flat.dtype).eps)
    return float(2.0 ** np.round(np.log2(max(relative, least) ** (1 / (ORDERS[scheme] + 1)))))


def difference_jacobian(
    f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], scheme: Scheme = "central", step: float | None = None
) -> Float[np.ndarray, "outputs inputs"]:
    """The derivatives of all numbers of `f(x)` with respect to all numbers of `x`, a column for each input.

    Args:
        f: The function; it returns a tree of arrays.
        x: The point, a tree of arrays.
        scheme: "forward", "backward", "central" or "richardson". The default has an error of second order in the step
            for two evaluations.
        step: The step, relative to each entry's natural size; by default `best_step`.

    Raises:
        InputError: For an unknown scheme, a step that is not positive, and a tree without floating-point numbers.
    """
    sizes = _sizes(x)
    return _along_each(f, x, np.diag(sizes), scheme, _step(f, x, scheme, step)).T / sizes


def difference_gradient(
    f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], scheme: Scheme = "central", step: float | None = None
) -> PyTree[Float[Array, "..."]]:
    """The gradient of the scalar `f` at `x`, a tree like `x`; arguments as in `difference_jacobian`.

        difference_gradient(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))  # about [3, 12]

    Raises:
        InputError: As `difference_jacobian` does, and if `f` does not return one number.
    """
    rows = difference_jacobian(f, x, scheme, step)
    if rows.shape[0] != 1:
        raise InputError(f"f returns {rows.shape[0]} numbers: return one, or use difference_jacobian")
    flat, unravel = ravel_pytree(x)
    return unravel(jnp.asarray(rows[0], flat.dtype))


def difference_along(
    f: Callable[[Any], Any],
    x: PyTree[Float[Array, "..."]],
    direction: PyTree[Float[Array, "..."]],
    scheme: Scheme = "central",
    step: float | None = None,
) -> Float[np.ndarray, " outputs"]:
    """The derivative of `f` at `x` along a tree like `x`, flattened.

    Args:
        f: The function; it returns a tree of arrays.
        x: The point, a tree of arrays.
        direction: A tree like `x`.
        scheme: As in `difference_jacobian`.
        step: The step, by which `direction` is multiplied; by default `best_step`.

    Raises:
        InputError: As `difference_jacobian` does, and for a `direction` that is not like `x`.
    """
    flat = _flat(x)
    along = np.asarray(ravel_pytree(direction)[0], np.float64)
    if along.shape != flat.shape:
        raise InputError(f"direction has {along.size} numbers but x has {flat.size}: give a tree like x")
    return _along_each(f, x, along[None], scheme, _step(f, x, scheme, step))[0]


def difference_hessian(
    f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], step: float | None = None
) -> Float[np.ndarray, "inputs inputs"]:
    """The second derivatives of the scalar `f` with respect to the flattened `x`, exactly symmetric.

    They are central differences of central differences, from values of `f` alone.

    Args:
        f: The function; it returns one number.
        x: The point, a tree of arrays.
        step: The step, relative to each entry's natural size; by default the fourth root of the noise relative to the
            value.

    Raises:
        InputError: For a step that is not positive, and for a tree without floating-point numbers.
    """
    flat = _flat(x)
    step = math.sqrt(best_step(f, x, "forward")) if step is None else _step(f, x, "central", step)
    sizes = _sizes(x)
    count = flat.size
    rows, columns = np.triu_indices(count)
    eye = np.diag(sizes * step)
    first, second = (np.array(signs)[:, None, None] for signs in ([1, 1, -1, -1], [1, -1, 1, -1]))
    values = _values(f, x, first * eye[rows] + second * eye[columns])[..., 0]
    total = np.tensordot([1.0, -1.0, -1.0, 1.0], values, 1)
    hessian = np.zeros((count, count))
    hessian[rows, columns] = total / (4 * step**2 * sizes[rows] * sizes[columns])
    return hessian + np.triu(hessian, 1).T


def difference_hvp(
    f: Callable[[Any], Any],
    x: PyTree[Float[Array, "..."]],
    direction: PyTree[Float[Array, "..."]],
    scheme: Scheme = "central",
    step: float | None = None,
) -> PyTree[Float[Array, "..."]]:
    """The Hessian of the scalar `f` times a tree like `x`: a difference of reverse-mode gradients.

    Arguments and errors are those of `difference_along`.
    """
    product = difference_along(jax.grad(f), x, direction, scheme, step)
    flat, unravel = ravel_pytree(x)
    return unravel(jnp.asarray(product, flat.dtype))


def _along_each(f, x, directions, scheme: Scheme, step: float) -> np.ndarray:
    """The scheme's derivative along every row of `directions`, an array (rows, outputs)."""
    offsets, weights = np.array(STENCILS[scheme]).T
    return np.tensordot(weights, _values(f, x, offsets[:, None, None] * step * directions), 1) / step


def _values(f, x, displacements: np.ndarray) -> np.ndarray:
    """The outputs at the point plus every row of an array (..., inputs): an array (..., outputs)."""
    rows = displacements.reshape(-1, displacements.shape[-1])
    parts = [np.asarray(_values_at(f, x, rows[k : k + CHUNK]), np.float64) for k in range(0, len(rows), CHUNK)]
    return np.concatenate(parts).reshape(*displacements.shape[:-1], -1)


@eqx.filter_jit
def _values_at(f, x, rows):
    """The flattened outputs of `f` at the flattened point plus each row; compiled once for each `f` and shape."""
    flat, unravel = ravel_pytree(x)
    return jax.vmap(lambda row: ravel_pytree(f(unravel(flat + row.astype(flat.dtype))))[0])(rows)


def _flat(x: Any) -> Array:
    """The flattened point; raises InputError unless it is made of floating-point numbers."""
    flat = ravel_pytree(x)[0]
    if flat.size == 0 or not jnp.issubdtype(flat.dtype, jnp.floating):
        raise InputError(f"x has {flat.size} numbers of type {flat.dtype}: give floating-point numbers")
    return flat


def _sizes(x: Any) -> np.ndarray:
    """The natural size of every entry of the flattened point."""
    _flat(x)
    return np.concatenate([natural_size(leaf).ravel() for leaf in jax.tree.leaves(x)])


def _check_scheme(scheme: str) -> None:
    """Raises InputError for an unknown scheme."""
    if scheme not in STENCILS:
        raise InputError(f"scheme={scheme!r}: choose from {', '.join(STENCILS)}")


def _step(f, x, scheme: Scheme, step: float | None) -> float:
    """The step that is given, or else the best one."""
    _check_scheme(scheme)
    if step is None:
        return best_step(f, x, scheme)
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"step={step}: give a positive number, relative to the size of x")
    return float(step)
