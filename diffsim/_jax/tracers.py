"""Whether a value is known during tracing, or only when the compiled program runs."""

from typing import Any

from jax.core import Tracer


def is_tracer(x: Any) -> bool:
    """Whether `x` is a tracer of `jit`, `vmap` or `grad`, whose value is not known."""
    return isinstance(x, Tracer)


def is_of_inner_trace(x: Any, outer: Any) -> bool:
    """Whether `x` is a tracer of a transformation within the one that traces `outer`, whose results it cannot be."""
    if not (isinstance(x, Tracer) and isinstance(outer, Tracer)):
        return False
    trace = x._trace
    while trace is not outer._trace:
        trace = getattr(trace, "parent_trace", None)
        if trace is None:
            return False
    return x._trace is not outer._trace


def is_of_same_trace(x: Any, other: Any) -> bool:
    """Whether `x` is a tracer of the transformation that traces `other`."""
    return isinstance(x, Tracer) and isinstance(other, Tracer) and x._trace is other._trace
