"""ONNX models of functions, converted by jax2onnx from plain programs and compared with JAX's values."""

import warnings
from collections.abc import Callable, Sequence

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._errors import InputError, RunError
from .._extras import extra
from .._jax.plain_program import plain_program
from .._trees import path_name

SAMPLE = 3  # the number given to an open size in the comparison
AGREEMENT = 1000  # roundings of the largest value by which the results may differ


def convert(function: Callable, shapes: Sequence[PyTree]) -> bytes:
    """Returns the ONNX model of a function of arrays of these shapes.

    Its inputs are named `input_0`, `input_1.field` and so on, its outputs `output` or `output.field`. The order is
    that of the leaves. The program is made plain first: jax2onnx does not know the primitives of this package, and its
    own forms of Equinox's layers have other values over a batch (in 0.17).

    Raises:
        InputError: If jax2onnx or onnxruntime does not have an operation.
        RunError: If onnxruntime computes other values than JAX.
    """
    to_onnx = extra("jax2onnx", "onnx").to_onnx
    leaves, tree = jax.tree.flatten(tuple(shapes))
    results = []

    def flat(*leaves):
        out = function(*jax.tree.unflatten(tree, leaves))
        results[:] = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(out)]
        return jax.tree.leaves(out)

    program = plain_program(flat, *leaves)
    inputs = [f"input_{path_name(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(tuple(shapes))]
    outputs = [f"output.{name}" if name else "output" for name in results]
    double = any(leaf.dtype in (jnp.float64, jnp.complex128) for leaf in leaves)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of jax2onnx, about its own use of JAX
            options = {"input_names": inputs, "output_names": outputs, "enable_double_precision": double}
            data = to_onnx(lambda *args: tuple(program(*args)), leaves, **options).SerializeToString()
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"ONNX model: {str(error).splitlines()[0]}; give a path that does not end in .onnx, for a program of JAX"
        ) from error
    _check(data, lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves))), leaves, inputs)
    return data


def session(data: bytes):
    """Returns the session of onnxruntime that runs a model; raises InputError if it refuses the model."""
    runtime = extra("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a dozen types without a common one
        remedy = "compute in float32, in which it has the most operations, or give a path that does not end in .onnx"
        raise InputError(f"onnxruntime refuses the model: {str(error).splitlines()[0][-160:]}; {remedy}") from error


def _check(data: bytes, function: Callable, leaves: Sequence[jax.ShapeDtypeStruct], inputs: Sequence[str]) -> None:
    """Compares the model with the function at one random input, uniform in [0, 1)."""
    draw = np.random.default_rng(0)
    size = lambda n: n if isinstance(n, int) else SAMPLE
    sample = [draw.uniform(size=tuple(map(size, leaf.shape))).astype(leaf.dtype) for leaf in leaves]
    values = session(data).run(None, dict(zip(inputs, sample, strict=True)))
    for value, expected in zip(values, jax.jit(function)(*sample), strict=True):
        expected = np.asarray(expected)
        largest = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        eps = np.finfo(expected.dtype).eps if np.issubdtype(expected.dtype, np.inexact) else 0.0
        if not np.allclose(value, expected, rtol=0.0, atol=AGREEMENT * eps * largest, equal_nan=True):
            error = np.max(np.abs(value - expected))
            raise RunError(
                f"ONNX model: its values differ from JAX's by {error:.1e}, where the largest is {largest:.1e}: "
                "a fault of jax2onnx or onnxruntime; give a path that does not end in .onnx"
            )
