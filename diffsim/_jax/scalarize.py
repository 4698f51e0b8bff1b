"""Functions of small arrays, written out as operations on their single entries.

A loop over a state of a few numbers spends most of its time in assembling arrays, splitting them and transposing these
operations. Written out number by number, a function has no arrays.
"""

import functools
from collections.abc import Callable

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.source_info_util import user_context

from .equations import CALLS, called

_EACH = """
abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy copy_p cos cosh
div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul
ne neg nextafter not or pow rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""


def _broadcast(x, *, shape, broadcast_dimensions, **_):
    along = dict(zip(broadcast_dimensions, x.shape, strict=True))
    return np.broadcast_to(x.reshape([along.get(i, 1) for i in range(len(shape))]), shape)


def _slice(x, *, start_indices, limit_indices, strides):
    steps = strides or [1] * x.ndim
    return x[tuple(slice(*ends) for ends in zip(start_indices, limit_indices, steps, strict=True))]


def _split(x, *, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _reduce(operation, x, *, axes, **_):
    for axis in sorted(axes, reverse=True):
        x = np.frompyfunc(operation, 2, 1).reduce(x, axis=axis)
    return x


_REARRANGED: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda *parts, dimension: np.concatenate(parts, dimension),
    "expand_dims": lambda x, *, dimensions: np.expand_dims(x, dimensions),
    "reduce_max": functools.partial(_reduce, lax.max),
    "reduce_min": functools.partial(_reduce, lax.min),
    "reduce_prod": functools.partial(_reduce, lax.mul),
    "reduce_sum": functools.partial(_reduce, lax.add),
    "reshape": lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
    "slice": _slice,
    "split": _split,
    "squeeze": lambda x, *, dimensions: x.squeeze(tuple(dimensions)),
    "stack": lambda *parts, axis: np.stack(parts, axis),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "unstack": lambda x, *, axis: list(np.moveaxis(x, axis, 0)),
}


def can_be_written_out(names) -> bool:
    """Whether a function of these primitive operations can be written out."""
    return set(names) <= {*_EACH.split(), *CALLS, *_REARRANGED}


def written_out(function: Callable, *like) -> Callable:
    """Returns a function of the entries of arrays that computes `function`.

    Args:
        function: A function of arrays that returns an array.
        *like: Arrays of the shapes and types of its arguments.

    Returns:
        A function of lists of entries, one for each array, that returns the list of the result's entries.
    """
    program = jax.make_jaxpr(function)(*like)
    shapes = [jnp.shape(x) for x in like]

    def of_entries(*args):
        given = [_objects(x).reshape(shape) for x, shape in zip(args, shapes, strict=True)]
        (result,) = _evaluate(program.jaxpr, program.consts, *given)
        return list(result.ravel())

    return of_entries


def entries(x) -> list:
    """Returns the entries of an array as a list."""
    return [x] if jnp.ndim(x) == 0 else list(jnp.unstack(jnp.ravel(x)))


def _evaluate(program, constants, *args) -> list[np.ndarray]:
    known = {x: _numbers(y) for x, y in zip(program.constvars, constants, strict=True)}
    known |= dict(zip(program.invars, args, strict=True))
    value = lambda x: _numbers(_constant(x)) if isinstance(x, jex.core.Literal) else known[x]
    for equation in program.eqns:
        name, given = equation.primitive.name, [value(x) for x in equation.invars]
        inner = called(equation)
        if inner is not None:
            results = _evaluate(inner.jaxpr, inner.consts, *given)
        elif name not in _REARRANGED:
            bind = functools.partial(equation.primitive.bind, **equation.params)
            with user_context(equation.source_info.traceback):  # the line in the user's vector field
                results = np.frompyfunc(bind, len(given), 1)(*given)
        else:
            results = _REARRANGED[name](*given, **equation.params)
        results = results if isinstance(results, list) else [results]
        # For an array without dimensions NumPy returns the entry itself.
        results = [y if isinstance(y, np.ndarray) else _objects([y]).reshape(()) for y in results]
        known |= dict(zip(equation.outvars, results, strict=True))
    return [value(x) for x in program.outvars]


def _constant(literal):
    return jnp.asarray(literal.val, literal.aval.dtype)


def _numbers(x) -> np.ndarray:
    return _objects(entries(x)).reshape(jnp.shape(x))


def _objects(xs: list) -> np.ndarray:
    array = np.empty(len(xs), object)
    for i, x in enumerate(xs):
        array[i] = x
    return array
