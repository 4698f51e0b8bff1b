"""Functions whose derivatives are finite where those of the mathematical functions are not.

Values and derivatives are those of the mathematical functions, except at the arguments that each docstring names. The
functions replace such an argument before they compute with it, since in the backward pass a later choice would multiply
an infinite derivative by zero. NaN stays NaN, in value and derivative, so that a failure remains visible.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

Real = Float[ArrayLike, "..."]


def sqrt(x: Real) -> Float[Array, "..."]:
    """The square root; 0 with derivative 0 for x <= 0.

    Examples:
        >>> x = jnp.array([4.0, 0.0])
        >>> ds.safe.sqrt(x).tolist(), jax.vmap(jax.grad(ds.safe.sqrt))(x).tolist()
        ([2.0, 0.0], [0.25, 0.0])
    """
    outside = jnp.asarray(x) <= 0
    return jnp.where(outside, 0.0, jnp.sqrt(jnp.where(outside, 1.0, x)))


def norm(x: Real, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Float[Array, "..."]:
    """The Euclidean norm; its derivative at the zero vector is 0, the subgradient of least norm.

    Args:
        x: An array.
        axis: The axes over which the norm is taken; by default all.
        keepdims: Whether these axes remain, with length 1.

    Examples:
        >>> print(jax.grad(ds.safe.norm)(jnp.array([3.0, 4.0])).round(3), jax.grad(ds.safe.norm)(jnp.zeros(2)))
        [0.6 0.8] [0. 0.]
    """
    return sqrt(jnp.sum(jnp.square(jnp.asarray(x)), axis=axis, keepdims=keepdims))


def atan2(y: Real, x: Real) -> Float[Array, "..."]:
    """The angle of the point (x, y) in rad; 0 with derivatives 0 at the origin, where no angle is defined.

    Examples:
        >>> print(f"{ds.safe.atan2(1.0, 1.0):.4f}", float(jax.grad(ds.safe.atan2)(0.0, 0.0)))
        0.7854 0.0
    """
    y, x = jnp.broadcast_arrays(jnp.asarray(y), jnp.asarray(x))
    origin = (x == 0) & (y == 0)
    return jnp.where(origin, 0.0, jnp.arctan2(jnp.where(origin, 0.0, y), jnp.where(origin, 1.0, x)))


def power(x: Real, exponent: Real) -> Float[Array, "..."]:
    """`x ** exponent` for x > 0, and 0 with derivatives 0 for x <= 0.

    Examples:
        >>> float(ds.safe.power(4.0, 1.5)), float(jax.grad(ds.safe.power)(0.0, 0.5))
        (8.0, 0.0)
    """
    x, exponent = jnp.broadcast_arrays(jnp.asarray(x), jnp.asarray(exponent))
    outside = x <= 0
    return jnp.where(outside, 0.0, jnp.power(jnp.where(outside, 1.0, x), exponent))


def log(x: Real, floor: float = 1e-30) -> Float[Array, "..."]:
    """The natural logarithm for x > floor, and log(floor) with derivative 0 for x <= floor.

    Examples:
        >>> [round(float(ds.safe.log(x, floor=1e-6)), 3) for x in (1.0, 0.0)], float(jax.grad(ds.safe.log)(0.0))
        ([0.0, -13.816], 0.0)
    """
    return jnp.log(jnp.where(jnp.asarray(x) <= floor, floor, x))


def divide(numerator: Real, denominator: Real) -> Float[Array, "..."]:
    """The quotient; 0 with derivatives 0 where the denominator is 0.

    Examples:
        >>> ds.safe.divide(jnp.ones(2), jnp.array([4.0, 0.0])).tolist(), float(jax.grad(ds.safe.divide, 1)(1.0, 0.0))
        ([0.25, 0.0], 0.0)
    """
    numerator, denominator = jnp.broadcast_arrays(jnp.asarray(numerator), jnp.asarray(denominator))
    defined = denominator != 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), 0.0)
