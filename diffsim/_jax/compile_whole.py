"""Small programs compiled as one native function on CPU.

XLA's CPU backend dispatches the operations of a loop one by one, which for small states costs several times as much as
the arithmetic. The attribute `xla_cpu_small_call` of a call asks it to compile the call as one function instead.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from .._trees import is_key
from .plain_operations import MATRIX_PRODUCT, is_plain, names_in, operations

_BATCH = 4 * 2**20  # bytes of the states of a batch, up to which a single core is faster
# Over a batch the backend may call a library for these operations, but not in a program compiled whole.
_COLLECTIVE = {"dot_general", "cumsum", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min"}


def compile_whole(function: Callable) -> Callable:
    """Returns `function`, compiled by XLA's CPU backend as one native function.

    Otherwise the backend dispatches every operation of a loop by itself, which for a single small trajectory costs
    several times as much as the arithmetic. Values and derivatives are the same, and other backends ignore the request.
    It pays for small states; operations on large arrays can then use only one core. A program with products of matrices
    of eight or more rows or columns is compiled as usual, because the backend hands those to a library.

    Args:
        function: A function of arrays.

    Examples:
        >>> field, ts = lambda t, y, rate: -rate * y, jnp.array([0.0, 1.0])
        >>> last = lambda rate: ds.integrate(field, jnp.array(1.0), ts, rate)[-1]
        >>> print(f"{ds.compilation.compile_whole(jax.grad(last))(jnp.array(2.0)):.5f}")  # -exp(-2)
        -0.13534
    """

    @jax.jit
    @functools.wraps(function)
    def checked(*args):
        # Traced once, and then run from the trace.
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        run = jex.core.jaxpr_as_fun(program)
        run = run if MATRIX_PRODUCT in names_in(program.jaxpr) else _request(run)
        return jax.tree.unflatten(jax.tree.structure(shape), run(*jax.tree.leaves(args)))

    return checked


def _request(function: Callable) -> Callable:
    """The function with the request that the backend compile it as one native function."""

    @jax.jit
    def inner(*args):
        # Only the call is marked, not the calls within it.
        with set_xla_metadata(xla_cpu_small_call=None, inlineable=None):
            result = _using(args, function(*args))
            # This number depends on every real array of the result, and so do its derivatives.
            return result, _sum_of_firsts([x for x in jax.tree.leaves(result) if eqx.is_inexact_array(x) and x.size])

    @jax.jit
    @functools.wraps(function)
    def wrapped(*args):
        # Behind a barrier no argument is a constant, which the compiler would move into the function.
        args = lax.optimization_barrier(args)
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            result, number = inner(*args)
        # jaxlib 0.10 divides the work on a single large result among threads, which a program compiled whole cannot do.
        return lax.optimization_barrier((result, number))[0]

    return wrapped


def compile_small(function: Callable, size: int) -> Callable:
    """Returns `function` compiled whole; under `vmap` only if the batch is small and its operations allow it.

    Args:
        function: A function of arrays.
        size: The size in bytes of the state of its loops. Other arguments, such as recorded states, do not count.
    """
    call = jax.custom_batching.custom_vmap(_request(function))
    alone = jax.custom_jvp(call)

    @call.def_vmap
    def each(axis_size, batched, *args):
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        many = jax.vmap(function, in_axes=axes, axis_size=axis_size)
        # The size of an exported program's batch may be a symbol.
        if isinstance(axis_size, int) and axis_size * size <= _BATCH:
            names = operations(many, *args)
            many = _request(many) if is_plain(names) and _COLLECTIVE.isdisjoint(names) else many
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
    """The tangents of the real arrays of `function(*primals)`, by a separate program.

    The derivative of a call that is compiled whole may have unused arguments, for which the backend ends the process.
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
    """The result, changed such that every part of it depends on every argument.

    XLA's CPU backend ends the process if a program compiled whole has an argument that turns out to be unused. That
    happens as soon as a loop carries a number, or a call returns a result, that nothing uses.
    """
    numbers = [x for x in jax.tree.leaves(args) if eqx.is_array(x) and x.size and not is_key(x)]
    if not numbers:
        return result
    total = _sum_of_firsts(numbers)
    # No number satisfies both, but the compiler does not detect that.
    never = (total != total) & (total == 0)

    def tie(x):
        if not eqx.is_array(x) or is_key(x) or not x.size:
            return x
        # One element is enough, and avoids a copy.
        first = _first(x)
        # The other number always differs: for two equal constants the compiler would drop the selection.
        other = (first == 0).astype(first.dtype)
        return lax.dynamic_update_slice(x, jnp.where(never, other, first), (0,) * x.ndim)

    return jax.tree.map(tie, result)


def _first(x):
    """The first element of an array, as an array of the same number of dimensions."""
    return lax.slice(x, (0,) * x.ndim, (1,) * x.ndim)


def _sum_of_firsts(arrays):
    return sum((_first(x).real.astype(float).ravel()[0] for x in arrays), start=0.0)
