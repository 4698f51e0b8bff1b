"""One number for all members of a batch, so that what depends on it is done once."""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._types import Flag


@jax.custom_batching.custom_vmap
def largest_of_batch(x: Int[Array, ""]) -> Int[Array, ""]:
    """`x`; under `vmap` the largest of the batch, the same for each member, so that a loop over it is one loop.

    Of a batch without members the least integer there is. `equinox.internal.unvmap_max` raises there.
    """
    return x


@largest_of_batch.def_vmap
def _over(size, batched, x):
    return largest_of_batch(jnp.max(x, initial=jnp.iinfo(x.dtype).min) if batched[0] else x), False


def any_of_batch(x: Flag) -> Flag:
    """`x`; under `vmap` whether it is true for any member, the same for each."""
    return eqxi.unvmap_any(x)
