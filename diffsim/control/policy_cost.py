"""The mean cost of a policy, and the check of one that was loaded from a file."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp

from .._errors import InputError
from .._types import Model
from ..parameters import parameters


@cache
def mean_cost(costs: Callable, length: int) -> Callable:
    """The loss `loss(policy, (starts, decay))` of a policy: the mean cost of a step in rollouts from many starts.

    The same arguments return the same function, so that several fits with it compile once.

    Args:
        costs: `costs(policy, start, length, decay)`, the costs of the steps of one rollout, shape (length,).
        length: The number of steps.
    """

    def loss(policy, batch):
        starts, decay = batch
        return jnp.mean(jax.vmap(lambda start: costs(policy, start, length, decay))(starts))

    return loss


def check_finite(policy: Model) -> Model:
    """The policy itself, if all its parameters are finite.

    Raises:
        InputError: If a parameter is not finite; the message names it.
    """
    values = {name: entry.value for name, entry in parameters(policy).items()}
    bad = [name for name, value in values.items() if not bool(jnp.all(jnp.isfinite(value)))]
    if bad:
        raise InputError(f"'{bad[0]}' of the policy is not finite, so that its controls are not either: train it again")
    return policy
