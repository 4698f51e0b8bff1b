"""Luma: the brightness of a picture as one plane."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._jax.custom_adjoint import with_adjoint
from ..values import check_floating

LUMA = (0.2126, 0.7152, 0.0722)  # of linear sRGB, ITU-R BT.709


def weighted_mean(weights, picture):
    """Returns the mean of three planes with these weights."""
    return weights[0] * picture[0] + weights[1] * picture[1] + weights[2] * picture[2]


def _adjoint(weights, picture, cotangent):
    # Automatically, the cotangent of every colour would be a full picture with zeros for the others.
    return jnp.sum(picture * cotangent[None], axis=(1, 2)), weights[:, None, None] * cotangent[None]


_weigh = with_adjoint(weighted_mean, _adjoint, check_floating)


def luma(picture: Float[Array, "3 h w"]) -> Float[Array, "h w"]:
    """Returns the luma of a picture in linear sRGB, 0.2126 red + 0.7152 green + 0.0722 blue (ITU-R BT.709).

    Examples:
        >>> green = jnp.array([0.0, 1.0, 0.0])[:, None, None] * jnp.ones((3, 1, 2))
        >>> print(ds.image.luma(green).round(4))
        [[0.7152 0.7152]]
    """
    return _weigh(jnp.array(LUMA, picture.dtype), picture)
