"""A barrier to fusion that also works under `vmap`.

XLA's CPU backend drops a `jax.lax.optimization_barrier` over a batch (in jax 0.10 always). There the barrier is a call
that the backend is told not to inline.
"""

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import ad, mlir
from jaxtyping import Array

from .new_primitive import new_primitive


def barrier(*arrays: Array) -> list[Array]:
    """Returns the same arrays, computed once: operations on them are not fused with the operations that produce them.

    The backend otherwise fuses an operation into each operation that uses its result, and computes it once for each.
    All modes of differentiation and `vmap` are supported; there is a barrier for the derivatives too.
    """
    return _barrier.bind(*arrays, many=False)


def _moving(tangents, many):
    """Tangents or cotangents, those that are not symbolic zeros behind a barrier."""
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    result = list(tangents)
    for i, t in zip(moving, _barrier.bind(*(tangents[i] for i in moving), many=many) if moving else (), strict=True):
        result[i] = t
    return result


def _jvp(primals, tangents, many):
    return _barrier.bind(*primals, many=many), _moving(tangents, many)


def _elsewhere(*arrays, many):
    return lax.optimization_barrier(list(arrays))


_call = jax.jit(_elsewhere, static_argnames="many")


def _on_cpu(*arrays, many):
    if not many:
        return _elsewhere(*arrays, many=many)
    with set_xla_metadata(inlineable="false"):
        return _call(*arrays, many=many)


_barrier = new_primitive(
    "barrier",
    _elsewhere,
    jvp=_jvp,
    transpose=lambda cotangents, *_, many: _moving(cotangents, many),
    batch=lambda arrays, axes, many: (_barrier.bind(*arrays, many=True), axes),
    abstract=lambda *arrays, many: list(arrays),
    eager=lambda *arrays, many: list(arrays),
    multiple_results=True,
)
mlir.register_lowering(_barrier, mlir.lower_fun(_on_cpu, multiple_results=True), platform="cpu")
