"""States of an ordinary differential equation at given times: the one place that picks diffrax's defaults."""

from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._errors import InputError
from .._types import Args, State
from .adjoint import ReplayAdjoint
from .attempt import all_finite
from .checks import check_field, check_state
from .evolve import SOLVER, Arrival, evolve
from .guard import Phase
from .status import Status, finished

CONTROLLER = dfx.PIDController(rtol=1e-6, atol=1e-9)


def integrate(
    vector_field: Callable | dfx.AbstractTerm,
    y0: State,
    ts: Float[Array, " times"],
    args: Args = None,
    *,
    solver: dfx.AbstractSolver = SOLVER,
    controller: dfx.AbstractStepSizeController = CONTROLLER,
    adjoint: dfx.AbstractAdjoint | None = None,
    dt0=None,
    max_steps: int = 4096,
    return_status: bool = False,
) -> State | tuple[State, Int[Array, ""]]:
    """The states of `dy/dt = vector_field(t, y, args)` at the times `ts`, beginning with `y0` at `ts[0]`.

    Every leaf of `y0` gains a leading axis of `times`. With `return_status=True` the Status of the trajectory comes
    beside it. Nothing is raised from compiled code: after a failure the states are NaN from there on.

    By default the steps are recorded, and the derivative is that of a replay of the accepted ones: `grad`, `jvp`,
    `hessian` and `vmap` all work (see `evolve`), and a state between two steps comes by a shortened step, as accurate
    as the steps. `adjoint=ReplayAdjoint(memory=...)` names what reverse mode keeps. With an `adjoint` of diffrax, or a
    term in place of the vector field, diffrax's own loop and interpolation serve, with that adjoint's limits.
    `solver` (Tsit5), `controller` (PID with rtol 1e-6, atol 1e-9), `dt0` and `max_steps` are diffrax's own.

    Raises InputError for times that do not increase, for states that are not real, and for a vector field that does
    not return the structure, shapes and dtypes of `y0`.

    Good values: smooth problems whose time scales differ by less than about 1e3. Breaks when: the problem is stiff
    (status STEP_LIMIT; use `diffrax.Kvaerno5()`), or the field jumps at a time (give `controller` a `jump_ts`).
    """
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    ts = _check_times(ts, dtype)
    if adjoint is None and not isinstance(vector_field, dfx.AbstractTerm):
        adjoint = ReplayAdjoint()
    if isinstance(adjoint, ReplayAdjoint) and not isinstance(vector_field, dfx.AbstractTerm):
        # A number that is not an array would be compiled for anew with each value.
        dt0 = None if dt0 is None else jnp.asarray(dt0, dtype)
        options = {"solver": solver, "controller": controller, "dt0": dt0, "max_steps": max_steps}
        options["memory"] = adjoint.memory
        ys, status = _by_evolve(vector_field, y0, ts, args, options)
    else:
        ys, status = _by_diffrax(vector_field, y0, ts, args, solver, controller, adjoint, dt0, max_steps)
    return (ys, status) if return_status else ys


@eqx.filter_jit
def _by_evolve(vector_field, y0, ts, args, options):
    """States and status of one phase; compiled once for each vector field, so that calls from Python are fast too."""
    between = ts[1:-1] if ts.shape[0] > 2 else None
    end = evolve(Phase(vector_field), ts[0], y0, args, t1=ts[-1], ts=between, **options)
    return _in_order(y0, end), end.status


def _in_order(y0: State, end: Arrival) -> State:
    """The first state, those in between, and the last if the trajectory came there."""
    last = jax.tree.map(lambda y: jnp.where(finished(end.status), y, jnp.nan), end.y)
    parts = (y0, last) if end.ys is None else (y0, end.ys, last)
    rows = lambda *parts: jnp.concatenate([x.reshape(-1, *parts[0].shape) for x in parts])
    return jax.tree.map(rows, *parts)


def _by_diffrax(vector_field, y0, ts, args, solver, controller, adjoint, dt0, max_steps):
    """States and status from `diffrax.diffeqsolve` with the adjoint asked for."""
    if not isinstance(vector_field, dfx.AbstractTerm):
        check_field(vector_field, ts[0], y0, args)
        vector_field = dfx.ODETerm(vector_field)
    solution = dfx.diffeqsolve(
        vector_field,
        solver,
        ts[0],
        ts[-1],
        dt0,
        y0,
        args,
        saveat=dfx.SaveAt(ts=ts),
        stepsize_controller=controller,
        adjoint=dfx.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=max_steps,
        throw=False,
    )
    # diffrax leaves infinity where it did not arrive; NaN cannot be mistaken for a result.
    ys = jax.tree.map(lambda y: jnp.where(jnp.isfinite(y), y, jnp.nan), solution.ys)
    return ys, _status(solution)


def _check_times(ts, dtype) -> Float[Array, " times"]:
    if not isinstance(ts, Tracer):
        values = np.asarray(ts)
        if values.ndim != 1 or values.size < 2:
            raise InputError(f"ts has shape {values.shape}: give at least two times in one dimension")
        if not np.all(np.diff(values) > 0):
            where = int(np.argmin(np.diff(values) > 0))
            raise InputError(f"ts must increase: ts[{where}]={values[where]:g}, ts[{where + 1}]={values[where + 1]:g}")
    return jnp.asarray(ts, dtype)


def _status(solution: dfx.Solution) -> Int[Array, ""]:
    """The Status of a diffrax solution: a failure whose steps produced NaN is not a matter of step limits."""
    good = solution.result == dfx.RESULTS.successful
    status = jnp.where(good, Status.FINISHED, Status.STEP_LIMIT)
    return jnp.where(good & ~all_finite(solution.ys), Status.NON_FINITE, status)
