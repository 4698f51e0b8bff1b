"""The compiled part of a fit: many optimiser steps in one call, and what becomes of a step that is not finite."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PyTree

from .._types import Count, Flag, Model, Scalar
from ..parameters import constrain


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


@eqx.filter_jit
def many_steps(loss, optimizer, state, fixed, chunk, active):
    """The state after the active batches of a chunk, and the loss of each.

    Once a loss or a gradient is not finite the state stays as it was: the last healthy one.
    """
    value = _value(loss, fixed)

    def step(state, batch):
        result, gradient = eqx.filter_value_and_grad(value)(state.trained, batch)
        healthy = jnp.isfinite(result) & jnp.isfinite(optax.tree.norm(gradient))
        updates, memory = optimizer.update(gradient, state.memory, state.trained)
        new = State(eqx.apply_updates(state.trained, updates), memory, state.step + 1, healthy)
        old = state._replace(healthy=healthy)
        return _choose(healthy, new, old), result

    def idle(state, batch):
        return state, jnp.full_like(state.step, jnp.nan, dtype=dtype)

    def maybe(state, inputs):
        batch, active = inputs
        return lax.cond(active & state.healthy, step, idle, state, batch)

    dtype = _dtype(value, state, chunk)
    return lax.scan(maybe, state, (chunk, active))


@eqx.filter_jit
def guarded_steps(loss, optimizer, state, fixed, chunk, active, guard: Guard, rule: Rule):
    """The state and guard after the active batches of a chunk, and the loss of each and whether it was dropped.

    A loss, gradient or update that is not finite leaves the state as it is or, with a `previous` place, takes it back
    there and multiplies the updates that follow by `rule.shrink`; good steps let that factor grow back to 1. At
    `rule.limit` bad steps in a row the state is no longer healthy and stays, with the number of that step.
    """
    value = _value(loss, fixed)

    def step(carry, batch):
        state, guard = carry
        result, gradient = eqx.filter_value_and_grad(value)(state.trained, batch)
        updates, memory = optimizer.update(gradient, state.memory, state.trained)
        if guard.scale is not None:
            updates = jax.tree.map(lambda u: u * guard.scale.astype(u.dtype), updates)
        good = _finite(result, gradient, updates)
        here = (state.trained, state.memory)
        back = here if guard.previous is None else guard.previous
        trained, memory = _choose(good, (eqx.apply_updates(state.trained, updates), memory), back)
        row = jnp.where(good, 0, guard.row + 1)
        healthy = row < rule.limit
        state = State(trained, memory, state.step + healthy, healthy)
        return (state, _after(guard, rule, good, row, here)), (result, ~good)

    def idle(carry, batch):
        return carry, (jnp.full_like(carry[0].step, jnp.nan, dtype=dtype), jnp.array(False))

    def maybe(carry, inputs):
        batch, active = inputs
        return lax.cond(active & carry[0].healthy, step, idle, carry, batch)

    dtype = _dtype(value, state, chunk)
    return lax.scan(maybe, (state, guard), (chunk, active))


def _after(guard: Guard, rule: Rule, good: Array, row: Array, here: tuple) -> Guard:
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


def _value(loss, fixed):
    """The loss as a function of the trained parameters without bounds."""
    return lambda trained, batch: loss(eqx.combine(constrain(trained), fixed), batch)


def _dtype(value, state: State, chunk):
    first = jax.tree.map(lambda leaf: leaf[0], chunk)
    return jax.eval_shape(value, state.trained, first).dtype


@eqx.filter_jit
def validate(loss, trained, fixed):
    """The validation loss of a model in its parts."""
    return loss(eqx.combine(constrain(trained), fixed))
