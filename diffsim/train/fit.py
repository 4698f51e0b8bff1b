"""Training: one call for any model, loss, optimiser and data."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, PyTree

from .._errors import InputError, WorkFailed
from .._types import Model
from ..parameters import constrain, parameters, trainable, unconstrain
from .progress import Progress


class History(NamedTuple):
    """What a fit went through: the loss of each step, and the wall times in seconds of stepping and of compiling."""

    loss: Float[np.ndarray, " steps"]
    seconds: float
    compile_seconds: float


class FitFailed(WorkFailed):
    """A fit that met a loss or gradient that is not finite; it keeps the last healthy `model` and the `history`."""

    def __init__(self, message: str, model: Model, history: History):
        super().__init__(message)
        self.model, self.history = model, history


def fit(
    loss: Callable[[Model, Any], Float[Array, ""]],
    model: Model,
    optimizer: optax.GradientTransformation,
    batches: PyTree,
    *,
    train: PyTree[bool] | None = None,
    steps_per_call: int = 50,
    progress: bool = True,
) -> tuple[Model, History]:
    """The model after one optimiser step for each batch, and the history of the loss.

    `loss(model, batch)` is a scalar; `batches` is a tree of arrays whose leading axis counts the steps (a stack of
    keys, of minibatches, of targets). `train` chooses the parameters as `trainable` and `frozen` do, by default all.
    Parameters with bounds are trained through a transform that keeps them inside.

    `steps_per_call` steps run in one compiled call, and the host reads a call's losses while the next one runs. The
    compiled call is kept: the same `loss`, `optimizer` and shapes do not compile twice. Progress goes to stderr.

    Raises InputError for batches of unequal length, FitFailed at the first loss or gradient that is not finite.
    """
    steps = _count(batches)
    size = min(steps_per_call, steps)
    trained, fixed = eqx.partition(model, trainable(model) if train is None else train)
    trained = unconstrain(trained)
    state = _State(trained, optimizer.init(trained), jnp.array(0), jnp.array(True))
    losses, pending = [], None
    with Progress(steps, progress) as bar:
        chunk, active = _chunk(batches, 0, size, steps)
        began = time.perf_counter()
        # An idle call compiles and changes nothing, so that the two times can be told apart.
        jax.block_until_ready(_many_steps(loss, optimizer, state, fixed, chunk, active & False))
        compiled = time.perf_counter()
        for first in range(0, steps, size):
            chunk, active = _chunk(batches, first, size, steps)
            state, values = _many_steps(loss, optimizer, state, fixed, chunk, active)
            if pending is not None:
                losses.append(np.asarray(pending))
                bar.show(first, losses[-1][-1])
            pending = values[: min(size, steps - first)]
        losses.append(np.asarray(pending))
        bar.show(steps, losses[-1][-1])
    history = History(np.concatenate(losses), time.perf_counter() - compiled, compiled - began)
    fitted = eqx.combine(constrain(state.trained), fixed)
    if not bool(state.healthy):
        _fail(loss, fitted, batches, int(state.step), history)
    return fitted, history


class _State(NamedTuple):
    """What a step changes: the trained parameters (without bounds), the optimiser's memory, steps made, health."""

    trained: Model
    memory: PyTree
    step: Array
    healthy: Array


def _fail(loss, model, batches, step: int, history: History):
    """Raises FitFailed, naming the first parameter whose gradient is not finite at the step that failed."""
    batch = jax.tree.map(lambda leaf: leaf[step], batches)
    gradient = eqx.filter_grad(loss)(model, batch)
    bad = [path for path, entry in parameters(gradient).items() if not np.all(np.isfinite(entry.value))]
    where = f"; the gradient of {bad[0]} is not finite there" if bad else ""
    value = float(loss(model, batch))
    raise FitFailed(
        f"loss {value:g} at step {step} of {len(history.loss)}{where}. The last healthy model is kept; "
        "try a smaller learning rate, or a loss that masks failed trajectories by their status",
        model,
        history,
    )


def _count(batches) -> int:
    """The number of steps: the common length of the leading axes."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        found = ", ".join(sorted(str(length[0]) if length else "none" for length in lengths))
        raise InputError(f"batches have leading axes of lengths {found}: give one common number of steps")
    return next(iter(lengths))[0]


def _chunk(batches, first: int, size: int, steps: int):
    """The batches of one call, always `size` of them; the last call is filled up with inactive repetitions."""
    rows = np.minimum(np.arange(first, first + size), steps - 1)
    return jax.tree.map(lambda leaf: leaf[rows], batches), jnp.arange(first, first + size) < steps


@eqx.filter_jit
def _many_steps(loss, optimizer, state, fixed, chunk, active):
    """The state after the active batches of a chunk, and the loss of each.

    Once a loss or a gradient is not finite the state stays as it was: the last healthy one.
    """

    def value(trained, batch):
        return loss(eqx.combine(constrain(trained), fixed), batch)

    def step(state, batch):
        result, gradient = eqx.filter_value_and_grad(value)(state.trained, batch)
        healthy = jnp.isfinite(result) & jnp.isfinite(optax.tree.norm(gradient))
        updates, memory = optimizer.update(gradient, state.memory, state.trained)
        new = _State(eqx.apply_updates(state.trained, updates), memory, state.step + 1, healthy)
        old = state._replace(healthy=healthy)
        return jax.tree.map(lambda a, b: jnp.where(healthy, a, b), new, old), result

    def idle(state, batch):
        return state, jnp.full_like(state.step, jnp.nan, dtype=dtype)

    def maybe(state, inputs):
        batch, active = inputs
        return lax.cond(active & state.healthy, step, idle, state, batch)

    first = jax.tree.map(lambda leaf: leaf[0], chunk)
    dtype = jax.eval_shape(value, state.trained, first).dtype
    return lax.scan(maybe, state, (chunk, active))
