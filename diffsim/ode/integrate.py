"""States of an ordinary differential equation at given times, and its whole solution."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._errors import InputError
from .._jax.traced_function import is_traced
from .._types import Args, Count, State, StateLike
from ..autodiff.nan_unless import defined
from .events import Phase, jumps_of, traced_phases
from .jump_times import with_constant_jumps
from .options import check_options, check_times, chosen_controller, direction_of, in_order
from .replay_adjoint import ReplayAdjoint
from .solve_phase import SOLVER, PhaseResult, Trajectory, solve_phase
from .status import Status, finished
from .trial_step import all_finite
from .validate import check_field, check_state

CONTROLLER = dfx.PIDController(rtol=1e-6, atol=1e-9)


def integrate(
    vector_field: Callable | dfx.AbstractTerm,
    y0: StateLike,
    ts: Real[ArrayLike, " times"],
    args: Args = None,
    *,
    solver: dfx.AbstractSolver = SOLVER,
    stepsize_controller: dfx.AbstractStepSizeController = CONTROLLER,
    rtol: float | None = None,
    atol: float | None = None,
    adjoint: dfx.AbstractAdjoint | None = None,
    dt0=None,
    max_steps: int = 4096,
) -> State:
    """Returns the states of dy/dt = vector_field(t, y, args) at the times `ts`, the first of which is `y0`.

    Nothing is raised from compiled code: after a failure the states are NaN from there on, and so are their
    derivatives; `solve`, which takes the same arguments, says what happened.

    A path of an Ornstein-Uhlenbeck process, dx = -theta x dt + sigma dW:

        noise = dfx.VirtualBrownianTree(0.0, 5.0, tol=1e-3, shape=(), key=key)
        drift = dfx.ODETerm(lambda t, x, theta: -theta * x)
        terms = dfx.MultiTerm(drift, dfx.ControlTerm(lambda t, x, theta: sigma, noise))
        path = ds.integrate(terms, x0, ts, theta, solver=dfx.Euler(), dt0=0.01)

    Good values: smooth problems whose time scales differ by less than about 1e3. Breaks when: the problem is stiff
    (status STEP_LIMIT; use `diffrax.Kvaerno5()`), or the field jumps at a time (give a
    `diffrax.ClipStepSizeController(controller, jump_ts=...)`, whose times have derivatives too). Less accurate when:
    the field has kinks, as of `maximum`; the derivative's error can be the root of the value's (make them events).

    Args:
        vector_field: `vector_field(t, y, args)` returns dy/dt; or a term of diffrax.
        y0: The state at `ts[0]`, any pytree of real arrays of one number format.
        ts: At least two times, which increase, or decrease for an integration backward.
        args: What the vector field takes as its third argument.
        solver: A solver of diffrax.
        stepsize_controller: A step size controller of diffrax; rtol 1e-6 and atol 1e-9 by default. Methods without an
            error estimate, and equations with noise, take constant steps of `dt0` unless one is given.
        rtol, atol: The short form of a PID controller; one of them alone keeps the ratio of the default.
        adjoint: How the solve is differentiated. By default the accepted steps are recorded and differentiated with
            their sizes fixed: `grad`, `jvp`, `hessian` and `vmap` all work (see `integrate_phase`), and a state between
            two steps is computed by a shortened step, as accurate as the steps. `ReplayAdjoint(memory=...)` names what
            reverse mode starts from. With an adjoint of diffrax, or a term in place of the vector field, diffrax's own
            loop and interpolation serve, with that adjoint's limits.
        dt0: The first step, or that of constant steps.
        max_steps: The most steps that are tried.

    Returns:
        The states; every leaf of `y0` gains a leading axis of `times`.

    Raises:
        InputError: For times that are not finite, in no order or nearer to each other than their format resolves, for
            states that are not real, and for a vector field that does not return the structure, shapes and dtypes of
            `y0`.

    Examples:
        >>> ts = jnp.linspace(0.0, 2.0, 5)
        >>> ys = ds.integrate(lambda t, y, rate: -rate * y, jnp.array(1.0), ts, 0.7)
        >>> bool(jnp.allclose(ys, jnp.exp(-0.7 * ts), atol=1e-6))
        True
    """
    options = {"solver": solver, "stepsize_controller": stepsize_controller, "rtol": rtol, "atol": atol}
    return solve(vector_field, y0, ts, args, adjoint=adjoint, dt0=dt0, max_steps=max_steps, **options).ys


class Solution(NamedTuple):
    """The states `ys` at the times `ts`, each leaf with a leading axis of times, and how the solve ended.

    `status` is a `Status`, `num_steps` counts the steps that were tried, and `dense` contains the steps themselves if
    they were asked for, else None.

    Examples:
        >>> ts = jnp.linspace(0.0, 1.0, 3)
        >>> solution = ds.solve(lambda t, y, rate: -rate * y, jnp.array(1.0), ts, 1.0, dense=True)
        >>> print(f"{solution.evaluate(0.3):.6f}")  # exp(-0.3)
        0.740818
        >>> bool(ds.finished(solution.status)), solution.ys.shape
        (True, (3,))
    """

    ts: Float[Array, " times"]
    ys: State
    status: Count
    num_steps: Count
    dense: Trajectory | dfx.Solution | None = None

    def evaluate(self, t: Float[ArrayLike, "*times"]) -> State:
        """Returns the state at the time `t`, or the states at many; NaN outside the times of the solve.

        A state between two steps is computed by a shortened step, so it is as accurate as the steps; its derivatives
        are those of `integrate`. Of a solve by an `adjoint` of diffrax, or of a term, it is diffrax's interpolation.

            solution = ds.solve(field, y0, jnp.array([0.0, 10.0]), p, dense=True)
            ys = solution.evaluate(jnp.linspace(0.0, 10.0, 200))

        Args:
            t: One time, or an array of times; leaves of the result gain its shape in front.

        Raises:
            InputError: If the solve was made without `dense=True`.
        """
        if self.dense is None:
            raise InputError("dense=None: this solution holds the states at ts alone; solve with dense=True")
        t = jnp.asarray(t, self.ts.dtype)
        states = (_between if is_traced() else _compiled_between)(self, t.ravel())
        return jax.tree.map(lambda y: y.reshape(*t.shape, *y.shape[1:]), states)


def solve(
    vector_field: Callable | dfx.AbstractTerm,
    y0: StateLike,
    ts: Real[ArrayLike, " times"],
    args: Args = None,
    *,
    solver: dfx.AbstractSolver = SOLVER,
    stepsize_controller: dfx.AbstractStepSizeController = CONTROLLER,
    rtol: float | None = None,
    atol: float | None = None,
    adjoint: dfx.AbstractAdjoint | None = None,
    dt0=None,
    max_steps: int = 4096,
    dense: bool = False,
) -> Solution:
    """Returns the solution of a differential equation: what `integrate` returns, how it ended and the steps it took.

    The arguments and errors are those of `integrate`. Times that are traced, and so cannot be checked, end with status
    INVALID_INPUT if they make no sense.

    With `dense=True` the solution can be evaluated at any time (`Solution.evaluate`). It then contains functions and
    cannot be returned from `jax.vmap` or `jax.jit`: evaluate it inside them.

    Examples:
        >>> square = lambda t, y, _: y**2  # y = 1 / (1 - t), which is infinite at t = 1
        >>> solution = ds.solve(square, jnp.array(1.0), jnp.array([0.0, 0.5, 2.0]))
        >>> print(solution.ys.round(3), bool(ds.finished(solution.status)))
        [ 1.  2. nan] False
        >>> float(jnp.where(ds.finished(solution.status), solution.ys[-1] ** 2, 0.0))  # a loss that leaves failures out
        0.0
    """
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    direction, ts = check_times(ts, dtype)
    controller = chosen_controller(
        stepsize_controller, CONTROLLER, rtol, atol, solver, dt0, dtype, noise=_has_noise(vector_field)
    )
    check_options(controller, dt0, max_steps if adjoint is None or isinstance(adjoint, ReplayAdjoint) else 1, dtype)
    if adjoint is None and not isinstance(vector_field, dfx.AbstractTerm):
        adjoint = ReplayAdjoint()
    if isinstance(adjoint, ReplayAdjoint) and not isinstance(vector_field, dfx.AbstractTerm):
        # A number that is not an array would be compiled again for each value.
        dt0 = None if dt0 is None else jnp.asarray(dt0, dtype)
        options = {"solver": solver, "stepsize_controller": controller, "dt0": dt0, "max_steps": max_steps}
        options["memory"] = adjoint.memory
        (phase,), args, options["signals"] = traced_phases((Phase(vector_field),), ts[0], ts[-1], y0, args)
        return Solution(ts, *_in_one_phase(phase, y0, ts, args, options, direction, dense))
    return Solution(ts, *_by_diffrax(vector_field, y0, ts, args, solver, controller, adjoint, dt0, max_steps, dense))


def _has_noise(vector_field) -> bool:
    """Whether a term is more than the vector field of an ordinary differential equation."""
    return isinstance(vector_field, dfx.AbstractTerm) and not isinstance(vector_field, dfx.ODETerm)


@eqx.filter_jit
def _in_one_phase(phase, y0, ts, args, options, direction, dense: bool):
    """What a `Solution` has besides `ts`; compiled once for all vector fields that are the same program."""
    between = ts[1:-1] if ts.shape[0] > 2 else None
    if direction is None:
        direction = direction_of(ts[0], ts[-1])
    end, _, trajectory = solve_phase(
        phase, ts[0], y0, args, ts[-1], between, direction=direction, dense=dense, **options
    )
    valid = in_order(ts, direction)
    status = jnp.where(valid, end.status, Status.INVALID_INPUT)
    return _in_order(y0, end._replace(status=status)), status, end.steps, trajectory if dense else None


def _in_order(y0: State, end: PhaseResult) -> State:
    """The first state, those in between, and the last if the trajectory came there."""
    last = defined(finished(end.status), end.y)
    between = defined(end.status != Status.INVALID_INPUT, end.ys)
    if between is None:
        return jax.tree.map(lambda first, last: jnp.stack([first, last]), y0, last)
    rows = lambda first, between, last: jnp.concatenate([first[None], between, last[None]])
    return jax.tree.map(rows, y0, between, last)


def _by_diffrax(vector_field, y0, ts, args, solver, controller, adjoint, dt0, max_steps, dense):
    """What a `Solution` has besides `ts`, from `diffrax.diffeqsolve` with the adjoint asked for."""
    if not isinstance(vector_field, dfx.AbstractTerm):
        check_field(vector_field, ts[0], y0, args)
        vector_field = dfx.ODETerm(vector_field)
    jumps = jumps_of(vector_field.vf, ts[0], y0, args)
    controller = with_constant_jumps(controller, jumps, ts.dtype)
    solution = dfx.diffeqsolve(
        vector_field,
        solver,
        ts[0],
        ts[-1],
        dt0,
        y0,
        args,
        saveat=dfx.SaveAt(ts=ts, dense=dense),
        stepsize_controller=controller,
        adjoint=dfx.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=max_steps,
        throw=False,
    )
    # diffrax leaves infinity where it did not arrive; NaN cannot be mistaken for a result.
    ys = jax.tree.map(lambda y: defined(jnp.isfinite(y), y), solution.ys)
    return ys, _status(solution), solution.stats["num_steps"], solution if dense else None


def _between(solution: Solution, ts: Float[Array, " times"]) -> State:
    """The states at `ts`, where the solution has got so far and its times make sense."""
    dense = solution.dense
    assert dense is not None
    if isinstance(dense, Trajectory):
        return defined(solution.status != Status.INVALID_INPUT, dense.states(ts))
    low, high = jnp.minimum(dense.t0, dense.t1), jnp.maximum(dense.t0, dense.t1)
    inside = (ts >= low) & (ts <= high) & (solution.status == Status.FINISHED)
    states = jax.vmap(dense.evaluate)(jnp.clip(ts, low, high))
    return defined(inside, states)


_compiled_between = eqx.filter_jit(_between)


def _status(solution: dfx.Solution) -> Int[Array, ""]:
    """The Status of a diffrax solution: a failure whose steps produced NaN is not a matter of step limits."""
    good = solution.result == dfx.RESULTS.successful
    status = jnp.where(good, Status.FINISHED, Status.STEP_LIMIT)
    return jnp.where(good & ~all_finite(solution.ys), Status.NON_FINITE, status)
