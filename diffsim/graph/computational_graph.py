"""The computational graph of a function: every intermediate result with its value, tangent and adjoint."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._errors import InputError
from .._jax.program import Fold, program_of, trace
from .._trees import path_name
from ..autodiff.inputs import floats_as_arrays, scalar_format, split
from ..io.aligned_columns import aligned
from ..io.json_encoding import plain
from .nodes import Node, SlotValues, nodes_of, show
from .operation_derivatives import adjoints, tangents

MAX_OPERATIONS = 2000
"""The most operations of a graph, each of which is differentiated by itself."""


@dataclass(frozen=True)
class Graph:
    """The nodes of a function at one point. `str()` gives the textbook's tables.

    Attributes:
        nodes: The nodes, the inputs first and the result last.
    """

    nodes: tuple[Node, ...]

    def __getitem__(self, name: str) -> Node:
        """The node of this name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise InputError(f"no node {name!r}: this graph has {', '.join(node.name for node in self.nodes)}")

    @property
    def result(self) -> Node:
        """The node of the function's value."""
        return self.nodes[-1]

    def forward(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the forward table: values and tangents in the order of computation."""
        rows = [[n.name, n.operation, show(n.value), show(n.tangent)] for n in self.nodes]
        return ["node", "operation", "value", "tangent"], rows

    def reverse(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the reverse table: adjoints from the result back, and their parts."""
        rows = []
        for node in self.nodes[::-1]:
            parts = " + ".join(f"{show(share)} [{child}]" for child, share in node.shares)
            parts = parts or ("the seed" if node is self.result else "nothing")
            rows.append([node.name, show(node.adjoint), parts])
        return ["node", "adjoint", "sum of, by the node that it comes from"], rows

    def to_dict(self) -> dict[str, Any]:
        """The graph as dictionaries, lists, strings and finite numbers, for JSON."""
        return plain({"nodes": [asdict(node) for node in self.nodes]})

    def __str__(self) -> str:
        return "\n\n".join(aligned(*table) for table in (self.forward(), self.reverse()))


def computational_graph(
    f: Callable[..., Any], *args: Any, direction: tuple[PyTree, ...] | None = None, fold: Fold = False
) -> Graph:
    """The graph of a scalar `f(*args)`: the value, tangent and adjoint of every intermediate result.

    Equal expressions are one node. Loops and functions with a derivative rule of their own are always one node.

    Args:
        f: A function of `args` that returns one number.
        args: The point. Every floating-point array in it is an input.
        direction: The direction of the tangents, a tuple of trees like `args`; by default 1 in the first input and 0 in
            the others.
        fold: Which calls of jitted functions are one node: none (False), all (True), or those whose names are given.

    Raises:
        InputError: If `f` does not return one number or cannot be traced, if there is nothing to differentiate, for a
            `direction` of other shapes than `args`, and for more than 2,000 operations.

    Examples:
        >>> graph = ds.computational_graph(lambda x1, x2: jnp.sin(x1) * x2, 0.0, 3.0)
        >>> [(node.name, node.operation) for node in graph.nodes]
        [('x1', 'input'), ('x2', 'input'), ('v1', 'sin(x1)'), ('y', 'v1 * x2')]
        >>> float(graph["x1"].adjoint)  # the derivative with respect to x1
        3.0
    """
    inputs = split(f, args)
    names = _input_names(f, args)
    scalar_format(inputs, jit=True)
    program = program_of(trace(inputs.call, inputs.leaves), fold)
    if len(program.operations) > MAX_OPERATIONS:
        raise InputError(
            f"the graph has {len(program.operations)} operations, more than {MAX_OPERATIONS}: put parts of f into "
            "functions under jax.jit and pass fold=True, or use stage_graph"
        )
    values = program.run(inputs.leaves)
    tangents_by_slot = tangents(program, values, _input_tangents(f, inputs.leaves, direction))
    adjoints_by_slot, contributions = adjoints(program, values, jnp.ones_like(values[program.results[0]]))
    known = SlotValues(values, tangents_by_slot, adjoints_by_slot, contributions)
    return Graph(tuple(nodes_of(program, names, known)))


def _input_tangents(f, leaves, direction) -> list[Any]:
    """The tangent of each input along the direction of a graph."""
    if direction is None:
        return [jnp.full_like(leaf, float(number == 0)) for number, leaf in enumerate(leaves)]
    directions = split(f, jax.tree.map(lambda x: jnp.asarray(x, float), direction)).leaves
    if [x.shape for x in directions] != [leaf.shape for leaf in leaves]:
        given, expected = ([x.shape for x in tree] for tree in (directions, leaves))
        raise InputError(f"direction has arrays of shapes {given}: give one like args, {expected}")
    return directions


def _input_names(f: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """The names of the inputs: those of the parameters of `f` where they are known, with the path within each."""
    try:
        bound = inspect.signature(f).bind(*args).arguments
        arguments = [f"{k}{i}" for k, v in bound.items() for i in (range(len(v)) if _is_starred(f, k) else [""])]
    except (TypeError, ValueError):
        arguments = [f"x{number}" for number in range(len(args))]
    floats = eqx.filter(floats_as_arrays(args), lambda leaf: eqx.is_inexact_array(leaf) and leaf.size > 0)
    names = []
    for path, _ in jax.tree_util.tree_leaves_with_path(floats):
        inner = path_name(path[1:])
        names.append(f"{arguments[path[0].idx]}.{inner}" if inner else arguments[path[0].idx])
    return names


def _is_starred(f: Callable[..., Any], name: str) -> bool:
    """Whether a parameter of `f` is its `*args`."""
    return inspect.signature(f).parameters[name].kind == inspect.Parameter.VAR_POSITIONAL
