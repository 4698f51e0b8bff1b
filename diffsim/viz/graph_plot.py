"""Drawings of graphs: the operations of a function, and the stages of a pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from diffsim._errors import InputError
from diffsim.graph.computational_graph import Graph
from diffsim.graph.nodes import Node, show
from diffsim.graph.stage_graph import StageGraph
from diffsim.viz.animation import PALETTE
from diffsim.viz.canvas import STYLE
from diffsim.viz.graph_layout import layout

DRAWN = 150
"""The largest number of nodes of a drawing: a larger one is not readable."""

LETTER = 0.074  # in, the width of a letter at the size used
LONGEST = 26  # letters of an operation's name before it is cut


def graph(g: Graph) -> Figure:
    """Returns a drawing of a computational graph, in layers from the inputs down to the result.

    Each box shows a node's operation, value, tangent and adjoint.

        plot.graph(ds.computational_graph(f, x)).savefig("graph.svg")

    Args:
        g: A graph of at most 150 nodes.

    Raises:
        InputError: For a graph with more nodes.
    """
    if len(g.nodes) > DRAWN:
        raise InputError(
            f"the graph has {len(g.nodes)} nodes, more than {DRAWN}: put parts of the function under jax.jit and fold "
            "them (fold=True), or draw its stage_graph"
        )
    where, edges = layout({node.name: node.parents for node in g.nodes})
    labels = {node.name: _label(node) for node in g.nodes}
    letters = max(len(line) for label in labels.values() for line in label.splitlines())
    width, height = LETTER * letters + 0.3, 0.95
    columns, rows = (1 + max(place[axis] for place in where.values()) for axis in (0, 1))
    with _blank(columns * width, rows * height) as (figure, axes):
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        for points in edges.values():
            x, y = _smooth(np.asarray(points, float))
            axes.plot(x, y, color="0.55", linewidth=0.9, zorder=1)
        for node in g.nodes:
            colour = _colour(node, g)
            style = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour, "linewidth": 1.4}
            axes.text(
                *where[node.name], labels[node.name], ha="center", va="center", fontsize=7.5, bbox=style, zorder=2
            )
    return figure


def _label(node: Node) -> str:
    text = node.name if node.operation == "input" else f"{node.name} = {node.operation}"
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    derivatives = f"tangent {show(node.tangent)}", f"adjoint {show(node.adjoint)}"
    return "\n".join((text, show(node.value), *derivatives))


def _colour(node: Node, g: Graph) -> str:
    return PALETTE[1] if node is g.result else PALETTE[0] if node.operation == "input" else "0.55"


def _smooth(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smooth path through the points that is vertical at each of them."""
    s = np.linspace(0.0, 1.0, 20)[:, None]
    ease = s * s * (3 - 2 * s)
    parts = [np.column_stack([a[0] + (b[0] - a[0]) * ease, a[1] + (b[1] - a[1]) * s]) for a, b in pairwise(points)]
    path = np.concatenate(parts)
    return path[:, 0], path[:, 1]


def stages(g: StageGraph) -> Figure:
    """Returns a drawing of a pipeline: for each stage its output as a thumbnail, shapes, adjoint, time and bytes.

    Args:
        g: The stages, as `stage_graph` returns them.
    """
    count = len(g.stages)
    with _blank(6.8, 1.15 * count) as (figure, axes):
        axes.set(xlim=(0, 6.8), ylim=(count, 0))
        for number, stage in enumerate(g.stages):
            box = FancyBboxPatch((0.1, number + 0.1), 6.6, 0.76, boxstyle="round,pad=0.04")
            axes.add_patch(box).set(facecolor="white", edgecolor="0.6", linewidth=1.2)
            axes.text(1.75, number + 0.3, stage.name, fontsize=11, weight="bold", va="center")
            axes.text(1.75, number + 0.56, stage.shapes, fontsize=8, va="center", color="0.3")
            adjoint = "no adjoint" if stage.adjoint is None else f"|adjoint| {stage.adjoint:.3g}"
            facts = f"{adjoint}     {1e3 * stage.seconds:.3g} ms     {stage.bytes:,} bytes"
            axes.text(1.75, number + 0.76, facts, fontsize=8, va="center", color="0.3")
            if number:
                arrow = {"arrowstyle": "-|>", "color": "0.45", "linewidth": 1.2}
                axes.annotate("", (3.4, number + 0.06), (3.4, number - 0.1), arrowprops=arrow)
            _thumbnail(axes.inset_axes((0.2, number + 0.14, 1.35, 0.68), transform=axes.transData), stage.picture)
    return figure


def _thumbnail(axes: Axes, values: np.ndarray) -> None:
    """Draws an output as a thumbnail: a picture, curves, bars of a short vector, or a number."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    if values.ndim >= 2 and min(values.shape[:2]) >= 8 and (values.ndim == 2 or values.shape[2] in (1, 3)):
        axes.imshow(np.clip(values, 0, 1) if values.ndim == 3 else values, cmap="gray", aspect="auto")
    elif values.ndim >= 1 and values.shape[0] >= (40 if values.ndim == 1 else 8):
        axes.plot(values.reshape(values.shape[0], -1)[:, :6], linewidth=1.0)
    elif values.size > 1:
        axes.bar(np.arange(min(values.size, 40)), values.ravel()[:40], color=PALETTE[0])
    else:
        axes.axis("off")
        text = f"{values.item():.4g}" if values.size else "empty"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=12, transform=axes.transAxes)


@contextmanager
def _blank(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yields a figure of a size in inches, and axes without any marks that fill it."""
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(figsize=(width, height))
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        yield figure, axes
