"""How far ahead a loss may look: the growth of its gradient with the length, and a length that grows in training."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._errors import InputError
from .._trees import common_length
from .._types import Model, Scalar, State


def up_to(horizon: Scalar | float, length: int) -> Float[Array, " length"]:
    """Weights of a rollout's steps that count those up to `horizon` alike and the others not at all; their sum is 1.

    A curriculum passes a growing horizon with its batches, so that one compiled loss of `length` steps serves all of
    them. The step that the horizon ends in counts in part; a horizon beyond `length` counts every step.
    """
    reached = jnp.clip(horizon - jnp.arange(length), 0.0, 1.0)
    return reached / jnp.sum(reached)


class Growth(NamedTuple):
    """The gradient of the cost of one step against the number of steps before it.

    `in_start` and `in_model` are norms of the derivative in the first state and in the model, root mean squares over
    the starts. `useful` is the longest of the `lengths` up to which `in_start` stays below `limit` times its first.
    """

    lengths: np.ndarray
    in_start: np.ndarray
    in_model: np.ndarray
    useful: int
    limit: float

    def warn(self, length: int) -> None:
        """Warns, with the numbers, if a rollout of `length` steps is longer than the useful one."""
        if length > self.useful:
            worst = np.max(self.in_start[self.lengths <= length]) / self.in_start[0]
            warnings.warn(
                f"a horizon of {length} steps is longer than the useful one of {self.useful}: beyond it the gradient "
                f"grows more than {self.limit:g} times, here {worst:.3g} times, and a few starts decide it. Shorten it,"
                " or let the adjoint decay (rollout's decay=)",
                stacklevel=2,
            )


def gradient_growth(
    costs: Callable[[Model, State], Float[Array, " steps"]],
    model: Model,
    starts: State,
    *,
    lengths: Sequence[int] | None = None,
    limit: float = 50.0,
) -> Growth:
    """How the gradient through a rollout grows with its length, measured on `starts`, a tree with a leading axis.

    `costs(model, start)` are the costs of the steps of one rollout. The derivative of the cost after so many steps (by
    default spread evenly on a logarithmic scale) in the first state is the product of as many Jacobians of a step:
    through what is unstable it grows exponentially, and the mean gradient of a batch is then that of its few wildest
    starts. Under a policy that steers well it shrinks instead, so measure with the policy at hand, and with the
    rollout's `decay` if it has one.

    Raises InputError for lengths beyond the rollout or none, and for a model whose gradients are not finite.

    Good values: 64 starts or more; a limit of 30 to 300. Breaks when: the first cost does not depend on the start.
    """
    common_length(starts, "starts")
    first = jax.tree.map(lambda rows: rows[0], starts)
    steps = eqx.filter_eval_shape(costs, model, first).shape[0]
    at = np.unique(np.round(np.geomspace(1, steps, 4 * steps.bit_length())).astype(int))
    at = at if lengths is None else np.asarray(lengths)
    if at.size < 1 or at.min() < 1 or at.max() > steps:
        raise InputError(f"lengths={at.tolist()} of a rollout of {steps} steps: give some from 1 to {steps}")
    squares = _squares(costs, model, starts, jnp.asarray(at - 1))
    in_start, in_model = (np.sqrt(np.asarray(part)) for part in squares)
    if not np.all(np.isfinite([in_start, in_model])):
        raise InputError("the gradient through the rollout is not finite: check the policy, or measure fewer steps")
    beyond = np.flatnonzero(in_start > limit * in_start[0])
    useful = at[beyond[0] - 1] if beyond.size else at[-1]
    return Growth(at, in_start, in_model, int(useful), limit)


def growths(costs: Callable, model: Model, starts: State, decay: float) -> dict[str, Growth]:
    """The `gradient_growth` of costs that take a decay, "true" without it and "decaying" with the one given."""
    measure = lambda decay: gradient_growth(partial(costs, decay=decay), model, starts)
    return {"true": measure(1.0), "decaying": measure(decay)}


@eqx.filter_jit
def _squares(costs, model, starts, rows):
    """Mean squares over the starts of the derivatives of the costs `rows` in the start and in the model."""
    moving, rest = eqx.partition(model, eqx.is_inexact_array)

    def one(start):
        value, pull = jax.vjp(lambda start, moving: costs(eqx.combine(moving, rest), start), start, moving)
        cotangents = jnp.eye(value.shape[0], dtype=value.dtype)[rows]
        return jax.vmap(lambda bar: tuple(jnp.sum(ravel_pytree(part)[0] ** 2) for part in pull(bar)))(cotangents)

    return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(one)(starts))
