"""A barrier to fusion, which XLA's CPU backend drops if it is written as an `optimization_barrier`."""

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

_DROPPED = jax.__version_info__ < (0, 11)  # of single numbers too

_barrier = Primitive("barrier")
_barrier.multiple_results = True


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
    if not (many or _DROPPED):
        return _elsewhere(*arrays, many=many)
    with set_xla_metadata(inlineable="false"):
        return _call(*arrays, many=many)


_barrier.def_impl(lambda *arrays, many: list(arrays))
_barrier.def_abstract_eval(lambda *arrays, many: list(arrays))
mlir.register_lowering(_barrier, mlir.lower_fun(_elsewhere, multiple_results=True))
mlir.register_lowering(_barrier, mlir.lower_fun(_on_cpu, multiple_results=True), platform="cpu")
ad.primitive_jvps[_barrier] = _jvp
ad.primitive_transposes[_barrier] = lambda cotangents, *_, many: _moving(cotangents, many)
batching.primitive_batchers[_barrier] = lambda arrays, axes, many: (_barrier.bind(*arrays, many=True), axes)
