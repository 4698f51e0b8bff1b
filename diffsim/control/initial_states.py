"""First states for the updates of a training."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .._errors import InputError


def draw_starts(
    key: PRNGKeyArray,
    updates: int,
    batch: int,
    near: ArrayLike,
    wide: ArrayLike,
    *,
    share: float = 0.5,
    around: ArrayLike = 0.0,
) -> Float[Array, "updates batch n"]:
    """First states for every update, of shape (updates, batch, n): most like a task's own, some from anywhere.

    Each part is uniform: within `around` +- `near` as the task begins, and for a `share` of every batch within
    +- `wide`, which shows the network where it does not come by itself. `near` and `wide` are n numbers each, in the
    units of the state.

    Raises InputError for sizes below one, shares outside 0 to 1, and `near` and `wide` that differ in length.
    """
    if updates < 1 or batch < 1 or not 0 <= share <= 1:
        raise InputError(f"updates={updates}, batch={batch}, share={share}: give sizes from 1, a share from 0 to 1")
    near, wide = jnp.asarray(near, float), jnp.asarray(wide, float)
    if near.ndim != 1 or near.shape != wide.shape:
        raise InputError(f"near has shape {near.shape}, wide {wide.shape}: give one number for each part of the state")
    middle = jnp.broadcast_to(jnp.asarray(around, float), near.shape)
    return _draw(key, jnp.arange(batch) < share * batch, near, wide, middle, updates)


@functools.partial(jax.jit, static_argnames="updates")
def _draw(key, from_anywhere, near, wide, middle, updates: int):
    """The starts; compiled in one piece, which takes less time than its operations one by one."""
    parts = jr.uniform(key, (updates, from_anywhere.size, near.size), minval=-1.0, maxval=1.0)
    choose = lambda anywhere, part: jnp.where(anywhere, wide * part, middle + near * part)
    return jax.vmap(jax.vmap(choose), in_axes=(None, 0))(from_anywhere, parts)
