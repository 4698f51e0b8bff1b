"""Black level and white balance, with their adjoint by hand."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.buffers import materialize
from ..._jax.custom_adjoint import with_adjoint
from ..._types import Scalar
from ...parameters import param
from ..demosaicing.bayer import check_even
from ..ops.pointwise import sum_rows
from ..values import check_floating


class WhiteBalance(eqx.Module):
    """Black level and white balance on an RGGB mosaic: (x - black) / (1 - black), times the gain of its colour.

    Values below black stay negative: clipped, their noise would brighten the shadows.

    Examples:
        >>> balance = ds.image.WhiteBalance(black=0.1, red=2.0, blue=1.5)
        >>> print(balance(jnp.array([[0.55, 1.0], [1.0, 0.7]])).round(6))
        [[1. 1.]
         [1. 1.]]
    """

    black: Scalar = param(0.05, bounds=(-0.05, 0.5))
    red: Scalar = param(1.5, bounds=(0.2, 8.0))
    blue: Scalar = param(1.5, bounds=(0.2, 8.0))

    def __call__(self, mosaic: Float[Array, "h w"]) -> Float[Array, "h w"]:
        """Returns the balanced mosaic: grey has one value in all colours, 0 is black.

        Raises:
            InputError: for an odd number of rows or columns, and for whole numbers.
        """
        check_even(mosaic.shape)
        return _balanced(jnp.stack([self.black, self.red, self.blue]), mosaic)


def _gains(numbers, width: int):
    """The factors of a row with red pixels and of one with blue pixels: (2, width)."""
    black, red, blue = numbers
    is_red, is_blue = (np.tile(site, (1, width // 2)) for site in ([[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]))
    kinds = red * is_red + blue * is_blue + (1.0 - is_red - is_blue)
    return materialize((kinds / (1.0 - black)).astype(numbers.dtype))


def _balance(numbers, mosaic):
    rows = mosaic.reshape(-1, 2, mosaic.shape[1])
    return ((rows - numbers[0]) * _gains(numbers, mosaic.shape[1])[None]).reshape(mosaic.shape)


def _balance_adjoint(numbers, mosaic, cotangent):
    rows, cotangents = (x.reshape(-1, 2, mosaic.shape[1]) for x in (mosaic, cotangent))
    sums = sum_rows([cotangents * (rows - numbers[0]), cotangents])
    above, plain = (jnp.sum(x.reshape(2, -1, 2), axis=1) for x in sums)
    gains, scale = _gains(numbers, 2), 1.0 / (1.0 - numbers[0])
    to_black = jnp.sum(gains * (scale * above - plain))
    to_picture = (cotangents * _gains(numbers, mosaic.shape[1])[None]).reshape(mosaic.shape)
    return jnp.stack([to_black, scale * above[0, 0], scale * above[1, 1]]), to_picture


_balanced = with_adjoint(_balance, _balance_adjoint, check_floating)
