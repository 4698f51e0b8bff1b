"""Traced functions that compare equal if they are the same program, so that equal calls share a compiled program.

`jax.jit` recognises a static function by its identity, and compiles again for one that is defined in each call.
"""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from .source_lines import line_of

_SMALL = 1024  # bytes of a constant, up to which it is compared by value


class Traced(eqx.Module):
    """A function, traced for given arguments: a program and the arrays that it closes over.

    Two programs are equal if they apply the same operations, with the same Python numbers, in the same order, from the
    same lines of the caller's code, since error messages name these lines. So a function that is defined again in each
    call is recognised, and one that closes over another Python number is not confused with it. A function within a
    custom derivative is compared by its code and closure.

    Attributes:
        constants: The arrays that the function closes over.
        program: The program.
    """

    constants: list[Array]
    program: "_Program" = eqx.field(static=True)

    @classmethod
    def of(cls, function: Callable, *args: PyTree) -> "Traced":
        """Returns the function as it is now; tracing by JAX would reuse a trace of the same function object."""
        arrays, rest = eqx.partition(args, eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        flat = lambda *leaves: function(*eqx.combine(jax.tree.unflatten(tree, leaves), rest))
        traced, shape = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        return cls(as_arrays(traced.consts), _Program(traced.jaxpr, tree, jax.tree.structure(shape)))

    @classmethod
    def pair_of(cls, function: Callable, *args: PyTree) -> tuple["Traced", "Traced"]:
        """Returns the functions of the two results of `function`, traced together."""
        both = cls.of(function, *args)
        jaxpr, (first, second) = both.program.jaxpr, both.program.outputs.children()
        count = first.num_leaves
        part = lambda outvars, outputs: cls(
            both.constants, _Program(with_results(jaxpr, outvars), both.program.inputs, outputs)
        )
        return part(jaxpr.outvars[:count], first), part(jaxpr.outvars[count:], second)

    def __call__(self, *args: PyTree) -> PyTree[Array]:
        leaves, tree = jax.tree.flatten(eqx.filter(args, eqx.is_array))
        if tree != self.program.inputs:
            raise TypeError(f"traced with arguments {self.program.inputs}, called with {tree}")
        return jax.tree.unflatten(self.program.outputs, _run(self.program, self.constants, leaves))


def is_traced() -> bool:
    """Whether JAX is tracing a program now, of which new operations become part."""
    return isinstance(jnp.zeros(()), Tracer)


def with_results(jaxpr: jex.core.Jaxpr, outvars: list) -> jex.core.Jaxpr:
    """Returns the program with other results."""
    return jaxpr.replace(outvars=outvars, debug_info=jaxpr.debug_info._replace(result_paths=None))


def as_arrays(tree: PyTree) -> PyTree:
    """Returns the tree with Python floats as weakly typed arrays, also those that are differentiated."""

    def convert(x):
        if isinstance(x, float):
            return jnp.asarray(x)
        # Under `jax.grad` of a Python number the tracer contains a Python number.
        return x * 1 if isinstance(x, Tracer) and x.weak_type and jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, tree)


class _Program:
    """A program without its constants, with the structures of its arguments and results."""

    def __init__(self, jaxpr: jex.core.Jaxpr, inputs, outputs):
        self.jaxpr, self.inputs, self.outputs = jaxpr, inputs, outputs
        self._key = _key_of_program(jaxpr), inputs, outputs
        self._hash = hash(self._key)

    def __eq__(self, other) -> bool:
        return isinstance(other, _Program) and self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


@functools.partial(jax.jit, static_argnums=0)
def _run(program: _Program, constants: list[Array], leaves: list[Array]) -> list[Array | np.ndarray]:
    """The results of a program. As a jitted call it is transformed and lowered once, however often a solve calls it."""
    return jex.core.jaxpr_as_fun(jex.core.ClosedJaxpr(program.jaxpr, constants))(*leaves)


class _Identical:
    """A key for an object that equals only itself; the reference to it prevents that its id is reused."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other) -> bool:
        return isinstance(other, _Identical) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _key_of_program(jaxpr: jex.core.Jaxpr) -> tuple:
    """A key for a program, with its variables numbered in the order in which they appear."""
    numbers: dict[Any, int] = {}

    def name(atom):
        if isinstance(atom, jex.core.Literal):
            return "literal", atom.aval, _key(atom.val)
        return numbers[atom]

    def define(variables) -> tuple:
        for variable in variables:
            numbers[variable] = len(numbers)
        return tuple(variable.aval for variable in variables)

    inputs = define([*jaxpr.constvars, *jaxpr.invars])
    equations = []
    for equation in jaxpr.eqns:
        operands = tuple(name(atom) for atom in equation.invars)
        params = tuple((key, _key(value)) for key, value in sorted(equation.params.items()))
        equations.append((equation.primitive, operands, params, define(equation.outvars), line_of(equation)))
    return inputs, tuple(equations), tuple(name(atom) for atom in jaxpr.outvars)


def _key(value, within: tuple = ()) -> Any:
    """A hashable key that is equal for parameters of operations with the same meaning."""
    key = functools.partial(_key, within=(*within, id(value)))
    if id(value) in within:
        return "recursion", within.index(id(value))
    if isinstance(value, jex.core.Jaxpr):
        return _key_of_program(value)
    if isinstance(value, jex.core.ClosedJaxpr):
        return _key_of_program(value.jaxpr), tuple(key(x) for x in value.consts)
    if isinstance(value, Tracer):
        return _Identical(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        small = value.nbytes <= _SMALL and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)
        return (value.shape, value.dtype, np.asarray(value).tobytes()) if small else _Identical(value)
    if isinstance(value, tuple | list):
        return type(value), tuple(key(x) for x in value)
    if isinstance(value, dict):
        return tuple((key(name), key(x)) for name, x in value.items())
    if isinstance(value, types.FunctionType):
        return _key_of_function(value, key)
    if isinstance(value, functools.partial):
        return key(value.func), key(value.args), key(value.keywords)
    return _key_of_object(value, key)


def _key_of_function(function: types.FunctionType, key: Callable) -> tuple:
    """A key of code, defaults and closure, but for the dictionaries of past calls in closures of JAX."""
    cells = [_content(cell) for cell in function.__closure__ or ()]
    if (function.__module__ or "").startswith("jax."):  # None for a function of `exec`
        cells = [content for content in cells if not isinstance(content, dict)]
    defaults = function.__defaults__, function.__kwdefaults__
    return function.__code__, _Identical(function.__globals__), key(cells), key(defaults)


def _content(cell: types.CellType):
    try:
        return cell.cell_contents
    except ValueError:  # the cell is empty
        return None


def _key_of_object(value, key: Callable) -> Any:
    kind = type(value)
    if kind.__name__ == "WrappedFun":  # a function that JAX has wrapped in transformations of its arguments
        return key(value.f), key(value.transforms)
    if isinstance(value, types.MethodType):
        return key(value.__func__), key(value.__self__)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return kind, tuple(key(getattr(value, field.name, None)) for field in dataclasses.fields(value))
    if isinstance(value, float):
        return float, value.hex()  # distinguishes -0.0 from 0.0, and NaN equals NaN
    by_value = kind.__eq__ is not object.__eq__
    if by_value and kind.__hash__ is not None:
        try:
            hash(value)
        except TypeError:
            return _Identical(value)
        return kind, value
    # Records of JAX about the tracing, such as locations and results, which do not matter.
    records = kind is object or kind.__module__.startswith(("jax.", "jaxlib."))
    return kind if records else _Identical(value)
