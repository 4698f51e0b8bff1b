"""A traced program as one operation, which partial evaluation takes or leaves as a whole."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend as jex
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import mlir, partial_eval
from jaxtyping import Array, ArrayLike, PyTree

from .linear_map import jvp_of_moving
from .new_primitive import new_primitive


class Program(NamedTuple):
    """A function of arrays, traced: a program of what it closes over, and then of the leaves of its arguments."""

    program: jex.core.ClosedJaxpr
    closed: list[Array]
    results: Any  # the structure

    @classmethod
    def of(cls, function: Callable, *args: PyTree[ArrayLike]) -> "Program":
        """`function` of arguments like these, without operations that its results do not need."""
        leaves, tree = jax.tree.flatten(args)
        flat = lambda *leaves: function(*jax.tree.unflatten(tree, leaves))
        # The mark of a program compiled whole is not for the calls within it.
        with set_xla_metadata(xla_cpu_small_call=None, inlineable=None):
            traced, like = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        bare = traced.jaxpr
        bare = bare.replace(constvars=[], invars=[*bare.constvars, *bare.invars])
        needed, _ = partial_eval.dce_jaxpr(bare, [True] * len(bare.outvars), instantiate=True)
        return cls(jex.core.ClosedJaxpr(needed, ()), traced.consts, jax.tree.structure(like))

    def bind(self, *leaves: ArrayLike) -> PyTree[Array | np.ndarray]:
        """The results, of leaves that begin with those closed over, as one operation.

        JAX's linearisation goes through every operation of a call, loop in loop, even though all that it depends on is
        known, and through this as one.
        """
        return jax.tree.unflatten(self.results, _undivided.bind(*leaves, program=self.program))


def undivided(function: Callable, *args: PyTree[ArrayLike]) -> PyTree[Array | np.ndarray]:
    """`function(*args)` as one operation."""
    program = Program.of(function, *args)
    return program.bind(*program.closed, *jax.tree.leaves(args))


def _call(*args, program):
    return jex.core.jaxpr_as_fun(program)(*args)


def _batch(args, axes, *, program):
    out = undivided(jax.vmap(jex.core.jaxpr_as_fun(program), in_axes=axes), *args)
    return out, [0] * len(out)


_undivided = new_primitive(
    "undivided",
    _call,
    jvp=lambda primals, tangents, program: jvp_of_moving(jex.core.jaxpr_as_fun(program), primals, tangents),
    batch=_batch,
    abstract=lambda *_, program: program.out_avals,
    multiple_results=True,
)
# Some of jax 0.12's operations, such as a search in a sorted array, are replaced by others before they are lowered.
_undivided.to_lojax = _call
# As a call: to lower the function would be to trace it once more.
mlir.register_lowering(
    _undivided,
    lambda context, *args, program: mlir.core_call_lowering(context, *args, name="undivided", call_jaxpr=program),
)
