"""Straight-through estimators: the limits of an actuator, with a biased gradient that a policy can learn from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


@jax.custom_vjp
def straight_through_clip(x: Float[Array, "..."], low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """`x` clipped to its limits, with the gradient of the identity except where descent would lead further outwards.

    The true gradient is zero beyond the limits, so that a policy whose output is saturated never learns. The gradient
    of the identity can drive a saturated output further and further out. This gradient is zero only where a descent
    step leads outwards. The limits have no gradient. Reverse mode only.

    Good values: for the output of a policy without an output activation. Breaks when: the loss is maximized instead of
    minimized (negate it).

    Args:
        x: The command, any shape.
        low, high: The limits.

    Examples:
        >>> clip, x = lambda x: ds.control.straight_through_clip(x, -1.0, 1.0), jnp.array(3.0)
        >>> float(clip(x)), float(jax.grad(clip)(x)), float(jax.grad(lambda x: -clip(x))(x))  # inwards, outwards
        (1.0, 1.0, 0.0)
    """
    return jnp.clip(x, low, high)


def _clip_forward(x, low, high):
    return straight_through_clip(x, low, high), (x, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))


def _clip_backward(residuals, cotangent):
    x, low, high = residuals
    outwards = ((x > high) & (cotangent < 0)) | ((x < low) & (cotangent > 0))
    return jnp.where(outwards, 0.0, cotangent), jnp.zeros_like(low), jnp.zeros_like(high)


straight_through_clip.defvjp(_clip_forward, _clip_backward)


def straight_through_sign(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 where `x` is above zero and -1 elsewhere, with the gradient of the identity within +-1.

    It is for actuators that can only apply their full force to either side: the simulation has the discontinuous
    control of the machine, and yet the policy has a gradient. Beyond +-1 the gradient is zero where a descent step
    leads outwards, as in `straight_through_clip`. Reverse mode only.

    Args:
        x: The command, any shape.

    Source: Y. Bengio, N. Leonard, A. Courville, Estimating or propagating gradients through stochastic neurons for
    conditional computation (2013), arXiv:1308.3432, section 4.

    Examples:
        >>> x = jnp.array([-0.5, 0.5])
        >>> ds.control.straight_through_sign(x).tolist()
        [-1.0, 1.0]
        >>> jax.grad(lambda x: jnp.sum(ds.control.straight_through_sign(x)))(x).tolist()
        [1.0, 1.0]
    """
    soft = straight_through_clip(x, -1.0, 1.0)
    hard = jnp.where(x > 0, jnp.ones_like(x), -jnp.ones_like(x))
    # The value is the hard sign, the derivative that of the clipped input.
    return soft + jax.lax.stop_gradient(hard - soft)
