"""A colour matrix on every pixel, with its adjoint by hand.

The six sums of its gradient are one reduction: of all loops that XLA's CPU backend makes, only such a one has several
results, and it reads picture and cotangent once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .adjoint import with_adjoint
from .box import held

LINES, PLACES = 8, 128  # of a block of pixels: lines that are added up at once, in registers, and what they hold


def _mixed(entries: Float[Array, " 6"], picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """The colours mixed by a matrix of these entries off its diagonal, whose rows sum to 1."""
    return jnp.stack(_colours(entries, tuple(held(picture))))


def _colours(entries, planes):
    # Differences of colours: a grey picture is kept to the last bit.
    a, b, c, d, e, f = entries
    red, green, blue = planes
    return [
        red + a * (green - red) + b * (blue - red),
        green + c * (red - green) + d * (blue - green),
        blue + e * (red - blue) + f * (green - blue),
    ]


def _adjoint(entries, picture, cotangent):
    picture, cotangent = held(picture), held(cotangent)
    found = jax.vjp(lambda planes: _colours(entries, planes), tuple(picture))[1](list(cotangent))[0]
    planes, bars = (x.reshape(3, -1) for x in (picture, cotangent))
    whole = planes.shape[1] - planes.shape[1] % (LINES * PLACES)
    sums = _sums(planes[:, :whole], bars[:, :whole], (LINES, PLACES))
    return sums + _sums(planes[:, whole:], bars[:, whole:], (1, 1)), jnp.stack(found)


def _sums(planes, bars, block: tuple[int, int]):
    """The sums over all pixels of what every entry adds to a colour, times the cotangent there."""
    (red, green, blue), bars = (x.reshape(3, -1, *block) for x in (planes, bars))
    added = [(green - red, blue - red), (red - green, blue - green), (red - blue, green - blue)]
    products = [bar * one for bar, pair in zip(bars, added, strict=True) for one in pair]
    add = lambda sums, more: [a + b for a, b in zip(sums, more, strict=True)]
    sums = lax.reduce(products, [np.zeros((), planes.dtype)] * len(products), add, (1,))
    return jnp.stack([jnp.sum(x) for x in sums])


mixed = with_adjoint(_mixed, _adjoint)
