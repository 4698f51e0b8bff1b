"""Sharpening by an unsharp mask, with its adjoint by hand."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..._jax.buffers import materialize, output_buffer
from ..._jax.custom_adjoint import with_adjoint
from ..._types import Scalar
from ...parameters import param
from ..ops.correlate import stencil
from ..ops.luma import LUMA, luma
from ..ops.pad import pad
from ..ops.tiling import for_each_tile, not_repeated, tile_size
from ..values import check_floating

ROWS = 16  # of a strip of the adjoint, at most


class UnsharpMask(eqx.Module):
    """Unsharp mask: every colour plus `amount` times the difference of luma and its Gaussian blur.

    `width` is the standard deviation of the blur, whose window reaches `radius` pixels. Good values: amount 0 to 1.

    Examples:
        >>> step = jnp.broadcast_to(jnp.arange(16) // 8, (3, 16, 16)).astype(float)
        >>> sharp = ds.image.UnsharpMask(amount=1.0)(step)
        >>> bool(sharp.max() > 1.0), bool(sharp.min() < 0.0)
        (True, True)
    """

    amount: Scalar = param(0.0, bounds=(-2.0, 4.0))
    width: Scalar = param(1.0, "px", bounds=(0.3, 3.0))
    radius: int = eqx.field(static=True, default=4)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the sharpened picture."""
        return _unsharp_mask(self.radius)(jnp.stack([self.amount, self.width]), picture)


@cache
def _unsharp_mask(radius: int):
    """`sharpen(numbers, picture)` of the numbers amount and width, with its adjoint.

    A blur with mirrored edges is its own adjoint if the outermost rows and columns count half: the cotangent is divided
    by their shares before the blur and multiplied after it. The derivative in the width is a blur by the derivative of
    the window, down the cotangent and across the luma, or the other way round.
    """

    def window(width):
        weights = jnp.exp(-0.5 * (np.arange(-radius, radius + 1, dtype=width.dtype) / width) ** 2)
        return weights / jnp.sum(weights)

    def sharpen(numbers, picture):
        amount, width = numbers
        grey, taps = materialize(luma(picture)[None]), window(width)
        blurred = stencil(stencil(grey, taps[None, None, :, None]), taps[None, None, None])
        return picture + amount * (grey - blurred)

    def adjoint(numbers, picture, cotangent):
        amount, width = numbers
        taps, slopes = jax.jvp(window, (width,), (jnp.ones_like(width),))
        down, across = (_shares(picture, axis) for axis in (1, 2))
        shared = materialize((cotangent[0] + cotangent[1] + cotangent[2])[None] / (down * across))
        tall = materialize(pad(shared, radius, 0))
        rows = tile_size(picture.shape[1], ROWS)

        def add_strip(carry, unmoved, start):
            sums, to_detail = carry
            cut = lambda x, more=0: materialize(lax.dynamic_slice_in_dim(x, start, rows + more, axis=1))
            share = jnp.where(not_repeated(unmoved, start, rows)[None, :, None], cut(down), 0.0)
            sums, detail = _add_strip(sums, cut(tall, 2 * radius), cut(picture), share, taps, slopes)
            return sums, lax.dynamic_update_slice_in_dim(to_detail, detail, start, axis=1)

        zeros = jnp.zeros((1, rows, picture.shape[2]), picture.dtype)
        sums, detail = for_each_tile(picture.shape[1], rows, add_strip, ((zeros, zeros), output_buffer(shared)))
        to_amount, to_change = (jnp.sum(x * across) for x in sums)
        weights = jnp.array(LUMA, picture.dtype)[:, None, None] * amount
        to_picture = cotangent + weights * (materialize(detail) * down * across)
        return jnp.stack([to_amount, -amount * to_change]), to_picture

    return with_adjoint(sharpen, adjoint, check_floating)


def _add_strip(sums, cotangent, picture, share, taps, slopes):
    """The sums with those of a strip, and the cotangent of its detail; `cotangent` has `radius` rows more around."""
    radius = taps.size // 2
    grey = materialize(luma(picture)[None] * share)
    down, down_slope = _along(cotangent, taps, 1), _along(cotangent, slopes, 1)
    wide = materialize(pad(grey, 0, radius))
    across, across_slope = _along(wide, taps, 2), _along(wide, slopes, 2)
    detail = materialize(cotangent[:, radius:-radius] - _along(materialize(pad(down, 0, radius)), taps, 2))
    return (sums[0] + detail * grey, sums[1] + down * across_slope + down_slope * across), detail


def _along(x, taps, axis: int):
    """The weighted sums of neighbours along an axis, where they lie within the picture."""
    size = x.shape[axis] - taps.size + 1
    return materialize(sum(tap * lax.slice_in_dim(x, i, i + size, axis=axis) for i, tap in enumerate(taps)))


def _shares(picture, axis: int):
    """One half for the first and last place along an axis of the picture, 1 for the others; of rank 3."""
    shape = [size if i == axis else 1 for i, size in enumerate(picture.shape)]
    shares = np.ones(shape[axis], picture.dtype)
    shares[[0, -1]] = 0.5
    return jnp.asarray(shares.reshape(1, *shape[1:]))
