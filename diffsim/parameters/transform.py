"""The transform between parameters with bounds and numbers without, in which they are trained."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import InputError
from .._jax.tracers import is_tracer
from .._trees import path_name
from .._types import Model
from .declare import UNBOUNDED
from .paths import Parameter, parameters


def unconstrain(model: Model) -> Model:
    """The model with each bounded parameter mapped to a number without bounds; the inverse of `constrain`.

    With a parameter x and its bounds:

        z = log(x - low) - log(high - x)    with both bounds,
        z = log(x - low)                    with a lower bound,
        z = -log(high - x)                  with an upper bound.

    Any change of z keeps x within its bounds.

    Raises:
        InputError: For a parameter on its bound, whose z would be infinite.

    Examples:
        >>> class Fraction(eqx.Module):
        ...     value: ds.Scalar = ds.param(0.75, bounds=(0.0, 1.0))
        ...
        >>> free = ds.unconstrain(Fraction())
        >>> print(f"{free.value:.4f} {ds.constrain(free).value:.4f}")  # log(3)
        1.0986 0.7500
    """
    return _map_bounded(model, _to_unbounded)


def constrain(free: Model) -> Model:
    """The model whose bounded parameters lie within their bounds; the inverse of `unconstrain`.

    Args:
        free: A model as `unconstrain` returns it, with any values.

    Examples:
        >>> class Cart(eqx.Module):
        ...     mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.1, 10.0))
        ...
        >>> free = ds.unconstrain(Cart())
        >>> far = jax.tree.map(lambda z: z + 100.0, free)
        >>> print(f"{ds.constrain(free).mass:.3f} {ds.constrain(far).mass:.3f}")
        2.000 10.000
    """
    return _map_bounded(free, to_bounded)


def _map_bounded(model: Model, transform: Callable[[Parameter], Array]) -> Model:
    """The model with the transform applied to each parameter that has a bound."""
    known = parameters(model)

    def leaf(path, x):
        entry = known.get(path_name(path))
        return x if entry is None or entry.bounds == UNBOUNDED else transform(entry)

    return jax.tree_util.tree_map_with_path(leaf, model)


def _to_unbounded(entry: Parameter) -> Array:
    path, x, unit, (low, high) = entry
    if not is_tracer(x) and bool(jnp.any((x <= low) | (x >= high))):
        raise InputError(f"{path} starts at or beyond its bound ({x} {unit}): start it between {low:g} and {high:g}")
    if np.isinf(high):
        return jnp.log(x - low)
    if np.isinf(low):
        return -jnp.log(high - x)
    return jnp.log(x - low) - jnp.log(high - x)


def to_bounded(entry: Parameter) -> Array:
    """Returns a parameter within its bounds, from its number without."""
    z, (low, high) = entry.value, entry.bounds
    if entry.bounds == UNBOUNDED:
        return z
    if np.isinf(high):
        return low + jnp.exp(z)
    if np.isinf(low):
        return high - jnp.exp(-z)
    return low + (high - low) * jax.nn.sigmoid(z)


def at_bound(model: Model, width: float = 1e-3) -> list[str]:
    """The paths of the parameters that lie on a bound, or near it.

    Args:
        model: The model.
        width: The distance from a bound up to which a parameter counts, as a fraction of the range between its bounds,
            or of its value if it has one bound.

    Examples:
        >>> class Cart(eqx.Module):
        ...     mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.1, 10.0))
        ...
        >>> ds.at_bound(Cart()), ds.at_bound(Cart(mass=10.0))
        ([], ['mass'])
    """
    names = []
    for path, value, _, (low, high) in parameters(model).values():
        scale = high - low if np.isfinite(high - low) else np.maximum(np.abs(value), 1e-300)
        gap = np.minimum(np.asarray(value) - low, high - np.asarray(value))
        if np.any(gap <= width * scale):
            names.append(path)
    return names
