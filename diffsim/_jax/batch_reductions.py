"""One number for all members of a batch, for the conditions of loops.

Under `vmap` the condition of a `while_loop` becomes a batch, and JAX selects between the old and the new state of every
member at every step, which copies the state. A condition that has no batch axis avoids that.
"""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._types import Flag


@jax.custom_batching.custom_vmap
def largest_of_batch(x: Int[Array, ""]) -> Int[Array, ""]:
    """Returns `x`; under `vmap` the largest of the batch, for every member, so that all members share one loop.

    For a batch without members it is the least integer; `equinox.internal.unvmap_max` raises an error there.
    """
    return x


@largest_of_batch.def_vmap
def _over(size, batched, x):
    return largest_of_batch(jnp.max(x, initial=jnp.iinfo(x.dtype).min) if batched[0] else x), False


def any_of_batch(x: Flag) -> Flag:
    """Returns `x`; under `vmap` whether it is true for any member, the same for all."""
    return eqxi.unvmap_any(x)
