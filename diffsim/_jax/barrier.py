"""A barrier to fusion that holds over a batch too, where XLA's CPU backend drops an `optimization_barrier`."""

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import ad, mlir
from jaxtyping import Array

from .new_primitive import new_primitive


def barrier(*arrays: Array) -> list[Array]:
    """The same arrays, computed once: what is done with them is not fused with what they are made from.

    The backend otherwise fuses one operation into every one that uses its result, and computes it as many times. Every
    mode of differentiation and `vmap` go through; derivatives are kept so too.
    """
    return _barrier.bind(*arrays, many=False)


def _moving(tangents, many):
    """Tangents or cotangents, with a barrier behind those that are not zero."""
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    found = list(tangents)
    for i, t in zip(moving, _barrier.bind(*(tangents[i] for i in moving), many=many) if moving else (), strict=True):
        found[i] = t
    return found


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
