"""Stages that treat every pixel alone, computed strip by strip, forward and back.

The gradient of a parameter of such a stage is a sum over all pixels. Over the whole picture it reads the picture from
memory once for every parameter; over a strip, from the cache.
"""

from collections.abc import Callable
from functools import cache, wraps

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .adjoint import with_adjoint
from .box import room
from .strips import starts

STRIP = 2**14  # pixels of a strip


def by_strips(call: Callable[..., Array]) -> Callable[..., Array]:
    """The method `call(stage, picture)` of a stage for pixels alone, computed in strips of whole rows.

    Its picture has the shape of the one that it gets.
    """

    @wraps(call)
    def strips(stage, picture):
        if picture.shape[1] < 2 * _rows(picture):
            return call(stage, picture)
        leaves, structure = jax.tree.flatten(stage)
        numbers = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
        return _strips(call, structure, tuple(map(jnp.shape, leaves)))(numbers, picture)

    return strips


def _rows(picture) -> int:
    return max(1, STRIP // picture.shape[2])


@cache
def _strips(call, structure, shapes):
    """`function(numbers, picture)` of a stage whose leaves have these shapes, with its adjoint."""
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])

    def stage(numbers, part):
        leaves = [x.reshape(s) for x, s in zip(jnp.split(numbers, ends[:-1]), shapes, strict=True)]
        return call(jax.tree.unflatten(structure, leaves), part)

    def backward(picture):
        """Where strips would begin and where they do, the last one first: others write over what is not its own."""
        wanted, begun = starts(picture.shape[1], _rows(picture))
        return wanted[::-1], begun[::-1]

    def function(numbers, picture):
        def strip(made, at):
            part = lax.dynamic_slice_in_dim(picture, at, _rows(picture), axis=1)
            return lax.dynamic_update_slice_in_dim(made, stage(numbers, part), at, axis=1), None

        return lax.scan(strip, room(picture), backward(picture)[1])[0]

    def adjoint(numbers, picture, cotangent):
        rows = _rows(picture)

        def strip(made, at):
            wanted, start = at
            part, bar = (lax.dynamic_slice_in_dim(x, start, rows, axis=1) for x in (picture, cotangent))
            own = (start + np.arange(rows) >= wanted)[None, :, None]
            to_numbers, found = jax.vjp(stage, numbers, part)[1](bar * own)
            return (made[0] + to_numbers, lax.dynamic_update_slice_in_dim(made[1], found, start, axis=1)), None

        return lax.scan(strip, (jnp.zeros_like(numbers), room(cotangent)), backward(picture))[0]

    function.__name__ = call.__qualname__
    return with_adjoint(function, adjoint)
