"""Functions whose derivatives are finite where those of the mathematical functions are not.

Values and derivatives are those of the mathematical functions, except at the arguments that each docstring names. The
functions replace such an argument before they compute with it, since in the backward pass a later choice would multiply
an infinite derivative by zero. NaN stays NaN, in value and derivative, so that a failure remains visible.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

Real = Float[ArrayLike, "..."]


def sqrt(x: Real) -> Float[Array, "..."]:
    """The square root; 0 with derivative 0 for x <= 0."""
    outside = jnp.asarray(x) <= 0
    return jnp.where(outside, 0.0, jnp.sqrt(jnp.where(outside, 1.0, x)))


def norm(x: Real, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Float[Array, "..."]:
    """The Euclidean norm; its derivative at the zero vector is 0, the subgradient of least norm.

    Args:
        x: An array.
        axis: The axes over which the norm is taken; by default all.
        keepdims: Whether these axes remain, with length 1.
    """
    return sqrt(jnp.sum(jnp.square(jnp.asarray(x)), axis=axis, keepdims=keepdims))


def atan2(y: Real, x: Real) -> Float[Array, "..."]:
    """The angle of the point (x, y) in rad; 0 with derivatives 0 at the origin, where no angle is defined."""
    y, x = jnp.broadcast_arrays(jnp.asarray(y), jnp.asarray(x))
    origin = (x == 0) & (y == 0)
    return jnp.where(origin, 0.0, jnp.arctan2(jnp.where(origin, 0.0, y), jnp.where(origin, 1.0, x)))


def power(x: Real, exponent: Real) -> Float[Array, "..."]:
    """`x ** exponent` for x > 0, and 0 with derivatives 0 for x <= 0."""
    x, exponent = jnp.broadcast_arrays(jnp.asarray(x), jnp.asarray(exponent))
    outside = x <= 0
    return jnp.where(outside, 0.0, jnp.power(jnp.where(outside, 1.0, x), exponent))


def log(x: Real, floor: float = 1e-30) -> Float[Array, "..."]:
    """The natural logarithm for x > floor, and log(floor) with derivative 0 for x <= floor."""
    return jnp.log(jnp.where(jnp.asarray(x) <= floor, floor, x))


def divide(numerator: Real, denominator: Real) -> Float[Array, "..."]:
    """The quotient; 0 with derivatives 0 where the denominator is 0."""
    numerator, denominator = jnp.broadcast_arrays(jnp.asarray(numerator), jnp.asarray(denominator))
    defined = denominator != 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), 0.0)
