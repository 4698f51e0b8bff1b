"""What an actuator does to a command, with the gradient that a network can learn from. Both are biased, by name."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


@jax.custom_vjp
def saturate(x: Float[Array, "..."], low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """`x` within its limits; the gradient passes wherever descending along it leads inwards.

    The true gradient is zero beyond the limits, so that a network whose output is saturated would never learn; the
    identity's would drive it ever farther out. This one is zero only where a descent step leads outwards. The limits
    are given no gradient. Reverse mode only.

    Good values: for the output of a policy without an output function. Breaks when: the loss is maximised instead of
    minimized (negate it).
    """
    return jnp.clip(x, low, high)


def _saturate_forward(x, low, high):
    return saturate(x, low, high), (x, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))


def _saturate_backward(kept, slope):
    x, low, high = kept
    outwards = ((x > high) & (slope < 0)) | ((x < low) & (slope > 0))
    return jnp.where(outwards, 0.0, slope), jnp.zeros_like(low), jnp.zeros_like(high)


saturate.defvjp(_saturate_forward, _saturate_backward)


def sign(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 where `x` is above zero and -1 elsewhere, with the gradient of the identity within +-1 (straight-through).

    For actuators that know only full left and full right: the simulation then runs as the machine will, and the
    network still learns. Beyond +-1 the gradient passes only inwards (`saturate`). Reverse mode only.

    Source: Y. Bengio, N. Leonard, A. Courville, Estimating or propagating gradients through stochastic neurons for
    conditional computation (2013), arXiv:1308.3432, section 4.
    """
    soft = saturate(x, -1.0, 1.0)
    hard = jnp.where(x > 0, jnp.ones_like(x), -jnp.ones_like(x))
    # The value is the hard one, the derivative that of the soft one.
    return soft + jax.lax.stop_gradient(hard - soft)
