"""Where an operation comes from: the line of the caller's own code, and whether a solver wrote it."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import lineax
import optax
import optimistix
from jax.extend import core

_folder = lambda package: str(Path(inspect.getfile(package)).parent)
_HERE = Path(__file__).parent.parent
_TRACING = ("graph", "gradcheck", "_jax/traced_function.py", "_jax/program.py", "_jax/step_into.py")

COMPILER = (*map(_folder, (jax, eqx)), *(str(_HERE / part) for part in _TRACING))
"""Folders of code that only hands a function on."""

SOLVERS = (
    *map(_folder, (diffrax, optimistix, lineax)),
    *(str(_HERE / room) for room in ("ode", "discrete", "autodiff", "_jax")),
)
"""Folders of code that calls functions of the caller's, and has operations of its own around them."""

LIBRARIES = (*COMPILER, *SOLVERS, _folder(optax))


def source_of(equation: core.JaxprEqn) -> str:
    """Returns the innermost line of the caller's own code as file:line (in a notebook cell:line), or ""."""
    file, line = line_of(equation)
    name = "cell" if "ipykernel" in file else Path(file).name
    return f"{name}:{line}" if file else ""


def line_of(equation: core.JaxprEqn) -> tuple[str, int]:
    """Returns the file and the innermost line in it of the caller's own code, or ("", 0)."""
    for frame in _frames(equation):
        if not frame.file_name.startswith(LIBRARIES):
            return frame.file_name, frame.line_num
    return "", 0


def in_solver(equation: core.JaxprEqn) -> bool | None:
    """Whether an operation is a solver's own: its step control, its search for events, its records; None if unknown.

    A vector field that a solver writes out entry by entry stays its author's.
    """
    inner = next((frame for frame in _frames(equation) if not frame.file_name.startswith(COMPILER)), None)
    return inner and inner.file_name.startswith(SOLVERS) and inner.function_name != "_evaluate"


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, or its name where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _frames(equation: core.JaxprEqn) -> Iterator:
    traceback = equation.source_info.traceback
    yield from traceback.frames if traceback is not None else ()
