"""Functions of parameters and a picture whose way back is written by hand.

`jax.custom_vjp` would give up forward mode; here only the transposition is replaced, so that `jvp`, `linearize`, `vmap`
and second derivatives go through as they do without it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

Function = Callable[[Array, Array], Array]
Adjoint = Callable[[Array, Array, Array], tuple[Array, Array]]


def with_adjoint(function: Function, adjoint: Adjoint) -> Function:
    """`function(parameters, picture)`, which reverse mode pulls back by `adjoint(parameters, picture, cotangent)`.

    The adjoint gives the cotangents of both arguments, and may differ from the function's own derivative only by
    rounding. Both functions are of arrays, and must be traceable. Nothing is kept between the two but the arguments.
    """

    def push(parameters, picture, *tangents):
        return jax.jvp(function, (parameters, picture), tangents)[1]

    primitive = Primitive(f"push_{function.__name__}")
    primitive.def_impl(jax.jit(push))
    primitive.def_abstract_eval(lambda *args: _shape(push, args))
    mlir.register_lowering(primitive, mlir.lower_fun(push, multiple_results=False))
    ad.primitive_jvps[primitive] = lambda primals, tangents: jax.jvp(push, primals, _solid(primals, tangents))
    ad.primitive_transposes[primitive] = partial(_transpose, adjoint)
    batching.primitive_batchers[primitive] = lambda args, axes: (jax.vmap(push, axes)(*args), 0)

    called = jax.custom_jvp(function)
    called.defjvp(lambda primals, tangents: (called(*primals), primitive.bind(*primals, *tangents)))
    return called


def _shape(push, args) -> ShapedArray:
    result = jax.eval_shape(push, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args))
    return ShapedArray(result.shape, result.dtype)


def _solid(primals, tangents):
    """The tangents, with zeros written out."""
    return tuple(jnp.zeros_like(x) if type(t) is ad.Zero else t for x, t in zip(primals, tangents, strict=True))


def _transpose(adjoint, cotangent, parameters, picture, *tangents):
    bars = adjoint(parameters, picture, cotangent)
    linear = (bar if ad.is_undefined_primal(t) else None for bar, t in zip(bars, tangents, strict=True))
    return [None, None, *linear]
