"""A colour matrix on every pixel, with its adjoint by hand."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.buffers import materialize
from ..._jax.custom_transpose import with_adjoint
from ...parameters import param
from ..ops.pointwise import sum_rows
from ..values import check_floating


class ColorMatrix(eqx.Module):
    """Camera colours to linear sRGB by a matrix whose rows sum to 1, so that grey stays grey.

    `mixing` holds what is free: the six entries off the diagonal, row by row.
    """

    mixing: Float[Array, " 6"] = param(np.zeros(6))

    @property
    def matrix(self) -> Float[Array, "3 3"]:
        """The matrix, from balanced camera colours to linear sRGB."""
        a, b, c, d, e, f = self.mixing
        return jnp.array([[1 - a - b, a, b], [c, 1 - c - d, d], [e, f, 1 - e - f]])

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """The picture in linear sRGB."""
        return mixed(self.mixing, picture)


def _mixed(entries: Float[Array, " 6"], picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """The colours mixed by a matrix of these entries off its diagonal, whose rows sum to 1."""
    return jnp.stack(_colors(entries, tuple(materialize(picture))))


def _colors(entries, planes):
    # Differences of colours: a grey picture is kept to the last bit.
    a, b, c, d, e, f = entries
    red, green, blue = planes
    return [
        red + a * (green - red) + b * (blue - red),
        green + c * (red - green) + d * (blue - green),
        blue + e * (red - blue) + f * (green - blue),
    ]


def _adjoint(entries, picture, cotangent):
    planes, bars = materialize(picture), materialize(cotangent)
    found = jax.vjp(lambda planes: _colors(entries, planes), tuple(planes))[1](list(bars))[0]
    # Sixteen neighbours to a row, where the size allows: what is added up at once then lies together.
    (red, green, blue), bars = ([plane.reshape(-1, math.gcd(plane.size, 16)) for plane in x] for x in (planes, bars))
    # What every entry adds to a colour, times the cotangent there.
    added = [(green - red, blue - red), (red - green, blue - green), (red - blue, green - blue)]
    products = [bar * one for bar, pair in zip(bars, added, strict=True) for one in pair]
    return jnp.stack([jnp.sum(row) for row in sum_rows(products)]), jnp.stack(found)


mixed = with_adjoint(_mixed, _adjoint, check_floating)
