"""Whether a traced function is a polynomial of some of its arguments, so that it is as smooth as they are."""

from collections.abc import Sequence

import jax.extend as jex

from .equations import called
from .traced_function import Traced

_LINEAR = """
add add_any broadcast_in_dim concatenate convert_element_type copy copy_p expand_dims neg optimization_barrier
reduce_sum reshape rev slice split squeeze stack stop_gradient sub transpose unstack
"""
_PRODUCTS = {"mul", "dot_general", "square"}
_HIGHEST = 4  # degree of a power


def is_polynomial(function: Traced, arguments: Sequence[int]) -> bool:
    """Returns whether a function is made of sums, products and small powers of its array arguments of these numbers.

    Other arguments, and what the function closes over, are constants, on which any operation is allowed.
    """
    jaxpr = function.program.jaxpr
    return _varying_results(jaxpr, [number in arguments for number in range(len(jaxpr.invars))]) is not None


def _varying_results(jaxpr: jex.core.Jaxpr, varying: Sequence[bool]) -> list[bool] | None:
    """Which results depend on the arguments that vary; None if one does so other than by a polynomial."""
    known = {x for x, varies in zip(jaxpr.invars, varying, strict=True) if varies}
    is_varying = lambda x: not isinstance(x, jex.core.Literal) and x in known
    for equation in jaxpr.eqns:
        given, name = [is_varying(x) for x in equation.invars], equation.primitive.name
        if not any(given):
            continue
        inner = called(equation)
        if inner is not None:
            results = _varying_results(getattr(inner, "jaxpr", inner), given)
            if results is None:
                return None
            known |= {x for x, varies in zip(equation.outvars, results, strict=True) if varies}
        elif _keeps_polynomials(equation, name, given):
            known |= set(equation.outvars)
        else:
            return None
    return [is_varying(x) for x in jaxpr.outvars]


def _keeps_polynomials(equation, name: str, given: list[bool]) -> bool:
    if name == "integer_pow":
        return 0 <= equation.params["y"] <= _HIGHEST
    if name == "div":
        return not given[1]
    return name in _PRODUCTS or name in _LINEAR.split()
