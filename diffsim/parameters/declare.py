"""The declaration of parameters as fields of a module, and the check of their values."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Real

from .._errors import InputError
from .._jax.tracers import is_tracer

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-np.inf, np.inf)


class Declaration:
    """The arguments of `param`, and the converter that checks every value of the field."""

    def __init__(self, default, unit: str, bounds: Bounds):
        self.default, self.unit, self.bounds = default, unit, bounds
        self.shape = np.shape(default)
        self.name = "parameter"

    def __set_name__(self, owner, name):
        self.name = name

    def __call__(self, value) -> Array:
        """The value as an array of floating-point numbers."""
        value = self.default if value is self else value
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError):
            raise InputError(f"{self.name}={value!r}: expected a number") from None
        if not jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype(jnp.result_type(float))
        if array.weak_type:
            array = jax.lax.convert_element_type(array, array.dtype)
        if array.shape != self.shape:
            raise InputError(f"{self.name} has shape {array.shape}, expected {self.shape}; use vmap for batches")
        check_bounds(self.name, array, self.bounds, self.unit)
        return array


def param(default: Real[ArrayLike, "..."], unit: str = "", bounds: Bounds = UNBOUNDED) -> Any:
    """A field of an `eqx.Module` that holds a real array: trainable, with a unit and bounds.

    Args:
        default: The default value, which fixes the shape.
        unit: The unit, for tables and messages.
        bounds: The least and the greatest value allowed, both included; by default none.

    Raises:
        InputError: If the first of the `bounds` is not below the second. When a module is built, for a value that lies
            outside the bounds, has another shape or is not finite.

    Examples:
        >>> class Cart(eqx.Module):
        ...     mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.1, 10.0))
        ...
        >>> float(Cart().mass), float(Cart(mass=3.0).mass)
        (2.0, 3.0)
        >>> Cart(mass=20.0)
        Traceback (most recent call last):
            ...
        diffsim._errors.InputError: mass=20 kg is not allowed; give from 0.1 to 10
    """
    low, high = bounds
    if not low < high:
        raise InputError(f"bounds={bounds}: the first must be smaller than the second")
    declaration = Declaration(default, unit, (float(low), float(high)))
    return eqx.field(default=declaration, converter=declaration, metadata={"declaration": declaration})


class _Constant:
    """The mark of a field whose arrays describe a model without being its parameters."""


CONSTANT = _Constant()


def constant_field(**options: Any) -> Any:
    """A field of an `eqx.Module` whose array is not a parameter: it does not train.

    The module itself must stop the gradient where it uses the field.

    Args:
        options: Those of `eqx.field`.
    """
    return eqx.field(metadata={"declaration": CONSTANT}, **options)


def check_bounds(name: str, value, bounds: Bounds, unit: str = "") -> None:
    """Checks that a value is finite and within its bounds. Values that are being traced pass.

    Args:
        name: The name of the value in the message.
        value: A number or an array.
        bounds: The least and the greatest value allowed, both included.
        unit: The unit of the value in the message.

    Raises:
        InputError: If an entry is not finite or lies outside `bounds`.

    Examples:
        >>> ds.check_bounds("mass", 2.0, (0.1, 10.0), "kg")
        >>> ds.check_bounds("mass", -1.0, (0.1, 10.0), "kg")
        Traceback (most recent call last):
            ...
        diffsim._errors.InputError: mass=-1 kg is not allowed; give from 0.1 to 10
    """
    if is_tracer(value):
        return
    low, high = bounds
    value = np.asarray(value)
    bad = ~np.isfinite(value) | (value < low) | (value > high)
    if bad.any():
        first = value[bad].flat[0]
        allowed = f"from {low:g} to {high:g}" if bounds != UNBOUNDED else "any finite number"
        raise InputError(f"{name}={first:g} {unit}".rstrip() + f" is not allowed; give {allowed}")
