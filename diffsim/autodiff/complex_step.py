"""Derivatives by a step along the imaginary axis: no difference is taken, so that no digit is lost.

Source: W. Squire, G. Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).
"""

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
"""Its square is below the rounding of 1 in either precision, and it is itself far above the smallest number."""

NOT_ANALYTIC = ("abs", "real", "imag", "conj", "sign", "is_finite", "conv_general_dilated")
"""Operations that treat a complex number as a pair of real ones, which has no complex derivative.

JAX computes convolutions from sums of real and imaginary parts, in which a small imaginary part is lost.
"""


def complex_derivative(f: Callable[[Any], Any], x: PyTree, direction: PyTree) -> Float[Array, " outputs"]:
    """The derivative of `f` at `x` along a tree like `x`, flattened, to the last digits:

        Im f(x + i h direction) / h

        complex_derivative(lambda x: jnp.sin(x), jnp.array(1.0), jnp.array(1.0))

    Args:
        f: A function that is analytic and made of operations that JAX has for complex numbers.
        x: The point, a tree of real arrays.
        direction: A tree like `x`.

    Raises:
        InputError: Where a number that depends on `x` is split into its parts or compared (abs, max, a norm, the step
            size control of a solve), with the operation and its line; and for a `direction` that is not like `x`.
    """
    return complex_derivatives(f, x)(direction)


def complex_derivatives(f: Callable[[Any], Any], x: PyTree) -> Callable[[PyTree], Float[Array, " outputs"]]:
    """The function from directions to derivatives of `f` at `x`, compiled once; see `complex_derivative`."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, x))
    flat = ravel_pytree(leaves)[0]
    complex_dtype = jnp.complex128 if flat.dtype == jnp.float64 else jnp.complex64
    call = jax.jit(lambda v: ravel_pytree(f(jax.tree.unflatten(structure, _split(v, leaves))))[0])
    try:
        closed = trace(call, flat.astype(complex_dtype))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"f does not take complex numbers ({reason}): use differences") from error
    _check_analytic(closed.jaxpr)

    def derivative(direction):
        along = ravel_pytree(direction)[0]
        if along.shape != flat.shape:
            raise InputError(f"direction has {along.size} numbers but x has {flat.size}: give a tree like x")
        return jnp.imag(call(flat.astype(complex_dtype) + 1j * STEP * along.astype(complex_dtype))) / STEP

    return derivative


def complex_gradient(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]]) -> PyTree[Float[Array, "..."]]:
    """The gradient of the scalar `f` at `x`, a tree like `x`: `complex_derivative` along each entry.

    Raises:
        InputError: As `complex_derivative` does, and if `f` does not return one number.
    """
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, x))
    derivative = complex_derivatives(f, x)
    columns = [derivative(unravel(row)) for row in jnp.eye(flat.size, dtype=flat.dtype)]
    if columns[0].shape != (1,):
        raise InputError(f"f returns {columns[0].size} numbers: return one")
    return unravel(jnp.concatenate(columns))


def _split(vector: Array, leaves: list[Array]) -> list[Array]:
    """A vector as arrays of the shapes of the leaves; of any type, unlike the inverse that `ravel_pytree` returns."""
    parts, start = [], 0
    for leaf in leaves:
        parts.append(vector[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    return parts


def _check_analytic(jaxpr: Any) -> None:
    """Raises InputError at the first operation on a complex number that has no complex derivative."""
    for equation in all_equations(jaxpr):
        complex_in, complex_out = (any(map(_is_complex, atoms)) for atoms in (equation.invars, equation.outvars))
        name = equation.primitive.name
        if complex_in and (name in NOT_ANALYTIC or not complex_out or name in ("max", "min", "clamp", "sort")):
            raise InputError(
                f"f has {name} at {source_of(equation) or 'a line of a library'}, which has no complex "
                "derivative: use differences"
            )


def _is_complex(atom: Any) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.complexfloating)
