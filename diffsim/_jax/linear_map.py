"""Linear maps that are given together with their transposes.

JAX cannot transpose a loop whose number of steps is unknown, such as the replay of a solve. A primitive can be given
its transpose.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from .._errors import InputError
from .new_primitive import new_primitive


def linear_map(forward: Callable, backward: Callable, residuals: list, inputs: list, *, plain: bool = False) -> list:
    """Returns `forward(residuals, inputs)`, with `backward(residuals, cotangents)` as its transpose.

    Reverse mode, `vmap`, and forward mode over both are supported, and therefore `jax.hessian`.

    Args:
        forward: A function of two lists of arrays, linear in the second, that returns a list of arrays. It may not
            close over traced arrays.
        backward: The transpose: a function of the residuals and the cotangents of the results that returns the
            cotangents of the inputs. It may not close over traced arrays.
        residuals: The arrays on which the map depends.
        inputs: The arrays to which it is applied.
        plain: Whether JAX can transpose both functions. Otherwise reverse mode over a derivative raises InputError.
    """
    # Compiled functions are traced once, however often JAX batches, differentiates and lowers the map.
    forward, backward = jax.jit(forward), jax.jit(backward)
    return _linear.bind(*residuals, *inputs, forward=forward, backward=backward, count=len(residuals), plain=plain)


def _call(*args, forward, backward, count, plain):
    return forward(list(args[:count]), list(args[count:]))


def _jvp(primals, tangents, **rule):
    out = _linear.bind(*primals, **rule)
    count = rule["count"]
    if all(type(t) is ad.Zero for t in tangents[:count]):
        inputs = [ad.instantiate_zeros(t) for t in tangents[count:]]
        return out, _linear.bind(*primals[:count], *inputs, **rule)
    return out, _of_residuals(primals, tangents, **rule)


def _of_residuals(primals, tangents, **rule) -> list:
    """The tangents if residuals have tangents too: a linear map of all tangents, but one without a transpose."""
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def forward(primals, directions):
        return _along(functools.partial(_call, **rule), primals, moving, directions)[1]

    if rule["plain"]:
        return forward(list(primals), [tangents[i] for i in moving])
    return linear_map(forward, _refused, list(primals), [tangents[i] for i in moving])


def _refused(residuals, cotangents):
    raise InputError(
        "reverse mode over a derivative through a solve is not supported: use jax.hessian, jax.jacfwd(jax.grad(f)) or "
        "jax.jvp of jax.grad(f), which take the outer derivative in forward mode"
    )


def jvp_of_moving(function: Callable, primals, tangents):
    """Returns value and tangent of `function(*primals)`, without work for symbolic zeros among the tangents."""
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    return _along(function, primals, moving, [tangents[i] for i in moving])


def _along(function: Callable, primals, moving: list[int], directions):
    """Value and tangent of `function(*primals)` along `directions` of its arguments number `moving`."""

    def along(*moved):
        args = list(primals)
        for i, value in zip(moving, moved, strict=True):
            args[i] = value
        return function(*args)

    return jax.jvp(along, tuple(primals[i] for i in moving), tuple(directions))


def _transpose(cotangents, *args, forward, backward, count, plain):
    cotangents = [ad.instantiate_zeros(c) for c in cotangents]
    result = _linear.bind(*args[:count], *cotangents, forward=backward, backward=forward, count=count, plain=plain)
    return [None] * count + list(result)


def _batch(args, axes, *, forward, backward, count, plain):
    residual_axes, input_axes = list(axes[:count]), list(axes[count:])

    def each_forward(residuals, inputs):
        return jax.vmap(forward, in_axes=(residual_axes, input_axes))(residuals, inputs)

    def each_backward(residuals, cotangents):
        results = jax.vmap(backward, in_axes=(residual_axes, 0))(residuals, cotangents)
        # The cotangent of an input without a batch axis is the sum over the members.
        return [
            jnp.sum(x, axis=0) if axis is None else jnp.moveaxis(x, 0, axis)
            for x, axis in zip(results, input_axes, strict=True)
        ]

    out = linear_map(each_forward, each_backward, list(args[:count]), list(args[count:]), plain=plain)
    return out, [0] * len(out)


_linear = new_primitive("linear_map", _call, jvp=_jvp, transpose=_transpose, batch=_batch, multiple_results=True)
