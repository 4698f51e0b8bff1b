"""Stages that treat every pixel alone, computed strip by strip.

The gradient of a parameter of such a stage is a sum over all pixels. Over the whole picture it reads the picture from
memory once for every parameter; over a strip, from the cache.
"""

from collections.abc import Callable
from functools import wraps

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

STRIP = 2**14  # pixels of a strip


def by_strips(call: Callable[..., Array]) -> Callable[..., Array]:
    """The method `call(stage, picture)` of a stage for pixels alone, computed in strips of whole rows."""

    @wraps(call)
    def strips(stage, picture):
        _, height, width = picture.shape
        rows = max(1, STRIP // width)
        count = height // rows
        if count < 2:
            return call(stage, picture)

        def part(_, at):
            return None, call(stage, lax.dynamic_slice_in_dim(picture, at, rows, axis=1))

        # Intermediate values are cheaper to compute again than to keep.
        _, done = lax.scan(eqx.filter_checkpoint(part), None, rows * jnp.arange(count))
        done = jnp.moveaxis(done, 0, 1).reshape(done.shape[1], count * rows, width)
        rest = picture[:, count * rows :]
        return jnp.concatenate([done, call(stage, rest)], axis=1) if rest.shape[1] else done

    return strips
