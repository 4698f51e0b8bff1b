"""Bursts: several noisy raws of one scene, from a camera that moves, merged into one raw with less noise."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import Scalar
from ..parameters import param
from .demosaicing.bayer import mosaic, quads
from .demosaicing.linear import malvar
from .ops.box_filter import box_filter
from .registration import Model, Motion, register
from .sensor import Noise
from .values import Pixels
from .warp import warp

RADIUS = 3  # pixels around each that its weight looks at


class MergeBurst(eqx.Module):
    """The mean of a burst, each picture moved onto the first and weighted by how well it agrees with it there.

    Each mosaic is demosaicked by Malvar's filters and moved. About each pixel, the squared difference from the first is
    compared with what noise alone would make: a picture counts by 1 / (1 + exp((ratio - limit) / width)), so that what
    moved in the scene leaves no ghosts. Since each raw has its colours at other places of the scene, the mean has less
    aliasing than one raw, and its mosaic can be developed as a raw of less noise.

    Sources: robust merging as in Hasinoff et al. (2016) and Wronski et al. (2019).

    Examples:
        >>> frames = 0.5 + 0.1 * jr.normal(jr.key(0), (8, 64, 64))
        >>> merged, effective = ds.image.MergeBurst()(frames, [ds.image.Motion()] * 7, ds.image.Noise(0.0, 0.1))
        >>> bool(jnp.std(merged) < 0.5 * jnp.std(frames[0])), 4.0 < float(effective.mean()) <= 8.0
        (True, True)
    """

    limit: Scalar = param(2.0, bounds=(0.5, np.inf))
    width: Scalar = param(0.25, bounds=(0.01, 10.0))

    def __call__(
        self,
        raws: Float[Array, "n h w"],
        motions: Sequence[Motion],
        noise: Noise,
        gains: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> tuple[Float[Array, "3 h w"], Float[Array, "h w"]]:
        """Returns the merged picture in the colours of the camera, and for each pixel by what its variance is divided.

        Args:
            raws: RGGB mosaics, 0 at black and 1 at white.
            motions: of each raw but the first, onto the first; see `register_burst`.
            noise: of each raw.
            gains: of white balance, for demosaicking; the result is not balanced.

        Raises:
            InputError: if there is not a motion for each raw but the first.
        """
        if len(motions) != len(raws) - 1:
            raise InputError(f"{len(motions)} motions of {len(raws)} raws: give one for each but the first")
        height, width = raws.shape[1:]
        balance = jnp.asarray(gains, raws.dtype)[:, None, None]
        by_site = mosaic(jnp.broadcast_to(balance, (3, height, width)))
        picture = lambda raw: malvar(raw * by_site)
        first = picture(raws[0])
        signal = jnp.maximum(box_filter(first, RADIUS), 0.0)
        expected = 2.0 * (noise.shot * balance * signal + (noise.read * balance) ** 2) + 1e-12
        last = jnp.array([height - 1.0, width - 1.0])[:, None, None]

        @jax.checkpoint
        def moved(raw, motion):
            places = motion.places(height, width).astype(raw.dtype)
            planes = warp(picture(raw), places, "cubic")
            ratio = jnp.mean(box_filter((planes - first) ** 2, RADIUS) / expected, axis=0)
            weight = jax.nn.sigmoid((self.limit - ratio) / self.width)
            seen = jnp.all((places >= 0) & (places <= last), axis=0)
            return planes, jnp.where(seen, weight, 0.0).astype(raw.dtype)

        total, weights, squares = first, jnp.ones_like(raws[0]), jnp.ones_like(raws[0])
        for raw, motion in zip(raws[1:], motions, strict=True):
            planes, weight = moved(raw, motion)
            total, weights, squares = total + weight[None] * planes, weights + weight, squares + weight**2
        return total / weights[None] / balance, weights**2 / squares


def register_burst(raws: Float[Pixels, "n h w"], model: Model = "rigid") -> list[Motion]:
    """Returns the motions of each raw but the first, onto the first.

    They are found on pictures of half the size, the means of the four sites of each quad.

    Args:
        raws: mosaics of one pattern, at least 32 x 32 pixels.
        model: see `register`.

    Raises:
        InputError: as `register` does.

    Examples:
        >>> frames = jr.uniform(jr.key(0), (2, 64, 64)).at[1].set(0.5)
        >>> ds.image.register_burst(frames.at[1].set(frames[0]))[0].shift.round(3).tolist()
        [0.0, 0.0]
    """
    grey = [jnp.mean(quads(jnp.asarray(raw)), axis=0, keepdims=True) for raw in raws]
    return [register(other, grey[0], model).scaled(2.0) for other in grey[1:]]


def merged_noise(noise: Noise, effective: Float[Pixels, "h w"]) -> Noise:
    """Returns the noise of a merged mosaic where the variance is divided by the median of `effective`."""
    count = float(np.median(effective))
    return Noise(noise.shot / count, noise.read / float(np.sqrt(count)))


def mix_by_noise(
    few: Float[Pixels, "c h w"], many: Float[Pixels, "c h w"], effective: Float[Pixels, "h w"]
) -> Float[Array, "c h w"]:
    """Returns a picture that is `many` where all raws were merged, and `few` where only the first was.

    Both are developments of one merged mosaic: `many` for the noise of `merged_noise`, and `few` for that of a single
    raw, which is what there is where something moved. In between, the pictures are mixed by the logarithm of
    `effective`, the number by which the variance is divided.
    """
    effective = box_filter(jnp.log(jnp.asarray(effective))[None], RADIUS)[0]
    count = jnp.maximum(jnp.median(effective), 1e-6)
    share = jnp.clip(effective / count, 0.0, 1.0)[None]
    return share * many + (1.0 - share) * few
