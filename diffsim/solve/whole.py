"""Small programs compiled as one native function on CPU, instead of one small call for each operation."""

import functools
from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def compile_whole(function: Callable) -> Callable:
    """`function` of arrays, compiled by XLA's CPU backend into one native function.

    The backend otherwise dispatches every operation in a loop over larger buffers by itself, which for a single
    small trajectory costs several times the arithmetic. Other backends ignore the request, and so does JAX's
    tracing: values and derivatives are the same. Good for small states; large arrays lose the use of more cores.
    """
    inner = jax.jit(function)

    @functools.wraps(function)
    def wrapped(*args):
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            return inner(*args)

    return wrapped
