"""A vector field stepped over one interval with its control held constant, as a digital controller does."""

from collections.abc import Callable
from typing import Any

import diffrax as dfx
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._types import Flag, Scalar, State, Vector
from ..autodiff.nan_unless import defined
from ..ode.execution import written_out
from ..ode.solver_setup import stepper
from ..ode.validate import check_field, check_state

SOLVER = dfx.Tsit5()
LEAST = 1e-3  # size of a component in a check of errors, as a fraction of the largest


def zero_order_hold(
    vector_field: Callable,
    state: State,
    control: Any,
    dt: float | Scalar,
    *,
    t: float | Scalar = 0.0,
    steps: int = 1,
    solver: dfx.AbstractSolver = SOLVER,
    rtol: float | None = None,
) -> State:
    """The state a time `dt` after `t`, with the control held at its value meanwhile: a zero-order hold.

    `d state / dt = vector_field(t, state, control)` is followed by `steps` equal steps of any one-step solver of
    diffrax. As the step of a `rollout` it is what a digital controller does to a machine:

        rollout(lambda s, _: zero_order_hold(field, s, policy(s), 0.05), start, length=100)

    The steps are as long as `steps` makes them, whatever their error. With `rtol` they are checked: the state is NaN,
    and so is its derivative, where the solver's estimates of its errors, added up over the steps, exceed `rtol` times
    the size and change of a component of the state, which counts as at least a thousandth of the largest one. The
    remedy is more `steps`. Check a new system once with `rtol=1e-3`, as trained and before training; the check costs
    up to a tenth of a rollout's gradient. It is off by default since a single bad state of an untrained controller
    would make the loss of its whole batch NaN.

    All modes of differentiation work.

    Good values: Tsit5 (the default) with a step up to a tenth of the fastest time scale errs by some 1e-7.
    Breaks when: the step is longer than that. Estimates are of single intervals: errors may grow from one to the next.
    They are large where the vector field jumps within an interval, as with dry friction. Solvers without an estimate,
    such as `diffrax.Euler`, pass every check.

    Args:
        vector_field: `vector_field(t, state, control)`, a tree like the state.
        state: tree of arrays at the time `t`.
        control: any tree of arrays.
        dt: length of the interval in s.
        t: its beginning in s.
        steps: number of equal steps.
        solver: one-step solver of diffrax.
        rtol: greatest estimated error of a component relative to its size and change; by default
            they are not checked.

    Returns:
        The state at `t + dt`.

    Raises:
        InputError: for `steps` below one, an `rtol` that is not positive, and a vector field that does not return the
            structure of the state.
    """
    if steps < 1:
        raise InputError(f"steps={steps} of a hold: take at least one")
    if rtol is not None and not rtol > 0:
        raise InputError(f"rtol={rtol} of a hold: give a positive number, or None for no check of the steps")
    state = check_state(state)
    y, unravel = ravel_pytree(state)
    t, dt = jnp.asarray(t, y.dtype), jnp.asarray(dt, y.dtype) / steps
    check_field(vector_field, t, state, control)
    on_vectors = lambda t, y, control: ravel_pytree(vector_field(t, unravel(y), control))[0]
    method = written_out(stepper(on_vectors, solver, None, control), t, y)
    point, errors = method.point(t, y), []
    for _ in range(steps):
        point, error = method.step(point, dt)
        errors.append(error)
    return unravel(point.y if rtol is None else defined(_resolved(errors, y, point.y, rtol), point.y))


def _resolved(errors: list[Vector], before: Vector, after: Vector, rtol: float) -> Flag:
    """Whether the errors of every component are small compared with its size and its change."""
    # A yes or no has no derivative.
    errors, before, after = lax.stop_gradient((errors, before, after))
    error = sum(map(jnp.abs, errors), start=jnp.zeros_like(after))
    size = jnp.abs(before) + jnp.abs(after - before)
    return jnp.all(error <= rtol * (size + LEAST * jnp.max(size, initial=0.0)))
