"""One step of any diffrax one-step solver as a plain function that every mode of differentiation accepts."""

import functools
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
            return _explicit(self, start, h)
        if isinstance(self.solver, dfx.Euler):
            return _euler(self, start, h)
        return _general(self, start, h)

    @property
    def error_order(self):
        """The order of the error estimate, as step size controllers need it."""
        return self.solver.error_order(self.term)


class _Form(NamedTuple):
    """How a step holds a state: as a list of one vector, or as the list of its numbers, one by one."""

    split: Callable  # a vector into such a list
    join: Callable  # the vector again
    slope: Callable  # the vector field, of a time and such a list
    once: Callable  # the arrays of such a list, each computed once

    @classmethod
    def of(cls, stepper: Stepper, start: Point) -> "_Form":
        """The form in which a step of `stepper` is computed."""
        if stepper.written_out:
            return cls(entries, functools.partial(jnp.stack, axis=-1), _slope_of_numbers(stepper, *start[:2]), barrier)
        slope = lambda t, y: [stepper.slope(t, *y)]
        return cls(lambda y: [y], lambda y: y[0], slope, lambda *y: list(y))


def _explicit(stepper: Stepper, start: Point, h: Scalar) -> tuple[Point, Vector, dict]:
    """A step of an explicit Runge-Kutta method, from the solver's tableau.

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),    y1 = y + h sum_i b_i k_i,    error = h sum_i (b_i - b*_i) k_i

    diffrax's own loop over stages has a reverse rule only.
    """
    tableau: dfx.ButcherTableau = stepper.solver.tableau  # pyright: ignore[reportAttributeAccessIssue]
    form = _Form.of(stepper, start)
    t, (slopes, y) = start.t + h, (_one_by_one if stepper.written_out else _in_a_loop)(form, tableau, start, h)
    if not tableau.ssal:
        y = _ahead(form, form.split(start.y), h, tableau.b_sol, slopes)
    end = [k[-1] for k in slopes] if tableau.fsal else form.slope(t, y)
    error = form.join([h * _combine(tableau.b_error, k) for k in slopes])
    info = {"y0": start.y, "y1": form.join(y), "k": h * form.join([jnp.stack(list(k)) for k in slopes])}
    return Point(t, info["y1"], form.join(end)), error, info


def _ahead(form: _Form, y: list, h: Scalar, weights, slopes: list) -> list:
    """y + h sum_j w_j k_j."""
    # Without `once` the stages are fused into one another, which takes many times longer to compile.
    return form.once(*(a + h * _combine(weights, k) for a, k in zip(y, slopes, strict=True)))


def _one_by_one(form: _Form, tableau: dfx.ButcherTableau, start: Point, h: Scalar) -> tuple[list, list]:
    """The slopes of all stages and the state of the last, one copy of the field for each: fast to run."""
    begin, slopes = form.split(start.y), [[k] for k in form.split(start.slope)]
    y = begin
    for c, weights in zip(tableau.c, tableau.a_lower, strict=True):
        y = _ahead(form, begin, h, weights, slopes)
        new = form.once(*form.slope(start.t + float(c) * h, y))
        slopes = [[*k, last] for k, last in zip(slopes, new, strict=True)]
    return slopes, y


def _in_a_loop(form: _Form, tableau: dfx.ButcherTableau, start: Point, h: Scalar) -> tuple[list, list]:
    """The same with one copy of the field: fast to compile."""

    def stage(carry, row):
        slopes, _ = carry
        index, c, weights = row
        # Not a matrix product, which costs more for so small a one.
        y = start.y + h * jnp.sum(weights[:, None] * slopes, axis=0)
        slope = form.join(form.slope(start.t + c * h, form.split(y)))
        return (lax.dynamic_update_index_in_dim(slopes, slope, index, 0), y), None

    slopes = jnp.zeros((tableau.num_stages, start.y.size), start.y.dtype).at[0].set(start.slope)
    (slopes, y), _ = lax.scan(stage, (slopes, start.y), _rows(tableau, start.y.dtype))
    return form.split(slopes), form.split(y)


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
    # Without the barriers the field is computed again for each use of its value.
    y = lax.optimization_barrier(start.y + h * start.slope)
    end = Point(start.t + h, y, lax.optimization_barrier(stepper.slope(start.t + h, y)))
    return end, jnp.zeros_like(end.y), {"y0": start.y, "y1": end.y}


def _combine(weights, slopes):
    """The weighted sum of slopes."""
    terms = [float(w) * slope for w, slope in zip(weights, slopes, strict=True) if w != 0]
    return sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(slopes[0])


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
