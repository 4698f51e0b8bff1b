"""The graph of a pipeline: the output of each named stage, what it costs, and how much the result depends on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import InputError
from .._trees import shape_text
from ..autodiff.costs import least_seconds
from ..io.aligned_columns import aligned
from .operation_derivatives import NO_RULE

REPEATS = 5


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline and its output.

    Attributes:
        name: The name of the stage.
        shapes: The shapes and types of its output.
        adjoint: The Euclidean norm of the result's derivative with respect to the output; None if JAX has none.
        seconds: The time of the compiled stage alone, the best of five.
        bytes: The size of the output.
        picture: The array of the output to draw: its largest.
    """

    name: str
    shapes: str
    adjoint: float | None
    seconds: float
    bytes: int
    picture: np.ndarray


@dataclass(frozen=True)
class StageGraph:
    """The stages of a pipeline in their order. `str()` gives a table.

    Attributes:
        stages: The stages; the first is the input.

    Examples:
        >>> graph = ds.stage_graph({"mean": jnp.mean, "loss": jnp.square}, jnp.ones((4, 4)))
        >>> [(stage.name, stage.shapes, stage.bytes) for stage in graph.stages]
        [('input', '4x4 float64', 128), ('mean', 'scalar float64', 8), ('loss', 'scalar float64', 8)]
    """

    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        rows = []
        for s in self.stages:
            adjoint = "-" if s.adjoint is None else f"{s.adjoint:.4g}"
            rows.append((s.name, s.shapes, adjoint, f"{1e3 * s.seconds:.3g}", str(s.bytes)))
        return aligned(("stage", "output", "|adjoint|", "ms", "bytes"), rows)


def stage_graph(stages: Mapping[str, Callable[[Any], Any]], x: Any) -> StageGraph:
    """The graph of a pipeline: the output, adjoint, time and size of every stage.

    Each stage is compiled by itself. Outputs are trees of arrays; modules too.

    Args:
        stages: The functions by name. The first is called with `x`, each of the others with the output of the one
            before it. The last returns one number.
        x: The input of the pipeline.

    Raises:
        InputError: If there are no stages, and if the last does not return one floating-point number.

    Examples:
        >>> graph = ds.stage_graph({"double": lambda x: 2 * x, "loss": lambda x: jnp.sum(x**2)}, jnp.array([3.0, 4.0]))
        >>> [(stage.name, stage.adjoint) for stage in graph.stages]
        [('input', 40.0), ('double', 20.0), ('loss', 1.0)]
    """
    if not stages:
        raise InputError("stages is empty: give a mapping of names to functions")
    outputs, seconds = [x], [0.0]
    for stage in stages.values():
        output, stage_seconds = _timed(stage, outputs[-1])
        outputs.append(output)
        seconds.append(stage_seconds)
    last = outputs[-1]
    if not (eqx.is_array(last) and last.shape == () and jnp.issubdtype(last.dtype, jnp.floating)):
        returned = shapes(last)
        raise InputError(f"stage {list(stages)[-1]!r} returns {returned}: let the last stage return one number")
    adjoints = _adjoint_norms(list(stages.values()), outputs)
    columns = zip(("input", *stages), outputs, adjoints, seconds, strict=True)
    return StageGraph(tuple(Stage(n, shapes(o), a, s, _bytes(o), _picture(o)) for n, o, a, s in columns))


def _timed(stage: Callable[[Any], Any], x: Any) -> tuple[Any, float]:
    """The output of a stage, and the seconds of its fastest call."""
    compiled = eqx.filter_jit(stage)
    output = jax.block_until_ready(compiled(x))
    return output, least_seconds(lambda: compiled(x), REPEATS)


def _adjoint_norms(stages: list[Callable[[Any], Any]], outputs: list[Any]) -> list[float | None]:
    """The norms of the result's derivatives with respect to the input and every output, one stage after the other."""
    cotangent: Any = jnp.ones_like(outputs[-1])
    norms: list[float | None] = [1.0]
    for stage, x in zip(stages[::-1], outputs[-2::-1], strict=True):
        differentiable, rest = eqx.partition(x, eqx.is_inexact_array)

        @eqx.filter_jit
        def back(differentiable, rest, cotangent, stage=stage):
            of_differentiable = lambda d: eqx.filter(stage(eqx.combine(d, rest)), eqx.is_inexact_array)
            _, vjp = jax.vjp(of_differentiable, differentiable)
            return vjp(cotangent)[0]

        if cotangent is not None:
            try:
                cotangent = back(differentiable, rest, cotangent)
            except NO_RULE:
                cotangent = None
        squares = [float(np.sum(np.square(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(cotangent)]
        norms.append(None if cotangent is None else float(np.sqrt(sum(squares))))
    return norms[::-1]


def shapes(output: Any) -> str:
    """The arrays of a tree in words, such as "2 x 20x3 float64, 7 float32"; the first four kinds."""
    arrays = [leaf for leaf in jax.tree.leaves(output) if eqx.is_array(leaf)]
    kinds = [f"{shape_text(a.shape) or 'scalar'} {a.dtype}" for a in arrays]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    words = [kind if count == 1 else f"{count} x {kind}" for kind, count in counts.items()]
    return ", ".join(words[:4]) + (", ..." if len(words) > 4 else "") or "nothing"


def _bytes(output: Any) -> int:
    """The size of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(output) if eqx.is_array(leaf))


def _picture(output: Any) -> np.ndarray:
    """The largest real array of an output; if all are single numbers, these as one vector."""
    arrays = [np.asarray(x, np.float64) for x in jax.tree.leaves(eqx.filter(output, eqx.is_inexact_array))]
    if not arrays:
        return np.zeros(0)
    largest = max(arrays, key=lambda array: array.size)
    return np.stack([a for a in arrays if a.ndim == 0]) if largest.ndim == 0 and len(arrays) > 1 else largest
