"""Functions with a derivative rule that also applies inside loops.

Reverse mode divides the body of a `lax.scan` or `lax.map` into a known and a linear part. If the known part is
differentiated again, as in a Hessian, jax 0.10 drops the rules of `jax.custom_jvp` and differentiates the function
itself, which gives a wrong second derivative. The rule of a primitive is not dropped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import ad
from jaxtyping import ArrayLike, PyTree

from .new_primitive import new_primitive


class custom_jvp:  # named and used as `jax.custom_jvp`
    """A function of trees of arrays, with the derivative rule given to `defjvp`.

    The rule is that of `jax.custom_jvp` with `symbolic_zeros=True`: `rule(primals, tangents)` returns value and
    tangent, and a tangent that is always zero is a `SymbolicZero`. Neither function may close over traced arrays.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.rule: Callable | None = None

    def defjvp(self, rule: Callable) -> Callable:
        """Sets the rule; can be used as a decorator."""
        self.rule = rule
        return rule

    def __call__(self, *args: PyTree[ArrayLike]) -> Any:
        leaves, tree = jax.tree.flatten(args)
        flat = lambda *leaves: self.function(*jax.tree.unflatten(tree, leaves))
        program, like = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        results = jax.tree.structure(like)

        def rule(primals, tangents):
            assert self.rule is not None
            value, tangent = self.rule(jax.tree.unflatten(tree, primals), jax.tree.unflatten(tree, tangents))
            return jax.tree.leaves(value), results.flatten_up_to(tangent)

        return jax.tree.unflatten(results, _custom_rule.bind(*leaves, program=program, rule=rule))


def _call(*args, program: ClosedJaxpr, rule: Callable) -> list:
    return jaxpr_as_fun(program)(*args)


def _jvp(primals, tangents, *, program: ClosedJaxpr, rule: Callable):
    if all(type(t) is ad.Zero for t in tangents):
        values = _custom_rule.bind(*primals, program=program, rule=rule)
        return values, [_zero(x) for x in values]
    given = [SymbolicZero(t.aval) if type(t) is ad.Zero else t for t in tangents]
    values, rates = rule(primals, given)
    is_zero = lambda x, rate: isinstance(rate, SymbolicZero) or not jnp.issubdtype(jnp.result_type(x), jnp.inexact)
    return values, [_zero(x) if is_zero(x, rate) else rate for x, rate in zip(values, rates, strict=True)]


def _zero(x) -> Any:
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def _batch(args, axes, *, program: ClosedJaxpr, rule: Callable):
    many = jax.make_jaxpr(jax.vmap(jaxpr_as_fun(program), axes))(*args)

    def many_rules(primals, tangents):
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

        def one(primals, directions):
            given: list[Any] = [SymbolicZero(jax.typeof(x).to_tangent_aval()) for x in primals]
            for i, direction in zip(moving, directions, strict=True):
                given[i] = direction
            values, rates = rule(primals, given)
            filled = lambda x, rate: jnp.zeros_like(x) if isinstance(rate, SymbolicZero) else rate
            return values, [filled(x, rate) for x, rate in zip(values, rates, strict=True)]

        # A tangent has the shape of its number, and so the same axis.
        directions = [tangents[i] for i in moving]
        return jax.vmap(one, (list(axes), [axes[i] for i in moving]))(list(primals), directions)

    values = _custom_rule.bind(*args, program=many, rule=many_rules)
    return values, [0] * len(values)


_custom_rule = new_primitive(
    "custom_rule_call",
    _call,
    jvp=_jvp,
    batch=_batch,
    abstract=lambda *_, program, rule: program.out_avals,
    multiple_results=True,
)
