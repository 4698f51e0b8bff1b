"""The parameters of a model by path: to list them, to choose which of them train, to replace them."""

import difflib
import fnmatch
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._trees import path_name
from .._types import Model
from .declare import CONSTANT, UNBOUNDED, Bounds, check_bounds

MAX_NAMES = 20  # of known parameters that a message lists


class Parameter(NamedTuple):
    """One trainable array of a model.

    Attributes:
        path: Its path, as in `policy.layers.0.weight`.
        value: Its value.
        unit: Its unit; empty if none is declared.
        bounds: The least and the greatest value allowed.

    Examples:
        >>> class Cart(eqx.Module):
        ...     mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.1, 10.0))
        ...
        >>> mass = ds.parameters(Cart())["mass"]
        >>> mass.path, float(mass.value), mass.unit, mass.bounds
        ('mass', 2.0, 'kg', (0.1, 10.0))
    """

    path: str
    value: Float[Array, "..."]
    unit: str
    bounds: Bounds


def parameters(model: Model) -> dict[str, Parameter]:
    """All real arrays of a model by path, as in `policy.layers.0.weight`; those declared by `param` with their units.

    Arrays that are no parameters, such as the limits of a `BoundedMLP`, are left out, and so are Python numbers.

    Examples:
        >>> class Cart(eqx.Module):
        ...     mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.1, 10.0))
        ...
        >>> for path, parameter in ds.parameters({"cart": Cart(), "gain": jnp.array(5.0)}).items():
        ...     print(path, parameter.value, parameter.unit, parameter.bounds)
        cart.mass 2.0 kg (0.1, 10.0)
        gain 5.0  (-inf, inf)
    """
    declared = dict(_declarations(model, ""))
    by_path = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if eqx.is_inexact_array(leaf):
            name = path_name(path)
            declaration = declared.get(name)
            if declaration is CONSTANT:
                continue
            unit, bounds = (declaration.unit, declaration.bounds) if declaration else ("", UNBOUNDED)
            by_path[name] = Parameter(name, leaf, unit, bounds)
    return by_path


def python_numbers(model: Model, *, modules: bool = True) -> dict[str, float]:
    """The Python floats of a model by path; without `modules` only those in plain containers such as dictionaries."""
    is_leaf = None if modules else lambda node: isinstance(node, eqx.Module)
    leaves = [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(model, is_leaf=is_leaf)]
    return {path: leaf for path, leaf in leaves if isinstance(leaf, float) and not isinstance(leaf, np.generic)}


def _declarations(tree, prefix: str) -> Iterator[tuple[str, Any]]:
    """Pairs (path, declaration) of every `param` or constant field in a tree of modules and containers."""
    paths = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, eqx.Module))
    for path, node in paths:
        if isinstance(node, eqx.Module):
            module_prefix = prefix + (f"{path_name(path)}." if path else "")
            for field in node.__dataclass_fields__.values():
                declaration = field.metadata.get("declaration")
                if declaration is not None:
                    yield module_prefix + field.name, declaration
                elif not field.metadata.get("static", False):
                    yield from _declarations(getattr(node, field.name), f"{module_prefix}{field.name}.")


def trainable(model: Model, *paths: str) -> PyTree[bool]:
    """The filter that trains the parameters at the given paths and freezes the others, for `fit` or `eqx.partition`.

    Args:
        model: The model.
        paths: The paths. Each names one array, or everything below it (`policy`); `*` stands for any text (`*.bias`).
            Without paths every real array trains.

    Returns:
        A tree like the model, True where a leaf trains.

    Raises:
        InputError: For an unknown path; the message has the closest known one.

    Examples:
        >>> model = {"cart": {"mass": jnp.array(2.0), "drag": jnp.array(0.5)}, "gain": jnp.ones(2)}
        >>> ds.trainable(model, "*.drag", "gain")
        {'cart': {'drag': True, 'mass': False}, 'gain': True}
        >>> loss = lambda model, _: (model["cart"]["mass"] * model["cart"]["drag"] - 4.0) ** 2
        >>> model, _ = ds.fit(loss, model, optax.sgd(0.1), jnp.zeros(30), filter_spec=ds.trainable(model, "*.drag"))
        >>> print(f"{model['cart']['drag']:.3f}")
        2.000
    """
    known, numbers = parameters(model), python_numbers(model)
    chosen = set(known) if not paths else set().union(*(_matches(known, path, numbers) for path in paths))
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path_name(path) in chosen, model)


def frozen(model: Model, *paths: str) -> PyTree[bool]:
    """The filter that freezes the parameters at the given paths and trains the others; the counterpart of `trainable`.

    Args:
        model: The model.
        paths: The paths, as in `trainable`. Without paths nothing is frozen.

    Raises:
        InputError: For an unknown path.

    Examples:
        >>> model = {"cart": {"mass": jnp.array(2.0), "drag": jnp.array(0.5)}, "gain": jnp.ones(2)}
        >>> ds.frozen(model, "cart.mass")
        {'cart': {'drag': True, 'mass': False}, 'gain': True}
    """
    freeze = trainable(model, *paths) if paths else jax.tree.map(lambda _: False, model)
    return jax.tree.map(lambda train, freeze: train and not freeze, trainable(model), freeze)


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
    """The names of the parameters that a path chooses."""
    names = {name for name in known if fnmatch.fnmatchcase(name, path) or name.startswith(f"{path}.")}
    if not names:
        raise InputError(f"unknown parameter {path!r}{_suggestion(path, known, numbers)}")
    return names


def _suggestion(path: str, known, numbers) -> str:
    """The end of a message on an unknown path: the remedy for a Python number, the closest path, or those known."""
    if path in numbers:
        return f": it is the Python number {numbers[path]:g}; make it an array, as jnp.array({numbers[path]!r})"
    close = difflib.get_close_matches(path, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(list(known)[:MAX_NAMES])}"


def replace(model: Model, values: dict[str, Any]) -> Model:
    """The model with new values for the parameters at the given paths, checked like those of a new model.

    Args:
        model: The model.
        values: The new values by path; each has the shape of the old one.

    Raises:
        InputError: For an unknown path, another shape, and a value that is not finite or outside its bounds.

    Examples:
        >>> model = {"cart": {"mass": jnp.array(2.0), "drag": jnp.array(0.5)}}
        >>> heavier = ds.replace(model, {"cart.mass": 3.0})
        >>> float(heavier["cart"]["mass"]), float(heavier["cart"]["drag"])
        (3.0, 0.5)
    """
    known = parameters(model)
    for path, value in values.items():
        if path not in known:
            raise InputError(f"unknown parameter {path!r}{_suggestion(path, known, python_numbers(model))}")
        old = known[path]
        new = jnp.asarray(value, old.value.dtype)
        if new.shape != old.value.shape:
            raise InputError(f"{path} has shape {new.shape}, expected {old.value.shape}")
        check_bounds(path, new, old.bounds, old.unit)
        known[path] = old._replace(value=new)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: known[path_name(path)].value if path_name(path) in values else leaf, model
    )
