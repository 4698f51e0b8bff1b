"""How a solve is executed: one decision, from the sizes and operations of the problem and the options of its user."""

import math
from typing import NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from .._errors import InputError
from .._jax.plain_operations import is_plain, operations
from .._jax.scalarize import can_be_written_out
from .._types import Scalar, Vector
from .runge_kutta import Stepper
from .tape import MEMORIES, Memory

_FEW = 16  # numbers in each array of a field that is written out
_SHORT = 48  # operations of a field whose stages are written out one after the other
_LIGHT = 16 * 2**10  # bytes of state and parameters up to which one core alone is faster
_CACHED = 16 * 2**20  # bytes of a record up to which it stays in the caches
_NARROW = 8  # numbers of a state up to which the Jacobian of a step costs little more than one product with it


class Execution(NamedTuple):
    """How one solve is executed; see `choose_execution`. It changes speed and memory, never a value."""

    written_out: bool
    single_program: bool
    fixed_steps: bool
    stride: int
    jacobians: bool


def choose_execution(
    stepper: Stepper,
    t0: Scalar,
    y0: Vector,
    controller: dfx.AbstractStepSizeController,
    *,
    attempts: int,
    memory: Memory,
    keep_path: bool,
    forward: bool = False,
    has_events: bool = False,
    has_limits: bool = False,
) -> Execution:
    """Returns how a solve of at most so many `attempts` at steps is executed.

    `written_out`: the stages of a step number by number, one after the other; else a loop over the stages.
        An explicit method; a field of at most 48 operations, all of a kind that can be written out, on arrays of at
        most 16 numbers. Not in forward mode with events, whose loop takes long to compile.
    `single_program`: on a CPU the loop over steps is one native function; else it runs operation by operation.
        An explicit method; plain arithmetic on at most 16 KiB of state and parameters. Neither events nor limits, and
        not in forward mode.
    `fixed_steps`: no step is refused, and a batch takes its steps together.
        Constant or prescribed steps, and no events.
    `stride`: the attempts to each recorded state. Where it is not 1, reverse mode takes the steps between two again.
        By `memory` "two_levels" sqrt(attempts); so does "auto" beyond 16 MiB of records, unless a path is recorded.
    `jacobians`: reverse mode multiplies the Jacobians of 64 steps at a time; else it pulls back step by step.
        By `memory` "jacobians"; so does "auto" for an explicit method on at most 8 numbers without `single_program`.

    Raises:
        InputError: For a `memory` that is none, or one that records too few states for a path.
    """
    if memory not in MEMORIES:
        raise InputError(f"memory={memory!r}: use one of {', '.join(MEMORIES)}")
    if memory == "two_levels" and keep_path:
        raise InputError('memory="two_levels" keeps too few states for those at times in between: use "states"')
    names, arrays = operations(stepper.term.vector_field, t0, y0, stepper.args), _arrays(stepper, y0)
    light = is_plain(names) and sum(x.size * x.dtype.itemsize for x in arrays) <= _LIGHT
    single_program = _is_explicit(stepper) and light and not (forward or has_events or has_limits)
    record = attempts * (1 + stepper.number_of_stages) * y0.size * y0.dtype.itemsize
    spread = memory == "two_levels" or (memory == "auto" and record > _CACHED and not keep_path)
    by_jacobians = not (single_program or stepper.number_of_stages) and y0.size <= _NARROW
    return Execution(
        written_out=_can_write_out(stepper, names, arrays) and not (forward and has_events),
        single_program=single_program,
        fixed_steps=not has_events and is_fixed(controller),
        stride=math.isqrt(attempts) if spread else 1,
        jacobians=not spread and (memory == "jacobians" or (memory == "auto" and by_jacobians)),
    )


def written_out(stepper: Stepper, t0: Scalar, y0: Vector) -> Stepper:
    """Returns the stepper for a few steps without a loop, its stages written out where a solve would do so."""
    names = operations(stepper.term.vector_field, t0, y0, stepper.args)
    return stepper._replace(written_out=_can_write_out(stepper, names, _arrays(stepper, y0)))


def _can_write_out(stepper: Stepper, names: list[str], arrays: list[Array | np.ndarray]) -> bool:
    short = len(names) <= _SHORT and max(x.size for x in arrays) <= _FEW
    return _is_explicit(stepper) and short and can_be_written_out(names)


def _is_explicit(stepper: Stepper) -> bool:
    return isinstance(stepper.solver, dfx.AbstractERK | dfx.Euler)


def _arrays(stepper: Stepper, y0: Vector) -> list[Array | np.ndarray]:
    return jax.tree.leaves(eqx.filter((y0, stepper.term, stepper.args), eqx.is_array))


def is_fixed(controller) -> bool:
    """Returns whether a step size controller takes steps that were prescribed."""
    return isinstance(controller, dfx.ConstantStepSize | dfx.StepTo)
