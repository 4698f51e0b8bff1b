"""Modes of differentiation: forward-mode derivatives served to whichever mode asks."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree


def few_inputs(function: Callable) -> Callable:
    """`function` with its derivatives taken in forward mode, together with the value, in every mode of use.

    For functions of a handful of numbers that are costly to evaluate, such as a simulator with a few controls: a
    tangent for each input travels along with the value, so that reverse mode costs one small product and no
    memory, and needs no reverse rule of the function. The inputs are the real arrays of the arguments, as far as they
    are being differentiated; everything else is passed on. `jit`, `vmap`, `grad`, `jacfwd` and `hessian` all work.

    Good values: up to about ten inputs in all. Breaks when: the function closes over an array that is itself
    differentiated (JAX refuses that with an error); make it an argument.
    """

    @functools.wraps(function)
    def wrapped(*args):
        # Every array is handed through, so that none is captured by a rule that outlives this trace.
        arrays, rest = eqx.partition(args, eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        return _served(lambda *leaves: function(*eqx.combine(jax.tree.unflatten(tree, leaves), rest)), leaves)

    return wrapped


def _served(function, leaves):
    """The value of `function` of arrays, with a rule that takes the columns of its Jacobian along.

    Only the columns of arrays that are being differentiated are computed.
    """
    call = jax.custom_jvp(function)

    def rule(primals, tangents):
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]
        flat, unravel = ravel_pytree([primals[i] for i in moving])
        direction, _ = ravel_pytree([tangents[i] for i in moving])

        def along(flat):
            leaves = list(primals)
            for i, leaf in zip(moving, unravel(flat), strict=True):
                leaves[i] = leaf
            return function(*leaves)

        value, columns = jax.vmap(lambda e: jax.jvp(along, (flat,), (e,)), out_axes=(None, -1))(
            jnp.eye(flat.size, dtype=flat.dtype)
        )
        # The tangent of an integer output is an empty placeholder, the same in every direction.
        return value, jax.tree.map(lambda c: c @ direction if eqx.is_inexact_array(c) else c[..., 0], columns)

    call.defjvp(rule, symbolic_zeros=True)
    return call(*leaves)
