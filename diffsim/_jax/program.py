"""A function as a list of its operations, each of which can be called and differentiated separately."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .._errors import InputError
from .._trees import is_key
from .source_lines import first_line, in_solver, source_of

Fold = bool | Collection[str]
Slot = int

CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")
"""Operations that only call others: inlining them changes neither values nor derivatives."""

COMMUTE = ("add", "mul", "max", "min", "add_any", "and", "or")


@dataclass(frozen=True)
class Operation:
    """One operation of a program.

    Attributes:
        name: Its name, or that of the function it calls.
        kind: The name of its primitive.
        call: The operation as a function of its operands.
        operands: The slots it reads.
        outputs: The slots it writes.
        ranks: The ranks of its outputs.
        params: The parameters of the primitive.
        scope: The path of the `jax.named_scope`s and called functions around it.
        source: The line of the caller's code as file:line.
        solver: Whether a solver added the operation, called from that line.
    """

    name: str
    kind: str
    call: Callable[..., tuple[Any, ...]]
    operands: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    ranks: tuple[int, ...]
    params: dict[str, Any]
    scope: str
    source: str
    solver: bool = False


class Stuck(Exception):
    """An operation that cannot be run or differentiated separately; the message says which and why."""

    def __init__(self, operation: Operation, what: str, error: Exception):
        at = f" at {operation.source}" if operation.source else ""
        self.where = f"{operation.name}{at}"
        super().__init__(f"{self.where} {what} ({first_line(error)})")


@dataclass
class Program:
    """The operations of a function in the order of computation; their values are in numbered slots."""

    inputs: list[Slot] = field(default_factory=list)
    constants: dict[Slot, Any] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    results: list[Slot] = field(default_factory=list)
    size: int = 0

    def new(self) -> Slot:
        """Returns an unused slot."""
        self.size += 1
        return self.size - 1

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Returns the value of every slot for these inputs; raises Stuck at an operation that cannot be run."""
        slots: list[Any] = [None] * self.size
        for slot, value in (*zip(self.inputs, values, strict=True), *self.constants.items()):
            slots[slot] = value
        for operation in self.operations:
            for slot, value in zip(operation.outputs, _call(operation, slots), strict=True):
                slots[slot] = value
        return slots


def _call(operation: Operation, slots: Sequence[Any]) -> tuple[Any, ...]:
    try:
        return operation.call(*(slots[slot] for slot in operation.operands))
    except Exception as error:  # of any type: an operation that calls back to Python may raise anything
        raise Stuck(operation, "cannot be run by itself", error) from error


class Place(NamedTuple):
    """The origin of operations that do not record it themselves: see `Operation`."""

    scope: str = ""
    source: str = ""
    solver: bool = False


NOWHERE = Place()


def program_of(closed: core.ClosedJaxpr, fold: Fold = False, at: Place = NOWHERE) -> Program:
    """Returns the operations of a jaxpr, with equal ones merged and those that change nothing left out.

    Functions with a custom derivative, and loops, remain one operation each: inlined, they would be differentiated in
    another way.

    Args:
        closed: The jaxpr.
        fold: Calls of jitted functions are inlined, unless this is True or contains the function's name.
        at: The origin of the jaxpr's operations.
    """
    builder = _Builder(Program(), fold)
    builder.program.inputs = [builder.program.new() for _ in closed.jaxpr.invars]
    constants = [builder.constant(value) for value in closed.consts]
    builder.program.results = builder.add(closed.jaxpr, constants, builder.program.inputs, at)
    return _alive(builder.program)


def _alive(program: Program) -> Program:
    """The program without operations whose results nothing needs."""
    needed, alive = set(program.results), []
    for operation in reversed(program.operations):
        if needed & set(operation.outputs):
            needed |= set(operation.operands)
            alive.append(operation)
    program.operations = alive[::-1]
    return program


@dataclass
class _Builder:
    program: Program
    fold: Fold
    known: dict[Any, tuple[Slot, ...]] = field(default_factory=dict)

    def constant(self, value: Any) -> Slot:
        array = np.asarray(value) if jnp.size(value) <= 64 and not is_key(value) else None
        key = ("constant", id(value)) if array is None else (array.dtype, array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = (self.program.new(),)
            self.program.constants[self.known[key][0]] = jnp.asarray(value) if array is not None else value
        return self.known[key][0]

    def add(self, jaxpr: core.Jaxpr, constants: Sequence[Slot], inputs: Sequence[Slot], at: Place):
        """Appends the operations of a jaxpr with origin `at`, and returns the slots of its results."""
        place = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))
        read = lambda atom: self.constant(atom.val) if isinstance(atom, core.Literal) else place[atom]
        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            scope, solver = join(at.scope, str(equation.source_info.name_stack)), in_solver(equation)
            here = Place(scope, source_of(equation) or at.source, at.solver if solver is None else solver)
            place |= dict(zip(equation.outvars, self._equation(equation, operands, here), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: core.JaxprEqn, operands: list[Slot], at: Place) -> Sequence[Slot]:
        if _idle(equation):
            return operands[:1]
        name = name_of(equation)
        inner: Any = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        if equation.primitive.name in CALLS and not (self.fold is True or (self.fold and name in self.fold)):
            constants = [self.constant(value) for value in getattr(inner, "consts", ())]
            inside = at._replace(scope=join(at.scope, name) if "name" in equation.params else at.scope)
            return self.add(getattr(inner, "jaxpr", inner), constants, operands, inside)
        call = caller(equation)
        known = None if equation.effects else _of_constants(call, [self.program.constants.get(s) for s in operands])
        if known is not None:
            return [self.constant(value) for value in known]
        key = (name, tuple(sorted(operands) if name in COMMUTE else operands), _identity(equation.params))
        if key not in self.known or equation.effects:
            self.known[key] = tuple(self.program.new() for _ in equation.outvars)
            ranks = tuple(_rank(variable) for variable in equation.outvars)
            kind, outputs = equation.primitive.name, self.known[key]
            self.program.operations.append(
                Operation(name, kind, call, tuple(operands), outputs, ranks, equation.params, *at)
            )
        return self.known[key]


def _of_constants(call: Callable[..., tuple[Any, ...]], operands: list[Any]) -> tuple[Any, ...] | None:
    """The results of an operation on constants; None if an operand is not constant, or the operation cannot be run."""
    if any(operand is None for operand in operands):
        return None
    try:
        return call(*operands)
    except Exception:  # of any type: the operation remains, and raises it when it is run
        return None


def _identity(params: dict[str, Any]) -> Any:
    """A key that is equal for the parameters of equal operations; functions are compared by identity."""
    named = {key: value if callable(value) else str(value) for key, value in params.items()}
    return tuple((key, id(value) if callable(value) else value) for key, value in sorted(named.items()))


def join(*parts: str) -> str:
    """Returns the parts of a path that are not empty, joined by slashes."""
    return "/".join(part for part in parts if part)


def name_of(equation: core.JaxprEqn) -> str:
    """Returns the name of the operation, or of the function that it calls."""
    called = equation.params.get("name")
    if equation.primitive.name.startswith("custom_"):
        called = getattr(equation.params.get("call_jaxpr"), "jaxpr", None)
        called = getattr(getattr(called, "debug_info", None), "func_name", None)
    return called if isinstance(called, str) else equation.primitive.name


def _idle(equation: core.JaxprEqn) -> bool:
    """Whether an operation returns its operand unchanged."""
    if equation.primitive.name == "copy":
        return True
    if equation.primitive.name not in ("convert_element_type", "broadcast_in_dim", "reshape"):
        return False
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    return (before.shape, before.dtype) == (after.shape, after.dtype)  # pyright: ignore


def caller(equation: core.JaxprEqn) -> Callable[..., tuple[Any, ...]]:
    """Returns an equation as a function of its operands that returns a tuple."""

    def call(*operands):
        with equation.ctx.manager:
            params = equation.primitive.get_bind_params(equation.params)
            result = equation.primitive.bind(*operands, **params)
        return tuple(result) if equation.primitive.multiple_results else (result,)

    return call


def trace(f: Callable[..., Any], *leaves: Any) -> core.ClosedJaxpr:
    """Returns the jaxpr of a function of arrays; raises InputError if it cannot be traced."""
    try:
        return jax.make_jaxpr(f)(*leaves)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"f cannot be traced ({reason}): write it with jax.numpy and jax.lax") from error


def _rank(variable: Any) -> int:
    return len(variable.aval.shape)
