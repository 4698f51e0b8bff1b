"""A colour matrix on every pixel, with its adjoint by hand."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.buffers import materialize
from ..._jax.custom_adjoint import with_adjoint
from ...parameters import param
from ..ops.pointwise import sum_rows
from ..values import check_floating


class ColorMatrix(eqx.Module):
    """Camera colours to linear sRGB by a matrix whose rows sum to 1, so that grey stays grey.

    `mixing` are its six entries off the diagonal, row by row.

    Examples:
        >>> stage = ds.image.ColorMatrix(mixing=jnp.array([-0.5, -0.1, -0.2, -0.3, 0.1, -0.6]))
        >>> print(stage.matrix.sum(axis=1).round(6))
        [1. 1. 1.]
        >>> red = jnp.array([1.0, 0.0, 0.0])[:, None, None] * jnp.ones((3, 2, 2))
        >>> print(stage(red)[:, 0, 0].round(6))
        [ 1.6 -0.2  0.1]
    """

    mixing: Float[Array, " 6"] = param(np.zeros(6))

    @property
    def matrix(self) -> Float[Array, "3 3"]:
        """The matrix from balanced camera colours to linear sRGB."""
        a, b, c, d, e, f = self.mixing
        return jnp.array([[1 - a - b, a, b], [c, 1 - c - d, d], [e, f, 1 - e - f]])

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture in linear sRGB."""
        return mixed(self.mixing, picture)


def _mixed(entries: Float[Array, " 6"], picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """The product of the colours and the matrix with these entries off its diagonal, whose rows sum to 1."""
    return jnp.stack(_colors(entries, tuple(materialize(picture))))


def _colors(entries, planes):
    # By differences of colours, a grey picture is unchanged to the last bit.
    a, b, c, d, e, f = entries
    red, green, blue = planes
    return [
        red + a * (green - red) + b * (blue - red),
        green + c * (red - green) + d * (blue - green),
        blue + e * (red - blue) + f * (green - blue),
    ]


def _adjoint(entries, picture, cotangent):
    planes, cotangents = materialize(picture), materialize(cotangent)
    to_planes = jax.vjp(lambda planes: _colors(entries, planes), tuple(planes))[1](list(cotangents))[0]
    # Sixteen neighbours to a row, where the size allows: rows that are summed at once are then contiguous.
    by_sixteen = lambda planes: [plane.reshape(-1, math.gcd(plane.size, 16)) for plane in planes]
    (red, green, blue), cotangents = by_sixteen(planes), by_sixteen(cotangents)
    # The derivative of each colour with respect to its two entries, times the cotangent.
    slopes = [(green - red, blue - red), (red - green, blue - green), (red - blue, green - blue)]
    products = [c * slope for c, pair in zip(cotangents, slopes, strict=True) for slope in pair]
    return jnp.stack([jnp.sum(row) for row in sum_rows(products)]), jnp.stack(to_planes)


mixed = with_adjoint(_mixed, _adjoint, check_floating)
