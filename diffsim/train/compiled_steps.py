"""The compiled part of a fit: many optimiser steps in one call, and what becomes of a step that is not finite."""

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
from .sharding import AXIS, ITEMS, WHOLE, on_each


class State(NamedTuple):
    """What a step changes: the trained parameters (without bounds), the optimiser's memory, steps made, health."""

    trained: Model
    memory: PyTree
    step: Count
    healthy: Flag


class Guard(NamedTuple):
    """What a policy remembers: bad steps in a row and, to shrink, the factor on updates and the place before the last.

    `previous` is the last (trained, memory) where the loss and its gradient are known to be finite.
    """

    row: Count
    scale: Scalar | None = None
    previous: tuple | None = None


class Rule(NamedTuple):
    """How a guarded step goes on: the limit of bad steps in a row, the factor after one, that after a good one."""

    limit: int
    shrink: float
    grow: float


class Program(NamedTuple):
    """What a compiled call is recognised by: loss, optimiser and fixed parts without arrays, the rule, the devices."""

    tree: Any
    leaves: tuple
    rule: Rule | None
    devices: tuple | None


def program(loss, optimizer, fixed: Model, rule: Rule | None, devices: tuple | None) -> tuple[Program, list]:
    """The program of a fit, and the arrays of its loss, optimiser and fixed parts."""
    leaves, tree = jax.tree.flatten((loss, optimizer, fixed))
    arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
    return Program(tree, tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves), rule, devices), arrays


@partial(jax.jit, static_argnums=0)
def many_steps(program: Program, arrays: list, state: State, guard: Guard | None, chunk: PyTree, count: Count):
    """The state and guard after the first `count` batches of a chunk; the loss of each, and whether it was dropped.

    Without a rule, once a loss or a gradient is not finite the state stays as it was, the last healthy one, and there
    is no guard. The losses of steps that are not made are NaN. With devices each makes the steps with its part of the
    batches, and loss and gradient are the means over all parts.
    """
    run = partial(_steps, program)
    if program.devices is not None:
        run = on_each(run, program.devices, (WHOLE, WHOLE, WHOLE, ITEMS, WHOLE))
    return run(arrays, state, guard, chunk, count)


def _steps(program: Program, arrays: list, state: State, guard: Guard | None, chunk: PyTree, count: Count):
    """The steps of a call, on the one device or on each."""
    leaves = [leaf if array is None else array for leaf, array in zip(program.leaves, arrays, strict=True)]
    loss, optimizer, fixed = jax.tree.unflatten(program.tree, leaves)
    value = lambda trained, batch: loss(eqx.combine(constrain(trained), fixed), batch)
    slope = eqx.filter_value_and_grad(value)
    mean = slope if program.devices is None else lambda *args: _mean(slope(*args))
    make = _step if program.rule is None else partial(_guarded, program.rule)
    at = lambda number: jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, number, keepdims=False), chunk)
    size = len(jax.tree.leaves(chunk)[0])
    result = jax.eval_shape(value, state.trained, jax.tree.map(lambda leaf: leaf[0], chunk))
    if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
        raise InputError(f"the loss is {result}: it must be one real number")

    def going(carry):
        number, (state, _), _ = carry
        return (number < count) & state.healthy

    def step(carry):
        number, before, outputs = carry
        after, results = make(mean, optimizer, before[0], before[1], at(number))
        outputs = jax.tree.map(lambda all, one: all.at[number].set(one), outputs, results)
        return number + 1, after, outputs

    outputs = jnp.full(size, jnp.nan, result.dtype), None if program.rule is None else jnp.zeros(size, bool)
    # Not a scan: a condition on each step would copy the whole state.
    return lax.while_loop(going, step, (jnp.zeros_like(count), (state, guard), outputs))[1:]


def _mean(tree: PyTree) -> PyTree:
    """The mean over the devices, in one reduction for all leaves."""
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))


def _step(slope, optimizer, state: State, guard: None, batch):
    """The state after one step, or the same one without health; no guard; the loss."""
    result, gradient = slope(state.trained, batch)
    healthy = _finite(result, gradient)
    updates, memory = optimizer.update(gradient, state.memory, state.trained)
    new = State(eqx.apply_updates(state.trained, updates), memory, state.step + 1, healthy)
    return (_choose(healthy, new, state._replace(healthy=healthy)), guard), (result, None)


def _guarded(rule: Rule, slope, optimizer, state: State, guard: Guard, batch):
    """The state and guard after one step; the loss, and whether the batch was dropped.

    A loss, gradient or update that is not finite leaves the state as it is or, with a `previous` place, takes it back
    there and multiplies the updates that follow by `rule.shrink`; good steps let that factor grow back to 1. At
    `rule.limit` bad steps in a row the state is no longer healthy and stays, with the number of that step.
    """
    result, gradient = slope(state.trained, batch)
    updates, memory = optimizer.update(gradient, state.memory, state.trained)
    if guard.scale is not None:
        scale = guard.scale
        updates = jax.tree.map(lambda update: update * scale.astype(update.dtype), updates)
    good = _finite(result, gradient, updates)
    here = (state.trained, state.memory)
    back = here if guard.previous is None else guard.previous
    trained, memory = _choose(good, (eqx.apply_updates(state.trained, updates), memory), back)
    row = jnp.where(good, 0, guard.row + 1)
    healthy = row < rule.limit
    after = State(trained, memory, state.step + healthy, healthy)
    return (after, _remember(guard, rule, good, row, here)), (result, ~good)


def _remember(guard: Guard, rule: Rule, good: Array, row: Array, here: tuple) -> Guard:
    """The guard after a step from `here`."""
    if guard.scale is None:
        return Guard(row)
    scale = jnp.where(good, jnp.minimum(1.0, guard.scale * rule.grow), guard.scale * rule.shrink)
    return Guard(row, scale, _choose(good, here, guard.previous))


def _finite(result, *trees) -> Flag:
    """Whether a loss and every leaf of some trees are finite, and small enough for their squares to be."""
    good = jnp.isfinite(result)
    for tree in trees:
        good &= jnp.isfinite(optax.tree.norm(tree))
    return good


def _choose(which: Flag, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)


@eqx.filter_jit
def validate(loss, trained, fixed):
    """The validation loss of a model in its parts."""
    return loss(eqx.combine(constrain(trained), fixed))
