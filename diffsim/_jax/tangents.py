"""What moves when derivatives are taken: arrays held constant, and arrays whose tangents are carried together."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._errors import InputError
from .custom_rule import custom_jvp
from .linear_map import linear_map


def freeze(tree):
    """The same tree, treated as constant by differentiation."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


@custom_jvp
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


moving_together.defjvp(_together)


@custom_jvp
def _forward_only(numbers: list) -> list:
    return numbers


def _no_reverse(residuals, cotangents):
    raise InputError(
        'mode="forward" has no derivative in reverse mode: use mode="auto" or "replay", or jax.jacfwd; for reverse '
        "mode over a derivative, jax.hessian, which is forward over reverse"
    )


@_forward_only.defjvp
def _(primals, tangents):
    live = [i for i, t in enumerate(tangents[0]) if not isinstance(t, SymbolicZero)]
    rates = list(tangents[0])
    carried = linear_map(lambda _, inputs: inputs, _no_reverse, [], [rates[i] for i in live])
    for i, rate in zip(live, carried, strict=True):
        rates[i] = rate
    return primals[0], rates


def forward_only(tree):
    """The same tree, of which reverse mode is refused in words before it comes to a loop that has no transpose."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(numbers)
    return eqx.combine(jax.tree.unflatten(structure, _forward_only(leaves)), rest)
