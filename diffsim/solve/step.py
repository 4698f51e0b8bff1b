"""One step of any diffrax one-step solver as a plain function that every mode of differentiation accepts."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._types import Args, Scalar, State


class Point(NamedTuple):
    """A point of a trajectory: time, state, and the vector field there."""

    t: Scalar
    y: State
    slope: State


class Stepper(NamedTuple):
    """A solver bound to one vector field."""

    solver: dfx.AbstractSolver
    term: dfx.ODETerm
    args: Args

    def slope(self, t: Scalar, y: State) -> State:
        """dy/dt."""
        return self.term.vf(t, y, self.args)

    def point(self, t: Scalar, y: State) -> Point:
        """The point at (t, y)."""
        return Point(t, y, self.slope(t, y))

    def step(self, start: Point, h: Scalar) -> tuple[Point, State]:
        """The point a time `h` after `start`, and the solver's estimate of its local error."""
        if isinstance(self.solver, dfx.AbstractERK):
            return _explicit(self, start, h)
        return _general(self, start, h)

    @property
    def error_order(self):
        """The order of the error estimate, as step size controllers need it."""
        return self.solver.error_order(self.term)


def stepper(field: Callable, solver: dfx.AbstractSolver, controller, args: Args) -> Stepper:
    """`solver` for `field(t, y, args)`, set up so that `grad`, `jvp` and `vmap` go through its steps."""
    if isinstance(solver, dfx.AbstractImplicitSolver):
        solver = _with_tolerances(solver, controller)
    if isinstance(solver, dfx.AbstractRungeKutta) and not isinstance(solver, dfx.AbstractERK):
        solver = dataclasses.replace(solver, scan_kind="bounded")
    return Stepper(solver, dfx.ODETerm(field), args)


def _with_tolerances(solver, controller):
    """The implicit solver with a root finder of known tolerance: the controller's, unless it has its own."""
    # diffrax marks "as the controller" by an object in place of the number.
    if isinstance(getattr(solver.root_finder, "rtol", None), float | int | jax.Array):
        return solver
    if not hasattr(controller, "rtol"):
        name = type(solver).__name__
        raise InputError(
            f"{name} with {type(controller).__name__} has no tolerance for its root finder; "
            f"pass {name}(root_finder=diffrax.VeryChord(rtol=1e-8, atol=1e-10)) or a PIDController"
        )
    finder = dfx.VeryChord(rtol=controller.rtol, atol=controller.atol)
    return dataclasses.replace(solver, root_finder=finder)


def _explicit(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, State]:
    """Explicit Runge-Kutta step from the solver's tableau, by a plain scan over its stages.

    diffrax's own loop over stages has a reverse rule only. Stages written out one after the other would run no
    faster and take many times longer to compile.
    """
    tableau: dfx.ButcherTableau = stepper.solver.tableau  # pyright: ignore[reportAttributeAccessIssue]
    y0, unravel = ravel_pytree(start.y)

    def slope(t, y):
        return ravel_pytree(stepper.slope(t, unravel(y)))[0]

    def stage(slopes, row):
        index, c, weights = row
        y = y0 + h * (weights @ slopes)
        return slopes.at[index].set(slope(start.t + c * h, y)), y

    first = ravel_pytree(start.slope)[0]
    slopes = jnp.zeros((tableau.num_stages, y0.size), y0.dtype).at[0].set(first)
    slopes, ys = lax.scan(stage, slopes, _rows(tableau, y0.dtype))
    y = ys[-1] if tableau.ssal else y0 + h * (jnp.asarray(tableau.b_sol, y0.dtype) @ slopes)
    t = start.t + h
    end = slopes[-1] if tableau.fsal else slope(t, y)
    error = h * (jnp.asarray(tableau.b_error, y0.dtype) @ slopes)
    return Point(t, unravel(y), unravel(end)), unravel(error)


def _rows(tableau: dfx.ButcherTableau, dtype):
    """For each stage but the first: its index, its time as a fraction of the step, the weights of the stages."""
    weights = np.zeros((tableau.num_stages - 1, tableau.num_stages))
    for row, lower in zip(weights, tableau.a_lower, strict=True):
        row[: len(lower)] = lower
    index = np.arange(1, tableau.num_stages)
    return jnp.asarray(index), jnp.asarray(tableau.c, dtype), jnp.asarray(weights, dtype)


def _general(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, State]:
    """A step of a solver that is not explicit Runge-Kutta, through diffrax's own interface."""
    solver, term, args = stepper.solver, stepper.term, stepper.args
    t1 = start.t + h
    # Steps are shortened and repeated, so nothing may be carried from one to the next.
    state = solver.init(term, start.t, t1, start.y, args)
    y, error, _, _, result = solver.step(term, start.t, t1, start.y, args, state, made_jump=False)
    if error is None:
        error = jax.tree.map(jnp.zeros_like, y)
    failed = result != dfx.RESULTS.successful
    error = jax.tree.map(lambda e: jnp.where(failed, jnp.inf, lax.stop_gradient(e)), error)
    return stepper.point(t1, y), error
