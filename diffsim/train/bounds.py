"""The bounds of a model's parameters, entry by entry."""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._trees import path_name
from .._types import Model
from ..parameters import parameters


def flat_bounds(model: Model) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The lower and upper bound of each entry of a model, in the order of `ravel_pytree`."""
    entries = parameters(model).values()
    sides = ([np.full(np.shape(entry.value), entry.bounds[side]).ravel() for entry in entries] for side in (0, 1))
    low, high = (np.concatenate([np.zeros(0), *side]) for side in sides)
    return low, high


def is_at_bound(model: Model) -> PyTree[Bool[Array, "..."] | bool]:
    """A tree that tells which entries of the parameters lie exactly on a bound; False for all other leaves."""
    known = parameters(model)

    def leaf(path, x):
        entry = known.get(path_name(path))
        return False if entry is None else (x <= entry.bounds[0]) | (x >= entry.bounds[1])

    return jax.tree_util.tree_map_with_path(leaf, model)
