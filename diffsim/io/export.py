"""Functions as files that run without this package: compiled programs of JAX, and ONNX models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import PyTree

from .._errors import InputError
from . import onnx_model
from .files import check_writable, write_whole
from .plain_containers import as_plain, rebuild

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def export(
    function: Callable,
    *shapes: PyTree,
    path: str | Path,
    platforms: Sequence[str] | None = None,
    derivatives: int | None = None,
) -> Path:
    """Writes a function to a file that runs where diffsim is not installed, and returns the path.

    A path that ends in `.onnx` becomes an ONNX model, which onnxruntime runs without Python; it needs the extra `onnx`,
    and is compared with JAX's values before it is written. Any other path becomes the program of `jax.export`, which
    needs JAX alone and keeps its derivatives:

        program = jax.export.deserialize(open(path, "rb").read())
        program.call(x), program.vjp().call(x, cotangent)

    What the function closes over, such as a trained model, is part of the file. Results that are no arrays, lists,
    tuples or dictionaries become dictionaries by the names of their fields; so do arguments, and the inputs and outputs
    of an ONNX model are named by them.

    Args:
        function: Of arrays or trees of them, traceable; without state.
        shapes: For each argument an array, a `jax.ShapeDtypeStruct`, or a text such as "batch, 4", whose words are
            sizes that are open until the call and whose numbers are in the default precision; or a tree of these.
        path: The file.
        platforms: The platforms of a program of JAX, of "cpu", "cuda", "rocm" and "tpu"; None is that of this process.
        derivatives: How often the program of JAX can be differentiated, in reverse mode. None is once. An ONNX model
            has no derivatives: export `jax.grad(function)` beside it.

    Raises:
        InputError: For a path that cannot be written, for shapes that the function does not take, for a function that
            needs the values of its arguments while it is traced, for an unknown platform, and for an operation that
            ONNX or onnxruntime does not have.
        RunError: If onnxruntime computes other values than JAX.

    Examples:
        >>> policy = ds.BoundedMLP(4, -10.0, 10.0, key=jr.key(0))
        >>> path = ds.export(jax.vmap(policy), "batch, 4", path="policy.jax")
        >>> program = jax.export.deserialize(path.read_bytes())  # in any process that has JAX
        >>> program.call(jnp.zeros((3, 4))).shape
        (3,)
    """
    path = Path(path)
    check_writable(path)
    specs = _specs(shapes)
    plain = tuple(map(as_plain, specs))
    call = lambda *args: as_plain(function(*rebuild(args, specs)))
    if path.suffix == ".onnx":
        _refuse_options(path, platforms, derivatives)
        data = _traced(onnx_model.convert, call, plain)
    else:
        order = 1 if derivatives is None else derivatives
        data = _serialized(_traced(_program, call, plain, _checked(platforms)), _checked_order(order))
    return write_whole(path, lambda file: file.write(data))


def _specs(shapes: Sequence[PyTree]) -> tuple[PyTree, ...]:
    """The shapes and dtypes of the arguments; words in several texts are the same size."""
    scope = jax.export.SymbolicScope()

    def spec(shape):
        if not isinstance(shape, str):
            known = eqx.is_array_like(shape) or isinstance(shape, jax.ShapeDtypeStruct)
            return jax.ShapeDtypeStruct(jnp.shape(shape), jnp.result_type(shape)) if known else _no_shape(shape)
        try:
            sizes = jax.export.symbolic_shape(shape, scope=scope)
        except ValueError as error:
            raise InputError(f"shape={shape!r}: give sizes and names, as 'batch, 4' ({_first_line(error)})") from error
        return jax.ShapeDtypeStruct(sizes, jnp.result_type(float))

    return jax.tree.map(spec, tuple(shapes))


def _no_shape(shape: Any) -> NoReturn:
    raise InputError(f"shape={shape!r:.80}: give an array, a jax.ShapeDtypeStruct or a text as 'batch, 4'")


def _program(call: Callable, shapes: Sequence[PyTree], platforms: Sequence[str] | None) -> jax.export.Exported:
    return jax.export.export(jax.jit(call), platforms=platforms)(*shapes)


def _serialized(program: jax.export.Exported, order: int) -> bytes:
    try:
        return bytes(program.serialize(vjp_order=order))
    except ValueError as error:
        raise InputError(f"derivatives={order}: the program has none, {_first_line(error)}; give 0") from error


def _traced(make: Callable, *args: Any) -> Any:
    """The result of `make(*args)`, which traces the function, with its errors in the caller's words."""
    try:
        return make(*args)
    except InputError:
        raise
    except _NEEDS_VALUES as error:
        raise InputError(
            f"function needs the values of its arguments while it is traced ({_first_line(error)}): write it with "
            "jax.numpy and jax.lax, and bind arguments that are no arrays with functools.partial"
        ) from error
    except Exception as error:
        shapes = ", ".join(f"{x.dtype}[{', '.join(map(str, x.shape))}]" for x in jax.tree.leaves(args[1]))
        if type(error).__name__ == "InconclusiveDimensionOperation":  # for which JAX has no public name
            reason = _first_line(error)
            raise InputError(f"shapes {shapes}: the function needs a size, {reason}; give its number") from error
        if isinstance(error, TypeError | ValueError):
            remedy = "give the shapes that the function takes, and let it return arrays"
            raise InputError(f"shapes {shapes}: {_first_line(error)}; {remedy}") from error
        raise


def _checked(platforms: Sequence[str] | None) -> Sequence[str] | None:
    if platforms is None:
        return None
    names = [platforms] if isinstance(platforms, str) else list(platforms)
    for name in names:
        if name not in PLATFORMS:
            raise InputError(f"platforms={name!r}: give some of {', '.join(PLATFORMS)}")
    if not names:
        raise InputError(f"platforms={platforms!r}: give at least one of {', '.join(PLATFORMS)}")
    return names


def _checked_order(order: int) -> int:
    if order < 0:
        raise InputError(f"derivatives={order}: give 0 or a larger whole number")
    return order


def _refuse_options(path: Path, platforms: Sequence[str] | None, derivatives: int | None) -> None:
    if platforms is not None:
        raise InputError(f"platforms={platforms!r}: {path.name} runs wherever onnxruntime does; leave it out")
    if derivatives:
        raise InputError(f"derivatives={derivatives}: an ONNX model has none; export jax.grad(function) as well")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
