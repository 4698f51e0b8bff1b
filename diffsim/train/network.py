"""Networks whose output respects physical limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._errors import InputError
from ..parameters import constant_field


class BoundedMLP(eqx.Module):
    """A multilayer perceptron whose outputs stay between `low` and `high`, whatever its weights.

    `low` and `high` are scalars or one value per output; with scalars the network returns a vector of length
    `outputs`, or a scalar if `outputs` is None. `scale` divides the inputs: their typical size.
    These three are no parameters: `ds.parameters` does not list them and a fit leaves them as they are.
    """

    layers: eqx.nn.MLP
    low: Float[Array, "..."] = constant_field()
    high: Float[Array, "..."] = constant_field()
    scale: Float[Array, "..."] = constant_field()

    def __init__(
        self,
        inputs: int,
        low: ArrayLike,
        high: ArrayLike,
        *,
        outputs: int | None = None,
        width: int = 16,
        depth: int = 2,
        scale: ArrayLike = 1.0,
        key: PRNGKeyArray,
    ):
        low, high = jnp.broadcast_arrays(jnp.asarray(low, float), jnp.asarray(high, float))
        if not bool(jnp.all(low < high)):
            raise InputError(f"low={low} and high={high}: each lower limit must be below its upper limit")
        if outputs is None and low.ndim == 1:
            outputs = low.shape[0]
        size = "scalar" if outputs is None else outputs
        self.layers = eqx.nn.MLP(inputs, size, width, depth, activation=jnp.tanh, key=key)
        self.low, self.high, self.scale = low, high, jnp.asarray(scale, float)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, "..."]:
        """The outputs for one input vector."""
        # The limits describe the machine; they are not learned.
        low, high, scale = jax.lax.stop_gradient((self.low, self.high, self.scale))
        return low + (high - low) * jax.nn.sigmoid(self.layers(x / scale))
