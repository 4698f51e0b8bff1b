"""The computational graph of a function: every intermediate result with its value, tangent and adjoint."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .._jax.program import Fold, Program, Slot, program_of, trace
from ..autodiff.inputs import floats_as_arrays, scalar_format, split
from ..io.json_encoding import plain
from .operation_derivatives import adjoints, moves, tangents

LARGEST = 2000
"""Operations that a graph may have: each is differentiated by itself."""

INFIX = {"add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "gt": ">", "lt": "<", "ge": ">="}
NAMES = {"integer_pow": "pow", "convert_element_type": "cast", "dot_general": "dot", "select_n": "select"}


@dataclass(frozen=True)
class Node:
    """One intermediate result: `operation` in words of other nodes, which are its `parents`.

    `tangent` is its derivative along the graph's direction, `adjoint` the derivative of the result by it, and
    `shares` what of the adjoint comes from which node. None stands for a derivative that jax does not have.
    """

    name: str
    operation: str
    parents: tuple[str, ...]
    value: np.ndarray
    tangent: np.ndarray | None
    adjoint: np.ndarray | None
    shares: tuple[tuple[str, np.ndarray], ...]
    scope: str
    source: str


@dataclass(frozen=True)
class Graph:
    """The nodes of a function at one point, inputs first, the result last. `str()` gives the textbook's tables."""

    nodes: tuple[Node, ...]

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise InputError(f"no node {name!r}: this graph has {', '.join(node.name for node in self.nodes)}")

    @property
    def result(self) -> Node:
        """The node of the function's value."""
        return self.nodes[-1]

    def forward(self) -> tuple[list[str], list[list[str]]]:
        """Returns columns and rows of the forward table: values and tangents in the order of computation."""
        rows = [[n.name, n.operation, show(n.value), show(n.tangent)] for n in self.nodes]
        return ["node", "operation", "value", "tangent"], rows

    def reverse(self) -> tuple[list[str], list[list[str]]]:
        """Returns columns and rows of the reverse table: adjoints from the result back, and their parts."""
        rows = []
        for node in self.nodes[::-1]:
            parts = " + ".join(f"{show(share)} [{child}]" for child, share in node.shares)
            parts = parts or ("the seed" if node is self.result else "nothing")
            rows.append([node.name, show(node.adjoint), parts])
        return ["node", "adjoint", "sum of, by the node that it comes from"], rows

    def to_dict(self) -> dict[str, Any]:
        """Returns the graph as dictionaries, lists, strings and finite numbers, ready for JSON."""
        return plain({"nodes": [asdict(node) for node in self.nodes]})

    def __str__(self) -> str:
        return "\n\n".join(_aligned(*table) for table in (self.forward(), self.reverse()))


def computational_graph(
    f: Callable[..., Any], *args: Any, direction: tuple[PyTree, ...] | None = None, fold: Fold = False
) -> Graph:
    """Returns the graph of `f(*args)`, a scalar: values, tangents along a direction, and adjoints of all nodes.

    `direction` is like `args`; by default it is 1 in the first parameter and 0 in the others. Equal expressions
    are one node. Calls of jitted functions are opened; `fold=True` makes each a single node, and a collection
    of names folds those functions only. Loops, and functions with a derivative of their own, are always single.

    Raises InputError where `f` does not return one number or cannot be traced, where nothing is to be
    differentiated, and for more than 2,000 operations.
    """
    inputs = split(f, args)
    names = _names(f, args)
    scalar_format(inputs, jit=True)
    program = program_of(trace(inputs.call, inputs.leaves), fold)
    if len(program.operations) > LARGEST:
        raise InputError(
            f"the graph has {len(program.operations)} operations, more than {LARGEST}: put parts of f into "
            "functions under jax.jit and pass fold=True, or use stage_graph"
        )
    values = program.run(inputs.leaves)
    dots = tangents(program, values, _seeds(f, args, inputs.leaves, direction))
    cotangents, shares = adjoints(program, values, jnp.ones_like(values[program.results[0]]))
    return Graph(tuple(_nodes(program, names, values, dots, cotangents, shares)))


def _seeds(f, args, leaves, direction) -> list[Any]:
    if direction is None:
        return [jnp.full_like(leaf, float(number == 0)) for number, leaf in enumerate(leaves)]
    seeds = split(f, jax.tree.map(lambda x: jnp.asarray(x, float), direction)).leaves
    if [seed.shape for seed in seeds] != [leaf.shape for leaf in leaves]:
        found, wanted = ([x.shape for x in tree] for tree in (seeds, leaves))
        raise InputError(f"direction has arrays of shapes {found}: give one like args, {wanted}")
    return seeds


def _names(f: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """The inputs' names, after the parameters of `f` where it has names for them."""
    try:
        bound = inspect.signature(f).bind(*args).arguments
        given = [f"{k}{i}" for k, v in bound.items() for i in (range(len(v)) if _starred(f, k) else [""])]
    except (TypeError, ValueError):
        given = [f"x{number}" for number in range(len(args))]
    moving = eqx.filter(floats_as_arrays(args), lambda leaf: eqx.is_inexact_array(leaf) and leaf.size > 0)
    names = []
    for path, _ in jax.tree_util.tree_leaves_with_path(moving):
        inner = jax.tree_util.keystr(path[1:], simple=True, separator=".")
        names.append(f"{given[path[0].idx]}.{inner}" if inner else given[path[0].idx])
    return names


def _starred(f: Callable[..., Any], name: str) -> bool:
    return inspect.signature(f).parameters[name].kind == inspect.Parameter.VAR_POSITIONAL


def _nodes(program: Program, inputs: list[str], values, dots, cotangents, shares) -> list[Node]:
    """The nodes of a program that has run; constants are not among them."""
    used = {slot for operation in program.operations for slot in operation.operands} | set(program.results)
    made = [slot for operation in program.operations for slot in operation.outputs if slot in used]
    names = dict(zip(program.inputs, inputs, strict=True))
    names |= {slot: f"v{number}" for number, slot in enumerate(made, start=1)}
    if program.results[0] in made:
        names[program.results[0]] = "y"
    parts: dict[Slot, list] = {}
    for operation, found in zip(program.operations, shares, strict=True):
        output = next(slot for slot in operation.outputs if slot in used)
        child = names[output]
        for slot, share in zip(operation.operands, found, strict=True):
            if share is not None and cotangents[output] is not None:
                parts.setdefault(slot, []).append((child, np.asarray(share)))
    host = lambda x: None if x is None else np.asarray(x)
    state = lambda slot: (
        np.asarray(values[slot]),
        host(dots[slot]),
        host(cotangents[slot]),
        tuple(parts.get(slot, ())),
    )
    nodes = [Node(names[slot], "input", (), *state(slot), "", "") for slot in program.inputs]
    for operation in program.operations:
        for number, slot in enumerate(operation.outputs):
            if slot in used:
                parents = tuple(dict.fromkeys(names[s] for s in operation.operands if s in names))
                words = [names.get(s) or _constant(program.constants[s]) for s in operation.operands]
                text = _expression(operation, words) + (f"[{number}]" if len(operation.outputs) > 1 else "")
                nodes.append(Node(names[slot], text, parents, *state(slot), operation.scope, operation.source))
    if (result := program.results[0]) not in made:  # an input handed on, or a constant
        given = (names[result],) if result in names else ()
        nodes.append(Node("y", given[0] if given else _constant(values[result]), given, *state(result), "", ""))
    return sorted(nodes, key=lambda node: node.name == "y")


def _constant(value: Any) -> str:
    return f"{np.asarray(value).item():.4g}" if jnp.size(value) == 1 else f"const[{_shape(value)}]"


def _expression(operation, words: list[str]) -> str:
    if operation.name in INFIX:
        return f" {INFIX[operation.name]} ".join(words)
    if operation.name == "neg":
        return f"-{words[0]}"
    if operation.name == "integer_pow":
        return f"{words[0]} ** {operation.params['y']}"
    return f"{NAMES.get(operation.name, operation.name)}({', '.join(words)})"


def _shape(value: Any) -> str:
    return "x".join(map(str, np.shape(value)))


def show(value: np.ndarray | None) -> str:
    """Returns a number to four decimals, of an array its Euclidean norm and shape, "-" for none."""
    if value is None:
        return "-"
    if np.size(value) != 1:
        size = f"|{float(np.linalg.norm(np.ravel(value).astype(float))):.4g}|" if moves(value) else str(value.dtype)
        return f"{size} {_shape(value)}"
    number = np.asarray(value).item()
    if not isinstance(number, float):
        return str(number)
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.3e}"


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in (columns, *rows)) for k in range(len(columns))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows))
    return "\n".join(lines)
