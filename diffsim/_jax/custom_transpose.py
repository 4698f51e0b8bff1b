"""Functions of parameters and a picture with a transpose that is written by hand.

`jax.custom_vjp` would give up forward mode; here only the transposition is replaced, so that `jvp`, `linearize`, `vmap`
and second derivatives go through as they do without it.
"""

from collections.abc import Callable
from functools import partial, wraps

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

Function = Callable[[Array, Array], Array]
Adjoint = Callable[[Array, Array, Array], tuple[Array, Array]]


def with_adjoint(function: Function, adjoint: Adjoint, check: Callable[[Array], None] | None = None) -> Function:
    """`function(parameters, picture)`, which reverse mode pulls back by `adjoint(parameters, picture, cotangent)`.

    The adjoint gives the cotangents of both arguments, and may differ from the function's own derivative only by
    rounding. Both functions are of arrays, and must be traceable. Nothing is kept between the two but the arguments.
    `check(picture)` is called first, and may raise an InputError.
    """

    def push(parameters, picture, *tangents):
        return jax.jvp(function, (parameters, picture), tangents)[1]

    compiled = jax.jit(push)
    primitive = Primitive(f"push_{function.__name__}")
    primitive.def_impl(lambda *args, like: compiled(*args))
    primitive.def_abstract_eval(lambda *args, like: like)
    mlir.register_lowering(primitive, mlir.lower_fun(lambda *args, like: push(*args), multiple_results=False))
    ad.primitive_jvps[primitive] = lambda primals, tangents, like: jax.jvp(push, primals, _solid(primals, tangents))
    ad.primitive_transposes[primitive] = partial(_transpose, adjoint)
    batching.primitive_batchers[primitive] = lambda args, axes, like: (jax.vmap(push, axes)(*args), 0)

    @jax.custom_jvp
    @wraps(function)
    def called(parameters, picture):
        if check is not None:
            check(picture)
        return function(parameters, picture)

    @called.defjvp
    def _(primals, tangents):
        value = called(*primals)
        # To find out its shape by tracing it would take as long as all the rest.
        return value, primitive.bind(*primals, *tangents, like=ShapedArray(value.shape, value.dtype))

    return called


def _solid(primals, tangents):
    """The tangents, with zeros written out."""
    return tuple(jnp.zeros_like(x) if type(t) is ad.Zero else t for x, t in zip(primals, tangents, strict=True))


def _transpose(adjoint, cotangent, parameters, picture, *tangents, like):
    cotangents = adjoint(parameters, picture, cotangent)
    linear = (c if ad.is_undefined_primal(t) else None for c, t in zip(cotangents, tangents, strict=True))
    return [None, None, *linear]
