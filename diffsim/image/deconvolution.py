"""Deconvolution: the sharp picture behind one that is blurred by a known point spread function, and noisy."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import ScalarLike
from ..parameters import param
from .blur import Convolution, Kernel, check_kernel, check_positive
from .ops.correlate import stencil
from .ops.pad import pad
from .values import Pixels

Planes = Float[Array, "c h w"]
FILTERS = np.zeros((5, 3, 3))
FILTERS[0, 1, 1:] = FILTERS[1, 1:, 1] = -1.0, 1.0
FILTERS[2, 1] = FILTERS[3, :, 1] = 1.0, -2.0, 1.0
FILTERS[4, 1:, 1:] = (1.0, -1.0), (-1.0, 1.0)
"""First differences along rows and columns, second ones, and the mixed one."""


class Deconvolution(eqx.Module):
    """The picture x that agrees with a blurred picture y = K x + noise, and whose filtered values are mostly small.

    Minimises by iteratively reweighted least squares

        |K x - y|^2 + noise^2 sum over i, pixels of weight_i (f_i * x)^2

    with the filters f_i, less their means, and the weights of the estimate before, which are small at its edges:

        weight_i = strength_i (m_i + width_i^2)^(power_i / 2 - 1)

    Here m_i is the mean of (f_i * x)^2 over the planes, which have their edges at the same places. Without the width
    this is the prior |f_i * x|^power_i of natural pictures. Each least-squares problem is solved by conjugate
    gradients, from the estimate before.

    The pixels beyond the edge that the blur carried into the picture are unknowns as well. They are estimated with the
    others and cut away, so that nothing is assumed about them, and no pixel of y is left out.

    Sources: the prior of Levin et al. (2007) and Krishnan & Fergus (2009), filters and weights trained end to end as by
    Schmidt & Roth (2014), unknown edges of Almeida & Figueiredo (2013).

    Attributes:
        filters: of the prior, at first the first and second differences.
        strengths: by how much a filter counts, in units of the noise.
        widths: the filtered value (white is 1) from which the weights fall.
        powers: 2 for a quadratic prior; below 1 for one that preserves edges.
        reweightings: how often the weights are computed.
        cg_steps: of conjugate gradients after each, at most.
        rtol: the residual relative to the first at which they end.
        adjoint: "implicit" differentiates the solution of each linear system by the implicit function theorem: another
            system with the same matrix, solved by the same method, whatever the number of steps. It is exact as far as
            the systems are solved. "unrolled" differentiates the steps; reverse mode stores all of those of one
            reweighting.

    Examples:
        >>> scene = jnp.zeros((1, 24, 24)).at[:, 8:16, 8:16].set(1.0)
        >>> kernel = ds.image.motion_kernel(4.0, 0.0)
        >>> blurred = ds.image.blur(scene, kernel)
        >>> sharp = ds.image.Deconvolution()(blurred, kernel)
        >>> error = lambda x: float(jnp.mean((x - scene[:, 2:-2, 2:-2]) ** 2))
        >>> error(sharp) < 0.05 * error(blurred)
        True
    """

    filters: Float[Array, "5 3 3"] = param(FILTERS)
    strengths: Float[Array, " 5"] = param(np.full(5, 1.0), bounds=(0.0, 1e6))
    widths: Float[Array, " 5"] = param(np.full(5, 0.01), bounds=(1e-4, 1.0))
    powers: Float[Array, " 5"] = param(np.full(5, 0.8), bounds=(0.0, 2.0))
    reweightings: int = eqx.field(static=True, default=6)
    cg_steps: int = eqx.field(static=True, default=15)
    rtol: float = eqx.field(static=True, default=1e-4)
    adjoint: Literal["implicit", "unrolled"] = eqx.field(static=True, default="implicit")

    def __check_init__(self):
        if self.adjoint not in ("implicit", "unrolled"):
            raise InputError(f"adjoint={self.adjoint!r}: give one of implicit, unrolled")
        for name in ("reweightings", "cg_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: give at least 1")

    def __call__(self, picture: Float[Pixels, "c h w"], kernel: Kernel, noise: ScalarLike = 0.01) -> Planes:
        """Returns the sharp picture, of the size of the blurred one.

        Args:
            picture: blurred and noisy, in [0, 1].
            kernel: the point spread function, of odd sizes, with sum 1.
            noise: its standard deviation, above 0, since only the prior determines pixels outside; more
                makes the picture smoother.

        Raises:
            InputError: for a kernel of even size, larger than the picture or of another sum, a picture of whole
                numbers, and noise that is not positive.
        """
        check_kernel(picture, kernel)
        check_positive("noise", noise)
        picture = jnp.asarray(picture)
        top, left = (n // 2 for n in kernel.shape)
        start = pad(picture, top, left)
        _, height, width = start.shape
        convolution = Convolution(kernel, height, width, picture.dtype)
        filtered = self._filters(picture.dtype)
        filters_adjoint = jax.linear_transpose(filtered, start)
        variance = jnp.asarray(noise, picture.dtype) ** 2

        def reweighted(estimate, _):
            weights = variance * self._weights(filtered(estimate))

            def normal(x):
                (prior,) = filters_adjoint(weights * filtered(x))
                return convolution.adjoint(convolution.apply(x)) + prior

            residual = convolution.adjoint(picture) - normal(estimate)
            return estimate + self._solved(normal, residual), None

        estimate, _ = lax.scan(jax.checkpoint(reweighted), start, length=self.reweightings)
        return estimate[:, top : top + picture.shape[1], left : left + picture.shape[2]]

    def _filters(self, dtype) -> Callable[[Planes], Float[Array, "k c h2 w2"]]:
        """The function that filters each plane, whose outermost pixels are repeated beyond its edge."""
        filters = (self.filters - jnp.mean(self.filters, axis=(1, 2), keepdims=True)).astype(dtype)[:, None]
        return lambda x: jax.vmap(lambda plane: stencil(plane[None], filters, "edge"), out_axes=1)(x)

    def _weights(self, filtered: Float[Array, "k c h w"]) -> Float[Array, "k 1 h w"]:
        column = lambda x: x.astype(filtered.dtype)[:, None, None, None]
        squares = jnp.mean(filtered**2, axis=1, keepdims=True)
        exponent = column(0.5 * self.powers - 1.0)
        return column(self.strengths) * (squares + column(self.widths) ** 2) ** exponent

    def _solved(self, matrix: Callable[[Planes], Planes], right: Planes) -> Planes:
        """The solution of a symmetric positive semidefinite system."""
        if self.adjoint == "unrolled":
            return conjugate_gradients(matrix, right, self.cg_steps, self.rtol, unrolled=True)
        solve = lambda matrix, right: conjugate_gradients(matrix, right, self.cg_steps, self.rtol)
        return lax.custom_linear_solve(matrix, right, solve, symmetric=True)


def conjugate_gradients(
    matrix: Callable[[Planes], Planes], right: Planes, steps: int, rtol: float, *, unrolled: bool = False
) -> Planes:
    """Returns the solution of `matrix(x) = right` for a symmetric positive semidefinite matrix, from x = 0.

    Args:
        matrix: the product of the matrix and x.
        right: the right-hand side.
        steps: the greatest number of steps.
        rtol: the norm of the residual relative to that of `right` at which they end.
        unrolled: whether all steps are made, so that reverse mode can pass through them; those after the end change
            nothing.
    """
    limit = rtol**2 * jnp.vdot(right, right)

    def step(state):
        x, residual, direction, square = state
        # Zero over zero after the end: the inner `where` keeps the derivatives of the unused quotients finite.
        active = square > limit
        image = matrix(direction)
        quotient = lambda a, b: jnp.where(active, a / jnp.where(active, b, 1.0), 0.0)
        size = quotient(square, jnp.vdot(direction, image))
        x, residual = x + size * direction, residual - size * image
        next_square = jnp.vdot(residual, residual)
        return x, residual, residual + quotient(next_square, square) * direction, next_square

    start = jnp.zeros_like(right), right, right, jnp.vdot(right, right)
    if unrolled:
        return lax.scan(lambda state, _: (step(state), None), start, length=steps)[0][0]
    going_on = lambda state: (state[1][3] > limit) & (state[0] < steps)
    return lax.while_loop(going_on, lambda state: (state[0] + 1, step(state[1])), (0, start))[1][0]
