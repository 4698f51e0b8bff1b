"""Small programs compiled as one native function on CPU, instead of one small call for each operation."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from .._trees import is_key
from .compilable import is_plain, operations

_BATCH = 4 * 2**20  # bytes of the states of a batch up to which one core alone is faster
# Over a batch the backend may hand these to a library, which it cannot from within a program compiled whole.
_COLLECTIVE = {"dot_general", "cumsum", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min"}


def compile_whole(function: Callable) -> Callable:
    """`function` of arrays, compiled by XLA's CPU backend into one native function.

    The backend otherwise dispatches every operation in a loop over larger buffers by itself, which for a single
    small trajectory costs several times the arithmetic. Other backends ignore the request, and so does JAX's
    tracing: values and derivatives are the same. Good for small states; large arrays lose the use of more cores.
    """

    @jax.jit
    def inner(*args):
        # Only the call is marked, not the calls within it.
        with set_xla_metadata(xla_cpu_small_call=None, inlineable=None):
            result = _using(args, function(*args))
            # A number that depends on every real array of the result, as do its derivatives.
            return result, _sum_of_firsts([x for x in jax.tree.leaves(result) if eqx.is_inexact_array(x) and x.size])

    @jax.jit
    @functools.wraps(function)
    def wrapped(*args):
        # Behind a barrier no argument is a constant, which the compiler would draw into the function.
        args = lax.optimization_barrier(args)
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            result, number = inner(*args)
        # Of a single large result the backend of jaxlib 0.10 shares out the work, which a whole program cannot.
        return lax.optimization_barrier((result, number))[0]

    return wrapped


def compile_small(function: Callable, size: int) -> Callable:
    """`function` of arrays compiled whole; under `vmap` only if all its members together are small and plain.

    Its loops are over so many bytes (`size`); what else it is given, such as a record of states, does not count.
    """
    call = jax.custom_batching.custom_vmap(compile_whole(function))
    alone = jax.custom_jvp(call)

    @call.def_vmap
    def each(axis_size, batched, *args):
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        many = jax.vmap(function, in_axes=axes, axis_size=axis_size)
        if axis_size * size <= _BATCH:
            names = operations(many, *args)
            many = compile_whole(many) if is_plain(names) and _COLLECTIVE.isdisjoint(names) else many
        out = many(*args)
        return out, jax.tree.map(lambda _: True, out)

    @alone.defjvp
    def tangents(primals, tangents):
        out = alone(*primals)
        rates = iter(_rates(function, size, primals, tangents))
        filled = lambda x: next(rates) if eqx.is_inexact_array(x) else np.zeros(jnp.shape(x), jax.dtypes.float0)
        return out, jax.tree.map(filled, out)

    return alone


def _rates(function: Callable, size: int, primals, tangents) -> list:
    """The tangents of the real arrays of `function(*primals)`, by a program of their own.

    The derivative of a call that is marked may have arguments that are of no use to it, which ends the process.
    """
    leaves, tree = jax.tree.flatten(primals)
    real = [i for i, x in enumerate(leaves) if eqx.is_inexact_array(x)]
    directions = jax.tree.leaves(tangents)

    def along(leaves, directions):
        def moving(*numbers):
            given = dict(zip(real, numbers, strict=True))
            return function(*jax.tree.unflatten(tree, [given.get(i, x) for i, x in enumerate(leaves)]))

        _, rates = jax.jvp(moving, [leaves[i] for i in real], directions)
        return [rate for rate in jax.tree.leaves(rates) if rate.dtype != jax.dtypes.float0]

    return compile_small(along, 2 * size)(leaves, [directions[i] for i in real])


def _using(args, result):
    """The result, in a way that makes every argument matter to every part of it.

    XLA's CPU backend aborts the process where a program compiled whole has an argument that turns out to be unused,
    for which it suffices that a loop carries a number, or the caller is given a result, that nobody needs.
    """
    numbers = [x for x in jax.tree.leaves(args) if eqx.is_array(x) and x.size and not is_key(x)]
    if not numbers:
        return result
    total = _sum_of_firsts(numbers)
    # No number is both, which the compiler does not work out.
    never = (total != total) & (total == 0)

    def tie(x):
        if not eqx.is_array(x) or is_key(x) or not x.size:
            return x
        # One number of it is enough, and spares a copy.
        first = _first(x)
        # The other number always differs: of two equal constants the compiler takes one, and forgets the arguments.
        other = (first == 0).astype(first.dtype)
        return lax.dynamic_update_slice(x, jnp.where(never, other, first), (0,) * x.ndim)

    return jax.tree.map(tie, result)


def _first(x):
    """The first number of an array, in an array of as many dimensions."""
    return lax.slice(x, (0,) * x.ndim, (1,) * x.ndim)


def _sum_of_firsts(arrays):
    return sum((_first(x).real.astype(float).ravel()[0] for x in arrays), start=0.0)
