"""Settings files of sub-commands in TOML: reading, with a check against the parameters, and writing."""

import argparse
import difflib
import functools
import inspect
import json
import operator
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import EnumType
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from .._errors import InputError
from ..io.files import read_at_most
from ..io.json_encoding import builtin, show

LARGEST = 1_000_000  # bytes of a file of settings


def read(path: Path, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Returns the values that a file gives to the parameters of a sub-command, each of its parameter's type.

    Args:
        path: The file.
        parameters: The parameters by name; their annotations are the types.

    Raises:
        InputError: For a file that is not TOML, an unknown name, or a value of another type.
        OSError: For a file that cannot be read.
    """
    data = read_at_most(path, LARGEST)
    try:
        table = tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except RecursionError:
        raise InputError(f"{path} is not a file of settings: it is nested too deeply") from None
    except ValueError as error:  # invalid TOML or UTF-8, or a number of thousands of digits
        raise InputError(f"{path} is not a TOML file: {error!s:.200}") from error
    values = {}
    for key, raw in table.items():
        name = key.replace("-", "_")
        if name not in parameters:
            raise InputError(f"{path}: unknown setting '{key}'; {_suggestion(name, parameters)}")
        values[name] = _convert(path, key, raw, parameters[name].annotation)
    return values


def named_path(words: Sequence[str], flag: str) -> Path | None:
    """Returns the value of a flag such as `--config`, whose file sets the defaults of the other flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, type=Path, nargs="?", dest="path")
    return parser.parse_known_args(words)[0].path


def of_run(folder: Path) -> Path:
    """Returns the path of the settings file in a run folder."""
    return folder / "config.toml"


def check_same(folder: Path, given: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises InputError if a run is resumed with settings other than those it was started with."""
    for name, value in given.items():
        if settings[name] != value:
            difference = f"{name} is {show(value)} there, here {show(settings[name])}"
            raise InputError(
                f"--resume {folder} uses the settings of its run: {difference}; leave that out, or begin a new run"
            )


def toml(settings: Mapping[str, Any]) -> str:
    """Returns `settings` as TOML text that `read` accepts; None, which TOML lacks, becomes "None"."""
    return "".join(f"{name} = {_literal(value)}\n" for name, value in settings.items())


def _suggestion(name: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    near = difflib.get_close_matches(name, parameters, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known settings: {', '.join(parameters) or 'none'}"


def _convert(path: Path, key: str, raw: Any, annotation: Any) -> Any:
    """The value of a setting; the text "None" stands for None where its type allows that."""
    import msgspec  # imported late: help and flags do not need it

    kind = _bare(annotation)
    if isinstance(kind, EnumType) and isinstance(raw, str) and raw in kind.__members__:
        return kind[raw]  # by name, as on the command line
    for value in (None, raw) if raw == "None" else (raw,):
        with suppress(msgspec.ValidationError, OverflowError):
            return msgspec.convert(value, annotation, dec_hook=_path)
    raise InputError(f"{path}: {key} = {raw!r:.80} does not fit its type, {inspect.formatannotation(kind)}")


def _path(kind: type, value: Any) -> Any:
    """Converts text to a path, which msgspec does not support."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{kind} is not a type of settings")


def _bare(annotation: Any) -> Any:
    """The type of an annotation without its metadata."""
    if get_origin(annotation) is Annotated:
        return _bare(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return functools.reduce(operator.or_, map(_bare, get_args(annotation)))
    return annotation


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    value = builtin(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML string, except that TOML requires the delete character to be escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
