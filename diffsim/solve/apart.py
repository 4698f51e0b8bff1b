"""A barrier to fusion, which XLA's CPU backend drops if it is written as an `optimization_barrier`."""

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

_apart = Primitive("apart")
_apart.multiple_results = True


def apart(*arrays: Array) -> list[Array]:
    """The same arrays, computed once: what is done with them is not fused with what they are made from.

    The backend otherwise fuses one operation into every one that uses its result, and computes it as many times. Every
    mode of differentiation and `vmap` go through; derivatives are kept apart too.
    """
    return _apart.bind(*arrays)


def _jvp(primals, tangents):
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    found = list(tangents)
    for i, t in zip(moving, apart(*(tangents[i] for i in moving)) if moving else (), strict=True):
        found[i] = t
    return apart(*primals), found


def _transpose(cotangents, *_):
    moving = [i for i, c in enumerate(cotangents) if type(c) is not ad.Zero]
    found = list(cotangents)
    for i, c in zip(moving, apart(*(cotangents[i] for i in moving)) if moving else (), strict=True):
        found[i] = c
    return found


@jax.jit
def _call(*arrays):
    return lax.optimization_barrier(list(arrays))


def _never_inlined(*arrays):
    with set_xla_metadata(inlineable="false"):
        return _call(*arrays)


_apart.def_impl(lambda *arrays: list(arrays))
_apart.def_abstract_eval(lambda *arrays: list(arrays))
mlir.register_lowering(_apart, mlir.lower_fun(lambda *x: lax.optimization_barrier(list(x)), multiple_results=True))
mlir.register_lowering(_apart, mlir.lower_fun(_never_inlined, multiple_results=True), platform="cpu")
ad.primitive_jvps[_apart] = _jvp
ad.primitive_transposes[_apart] = _transpose
batching.primitive_batchers[_apart] = lambda arrays, axes: (apart(*arrays), axes)
