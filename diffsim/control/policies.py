"""What a policy must be before anything is decided by it."""

import jax
import jax.numpy as jnp

from .._errors import InputError
from .._types import Model
from ..parameters import parameters


def finite(policy: Model) -> Model:
    """The policy as it is. Raises InputError, which names it, if one of its numbers is not finite."""
    values = {name: entry.value for name, entry in parameters(policy).items()}
    healthy = jax.device_get({name: jnp.all(jnp.isfinite(value)) for name, value in values.items()})
    bad = [name for name, well in healthy.items() if not well]
    if bad:
        raise InputError(f"'{bad[0]}' of the policy is not finite, so that it decides nothing: train it anew")
    return policy
