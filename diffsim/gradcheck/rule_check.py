"""The comparison of a function's own derivative rule with differences."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._jax.program import Operation
from ..autodiff.ridders import directional_difference
from ..autodiff.sweep import natural_size
from ..graph.operation_derivatives import is_inexact, operation_vjp


def rule_is_right(operation: Operation, operands: Sequence[Any], live: Sequence[bool]) -> bool:
    """Whether the derivative rule of a function agrees with differences, along random directions.

    True also where that cannot be tried, since there is then no evidence against the rule.
    """
    try:
        return _agrees_with_differences(operation, operands, live)
    except Exception:  # any kind: a user's derivative rule, and what it calls, may raise anything
        return True


def _agrees_with_differences(operation: Operation, operands: Sequence[Any], live: Sequence[bool]) -> bool:
    """Whether the product of the Jacobian with random cotangents and directions is that of differences."""
    chosen = [k for k, x in enumerate(operands) if live[k] and is_inexact(x) and np.size(x)]
    if not chosen:
        return True
    random = np.random.default_rng(0)
    signs = [random.choice([-1.0, 1.0], np.shape(operands[k])) for k in chosen]
    directions = [jnp.asarray(sign * natural_size(operands[k])) for sign, k in zip(signs, chosen, strict=True)]
    outputs = operation.call(*operands)
    weights = [jnp.asarray(random.standard_normal(np.shape(x)), x.dtype) if is_inexact(x) else None for x in outputs]

    def weighted(values):
        arguments = list(operands)
        for k, value in zip(chosen, values, strict=True):
            arguments[k] = value
        pairs = zip(operation.call(*arguments), weights, strict=True)
        return sum(jnp.sum(x * w) for x, w in pairs if w is not None)

    cotangents = [jnp.zeros_like(x) if w is None else w for x, w in zip(outputs, weights, strict=True)]
    gradients = operation_vjp(operation, operands, cotangents, live)
    slope = sum(float(jnp.sum(gradients[k] * d)) for k, d in zip(chosen, directions, strict=True))
    difference = directional_difference(weighted, [jnp.asarray(operands[k]) for k in chosen], directions)
    eps = max(float(jnp.finfo(operands[k].dtype).eps) for k in chosen)
    allowed = 2 * difference.error + max(1e-6, 100 * eps) * np.fmax(abs(slope), abs(difference.value))
    return bool(abs(slope - difference.value) <= allowed)
