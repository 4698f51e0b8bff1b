"""Functions whose derivatives are computed in forward mode, whichever mode differentiates them."""

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
    """`function` with its Jacobian computed by forward mode together with the value, in every mode of differentiation.

    It is for functions that are costly to evaluate and have few inputs, such as a simulator with a few controls. A
    tangent for each input is computed along with the value. Reverse mode then costs one small product and no memory,
    and does not need a reverse rule of the function. The inputs are the real arrays that are being differentiated, of
    the arguments and of what the function closes over. `jit`, `vmap`, `grad`, `jacfwd` and `hessian` all work.

    Good values: up to about ten inputs in all. Breaks when: there are many inputs, since the cost is proportional to
    their number.

    Args:
        function: A function of trees that returns a tree of arrays.
        in_axes: If given, 0 or None for each argument as in `jax.vmap`: the function is applied to the rows of the
            arguments with 0, one row after another. Each row then takes only the steps that it needs, which on a CPU
            is faster than a batch in which all take as many, and tangents are computed for the inputs of one row.

    Returns:
        A function of the same arguments. It raises InputError if `in_axes` does not fit them.

    Examples:
        >>> distance = ds.forward_mode(lambda angle: 10.0**2 / 9.81 * jnp.sin(2 * angle))
        >>> print(f"{jax.grad(distance)(jnp.pi / 8):.3f}")  # 2 v^2 / g cos(2 angle)
        14.416
    """

    @functools.wraps(function)
    def wrapped(*args):
        axes = [None] * len(args) if in_axes is None else list(in_axes)
        arrays, rest = eqx.partition(args, eqx.is_array)
        if in_axes is not None:
            _check_rows(arrays, axes)
        on_row = lambda *arrays: function(*eqx.combine(arrays, rest))
        # A derivative rule outlives this trace, so it may not close over arrays: they become arguments of a program.
        program = Program.of(on_row, *(_first_row(x, axis) for x, axis in zip(arrays, axes, strict=True)))
        leaf_axes = [None] * len(program.closed)
        leaf_axes += [axis for x, axis in zip(arrays, axes, strict=True) for _ in jax.tree.leaves(x)]
        return _with_forward_rule(program.bind, [*program.closed, *jax.tree.leaves(arrays)], leaf_axes)

    return wrapped


def few_or_many(forward: Callable, reverse: Callable, inputs: PyTree, most: int) -> PyTree:
    """`forward(inputs)`, whose derivatives are by forward mode for few inputs and those of `reverse` for many.

    Args:
        forward: A function of `inputs`; it needs no reverse rule.
        reverse: A function with the same values.
        inputs: A tree.
        most: The number of inputs up to which forward mode is used. Only numbers that are being differentiated count.
    """
    arrays, rest = eqx.partition(inputs, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)
    on_leaves = lambda function: lambda *leaves: function(eqx.combine(jax.tree.unflatten(tree, leaves), rest))
    return _with_forward_rule(on_leaves(forward), leaves, [None] * len(leaves), _ForMany(on_leaves(reverse), most))


def _check_rows(args, axes):
    """Raises InputError unless the axes fit the arguments, and those that are mapped have as many rows."""
    if len(axes) != len(args) or not {0, None}.issuperset(axes):
        raise InputError(f"in_axes={tuple(axes)}: give 0 or None for each of the {len(args)} arguments")
    mapped = [x for arg, axis in zip(args, axes, strict=True) if axis == 0 for x in jax.tree.leaves(arg)]
    if not mapped or {x.shape[:1] for x in mapped} != {mapped[0].shape[:1]} or mapped[0].ndim == 0:
        shapes = ", ".join(str(x.shape) for x in mapped) or "none"
        raise InputError(f"in_axes={tuple(axes)} maps over arrays of shapes {shapes}: give each as many rows")


def _first_row(tree, axis):
    """The first row of a tree that is mapped over, or else the tree."""
    return tree if axis is None else jax.tree.map(lambda x: x[0], tree)


def _map_rows(function: Callable, axes: list) -> Callable:
    """`function` applied to rows one after another; with no axis to map over, `function` itself."""
    if all(axis is None for axis in axes):
        return function

    def rows(*leaves):
        mapped = [x for x, axis in zip(leaves, axes, strict=True) if axis == 0]

        def row(mapped):
            mapped = iter(mapped)
            return function(*(x if axis is None else next(mapped) for x, axis in zip(leaves, axes, strict=True)))

        return lax.map(row, mapped)

    return rows


def _jacobian_product(columns, direction):
    """The derivative along a direction. A result that is NaN has no effect on anything that does not use it."""
    return linear_map(_product, _transposed_product, [columns], [direction], plain=True)[0]


def _product(residuals, inputs):
    return [residuals[0] @ inputs[0]]


def _transposed_product(residuals, cotangents):
    (columns,), (cotangent,) = residuals, cotangents
    # A cotangent of zero times a derivative that is NaN counts as zero.
    terms = jnp.where((cotangent == 0)[..., None], 0.0, cotangent[..., None] * columns)
    return [jnp.sum(terms, axis=tuple(range(cotangent.ndim)))]


class _ForMany(NamedTuple):
    """Another function with the same values, which is differentiated if there are more than `most` inputs."""

    function: Callable
    most: int


def _with_forward_rule(function: Callable, leaves: list, axes: list, for_many: _ForMany | None = None):
    """The value of `function` of arrays, with a derivative rule that computes its Jacobian by forward mode.

    Only the columns of the Jacobian are computed that belong to arrays that are being differentiated.
    """
    call = jax.custom_jvp(_map_rows(function, axes))

    def rule(primals, tangents):
        active = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]
        directions = [tangents[i] for i in active]
        if for_many is not None and sum(primals[i].size for i in active) > for_many.most:
            function_for_many = for_many.function
            of_active = lambda *values: function_for_many(*_replace_items(primals, active, values))
            return jax.jvp(of_active, [primals[i] for i in active], directions)

        rows = _map_rows(_with_jacobian(function, active), axes)
        if for_many is None:
            value, columns = undivided(rows, *primals)
        else:
            # The columns have a forward rule too, so that reverse mode over this derivative needs no reverse rule.
            for_many_columns = for_many._replace(function=_with_jacobian(for_many.function, active))
            on_leaves = lambda *leaves: undivided(rows, *leaves)
            value, columns = _with_forward_rule(on_leaves, list(primals), axes, for_many_columns)
        product = _tree_product
        if any(axis == 0 for axis in axes):
            product = jax.vmap(product, in_axes=(0, *(axes[i] for i in active)))
        return value, product(columns, *directions)

    call.defjvp(rule, symbolic_zeros=True)
    return call(*leaves)


def _tree_product(columns, *directions):
    """The product of a Jacobian, a tree of arrays, and a direction in its inputs."""
    direction, _ = ravel_pytree(directions)
    # The tangent of an integer output is an empty placeholder, the same in every direction.
    return jax.tree.map(lambda c: _jacobian_product(c, direction) if eqx.is_inexact_array(c) else c[..., 0], columns)


def _with_jacobian(function: Callable, active: list[int]) -> Callable:
    """`function` of arrays, together with its Jacobian with respect to those whose numbers are `active`."""

    def value_and_columns(*leaves):
        flat, unravel = ravel_pytree([leaves[i] for i in active])
        return value_and_jacobian(lambda flat: function(*_replace_items(leaves, active, unravel(flat))), flat)

    return value_and_columns


def _replace_items(items: Sequence, numbers: list[int], values: Sequence) -> list:
    """The items, with other values for those of these numbers."""
    by_number = dict(zip(numbers, values, strict=True))
    return [by_number.get(i, x) for i, x in enumerate(items)]
