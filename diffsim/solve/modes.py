"""Modes of differentiation: forward-mode derivatives served to whichever mode asks."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


def few_inputs(function: Callable) -> Callable:
    """`function` with its derivatives taken in forward mode, together with the value, in every mode of use.

    For functions of a handful of numbers that are costly to evaluate, such as a simulator with a few controls: a
    tangent for each input travels along with the value, so that reverse mode costs one small product and no
    memory, and needs no reverse rule of the function. The real arrays of the arguments are the inputs; everything
    else is passed on. `jit`, `vmap`, `grad`, `jacfwd` and `hessian` all work.

    Good values: up to about ten inputs in all. Breaks when: the function closes over an array that is itself
    differentiated (JAX refuses that with an error); make it an argument.
    """

    @functools.wraps(function)
    def wrapped(*args):
        inputs, rest = eqx.partition(args, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(inputs)

        return _served(lambda flat: function(*eqx.combine(unravel(flat), rest)), flat)

    return wrapped


def _served(function, flat):
    """The value of `function` of one flat vector, with a rule that computes all columns of its Jacobian."""
    call = jax.custom_jvp(function)

    @call.defjvp
    def rule(primals, tangents):
        (x,), (v,) = primals, tangents
        directions = jnp.eye(x.size, dtype=x.dtype)
        value, columns = jax.vmap(lambda e: jax.jvp(function, (x,), (e,)), out_axes=(None, -1))(directions)
        # The tangent of an integer output is an empty placeholder, the same in every direction.
        return value, jax.tree.map(lambda c: c @ v if eqx.is_inexact_array(c) else c[..., 0], columns)

    return call(flat)
