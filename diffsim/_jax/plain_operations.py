"""The primitive operations of a function, and whether XLA's CPU backend can compile it whole (`compile_whole`)."""

import math
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.extend as jex

# Arithmetic and rearrangements whose derivatives are also in this list. A lookup by a computed index is not: its
# transpose is a scatter, which the backend does not support in a program compiled whole.
_PLAIN = """
abs acos acosh add add_any and asin asinh atan atan2 atanh barrier broadcast_in_dim cbrt ceil clamp closed_call
concatenate cond convert_element_type copy copy_p core_call cos cosh cumsum custom_jvp_call custom_rule_call
custom_vjp_call div dot_general dynamic_slice dynamic_update_slice eq erf erf_inv erfc exp exp2 expand_dims expm1
floor ge gt integer_pow iota is_finite jit le lgamma log log1p logistic lt max min mul ne neg nextafter not
optimization_barrier or pad pjit pow read_row reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum rem
reshape rev round rsqrt scan select_n sign sin sinh slice split sqrt square squeeze stack stop_gradient sub tan tanh
transpose unstack unvmap_any unvmap_max while write_row xor
"""


MATRIX_PRODUCT = "matrix product"
"""Stands for a product of two larger matrices, which cannot be compiled whole, among the names of operations."""


def operations(function: Callable, *args) -> list[str]:
    """Returns the names of the primitive operations of `function(*args)`, including those in its loops and calls.

    Products of two larger matrices have a name of their own.
    """
    program, _, _ = eqx.filter_make_jaxpr(function)(*args)
    return list(names_in(program.jaxpr))


def names_in(program: jex.core.Jaxpr) -> Iterator[str]:
    """Yields the names of the operations of a program, as `operations` returns them."""
    for equation in program.eqns:
        is_product = equation.primitive.name == "dot_general" and _is_matrix_product(equation)
        yield MATRIX_PRODUCT if is_product else equation.primitive.name
        for part in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(part, "jaxpr", part)
            if isinstance(inner, jex.core.Jaxpr):
                yield from names_in(inner)


def _is_matrix_product(equation) -> bool:
    """Whether a product is one of two matrices that the backend hands to a library: of 8 or more rows or columns."""
    contracted, batched = equation.params["dimension_numbers"]
    left, right = (x.aval.shape for x in equation.invars)
    free = lambda shape, side: math.prod(n for i, n in enumerate(shape) if i not in (*contracted[side], *batched[side]))
    sizes = [free(left, 0), free(right, 1), math.prod(left[i] for i in contracted[0])]
    return min(sizes) > 1 and max(sizes) >= 8


def is_plain(names: list[str]) -> bool:
    """Whether operations with these names, and their derivatives, can be compiled whole."""
    return set(names) <= set(_PLAIN.split())
