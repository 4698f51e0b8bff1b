"""Stepping through one phase: adaptive steps up to a possible event, and their replay on a frozen grid."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._types import Count, Flag, Scalar, State
from .guard import (
    Guard,
    Watch,
    choose,
    first_sight,
    first_watch,
    next_sight,
    next_watch,
)
from .locate import Search, Stage, fresh, look
from .status import Status
from .step import Point, Stepper

_BLOCK = 16


class Problem(NamedTuple):
    """One phase made ready to be stepped through, up to the time `t1`."""

    stepper: Stepper
    guards: tuple[Guard, ...]
    limits: tuple[Callable, ...]
    controller: Any
    t1: Scalar
    dt0: Scalar | None
    max_steps: int


class March(NamedTuple):
    """Where a march stands: the last accepted point, the step to take from it, and what was recorded."""

    point: Point
    h: Scalar
    controller: Any
    search: Search  # for an event in the step from `point`
    watch: Watch
    status: Count
    attempts: Count
    accepted: Count
    steps: Float[Array, " max_steps"] | None
    path: Point | None


def freeze(tree):
    """The same tree, treated as constant by differentiation."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def begin(problem: Problem, start: Point, keep_steps: bool, keep_path: bool) -> March:
    """The march at the start of a phase, recording the sizes of accepted steps or the points before them."""
    still, here = freeze(problem), freeze(start)
    stepper = still.stepper
    end, controller = problem.controller.init(
        stepper.term,
        here.t,
        still.t1,
        here.y,
        still.dt0,
        stepper.args,
        stepper.solver.func,
        stepper.error_order,
    )
    h = freeze(jnp.asarray(jnp.minimum(end, still.t1) - here.t, here.t.dtype))
    sight = first_sight(still.guards, here, h, stepper.args)
    healthy = jnp.isfinite(h) & all_finite((here, sight.value))
    rows = (problem.max_steps,)
    return March(
        point=start,
        h=h,
        controller=controller,
        search=fresh(sight, h),
        watch=first_watch(still.limits, here, stepper.args),
        status=jnp.where(healthy, Status.FINISHED, Status.NON_FINITE),
        attempts=jnp.array(0),
        accepted=jnp.array(0),
        steps=jnp.zeros(rows, here.t.dtype) if keep_steps else None,
        path=jax.tree.map(lambda x: jnp.broadcast_to(x, rows + x.shape), start) if keep_path else None,
    )


def underway(problem: Problem, march: March) -> Flag:
    """Whether the march is healthy and has not come to the final time."""
    t, t1 = march.point.t, problem.t1
    left = t1 - t > 4 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(t1))
    return left & (march.status == Status.FINISHED)


def advance(problem: Problem, march: March) -> March:
    """Step on until the first event, the final time, or a failure.

    The path is differentiable in forward mode; step sizes and guards are constants on it, because the
    derivative wanted is that of the solution on the steps taken, and of a guard only at its event.
    """

    def go_on(march):
        return underway(problem, march) & (march.search.stage != Stage.FOUND) & (march.attempts < problem.max_steps)

    march = lax.while_loop(go_on, lambda march: _one_look(problem, freeze(problem), march), march)
    cut_short = underway(problem, march) & (march.search.stage != Stage.FOUND)
    return march._replace(status=jnp.where(cut_short, Status.STEP_LIMIT, march.status))


def _one_look(problem: Problem, still: Problem, march: March) -> March:
    """The march after one attempted step, or one look at a part of it in search of an event.

    Both need one step of the solver and one look at the guards. So they share a loop with a single copy of each,
    which is what the time to compile depends on.
    """
    start, h, search = march.point, march.h, march.search
    end, error = problem.stepper.step(start, search.time)
    here, there = freeze(start), freeze(end)
    # A step into a region where the field is undefined must be refused, not compared with NaN.
    error = jnp.where(jnp.isnan(error), jnp.inf, lax.stop_gradient(error))
    accept, h_next, controller = _judge(still, here, there, h, error, march.controller)
    sight = next_sight(still.guards, there, still.stepper.args)
    looked = look(search, sight, h, still.guards)
    whole = search.time == h
    refused, take = whole & ~accept, whole & accept & (looked.stage == Stage.CLEAR)
    settled = refused | take
    watch = next_watch(still.limits, march.watch, there, h, still.stepper.args)
    return March(
        point=choose(take, end, start),
        h=jnp.where(settled, h_next, h),
        controller=choose(settled, controller, march.controller),
        search=choose(settled, fresh(choose(take, sight, search.sight), h_next), looked),
        watch=choose(take, watch, march.watch),
        status=jnp.where(whole, _health(accept, (there, sight.value), h_next, still.t1, march.status), march.status),
        attempts=march.attempts + settled,
        accepted=march.accepted + take,
        steps=_record(march.steps, march.accepted, h),
        path=_record(march.path, march.accepted, start),
    )


def _judge(still: Problem, here: Point, there: Point, h, error, controller):
    """The step size controller's verdict on a step, and the next step, cut to end at `t1`."""
    accept, t0, t1, _, controller, _ = still.controller.adapt_step_size(
        here.t, there.t, here.y, there.y, still.stepper.args, error, still.stepper.error_order, controller
    )
    # From the difference and not the sum, so that a tiny step is not lost beside a large time.
    h_next = jnp.minimum(t1 - t0, still.t1 - jnp.where(accept, there.t, here.t))
    # A controller of constant steps answers with Python's True.
    return jnp.asarray(accept), freeze(jnp.asarray(h_next, h.dtype)), controller


def _health(accept, reached: tuple[Point, Array], h, t1, status):
    """The status after a step: failed once an accepted state or guard is not finite, or the step has vanished."""
    broken = ~all_finite(reached)
    eps = jnp.finfo(h.dtype).eps
    vanished = ~accept & (h <= eps * jnp.maximum(jnp.abs(reached[0].t), eps * jnp.abs(t1)))
    status = jnp.where(vanished, jnp.where(broken, Status.NON_FINITE, Status.STEP_LIMIT), status)
    return jnp.where(accept & broken, Status.NON_FINITE, status)


def _record(rows, index, value):
    if rows is None:
        return None
    return jax.tree.map(lambda rows, x: rows.at[index].set(x, mode="drop"), rows, value)


def all_finite(tree: State) -> Flag:
    """Whether every number of the tree is finite."""
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def replay(problem: Problem, start: Point, steps, accepted, keep_path: bool) -> tuple[Point, Point | None]:
    """The point after `accepted` recorded steps from `start`, and the points before each step.

    One plain program on a frozen grid: every mode of differentiation and every transformation applies. Blocks of
    steps beyond the last one are skipped, those within a block have size zero.
    """

    @jax.checkpoint
    def one(point, h):
        return problem.stepper.step(point, h)[0], (point if keep_path else None)

    def idle(point):
        still = jax.tree.map(lambda x: jnp.broadcast_to(x, (_BLOCK, *x.shape)), point)
        return point, (still if keep_path else None)

    def block(point, inputs):
        first, steps = inputs
        # One answer for a whole batch, or `vmap` would turn the choice into doing both.
        needed = eqxi.unvmap_any(first < accepted)
        return lax.cond(needed, lambda p: lax.scan(one, p, steps), idle, point)

    blocks = -(-problem.max_steps // _BLOCK)
    steps = jnp.where(jnp.arange(problem.max_steps) < accepted, steps, 0.0)
    steps = jnp.pad(steps, (0, blocks * _BLOCK - problem.max_steps)).reshape(blocks, _BLOCK)
    end, path = lax.scan(jax.checkpoint(block), start, (jnp.arange(blocks) * _BLOCK, steps))
    if keep_path:
        path = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: problem.max_steps], path)
    return end, path
