"""Where within a step the earliest event lies, and its time and state as differentiable numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._types import Count, Flag, Scalar
from .guard import crossed, extremum, functions, measure, wanted_sides
from .march import March, Problem
from .step import Point

_PIECES = 4
_TOUCH = 1e-10  # of the guard's size over the step: nearer to zero than that, it touches
_GRAZE = 1e-6  # of the guard's size over the step: slower than that per step, it grazes


class Found(NamedTuple):
    """The earliest event in a step: whether there is one, its time after the step's start, guard and health."""

    found: Flag
    delay: Scalar
    guard: Count
    grazing: Flag


def locate(problem: Problem, march: March) -> Found:
    """The earliest guard crossing in the step that starts at `march.point`.

    Guards are looked at on shortened steps of the solver itself, at fixed fractions and, between them, where a
    cubic has its extremum: so two crossings within one piece are seen. Brackets are closed by Newton's method,
    kept inside them by bisection.
    """
    times, values, rates, touch = _look(problem, march)
    wanted = wanted_sides(problem.guards)
    sides = jnp.sign(values).at[0].set(march.sight.side)
    # A touch counts as a crossing here; it is told apart below by its rate.
    near = jnp.where(jnp.abs(values) <= touch, 0.0, values)
    hit = crossed(sides[:-1], near[1:], wanted)
    exists = jnp.any(hit, axis=0)
    piece = jnp.argmax(hit, axis=0)
    column = jnp.arange(len(problem.guards))
    low, high = times[piece, column], times[piece + 1, column]
    delays = _close(problem, march, low, high, sides[piece, column])
    delays = jnp.where(exists, delays, jnp.inf)
    guard = jnp.argmin(delays)
    delay = jnp.where(exists[guard], delays[guard], march.h)
    _, rate = _sight_at(problem, march.point, delay)
    size = jnp.max(jnp.abs(values[:, guard]))
    grazing = jnp.abs(rate[guard]) * march.h <= _GRAZE * size
    return Found(jnp.any(exists), delay, guard, grazing & jnp.any(exists))


def _sight_at(problem: Problem, start: Point, delay: Scalar):
    """Values and rates of the guards at the end of a step of length `delay`."""
    end, _ = problem.stepper.step(start, delay)
    return measure(functions(problem.guards), end, problem.stepper.args)


def _look(problem: Problem, march: March):
    """Times, values and rates of the guards at ordered points of the step, each of shape (points, guards)."""
    sight_at = jax.vmap(lambda delay: _sight_at(problem, march.point, delay))
    h = march.h / _PIECES
    ends = h * jnp.arange(1, _PIECES + 1)
    value, rate = sight_at(ends)
    value = jnp.concatenate([march.sight.value[None], value])
    rate = jnp.concatenate([march.sight.rate[None], rate])
    sides = jnp.sign(value[:-1]).at[0].set(march.sight.side)
    fraction, _ = extremum(sides, value[:-1], rate[:-1], value[1:], rate[1:], h)
    between = (ends - h)[:, None] + h * fraction
    # Each guard has its own extrema, so each is measured at its own times.
    inner_value, inner_rate = jax.vmap(sight_at, in_axes=1, out_axes=1)(between)
    own = jnp.arange(len(problem.guards))
    inner_value, inner_rate = inner_value[:, own, own], inner_rate[:, own, own]
    ends = jnp.broadcast_to(ends[:, None], between.shape)
    times = _interleave(jnp.zeros_like(march.sight.value), between, ends)
    values = _interleave(value[0], inner_value, value[1:])
    touch = _TOUCH * jnp.max(jnp.abs(values), axis=0)
    return times, values, _interleave(rate[0], inner_rate, rate[1:]), touch


def _interleave(first, odd, even):
    pairs = jnp.stack([odd, even], axis=1).reshape(-1, odd.shape[-1])
    return jnp.concatenate([first[None], pairs])


def _close(problem: Problem, march: March, low, high, side) -> Float[Array, " guards"]:
    """The crossing time of each guard within its bracket, to the precision of the step."""
    own = jnp.arange(len(problem.guards))

    def measure_own(delays):
        value, rate = jax.vmap(lambda delay: _sight_at(problem, march.point, delay))(delays)
        return value[own, own], rate[own, own]

    def unfinished(carry):
        _, _, _, change, count = carry
        return (count < 60) & jnp.any(change > 2 * jnp.finfo(low.dtype).eps * march.h)

    def improve(carry):
        low, high, delay, _, count = carry
        value, rate = measure_own(delay)
        before = side * value > 0
        low, high = jnp.where(before, delay, low), jnp.where(before, high, delay)
        newton = delay - value / jnp.where(rate == 0, 1.0, rate)
        inside = (newton >= low) & (newton <= high) & (rate != 0)
        better = jnp.where(inside, newton, 0.5 * (low + high))
        better = jnp.where(value == 0, delay, better)
        return low, high, better, jnp.abs(better - delay), count + 1

    start = 0.5 * (low + high)
    return lax.while_loop(unfinished, improve, (low, high, start, high - low, 0))[2]


def settle(problem: Problem, start: Point, delay: Scalar, guard: Count) -> Point:
    """The event, a constant `delay` after `start`, as a differentiable point.

    The delay is the root of the guard at the end of a shortened step; the implicit function theorem gives it
    derivatives of every order.
    """

    def value(delay):
        end, _ = problem.stepper.step(start, delay)
        return measure(functions(problem.guards), end, problem.stepper.args)[0][guard]

    def solve_linear(slope, y):
        rate = slope(jnp.ones_like(y))
        # A guard that grazes has no derivative; its status says so, and the value stays finite.
        return y / jnp.where(rate == 0, 1.0, rate)

    delay = lax.custom_root(value, delay, lambda _, root: root, solve_linear)
    return problem.stepper.step(start, delay)[0]
