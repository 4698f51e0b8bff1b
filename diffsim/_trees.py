"""Trees of arrays: paths, shapes and kinds of leaves, and leading axes that count the same things."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._errors import InputError


def path_name(path) -> str:
    """The path of a leaf as text, as in `policy.layers.0.weight`; empty for a tree that is one leaf."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def shape_text(shape: Iterable[int]) -> str:
    """A shape as text, as in 2x3; empty for a scalar."""
    return "x".join(map(str, shape))


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of random keys, or describes one."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_real_array(leaf: Any) -> bool:
    """Whether a leaf is an array of real numbers, of JAX or of NumPy."""
    return eqx.is_inexact_array(leaf) and not jnp.iscomplexobj(leaf)


def common_length(tree: PyTree, what: str) -> int | None:
    """The length of the leading axis that all arrays of a tree share; None if it has none.

    Raises InputError, saying that `what` must count the same, if they differ, are scalars or are empty.
    """
    lengths = [jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(tree)]
    if lengths and (min(lengths) < 1 or max(lengths) != min(lengths)):
        raise InputError(f"{what} must have one leading axis of the same length: found lengths {sorted(set(lengths))}")
    return lengths[0] if lengths else None
