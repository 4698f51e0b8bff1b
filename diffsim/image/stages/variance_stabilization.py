"""A square root that makes shot noise about equally strong everywhere, and its inverse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..values import check_floating

ROUND = 0.01  # where the root turns straight, as a fraction of white


@jax.custom_jvp
def root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """About sign(x) sqrt(|x|), smooth at 0: shot noise is about equally strong all over it. `square` undoes it."""
    check_floating(x)
    return x / jnp.sqrt(jnp.sqrt(x**2 + ROUND**2))


@jax.custom_jvp
def square(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of `root`."""
    check_floating(y)
    return y * jnp.sqrt(0.5 * (y**2 + jnp.sqrt(y**4 + 4.0 * ROUND**2)))


def _slope(x):
    """The derivative of the root: by rule, a picture would be kept for every operation."""
    squares = x**2 + ROUND**2
    return (0.5 * x**2 + ROUND**2) / (squares * jnp.sqrt(jnp.sqrt(squares)))


root.defjvps(lambda tangent, found, x: tangent * _slope(x))
square.defjvps(lambda tangent, found, y: tangent / _slope(found))
