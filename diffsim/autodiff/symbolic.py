"""Formulas: a function as a SymPy expression, its derivatives by rule, and back to a function for JAX."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from .._extras import extra
from .._jax.program import Operation, program_of, trace


def to_sympy(f: Callable[..., Any], *names: str) -> Any:
    """The SymPy expression of a function of real numbers.

    Args:
        f: A function of as many numbers as there are `names`, which returns one number.
        names: The names of its arguments in the expression.

    Raises:
        InputError: If SymPy is missing, if `f` does not return one number, and at the first operation that has no
            formula, with its line.
    """
    sympy = extra("sympy", "symbolic")
    closed = trace(f, *(jnp.ones(()) for _ in names))
    outputs: list[Any] = list(closed.out_avals)
    if [output.shape for output in outputs] != [()]:
        raise InputError(f"f returns {', '.join(map(str, outputs))}: return one number")
    program = program_of(closed)
    values: dict[int, Any] = {slot: _exact(sympy, value) for slot, value in program.constants.items()}
    values |= dict(zip(program.inputs, sympy.symbols(names, real=True), strict=True))
    rules = _rules(sympy)
    for operation in program.operations:
        rule = rules.get(operation.name)
        if rule is None:
            raise InputError(
                f"{operation.name} at {operation.source or 'a line of a library'} has no formula: "
                "keep to arithmetic and elementary functions of numbers"
            )
        values[operation.outputs[0]] = rule(operation, *(values[slot] for slot in operation.operands))
    return values[program.results[0]]


def to_jax(expression: Any, *names: str) -> Callable[..., Any]:
    """A SymPy expression, or a nested list of them, as a function of the named numbers for JAX.

    Common sub-expressions are computed once.

    Raises:
        InputError: If SymPy is missing, and for a symbol that is not among the names.
    """
    sympy = extra("sympy", "symbolic")
    symbols = {str(s): s for part in sympy.flatten([expression]) for s in sympy.sympify(part).free_symbols}
    if unknown := sorted(set(symbols) - set(names)):
        raise InputError(f"the expression has {', '.join(unknown)}, not among {', '.join(names)}: name every symbol")
    arguments = [symbols.get(name, sympy.Symbol(name)) for name in names]
    return sympy.lambdify(arguments, expression, modules="jax", cse=True)


def symbolic_gradient(f: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """The gradient of a function of the named real numbers, derived by rule, as a function for JAX.

    It returns the list of the partial derivatives in the order of the names. Errors are those of `to_sympy`.

        symbolic_gradient(lambda x, y: jnp.sin(x / y) * y, "x", "y")(1.5, 0.5)
    """
    sympy = extra("sympy", "symbolic")
    expression = to_sympy(f, *names)
    return to_jax([sympy.diff(expression, sympy.Symbol(name, real=True)) for name in names], *names)


def _exact(sympy: Any, value: Any) -> Any:
    """A number as a SymPy integer where it is one, else with 17 digits."""
    if np.size(value) != 1:
        raise InputError(f"f holds an array of shape {np.shape(value)}: formulas are of single numbers")
    number = np.asarray(value).item()
    return sympy.Integer(int(number)) if float(number).is_integer() else sympy.Float(number, 17)


def _rules(sympy: Any) -> dict[str, Callable[..., Any]]:
    """The SymPy counterpart of each operation of JAX, a function of the operation and its operands."""
    same_name = ["sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "asinh", "acosh", "atanh"]
    same_name += ["exp", "log", "sqrt", "erf", "atan2", "sign"]
    rules: dict[str, Any] = {name: _rule(getattr(sympy, name)) for name in same_name}
    others: dict[str, Sequence[Any]] = {
        "add": (operator.add,), "add_any": (operator.add,), "sub": (operator.sub,), "mul": (operator.mul,),
        "div": (operator.truediv,), "pow": (operator.pow,), "neg": (operator.neg,), "max": (sympy.Max,),
        "min": (sympy.Min,), "abs": (sympy.Abs,), "square": (lambda x: x**2,), "rsqrt": (lambda x: x ** -sympy.S.Half,),
        "log1p": (lambda x: sympy.log(1 + x),), "expm1": (lambda x: sympy.exp(x) - 1,),
        "logistic": (lambda x: 1 / (1 + sympy.exp(-x)),), "cbrt": (sympy.cbrt,),
        "convert_element_type": (lambda x: x,), "reshape": (lambda x: x,), "squeeze": (lambda x: x,),
    }  # fmt: skip
    rules |= {name: _rule(*function) for name, function in others.items()}
    rules["integer_pow"] = lambda operation, x: x ** operation.params["y"]
    return rules


def _rule(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the operands as one of the operation and its operands."""

    def rule(operation: Operation, *operands: Any) -> Any:
        return function(*operands)

    return rule
