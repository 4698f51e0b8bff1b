"""Local Laplacian filtering: detail and large contrast changed separately, without halos at edges."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..._types import Scalar
from ...parameters import param
from ..ops.correlate import stencil
from ..ops.luma import luma

BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


class LocalLaplacian(eqx.Module):
    """Luma with its detail amplified by 1 + `detail` and its large edges by `contrast`; differences of colours stay.

    The luma is remapped around each of some reference values g, to g + contrast d + (1 + detail - contrast) d
    exp(-d^2 / 2 width^2) with d = luma - g; every coefficient of the pyramid is interpolated between the remapped
    pictures of the nearest references. Source: Aubry and others, "Fast local Laplacian filters" (2014). Good values:
    width 0.1 to 0.3, at least 1/references.

    Examples:
        >>> picture = 0.5 + 0.02 * jr.normal(jr.key(0), (3, 32, 32))
        >>> detailed = ds.image.LocalLaplacian(detail=1.0)(picture)
        >>> bool(jnp.std(ds.image.luma(detailed)) > 1.5 * jnp.std(ds.image.luma(picture)))
        True
    """

    detail: Scalar = param(0.0, bounds=(-1.0, 4.0))
    contrast: Scalar = param(1.0, bounds=(0.0, 3.0))
    width: Scalar = param(0.2, bounds=(0.02, 1.0))
    levels: int = eqx.field(static=True, default=3)
    references: int = eqx.field(static=True, default=8)

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture with its new luma."""
        grey = luma(picture)[None]
        places = _gaussian(grey, self.levels)
        details = [jnp.zeros_like(x) for x in places[:-1]]
        for number in range(self.references):
            g = (number - 0.5) / (self.references - 2)
            pyramid = _gaussian(self._remap(grey, g), self.levels)
            for i in range(self.levels - 1):
                fine = pyramid[i] - _up(pyramid[i + 1], pyramid[i].shape)
                details[i] = details[i] + self._share(places[i], number) * fine
        x = places[-1]
        for fine in reversed(details):
            x = fine + _up(x, fine.shape)
        return picture + (x - grey)

    def _remap(self, grey, g: float):
        d = grey - g
        return g + self.contrast * d + (1.0 + self.detail - self.contrast) * d * jnp.exp(-0.5 * (d / self.width) ** 2)

    def _share(self, place, number: int):
        """The weight of the reference `number` in a coefficient; constant beyond the outermost references."""
        # Black and white are half a step inside, away from the kinks.
        at = jnp.clip(place * (self.references - 2) + 0.5, 0.0, self.references - 1.0)
        return jnp.maximum(1.0 - jnp.abs(at - number), 0.0)


def _blur(x):
    taps = jnp.asarray(BINOMIAL, x.dtype)
    return stencil(stencil(x, taps[None, None, :, None]), taps[None, None, None])


def _gaussian(x, levels: int):
    """The picture at full size, half, a quarter ..."""
    pyramid = [x]
    for _ in range(levels - 1):
        pyramid.append(_blur(pyramid[-1])[:, ::2, ::2])
    return pyramid


def _up(x, shape):
    """The picture at the next finer size, by zeros between its pixels and a blur."""
    after = [size - (2 * coarse - 1) for size, coarse in zip(shape[1:], x.shape[1:], strict=True)]
    return _blur(lax.pad(4.0 * x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, after[0], 1), (0, after[1], 1)]))
