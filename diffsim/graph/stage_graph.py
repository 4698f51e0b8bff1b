"""The graph of a pipeline: what each named stage puts out, what it costs, and how much the result depends on it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from .operation_derivatives import NO_RULE

REPEATS = 5


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline, judged by its output.

    `shapes` says what it puts out, `adjoint` is the Euclidean norm of the result's derivative by it (None where
    jax has none), `seconds` the compiled stage's own time, `picture` the array of the output that shows best.
    """

    name: str
    shapes: str
    adjoint: float | None
    seconds: float
    bytes: int
    picture: np.ndarray


@dataclass(frozen=True)
class StageGraph:
    """The input and the stages of a pipeline in their order. `str()` gives a table."""

    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        lines = [("stage", "output", "|adjoint|", "ms", "bytes")]
        for s in self.stages:
            adjoint = "-" if s.adjoint is None else f"{s.adjoint:.4g}"
            lines.append((s.name, s.shapes, adjoint, f"{1e3 * s.seconds:.3g}", str(s.bytes)))
        widths = [max(len(line[k]) for line in lines) for k in range(5)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def stage_graph(stages: Mapping[str, Callable[[Any], Any]], x: Any) -> StageGraph:
    """Returns the graph of a pipeline: `stages` by name, each a function of what the one before puts out.

    The first gets `x`, the last returns one number. Outputs are trees of arrays (modules too). Each stage is
    compiled by itself and its time is the best of five runs.

    Raises InputError without stages, and where the last does not return one floating-point number.
    """
    if not stages:
        raise InputError("stages is empty: give a mapping of names to functions")
    outputs, seconds = [x], [0.0]
    for stage in stages.values():
        output, spent = _timed(stage, outputs[-1])
        outputs.append(output)
        seconds.append(spent)
    last = outputs[-1]
    if not (eqx.is_array(last) and last.shape == () and jnp.issubdtype(last.dtype, jnp.floating)):
        found = shapes(last)
        raise InputError(f"stage {list(stages)[-1]!r} returns {found}: let the last stage return one number")
    adjoints = _adjoints(list(stages.values()), outputs)
    parts = zip(("input", *stages), outputs, adjoints, seconds, strict=True)
    return StageGraph(tuple(Stage(n, shapes(o), a, s, _bytes(o), _picture(o)) for n, o, a, s in parts))


def _timed(stage: Callable[[Any], Any], x: Any) -> tuple[Any, float]:
    compiled = eqx.filter_jit(stage)
    output = jax.block_until_ready(compiled(x))
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(x))
        spent.append(time.perf_counter() - began)
    return output, min(spent)


def _adjoints(stages: list[Callable[[Any], Any]], outputs: list[Any]) -> list[float | None]:
    """Norms of the result's derivative by the input and by every output, by vjp of one stage after the other."""
    cotangent: Any = jnp.ones_like(outputs[-1])
    norms: list[float | None] = [1.0]
    for stage, x in zip(stages[::-1], outputs[-2::-1], strict=True):
        moving, rest = eqx.partition(x, eqx.is_inexact_array)

        @eqx.filter_jit
        def back(moving, rest, cotangent, stage=stage):
            _, pull = jax.vjp(lambda m: eqx.filter(stage(eqx.combine(m, rest)), eqx.is_inexact_array), moving)
            return pull(cotangent)[0]

        if cotangent is not None:
            try:
                cotangent = back(moving, rest, cotangent)
            except NO_RULE:
                cotangent = None
        squares = [float(np.sum(np.square(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(cotangent)]
        norms.append(None if cotangent is None else float(np.sqrt(sum(squares))))
    return norms[::-1]


def shapes(output: Any) -> str:
    """Returns what a tree of arrays holds, as in "2 x 20x3 float64, 7 float32", the most first."""
    arrays = [leaf for leaf in jax.tree.leaves(output) if eqx.is_array(leaf)]
    kinds = [f"{'x'.join(map(str, a.shape)) or 'scalar'} {a.dtype}" for a in arrays]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    words = [kind if count == 1 else f"{count} x {kind}" for kind, count in counts.items()]
    return ", ".join(words[:4]) + (", ..." if len(words) > 4 else "") or "nothing"


def _bytes(output: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(output) if eqx.is_array(leaf))


def _picture(output: Any) -> np.ndarray:
    """The largest real array of an output; single numbers of a tree as one vector."""
    arrays = [np.asarray(x, np.float64) for x in jax.tree.leaves(eqx.filter(output, eqx.is_inexact_array))]
    if not arrays:
        return np.zeros(0)
    largest = max(arrays, key=lambda array: array.size)
    return np.stack([a for a in arrays if a.ndim == 0]) if largest.ndim == 0 and len(arrays) > 1 else largest
