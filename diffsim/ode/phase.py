"""One phase of a hybrid system, up to its earliest event, with a differentiable event time."""

from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PyTree, Real

from .._jax.tangents import forward_only
from .._jax.traced_function import is_traced
from .._types import Args, State, StateLike
from ..autodiff.forward_mode import few_or_many
from .events import Event, Phase, check_phases, traced_phases
from .options import check_options, check_time, chosen_controller, direction_of
from .solve_phase import CONTROLLER, SOLVER, Mode, PhaseResult, solve_phase
from .tape import Memory
from .validate import check_state

FEW = 4


def integrate_phase(
    phase: Phase,
    t0,
    y0: StateLike,
    args: Args = None,
    *,
    t1,
    ts: Real[ArrayLike, " times"] | None = None,
    solver: dfx.AbstractSolver = SOLVER,
    stepsize_controller: dfx.AbstractStepSizeController = CONTROLLER,
    rtol: float | None = None,
    atol: float | None = None,
    dt0=None,
    max_steps: int = 1024,
    mode: Mode = "auto",
    memory: Memory = "auto",
) -> PhaseResult:
    """Returns the end of one phase: the earliest crossing of any of its events after `t0`, at most `t1`.

    The state obeys dy/dt = phase.field(t, y, args). Event time and state are as accurate as the solution, and so are
    their derivatives; `grad`, `jacfwd`, `hessian` and `vmap` all work.

    Args:
        phase: The vector field, its events and limits.
        t0, t1: First and last time. Time runs backward where `t1` lies before `t0`; events then cross in the direction
            in which they are met.
        y0: The state at `t0`, any pytree of real arrays of one number format.
        args: What the phase's functions take as their third argument.
        ts: Times at which states are wanted too (`PhaseResult.ys`).
        solver: Any one-step solver of diffrax.
        stepsize_controller: Any step size controller of diffrax. Its norm sees the state as one vector.
        rtol, atol: The short form of a PID controller (1e-8 and 1e-10; one of them alone keeps that ratio).
        dt0: The first step, or that of constant steps; by default the controller chooses.
        max_steps: The most steps that are tried.
        mode: "replay" records the accepted steps and differentiates them with their sizes fixed; reverse mode over
            reverse mode is refused (`jax.hessian` is forward over reverse). "forward" carries tangents along with the
            solution, for `jvp` and `jacfwd`, or for `grad` within `forward_mode`. "auto" is a replay, except for a
            phase with events of which at most four numbers are differentiated: carrying their tangents compiles in a
            third of the time and runs in half of it.
        memory: What reverse mode starts from; it needs a replay. "states": every state is recorded, every step
            computed again. "two_levels": one state in sqrt(max_steps) is recorded, every step computed again twice.
            "jacobians": as "states", with the Jacobians of 64 steps at a time, which is fast where a step is many
            operations on few numbers. "auto" chooses (see `diffsim.ode.choose_execution`). Stages of an implicit method
            are differentiated as roots of their equations; but for "two_levels" they are recorded, not solved for
            again.

    Returns:
        The end of the phase. Its status is EVENT_NOT_FOUND if the phase has events and `t1` came first, GRAZING if an
        event's function touches zero without crossing it, STEP_LIMIT, NON_FINITE (constant steps continue to `t1` all
        the same), or INVALID_INPUT for traced times or step sizes that make no sense.

    Raises:
        InputError: For an event that is not real, a field that does not return the structure of `y0`, and times, steps
            and tolerances that make no sense where they are known.

    Examples:
        >>> half = ds.Event(lambda t, y, rate: y - 0.5, "falling")
        >>> decay = ds.Phase(lambda t, y, rate: -rate * y, half)
        >>> half_life = lambda rate: ds.integrate_phase(decay, 0.0, 1.0, rate, t1=9.0).t  # log(2) / rate
        >>> time, slope = jax.value_and_grad(half_life)(0.7)
        >>> print(f"{time:.4f} {slope:.4f}")
        0.9902 -1.4146
    """
    check_phases((phase,))
    direction = direction_of(t0, t1)
    t0, t1, y0, ts = _as_arrays(t0, t1, y0, ts)
    controller = chosen_controller(stepsize_controller, CONTROLLER, rtol, atol, solver, dt0, t0.dtype)
    check_options(controller, dt0, max_steps, t0.dtype)
    (phase,), args, signals = traced_phases((phase,), t0, t1, y0, args)
    dt0 = None if dt0 is None else jnp.asarray(dt0, t0.dtype)
    options = {"solver": solver, "stepsize_controller": controller, "dt0": dt0, "max_steps": max_steps, "mode": mode}
    run = _one_phase if is_traced() else _compiled_phase
    return run(phase, t0, y0, args, t1, ts, direction, options | {"memory": memory, "signals": signals})


def _one_phase(phase: Phase, t0, y0: State, args: Args, t1, ts, direction, options) -> PhaseResult:
    """The result of a phase whose functions have been traced."""

    def run(inputs, **mode):
        phase, t0, y0, args, t1, ts, direction, options = inputs
        return solve_phase(phase, t0, y0, args, t1, ts, direction=direction, **options | mode)[0]

    inputs = phase, t0, y0, args, t1, ts, direction, options
    return differentiated(run, inputs, options["mode"], options["memory"], bool(phase.numbered(Event)[0]))


_compiled_phase = eqx.filter_jit(_one_phase)


def differentiated(run: Callable, inputs: PyTree, mode: Mode, memory: Memory, events: bool = True):
    """Returns `run(inputs, mode=)`; "auto" is forward mode if at most FEW numbers are differentiated, else a replay.

    With events, forward mode in few numbers compiles in a third of the time of a replay and runs in half of it. The
    value alone compiles faster too, as nothing is recorded.
    """
    if mode == "forward":
        return forward_only(run(inputs))
    if mode != "auto" or memory != "auto" or not events:
        return run(inputs)
    run_in = lambda mode: lambda inputs: run(inputs, mode=mode)
    return few_or_many(run_in("forward"), run_in("replay"), inputs, FEW)


def _as_arrays(t0, t1, y0, ts):
    """Times and state as arrays of one floating type."""
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    check_time("t0", t0, dtype)
    check_time("t1", t1, dtype)
    ts = None if ts is None else jnp.asarray(ts, dtype)
    return jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), y0, ts
