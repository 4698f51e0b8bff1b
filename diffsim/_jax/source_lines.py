"""The origin of an operation: the line of the caller's code, and whether a solver added the operation."""

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
"""Folders of code that only passes a function on."""

SOLVERS = (
    *map(_folder, (diffrax, optimistix, lineax)),
    *(str(_HERE / folder) for folder in ("ode", "signals", "discrete", "autodiff", "_jax")),
)
"""Folders of code that calls the caller's functions, and adds operations around them."""

LIBRARIES = (*COMPILER, *SOLVERS, _folder(optax))


def source_of(equation: core.JaxprEqn) -> str:
    """Returns the innermost line of the caller's code as file:line (in a notebook cell:line), or ""."""
    file, line = line_of(equation)
    name = "cell" if "ipykernel" in file else Path(file).name
    return f"{name}:{line}" if file else ""


def line_of(equation: core.JaxprEqn) -> tuple[str, int]:
    """Returns the file and number of the innermost line of the caller's code, or ("", 0)."""
    for frame in _frames(equation):
        if not frame.file_name.startswith(LIBRARIES):
            return frame.file_name, frame.line_num
    return "", 0


def in_solver(equation: core.JaxprEqn) -> bool | None:
    """Whether a solver added an operation, for step control, event location or recording; None if unknown.

    The operations of a vector field that a solver writes out entry by entry belong to the field.
    """
    inner = next((frame for frame in _frames(equation) if not frame.file_name.startswith(COMPILER)), None)
    return inner and inner.file_name.startswith(SOLVERS) and inner.function_name != "_evaluate"


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _frames(equation: core.JaxprEqn) -> Iterator:
    traceback = equation.source_info.traceback
    yield from traceback.frames if traceback is not None else ()
