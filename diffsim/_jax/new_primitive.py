"""New primitive operations: functions that JAX differentiates and batches by given rules only."""

import functools
from collections.abc import Callable

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

DEFINITIONS: dict[Primitive, Callable] = {}
"""The function of every primitive made here, by which a program can be written without them."""


def new_primitive(
    name: str,
    function: Callable,
    *,
    batch: Callable,
    jvp: Callable | None = None,
    transpose: Callable | None = None,
    abstract: Callable | None = None,
    eager: Callable | None = None,
    multiple_results: bool = False,
) -> Primitive:
    """Returns the primitive of a function of arrays and static keyword arguments.

    Args:
        name: The name in traced programs.
        function: The function that is compiled.
        batch: `batch(arguments, axes, **static)` returns the batched result and its axes.
        jvp: `jvp(primals, tangents, **static)` returns value and tangent; None if `ad.deflinear2` or `ad.defbilinear`
            defines the rules.
        transpose: `transpose(cotangents, *arguments, **static)`, for a linear function.
        abstract: Returns shapes and types of the result from those of the arguments; by default `function` is traced.
        eager: The function that runs outside `jit`; by default `function`, operation by operation.
        multiple_results: Whether the function returns a list.
    """
    primitive = Primitive(name)
    primitive.multiple_results = multiple_results
    DEFINITIONS[primitive] = function
    primitive.def_impl(eager or function)
    primitive.def_abstract_eval(abstract or shapes_of(function))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=multiple_results))
    batching.primitive_batchers[primitive] = batch
    if jvp is not None:
        ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose
    return primitive


def shapes_of(function: Callable) -> Callable:
    """Returns the abstract evaluation of a primitive that computes `function`."""

    def shapes(*args, **static):
        # Inside `jax.shard_map` the type of an array also has its sharding and the mesh axes over which it varies.
        placing = lambda a: (
            {"sharding": a.sharding} | ({"manual_axis_type": a.manual_axis_type} if a.manual_axis_type else {})
        )
        like = [jax.ShapeDtypeStruct(a.shape, a.dtype, **placing(a)) for a in args]
        results = jax.eval_shape(functools.partial(function, **static), *like)
        return jax.tree.map(lambda out: ShapedArray(out.shape, out.dtype, **placing(out)), results)

    return shapes
