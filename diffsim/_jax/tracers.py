"""Whether a value is known now or only when the compiled program runs."""

from typing import Any

from jax.core import Tracer


def is_tracer(x: Any) -> bool:
    """Whether `x` stands for a value within `jit`, `vmap` or `grad`, and so has no number yet."""
    return isinstance(x, Tracer)
