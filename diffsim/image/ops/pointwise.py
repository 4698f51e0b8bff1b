"""Stages that treat every pixel alone, whose adjoint goes through the picture once, strip by strip.

The gradient of a parameter of such a stage is a sum over all pixels, and additions to one number wait for each other.
So every place within a strip has parameters of its own, to whose gradients all strips add, in wide registers; the
places are added up at the end.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..._jax.buffers import materialize, output_buffer
from ..._jax.custom_transpose import Function, with_adjoint
from ..values import check_floating
from .tiling import for_each_tile, not_repeated

STRIP = 2**13  # pixels of a strip
ROWS = 8  # rows that are added up at once, in registers

Pixel = Callable[[Sequence[Array], Sequence[Array]], list[Array]]


def by_strips(pixel: Pixel) -> Function:
    """`function(numbers, picture)`: the planes that `pixel(numbers, planes)` makes of those of a picture.

    `pixel` gets the numbers one by one, as scalars or with a value for every place of the planes.
    """

    def function(numbers, picture):
        # Once for all planes: each of this stage's would compute again all that the stages before make of a pixel.
        return jnp.stack(pixel(tuple(numbers), tuple(materialize(picture))))

    def adjoint(numbers, picture, cotangent):
        planes, bars = (x.reshape(x.shape[0], -1) for x in (picture, cotangent))
        count = min(STRIP, planes.shape[1])
        spread = tuple(jnp.broadcast_to(number, (count,)) for number in numbers)

        def strip(made, wanted, at):
            sums, found = made
            part, bar = (tuple(materialize(lax.dynamic_slice_in_dim(x, at, count, axis=1))) for x in (planes, bars))
            to_numbers, to_planes = jax.vjp(pixel, spread, part)[1](list(bar))
            new = not_repeated(wanted, at, count)
            sums = [total + jnp.where(new, more, 0.0) for total, more in zip(sums, to_numbers, strict=True)]
            # One plane after the other: each is a loop of its own, without a question of which it is.
            for c, plane in enumerate(to_planes):
                found = lax.dynamic_update_slice(found, plane[None], (c, at))
            return sums, found

        begin = [jnp.zeros_like(number) for number in spread], output_buffer(bars, planes.shape)
        sums, found = for_each_tile(planes.shape[1], count, strip, begin)
        return jnp.stack([jnp.sum(total) for total in sums]), found.reshape(picture.shape)

    function.__name__ = pixel.__name__
    return with_adjoint(function, adjoint, check_floating)


def sum_rows(products: Sequence[Array]) -> list[Array]:
    """The sums of pictures of one shape over their rows: of each the row that is left.

    They are one reduction: of all loops that XLA's CPU backend makes, only such a one has several results, and it reads
    once what the products are made of.
    """
    whole = products[0].shape[0] // ROWS * ROWS
    blocks = [x[:whole].reshape(-1, ROWS, *x.shape[1:]) for x in products]
    add = lambda sums, more: [a + b for a, b in zip(sums, more, strict=True)]
    sums = lax.reduce(blocks, [np.zeros((), x.dtype) for x in blocks], add, (1,))
    return [jnp.sum(a, axis=0) + jnp.sum(x[whole:], axis=0) for a, x in zip(sums, products, strict=True)]
