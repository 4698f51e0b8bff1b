"""The types of numbers in a picture."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import InputError

Pixels = Array | np.ndarray


def check_floating(picture) -> None:
    """Checks that the picture (or dtype) is of floating-point numbers.

    Whole numbers are not values in [0, 1], and those of 8 and 16 bits overflow in sums and differences.

    Raises:
        InputError: for whole numbers and masks, with the remedy.
    """
    dtype = jnp.result_type(picture)
    if jnp.issubdtype(dtype, jnp.floating):
        return
    remedy = "convert it with astype"
    if jnp.issubdtype(dtype, jnp.integer):
        remedy = f"divide it by the value of white (at most {jnp.iinfo(dtype).max})"
    raise InputError(f"a picture of type {dtype}: {remedy}, since pictures are floating-point numbers in [0, 1]")
