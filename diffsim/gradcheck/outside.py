"""Functions that are differentiated outside JAX: by PyTorch, by Warp, or by hand."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import InputError
from .._trees import is_real_array
from ..autodiff.inputs import Inputs, floats_as_arrays, input_name, split
from .directional import Derivatives
from .directions import Probes, tangent

VJP = Callable[[tuple[Any, ...], Any], Any]
JVP = Callable[[tuple[Any, ...], tuple[Any, ...]], Any]


class Outside(NamedTuple):
    """A function of NumPy arrays with derivatives of its own, as a function that returns one number.

    That number is the sum of all outputs, each times its entry of `weights`.

    Attributes:
        f: The function.
        vjp: Its vector-Jacobian product, if it has one.
        jvp: Its Jacobian-vector product, if it has one.
        args: The arguments.
        weights: The weights, a tree like the output.
        inputs: The differentiable inputs, with the number as a function of them.
    """

    f: Callable[..., Any]
    vjp: VJP | None
    jvp: JVP | None
    args: tuple[Any, ...]
    weights: Any
    inputs: Inputs

    def derivatives(self) -> Derivatives:
        """What the function's own products say of the number's derivatives."""
        return Derivatives(self._reverse, self._forward)

    def _reverse(self) -> tuple[float | None, list[np.ndarray] | None, str | None]:
        value = float(self.inputs.call(self.inputs.leaves))
        if self.vjp is None:
            return value, None, "no vjp was passed"
        args = as_numpy(self.args)
        try:
            cotangents = self.vjp(args, as_numpy(self.weights))
        except Exception as error:  # any kind: the product may raise anything
            return value, None, f"vjp raised {type(error).__name__}: {error}"
        return value, gradients_of(self.inputs, cotangents, len(args)), None

    def _forward(self, probes: Probes) -> tuple[np.ndarray | None, str | None]:
        if self.jvp is None:
            return None, "no jvp was passed"
        weights = [jnp.asarray(w) for w in probes.weights]
        slopes = []
        try:
            for leaf, entry in zip(probes.leaf, probes.entry, strict=True):
                change = _like_args(self.args, self.inputs.names, tangent(weights, leaf, entry))
                slopes.append(weighted_sum(self.weights, self.jvp(as_numpy(self.args), as_numpy(change))))
        except InputError:
            raise
        except Exception as error:  # any kind: the product may raise anything
            return None, f"jvp raised {type(error).__name__}: {error}"
        return np.array(slopes), None


def outside(f: Callable[..., Any], args: tuple[Any, ...], vjp: VJP | None, jvp: JVP | None, seed: int) -> Outside:
    """The function `f` of NumPy arrays, with random weights unless it returns one number.

    Raises:
        InputError: As `split` does, and if the output is not made of floating-point numbers.
    """
    of_numpy = lambda *args: f(*as_numpy(args))
    inputs = split(of_numpy, args)
    args = floats_as_arrays(args)
    weights = random_weights(inputs.call(inputs.leaves), seed)
    inputs = inputs._replace(call=lambda leaves, call=inputs.call: weighted_sum(weights, call(leaves)))
    return Outside(f, vjp, jvp, args, weights, inputs)


def random_weights(output: Any, seed: int) -> Any:
    """A tree like the output of a function: 1 for a single number, otherwise random numbers between 0.5 and 1.5.

    Their signs are random.

    Raises:
        InputError: If the output has a part that is not an array of floating-point numbers, or no part.
    """
    leaves, structure = jax.tree.flatten(output)
    arrays = [np.asarray(leaf) for leaf in leaves]
    if not arrays or not all(np.issubdtype(array.dtype, np.floating) for array in arrays):
        found = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays) or "nothing"
        raise InputError(f"f returns {found}: return floating-point numbers or NumPy arrays of them")
    if len(arrays) == 1 and arrays[0].size == 1:
        return jax.tree.unflatten(structure, [np.ones_like(arrays[0])])
    random = np.random.default_rng(seed)
    weight = lambda x: (random.choice([-1.0, 1.0], x.shape) * random.uniform(0.5, 1.5, x.shape)).astype(x.dtype)
    return jax.tree.unflatten(structure, [weight(array) for array in arrays])


def weighted_sum(weights: Any, output: Any) -> np.ndarray:
    """The sum of the entries of a function's output, times their weights.

    Raises:
        InputError: If the output has not the structure and the shapes of the weights.
    """
    shapes = lambda tree: jax.tree.map(lambda x: tuple(np.shape(x)), tree)
    if jax.tree.structure(output) != jax.tree.structure(weights) or shapes(output) != shapes(weights):
        raise InputError(
            f"an output has shapes {shapes(output)}: f and jvp must return {shapes(weights)}, as f did first"
        )
    parts = jax.tree.map(lambda w, x: np.sum(w * np.asarray(x)), weights, output)
    return np.asarray(sum(jax.tree.leaves(parts)))


def gradients_of(inputs: Inputs, cotangents: Any, count: int) -> list[np.ndarray]:
    """The gradient of each differentiable input, found by its name in what a `vjp` returned.

    Raises:
        InputError: If it is not a tuple with an entry for each of `count` arguments, or if an input has no gradient or
            one of another shape.
    """
    if not isinstance(cotangents, tuple | list) or len(cotangents) != count:
        kind = type(cotangents).__name__
        length = f" of {len(cotangents)}" if isinstance(cotangents, tuple | list) else ""
        raise InputError(f"vjp returned a {kind}{length}: return a tuple with a gradient for each of {count} arguments")
    paths, _ = jax.tree_util.tree_flatten_with_path(tuple(cotangents))
    found = {input_name(path, single=count == 1): np.asarray(leaf, np.float64) for path, leaf in paths}
    gradients = []
    for name, leaf in zip(inputs.names, inputs.leaves, strict=True):
        if name not in found:
            raise InputError(f"vjp returned no gradient for {name}: return zeros where nothing depends on it")
        if found[name].shape != leaf.shape:
            raise InputError(f"vjp returned a gradient of shape {found[name].shape} for {name}, which has {leaf.shape}")
        gradients.append(found[name])
    return gradients


def _like_args(args: tuple[Any, ...], names: list[str], changes: list[Array]) -> tuple[Any, ...]:
    """A tree like the arguments with the changes of the differentiable inputs, and zeros elsewhere."""
    by_name = dict(zip(names, changes, strict=True))
    paths, structure = jax.tree_util.tree_flatten_with_path(args)
    zero = lambda leaf: np.zeros_like(leaf) if is_real_array(leaf) else leaf
    leaves = [by_name.get(input_name(path, single=len(args) == 1), zero(leaf)) for path, leaf in paths]
    return jax.tree.unflatten(structure, leaves)


def as_numpy(tree: Any) -> Any:
    """A tree with new NumPy arrays in place of its arrays."""
    return jax.tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree)
