"""The growth of a gradient with the length of a rollout, and a horizon that grows during training."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._errors import InputError
from .._trees import common_length
from .._types import Model, State


def horizon_weights(horizon: Real[ArrayLike, ""], length: int) -> Float[Array, " length"]:
    """Weights of a rollout's steps: equal up to `horizon`, zero after it, with sum 1.

    A curriculum passes a growing horizon with its batches, so that one compiled loss of `length` steps serves all of
    them.

    Args:
        horizon: The number of steps that count, above 0. A fractional horizon counts its last step in part; one beyond
            `length` counts every step.
        length: The number of steps of the rollout.

    Examples:
        >>> ds.control.horizon_weights(2.5, 4).tolist()
        [0.4, 0.4, 0.2, 0.0]
    """
    counted = jnp.clip(horizon - jnp.arange(length), 0.0, 1.0)
    return counted / jnp.sum(counted)


class GradientGrowth(NamedTuple):
    """The size of the gradient of one step's cost, as a function of the number of steps before it.

    Attributes:
        lengths: The numbers of steps.
        norm_initial_state: The norm of the derivative with respect to the initial state, for each length; the root
            mean square over the initial states.
        norm_model: The same for the derivative with respect to the model.
        useful_horizon: The last length before `norm_initial_state` exceeds `limit` times its first value.
        limit: The largest growth that is accepted.

    Examples:
        >>> costs = lambda gain, start: start * gain ** jnp.arange(1.0, 4.0)  # s[k] = gain^k s[0]
        >>> growth = ds.control.gradient_growth(costs, jnp.array(10.0), jnp.ones(4), lengths=[1, 2, 3], limit=50.0)
        >>> growth.norm_initial_state.round(3).tolist(), growth.useful_horizon
        ([10.0, 100.0, 1000.0], 2)
    """

    lengths: np.ndarray
    norm_initial_state: np.ndarray
    norm_model: np.ndarray
    useful_horizon: int
    limit: float

    def warn(self, length: int) -> None:
        """Warns, with the numbers, if a rollout of `length` steps is longer than the useful horizon."""
        if length > self.useful_horizon:
            worst = np.max(self.norm_initial_state[self.lengths <= length]) / self.norm_initial_state[0]
            warnings.warn(
                f"a horizon of {length} steps is longer than the useful one of {self.useful_horizon}: beyond it the "
                f"gradient grows more than {self.limit:g} times, here {worst:.3g} times, and a few starts decide it. "
                "Shorten it, or let the adjoint decay (rollout's decay=)",
                stacklevel=2,
            )


def gradient_growth(
    costs: Callable[[Model, State], Float[Array, " steps"]],
    model: Model,
    starts: State,
    *,
    lengths: Sequence[int] | Int[np.ndarray, " lengths"] | None = None,
    limit: float = 50.0,
) -> GradientGrowth:
    """The size of the gradient through a rollout as a function of the number of steps.

    The derivative of a step's cost with respect to the initial state is the product of the Jacobians of all steps
    before it. Through unstable dynamics it grows exponentially, and the mean gradient of a batch is then dominated by
    its few most unstable starts. A policy that stabilises the system makes it shrink instead: measure with the policy
    that is to be trained, and with the rollout's `decay` if it has one.

    Good values: 64 starts or more, a limit of 30 to 300. Breaks when: the first cost does not depend on the start.

    Args:
        costs: The costs of the steps of one rollout of a model from an initial state, shape (steps,).
        model: The model, usually a policy.
        starts: Initial states, each leaf with a leading axis.
        lengths: The numbers of steps to measure after. By default about 4 for each doubling, evenly spaced in the
            logarithm.
        limit: The growth beyond which a horizon is no longer useful.

    Raises:
        InputError: For lengths that are empty or beyond the rollout, and for gradients that are not finite.

    Examples:
        >>> def costs(gain, start):  # the states of s[k + 1] = gain s[k]
        ...     return ds.rollout(lambda s, _: gain * s, start, length=20)[1]
        ...
        >>> growth = ds.control.gradient_growth(costs, jnp.array(2.0), jnp.ones(4), limit=100.0)
        >>> growth.useful_horizon  # 2^6 < 100 < 2^7
        7
        >>> growth.warn(7)  # warns if a rollout of 7 steps is too long
    """
    common_length(starts, "starts")
    first = jax.tree.map(lambda rows: rows[0], starts)
    steps = eqx.filter_eval_shape(costs, model, first).shape[0]
    if lengths is None:
        lengths_array = np.unique(np.round(np.geomspace(1, steps, 4 * steps.bit_length())).astype(int))
    else:
        lengths_array = np.asarray(lengths)
    if lengths_array.size < 1 or lengths_array.min() < 1 or lengths_array.max() > steps:
        raise InputError(f"lengths={lengths_array.tolist()} of a rollout of {steps} steps: give some from 1 to {steps}")
    mean_squares = _mean_squares(costs, model, starts, jnp.asarray(lengths_array - 1))
    norm_initial_state, norm_model = (np.sqrt(np.asarray(part)) for part in mean_squares)
    if not np.all(np.isfinite([norm_initial_state, norm_model])):
        raise InputError("the gradient through the rollout is not finite: check the policy, or measure fewer steps")
    beyond = np.flatnonzero(norm_initial_state > limit * norm_initial_state[0])
    useful = lengths_array[beyond[0] - 1] if beyond.size else lengths_array[-1]
    return GradientGrowth(lengths_array, norm_initial_state, norm_model, int(useful), limit)


def compare_gradient_growth(costs: Callable, model: Model, starts: State, decay: float) -> dict[str, GradientGrowth]:
    """The `gradient_growth` without decay of the adjoint ("true") and with it ("decaying").

    Args:
        costs: As in `gradient_growth`, with a keyword argument `decay`.
        model, starts: As in `gradient_growth`.
        decay: The factor on the adjoint in each step.

    Examples:
        >>> def costs(gain, start, decay):  # the states of s[k + 1] = gain s[k]
        ...     return ds.rollout(lambda s, _: gain * s, start, length=20, decay=decay)[1]
        ...
        >>> growth = ds.control.compare_gradient_growth(costs, jnp.array(2.0), jnp.ones(4), 0.5)
        >>> growth["true"].useful_horizon, growth["decaying"].useful_horizon
        (6, 20)
    """
    measure = lambda decay: gradient_growth(partial(costs, decay=decay), model, starts)
    return {"true": measure(1.0), "decaying": measure(decay)}


@eqx.filter_jit
def _mean_squares(costs, model, starts, rows):
    """The mean squares over the starts of the derivatives of the costs `rows`: by the start, and by the model."""
    differentiable, rest = eqx.partition(model, eqx.is_inexact_array)

    def of_one_start(start):
        value_of = lambda start, differentiable: costs(eqx.combine(differentiable, rest), start)
        value, vjp = jax.vjp(value_of, start, differentiable)
        cotangents = jnp.eye(value.shape[0], dtype=value.dtype)[rows]
        squared_norms = lambda cotangent: tuple(jnp.sum(ravel_pytree(part)[0] ** 2) for part in vjp(cotangent))
        return jax.vmap(squared_norms)(cotangents)

    return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(of_one_start)(starts))
