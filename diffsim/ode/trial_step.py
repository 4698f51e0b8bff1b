"""One attempt at a step: its end, the step size controller's verdict, and the status after it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
from jax import lax

from .._jax.tangents import freeze
from .._types import Flag, Scalar, State
from .choose_execution import Execution, is_fixed
from .dirk import Slopes
from .events import Event, Past
from .jump_times import Landings, largest_step
from .runge_kutta import Point, Stepper
from .status import Status

_RESOLVED = 0.03  # of an event's largest value in a step: the error of a cubic that shows its crossings
_SMALLEST = 1e-7  # of the time left


class Problem(NamedTuple):
    """One phase, ready to be stepped through up to the time `t1`."""

    stepper: Stepper
    events: tuple[Event, ...]
    limits: tuple[Callable, ...]
    controller: Any
    t1: Scalar
    dt0: Scalar | None
    max_steps: int
    execution: Execution
    direction: Scalar | float = 1.0  # in which time runs: -1.0 is backward
    landings: Landings = Landings()
    is_resumed: bool = False  # at `t1`, by another phase, with the step that the controller would take there
    past: Past | None = None  # of the events, where it is known
    hint: Scalar | None = None  # the first step, where one is known and finite
    forward: bool = False  # whether tangents are carried along
    samples_events: bool = False  # within each step, because they may vary faster than the state


def finest(problem: Problem, t: Scalar) -> Scalar:
    """The smallest step from `t` that the number format of times resolves."""
    eps = jnp.finfo(t.dtype).eps
    return 4 * eps * jnp.maximum(jnp.abs(t), eps * jnp.abs(problem.t1))


def fitted(problem: Problem, t: Scalar, h: Scalar) -> Scalar:
    """A step from `t` of about size `h` that ends where its time says, not beyond a landing or `t1`."""
    left = jnp.minimum(problem.direction * (problem.t1 - t), largest_step(problem.landings, t, problem.direction))
    # The time after the step is rounded. What is left of the step after that is what the state must go.
    h = problem.direction * ((t + problem.direction * jnp.maximum(h, finest(problem, t))) - t)
    return jnp.minimum(h, left)


class TrialStep(NamedTuple):
    """The end of a step, and the verdict of the step size controller: whether it is accepted, and what is next."""

    end: Point
    slopes: Slopes | None  # of an implicit method's stages
    accept: Flag
    wish: Scalar  # the step that the controller would take next
    controller: Any


def trial_step(problem: Problem, frozen: Problem, start: Point, time: Scalar, h: Scalar, controller) -> TrialStep:
    """The attempt at so much `time` of a step `h` from `start`; `frozen` is the problem held constant."""
    time = frozen.direction * time
    stages = problem.stepper.stages(start, time)
    end, error = problem.stepper.step(start, time, stages)
    # A step into a region where the field is undefined must be refused, not compared with NaN.
    error = jnp.where(jnp.isnan(error), jnp.inf, lax.stop_gradient(error))
    return TrialStep(
        end,
        None if stages is None else stages.slopes,
        *_judge(frozen, freeze(start), freeze(end), h, error, controller),
    )


def resolving(frozen: Problem, t: Scalar, h: Scalar, controller, tried: TrialStep, error: Scalar, full: Flag):
    """The trial step, refused if the events change too much within it for a cubic to show their crossings.

    The step size controller sees the state alone. An event such as y - sin(w t) may cross zero many times within a step
    in which the state hardly moves. `error` is that of a cubic, of fourth order. A very small step is accepted: there
    the event jumps. Only a `full` step can be refused.
    """
    if is_fixed(frozen.controller):
        return tried
    left = frozen.direction * (frozen.t1 - t)
    smallest = jnp.maximum(_SMALLEST * jnp.where(jnp.isfinite(left), left, h), 4 * finest(frozen, t))
    refused = full & (error > _RESOLVED) & (h > smallest)
    factor = jnp.clip(0.9 * (_RESOLVED / jnp.maximum(error, 1e-30)) ** 0.25, 0.2, 5.0)
    return tried._replace(
        accept=tried.accept & ~refused,
        wish=jnp.where(full, jnp.minimum(tried.wish, h * factor), tried.wish),
        controller=jax.tree.map(lambda old, new: jnp.where(refused, old, new), controller, tried.controller),
    )


def _judge(frozen: Problem, here: Point, there: Point, h, error, controller):
    """The step size controller's verdict on a step, and the next step that it would take."""
    steering, order = _rooted(frozen.controller, frozen.stepper.error_order)
    # For a controller time runs forward.
    t_start, t_end = frozen.direction * here.t, frozen.direction * there.t
    accept, t0, t1, _, controller, _ = steering.adapt_step_size(
        t_start, t_end, here.y, there.y, frozen.stepper.args, error, order, controller
    )
    # A controller of constant steps answers with Python's True.
    return jnp.asarray(accept), freeze(jnp.asarray(t1 - t0, h.dtype)), controller


def _rooted(controller, order) -> tuple[Any, Any]:
    """A controller of the same steps that takes the root of the error in its norm, and the order left to its formula.

    The root of an error of some order is a power, which is computed for one member of a batch after another; an
    exponential is vectorised.
    """
    if not isinstance(controller, dfx.PIDController):
        return controller, order
    order = order if controller.error_order is None else controller.error_order
    root = lambda error: jnp.exp(jnp.log(controller.norm(error)) / order)
    return dataclasses.replace(controller, norm=root, error_order=1.0), 1.0


def health(accept, reached: State, h: Scalar, finest: Scalar, status):
    """The status after a step `h`: failed once an accepted state or event is not finite, or one so fine is refused."""
    broken = ~all_finite(reached)
    vanished = ~accept & (h <= 2 * finest)
    status = jnp.where(vanished, jnp.where(broken, Status.NON_FINITE, Status.STEP_LIMIT), status)
    return jnp.where(accept & broken, Status.NON_FINITE, status)


def all_finite(tree: State) -> Flag:
    """Whether every number of the tree is finite."""
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))
