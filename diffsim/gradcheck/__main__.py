"""The certificate of a function as a command: `python -m diffsim.gradcheck MODULE:FUNCTION --at VALUES.json`.

It prints the table of evidence, or with `--json` one JSON object on the last line. Exit codes: 0 every parameter's
verdict is "agrees", 1 one is not, or the function cannot be evaluated; 2 bad arguments.
"""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._errors import InputError
from .._jax.source_lines import first_line
from ..io.json_encoding import json_line
from .check import check_gradients
from .procedure import MODES
from .report import GradientCheck

RIGHT, WRONG, BAD_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the function that the command line names, prints the evidence and returns the exit code."""
    request = _parser().parse_args(argv)
    try:
        with jax.enable_x64(True) if request.x64 else nullcontext():
            check = _checked(request)
    except InputError as error:
        return _complain(str(error), BAD_ARGUMENTS)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:  # any kind: the function may raise anything
        return _complain(f"{request.function} raised {type(error).__name__}: {first_line(error)}", WRONG)
    print(json_line(check.to_dict()) if request.json else check)
    return RIGHT if check.ok else WRONG


def _checked(request: argparse.Namespace) -> GradientCheck:
    """The check that a command line asks for."""
    f = load(request.function)
    vjp, jvp = (load(word) if word else None for word in (request.vjp, request.jvp))
    return check_gradients(
        f,
        arguments(request.at, f),
        rtol=request.rtol,
        atol=request.atol,
        modes=tuple(request.modes),
        max_coordinates=request.entries,
        seed=request.seed,
        jit=not request.no_jit,
        thorough=request.thorough,
        vjp=vjp,
        jvp=jvp,
    )


def load(word: str) -> Callable[..., Any]:
    """The function that MODULE:FUNCTION names; the module is a name that Python can import.

    Raises:
        InputError: If there is no such module or function, or if the module raises an error.
    """
    module_name, colon, name = word.partition(":")
    if not (module_name and colon and name):
        raise InputError(f"{word!r} names no function: write MODULE:FUNCTION, as in simulation:loss")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # any kind: the module may raise anything
        raise InputError(f"{module_name} cannot be imported ({type(error).__name__}: {first_line(error)})") from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = sorted(key for key, value in vars(found).items() if callable(value) and not key.startswith("_"))
            raise InputError(f"{module_name} has no {name}: it has {', '.join(names[:10]) or 'no functions'}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{word} is a {type(found).__name__}: name a function")
    return found


def arguments(word: str | None, f: Callable[..., Any]) -> tuple[Any, ...]:
    """The arguments at which `f` is checked: from a JSON file, from a function that returns them, or f's defaults.

    A JSON list has the arguments in order, an object has them by the names of f's parameters. Numbers and nested lists
    of numbers become arrays.

    Raises:
        InputError: If the file or function cannot be used, or if its values do not fit the parameters of `f`.
    """
    if word is not None and ":" in word and not Path(word).exists():
        made = load(word)()
        return made if isinstance(made, tuple) else (made,)
    values = [] if word is None else _read(Path(word))
    try:
        signature = inspect.signature(f)
    except ValueError as error:
        raise InputError(f"the parameters of {f} are not known: wrap it in a function of Python") from error
    try:
        bound = signature.bind(**values) if isinstance(values, dict) else signature.bind(*values)
    except TypeError as error:
        where = word or "the command (no --at)"
        raise InputError(f"{where} does not fit the parameters {signature}: {error}") from error
    bound.apply_defaults()
    named = [name for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY]
    if named:
        raise InputError(f"{named[0]} can be passed by name alone: wrap the function in one without a `*`")
    return tuple(map(_as_arrays, bound.args))


def _read(path: Path) -> Any:
    """The list or object of a JSON file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, list | dict):
        raise InputError(f"{path} holds a {type(values).__name__}: write a list of arguments or an object of them")
    return values


def _as_arrays(value: Any) -> Any:
    """A value of JSON with arrays in place of its numbers and of its nested lists of numbers."""
    if isinstance(value, dict):
        return {key: _as_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        try:
            array = np.array(value)
        except ValueError:  # rows of different lengths
            array = np.array(None)
        numbers = np.issubdtype(array.dtype, np.number)
        return array.astype(float) if numbers else [_as_arrays(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return np.asarray(value, float) if is_number else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m diffsim.gradcheck", description="Checks the gradient of a function.")
    add = parser.add_argument
    add("function", metavar="MODULE:FUNCTION", help="a function that returns one number, such as simulation:loss")
    add(
        "--at", metavar="FILE", help="JSON: a list of its arguments, or an object with them by name; or MODULE:FUNCTION"
    )
    add("--vjp", metavar="MODULE:FUNCTION", help="its own derivative in reverse mode, if it is no function of JAX")
    add("--jvp", metavar="MODULE:FUNCTION", help="its own derivative in forward mode, if it is no function of JAX")
    add("--rtol", type=_not_negative, default=1e-6, help="tolerance relative to the slope (%(default)s)")
    add("--atol", type=_not_negative, default=0.0, help="absolute tolerance (%(default)s)")
    add("--modes", nargs="+", choices=MODES, default=MODES, help="modes to check (both)")
    add("--entries", type=_count, default=8, help="entries of each array that are tried (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the choice of entries (%(default)s)")
    add("--x64", action="store_true", help="compute in double precision")
    add("--no-jit", action="store_true", help="call the function from Python instead of compiling it")
    add("--thorough", action="store_true", help="add complex steps, a dot-product test and the other number format")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _not_negative(word: str) -> float:
    number = float(word)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not a finite number of at least 0")
    return number


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is not a whole number of at least 1")
    return number


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
