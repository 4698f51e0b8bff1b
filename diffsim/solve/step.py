"""One step of any diffrax one-step solver as a plain function that every mode of differentiation accepts."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
from jax import lax

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
    def error_order(self) -> float:
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
    if hasattr(solver.root_finder, "rtol") and not callable(solver.root_finder.rtol):
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
    """Explicit Runge-Kutta step from the solver's tableau, its stages written out.

    A loop over stages would be smaller to compile, but diffrax's own loop has a reverse rule only.
    """
    tableau = stepper.solver.tableau
    slopes = [start.slope]
    y = start.y
    for c, row in zip(tableau.c, tableau.a_lower, strict=True):
        y = _combine(start.y, h, row, slopes)
        slopes.append(stepper.slope(start.t + float(c) * h, y))
    if not tableau.ssal:
        y = _combine(start.y, h, tableau.b_sol, slopes)
    t = start.t + h
    end = Point(t, y, slopes[-1] if tableau.fsal else stepper.slope(t, y))
    zero = jax.tree.map(jnp.zeros_like, y)
    return end, _combine(zero, h, tableau.b_error, slopes)


def _combine(y: State, h: Scalar, weights, slopes) -> State:
    """y + h * sum_i weights[i] slopes[i], leaving out the zero weights."""
    used = [(float(w), k) for w, k in zip(weights, slopes, strict=True) if w != 0]

    def leaf(y, *ks):
        total = used[0][0] * ks[0]
        for (w, _), k in zip(used[1:], ks[1:], strict=True):
            total = total + w * k
        return y + (h * total).astype(y.dtype)

    return jax.tree.map(leaf, y, *(k for _, k in used))


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
