"""Registration: how one picture must be moved to lie upon another, by gradient from coarse to fine."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import Scalar
from ..optimize.least_squares import fit_least_squares
from ..parameters import param, trainable
from .ops.halved import halved
from .ops.pad import pad
from .values import Pixels, check_floating
from .warp import homography_places, pixel_places, warp

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
EDGE = 2  # pixels at the edge that smoothing changes
SMALLEST = 16  # pixels of the shorter side of the coarsest pictures
Model = Literal["shift", "rigid", "affine", "homography"]
MODELS = {
    "shift": ("shift",),
    "rigid": ("shift", "angle"),
    "affine": ("shift", "stretch"),
    "homography": ("shift", "stretch", "perspective"),
}


class Motion(eqx.Module):
    """A map of places: a rotation by `angle` about the centre, a stretch, a perspective, and a shift.

    A pixel at p from the centre has the place R(angle) (1 + stretch) p / (1 + perspective p / d) + shift from it; d is
    half the diagonal.

    Examples:
        >>> motion = ds.image.Motion(shift=jnp.array([1.0, -2.0]))
        >>> motion.places(3, 4)[:, 0, 0].tolist()
        [1.0, -2.0]
    """

    shift: Float[Array, " 2"] = param(np.zeros(2))  # rows and columns
    angle: Scalar = param(0.0)  # radians, from rows to columns
    stretch: Float[Array, "2 2"] = param(np.zeros((2, 2)))
    perspective: Float[Array, " 2"] = param(np.zeros(2))

    def places(self, height: int, width: int) -> Float[Array, "2 h w"]:
        """Returns row and column for each pixel of a picture of that size."""
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        turn = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
        linear = turn @ (jnp.eye(2) + self.stretch)
        diagonal = max(float(np.hypot(height - 1, width - 1)), 1.0)
        about = jnp.eye(3).at[:2, :2].set(linear).at[2, :2].set(2.0 * self.perspective / diagonal)
        centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
        to_centre = jnp.eye(3).at[:2, 2].set(-centre)
        back = jnp.eye(3).at[:2, 2].set(centre + self.shift)
        return homography_places(back @ about @ to_centre, height, width)

    def scaled(self, factor: float) -> "Motion":
        """Returns the same motion of pictures that are `factor` times as large."""
        return Motion(self.shift * factor, self.angle, self.stretch, self.perspective)


def register(
    moving: Float[Pixels, "c h w"],
    fixed: Float[Pixels, "c h w"],
    model: Model = "rigid",
) -> Motion:
    """Returns the motion for which `warp(moving, motion.places(h, w))` is most like the fixed picture.

    Least squares over the pixels that both pictures have, by Levenberg-Marquardt, through the warp; first at a scale
    where the shorter side has 16 to 31 pixels, then at twice that, and so on. Good values: motions of less than a
    tenth of the picture, 10 degrees, and pictures with structure everywhere. Breaks when: brightness differs (divide by
    it first), patterns repeat, or less than a third of the pictures overlaps.

    Args:
        moving: the picture that is moved.
        fixed: the picture that it is moved to, of the same shape.
        model: "shift", "rigid" (and a rotation), "affine" or "homography".

    Raises:
        InputError: for another model, for pictures of different shapes, of whole numbers or with numbers that are not
            finite, and for fewer than 16 pixels on a side.

    Examples:
        >>> rows, columns = jnp.meshgrid(jnp.arange(48.0), jnp.arange(48.0), indexing="ij")
        >>> scene = lambda r, c: (jnp.sin(r / 3.0) + jnp.cos(c / 4.0 + r / 9.0))[None]
        >>> motion = ds.image.register(scene(rows, columns), scene(rows + 1.5, columns - 0.5), "shift")
        >>> print(motion.shift.round(2))
        [ 1.5 -0.5]
    """
    if model not in MODELS:
        raise InputError(f"model={model!r}: give one of {', '.join(MODELS)}")
    for picture in (moving, fixed):
        check_floating(picture)
        if not np.isfinite(picture).all():
            raise InputError("a picture has numbers that are not finite")
    if moving.shape != fixed.shape:
        raise InputError(f"pictures of shapes {moving.shape} and {fixed.shape}: give two of one shape")
    if min(fixed.shape[1:]) < SMALLEST:
        raise InputError(f"{fixed.shape[1]} x {fixed.shape[2]} pixels: give at least {SMALLEST} on each side")
    pyramid = [(jnp.asarray(moving, float), jnp.asarray(fixed, float))]
    while min(pyramid[-1][0].shape[1:]) >= 2 * SMALLEST:
        coarser, other = (halved(picture) for picture in pyramid[-1])
        pyramid.append((coarser, other))
    motion = Motion()
    free = trainable(motion, *MODELS[model])
    for number, level in enumerate(reversed(pyramid)):
        motion = motion.scaled(2.0) if number else motion
        smooth = tuple(_smooth(picture) for picture in level)
        motion, _ = fit_least_squares(_differences, motion, smooth, filter_spec=free, rtol=1e-6, progress=False)
    return motion


def _smooth(picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """The picture without the finest detail, which interpolation loses: the more, the farther from whole pixels."""
    height, width = picture.shape[1:]
    wide = pad(picture, EDGE, EDGE)
    rows = jnp.sum(jnp.stack([weight * wide[:, k : k + height] for k, weight in enumerate(BINOMIAL)]), axis=0)
    return jnp.sum(jnp.stack([weight * rows[:, :, k : k + width] for k, weight in enumerate(BINOMIAL)]), axis=0)


def _differences(motion: Motion, pictures: tuple[Array, Array]) -> Float[Array, "c h w"]:
    """The differences of the pictures where both are known, each divided by the root of how many these are."""
    moving, fixed = pictures
    height, width = fixed.shape[1:]
    places = motion.places(height, width)
    # Continuous in the motion: a pixel that came into view at once would be a jump of the loss.
    inset = lambda x: jnp.minimum(jnp.min(x, axis=0), jnp.min(last - x, axis=0))
    last = jnp.array([height - 1.0, width - 1.0])[:, None, None]
    known = jnp.clip(0.5 * (inset(places) - EDGE + 2.0), 0.0, 1.0) * (inset(pixel_places(height, width)) >= EDGE)
    weight = known / jnp.sqrt(jnp.maximum(jnp.sum(known), known.size / 9))
    return weight[None] * (warp(moving, places, "cubic") - fixed)
