"""Whether a value is known, or is being traced by JAX."""

from typing import Any

from jax.core import Tracer


def is_tracer(x: Any) -> bool:
    """Returns whether `x` stands for a value that JAX is tracing."""
    return isinstance(x, Tracer)
