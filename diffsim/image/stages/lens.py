"""What a lens does to a picture: its corners are darker, and straight lines are bent."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import Scalar
from ...parameters import param
from ..values import check_floating
from ..warp import from_centre, warp


def _half_diagonal(height: int, width: int) -> float:
    """From the centre of a picture to that of its corner pixels."""
    return 0.5 * float(np.hypot(height - 1, width - 1)) or 1.0


class LensShading(eqx.Module):
    """A mosaic or picture multiplied by 1 + a r^2 + b r^4 + c r^6, r from 0 at its centre to 1 at its corners.

    Positive coefficients undo a lens that darkens the corners.

    Examples:
        >>> lit = ds.image.LensShading(coefficients=jnp.array([0.5, 0.0, 0.0]))(jnp.full((3, 5, 5), 0.2))
        >>> print(f"{lit[0, 2, 2]:.3f} at the centre, {lit[0, 0, 0]:.3f} in a corner")
        0.200 at the centre, 0.300 in a corner
    """

    coefficients: Float[Array, " 3"] = param(np.zeros(3))

    def __call__(self, picture: Float[Array, "*c h w"]) -> Float[Array, "*c h w"]:
        """Returns the picture, evenly lit."""
        check_floating(picture)
        height, width = picture.shape[-2:]
        away, _ = from_centre(height, width)
        square = jnp.sum((away.astype(picture.dtype) / _half_diagonal(height, width)) ** 2, axis=0)
        a, b, c = self.coefficients.astype(picture.dtype)
        gain = 1.0 + square * (a + square * (b + square * c))
        return picture * (gain[None] if picture.ndim == 3 else gain)


class LensDistortion(eqx.Module):
    """A picture whose places are moved along the radius: a pixel at r shows what was at r (1 + a r^2 + b r^4).

    r is 0 at the centre and 1 at the corners. Positive coefficients undo a barrel, negative ones a pincushion; with
    `scale` above 1 the corners stay within the picture. Source: the radial part of the model of Brown (1966).

    Examples:
        >>> picture = jr.uniform(jr.key(0), (3, 9, 9))
        >>> bool(jnp.allclose(ds.image.LensDistortion()(picture), picture, atol=1e-6))
        True
    """

    coefficients: Float[Array, " 2"] = param(np.zeros(2))
    scale: Scalar = param(1.0, bounds=(0.1, 10.0))

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """Returns the picture with straight lines."""
        height, width = picture.shape[1:]
        away, centre = from_centre(height, width)
        away = away.astype(picture.dtype) / self.scale
        square = jnp.sum((away / _half_diagonal(height, width)) ** 2, axis=0)
        a, b = self.coefficients
        moved = away * (1.0 + square * (a + square * b))[None]
        return warp(picture, (moved + centre).astype(picture.dtype), "cubic")
