"""One phase of a hybrid system, up to its earliest guard, with a differentiable event time."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from .._errors import InputError
from .._types import Args, Count, Scalar, State, Vector
from .attempt import Problem, all_finite, steady
from .checks import check_field, check_state
from .guard import Guard, Phase, next_watch
from .locate import Stage, hold, settle
from .march import March, advance, begin, rows
from .moving import freeze
from .prepare import as_vector, on_vectors, stepper, with_plain_norm
from .program import traced_once
from .record import Memory, Record, blank, plan
from .replay import End, replay
from .status import Status
from .step import Point
from .whole import compile_small

Mode = Literal["any", "forward"]
SOLVER = dfx.Tsit5()
CONTROLLER = dfx.PIDController(rtol=1e-8, atol=1e-10)


class Arrival(NamedTuple):
    """How a phase ended: at an event, at the final time, or by a failure.

    `t` and `y` are time and state at the end, before any reset; `next_y` is the state after the reset.
    `guard` is the index of the guard that fired, -1 for none. `ys` are the states at the times asked for, NaN
    outside the phase; None if none were asked for. `lowest` holds the least value of each of the phase's limits
    (a constant for differentiation), `steps` counts attempted steps.
    """

    t: Scalar
    y: State
    next_y: State
    guard: Count
    status: Count
    steps: Count
    lowest: Float[Array, " limits"]
    ys: State | None


def evolve(
    phase: Phase,
    t0,
    y0: State,
    args: Args = None,
    *,
    t1,
    ts: Float[Array, " times"] | None = None,
    solver: dfx.AbstractSolver = SOLVER,
    controller: dfx.AbstractStepSizeController = CONTROLLER,
    dt0=None,
    max_steps: int = 1024,
    mode: Mode = "any",
    memory: Memory = "auto",
) -> Arrival:
    """The end of one phase: the earliest crossing of any of its guards after `t0`, at most `t1`.

    The vector field is that of `phase`, `dy/dt = phase.field(t, y, args)`; `y0` is any pytree of real arrays.
    `ts` asks for states at these times. Any diffrax one-step solver and step size controller may be given.

    Event time and state are as accurate as the solution, and so are their derivatives. With `mode="any"` the steps are
    found and recorded first; the derivative is that of a fixed replay of the accepted ones. `grad`, `jacfwd`, `hessian`
    and `vmap` all work; reverse mode over reverse mode does not (`jax.hessian` is forward over reverse).
    `mode="forward"` does all in one pass, for `jvp` and `jacfwd` only; wrapped in `few_inputs` it serves `grad` too. On
    a CPU the loops over small states are compiled whole. A controller's norm sees the state as one vector.

    `memory` says what reverse mode works from: "states" (each is kept, each step taken again), "two_levels" (one state
    in sqrt(max_steps) is kept, each step taken again twice) or "jacobians" (as "states", with the Jacobians of 64
    steps at a time: fast where a step is many operations on few numbers). "auto" takes "states" up to 16 MiB and
    "two_levels" beyond, and "jacobians" for up to 8 numbers if loops are not compiled whole. Stages of an implicit
    method are differentiated as the roots they are; but for "two_levels" their slopes are kept beside each state, and
    nothing is solved for again.

    Status: GUARD_NOT_FOUND if the phase has guards and `t1` came first, GRAZING if the guard is only touched,
    STEP_LIMIT, NON_FINITE (constant steps go on to `t1` none the less). Raises InputError for a guard that is not real,
    or a field that does not return the structure of `y0`.
    """
    if mode not in ("any", "forward"):
        raise InputError(f'mode={mode!r}: use "any" or "forward"')
    t0, t1, y0, ts = _as_arrays(t0, t1, y0, ts)
    check_field(phase.field, t0, y0, args)
    y0, unravel = as_vector(y0)
    phase = _vector_phase(phase, t0, y0, unravel, args)
    step = stepper(phase.field, solver, controller, t0, y0, args)
    if mode == "forward" and phase.guards:
        # With tangents and a search for events the loop is long to compile, and stages written out gain little.
        step = step._replace(small=False)
    whole = mode == "any" and not (phase.guards or phase.limits) and step.is_light(y0)
    problem = Problem(step, phase.guards, phase.limits, with_plain_norm(controller), t1, dt0, max_steps, whole)
    march, end = _end(problem, t0, y0, mode, memory, ts is not None)
    return _arrive(phase, problem, unravel, march, end, ts)


def _end(problem: Problem, t0: Scalar, y0: Vector, mode: Mode, memory: Memory, keep_path: bool):
    """The March of a phase to a differentiable last point, and the End with the path to it."""
    forward = mode == "forward"
    stages = problem.stepper.number_of_stages
    stride, jacobians = plan(memory, y0, rows(problem), stages, keep_path=keep_path, whole=problem.whole)
    stepped = problem if forward else freeze(problem)
    arrays, static = eqx.partition(stepped, eqx.is_array)

    def run(arrays, t0, y0):
        problem = eqx.combine(arrays, static)
        record = blank(y0, rows(problem), stride, stages) if keep_path or not forward else None
        return advance(problem, begin(problem, problem.stepper.point(t0, y0), record))

    run = functools.partial(compile_small(run, y0.size * y0.dtype.itemsize) if problem.whole else run, arrays)
    if forward:
        march = run(t0, y0)
        path = (march.record.t, march.record.y) if march.record is not None else ()
        return march, End(march.point.t, march.point.y, *path)
    march = freeze(run(freeze(t0), freeze(y0)))
    options = {"keep_path": keep_path, "jacobians": jacobians, "whole": problem.whole, "steady": steady(problem)}
    end = replay(problem.stepper, t0, y0, march.record, march.point.t, march.point.y, **options)
    return march._replace(point=problem.stepper.point(end.t, end.y)), end


def _arrive(phase, problem, unravel, march: March, last: End, ts) -> Arrival:
    """The arrival at the end of the march: at the event found, or at the point reached."""
    point, search, status = march.point, march.search, march.status
    guard = jnp.array(-1)
    next_y = unravel(point.y)
    if phase.guards:
        found = search.stage == Stage.FOUND
        end = settle(problem.stepper, phase.guards, point, search, found, problem.t1)
        guard = jnp.where(found, search.guard, -1)
        next_y = _reset(phase.guards, search.guard, end, unravel, problem.stepper.args)
        next_y = jax.tree.map(lambda x: jnp.where(found, x, jnp.nan), next_y)
        status = jnp.where(found & search.grazing, Status.GRAZING, status)
        status = jnp.where((status == Status.FINISHED) & ~found, Status.GUARD_NOT_FOUND, status)
        # The points of the march were looked at when they were reached.
        status = jnp.where((status == Status.FINISHED) & ~all_finite(end), Status.NON_FINITE, status)
    else:
        end = hold(problem.stepper, point, problem.t1)
    ys = None
    if ts is not None and march.record is not None:
        ys = jax.vmap(unravel)(_states_at(problem, last, march.record, end.t, ts))
    here = freeze(end)
    lowest = freeze(next_watch(phase.limits, march.watch, here, here.t - freeze(point.t), problem.stepper.args).lowest)
    return Arrival(end.t, unravel(end.y), next_y, guard, status, march.attempts, lowest, ys)


def _reset(guards: tuple[Guard, ...], guard, end: Point, unravel, args) -> State:
    resets = [g.reset if g.reset is not None else (lambda t, y, args: unravel(y)) for g in guards]
    if len(resets) == 1:
        return resets[0](end.t, end.y, args)
    return lax.switch(guard, [lambda p, r=r: r(p.t, p.y, args) for r in resets], end)


def _states_at(problem: Problem, last: End, record: Record, t_end, ts) -> Float[Array, "times n"]:
    """States at `ts` by one shortened step each, so that they are as accurate as the solution itself."""
    path_t, path_y = last.path_t, last.path_y
    assert path_t is not None
    assert path_y is not None
    times = jnp.where(jnp.arange(record.t.shape[0]) < record.count, record.t, jnp.inf)
    row = jnp.searchsorted(lax.stop_gradient(times), lax.stop_gradient(ts), side="right") - 1

    def state(row, t):
        after, begun = t >= last.t, row >= 0
        row = jnp.maximum(row, 0)
        start_t = jnp.where(after, last.t, path_t[row])
        start_y = jnp.where(after, last.y, path_y[row])
        inside = (t <= t_end) & begun | (t == t_end)
        h = jnp.where(inside, t - start_t, 0.0)
        end, _ = problem.stepper.step(problem.stepper.point(start_t, start_y), h)
        # Constant steps go on from a state that is infinite.
        return jnp.where(inside & all_finite(end.y), end.y, jnp.nan)

    return jax.vmap(state)(row, ts)


def _as_arrays(t0, t1, y0, ts):
    """Times and state as arrays of one floating type."""
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    if not any(isinstance(t, Tracer) for t in (t0, t1)) and not np.all(np.asarray(t1) >= np.asarray(t0)):
        raise InputError(f"t1={t1} is before t0={t0}: time runs forward")
    ts = None if ts is None else jnp.asarray(ts, dtype)
    return jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), y0, ts


def _vector_phase(phase: Phase, t0, y0: Vector, unravel: Callable, args) -> Phase:
    """The phase for states as one vector, and with whatever its functions close over made explicit.

    One vector in place of many small arrays makes the loops over steps several times smaller to compile, and faster.
    """

    def explicit(function):
        return traced_once(lambda t, y, args: function(t, unravel(y), args), t0, y0, args)

    guards = tuple(
        Guard(explicit(g.function), g.direction, None if g.reset is None else explicit(g.reset), g.to)
        for g in phase.guards
    )
    field = on_vectors(phase.field, t0, y0, unravel, args)
    return Phase(field, guards, tuple(explicit(limit) for limit in phase.limits))
