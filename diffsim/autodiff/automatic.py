"""Automatic derivatives in the cheaper of the two modes: Jacobians, Hessians, and products with them."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError

Mode = Literal["forward", "reverse"]


def cheaper_mode(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]]) -> Mode:
    """The mode with fewer passes: forward mode takes one for each input of `f`, reverse mode one for each output."""
    inputs = sum(jnp.size(leaf) for leaf in jax.tree.leaves(x))
    outputs = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(f, x)))
    return "forward" if inputs <= outputs else "reverse"


def jacobian(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], mode: Mode | None = None) -> Any:
    """The derivatives of `f(x)` with respect to `x`, nested as `jax.jacfwd` nests them.

    Args:
        f: The function.
        x: The point, a tree of arrays.
        mode: "forward" or "reverse"; by default the cheaper one.

    Raises:
        InputError: For another `mode`.
    """
    mode = cheaper_mode(f, x) if mode is None else mode
    if mode not in ("forward", "reverse"):
        raise InputError(f"mode={mode!r}: choose 'forward' or 'reverse', or None for the cheaper")
    return (jax.jacfwd if mode == "forward" else jax.jacrev)(f)(x)


def hessian(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]]) -> Float[Array, "inputs inputs"]:
    """The second derivatives of the scalar `f` with respect to the flattened `x`: forward mode over reverse mode.

    A row costs a gradient and a half. Reverse mode over reverse mode would also store the values of the inner one.
    """
    flat, unravel = ravel_pytree(x)
    return jax.jacfwd(jax.grad(lambda v: f(unravel(v))))(flat)


def hvp(f: Callable[[Any], Any], x: PyTree[Float[Array, "..."]], direction: PyTree) -> PyTree[Float[Array, "..."]]:
    """The Hessian of the scalar `f` at `x` times a tree like `x`, at the cost of a few gradients.

    The Hessian is never formed: its product with `direction` is the tangent of the gradient along it.

    Raises:
        InputError: If `direction` is not a tree like `x`.
    """
    if jax.tree.map(jnp.shape, x) != jax.tree.map(jnp.shape, direction):
        raise InputError(f"direction has shapes {jax.tree.map(jnp.shape, direction)}: give a tree like x")
    direction = jax.tree.map(lambda d, a: jnp.asarray(d, jnp.result_type(a)), direction, x)
    return jax.jvp(jax.grad(f), (x,), (direction,))[1]
