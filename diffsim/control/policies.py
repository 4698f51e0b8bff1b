"""What a policy costs over many starts, and what it must be before it decides anything."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp

from .._errors import InputError
from .._types import Model
from ..parameters import parameters


@cache
def mean_cost(costs: Callable, length: int) -> Callable:
    """The loss of a batch of starts and the adjoint's decay: the mean cost of `length` steps from each of the starts.

    `costs(policy, start, length, decay)` are the costs of the steps of one rollout. The same arguments give the same
    function, so that fits that share it compile once.
    """

    def loss(policy, batch):
        starts, decay = batch
        return jnp.mean(jax.vmap(lambda start: costs(policy, start, length, decay))(starts))

    return loss


def finite(policy: Model) -> Model:
    """The policy as it is. Raises InputError, which names it, if one of its numbers is not finite."""
    values = {name: entry.value for name, entry in parameters(policy).items()}
    bad = [name for name, value in values.items() if not bool(jnp.all(jnp.isfinite(value)))]
    if bad:
        raise InputError(f"'{bad[0]}' of the policy is not finite, so that it decides nothing: train it anew")
    return policy
