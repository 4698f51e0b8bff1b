"""Operations of our own: registers with JAX a function that it must not look into."""

import functools
from collections.abc import Callable

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


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
        name: as programs show it.
        function: what is compiled.
        batch: `batch(arguments, axes, **static)` gives the batched result and its axes.
        jvp: `jvp(primals, tangents, **static)` gives value and tangent; None where `ad.deflinear2` or `ad.defbilinear`
            gives the rules.
        transpose: `transpose(cotangents, *arguments, **static)`, of a linear function.
        abstract: shapes and types of the result, from those of the arguments; by default found by tracing.
        eager: what runs outside `jit`; by default `function`, operation by operation.
        multiple_results: whether the function returns a list.
    """
    primitive = Primitive(name)
    primitive.multiple_results = multiple_results
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
        # With their sharding and the axes over which they vary, by which arrays inside `jax.shard_map` differ.
        placing = lambda a: (
            {"sharding": a.sharding} | ({"manual_axis_type": a.manual_axis_type} if a.manual_axis_type else {})
        )
        like = [jax.ShapeDtypeStruct(a.shape, a.dtype, **placing(a)) for a in args]
        results = jax.eval_shape(functools.partial(function, **static), *like)
        return jax.tree.map(lambda out: ShapedArray(out.shape, out.dtype, **placing(out)), results)

    return shapes
