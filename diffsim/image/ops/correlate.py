"""Stencils: weighted sums over a neighbourhood, whose adjoints gather as the stencils do.

Differentiated by rule, a sum of shifted pictures becomes many scattered additions. Both cotangents of a stencil are
correlations themselves, and are computed as such: that of the picture by the stencil rotated by half a turn, that of
the weights by correlating the picture with the cotangent, strip by strip so that the neighbourhoods stay in the cache.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Real

from ..._errors import InputError
from ..._jax.bilinear_primitive import bilinear, sum_batch
from ..._jax.buffers import materialize, zero_pad
from ..values import Pixels, check_floating
from .correlate_channels_last import correlate_last
from .pad import pad

UNROLLED = 128  # products per pixel up to which the sum is one expression, for the compiler to fuse
STRIP = 4  # rows of a cotangent that are multiplied with the rows of the picture at once


def stencil(
    image: Real[Pixels, "c h w"], weights: Real[Pixels, "k c rows columns"], edge: str = "reflect"
) -> Float[Array, "k h w"]:
    """Returns the weighted sums over the neighbourhood of every pixel, a picture of the same size.

        out[k, y, x] = sum over c, i, j of weights[k, c, i, j] image[c, y + i - rows//2, x + j - columns//2]

    Differentiable in both arguments, forward, reverse and twice.

    Args:
        image: the picture.
        weights: of every output and input channel, with odd numbers of rows and columns.
        edge: beyond its edge the picture is mirrored about its outermost pixels ("reflect", which preserves the pattern
            of a colour mosaic), repeats them ("edge") or is 0 ("zero").

    Raises:
        InputError: for stencils of even size, unequal channels, whole numbers, and pictures too small to mirror.

    Examples:
        >>> second_difference = jnp.array([[[[1.0, -2.0, 1.0]]]])
        >>> ds.image.stencil(jnp.array([[[0.0, 1.0, 4.0, 9.0]]]), second_difference, edge="edge").tolist()
        [[[1.0, 2.0, 2.0, -5.0]]]
    """
    rows, columns = weights.shape[-2:]
    if rows % 2 == 0 or columns % 2 == 0:
        raise InputError(f"a stencil of {rows} x {columns} has no centre: give odd sizes")
    return correlate(pad(jnp.asarray(image), rows // 2, columns // 2, edge), weights)


def correlate(
    image: Real[Pixels, "c h w"], weights: Real[Pixels, "k c rows columns"]
) -> Float[Array, "k h-rows+1 w-columns+1"]:
    """Returns the sums of `stencil` where it lies within the picture, smaller by the size of the stencil less one.

    Raises:
        InputError: for unequal channels, whole numbers, and stencils larger than the picture.

    Examples:
        >>> difference = jnp.array([[[[-1.0, 1.0]]]])
        >>> ds.image.correlate(jnp.array([[[0.0, 1.0, 4.0, 9.0]]]), difference).tolist()
        [[[1.0, 3.0, 5.0]]]
    """
    if image.ndim != 3 or weights.ndim != 4 or image.shape[0] != weights.shape[1]:
        raise InputError(f"stencil of shape {weights.shape} on a picture of shape {image.shape}: channels must agree")
    if weights.shape[2] > image.shape[1] or weights.shape[3] > image.shape[2]:
        raise InputError(f"a stencil of {weights.shape[2:]} is larger than the picture of {image.shape[1:]}")
    dtype = jnp.result_type(image, weights)
    check_floating(dtype)
    image, weights = jnp.asarray(image, dtype), jnp.asarray(weights, dtype)
    if weights.size > UNROLLED:
        return correlate_last(image.transpose(1, 2, 0), weights).transpose(2, 0, 1)
    return _correlate_p.bind(image, weights)


def _apply(image, weights):
    # Without barriers the compiler computes the operations before again for every pixel read, and this for the next.
    image = materialize(image)
    # Channel by channel: the rows of several do not fit the first-level cache.
    return sum(materialize(_channel(image, weights, c)) for c in range(image.shape[0]))


def _channel(image, weights, c: int):
    rows, columns = weights.shape[2:]
    height, width = image.shape[1] - rows + 1, image.shape[2] - columns + 1
    places = [(i, j) for i in range(rows) for j in range(columns)]
    shifted = {(i, j): image[c, i : i + height, j : j + width] for i, j in places}
    return jnp.stack([sum(kernel[at] * part for at, part in shifted.items()) for kernel in weights[:, c]])


def _taps(image, cotangent):
    """The correlation of picture (c, h, w) and cotangent (k, h2, w2) over all shifts: (k, c, h-h2+1, w-w2+1).

    Some rows at a time: all pairs of picture rows and cotangent rows are one product of matrices, from which the pairs
    that belong to a shift are summed. One product for each shift would have too few rows.
    """
    out, height, width = cotangent.shape
    channels, rows, columns = image.shape[0], image.shape[1] - height + 1, image.shape[2] - width + 1
    more = -height % STRIP
    cotangent, image = zero_pad(cotangent, 0, more, 1), zero_pad(jnp.asarray(image), 0, more, 1)
    reach = STRIP + rows - 1

    def add(total, at):
        rows_of_image = materialize(lax.dynamic_slice_in_dim(image, at, reach, axis=1))
        rows_of_cotangent = materialize(lax.dynamic_slice_in_dim(cotangent, at, STRIP, axis=1))
        shift = lambda j: lax.dynamic_slice_in_dim(rows_of_image, j, width, axis=2)
        shifted = materialize(jax.vmap(shift)(jnp.arange(columns)))
        return total + rows_of_cotangent.reshape(-1, width) @ shifted.reshape(-1, width).T, None

    start = jnp.zeros((out * STRIP, columns * channels * reach), image.dtype)
    total, _ = lax.scan(add, start, jnp.arange(0, height, STRIP))
    total = total.reshape(out, STRIP, columns, channels, reach)
    return jnp.stack([total[:, i, :, :, i : i + rows] for i in range(STRIP)]).sum(0).transpose(0, 2, 3, 1)


def _rotated(weights):
    """The stencil of the adjoint: rotated by half a turn, inputs and outputs exchanged."""
    return jnp.swapaxes(weights[..., ::-1, ::-1], -4, -3)


def _full(cotangent, rows: int, columns: int):
    edges = [(0, 0)] * (cotangent.ndim - 2) + [(rows - 1, rows - 1), (columns - 1, columns - 1)]
    return jnp.pad(cotangent, edges)


def _correlate_to_image(cotangent, image, weights):
    rows, columns = weights.shape[-2:]
    return sum_batch(_correlate_p.bind(_full(cotangent, rows, columns), _rotated(weights)), image)


def _correlate_to_weights(cotangent, image, weights):
    return sum_batch(_taps_p.bind(image, cotangent), weights)


def _taps_to_image(cotangent, image, other):
    rows, columns = cotangent.shape[-2:]
    return sum_batch(_correlate_p.bind(_full(other, rows, columns), _rotated(cotangent)), image)


def _taps_to_other(cotangent, image, other):
    return sum_batch(_correlate_p.bind(image, cotangent), other)


def _correlated_shape(image: tuple[int, int, int], weights: tuple[int, int, int, int]):
    (_, height, width), (out, _, rows, columns) = image, weights
    return out, height - rows + 1, width - columns + 1


def _taps_shape(image: tuple[int, int, int], other: tuple[int, int, int]):
    (channels, height, width), (out, rows, columns) = image, other
    return out, channels, height - rows + 1, width - columns + 1


_correlate_p = bilinear("correlate", _apply, 4, _correlated_shape, _correlate_to_image, _correlate_to_weights)
_taps_p = bilinear("taps", _taps, 3, _taps_shape, _taps_to_image, _taps_to_other)
