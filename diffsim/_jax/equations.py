"""All operations of a program, including those in its loops and calls; and which of them lose digits."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from .program import Operation

CALLS = {"jit", "pjit", "closed_call", "core_call"}
"""Operations that only call a program."""


def called(equation: core.JaxprEqn) -> Any:
    """Returns the program that an operation only calls; None for any other operation."""
    if equation.primitive.name not in CALLS:
        return None
    return equation.params.get("jaxpr") or equation.params["call_jaxpr"]


def all_equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yields the operations of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inside(equation.params):
            yield from all_equations(inner)


def _inside(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """Yields the programs among an operation's parameters.

    Those of `lax.custom_root` are in a named tuple, or from jax 0.12 on attributes of the object `_prim`.
    """
    for value in (*params.values(), *getattr(params.get("_prim"), "__dict__", {}).values()):
        for part in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(part, "jaxpr", part)
            if isinstance(inner, core.Jaxpr):
                yield inner


def casts_coarser(equation: core.JaxprEqn) -> bool:
    """Whether an operation casts a number, not a constant, to a floating-point format with fewer digits."""
    if equation.primitive.name != "convert_element_type" or isinstance(equation.invars[0], core.Literal):
        return False
    atoms: list[Any] = [*equation.invars, *equation.outvars]
    formats = [atom.aval.dtype for atom in atoms]
    if not all(jnp.issubdtype(form, jnp.floating) for form in formats):
        return False
    before, after = (jnp.finfo(form).nmant for form in formats)
    return after < before


def casts_coarser_inside(operation: Operation) -> bool:
    """Whether an operation inside this one casts to a floating-point format with fewer digits."""
    return any(casts_coarser(equation) for jaxpr in _inside(operation.params) for equation in all_equations(jaxpr))
