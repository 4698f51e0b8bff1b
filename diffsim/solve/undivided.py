"""A function as one operation, which partial evaluation takes or leaves as a whole."""

from collections.abc import Callable

import jax
import jax.extend as jex
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .linear import jvp_of_moving

_undivided = Primitive("undivided")
_undivided.multiple_results = True


def undivided(function: Callable, *args):
    """`function(*args)` of arrays, traced once.

    JAX's linearisation goes through every operation of a call, loop in loop, even though all that it depends on is
    known, and through this as one. `function` must not close over arrays that are being traced.
    """
    program, like = jax.make_jaxpr(function, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(like), _undivided.bind(*jax.tree.leaves(args), program=program))


def _call(*args, program):
    return jex.core.jaxpr_as_fun(program)(*args)


def _batch(args, axes, *, program):
    out = undivided(jax.vmap(jex.core.jaxpr_as_fun(program), in_axes=axes), *args)
    return out, [0] * len(out)


_undivided.def_impl(_call)
_undivided.def_abstract_eval(lambda *_, program: program.out_avals)
mlir.register_lowering(_undivided, mlir.lower_fun(_call, multiple_results=True))
ad.primitive_jvps[_undivided] = lambda primals, tangents, program: jvp_of_moving(
    jex.core.jaxpr_as_fun(program), primals, tangents
)
batching.primitive_batchers[_undivided] = _batch
