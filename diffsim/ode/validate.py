"""Checks of states and vector fields, made once when a solve is traced."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._errors import InputError
from .._types import Args, Scalar, State


def check_state(y0) -> State:
    """The state as arrays; raises InputError, naming the leaf, if it is empty or not real."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(y0)
    if not leaves:
        raise InputError("y0 has no arrays: give at least one state")
    arrays = []
    for path, leaf in leaves:
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            name = f"y0{jax.tree_util.keystr(path)}"
            raise InputError(f"{name} has dtype {array.dtype}: states are real; write 1.0 for 1")
        arrays.append(jax.lax.convert_element_type(array, array.dtype))
    if len({array.dtype for array in arrays}) > 1:
        formats = ", ".join(
            f"y0{jax.tree_util.keystr(path)} {a.dtype}" for (path, _), a in zip(leaves, arrays, strict=True)
        )
        raise InputError(f"the state mixes number formats ({formats}): convert its leaves to one")
    return jax.tree.unflatten(tree, arrays)


def check_field(vector_field: Callable, t0: Scalar, y0: State, args: Args) -> None:
    """Raises InputError if the vector field does not return the structure, shapes and dtypes of the state."""
    slope = jax.eval_shape(lambda t, y: vector_field(t, y, args), t0, y0)
    if jax.tree.structure(slope) != jax.tree.structure(y0):
        raise InputError(
            f"the vector field returned {jax.tree.structure(slope)} for a state {jax.tree.structure(y0)}: "
            "return dy/dt in the structure of y0"
        )
    for (path, y), f in zip(jax.tree_util.tree_leaves_with_path(y0), jax.tree.leaves(slope), strict=True):
        if y.shape != f.shape or y.dtype != f.dtype:
            raise InputError(
                f"the vector field returned {f.dtype}{list(f.shape)} for y0{jax.tree_util.keystr(path)}, "
                f"which is {y.dtype}{list(y.shape)}: shapes and dtypes must agree"
            )
