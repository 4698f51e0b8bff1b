"""A value and its Jacobian from one evaluation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Vector


def value_and_jacobian(function: Callable[[Vector], PyTree], x: Vector) -> tuple[PyTree[Array], PyTree[Array]]:
    """`function(x)` and its Jacobian by forward mode: arrays like those of the value, with a last axis like `x`.

    The function is evaluated once, with a tangent for each number of `x`.
    """
    column = lambda direction: jax.jvp(function, (x,), (direction,))
    if x.size == 1:
        # Without a batch there is less to trace and compile.
        value, derivative = column(jnp.ones_like(x))
        return value, jax.tree.map(lambda c: c[..., None], derivative)
    return jax.vmap(column, out_axes=(None, -1))(jnp.diag(jnp.ones_like(x)))
