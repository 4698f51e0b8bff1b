"""Variance stabilization: a square root under which shot noise has about one variance, and its inverse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..values import check_floating

ROUND = 0.01  # below which the root is about linear, as a fraction of white


@jax.custom_jvp
def stabilize_variance(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the Anscombe-like square root x / (x^2 + 0.01^2)^(1/4), about sign(x) sqrt(|x|) and smooth at 0.

    Shot noise, whose variance grows with the signal, has about the same variance everywhere in the result.

    Examples:
        >>> print(ds.image.stabilize_variance(jnp.array([-0.25, 0.0, 0.25, 1.0])).round(2))
        [-0.5  0.   0.5  1. ]
    """
    check_floating(x)
    return x / jnp.sqrt(jnp.sqrt(x**2 + ROUND**2))


@jax.custom_jvp
def unstabilize_variance(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the inverse of `stabilize_variance`.

    Examples:
        >>> x = jnp.array([-0.25, 0.0, 0.25, 1.0])
        >>> bool(jnp.allclose(ds.image.unstabilize_variance(ds.image.stabilize_variance(x)), x))
        True
    """
    check_floating(y)
    return y * jnp.sqrt(0.5 * (y**2 + jnp.sqrt(y**4 + 4.0 * ROUND**2)))


def _slope(x):
    """The derivative of the root; automatic differentiation would store a picture for every operation."""
    squares = x**2 + ROUND**2
    return (0.5 * x**2 + ROUND**2) / (squares * jnp.sqrt(jnp.sqrt(squares)))


stabilize_variance.defjvps(lambda tangent, root, x: tangent * _slope(x))
unstabilize_variance.defjvps(lambda tangent, square, y: tangent / _slope(square))
