"""The compiled part of a fit: many optimizer steps in one call, and the treatment of a step that is not finite."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from .._errors import InputError
from .._types import Count, Flag, Model, Scalar
from ..parameters import constrain
from .sharding import AXIS, ITEMS, REPLICATED, on_each_device


class TrainState(NamedTuple):
    """The state that a step changes.

    Attributes:
        trained: The trained parameters, transformed so that they have no bounds.
        opt_state: The state of the optimizer.
        step: The number of steps made.
        healthy: Whether the fit may continue.
    """

    trained: Model
    opt_state: PyTree
    step: Count
    healthy: Flag


class NonFiniteState(NamedTuple):
    """The state of the policy for steps that are not finite.

    Attributes:
        bad_in_a_row: The number of consecutive steps, up to now, that were not finite.
        scale: For "shrink", the factor on the updates.
        previous: For "shrink", the last (trained, opt_state) whose loss and gradient are known to be finite.
    """

    bad_in_a_row: Count
    scale: Scalar | None = None
    previous: tuple | None = None


class NonFiniteRule(NamedTuple):
    """The numbers of a policy: the limit of bad steps in a row, the factor after a bad step, and after a good one."""

    limit: int
    shrink: float
    grow: float


class StepProgram(NamedTuple):
    """The part of a fit that identifies its compiled program: everything but arrays.

    A hashable static argument of `jax.jit`, in place of `eqx.filter_jit`, whose overhead counts for small models.
    """

    tree: Any
    leaves: tuple
    rule: NonFiniteRule | None
    devices: tuple | None


def split_program(
    loss, optimizer, fixed: Model, rule: NonFiniteRule | None, devices: tuple | None
) -> tuple[StepProgram, list]:
    """The program of a fit, and the arrays within its loss, optimizer and fixed parameters."""
    leaves, tree = jax.tree.flatten((loss, optimizer, fixed))
    arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
    static = tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)
    return StepProgram(tree, static, rule, devices), arrays


@partial(jax.jit, static_argnums=0)
def run_steps(
    program: StepProgram,
    arrays: list,
    state: TrainState,
    non_finite: NonFiniteState | None,
    chunk: PyTree,
    count: Count,
):
    """The states after the first `count` batches of a chunk; the loss of each step, and whether it was dropped.

    Without a rule the steps end at the first loss or gradient that is not finite: the state stays the last healthy one
    and `non_finite` is None. The losses of steps that are not made are NaN. With devices each one makes the steps on
    its part of the batches, and the loss and gradient of a step are the means over the parts.
    """
    run = partial(_run_steps, program)
    if program.devices is not None:
        run = on_each_device(run, program.devices, (REPLICATED, REPLICATED, REPLICATED, ITEMS, REPLICATED))
    return run(arrays, state, non_finite, chunk, count)


def _run_steps(program: StepProgram, arrays, state: TrainState, non_finite: NonFiniteState | None, chunk, count: Count):
    """The steps of a call on one device."""
    leaves = [leaf if array is None else array for leaf, array in zip(program.leaves, arrays, strict=True)]
    loss, optimizer, fixed = jax.tree.unflatten(program.tree, leaves)
    value = lambda trained, batch: loss(eqx.combine(constrain(trained), fixed), batch)
    gradient = eqx.filter_value_and_grad(value)
    mean_gradient = gradient if program.devices is None else lambda *args: _mean_over_devices(gradient(*args))
    make_step = _step if program.rule is None else partial(_guarded_step, program.rule)
    batch_at = lambda number: jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, number, keepdims=False), chunk)
    size = len(jax.tree.leaves(chunk)[0])
    shape = jax.eval_shape(value, state.trained, jax.tree.map(lambda leaf: leaf[0], chunk))
    if getattr(shape, "shape", None) != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise InputError(f"the loss is {shape}: it must be one real number")

    def is_running(carry):
        number, (state, _), _ = carry
        return (number < count) & state.healthy

    def step(carry):
        number, before, outputs = carry
        after, results = make_step(mean_gradient, optimizer, before[0], before[1], batch_at(number))
        outputs = jax.tree.map(lambda buffer, result: buffer.at[number].set(result), outputs, results)
        return number + 1, after, outputs

    outputs = jnp.full(size, jnp.nan, shape.dtype), None if program.rule is None else jnp.zeros(size, bool)
    # A while loop, not a scan: a condition on each step of a scan would copy the entire state.
    return lax.while_loop(is_running, step, (jnp.zeros_like(count), (state, non_finite), outputs))[1:]


def _mean_over_devices(tree: PyTree) -> PyTree:
    """The mean over the devices, in one reduction for all leaves."""
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))


def _step(value_and_gradient, optimizer, state: TrainState, non_finite: None, batch):
    """The state after one step and the loss; if they are not finite, the old state, no longer healthy."""
    loss, gradient = value_and_gradient(state.trained, batch)
    healthy = _all_finite(loss, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained)
    new = TrainState(eqx.apply_updates(state.trained, updates), opt_state, state.step + 1, healthy)
    return (_choose(healthy, new, state._replace(healthy=healthy)), non_finite), (loss, None)


def _guarded_step(
    rule: NonFiniteRule, value_and_gradient, optimizer, state: TrainState, non_finite: NonFiniteState, batch
):
    """The states after one step; the loss, and whether the batch was dropped.

    A loss, gradient or update that is not finite leaves the state as it is. If a `previous` state is remembered, it
    restores that one and multiplies the following updates by `rule.shrink`; good steps let the factor grow back to 1.
    At `rule.limit` bad steps in a row the state is no longer healthy and keeps the number of that step.
    """
    loss, gradient = value_and_gradient(state.trained, batch)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained)
    if non_finite.scale is not None:
        scale = non_finite.scale
        updates = jax.tree.map(lambda update: update * scale.astype(update.dtype), updates)
    good = _all_finite(loss, gradient, updates)
    before = (state.trained, state.opt_state)
    fallback = before if non_finite.previous is None else non_finite.previous
    trained, opt_state = _choose(good, (eqx.apply_updates(state.trained, updates), opt_state), fallback)
    bad_in_a_row = jnp.where(good, 0, non_finite.bad_in_a_row + 1)
    healthy = bad_in_a_row < rule.limit
    after = TrainState(trained, opt_state, state.step + healthy, healthy)
    return (after, _remember(non_finite, rule, good, bad_in_a_row, before)), (loss, ~good)


def _remember(
    non_finite: NonFiniteState, rule: NonFiniteRule, good: Array, bad_in_a_row: Array, before: tuple
) -> NonFiniteState:
    """The policy's state after a step from the state `before`."""
    if non_finite.scale is None:
        return NonFiniteState(bad_in_a_row)
    scale = jnp.where(good, jnp.minimum(1.0, non_finite.scale * rule.grow), non_finite.scale * rule.shrink)
    return NonFiniteState(bad_in_a_row, scale, _choose(good, before, non_finite.previous))


def _all_finite(loss, *trees) -> Flag:
    """Whether a loss and every leaf of some trees are finite, and small enough for their squares to be."""
    finite = jnp.isfinite(loss)
    for tree in trees:
        finite &= jnp.isfinite(optax.tree.norm(tree))
    return finite


def _choose(which: Flag, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)


@eqx.filter_jit
def validation_loss(validation, trained, fixed):
    """The validation loss of a model given as its trained and its fixed part."""
    return validation(eqx.combine(constrain(trained), fixed))
