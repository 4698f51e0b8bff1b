"""Trajectories in discrete time, with control of the memory and of the growth of their gradient."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, PyTree

from .._errors import InputError
from .._trees import common_length
from .._types import Scalar

LONG = 1024  # steps, from which on a gradient stores only some of the states


def rollout(
    step: Callable,
    state: PyTree[ArrayLike],
    inputs=None,
    *,
    length: int | None = None,
    decay: float | Scalar = 1.0,
    stretch: int | None = None,
) -> tuple[PyTree[Array], PyTree[Array]]:
    """The last state of a trajectory in discrete time, and the states after each step.

        state[k + 1] = step(state[k], inputs[k])

    All modes of differentiation work. Reverse mode stores the state before each step, and computes the step again in
    the backward pass.

    Args:
        step: `step(state, input)`, the next state, of the structure, shapes and types of `state`.
        state: The initial state, a tree of arrays.
        inputs: A tree of arrays whose leading axis counts the steps. Without inputs, `step(state, None)` is called.
        length: The number of steps; needed without inputs.
        decay: A factor on the derivative of each state with respect to the one before it. Below one it gives a biased
            gradient for rollouts whose true gradient explodes; values are unchanged. Good values: 0.9 to 1.
        stretch: The number of steps between the states that reverse mode stores. For one more forward pass the memory
            is that of `steps / stretch` states and of the states of one stretch. By default the square root of the
            number of steps for 1,024 steps or more, and 1 for fewer, which stores all states.

    Returns:
        The last state, and the tree of the states after each step, with a leading axis of steps.

    Raises:
        InputError: If the number of steps is not known or contradicts the inputs, if `stretch` is not from 1 to that
            number, and if `step` changes the structure of the state.

    Examples:
        >>> last, states = ds.rollout(lambda s, u: 0.5 * s + u, jnp.array(0.0), jnp.ones(4))
        >>> states.tolist()
        [1.0, 1.5, 1.75, 1.875]
        >>> float(last)
        1.875
    """
    steps = _number_of_steps(inputs, length)
    _check_step(step, state, inputs)
    size = _default_stretch(steps) if stretch is None else stretch
    if not 1 <= size <= steps:
        raise InputError(f"stretch={stretch}: give a number of steps from 1 to {steps}")

    @jax.checkpoint
    def one_step(state, row):
        state = step(_scale_derivative(state, decay), row)
        return state, state

    if size == 1:
        return lax.scan(one_step, state, inputs, length=steps)
    return _scan_in_stretches(one_step, state, inputs, steps, size)


def _scan_in_stretches(
    one_step: Callable, state: PyTree[ArrayLike], inputs, steps: int, size: int
) -> tuple[PyTree[Array], PyTree[Array]]:
    """`lax.scan`, whose gradient stores the states between stretches of `size` steps only."""
    in_stretches = steps // size * size
    split = lambda rows: rows[:in_stretches].reshape(-1, size, *rows.shape[1:])
    one_stretch = jax.checkpoint(lambda state, rows: lax.scan(one_step, state, rows, length=size))
    state, states = lax.scan(one_stretch, state, jax.tree.map(split, inputs), length=steps // size)
    states = jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), states)
    if in_stretches < steps:
        rest = jax.tree.map(lambda rows: rows[in_stretches:], inputs)
        state, last_states = lax.scan(one_step, state, rest, length=steps - in_stretches)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), states, last_states)
    return state, states


def _scale_derivative(state: PyTree[ArrayLike], decay) -> PyTree[ArrayLike]:
    """The state, unchanged, with `decay` times its derivative."""
    if isinstance(decay, int | float) and decay == 1:
        return state
    # The two terms add up to x, and only the first carries a derivative.
    scale = lambda x: decay * x + lax.stop_gradient((1 - decay) * x)
    return jax.tree.map(lambda x: scale(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, state)


def _default_stretch(steps: int) -> int:
    return 1 if steps < LONG else math.isqrt(steps)


def _number_of_steps(inputs, length: int | None) -> int:
    """The number of steps of a rollout, from its inputs or `length`."""
    inputs_length = common_length(inputs, "the inputs of a rollout")
    steps = inputs_length if length is None else length
    if steps is None:
        raise InputError("a rollout without inputs needs length=, its number of steps")
    if steps < 1 or inputs_length not in (None, steps):
        number = inputs_length or "no"
        raise InputError(f"length={length} of a rollout with {number} inputs: give their number, at least one")
    return steps


def _check_step(step: Callable, state: PyTree[ArrayLike], inputs) -> None:
    """Raises InputError unless `step` returns a tree like the state."""
    row = jax.tree.map(lambda rows: rows[0], inputs)
    after = jax.eval_shape(step, state, row)
    describe = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree)
    if describe(after) != describe(state):
        raise InputError(
            f"step returns {describe(after)} for a state {describe(state)}: return the structure, shapes and types of "
            "the state"
        )
