"""Stages that look at a pixel's surroundings, computed strip by strip, so that what lies between stays in the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .adjoint import Function, with_adjoint
from .box import fill, held

ROWS = 64  # of a strip, at most
Part = Callable[[Array, Float[Array, "c rows w"], Float[Array, " rows"]], Array]


def in_strips(part: Part, halo: int) -> Function:
    """`function(parameters, picture)` from what makes one strip of it, differentiable in both.

    `part(parameters, rows, inside)` gets `halo` rows more above and below than it makes; beyond the picture they are
    0, and so is `inside`, else 1. The adjoint computes every strip again and adds up what the strips pull back.
    """

    def function(parameters, picture):
        rows, inside, starts, size = _cut(picture, halo)

        def step(done, at):
            found = part(parameters, *_strip(rows, inside, at, size + 2 * halo))
            return lax.dynamic_update_slice_in_dim(done, held(found), at, axis=1), None

        start = jnp.zeros((picture.shape[0], starts.size * size, picture.shape[2]), picture.dtype)
        return held(lax.scan(step, start, starts)[0])[:, : picture.shape[1]]

    def adjoint(parameters, picture, cotangent):
        rows, inside, starts, size = _cut(picture, halo)
        height = picture.shape[1]
        cotangent = fill(cotangent, 0, starts.size * size - height, 1)

        def step(sums, at):
            strip, within = _strip(rows, inside, at, size + 2 * halo)
            _, pull = jax.vjp(lambda p, x: part(p, x, within), parameters, strip)
            to_parameters, to_strip = pull(held(lax.dynamic_slice_in_dim(cotangent, at, size, axis=1)))
            before = held(lax.dynamic_slice_in_dim(sums[1], at, size + 2 * halo, axis=1))
            after = lax.dynamic_update_slice_in_dim(sums[1], held(before + to_strip), at, axis=1)
            return (sums[0] + to_parameters, after), None

        zeros = (jnp.zeros_like(parameters), jnp.zeros_like(rows))
        to_parameters, to_rows = held(lax.scan(step, zeros, starts)[0])
        return to_parameters, to_rows[:, halo : halo + height]

    function.__name__ = part.__name__
    return with_adjoint(function, adjoint)


def _cut(picture, halo: int):
    """The picture with zeros above and below, 1 for its own rows, the first row of every strip, rows of a strip."""
    height = picture.shape[1]
    count = -(-height // ROWS)
    size = -(-height // count)
    after = halo + count * size - height
    inside = jnp.pad(jnp.ones(height, picture.dtype), (halo, after))
    return fill(picture, halo, after, 1), inside, size * jnp.arange(count), size


def _strip(rows, inside, at, size: int):
    return held(lax.dynamic_slice_in_dim(rows, at, size, axis=1)), lax.dynamic_slice_in_dim(inside, at, size)
