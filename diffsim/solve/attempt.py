"""One attempt at a step: its end, the step size controller's verdict, and what it says of the trajectory's health."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .._types import Flag, Scalar, State
from .guard import Guard
from .implicit import Slopes
from .moving import freeze
from .status import Status
from .step import Point, Stepper


class Problem(NamedTuple):
    """One phase made ready to be stepped through, up to the time `t1`."""

    stepper: Stepper
    guards: tuple[Guard, ...]
    limits: tuple[Callable, ...]
    controller: Any
    t1: Scalar
    dt0: Scalar | None
    max_steps: int
    whole: bool  # compile its loops whole


def steady(problem: Problem) -> bool:
    """Whether the steps are the same whatever becomes of the state: a batch then takes them together."""
    return not problem.guards and isinstance(problem.controller, dfx.ConstantStepSize | dfx.StepTo)


class Attempt(NamedTuple):
    """The end of a step, and the verdict of the step size controller: whether it is accepted, and what is next."""

    end: Point
    slopes: Slopes | None  # of an implicit method's stages
    accept: Flag
    h_next: Scalar
    controller: Any


def attempt(problem: Problem, still: Problem, start: Point, h: Scalar, time: Scalar, controller) -> Attempt:
    """The attempt at so much `time` of a step `h` from `start`; `still` is the problem held constant."""
    stages = problem.stepper.stages(start, time)
    end, error = problem.stepper.step(start, time, stages)
    # A step into a region where the field is undefined must be refused, not compared with NaN.
    error = jnp.where(jnp.isnan(error), jnp.inf, lax.stop_gradient(error))
    return Attempt(
        end, None if stages is None else stages.slopes, *_judge(still, freeze(start), freeze(end), h, error, controller)
    )


def _judge(still: Problem, here: Point, there: Point, h, error, controller):
    """The step size controller's verdict on a step, and the next step, cut to end at `t1`."""
    steering, order = _rooted(still.controller, still.stepper.error_order)
    accept, t0, t1, _, controller, _ = steering.adapt_step_size(
        here.t, there.t, here.y, there.y, still.stepper.args, error, order, controller
    )
    # From the difference and not the sum, so that a tiny step is not lost beside a large time.
    h_next = jnp.minimum(t1 - t0, still.t1 - jnp.where(accept, there.t, here.t))
    # A controller of constant steps answers with Python's True.
    return jnp.asarray(accept), freeze(jnp.asarray(h_next, h.dtype)), controller


def _rooted(controller, order) -> tuple[Any, Any]:
    """A controller of the same steps that takes the root of the error in its norm, and the order left to its formula.

    The root of an error of some order is a power, which XLA computes for one member of a batch after another; an
    exponential it computes for many at once.
    """
    if not isinstance(controller, dfx.PIDController):
        return controller, order
    order = order if controller.error_order is None else controller.error_order
    root = lambda error: jnp.exp(jnp.log(controller.norm(error)) / order)
    return dataclasses.replace(controller, norm=root, error_order=1.0), 1.0


def health(accept, reached: tuple[Point, Array], h, t1, status):
    """The status after a step: failed once an accepted state or guard is not finite, or the step has vanished."""
    broken = ~all_finite(reached)
    eps = jnp.finfo(h.dtype).eps
    vanished = ~accept & (h <= eps * jnp.maximum(jnp.abs(reached[0].t), eps * jnp.abs(t1)))
    status = jnp.where(vanished, jnp.where(broken, Status.NON_FINITE, Status.STEP_LIMIT), status)
    return jnp.where(accept & broken, Status.NON_FINITE, status)


def all_finite(tree: State) -> Flag:
    """Whether every number of the tree is finite."""
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))
