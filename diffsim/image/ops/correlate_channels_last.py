"""Stencils between many channels, which come last: the layers of small networks.

With the channels of a pixel side by side, a neighbourhood is a few long runs of numbers, and the sums over it are
products of matrices. The adjoints gather, as those of `stencil` do.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ..._jax.barrier import barrier
from ..._jax.bilinear_primitive import bilinear, sum_batch
from ..._jax.buffers import materialize
from ..._jax.custom_adjoint import with_adjoint
from ..values import check_floating
from .tiling import for_each_tile, not_repeated, tile_size

AROUND = 2**20  # numbers in the neighbourhoods of the pixels of a strip, at most
ACTIVATION = "activation"  # the name of what `jax.checkpoint` saves in a chain


def correlate_last(
    image: Float[Array, "h w c"], weights: Float[Array, "k c rows columns"]
) -> Float[Array, "h-rows+1 w-columns+1 k"]:
    """Returns the sums over c, i, j of weights[k, c, i, j] image[y + i, x + j, c], where the stencil lies within."""
    return correlate_last_p.bind(image, weights)


def _correlate_whole(weights, image):
    return correlate_last(_zero_padded(weights, image), weights)


def _zero_padded(weights, image):
    rows, columns = (size // 2 for size in weights.shape[2:])
    # With barriers on both sides, layers of one shape are padded by one program, whatever is before and after.
    return materialize(jnp.pad(materialize(image), ((rows, rows), (columns, columns), (0, 0))))


def _adjoint(weights, image, cotangent):
    # Only the picture without its padding is stored for reverse mode.
    image, cotangent = barrier(image, cotangent)
    return taps_last_p.bind(_zero_padded(weights, image), cotangent), _correlate_whole(_rotated(weights), cotangent)


stencil_last = with_adjoint(_correlate_whole, _adjoint, check_floating)
"""`stencil_last(weights, image)`: the sums of a stencil of odd size at every pixel, beyond the edge of zeros."""


def save_activation(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the same array, which a chain stores for reverse mode instead of computing it again."""
    # With a barrier, no use of it computes it again, and layers of one shape end in one program.
    return materialize(checkpoint_name(x, ACTIVATION))


@jax.custom_jvp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the greater of x and 0, which is stored for reverse mode instead of x. Its derivative at 0 is 0."""
    return jnp.where(x <= 0.0, 0.0, x)  # `maximum` would have derivative 1/2 at 0 where this line is differentiated


@relu.defjvp
def _relu_jvp(primals, tangents):
    activation = save_activation(relu(primals[0]))
    return activation, jnp.where(activation > 0.0, tangents[0], 0.0)


def space_to_depth(image: Float[Array, "height width c"]) -> Float[Array, "height//2 width//2 4*c"]:
    """Returns the picture at half the size, the four pixels of every square of two by two as channels."""
    height, width, channels = image.shape
    squares = image.reshape(height // 2, 2, width // 2, 2, channels)
    return squares.transpose(0, 2, 1, 3, 4).reshape(height // 2, width // 2, 4 * channels)


def depth_to_space(image: Float[Array, "h w channels"]) -> Float[Array, "2*h 2*w channels//4"]:
    """Returns the picture at twice the size, the inverse of `space_to_depth`."""
    height, width, channels = image.shape
    squares = image.reshape(height, width, 2, 2, channels // 4)
    return squares.transpose(0, 2, 1, 3, 4).reshape(2 * height, 2 * width, channels // 4)


def _apply(image, weights):
    if weights.shape[2:] == (1, 1):
        return materialize(image @ weights[:, :, 0, 0].T)
    layout = ("NHWC", "HWIO", "NHWC")  # the only one that has a fast convolution within a compiled loop on a CPU
    kernel = weights.transpose(2, 3, 1, 0)
    return lax.conv_general_dilated(image[None], kernel, (1, 1), "VALID", dimension_numbers=layout)[0]


def _taps(image, cotangent):
    """The correlation of picture (h, w, c) and cotangent (h2, w2, k) over all shifts: (k, c, h-h2+1, w-w2+1).

    Strip by strip, so that the neighbourhoods stay in the cache.
    """
    height, width, out = cotangent.shape
    if image.shape[:2] == (height, width):
        return lax.dot_general(cotangent, image, (((0, 1), (0, 1)), ((), ())))[..., None, None]
    rows, columns, channels = image.shape[0] - height + 1, image.shape[1] - width + 1, image.shape[2]
    strip = tile_size(height, max(1, AROUND // (channels * rows * columns * width)))

    def add_strip(total, unmoved, start):
        new = not_repeated(unmoved, start, strip)[None, :, None]
        rows_of_cotangent = lax.dynamic_slice_in_dim(cotangent, start, strip, axis=0).transpose(2, 0, 1) * new
        neighbourhoods = _neighbourhoods(image, start, (strip, width), (rows, columns))
        return total + materialize(rows_of_cotangent).reshape(out, -1) @ neighbourhoods

    total = for_each_tile(height, strip, add_strip, jnp.zeros((out, rows * columns * channels), image.dtype))
    return total.reshape(out, rows, columns, channels).transpose(0, 3, 1, 2)


def _neighbourhoods(image, start, size: tuple[int, int], reach: tuple[int, int]):
    """The neighbourhoods of the pixels of a strip, one a row, copied by runs of contiguous numbers."""
    (strip, width), (rows, columns), channels = size, reach, image.shape[2]
    lines = image.reshape(image.shape[0], -1)
    run = lambda y, x: lax.dynamic_slice(lines, (y, x), (1, columns * channels))[0]
    down, across = np.arange(strip)[:, None, None] + np.arange(rows), channels * np.arange(width)[None, :, None]
    return materialize(jnp.vectorize(run, signature="(),()->(n)")(start + down, across)).reshape(strip * width, -1)


def _rotated(weights):
    """The stencil of the adjoint: rotated by half a turn, inputs and outputs exchanged."""
    return jnp.swapaxes(weights[..., ::-1, ::-1], -4, -3)


def _full(cotangent, rows: int, columns: int):
    edges = [(rows - 1, rows - 1), (columns - 1, columns - 1), (0, 0)]
    return jnp.pad(cotangent, [(0, 0)] * (cotangent.ndim - 3) + edges)


def _correlate_to_image(cotangent, image, weights):
    return sum_batch(correlate_last_p.bind(_full(cotangent, *weights.shape[-2:]), _rotated(weights)), image)


def _correlate_to_weights(cotangent, image, weights):
    return sum_batch(taps_last_p.bind(image, cotangent), weights)


def _taps_to_image(cotangent, image, other):
    return sum_batch(correlate_last_p.bind(_full(other, *cotangent.shape[-2:]), _rotated(cotangent)), image)


def _taps_to_other(cotangent, image, other):
    return sum_batch(correlate_last_p.bind(image, cotangent), other)


def _correlated_shape(image: tuple[int, int, int], weights: tuple[int, int, int, int]):
    (height, width, _), (out, _, rows, columns) = image, weights
    return height - rows + 1, width - columns + 1, out


def _taps_shape(image: tuple[int, int, int], other: tuple[int, int, int]):
    (height, width, channels), (rows, columns, out) = image, other
    return out, channels, height - rows + 1, width - columns + 1


correlate_last_p = bilinear("correlate_last", _apply, 4, _correlated_shape, _correlate_to_image, _correlate_to_weights)
taps_last_p = bilinear("taps_last", _taps, 3, _taps_shape, _taps_to_image, _taps_to_other)
