"""Modes of differentiation: forward-mode derivatives served to whichever mode asks."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from .._errors import InputError
from .._jax.linear_map import linear_map
from .._jax.opaque_call import Program, undivided
from .jacobian import value_and_jacobian


def forward_mode(function: Callable, *, in_axes: Sequence[int | None] | None = None) -> Callable:
    """`function` with its derivatives taken in forward mode, together with the value, in every mode of use.

    For functions of a handful of numbers that are costly to evaluate, such as a simulator with a few controls: a
    tangent for each input travels along with the value, so that reverse mode costs one small product and no
    memory, and needs no reverse rule of the function. The inputs are the real arrays of the arguments, and those that
    the function closes over, as far as they are being differentiated; everything else is passed on. `jit`, `vmap`,
    `grad`, `jacfwd` and `hessian` all work.

    With `in_axes`, 0 or None for each argument as in `jax.vmap`, the result is that of many rows, one after another:
    each takes just the steps it needs, which on a CPU beats a batch in lockstep, and tangents travel for the inputs of
    one row alone. Raises InputError if `in_axes` does not fit the arguments.

    Good values: up to about ten inputs in all.
    """

    @functools.wraps(function)
    def wrapped(*args):
        axes = [None] * len(args) if in_axes is None else list(in_axes)
        arrays, rest = eqx.partition(args, eqx.is_array)
        if in_axes is not None:
            _check_rows(arrays, axes)
        one = lambda *arrays: function(*eqx.combine(arrays, rest))
        # No array is captured by a rule that outlives this trace.
        program = Program.of(one, *(_first_row(x, axis) for x, axis in zip(arrays, axes, strict=True)))
        each = [None] * len(program.closed)
        each += [axis for x, axis in zip(arrays, axes, strict=True) for _ in jax.tree.leaves(x)]
        return _served(program.bind, [*program.closed, *jax.tree.leaves(arrays)], each)

    return wrapped


def few_or_many(forward: Callable, reverse: Callable, inputs: PyTree, most: int) -> PyTree:
    """`forward(inputs)`, with its derivatives in forward mode in up to `most` numbers, and by `reverse` in more.

    Both functions compute the same; `forward` needs no reverse rule. What counts is how many numbers of `inputs` are
    being differentiated, not how many there are.
    """
    arrays, rest = eqx.partition(inputs, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)
    on_leaves = lambda function: lambda *leaves: function(eqx.combine(jax.tree.unflatten(tree, leaves), rest))
    return _served(on_leaves(forward), leaves, [None] * len(leaves), _Otherwise(on_leaves(reverse), most))


def _check_rows(args, axes):
    if len(axes) != len(args) or not {0, None}.issuperset(axes):
        raise InputError(f"in_axes={tuple(axes)}: give 0 or None for each of the {len(args)} arguments")
    mapped = [x for arg, axis in zip(args, axes, strict=True) if axis == 0 for x in jax.tree.leaves(arg)]
    if not mapped or {x.shape[:1] for x in mapped} != {mapped[0].shape[:1]} or mapped[0].ndim == 0:
        shapes = ", ".join(str(x.shape) for x in mapped) or "none"
        raise InputError(f"in_axes={tuple(axes)} maps over arrays of shapes {shapes}: give each as many rows")


def _first_row(tree, axis):
    return tree if axis is None else jax.tree.map(lambda x: x[0], tree)


def _in_turn(function: Callable, axes: list) -> Callable:
    """`function` of rows, one after another; with no axis to map over, `function` itself."""
    if all(axis is None for axis in axes):
        return function

    def rows(*leaves):
        mapped = [x for x, axis in zip(leaves, axes, strict=True) if axis == 0]

        def row(mapped):
            mapped = iter(mapped)
            return function(*(x if axis is None else next(mapped) for x, axis in zip(leaves, axes, strict=True)))

        return lax.map(row, mapped)

    return rows


def _along(columns, direction):
    """The derivative in a direction. Where it does not exist it is NaN, but of no effect on what does not use it."""
    return linear_map(_product, _transposed, [columns], [direction], plain=True)[0]


def _product(residuals, inputs):
    return [residuals[0] @ inputs[0]]


def _transposed(residuals, cotangents):
    (columns,), (cotangent,) = residuals, cotangents
    shares = jnp.where((cotangent == 0)[..., None], 0.0, cotangent[..., None] * columns)
    return [jnp.sum(shares, axis=tuple(range(cotangent.ndim)))]


class _Otherwise(NamedTuple):
    """Another function with the same values, for derivatives in more than `most` numbers."""

    function: Callable
    most: int


def _served(function: Callable, leaves: list, axes: list, otherwise: _Otherwise | None = None):
    """The value of `function` of arrays, with a rule that takes the columns of its Jacobian along.

    Only the columns of arrays that are being differentiated are computed.
    """
    call = jax.custom_jvp(_in_turn(function, axes))

    def rule(primals, tangents):
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]
        directions = [tangents[i] for i in moving]
        if otherwise is not None and sum(primals[i].size for i in moving) > otherwise.most:
            many = otherwise.function
            along = lambda *moved: many(*_replaced(primals, moving, moved))
            return jax.jvp(along, [primals[i] for i in moving], directions)

        def product(columns, *direction):
            direction, _ = ravel_pytree(direction)
            # The tangent of an integer output is an empty placeholder, the same in every direction.
            return jax.tree.map(lambda c: _along(c, direction) if eqx.is_inexact_array(c) else c[..., 0], columns)

        rows = _in_turn(_with_columns(function, moving), axes)
        if otherwise is None:
            value, columns = undivided(rows, *primals)
        else:
            # Derivatives of the columns are served too: reverse mode over this derivative needs no reverse rule.
            again = otherwise._replace(function=_with_columns(otherwise.function, moving))
            value, columns = _served(lambda *leaves: undivided(rows, *leaves), list(primals), axes, again)
        if any(axis == 0 for axis in axes):
            product = jax.vmap(product, in_axes=(0, *(axes[i] for i in moving)))
        return value, product(columns, *directions)

    call.defjvp(rule, symbolic_zeros=True)
    return call(*leaves)


def _with_columns(function: Callable, moving: list[int]) -> Callable:
    """`function` of arrays, with its Jacobian in those whose numbers are `moving`."""

    def value_and_columns(*leaves):
        flat, unravel = ravel_pytree([leaves[i] for i in moving])
        return value_and_jacobian(lambda flat: function(*_replaced(leaves, moving, unravel(flat))), flat)

    return value_and_columns


def _replaced(leaves: Sequence, numbers: list[int], values: Sequence) -> list:
    """The leaves, with other values for those of these numbers."""
    given = dict(zip(numbers, values, strict=True))
    return [given.get(i, x) for i, x in enumerate(leaves)]
