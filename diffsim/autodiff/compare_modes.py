"""What the gradient of a function costs in each mode, measured, and which mode to take."""

import time
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._jax.compilable import is_plain, operations
from .._jax.compile_whole import compile_whole

_MOST_TANGENTS = 256


class Way(NamedTuple):
    """One way to a value and gradient: wall time (s) of a call and of compiling, memory (bytes), and agreement.

    `error` is the largest difference from the reverse-mode gradient (or the first that works), relative to that
    gradient's largest entry. A way that does not work has `reason` and no numbers.
    """

    name: str
    seconds: float | None = None
    compile_seconds: float | None = None
    memory: int | None = None
    error: float | None = None
    reason: str = ""


class ModeComparison(NamedTuple):
    """The ways measured, the time of the value alone (s), the number of inputs, and the name of the way to take."""

    ways: tuple[Way, ...]
    value_seconds: float
    inputs: int
    recommended: str

    def __str__(self) -> str:
        head = f"{self.inputs} inputs; the value alone takes {1e6 * self.value_seconds:.0f} us\n"
        head += f"{'way':26s}{'time us':>10s}{'/ value':>9s}{'compile s':>11s}{'memory KiB':>12s}{'error':>10s}\n"
        lines = [self._line(way) for way in self.ways]
        return head + "\n".join(lines) + f"\ntake: {self.recommended}"

    def _line(self, way: Way) -> str:
        if way.seconds is None:
            return f"{way.name:26s}{way.reason}"
        ratio = way.seconds / self.value_seconds
        times = f"{1e6 * way.seconds:10.0f}{ratio:9.1f}{way.compile_seconds:11.2f}"
        return f"{way.name:26s}{times}{(way.memory or 0) / 1024:12.1f}{way.error:10.1e}"


def compare_modes(f: Callable, x, *args, rounds: int = 20) -> ModeComparison:
    """Measures the value and gradient of `f(x, *args)`, a real number, in the real arrays of `x`, in every mode.

    Reverse mode, reverse mode that keeps nothing but the inputs (`jax.checkpoint`), forward mode with a tangent for
    each input (what `forward_mode` does), and both compiled whole for CPU (`compile_whole`). Each is compiled, called
    `rounds` times in turn with the others, and its fastest call counts. Memory is the compiler's own figure for
    temporary arrays. Forward mode is left out beyond 256 inputs, and whole compilation where the program looks up
    arrays by computed indices. Raises InputError if `f` does not return a real number or nothing in `x` is real.
    """
    flat, unravel = _flat(x)
    value = lambda flat: f(unravel(flat), *args)
    out = jax.eval_shape(value, flat)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"compare_modes needs a function of one real number as its result; this one returns {out}")
    programs, ways = {"value": _compile(value, flat)}, []
    for name, function in _ways(value, flat).items():
        try:
            programs[name] = _compile(function, flat)
            if _can_be_whole(name, function, flat):
                programs[f"{name}, compiled whole"] = _compile(compile_whole(function), flat)
        except Exception as error:  # whatever a mode cannot do is what the user wants to read
            reason = str(error).strip() or type(error).__name__
            ways.append(Way(name, reason=reason.splitlines()[0][:80]))
    times = _in_turns({name: program for name, (program, _) in programs.items()}, flat, rounds)
    gradients = {name: np.asarray(program(flat)[1]) for name, (program, _) in programs.items() if name != "value"}
    if not gradients:
        raise InputError(f"no mode differentiates this function: {'; '.join(way.reason for way in ways)}")
    reference = next(iter(gradients.values()))
    scale = np.max(np.abs(reference)) or 1.0
    for name, gradient in gradients.items():
        program, seconds = programs[name]
        memory = getattr(program.memory_analysis(), "temp_size_in_bytes", None)
        ways.append(Way(name, times[name], seconds, memory, float(np.max(np.abs(gradient - reference)) / scale)))
    best = min((way for way in ways if way.seconds is not None), key=lambda way: way.seconds)
    return ModeComparison(tuple(ways), times["value"], flat.size, best.name)


def _flat(x):
    real, rest = eqx.partition(x, eqx.is_inexact_array)
    if not jax.tree.leaves(real):
        raise InputError("nothing in x is a real array: there is nothing to differentiate in")
    flat, unravel = ravel_pytree(real)
    return flat, lambda flat: eqx.combine(unravel(flat), rest)


def _ways(value: Callable, flat) -> dict[str, Callable]:
    def forward(flat):
        along = lambda direction: jax.jvp(value, (flat,), (direction,))
        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(flat.size, dtype=flat.dtype))

    ways = {"reverse": jax.value_and_grad(value), "reverse, checkpointed": jax.value_and_grad(jax.checkpoint(value))}
    return ways | ({"forward": forward} if flat.size <= _MOST_TANGENTS else {})


def _can_be_whole(name: str, function: Callable, flat) -> bool:
    return jax.default_backend() == "cpu" and "checkpointed" not in name and is_plain(operations(function, flat))


def _compile(function: Callable, flat):
    began = time.perf_counter()
    program = jax.jit(function).lower(flat).compile()
    return program, time.perf_counter() - began


def _in_turns(programs: dict, flat, rounds: int) -> dict[str, float]:
    """The fastest call of each program, the programs taking turns, after one call each that does not count."""
    best = dict.fromkeys(programs, np.inf)
    for turn in range(rounds + 1):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(flat))
            if turn:
                best[name] = min(best[name], time.perf_counter() - began)
    return best
