"""Stages that treat every pixel alone: balance, colour matrix, gamma, tone curve, saturation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.custom_transpose import with_adjoint
from ..._types import Scalar
from ...parameters import param
from ..demosaicing.bayer import check_even
from ..ops.box_filter import held
from ..ops.piecewise_linear import curve
from ..ops.pointwise import by_strips, summed
from ..values import check_floating
from .mixing import mixed

LUMA = (0.2126, 0.7152, 0.0722)  # of linear sRGB, ITU-R BT.709


def _mean(weights, picture):
    return weights[0] * picture[0] + weights[1] * picture[1] + weights[2] * picture[2]


def _mean_adjoint(weights, picture, cotangent):
    # By rule, the cotangent of every colour would be a whole picture with zeros for the others.
    return jnp.sum(picture * cotangent[None], axis=(1, 2)), weights[:, None, None] * cotangent[None]


_weigh = with_adjoint(_mean, _mean_adjoint, check_floating)


def luma(picture: Float[Array, "3 h w"]) -> Float[Array, "h w"]:
    """The weighted mean of the colours."""
    return _weigh(jnp.array(LUMA, picture.dtype), picture)


class Balance(eqx.Module):
    """Black level and white balance on an RGGB mosaic: (x - black) / (1 - black), times the gain of its colour.

    Values below black stay negative: cut off, their noise would brighten the shadows.
    """

    black: Scalar = param(0.05, bounds=(-0.05, 0.5))
    red: Scalar = param(1.5, bounds=(0.2, 8.0))
    blue: Scalar = param(1.5, bounds=(0.2, 8.0))

    def __call__(self, mosaic: Float[Array, "h w"]) -> Float[Array, "h w"]:
        """The balanced mosaic: grey has one value in all colours, 0 is black."""
        check_even(mosaic.shape)
        return _balanced(jnp.stack([self.black, self.red, self.blue]), mosaic)


def _gains(numbers, width: int):
    """What the values of a row with red ones, and of one with blue ones, are multiplied by."""
    black, red, blue = numbers
    is_red, is_blue = (np.tile(site, (1, width // 2)) for site in ([[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]))
    kinds = red * is_red + blue * is_blue + (1.0 - is_red - is_blue)
    return held((kinds / (1.0 - black)).astype(numbers.dtype))


def _balance(numbers, mosaic):
    rows = mosaic.reshape(-1, 2, mosaic.shape[1])
    return ((rows - numbers[0]) * _gains(numbers, mosaic.shape[1])[None]).reshape(mosaic.shape)


def _balance_adjoint(numbers, mosaic, cotangent):
    rows, bars = (x.reshape(-1, 2, mosaic.shape[1]) for x in (mosaic, cotangent))
    above, plain = (jnp.sum(x.reshape(2, -1, 2), axis=1) for x in summed([bars * (rows - numbers[0]), bars]))
    gains, scale = _gains(numbers, 2), 1.0 / (1.0 - numbers[0])
    to_black = jnp.sum(gains * (scale * above - plain))
    to_picture = (bars * _gains(numbers, mosaic.shape[1])[None]).reshape(mosaic.shape)
    return jnp.stack([to_black, scale * above[0, 0], scale * above[1, 1]]), to_picture


_balanced = with_adjoint(_balance, _balance_adjoint, check_floating)


class ColourMatrix(eqx.Module):
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


class Gamma(eqx.Module):
    """Light to display values: (1 + a) x^(1/exponent) - a above the toe, straight below it and below 0.

    `a` makes value and slope continuous at the toe. The defaults give a = 0.055 and a slope of 12.9232: within 1e-5 the
    curve of sRGB (IEC 61966-2-1), whose own toe, 0.0031308 with a slope of 12.92, has a small corner.
    """

    exponent: Scalar = param(2.4, bounds=(1.0, 4.0))
    toe: Scalar = param(0.0030399346, bounds=(1e-4, 0.1))

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """The picture as displays want it."""
        rate = 1.0 / self.exponent
        at_toe = self.toe**rate
        a = at_toe * (1.0 - rate) / (1.0 - at_toe * (1.0 - rate))
        slope = (1.0 + a) * rate * at_toe / self.toe
        # As one plane: for three, every operation would be compiled and called three times.
        plane = picture.reshape(1, -1, picture.shape[2])
        return _lit(jnp.stack([self.toe, rate, a, slope]), plane).reshape(picture.shape)


@by_strips
def _lit(numbers, planes):
    toe, rate, a, slope = numbers

    def lit(x):
        # The power has no slope at 0, where it is not used: it sees the toe there.
        power = (1.0 + a) * jnp.exp(rate * jnp.log(jnp.maximum(x, toe))) - a
        return jnp.where(x <= toe, slope * x, power)

    return [lit(x) for x in planes]


class ToneCurve(eqx.Module):
    """A monotone curve through 16 equally spaced knots, from 0 at 0 to 1 at 1, straight between and beyond them.

    `rises` are the logarithms of the rises from knot to knot, up to a common factor; equal ones make no change.
    """

    rises: Float[Array, " 15"] = param(np.zeros(15))

    @property
    def knots(self) -> Float[Array, " 16"]:
        """The curve's values at 0, 1/15, ... 1."""
        return jnp.concatenate([jnp.zeros(1, self.rises.dtype), jnp.cumsum(jax.nn.softmax(self.rises))])

    def __call__(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
        """The picture, every value by the curve."""
        return curve(jax.nn.softmax(self.rises), picture)


class Saturation(eqx.Module):
    """Colours moved away from grey: luma + factor (x - luma), the factor saturation + vibrance exp(-10 chroma).

    Chroma is the root mean square of x - luma, so that vibrance lifts pale colours and leaves strong ones.
    """

    saturation: Scalar = param(1.0, bounds=(0.0, 4.0))
    vibrance: Scalar = param(0.0, bounds=(-2.0, 2.0))

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """The picture with its colours strengthened."""
        return _saturated(jnp.stack([self.saturation, self.vibrance]), picture)


@by_strips
def _saturated(numbers, planes):
    saturation, vibrance = numbers
    grey = _mean(LUMA, planes)
    red, green, blue = colours = [plane - grey for plane in planes]
    # The small number keeps the root differentiable at grey.
    chroma = jnp.sqrt((red**2 + green**2 + blue**2) / 3.0 + 1e-6)
    factor = saturation + vibrance * jnp.exp(-10.0 * chroma)
    return [grey + factor * colour for colour in colours]


ROUND = 0.01  # where the root turns straight, as a fraction of white


@jax.custom_jvp
def root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """About sign(x) sqrt(|x|), smooth at 0: shot noise is about equally strong all over it. `square` undoes it."""
    check_floating(x)
    return x / jnp.sqrt(jnp.sqrt(x**2 + ROUND**2))


@jax.custom_jvp
def square(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of `root`."""
    check_floating(y)
    return y * jnp.sqrt(0.5 * (y**2 + jnp.sqrt(y**4 + 4.0 * ROUND**2)))


def _slope(x):
    """The derivative of the root: by rule, a picture would be kept for every operation."""
    squares = x**2 + ROUND**2
    return (0.5 * x**2 + ROUND**2) / (squares * jnp.sqrt(jnp.sqrt(squares)))


root.defjvps(lambda tangent, found, x: tangent * _slope(x))
square.defjvps(lambda tangent, found, y: tangent / _slope(found))
