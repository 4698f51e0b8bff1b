"""The nodes of a computational graph, made from the operations of a program that has run."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._jax.program import Operation, Program, Slot
from .._trees import shape_text
from .operation_derivatives import is_inexact

INFIX = {"add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "gt": ">", "lt": "<", "ge": ">="}
NAMES = {"integer_pow": "pow", "convert_element_type": "cast", "dot_general": "dot", "select_n": "select"}


@dataclass(frozen=True)
class Node:
    """One intermediate result. None stands for a derivative that JAX does not have.

    Attributes:
        name: The name of the node.
        operation: The operation that computes it, written with the names of other nodes.
        parents: The names of the nodes from which it is computed.
        value: Its value.
        tangent: Its derivative along the direction of the graph.
        adjoint: The derivative of the result with respect to it.
        shares: The parts of the adjoint, each with the name of the node from which it comes.
        scope: The path of the functions and `jax.named_scope`s around the operation.
        source: The line of the operation, as file:line.
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


class SlotValues(NamedTuple):
    """What is known of every slot of a program, and what each operation contributes to the adjoints of its operands."""

    values: Sequence[Any]
    tangents: Sequence[Any]
    adjoints: Sequence[Any]
    contributions: Sequence[Sequence[Any]]


def nodes_of(program: Program, input_names: list[str], known: SlotValues) -> list[Node]:
    """The nodes of a program, the inputs first and the result last; constants are not among them.

    The result is called "y", or "result" if an input is called that.
    """
    used = {slot for operation in program.operations for slot in operation.operands} | set(program.results)
    computed = [slot for operation in program.operations for slot in operation.outputs if slot in used]
    result = program.results[0]
    names = dict(zip(program.inputs, input_names, strict=True))
    unused = (name for number in itertools.count(1) if (name := f"v{number}") not in input_names)
    names |= {slot: next(unused) for slot in computed}
    last = "y" if "y" not in input_names else "result"
    if result in computed:
        names[result] = last
    shares = _shares(program, names, known)
    host = lambda x: None if x is None else np.asarray(x)
    numbers = lambda slot: (
        np.asarray(known.values[slot]),
        host(known.tangents[slot]),
        host(known.adjoints[slot]),
        tuple(shares.get(slot, ())),
    )
    nodes = [Node(names[slot], "input", (), *numbers(slot), "", "") for slot in program.inputs]
    for operation in program.operations:
        parents = tuple(dict.fromkeys(names[s] for s in operation.operands if s in names))
        words = [names.get(s) or _constant(program.constants[s]) for s in operation.operands]
        for number, slot in enumerate(operation.outputs):
            if slot in used:
                text = _expression(operation, words) + (f"[{number}]" if len(operation.outputs) > 1 else "")
                nodes.append(Node(names[slot], text, parents, *numbers(slot), operation.scope, operation.source))
    if result not in computed:  # the function returns an input or a constant
        parents = (names[result],) if result in names else ()
        text = parents[0] if parents else _constant(known.values[result])
        nodes.append(Node(last, text, parents, *numbers(result), "", ""))
    return sorted(nodes, key=lambda node: node.name == last)


def _shares(program: Program, names: dict[Slot, str], known: SlotValues) -> dict[Slot, list[tuple[str, np.ndarray]]]:
    """The parts of each slot's adjoint, each with the name of the node from which it comes."""
    shares: dict[Slot, list[tuple[str, np.ndarray]]] = {}
    for operation, contributions in zip(program.operations, known.contributions, strict=True):
        output = next(slot for slot in operation.outputs if slot in names)
        for slot, contribution in zip(operation.operands, contributions, strict=True):
            if contribution is not None and known.adjoints[output] is not None:
                shares.setdefault(slot, []).append((names[output], np.asarray(contribution)))
    return shares


def _constant(value: Any) -> str:
    """A constant as it is written in an expression."""
    return f"{np.asarray(value).item():.4g}" if jnp.size(value) == 1 else f"const[{shape_text(np.shape(value))}]"


def _expression(operation: Operation, words: list[str]) -> str:
    """An operation on these operands as it is written in a table."""
    if operation.name in INFIX:
        return f" {INFIX[operation.name]} ".join(words)
    if operation.name == "neg":
        return f"-{words[0]}"
    if operation.name == "integer_pow":
        return f"{words[0]} ** {operation.params['y']}"
    return f"{NAMES.get(operation.name, operation.name)}({', '.join(words)})"


def show(value: np.ndarray | None) -> str:
    """A number to four decimals; of an array its Euclidean norm and shape; "-" for None."""
    if value is None:
        return "-"
    if np.size(value) != 1:
        if not is_inexact(value):
            return f"{value.dtype} {shape_text(np.shape(value))}"
        return f"|{float(np.linalg.norm(np.ravel(value).astype(float))):.4g}| {shape_text(np.shape(value))}"
    number = np.asarray(value).item()
    if not isinstance(number, float):
        return str(number)
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.3e}"
