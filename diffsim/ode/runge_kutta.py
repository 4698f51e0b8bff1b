"""One step of any diffrax one-step solver as a plain function that every mode of differentiation accepts."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._jax.barrier import barrier
from .._jax.scalarize import entries, written_out
from .._types import Args, Scalar, Vector
from . import dirk
from .dirk import Stages, Tableau


class Point(NamedTuple):
    """A point of a trajectory: time, state, and the vector field there. Vectors are one vector inside a solve."""

    t: Scalar
    y: Vector
    slope: Vector


class Stepper(NamedTuple):
    """A solver bound to one vector field; `written_out` says how explicit stages are computed (`Execution`)."""

    solver: dfx.AbstractSolver
    term: dfx.ODETerm
    args: Args
    written_out: bool = False

    def slope(self, t: Scalar, y: Vector) -> Vector:
        """dy/dt."""
        if self.written_out:
            return jnp.stack(_slope_of_numbers(self, t, y)(t, entries(y)))
        return self.term.vf(t, y, self.args)

    def point(self, t: Scalar, y: Vector) -> Point:
        """The point at (t, y)."""
        return Point(t, y, self.slope(t, y))

    def stages(self, start: Point, h: Scalar) -> Stages | None:
        """What a step by an implicit method has to find, to be given to `step`."""
        tableau = self.implicit
        if tableau is None:
            return None
        return dirk.solve_stages(tableau, self.solver, self.term, self.args, tuple(start), h)

    @property
    def implicit(self) -> Tableau | None:
        """The tableau of an implicit method."""
        return Tableau.of(self.solver)

    @property
    def number_of_stages(self) -> int:
        """How many stages a step has to find."""
        return len(self.implicit.c) if self.implicit else 0

    def step(self, start: Point, h: Scalar, stages: Stages | None = None) -> tuple[Point, Vector]:
        """The point a time `h` after `start`, and the solver's estimate of its local error."""
        return self.dense_step(start, h, stages)[:2]

    def dense_step(self, start: Point, h: Scalar, stages: Stages | None = None) -> tuple[Point, Vector, dict]:
        """The same, and what the solver's interpolation needs to know of the step."""
        if self.implicit:
            return _implicit(self, self.implicit, start, h, stages or self.stages(start, h))
        if isinstance(self.solver, dfx.AbstractERK):
            return (_written_out if self.written_out else _explicit)(self, start, h)
        if isinstance(self.solver, dfx.Euler):
            return _euler(self, start, h)
        return _general(self, start, h)

    @property
    def error_order(self):
        """The order of the error estimate, as step size controllers need it."""
        return self.solver.error_order(self.term)


def _explicit(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, Vector, dict]:
    """Explicit Runge-Kutta step from the solver's tableau. diffrax's own loop over stages has a reverse rule only."""
    tableau: dfx.ButcherTableau = stepper.solver.tableau  # pyright: ignore[reportAttributeAccessIssue]
    slopes, y = _in_a_loop(stepper, tableau, start, h)
    if not tableau.ssal:
        y = start.y + h * _combine(tableau.b_sol, slopes)
    t = start.t + h
    end = slopes[-1] if tableau.fsal else stepper.slope(t, y)
    info = {"y0": start.y, "y1": y, "k": h * jnp.stack(list(slopes))}
    return Point(t, y, end), h * _combine(tableau.b_error, slopes), info


def _written_out(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, Vector, dict]:
    """The same number by number and one stage after the other: fast to run."""
    tableau: dfx.ButcherTableau = stepper.solver.tableau  # pyright: ignore[reportAttributeAccessIssue]
    slope = _slope_of_numbers(stepper, start.t, start.y)
    begin, slopes = entries(start.y), [entries(start.slope)]
    combine = lambda weights: [h * _combine(weights, each) for each in zip(*slopes, strict=True)]
    # Without a barrier XLA fuses the stages into one another, which takes many times longer to compile.
    ahead = lambda weights: barrier(*(a + b for a, b in zip(begin, combine(weights), strict=True)))
    y = begin
    for c, weights in zip(tableau.c, tableau.a_lower, strict=True):
        y = ahead(weights)
        slopes.append(barrier(*slope(start.t + float(c) * h, y)))
    y = y if tableau.ssal else ahead(tableau.b_sol)
    t, y1 = start.t + h, jnp.stack(y)
    end = slopes[-1] if tableau.fsal else slope(t, y)
    info = {"y0": start.y, "y1": y1, "k": h * jnp.stack([jnp.stack(k) for k in slopes])}
    return Point(t, y1, jnp.stack(end)), jnp.stack(combine(tableau.b_error)), info


def _slope_of_numbers(stepper: Stepper, t: Scalar, y: Vector) -> Callable:
    """The vector field as a function of the time and the numbers of the state, of types like these."""
    arrays, static = eqx.partition((stepper.term, stepper.args), eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)

    def field(t, y, *leaves):
        term, args = eqx.combine(jax.tree.unflatten(tree, leaves), static)
        return term.vf(t, y, args)

    slope, constants = written_out(field, t, y, *leaves), [entries(x) for x in leaves]
    return lambda t, y: slope([t], y, *constants)


def _euler(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, Vector, dict]:
    """A step of Euler's method, which is no Runge-Kutta method in diffrax, with a slope that is known already."""
    # Without the barrier XLA draws the field into each of the places where its value is used.
    y = lax.optimization_barrier(start.y + h * start.slope)
    end = Point(start.t + h, y, lax.optimization_barrier(stepper.slope(start.t + h, y)))
    return end, jnp.zeros_like(end.y), {"y0": start.y, "y1": end.y}


def _combine(weights, slopes):
    """The weighted sum of slopes."""
    terms = [float(w) * slope for w, slope in zip(weights, slopes, strict=True) if w != 0]
    return sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(slopes[0])


def _in_a_loop(stepper: Stepper, tableau: dfx.ButcherTableau, start: Point, h: Scalar):
    """The slopes of all stages and the state of the last, with one copy of the field: fast to compile."""

    def stage(carry, row):
        slopes, _ = carry
        index, c, weights = row
        # Not a matrix product, which XLA's CPU backend hands to a library, at some cost for so small a one.
        y = start.y + h * jnp.sum(weights[:, None] * slopes, axis=0)
        slope = stepper.slope(start.t + c * h, y)
        return (lax.dynamic_update_index_in_dim(slopes, slope, index, 0), y), None

    slopes = jnp.zeros((tableau.num_stages, start.y.size), start.y.dtype).at[0].set(start.slope)
    (slopes, y), _ = lax.scan(stage, (slopes, start.y), _rows(tableau, start.y.dtype))
    return slopes, y


def _rows(tableau: dfx.ButcherTableau, dtype):
    """For each stage but the first: its index, its time as a fraction of the step, the weights of the stages."""
    weights = np.zeros((tableau.num_stages - 1, tableau.num_stages))
    for row, lower in zip(weights, tableau.a_lower, strict=True):
        row[: len(lower)] = lower
    index = np.arange(1, tableau.num_stages)
    return jnp.asarray(index), jnp.asarray(tableau.c, dtype), jnp.asarray(weights, dtype)


def _implicit(stepper: Stepper, tableau: Tableau, start: Point, h: Scalar, stages) -> tuple[Point, Vector, dict]:
    """A step of a diagonally implicit Runge-Kutta method, of stages that have been solved for."""
    slopes = dirk.differentiable(tableau, stepper.term, stepper.args, start.t, start.y, h, stages.slopes)
    t, y = start.t + h, start.y + h * jnp.asarray(tableau.b, slopes.dtype) @ slopes
    slope = slopes[-1] if tableau.carries_slope else stepper.slope(t, y)
    error = jnp.zeros_like(y) if stages.error is None else stages.error
    info = {"y0": start.y, "y1": y} | ({"k": h * slopes} if hasattr(stepper.solver, "tableau") else {})
    return Point(t, y, slope), error, info


def _general(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, Vector, dict]:
    """A step of a solver that is no Runge-Kutta method, through diffrax's own interface."""
    solver, term, args = stepper.solver, stepper.term, stepper.args
    t1 = start.t + h
    # A step must be good to shorten and to repeat, so nothing is carried.
    state = solver.init(term, start.t, t1, start.y, args)
    y, error, info, _, result = solver.step(term, start.t, t1, start.y, args, state, made_jump=False)
    error = jnp.zeros_like(y) if error is None else lax.stop_gradient(error)
    error = jnp.where(result == dfx.RESULTS.successful, error, jnp.inf)
    return Point(t1, y, stepper.slope(t1, y)), error, info
