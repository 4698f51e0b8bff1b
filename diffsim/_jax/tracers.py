"""Whether a value is known during tracing, or only when the compiled program runs."""

from typing import Any

from jax.core import Tracer


def is_tracer(x: Any) -> bool:
    """Whether `x` is a tracer of `jit`, `vmap` or `grad`, whose value is not known."""
    return isinstance(x, Tracer)
