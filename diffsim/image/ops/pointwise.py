"""Pointwise stages, whose adjoint goes through the picture once, strip by strip.

The gradient of a parameter of such a stage is a sum over all pixels, and additions to one number wait for each other.
So every place within a strip has its own copy of the parameters, to whose gradients all strips add in vector registers;
the gradients of the copies are summed at the end.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..._jax.buffers import materialize, output_buffer
from ..._jax.custom_adjoint import Function, with_adjoint
from ..values import check_floating
from .tiling import for_each_tile, not_repeated

STRIP = 2**13  # pixels of a strip
ROWS = 8  # rows that are summed at once, in registers

Pixel = Callable[[Sequence[Array], Sequence[Array]], list[Array]]


def by_strips(pixel: Pixel) -> Function:
    """Returns `function(numbers, picture)`, the planes `pixel(numbers, planes)`, with its adjoint strip by strip.

    Args:
        pixel: a function of a sequence of numbers, each a scalar or an array like a plane, and of the planes.
    """

    def function(numbers, picture):
        # Otherwise each plane of the result would compute the previous stages again.
        return jnp.stack(pixel(tuple(numbers), tuple(materialize(picture))))

    def adjoint(numbers, picture, cotangent):
        planes, cotangents = (x.reshape(x.shape[0], -1) for x in (picture, cotangent))
        count = min(STRIP, planes.shape[1])
        spread = tuple(jnp.broadcast_to(number, (count,)) for number in numbers)

        def add_strip(carry, unmoved, start):
            sums, to_picture = carry
            cut = lambda x: tuple(materialize(lax.dynamic_slice_in_dim(x, start, count, axis=1)))
            to_numbers, to_planes = jax.vjp(pixel, spread, cut(planes))[1](list(cut(cotangents)))
            new = not_repeated(unmoved, start, count)
            sums = [total + jnp.where(new, more, 0.0) for total, more in zip(sums, to_numbers, strict=True)]
            # One plane after the other: in one loop over a stack every element would test which plane it is in.
            for c, plane in enumerate(to_planes):
                to_picture = lax.dynamic_update_slice(to_picture, plane[None], (c, start))
            return sums, to_picture

        carry = [jnp.zeros_like(number) for number in spread], output_buffer(cotangents, planes.shape)
        sums, to_picture = for_each_tile(planes.shape[1], count, add_strip, carry)
        return jnp.stack([jnp.sum(total) for total in sums]), to_picture.reshape(picture.shape)

    function.__name__ = pixel.__name__
    return with_adjoint(function, adjoint, check_floating)


def sum_rows(products: Sequence[Array]) -> list[Array]:
    """Returns the sums of planes of one shape over their rows, one row for each plane.

    They are one reduction, the only loop of XLA's CPU backend that has several results: it reads the factors of the
    products once.
    """
    full = products[0].shape[0] // ROWS * ROWS
    blocks = [x[:full].reshape(-1, ROWS, *x.shape[1:]) for x in products]
    add = lambda sums, more: [a + b for a, b in zip(sums, more, strict=True)]
    sums = lax.reduce(blocks, [np.zeros((), x.dtype) for x in blocks], add, (1,))
    return [jnp.sum(a, axis=0) + jnp.sum(x[full:], axis=0) for a, x in zip(sums, products, strict=True)]
