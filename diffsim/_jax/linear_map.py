"""A linear map given together with its transpose, for loops that JAX cannot transpose by itself."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from .._errors import InputError
from .new_primitive import new_primitive


def linear_map(forward: Callable, backward: Callable, residuals: list, inputs: list, *, plain: bool = False) -> list:
    """`forward(residuals, inputs)`, linear in `inputs`, with `backward(residuals, cotangents)` as its transpose.

    All four are lists of arrays; neither function may close over arrays that are being traced. Reverse mode, `vmap`
    and forward mode over either of the two work; so `jax.hessian` does. Reverse mode over a derivative raises
    InputError, unless both functions are `plain`: made of operations that JAX can transpose.
    """
    # Compiled functions are traced once, however often JAX goes through a map to batch, differentiate and lower it.
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
    """The tangents where residuals move too: again a linear map, of their tangents, but one without a transpose."""
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
    """Value and tangent of `function(*primals)`, without work for tangents that are zero by their kind."""
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    return _along(function, primals, moving, [tangents[i] for i in moving])


def _along(function: Callable, primals, moving: list[int], directions):
    """Value and tangent of `function(*primals)` as the `moving` ones of its arguments go along `directions`."""

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
    held, moved = list(axes[:count]), list(axes[count:])

    def each_forward(residuals, inputs):
        return jax.vmap(forward, in_axes=(held, moved))(residuals, inputs)

    def each_backward(residuals, cotangents):
        results = jax.vmap(backward, in_axes=(held, 0))(residuals, cotangents)
        # An input that all members share collects the cotangents of all.
        return [
            jnp.sum(x, axis=0) if axis is None else jnp.moveaxis(x, 0, axis)
            for x, axis in zip(results, moved, strict=True)
        ]

    out = linear_map(each_forward, each_backward, list(args[:count]), list(args[count:]), plain=plain)
    return out, [0] * len(out)


_linear = new_primitive("linear_map", _call, jvp=_jvp, transpose=_transpose, batch=_batch, multiple_results=True)
