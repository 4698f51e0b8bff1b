"""The checks of the arguments of a fit."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError
from .._jax.traced_function import is_traced
from .._jax.tracers import is_tracer


def check_on_host(name: str, *trees: PyTree) -> None:
    """Raises InputError if a fit, called `name`, is called from within a transformed function."""
    if is_traced() or any(is_tracer(leaf) for leaf in jax.tree.leaves(trees)):
        raise InputError(
            f"{name} was called within jit, vmap or grad: fits run on the host. Call it outside; "
            "fit_many runs many fits side by side in one compiled call"
        )


def check_optimizer(optimizer: Any) -> None:
    """Raises InputError for what is not an optimizer: a learning rate, a schedule, or a factory that was not called."""
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return
    if isinstance(optimizer, int | float) or eqx.is_array(optimizer):
        raise InputError(f"optimizer={optimizer} is a number: give an optimizer, such as optax.adam({optimizer})")
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    raise InputError(f"optimizer={name} is no optimizer: give one of optax with its learning rate, as optax.adam(1e-3)")


def number_of_steps(batches) -> int:
    """The common length of the leading axes."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        words = ", ".join(sorted(str(length[0]) if length else "none" for length in lengths))
        raise InputError(f"batches have leading axes of lengths {words}: give one common number of steps")
    return next(iter(lengths))[0]
