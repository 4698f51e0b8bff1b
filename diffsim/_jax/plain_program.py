"""A function as a program of JAX's own operations, for tools that know no others.

Primitives of this package are replaced by the functions that they compute, and calls by what they call. The program has
the values of the function, and not its rules of differentiation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jaxtyping import Array

from .new_primitive import DEFINITIONS

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}
"""Operations that call a program, and the parameter that has it."""


def plain_program(function: Callable, *shapes: jax.ShapeDtypeStruct) -> Callable[..., list[Array]]:
    """Returns a function of arrays of these shapes with the leaves of the results of `function`.

    Traced, it consists of operations of JAX.
    """
    return partial(_run, _plain(jax.make_jaxpr(function)(*shapes)))


def _plain(program: ClosedJaxpr) -> ClosedJaxpr:
    return jax.make_jaxpr(partial(_run, program))(*program.in_avals)


def _run(program: ClosedJaxpr, *args: Any) -> list[Any]:
    """The results of a program, computed by operations of JAX."""
    values = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(program.jaxpr.invars, args, strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for equation in program.jaxpr.eqns:
        values |= dict(zip(equation.outvars, _results(equation, [read(x) for x in equation.invars]), strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _results(equation: JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive in DEFINITIONS:
        return _run(jax.make_jaxpr(partial(DEFINITIONS[primitive], **params))(*operands), *operands)
    if primitive.name in _CALLS:
        called = params[_CALLS[primitive.name]]
        return _run(called if isinstance(called, ClosedJaxpr) else ClosedJaxpr(called, ()), *operands)
    result = primitive.bind(*operands, **{name: _plain_parameter(value) for name, value in params.items()})
    return result if primitive.multiple_results else [result]


def _plain_parameter(value: Any) -> Any:
    """A parameter of an operation, with the programs of a loop or of branches made plain."""
    if isinstance(value, ClosedJaxpr):
        return _plain(value)
    if isinstance(value, tuple) and any(isinstance(part, ClosedJaxpr) for part in value):
        return tuple(map(_plain_parameter, value))
    return value
