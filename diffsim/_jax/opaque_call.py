"""A traced program as one operation, which partial evaluation does not divide.

Linearisation goes through every operation inside a call, through nested loops, even where all inputs of the call are
known. A primitive is a single operation for it.
"""

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
    """A traced function of arrays, as a program of the arrays it closes over and the leaves of its arguments."""

    program: jex.core.ClosedJaxpr
    closed: list[Array]
    results: Any  # the structure

    @classmethod
    def of(cls, function: Callable, *args: PyTree[ArrayLike]) -> "Program":
        """Returns the program of `function(*args)`, without operations that its results do not need."""
        leaves, tree = jax.tree.flatten(args)
        flat = lambda *leaves: function(*jax.tree.unflatten(tree, leaves))
        # The attribute of a program compiled whole must not apply to the calls within it.
        with set_xla_metadata(xla_cpu_small_call=None, inlineable=None):
            traced, like = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        bare = traced.jaxpr
        bare = bare.replace(constvars=[], invars=[*bare.constvars, *bare.invars])
        needed, _ = partial_eval.dce_jaxpr(bare, [True] * len(bare.outvars), instantiate=True)
        return cls(jex.core.ClosedJaxpr(needed, ()), traced.consts, jax.tree.structure(like))

    def bind(self, *leaves: ArrayLike) -> PyTree[Array | np.ndarray]:
        """Returns the results as one operation.

        Args:
            *leaves: The arrays that the function closes over, then the leaves of its arguments.
        """
        return jax.tree.unflatten(self.results, _undivided.bind(*leaves, program=self.program))


def undivided(function: Callable, *args: PyTree[ArrayLike]) -> PyTree[Array | np.ndarray]:
    """Returns `function(*args)`, computed as one operation."""
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
# jax 0.12 replaces some operations, such as a search in a sorted array, before lowering.
_undivided.to_lojax = _call
# Lowered as a call, which does not trace the function again.
mlir.register_lowering(
    _undivided,
    lambda context, *args, program: mlir.core_call_lowering(context, *args, name="undivided", call_jaxpr=program),
)
