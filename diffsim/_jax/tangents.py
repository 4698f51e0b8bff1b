"""Which arrays have tangents: constant arrays, arrays with tangents for all or none, arrays without reverse mode.

JAX traces the body of a loop again until no further array of its state turns out to have a tangent; reverse mode that
reaches a loop without a transpose fails with a message about the loop. The functions here prevent both.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._errors import InputError
from .custom_rule import custom_jvp
from .linear_map import linear_map


def freeze(tree):
    """Returns the same tree, constant under differentiation."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


@custom_jvp
def moving_together(numbers: list) -> list:
    """Returns the same arrays; if any of them has a tangent, then all do, if necessary zeros.

    JAX traces the body of a loop again as long as it adds tangents that the initial state does not have.
    """
    return numbers


def _together(primals, tangents):
    (numbers,), (rates,) = primals, tangents
    zero = 0 * sum(jnp.ravel(x)[0] for x in rates if not isinstance(x, SymbolicZero))
    filled = [jnp.zeros_like(x) if isinstance(t, SymbolicZero) else t for x, t in zip(numbers, rates, strict=True)]
    return numbers, [t + zero for t in filled]


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
    """Returns the same tree, for which reverse mode raises InputError before it reaches a loop without a transpose."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(numbers)
    return eqx.combine(jax.tree.unflatten(structure, _forward_only(leaves)), rest)


def without_derivative(x, message: str):
    """Returns the same array; its differentiation raises InputError with the message."""

    @custom_jvp
    def constant(x):
        return x

    @constant.defjvp
    def _(primals, tangents):
        if isinstance(tangents[0], SymbolicZero):
            return primals[0], jnp.zeros_like(primals[0])
        raise InputError(message)

    return constant(x)
