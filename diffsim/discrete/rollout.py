"""Discrete trajectories: one step after the other, with a gradient whose memory and horizon are chosen by name."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from .._errors import InputError
from .._trees import common_length
from .._types import Scalar, State


def rollout(
    step: Callable,
    state: State,
    inputs=None,
    *,
    length: int | None = None,
    decay: float | Scalar = 1.0,
    stretch: int | None = None,
) -> tuple[State, State]:
    """The last state, and the states after each step with a leading axis of steps: `state = step(state, input)`.

    `inputs` is a tree of arrays whose leading axis counts the steps; without inputs `step(state, None)` is taken
    `length` times. The gradient keeps one state for each step and takes the step again on the way back. Of long
    rollouts it keeps only the states between stretches of `stretch` steps, by default the square root of their number
    from 1,024 steps on, at the price of one more pass forward; `stretch=1` keeps all.

    `decay` below one shrinks the derivative of each state in the one before it by that factor: a biased gradient for
    rollouts through which the true one explodes; values are unchanged. Good values: 0.9 to 1. All modes of
    differentiation work. Raises InputError if steps cannot be counted or the step changes the state's structure.
    """
    steps = _count(inputs, length)
    _check_step(step, state, inputs)
    size = _stretch(steps) if stretch is None else stretch
    if not 1 <= size <= steps:
        raise InputError(f"stretch={stretch}: give a number of steps from 1 to {steps}")

    @jax.checkpoint
    def one(state, row):
        state = step(_shrink(state, decay), row)
        return state, state

    if size == 1:
        return lax.scan(one, state, inputs, length=steps)
    whole = steps // size * size
    split = lambda rows: rows[:whole].reshape(-1, size, *rows.shape[1:])
    stretches = jax.checkpoint(lambda state, rows: lax.scan(one, state, rows, length=size))
    state, states = lax.scan(stretches, state, jax.tree.map(split, inputs), length=steps // size)
    states = jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), states)
    if whole < steps:
        rest = jax.tree.map(lambda rows: rows[whole:], inputs)
        state, more = lax.scan(one, state, rest, length=steps - whole)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), states, more)
    return state, states


def _shrink(state: State, decay) -> State:
    if isinstance(decay, int | float) and decay == 1:
        return state
    # Unchanged in value: only `decay` of it carries a derivative.
    shrink = lambda x: decay * x + lax.stop_gradient((1 - decay) * x)
    return jax.tree.map(lambda x: shrink(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, state)


def _stretch(steps: int) -> int:
    return 1 if steps < 1024 else math.isqrt(steps)


def _count(inputs, length: int | None) -> int:
    steps = common_length(inputs, "the inputs of a rollout")
    found = steps if length is None else length
    if found is None:
        raise InputError("a rollout without inputs needs length=, its number of steps")
    if found < 1 or steps not in (None, found):
        raise InputError(f"length={length} of a rollout with {steps or 'no'} inputs: give their number, at least one")
    return found


def _check_step(step: Callable, state: State, inputs) -> None:
    row = jax.tree.map(lambda rows: rows[0], inputs)
    after = jax.eval_shape(step, state, row)
    describe = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree)
    if describe(after) != describe(state):
        raise InputError(f"the step made of a state {describe(state)} one of {describe(after)}: return it as it came")
