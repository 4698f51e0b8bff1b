"""Networks whose output respects physical limits."""

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ._errors import InputError
from .parameters import constant_field


class BoundedMLP(eqx.Module):
    """A multilayer perceptron whose outputs are between `low` and `high`, whatever its weights.

        low + (high - low) sigmoid(layers(x / scale))

    The activation is tanh. `low`, `high` and `scale` are not parameters: `ds.parameters` does not list them, and a fit
    leaves them as they are.

    Args:
        inputs: The length of the input vector.
        low, high: The limits, scalars or one value for each output.
        outputs: The length of the output vector; None for a scalar if the limits are scalars, else their number.
        width: The width of the hidden layers; 12 to 32 serve the controllers of the scenarios.
        depth: The number of hidden layers.
        scale: The typical size of the inputs, a scalar or one value for each, by which they are divided.
        key: The random key of the weights.

    Raises:
        InputError: If a lower limit is not below its upper limit.

    Examples:
        >>> policy = ds.BoundedMLP(4, -10.0, 10.0, key=jr.key(0))  # a force of up to 10 N
        >>> force = policy(jnp.array([0.1, 0.0, -0.2, 0.0]))
        >>> force.shape, bool(abs(force) < 10.0)
        ((), True)
    """

    layers: eqx.nn.MLP
    low: Float[Array, "..."] = constant_field()
    high: Float[Array, "..."] = constant_field()
    scale: Float[Array, "..."] = constant_field()

    def __init__(
        self,
        inputs: int,
        low: ArrayLike | Sequence[float],
        high: ArrayLike | Sequence[float],
        *,
        outputs: int | None = None,
        width: int = 16,
        depth: int = 2,
        scale: ArrayLike | Sequence[float] = 1.0,
        key: PRNGKeyArray,
    ):
        # In NumPy, which compiles nothing, and whose arrays are concrete even within a traced function.
        low, high = np.broadcast_arrays(np.asarray(low, float), np.asarray(high, float))
        if not np.all(low < high):
            raise InputError(f"low={low} and high={high}: each lower limit must be below its upper limit")
        if outputs is None and low.ndim == 1:
            outputs = low.shape[0]
        size: int | Literal["scalar"] = "scalar" if outputs is None else outputs
        self.layers = _layers(inputs, size, width, depth, key)
        self.low, self.high, self.scale = (jnp.asarray(x, float) for x in (low, high, scale))

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, "..."]:
        """The outputs for one input vector, shape (outputs,) or ()."""
        # The limits describe the machine; they are not learned.
        low, high, scale = jax.lax.stop_gradient((self.low, self.high, self.scale))
        return low + (high - low) * jax.nn.sigmoid(self.layers(x / scale))


@eqx.filter_jit
def _layers(inputs: int, outputs: int | Literal["scalar"], width: int, depth: int, key: PRNGKeyArray) -> eqx.nn.MLP:
    """The layers as Equinox initializes them, in one compiled program instead of several for each layer."""
    return eqx.nn.MLP(inputs, outputs, width, depth, activation=jnp.tanh, key=key)
