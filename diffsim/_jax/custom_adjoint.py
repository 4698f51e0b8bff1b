"""Functions of parameters and a picture with an adjoint written by hand.

`jax.custom_vjp` would exclude forward mode. Here only the transposition of the derivative is replaced, so that `jvp`,
`linearize`, `vmap` and second derivatives work as they do without it.
"""

from collections.abc import Callable
from functools import partial, wraps

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.interpreters import ad
from jaxtyping import Array

from .new_primitive import new_primitive

Function = Callable[[Array, Array], Array]
Adjoint = Callable[[Array, Array, Array], tuple[Array, Array]]


def with_adjoint(function: Function, adjoint: Adjoint, check: Callable[[Array], None] | None = None) -> Function:
    """Returns the function with this adjoint in reverse mode, which stores only the arguments.

    Arguments of different precision are converted to that of the result first, as elsewhere in JAX.

    Args:
        function: `function(parameters, picture)` of two arrays, traceable.
        adjoint: `adjoint(parameters, picture, cotangent)`, the cotangents of both arguments. It may differ from the
            transposed derivative of the function only by rounding.
        check: `check(picture)` is called before the function, and may raise an InputError.
    """

    def push(parameters, picture, *tangents):
        return jax.jvp(function, (parameters, picture), tangents)[1]

    compiled = jax.jit(push)
    primitive = new_primitive(
        f"push_{function.__name__}",
        lambda *args, like: push(*args),
        jvp=lambda primals, tangents, like: jax.jvp(push, primals, _instantiated(primals, tangents)),
        transpose=partial(_transpose, adjoint),
        batch=lambda args, axes, like: (jax.vmap(push, axes)(*args), 0),
        abstract=lambda *args, like: like,
        eager=lambda *args, like: compiled(*args),
    )

    own = jax.custom_jvp(function)

    @own.defjvp
    def _(primals, tangents):
        value = own(*primals)
        # The shape is passed on, since tracing the function again for it would double the time.
        return value, primitive.bind(*primals, *tangents, like=ShapedArray(value.shape, value.dtype))

    @wraps(function)
    def called(parameters, picture):
        if check is not None:
            check(picture)
        common = jnp.result_type(parameters, picture)
        return own(jnp.asarray(parameters, common), jnp.asarray(picture, common))

    return called


def _instantiated(primals, tangents):
    """The tangents, with symbolic zeros replaced by arrays."""
    return tuple(jnp.zeros_like(x) if type(t) is ad.Zero else t for x, t in zip(primals, tangents, strict=True))


def _transpose(adjoint, cotangent, parameters, picture, *tangents, like):
    cotangents = adjoint(parameters, picture, cotangent)
    linear = (c if ad.is_undefined_primal(t) else None for c, t in zip(cotangents, tangents, strict=True))
    return [None, None, *linear]
