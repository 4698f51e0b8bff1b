"""Functions whose derivatives stay finite where the mathematical ones do not, each with its convention.

Values are those of the plain functions, except where a convention says otherwise; derivatives as well. Each
chooses its argument before it computes, so that no infinity meets a zero in the backward pass.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

Real = Float[ArrayLike, "..."]


def sqrt(x: Real) -> Float[Array, "..."]:
    """Returns the square root; 0 with derivative 0 for x <= 0."""
    good = jnp.asarray(x) > 0
    return jnp.where(good, jnp.sqrt(jnp.where(good, x, 1.0)), 0.0)


def norm(x: Real, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Float[Array, "..."]:
    """Returns the Euclidean norm; derivative 0 at the zero vector (the least of its subgradients)."""
    return sqrt(jnp.sum(jnp.square(jnp.asarray(x)), axis=axis, keepdims=keepdims))


def atan2(y: Real, x: Real) -> Float[Array, "..."]:
    """Returns the angle of (x, y); 0 with derivatives 0 at the origin, where no angle is defined."""
    y, x = jnp.broadcast_arrays(jnp.asarray(y), jnp.asarray(x))
    origin = (x == 0) & (y == 0)
    return jnp.where(origin, 0.0, jnp.arctan2(jnp.where(origin, 0.0, y), jnp.where(origin, 1.0, x)))


def power(x: Real, exponent: Real) -> Float[Array, "..."]:
    """Returns x ** exponent for x > 0, and 0 with derivatives 0 for x <= 0."""
    x, exponent = jnp.broadcast_arrays(jnp.asarray(x), jnp.asarray(exponent))
    good = x > 0
    return jnp.where(good, jnp.power(jnp.where(good, x, 1.0), exponent), 0.0)


def log(x: Real, floor: float = 1e-30) -> Float[Array, "..."]:
    """Returns log(x); log(floor) with derivative 0 for x <= floor."""
    good = jnp.asarray(x) > floor
    return jnp.log(jnp.where(good, x, floor))


def divide(numerator: Real, denominator: Real) -> Float[Array, "..."]:
    """Returns the quotient; 0 with derivatives 0 where the denominator is 0."""
    numerator, denominator = jnp.broadcast_arrays(jnp.asarray(numerator), jnp.asarray(denominator))
    good = denominator != 0
    return jnp.where(good, numerator / jnp.where(good, denominator, 1.0), 0.0)
