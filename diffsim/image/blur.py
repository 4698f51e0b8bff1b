"""Blur by a point spread function: pictures of moving cameras and of lenses out of focus."""

from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.fft import next_fast_len

from .._errors import InputError
from .._jax.tracers import is_tracer
from .._types import ScalarLike
from .values import Pixels, check_floating

Kernel = Float[Pixels, "rows columns"]
SUM_ERROR = 1e-3  # by which a kernel's sum may differ from 1
SAMPLES = 8  # of a line, in each pixel of its kernel's width


def blur(picture: Float[Pixels, "c h w"], kernel: Kernel) -> Float[Array, "c h2 w2"]:
    """Returns the convolution of each plane with the kernel, where the kernel lies within the picture.

        out[c, y, x] = sum over i, j of kernel[i, j] picture[c, y + rows - 1 - i, x + columns - 1 - j]

    The result is smaller than the picture by the size of the kernel less one: nothing is assumed about what lies
    beyond the edge. Differentiable in both arguments.

    Args:
        picture: the sharp picture.
        kernel: the point spread function, of odd sizes, with sum 1.

    Raises:
        InputError: for a kernel of even size, larger than the picture or of another sum, and for a picture of whole
            numbers.

    Examples:
        >>> step = jnp.array([[[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]])
        >>> print(ds.image.blur(step, jnp.array([[0.25, 0.5, 0.25]])).round(6))
        [[[0.   0.25 0.75 1.  ]]]
    """
    check_kernel(picture, kernel)
    _, height, width = picture.shape
    return Convolution(kernel, height, width, jnp.result_type(picture)).apply(jnp.asarray(picture))


def motion_kernel(length: ScalarLike, angle: ScalarLike, size: int | None = None) -> Float[Array, "size size"]:
    """Returns the blur of a camera that moves along a straight line at constant speed.

    Each point of the line is shared linearly among the four pixels around it, so that the kernel is continuous in
    length and angle, and differentiable if `size` is given.

    Args:
        length: of the line in pixels, at least 0.
        angle: from the direction of a row to that of a column (rad).
        size: rows and columns, an odd number; by default the least that contains the line at any angle.

    Raises:
        InputError: for a negative length, an even size, and one too small for the line; for a traced length without
            a size.

    Examples:
        >>> print(ds.image.motion_kernel(2.0, 0.0).round(3))
        [[0.   0.   0.  ]
         [0.25 0.5  0.25]
         [0.   0.   0.  ]]
    """
    size = _checked_size("length", length, lambda length: 2 * int(np.ceil(length / 2)) + 1, size)
    places = (jnp.arange(SAMPLES * size) + 0.5) / (SAMPLES * size) - 0.5
    pixels = jnp.arange(size) - (size - 1) / 2
    near = lambda along: jnp.maximum(1.0 - jnp.abs(pixels[:, None] - along[None]), 0.0)
    rows, columns = near(length * jnp.sin(angle) * places), near(length * jnp.cos(angle) * places)
    kernel = rows @ columns.T
    return kernel / jnp.sum(kernel)


def disc_kernel(radius: ScalarLike, size: int | None = None) -> Float[Array, "size size"]:
    """Returns the blur of a lens out of focus: a disc whose edge is a pixel wide.

    Differentiable in the radius if `size` is given.

    Args:
        radius: of the disc in pixels, at least 0.
        size: rows and columns, an odd number; by default the least that contains the disc.

    Raises:
        InputError: for a negative radius, an even size, and one too small for the disc; for a traced radius without a
            size.

    Examples:
        >>> print(ds.image.disc_kernel(1.0).round(3))
        [[0.026 0.15  0.026]
         [0.15  0.299 0.15 ]
         [0.026 0.15  0.026]]
    """
    size = _checked_size("radius", radius, lambda radius: 2 * int(np.ceil(radius + 0.5)) - 1, size)
    squares = (np.arange(size) - (size - 1) / 2) ** 2
    distances = np.sqrt(squares[:, None] + squares[None])
    kernel = jnp.clip(radius - distances + 0.5, 0.0, 1.0)
    return kernel / jnp.sum(kernel)


def _checked_size(name: str, value, least, size: int | None) -> int:
    """The size of a kernel, checked against the least one that contains its shape where the value is known."""
    if is_tracer(value):
        if size is None:
            raise InputError(f"{name} is traced, and the size of the kernel depends on it: give size")
        needed = 1
    else:
        if not 0.0 <= float(value) < np.inf:
            raise InputError(f"{name}={float(value):g} px: give a finite number of at least 0")
        needed = max(least(float(value)), 1)
    size = needed if size is None else size
    if size % 2 == 0 or size < needed:
        raise InputError(f"size={size}: give an odd number of at least {needed}")
    return size


def check_kernel(picture, kernel) -> None:
    """Checks the kernel of a picture; its sum only where it is known, outside `jit` and derivatives.

    Raises:
        InputError: for a kernel of even size, larger than the picture or of another sum than 1, and for a picture of
            whole numbers.
    """
    check_floating(picture)
    rows, columns = kernel.shape
    size = f"{rows} x {columns}"
    if rows % 2 == 0 or columns % 2 == 0:
        raise InputError(f"kernel of {size} pixels has no centre: add a row or column of zeros")
    if rows > picture.shape[1] or columns > picture.shape[2]:
        own = f"{picture.shape[1]} x {picture.shape[2]}"
        raise InputError(f"kernel of {size} pixels is larger than the picture of {own}: cut off what is zero around it")
    if not is_tracer(kernel):
        total = float(np.sum(np.asarray(kernel, float)))
        if not abs(total - 1.0) <= SUM_ERROR:
            raise InputError(f"kernel with sum {total:g} changes the brightness: divide it by its sum, so that it is 1")


def check_positive(name: str, value) -> None:
    """Checks that a number is finite and above 0. Values that are being traced pass.

    Raises:
        InputError: for another number.
    """
    if not is_tracer(value) and not 0.0 < float(value) < np.inf:
        raise InputError(f"{name}={float(value):g}: give a finite number above 0")


class Convolution:
    """The convolution of pictures of one size with a kernel where that lies within them, and its adjoint, by FFT.

    Args:
        kernel: the kernel.
        height, width: of the pictures.
        dtype: of the pictures.
    """

    def __init__(self, kernel: Kernel, height: int, width: int, dtype):
        self.reach = kernel.shape[0] - 1, kernel.shape[1] - 1
        self.size = height, width
        self.padded = tuple(cast(int, next_fast_len(size, real=True)) for size in self.size)
        self.spectrum = jnp.fft.rfft2(jnp.asarray(kernel, dtype), self.padded)

    def apply(self, picture: Float[Array, "c h w"]) -> Float[Array, "c h2 w2"]:
        """Returns the convolution, smaller by the size of the kernel less one."""
        (top, left), (height, width) = self.reach, self.size
        whole = jnp.fft.irfft2(jnp.fft.rfft2(picture, self.padded) * self.spectrum[None], self.padded)
        return whole[:, top:height, left:width]

    def adjoint(self, picture: Float[Array, "c h2 w2"]) -> Float[Array, "c h w"]:
        """Returns the picture on which the adjoint of the convolution maps one of the smaller size."""
        (top, left), (height, width) = self.reach, self.size
        wide = jnp.pad(picture, ((0, 0), (top, 0), (left, 0)))
        whole = jnp.fft.irfft2(jnp.fft.rfft2(wide, self.padded) * jnp.conj(self.spectrum)[None], self.padded)
        return whole[:, :height, :width]
