"""Random initial states for the training of a policy."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .._errors import InputError


def sample_initial_states(
    key: PRNGKeyArray,
    updates: int,
    batch_size: int,
    half_width: ArrayLike,
    wide_half_width: ArrayLike,
    *,
    wide_fraction: float = 0.5,
    center: ArrayLike = 0.0,
) -> Float[Array, "updates batch_size n"]:
    """Random initial states for every update, shape (updates, batch_size, n).

    Each component is uniform. The first `wide_fraction` of each batch is from -`wide_half_width` to `wide_half_width`,
    so that the policy also learns from states that it does not reach by itself. The others are initial states of the
    task, from `center` - `half_width` to `center` + `half_width`.

    Args:
        key: The random key.
        updates: The number of updates of the training.
        batch_size: The number of states of each update.
        half_width: Half the range of the task's initial states, n numbers in the units of the state.
        wide_half_width: Half the range of the wide states, n numbers in the units of the state.
        wide_fraction: The fraction of wide states in each batch, from 0 to 1.
        center: The middle of the task's initial states, one number or n.

    Raises:
        InputError: For sizes below 1, a fraction outside 0 to 1, and widths that differ in length.

    Examples:
        >>> starts = ds.control.sample_initial_states(jr.key(0), 1000, 32, [0.05] * 4, [1.0, 1.0, 0.2, 1.0])
        >>> starts.shape, bool(jnp.all(abs(starts[:, 16:]) <= 0.05)), bool(jnp.all(abs(starts[..., 2]) <= 0.2))
        ((1000, 32, 4), True, True)
    """
    if updates < 1 or batch_size < 1 or not 0 <= wide_fraction <= 1:
        arguments = f"updates={updates}, batch_size={batch_size}, wide_fraction={wide_fraction}"
        raise InputError(f"{arguments}: give sizes from 1, a fraction from 0 to 1")
    near, wide = jnp.asarray(half_width, float), jnp.asarray(wide_half_width, float)
    if near.ndim != 1 or near.shape != wide.shape:
        shapes = f"half_width has shape {near.shape}, wide_half_width {wide.shape}"
        raise InputError(f"{shapes}: give one number for each component of the state")
    center = jnp.broadcast_to(jnp.asarray(center, float), near.shape)
    return _sample(key, jnp.arange(batch_size) < wide_fraction * batch_size, near, wide, center, updates)


# One compiled program takes less time to compile than its operations one by one.
@functools.partial(jax.jit, static_argnames="updates")
def _sample(key, is_wide, near, wide, center, updates: int):
    """The states; `is_wide`, shape (batch_size,), says which of each batch are wide."""
    uniform = jr.uniform(key, (updates, is_wide.size, near.size), minval=-1.0, maxval=1.0)
    state = lambda is_wide, uniform: jnp.where(is_wide, wide * uniform, center + near * uniform)
    return jax.vmap(jax.vmap(state), in_axes=(None, 0))(is_wide, uniform)
