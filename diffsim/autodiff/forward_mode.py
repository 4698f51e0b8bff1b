"""Modes of differentiation: forward-mode derivatives served to whichever mode asks."""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._jax.linear_map import linear_map
from .._jax.undivided import Program, undivided
from .jacobian import value_and_jacobian


def few_inputs(function: Callable, *, in_axes: Sequence[int | None] | None = None) -> Callable:
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


def _served(function: Callable, leaves: list, axes: list):
    """The value of `function` of arrays, with a rule that takes the columns of its Jacobian along.

    Only the columns of arrays that are being differentiated are computed.
    """
    call = jax.custom_jvp(_in_turn(function, axes))

    def rule(primals, tangents):
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

        def with_columns(*leaves):
            flat, unravel = ravel_pytree([leaves[i] for i in moving])

            def along(flat):
                given = dict(zip(moving, unravel(flat), strict=True))
                return function(*(given.get(i, x) for i, x in enumerate(leaves)))

            return value_and_jacobian(along, flat)

        def product(columns, *direction):
            direction, _ = ravel_pytree(direction)
            # The tangent of an integer output is an empty placeholder, the same in every direction.
            return jax.tree.map(lambda c: _along(c, direction) if eqx.is_inexact_array(c) else c[..., 0], columns)

        value, columns = undivided(_in_turn(with_columns, axes), *primals)
        by_row = [axes[i] for i in moving]
        if any(axis == 0 for axis in axes):
            product = jax.vmap(product, in_axes=(0, *by_row))
        return value, product(columns, *(tangents[i] for i in moving))

    call.defjvp(rule, symbolic_zeros=True)
    return call(*leaves)
