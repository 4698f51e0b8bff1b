"""The differentiable inputs of a function, and the number format of its value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import InputError
from .._jax.source_lines import first_line
from .._trees import path_name
from ..parameters import trainable


class Inputs(NamedTuple):
    """The differentiable inputs of a function.

    Attributes:
        names: The names of the inputs.
        leaves: The floating-point leaves of the arguments.
        call: The function of those leaves alone.
    """

    names: list[str]
    leaves: list[Array]
    call: Callable[[list[Array]], Array]


def split(f: Callable[..., Any], args: tuple[Any, ...]) -> Inputs:
    """The differentiable inputs of `f(*args)`; static values, keys, counters and constants of models stay as they are.

    Raises:
        InputError: If `args` is not a tuple, for an integer array as an argument of its own, for complex arrays, and
            if there is nothing to differentiate.
    """
    if not isinstance(args, tuple):
        raise InputError(f"args is a {type(args).__name__}: pass a tuple of arguments, (x,) for a single one")
    for number, arg in enumerate(args):
        if eqx.is_array(arg) and jnp.issubdtype(arg.dtype, jnp.integer):
            raise InputError(
                f"args[{number}] is {arg.dtype}{list(arg.shape)}: pass floating-point numbers to "
                "differentiate by, or close over it where it is data"
            )
    args = floats_as_arrays(args)
    is_input = lambda trains, leaf: trains or (eqx.is_inexact_array(leaf) and jnp.iscomplexobj(leaf))
    chosen = jax.tree.map(lambda trains, leaf: is_input(trains, leaf) and leaf.size > 0, trainable(args), args)
    floats, rest = eqx.partition(args, chosen)
    paths, structure = jax.tree_util.tree_flatten_with_path(floats)
    names = [input_name(path, single=len(args) == 1) for path, _ in paths]
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    for name, leaf in zip(names, leaves, strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(f"{name} is {leaf.dtype}: pass its real and imaginary parts as two arrays")
    if not leaves:
        kinds = ", ".join(sorted({type(leaf).__name__ for leaf in jax.tree.leaves(args)})) or "nothing"
        raise InputError(f"args has no floating-point numbers (found {kinds}): pass parameters such as 1.5 or an array")
    return Inputs(names, leaves, lambda x: f(*eqx.combine(jax.tree.unflatten(structure, x), rest)))


def floats_as_arrays(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with arrays in place of Python floats.

    Floats inside containers are converted only if the arguments have no floating-point array.
    """
    convert = lambda x: jnp.asarray(x) if isinstance(x, float) else x
    args = tuple(convert(arg) for arg in args)
    return args if any(map(eqx.is_inexact_array, jax.tree.leaves(args))) else jax.tree.map(convert, args)


def input_name(path: tuple[Any, ...], *, single: bool) -> str:
    """The name of a leaf, as in `args[0].mass`; of a `single` argument only the part within it."""
    inner = path_name(path[1:])
    if single and inner:
        return inner
    return f"args[{path[0].idx}]" + (f".{inner}" if inner else "")


def scalar_format(inputs: Inputs, *, jit: bool) -> Any:
    """The number format of the function's value.

    Raises:
        InputError: If the function does not return one floating-point number, and with `jit` if it cannot be compiled.
    """
    try:
        value = jax.eval_shape(inputs.call, inputs.leaves) if jit else inputs.call(inputs.leaves)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise InputError(f"f cannot be compiled ({first_line(error)}): pass jit=False") from error
    except TypeError as error:
        if "not a valid JAX type" not in str(error):
            raise  # an error inside the function
        raise InputError(f"f must return one number: {first_line(error)}") from error
    described = jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", value)
    if not isinstance(described, str):
        raise InputError(f"f returns {described}: return one number, for example one of them or their sum")
    if jnp.shape(value) != ():
        raise InputError(f"f returns an array of shape {jnp.shape(value)}: return one number, for example its sum")
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise InputError(f"f returns {jnp.result_type(value)}: return a floating-point number")
    return jnp.result_type(value)
