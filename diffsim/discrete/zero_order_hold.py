"""The integration of a vector field over one interval with a constant control, as under a digital controller."""

from collections.abc import Callable
from typing import Any

import diffrax as dfx
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._types import Flag, Scalar, State, StateLike, Vector
from ..autodiff.nan_unless import defined
from ..ode.choose_execution import written_out
from ..ode.solver_setup import stepper
from ..ode.validate import check_field, check_state

SOLVER = dfx.Tsit5()
MIN_SIZE = 1e-3  # the least size of a component in the check of errors, as a fraction of the largest component


def zero_order_hold(
    vector_field: Callable,
    state: StateLike,
    control: Any,
    dt: float | Scalar,
    *,
    t: float | Scalar = 0.0,
    steps: int = 1,
    solver: dfx.AbstractSolver = SOLVER,
    rtol: float | None = None,
) -> State:
    """The state at `t + dt` for a control that is constant in between: a zero-order hold.

        d state / dt = vector_field(t, state, control)

    The equation is solved by `steps` equal steps of a one-step solver. As the step of a `rollout` it simulates a
    machine under a digital controller:

        ds.rollout(lambda s, _: ds.zero_order_hold(field, s, policy(s), 0.05), start, length=100)

    The length of the steps does not depend on their error. With `rtol` the error is checked: where it is too large, the
    state and its derivative are NaN, and the remedy is more `steps`. Check a new system once with `rtol=1e-3`, before
    and after training; the check costs up to a tenth of a rollout's gradient. It is off by default, since a single bad
    state of an untrained controller would make the loss of its batch NaN.

    All modes of differentiation work.

    Good values: steps of up to a tenth of the fastest time scale, for which the default solver has an error of about
    1e-7. Breaks when: the steps are longer. The check is of single intervals, while errors may grow from one to the
    next. The estimates are large where the vector field jumps within an interval, as with dry friction. Solvers without
    an error estimate, such as `diffrax.Euler`, pass every check.

    Args:
        vector_field: `vector_field(t, state, control)`, a tree like the state.
        state: The state at the time `t`, a tree of arrays.
        control: The control, any tree of arrays.
        dt: The length of the interval in s.
        t: Its beginning in s.
        steps: The number of equal steps.
        solver: A one-step solver of diffrax. The default is of fifth order.
        rtol: The largest error of a component of the state, relative to its size plus its change, plus a thousandth of
            the same for the largest component. The error is the sum of the solver's estimates over the steps. By
            default there is no check.

    Raises:
        InputError: For `steps` below one, an `rtol` that is not positive, and a vector field that does not return the
            structure of the state.

    Examples:
        >>> cart = lambda t, state, force: jnp.stack([state[1], force])  # of 1 kg
        >>> print(ds.zero_order_hold(cart, jnp.zeros(2), jnp.array(3.0), 2.0).round(6))  # 3 t^2 / 2 and 3 t
        [6. 6.]
    """
    if steps < 1:
        raise InputError(f"steps={steps} of a zero-order hold: take at least one")
    if rtol is not None and not rtol > 0:
        raise InputError(f"rtol={rtol} of a zero-order hold: give a positive number, or None for no check of the steps")
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
    return unravel(point.y if rtol is None else defined(_is_accurate(errors, y, point.y, rtol), point.y))


def _is_accurate(errors: list[Vector], before: Vector, after: Vector, rtol: float) -> Flag:
    """Whether the errors of every component are small compared with its size and its change."""
    # A boolean has no derivative.
    errors, before, after = lax.stop_gradient((errors, before, after))
    error = sum(map(jnp.abs, errors), start=jnp.zeros_like(after))
    size = jnp.abs(before) + jnp.abs(after - before)
    return jnp.all(error <= rtol * (size + MIN_SIZE * jnp.max(size, initial=0.0)))
