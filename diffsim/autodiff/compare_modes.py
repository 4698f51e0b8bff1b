"""The measured cost of a function's gradient in each mode of differentiation, and which mode to take."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._jax.compile_whole import compile_whole
from .._jax.plain_operations import is_plain, operations
from ..io.aligned_columns import aligned

MAX_TANGENTS = 256


class Mode(NamedTuple):
    """One mode of computing a value and gradient. A mode that does not work has a `reason` and no numbers.

    Attributes:
        name: The name of the mode.
        seconds: The time of a call.
        compile_seconds: The time of compiling.
        memory: The bytes of temporary arrays.
        error: The largest difference from the gradient of the first mode that works, relative to that gradient's
            largest entry.
        reason: Why it does not work.
    """

    name: str
    seconds: float | None = None
    compile_seconds: float | None = None
    memory: int | None = None
    error: float | None = None
    reason: str = ""


class ModeComparison(NamedTuple):
    """The measured modes of computing a gradient. `str()` gives a table.

    Attributes:
        modes: The modes.
        value_seconds: The time of the value alone.
        inputs: The number of inputs.
        recommended: The name of the fastest mode.

    Examples:
        >>> comparison = ds.compare_modes(lambda x: x**3, jnp.array(2.0), rounds=2)
        >>> comparison.inputs, max(mode.error for mode in comparison.modes if not mode.reason) < 1e-9
        (1, True)
    """

    modes: tuple[Mode, ...]
    value_seconds: float
    inputs: int
    recommended: str

    def __str__(self) -> str:
        head = f"{self.inputs} inputs; the value alone takes {1e6 * self.value_seconds:.0f} us\n"
        columns = ["mode", "time us", "/ value", "compile s", "memory KiB", "error", ""]
        table = aligned(columns, [self._cells(mode) for mode in self.modes], right=range(1, 6))
        return f"{head}{table}\ntake: {self.recommended}"

    def _cells(self, mode: Mode) -> list[str]:
        if mode.seconds is None:
            return [mode.name, *["-"] * 5, mode.reason]
        times = [f"{1e6 * mode.seconds:.0f}", f"{mode.seconds / self.value_seconds:.1f}", f"{mode.compile_seconds:.2f}"]
        return [mode.name, *times, f"{(mode.memory or 0) / 1024:.1f}", f"{mode.error:.1e}", ""]


def compare_modes(f: Callable, x, *args, rounds: int = 20) -> ModeComparison:
    """The time, memory and accuracy of the gradient of a scalar `f(x, *args)` with respect to `x`, in every mode.

    The modes are reverse mode, reverse mode that stores the inputs alone (`jax.checkpoint`), forward mode with a
    tangent for each input (what `forward_mode` does), and of the first and last also the versions compiled whole for
    CPU (`compile_whole`). Forward mode is left out for more than 256 inputs, and whole compilation for programs that
    index arrays with computed numbers. Memory is what the compiler reports for temporary arrays.

    Args:
        f: A function that returns one real number.
        x: A tree, whose real arrays are the inputs.
        args: Further arguments of `f`.
        rounds: The number of calls of each mode, in turn with the others; the fastest counts.

    Raises:
        InputError: If `f` does not return one real number, if nothing in `x` is a real array, and if no mode works.

    Examples:
        >>> comparison = ds.compare_modes(lambda x: jnp.sum(jnp.sin(x)), jnp.arange(3.0))
        >>> comparison.recommended in [mode.name for mode in comparison.modes]  # print(comparison) shows all of them
        True
    """
    flat, unravel = _flatten(x)
    value = lambda flat: f(unravel(flat), *args)
    out = jax.eval_shape(value, flat)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"compare_modes needs a function of one real number as its result; this one returns {out}")
    programs, failed = _compile_all(value, flat)
    if not programs:
        raise InputError(f"no mode differentiates this function: {'; '.join(mode.reason for mode in failed)}")
    value_program, _ = _compile(value, flat)
    all_programs = {"value": value_program} | {name: program for name, (program, _) in programs.items()}
    times = _fastest_calls(all_programs, flat, rounds)
    gradients = {name: np.asarray(program(flat)[1]) for name, (program, _) in programs.items()}
    reference = next(iter(gradients.values()))
    scale = np.max(np.abs(reference)) or 1.0
    measured = []
    for name, (program, compile_seconds) in programs.items():
        memory = getattr(program.memory_analysis(), "temp_size_in_bytes", None)
        error = float(np.max(np.abs(gradients[name] - reference)) / scale)
        measured.append(Mode(name, times[name], compile_seconds, memory, error))
    best = min(measured, key=lambda mode: times[mode.name])
    return ModeComparison((*failed, *measured), times["value"], flat.size, best.name)


def _flatten(x):
    """The real arrays of a tree as one vector, and the way back to the tree."""
    real, rest = eqx.partition(jnp.asarray(x) if isinstance(x, float) else x, eqx.is_inexact_array)
    if not jax.tree.leaves(real):
        raise InputError("nothing in x is a real array: give an array, such as jnp.array(2.0)")
    flat, unravel = ravel_pytree(real)
    return flat, lambda flat: eqx.combine(unravel(flat), rest)


def _compile_all(value: Callable, flat) -> tuple[dict[str, tuple[Any, float]], list[Mode]]:
    """The compiled program of each mode with its seconds of compiling, by name; and the modes that do not work."""
    programs, failed = {}, []
    for name, function in _modes(value, flat).items():
        try:
            programs[name] = _compile(function, flat)
            if _can_compile_whole(name, function, flat):
                programs[f"{name}, compiled whole"] = _compile(compile_whole(function), flat)
        except Exception as error:  # any kind: the reason is part of the answer
            reason = str(error).strip() or type(error).__name__
            failed.append(Mode(name, reason=reason.splitlines()[0][:80]))
    return programs, failed


def _modes(value: Callable, flat) -> dict[str, Callable]:
    """The functions from the flat inputs to value and gradient, by name."""

    def forward(flat):
        along = lambda direction: jax.jvp(value, (flat,), (direction,))
        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(flat.size, dtype=flat.dtype))

    modes = {"reverse": jax.value_and_grad(value), "reverse, checkpointed": jax.value_and_grad(jax.checkpoint(value))}
    return modes | ({"forward": forward} if flat.size <= MAX_TANGENTS else {})


def _can_compile_whole(name: str, function: Callable, flat) -> bool:
    """Whether `compile_whole` serves this mode on this device."""
    return jax.default_backend() == "cpu" and "checkpointed" not in name and is_plain(operations(function, flat))


def _compile(function: Callable, flat) -> tuple[Any, float]:
    """The compiled program, and the seconds of compiling it."""
    began = time.perf_counter()
    program = jax.jit(function).lower(flat).compile()
    return program, time.perf_counter() - began


def _fastest_calls(programs: dict, flat, rounds: int) -> dict[str, float]:
    """The seconds of the fastest call of each program. They take turns; a first call of each does not count."""
    seconds = dict.fromkeys(programs, np.inf)
    for turn in range(rounds + 1):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(flat))
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds
