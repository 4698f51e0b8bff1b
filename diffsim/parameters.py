"""Parameters: arrays with a unit and bounds, declared once and addressed by path."""

import difflib
import fnmatch
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._errors import InputError
from ._jax.tracers import is_tracer
from ._types import Model

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-np.inf, np.inf)


class _Declaration:
    """What `param` was told, and the check that every value goes through on its way into the module."""

    def __init__(self, default, unit: str, bounds: Bounds):
        self.default, self.unit, self.bounds = default, unit, bounds
        self.shape = np.shape(default)
        self.name = "parameter"

    def __set_name__(self, owner, name):
        self.name = name

    def __call__(self, value) -> Array:
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


def param(default: float | np.ndarray, unit: str = "", bounds: Bounds = UNBOUNDED) -> Any:
    """A field of an `eqx.Module` that holds a real array: trainable, with a unit and bounds.

    `default` fixes the shape. `bounds` are the least and the greatest value allowed, each itself included;
    a value outside, of another shape or not finite raises InputError when the module is built.

        class Cart(eqx.Module):
            mass: Scalar = param(2.0, "kg", bounds=(0.1, 10.0))
    """
    low, high = bounds
    if not low < high:
        raise InputError(f"bounds={bounds}: the first must be smaller than the second")
    declaration = _Declaration(default, unit, (float(low), float(high)))
    metadata = {"declaration": declaration}
    return eqx.field(default=declaration, converter=declaration, metadata=metadata)


class _Constant:
    """The mark of a field whose arrays describe a model and are no parameters of it."""


CONSTANT = _Constant()


def constant_field(**options: Any) -> Any:
    """A field of an `eqx.Module` that holds an array which is no parameter: it does not train, and has no gradient.

    `options` are those of `eqx.field`. The module itself must stop the gradient where it uses the field.
    """
    return eqx.field(metadata={"declaration": CONSTANT}, **options)


def check_bounds(name: str, value, bounds: Bounds, unit: str = "") -> None:
    """Raises InputError if a concrete value is not finite or lies outside `bounds`; tracers pass."""
    if is_tracer(value):
        return
    low, high = bounds
    value = np.asarray(value)
    bad = ~np.isfinite(value) | (value < low) | (value > high)
    if bad.any():
        worst = value[bad].flat[0]
        allowed = f"from {low:g} to {high:g}" if bounds != UNBOUNDED else "any finite number"
        raise InputError(f"{name}={worst:g} {unit}".rstrip() + f" is not allowed; give {allowed}")


class Parameter(NamedTuple):
    """One trainable array of a model: its path, value, unit and bounds."""

    path: str
    value: Float[Array, "..."]
    unit: str
    bounds: Bounds


def parameters(model: Model) -> dict[str, Parameter]:
    """All real arrays of a model by path, as in `policy.layers.0.weight`; `param` fields carry unit and bounds.

    Fields made by `constant_field`, such as the limits of a `BoundedMLP`, are left out, and so are Python numbers.
    """
    declared = dict(_declarations(model, ""))
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if eqx.is_inexact_array(leaf):
            name = _name(path)
            declaration = declared.get(name)
            if declaration is CONSTANT:
                continue
            unit, bounds = (declaration.unit, declaration.bounds) if declaration else ("", UNBOUNDED)
            found[name] = Parameter(name, leaf, unit, bounds)
    return found


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def python_numbers(model: Model, *, modules: bool = True) -> dict[str, float]:
    """The Python floats of a model by path; without `modules` only those in plain containers, as a dictionary."""
    stop = None if modules else lambda node: isinstance(node, eqx.Module)
    leaves = jax.tree_util.tree_leaves_with_path(model, is_leaf=stop)
    return {_name(path): leaf for path, leaf in leaves if isinstance(leaf, float) and not isinstance(leaf, np.generic)}


def _declarations(tree, prefix: str):
    """Pairs (path, declaration) of every `param` or constant field in a tree of modules and containers."""
    paths = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, eqx.Module))
    for path, node in paths:
        if isinstance(node, eqx.Module):
            here = prefix + (f"{_name(path)}." if path else "")
            for field in node.__dataclass_fields__.values():
                declaration = field.metadata.get("declaration")
                if declaration is not None:
                    yield here + field.name, declaration
                elif not field.metadata.get("static", False):
                    yield from _declarations(getattr(node, field.name), f"{here}{field.name}.")


def trainable(model: Model, *paths: str) -> PyTree[bool]:
    """The filter that trains the parameters named by `paths` and freezes the rest, for `fit` or `eqx.partition`.

    A path names one array, or everything below it (`policy`); `*` stands for any part (`*.bias`). Without paths
    every real array trains. An unknown path raises InputError with the closest known one.
    """
    known, numbers = parameters(model), python_numbers(model)
    chosen = set(known) if not paths else set().union(*(_matches(known, path, numbers) for path in paths))
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _name(path) in chosen, model)


def frozen(model: Model, *paths: str) -> PyTree[bool]:
    """The filter that trains everything but the parameters named by `paths`; the counterpart of `trainable`."""
    stop = trainable(model, *paths) if paths else jax.tree.map(lambda _: False, model)
    return jax.tree.map(lambda train, stop: train and not stop, trainable(model), stop)


def partition(model: Model, filter_spec: PyTree[bool] | None = None) -> tuple[Model, Model]:
    """The part of a model that trains, and the rest; `eqx.combine` puts them together again.

    Args:
        model: The model.
        filter_spec: What trains, as `trainable` and `frozen` return it; by default every real array.

    Returns:
        Two trees of the model's structure, each with None in the place of the other's leaves.

    Raises:
        InputError: If nothing trains. Without `filter_spec` also for a Python float in a plain container, which would
            otherwise be left out without notice.
    """
    numbers = python_numbers(model) if not parameters(model) else python_numbers(model, modules=False)
    if numbers and filter_spec is None:
        path, value = next(iter(numbers.items()))
        subject = f"{path or 'the model'}={value:g} is a Python number, which does not train"
        raise InputError(
            f"{subject}: make it an array, as jnp.array({value!r}), or choose what trains with filter_spec="
        )
    trained, rest = eqx.partition(model, trainable(model) if filter_spec is None else filter_spec)
    if not parameters(trained):
        raise InputError("nothing to train: the model has no real array, or `filter_spec` chooses none")
    return trained, rest


def _matches(known, path: str, numbers) -> set[str]:
    hits = {name for name in known if fnmatch.fnmatchcase(name, path) or name.startswith(f"{path}.")}
    if not hits:
        raise InputError(f"unknown parameter {path!r}{_suggest(path, known, numbers)}")
    return hits


def _suggest(path: str, known, numbers) -> str:
    if path in numbers:
        return f": it is the Python number {numbers[path]:g}; make it an array, as jnp.array({numbers[path]!r})"
    close = difflib.get_close_matches(path, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(list(known)[:20])}"


def replace(model: Model, values: dict[str, Any]) -> Model:
    """The model with the parameters at the given paths set to new values, checked like those of a new model."""
    known = parameters(model)
    for path, value in values.items():
        if path not in known:
            raise InputError(f"unknown parameter {path!r}{_suggest(path, known, python_numbers(model))}")
        old = known[path]
        new = jnp.asarray(value, old.value.dtype)
        if new.shape != old.value.shape:
            raise InputError(f"{path} has shape {new.shape}, expected {old.value.shape}")
        check_bounds(path, new, old.bounds, old.unit)
        known[path] = old._replace(value=new)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: known[_name(path)].value if _name(path) in values else leaf, model
    )


def unconstrain(model: Model) -> Model:
    """The model with each bounded parameter mapped to a number without bounds; the inverse of `constrain`.

    Bounds on both sides use the logit of the position between them, one bound the log of the distance from it.
    A parameter that starts on its bound raises InputError: it could not move.
    """
    return _map_bounded(model, _to_free)


def constrain(free: Model) -> Model:
    """The model whose bounded parameters lie within their bounds, from what `unconstrain` made of it."""
    return _map_bounded(free, _to_bounded)


def _map_bounded(model: Model, transform) -> Model:
    known = parameters(model)

    def leaf(path, x):
        entry = known.get(_name(path))
        return x if entry is None or entry.bounds == UNBOUNDED else transform(entry)

    return jax.tree_util.tree_map_with_path(leaf, model)


def _to_free(entry: Parameter) -> Array:
    path, x, unit, (low, high) = entry
    if not is_tracer(x) and bool(jnp.any((x <= low) | (x >= high))):
        raise InputError(f"{path} starts at its bound ({x} {unit}): start it between {low:g} and {high:g}")
    if np.isinf(high):
        return jnp.log(x - low)
    if np.isinf(low):
        return -jnp.log(high - x)
    return jnp.log(x - low) - jnp.log(high - x)


def _to_bounded(entry: Parameter) -> Array:
    z, (low, high) = entry.value, entry.bounds
    if np.isinf(high):
        return low + jnp.exp(z)
    if np.isinf(low):
        return high - jnp.exp(-z)
    return low + (high - low) * jax.nn.sigmoid(z)


def at_bound(model: Model, width: float = 1e-3) -> list[str]:
    """Paths of the parameters within `width` of a bound, as a fraction of the range (of the value, if one bound)."""
    names = []
    for path, value, _, (low, high) in parameters(model).values():
        scale = high - low if np.isfinite(high - low) else np.maximum(np.abs(value), 1e-300)
        gap = np.minimum(np.asarray(value) - low, high - np.asarray(value))
        if np.any(gap <= width * scale):
            names.append(path)
    return names
