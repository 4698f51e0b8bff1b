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

    Examples:
        >>> def costs(gain, start, length, decay):
        ...     return ds.rollout(lambda s, _: (1 - gain) * s, start, length=length, decay=decay)[1] ** 2
        ...
        >>> loss = ds.control.mean_cost(costs, 2)
        >>> float(loss(jnp.array(0.5), (jnp.array([2.0, 4.0]), 1.0)))  # the mean of 1, 1/4, 4, 1
        1.5625
    """

    def loss(policy, batch):
        starts, decay = batch
        return jnp.mean(jax.vmap(lambda start: costs(policy, start, length, decay))(starts))

    return loss


def check_finite(policy: Model) -> Model:
    """The policy itself, if all its parameters are finite.

    Raises:
        InputError: If a parameter is not finite; the message names it.

    Examples:
        >>> policy = ds.control.check_finite({"gain": jnp.array(2.0)})
        >>> try:
        ...     ds.control.check_finite({"gain": jnp.array(jnp.nan)})
        ... except ds.InputError as error:
        ...     print(error)
        'gain' of the policy is not finite, so that its controls are not either: train it again
    """
    values = {name: entry.value for name, entry in parameters(policy).items()}
    bad = [name for name, value in values.items() if not bool(jnp.all(jnp.isfinite(value)))]
    if bad:
        raise InputError(f"'{bad[0]}' of the policy is not finite, so that its controls are not either: train it again")
    return policy
