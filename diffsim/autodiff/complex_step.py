"""Derivatives by a step along the imaginary axis: no difference is taken, so no digit is lost."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._jax.equations import all_equations
from .._jax.program import trace
from .._jax.source_lines import source_of

STEP = 2.0**-66
"""Its square is lost beside 1 in either precision, and itself is far from the smallest number."""

BREAKERS = ("abs", "real", "imag", "conj", "sign", "is_finite", "conv_general_dilated")
"""Operations that treat a complex number as a pair of real ones, which has no complex derivative.

jax computes convolutions from sums of real and imaginary parts, in which a small one is lost.
"""


def complex_derivative(f: Callable[[Any], Any], x: PyTree, direction: PyTree) -> Float[Array, " outputs"]:
    """Returns the derivative of `f` at `x` along a tree like `x`, flattened: Im f(x + i h direction) / h.

    To the last digits, where `f` is analytic and made of operations that jax has for complex numbers. After
    W. Squire and G. Trapp, SIAM Review 40 (1998). Raises InputError, with the operation and its line, where a
    number that depends on `x` is split into its parts or compared (abs, max, a norm, an ODE's step control).
    """
    return complex_derivatives(f, x)(direction)


def complex_derivatives(f: Callable[[Any], Any], x: PyTree) -> Callable[[PyTree], Float[Array, " outputs"]]:
    """Returns the function from directions to derivatives of `f` at `x`, compiled once; see `complex_derivative`."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, x))
    flat = ravel_pytree(leaves)[0]
    wide = jnp.complex128 if flat.dtype == jnp.float64 else jnp.complex64
    call = jax.jit(lambda v: ravel_pytree(f(jax.tree.unflatten(structure, _parts(v, leaves))))[0])
    try:
        closed = trace(call, flat.astype(wide))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"f does not take complex numbers ({reason}): use differences") from error
    _refuse(closed.jaxpr)

    def derivative(direction):
        along = ravel_pytree(direction)[0]
        if along.shape != flat.shape:
            raise InputError(f"direction has {along.size} numbers but x has {flat.size}: give a tree like x")
        return jnp.imag(call(flat.astype(wide) + 1j * STEP * along.astype(wide))) / STEP

    return derivative


def complex_gradient(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]]) -> PyTree[Float[Array, "..."]]:
    """Returns the gradient of the scalar `f` at `x`, a tree like `x`; as `complex_derivative`, entry by entry."""
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, x))
    derivative = complex_derivatives(f, x)
    columns = [derivative(unravel(row)) for row in jnp.eye(flat.size, dtype=flat.dtype)]
    if columns[0].shape != (1,):
        raise InputError(f"f returns {columns[0].size} numbers: return one")
    return unravel(jnp.concatenate(columns))


def _parts(vector: Array, leaves: list[Array]) -> list[Array]:
    parts, start = [], 0
    for leaf in leaves:
        parts.append(vector[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    return parts


def _refuse(jaxpr: Any) -> None:
    """Raises InputError at the first operation on a complex number that has no complex derivative."""
    for equation in all_equations(jaxpr):
        complex_in, complex_out = (any(map(_is_complex, atoms)) for atoms in (equation.invars, equation.outvars))
        name = equation.primitive.name
        if complex_in and (name in BREAKERS or not complex_out or name in ("max", "min", "clamp", "sort")):
            raise InputError(
                f"f has {name} at {source_of(equation) or 'a line of a library'}, which has no complex "
                "derivative: use differences"
            )


def _is_complex(atom: Any) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.complexfloating)
