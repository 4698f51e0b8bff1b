"""What moves when derivatives are taken: arrays held constant, and arrays whose tangents are carried together."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero


def freeze(tree):
    """The same tree, treated as constant by differentiation."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


@jax.custom_jvp
def moving_together(numbers: list) -> list:
    """The same arrays, with tangents for all of them, be they zero, if there is one for any.

    JAX goes through the body of a loop again for as long as it finds tangents that were not there at its beginning.
    """
    return numbers


def _together(primals, tangents):
    (numbers,), (found,) = primals, tangents
    nothing = 0 * sum(jnp.ravel(x)[0] for x in found if not isinstance(x, SymbolicZero))
    filled = [jnp.zeros_like(x) if isinstance(t, SymbolicZero) else t for x, t in zip(numbers, found, strict=True)]
    return numbers, [t + nothing for t in filled]


moving_together.defjvp(_together, symbolic_zeros=True)
