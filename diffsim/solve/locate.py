"""Where within a step the earliest event lies, and its time and state as differentiable numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

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
    times, values = _look(problem, march)
    size = jnp.max(jnp.abs(values), axis=0)
    sides = jnp.sign(values).at[0].set(march.sight.side)
    # A touch counts as a crossing here; it is told apart below by its rate.
    near = jnp.where(jnp.abs(values) <= _TOUCH * size[None], 0.0, values)
    hit = crossed(sides[:-1], near[1:], wanted_sides(problem.guards)[None])
    exists = jnp.any(hit, axis=0)
    piece, own = jnp.argmax(hit, axis=0), jnp.arange(len(problem.guards))
    delays, rates = _close(problem, march, times[piece, own], times[piece + 1, own], sides[piece, own])
    delays = jnp.where(exists, delays, jnp.inf)
    guard = jnp.argmin(delays)
    found = exists[guard]
    grazing = found & (jnp.abs(rates[guard]) * march.h <= _GRAZE * size[guard])
    return Found(found, jnp.where(found, delays[guard], march.h), guard, grazing)


def _measure_own(problem: Problem, start: Point, delays):
    """Value and rate of each guard at its own time after `start`; `delays` has a last axis over guards."""

    def at(delay):
        end, _ = problem.stepper.step(start, delay)
        return measure(functions(problem.guards), end, problem.stepper.args)

    value, rate = jax.vmap(at)(delays.reshape(-1))
    own = jnp.arange(delays.shape[-1])
    split = lambda x: x.reshape(*delays.shape, -1)[..., own, own]
    return split(value), split(rate)


def _look(problem: Problem, march: March):
    """Ordered times in the step and the guards' values there, each of shape (points, guards)."""
    h = march.h / _PIECES
    ends = h * jnp.arange(1, _PIECES + 1)[:, None] * jnp.ones_like(march.sight.value)[None]
    first = march.sight

    def turn(delays, _):
        value, rate = _measure_own(problem, march.point, delays)
        g = jnp.concatenate([first.value[None], value])
        r = jnp.concatenate([first.rate[None], rate])
        side = jnp.concatenate([first.side[None], jnp.sign(value[:-1])])
        fraction, _ = extremum(side, g[:-1], r[:-1], g[1:], r[1:], h)
        return ends - h + h * fraction, (delays, value)

    # The first turn looks at the ends of the pieces, the second where the cubics between them turn.
    _, (times, values) = lax.scan(turn, ends, length=2)
    return _merge(jnp.zeros_like(first.value), times), _merge(first.value, values)


def _merge(first, turns):
    """One ordered column per guard: the first value, then in turns those between the ends and at the ends."""
    pairs = jnp.stack([turns[1], turns[0]], axis=1).reshape(-1, first.shape[0])
    return jnp.concatenate([first[None], pairs])


def _close(problem: Problem, march: March, low, high, side):
    """The crossing time of each guard within its bracket, to the precision of the step, and its rate there."""

    # Newton's method squares the error, so that after a change this small only rounding is left.
    small = jnp.finfo(low.dtype).eps ** (2 / 3) * march.h

    def unfinished(carry):
        *_, change, count = carry
        return (count < 60) & jnp.any(change > small)

    def improve(carry):
        low, high, delay, _, _, count = carry
        value, rate = _measure_own(problem, march.point, delay)
        before = side * value > 0
        low, high = jnp.where(before, delay, low), jnp.where(before, high, delay)
        newton = delay - value / jnp.where(rate == 0, 1.0, rate)
        inside = (newton >= low) & (newton <= high) & (rate != 0)
        better = jnp.where(inside, newton, 0.5 * (low + high))
        better = jnp.where(value == 0, delay, better)
        return low, high, better, rate, jnp.abs(better - delay), count + 1

    start = (low, high, 0.5 * (low + high), jnp.ones_like(low), high - low, 0)
    _, _, delay, rate, _, _ = lax.while_loop(unfinished, improve, start)
    return delay, rate


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
