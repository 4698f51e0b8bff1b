"""One gradient by several methods: by hand, symbolic, by finite differences, by complex steps, automatic."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from ..io.aligned_columns import aligned
from . import finite_differences
from .complex_step import complex_gradient
from .symbolic import symbolic_gradient


class Method(NamedTuple):
    """A gradient by one method.

    Attributes:
        name: The name of the method.
        gradient: The gradient; None if the method does not apply.
        error: Its largest difference from the reference, relative to the reference's largest entry; NaN if the method
            does not apply.
        remark: Why the method does not apply.
    """

    name: str
    gradient: np.ndarray | None
    error: float
    remark: str


class DerivativeTable(NamedTuple):
    """The gradient of one function at one point by each method. `str()` gives a table.

    Attributes:
        reference: The name of the method with which the others are compared.
        methods: The methods.

    Examples:
        >>> table = ds.derivative_table(lambda x: x**3, 2.0)
        >>> {m.name: float(m.gradient[0].round(3)) for m in table.methods if m.name.startswith("automatic")}
        {'automatic, forward': 12.0, 'automatic, reverse': 12.0}
    """

    reference: str
    methods: list[Method]

    def errors(self) -> dict[str, float]:
        """The error of each method that applies."""
        return {method.name: method.error for method in self.methods if method.gradient is not None}

    def __str__(self) -> str:
        rows = []
        for method in self.methods:
            if method.gradient is None:
                rows.append((method.name, "-", method.remark))
            else:
                numbers = [f"{x:.10g}" for x in method.gradient.ravel()[:4]] + ["..."] * (method.gradient.size > 4)
                rows.append((method.name, f"{method.error:.1e}", " ".join(numbers)))
        table = aligned(("method", "error", "gradient"), rows, right=[1])
        return f"{table}\nerrors relative to: {self.reference}"


def derivative_table(f: Callable[..., Any], *point: Any, by_hand: Any = None) -> DerivativeTable:
    """The gradient of a scalar `f(*point)` by hand, by formula, by differences, by complex steps and automatically.

    A method that does not apply says why: a formula needs numbers for arguments and operations that SymPy knows (extra
    `symbolic`), a complex step needs a function that is analytic.

    Args:
        f: A function of numbers, or of one array, that returns one real number.
        point: The numbers, or the array.
        by_hand: A gradient of one's own, as numbers or as a function of the point. It is then the reference for the
            errors; otherwise reverse mode is.

    Raises:
        InputError: For a point that is empty, not real, or of numbers and arrays together; if `f` does not return one
            number; and if the reference does not apply.

    Examples:
        >>> by_hand = lambda x, y: (jnp.cos(x / y), jnp.sin(x / y) - x / y * jnp.cos(x / y))
        >>> table = ds.derivative_table(lambda x, y: jnp.sin(x / y) * y, 1.5, 0.5, by_hand=by_hand)
        >>> table.errors()["automatic, reverse"] < 1e-12  # print(table) shows all methods
        True
    """
    x, call = _as_vector(f, point)
    if jnp.shape(jax.eval_shape(call, x)) != ():
        raise InputError(f"f returns shape {jnp.shape(jax.eval_shape(call, x))}: return one number")
    methods: dict[str, Callable[[], Any]] = {}
    if by_hand is not None:
        methods["by hand"] = lambda: by_hand(*point) if callable(by_hand) else by_hand
    methods["symbolic"] = lambda: _symbolic(f, point)
    for scheme in finite_differences.STENCILS:
        methods[f"differences, {scheme}"] = lambda s=scheme: finite_differences.difference_gradient(call, x, s)
    methods |= {
        "complex step": lambda: complex_gradient(call, x),
        "automatic, forward": lambda: jax.jacfwd(call)(x),
        "automatic, reverse": lambda: jax.grad(call)(x),
    }
    results = {name: _gradient_or_reason(method, x) for name, method in methods.items()}
    reference = "by hand" if by_hand is not None else "automatic, reverse"
    exact, remark = results[reference]
    if exact is None:
        raise InputError(f"{reference}: {remark}")
    return DerivativeTable(reference, [Method(name, g, _error(g, exact), why) for name, (g, why) in results.items()])


def _as_vector(f: Callable[..., Any], point: tuple[Any, ...]) -> tuple[jax.Array, Callable[[Any], Any]]:
    """The point as one array, and the function of it."""
    if not point:
        raise InputError("the point is empty: give the numbers at which to differentiate, or one array")
    if len(point) == 1 and jnp.ndim(point[0]) > 0:
        x, call = jnp.asarray(point[0]), f
    elif all(jnp.ndim(value) == 0 for value in point):
        x, call = jnp.stack([jnp.asarray(value, float) for value in point]), lambda x: f(*x)
    else:
        raise InputError("the point mixes numbers and arrays: give numbers, or one array")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"the point is {x.dtype}: give real numbers, such as 1.0 for 1")
    return x, call


def _symbolic(f: Callable[..., Any], point: tuple[Any, ...]) -> Any:
    """The gradient by formula."""
    if any(jnp.ndim(value) for value in point):
        raise InputError("needs numbers for arguments, not an array")
    try:
        names = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        names = []
    if len(names) != len(point):
        names = [f"x{number}" for number in range(1, len(point) + 1)]
    return symbolic_gradient(f, *names)(*map(float, point))


def _gradient_or_reason(method: Callable[[], Any], x) -> tuple[np.ndarray | None, str]:
    """The gradient by one method, or None and the reason why there is none."""
    try:
        gradient = np.asarray(method(), float)
    except Exception as error:  # any kind: a function may refuse complex numbers or symbols with any error
        return None, " ".join(str(error).split())[:100] or type(error).__name__
    if gradient.size != x.size:
        return None, f"has {gradient.size} numbers for {x.size} arguments"
    return gradient.reshape(x.shape), ""


def _error(gradient: np.ndarray | None, exact: np.ndarray) -> float:
    """The largest difference from the reference, relative to the reference's largest entry."""
    if gradient is None:
        return np.nan
    scale = np.max(np.abs(exact)) or 1.0
    return float(np.max(np.abs(gradient - exact)) / scale)
