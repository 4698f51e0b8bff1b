"""A function with a derivative rule of its own: the Legendre polynomial P3, as a worked example."""

import jax
from jaxtyping import ArrayLike, Inexact


@jax.custom_jvp
def legendre3(x: Inexact[ArrayLike, "*shape"]) -> Inexact[ArrayLike, "*shape"]:
    """The Legendre polynomial P3(x) = (5 x^3 - 3 x) / 2, whose derivative JAX takes from the rule below.

    jax.grad(legendre3)(0.6)  # 1.2
    """
    return 0.5 * (5 * x**3 - 3 * x)


@legendre3.defjvp
def _rule(primals, tangents):
    """P3'(x) = (15 x^2 - 3) / 2. The rule is linear in the tangent, so that it serves reverse mode too."""
    (x,), (dx,) = primals, tangents
    return legendre3(x), 1.5 * (5 * x**2 - 1) * dx
