"""Stages that look at a pixel's surroundings, computed strip by strip, so that what lies between stays in the cache."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .adjoint import Function, with_adjoint
from .box import held

ROWS = 64  # of a strip, at most
Adjoint = Callable[[Array, Array, Array], tuple[Array, Array]]


def in_strips(stage: Function, adjoint: Adjoint, halo: int) -> Function:
    """`stage(parameter, picture)`, strip by strip, which reverse mode pulls back by `adjoint`, strip by strip as well.

    No pixel of either depends on others more than `halo` rows away. `adjoint(parameter, picture, cotangent)` gives the
    plane (h, w) whose sum is the cotangent of the parameter, a number, and the cotangent of the picture.
    """

    def function(parameter, picture):
        def step(made, i):
            start, inside, cut = _strip(picture, halo, i)
            found = lax.dynamic_slice_in_dim(stage(parameter, cut(picture)), inside, _rows(picture), axis=1)
            return lax.dynamic_update_slice_in_dim(made, held(found), start, axis=1), None

        return lax.scan(step, jnp.zeros_like(picture), jnp.arange(_count(picture)))[0]

    def back(parameter, picture, cotangent):
        def step(sums, i):
            start, inside, cut = _strip(picture, halo, i)
            plane, found = (held(x) for x in adjoint(parameter, cut(picture), cut(cotangent)))
            row = start - inside + jnp.arange(plane.shape[0])
            # The last strip begins earlier than it need: what was summed is not summed again.
            own = (row >= i * _rows(picture)) & (row < start + _rows(picture))
            found = held(lax.dynamic_slice_in_dim(found, inside, _rows(picture), axis=1))
            whole = lax.dynamic_update_slice_in_dim(sums[1], found, start, axis=1)
            return (sums[0] + own.astype(plane.dtype) @ plane, whole), None

        start = (jnp.zeros(picture.shape[2], picture.dtype), jnp.zeros_like(picture))
        columns, to_picture = lax.scan(step, start, jnp.arange(_count(picture)))[0]
        return jnp.sum(columns), to_picture

    function.__name__ = stage.__name__
    return with_adjoint(function, back)


def _count(picture) -> int:
    return -(-picture.shape[1] // ROWS)


def _rows(picture) -> int:
    """The rows of a strip; of the last one, some may be in the one before too."""
    return -(-picture.shape[1] // _count(picture))


def _strip(picture, halo: int, i):
    """The first row of strip i, its place among the rows with the halo, and what cuts these rows out of a picture.

    At the picture's edges the halo is moved inward: their edge is then the picture's.
    """
    height, rows = picture.shape[1], _rows(picture)
    size = min(rows + 2 * halo, height)
    start = jnp.minimum(i * rows, height - rows)
    first = jnp.clip(start - halo, 0, height - size)
    return start, start - first, lambda x: held(lax.dynamic_slice_in_dim(x, first, size, axis=1))
