"""Constraints on the values of a command line, given in the annotations of a sub-command's parameters.

    def train(*, policies: Annotated[int, Within(1, 1000)] = 20, out: Annotated[Path, WritableFile((".gif",))]): ...

They are checked with the arguments, before any work starts and before JAX is imported.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Protocol, TypeAlias, Union, get_args, get_origin, runtime_checkable

from .._errors import InputError
from ..io.files import check_path, check_writable

LAST_SEED = 2_000_000_000  # accepted by all random number generators, even after small additions
MOST_SEEDS = 100_000


@runtime_checkable
class Constraint(Protocol):
    """A constraint on a value, in its annotation."""

    def check(self, name: str, value: Any) -> None:
        """Raises InputError, with the value and the remedy, unless the value is allowed."""


@dataclass(frozen=True)
class Within:
    """A finite number from `low` to `high`; with `above`, greater than `low`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def check(self, name: str, value: Any) -> None:
        allowed = self.low < value <= self.high if self.above else self.low <= value <= self.high
        if allowed and math.isfinite(value):
            return
        ends = [f"{'above' if self.above else 'at least'} {self.low:g}"] if math.isfinite(self.low) else []
        ends += [f"at most {self._high()}"] if math.isfinite(self.high) else []
        raise InputError(f"{name}={value}: give a finite number{', ' if ends else ''}{' and '.join(ends)}")

    def _high(self) -> str:
        return str(self.high) if isinstance(self.high, int) else f"{self.high:g}"


@dataclass(frozen=True)
class NonZero:
    """A finite number other than zero."""

    def check(self, name: str, value: Any) -> None:
        if value == 0 or not math.isfinite(value):
            raise InputError(f"{name}={value}: give a finite number other than 0")


@dataclass(frozen=True)
class Each:
    """Values that each satisfy a constraint."""

    constraint: "Constraint"

    def check(self, name: str, value: Any) -> None:
        for item in value:
            self.constraint.check(name, item)


@dataclass(frozen=True)
class ReadableFile:
    """The path of an existing file; with `suffixes`, its name must end in one of them."""

    suffixes: tuple[str, ...] = ()

    def check(self, name: str, value: Path) -> None:
        check_path(value)
        _check_suffix(value, self.suffixes)
        if value.is_dir():
            raise InputError(f"{value}: is a folder; give the name of a file")
        if not value.exists():
            raise InputError(f"{value}: no such file")
        if not os.access(value, os.R_OK):
            raise InputError(f"{value}: is protected from reading; permit it, or give another")


@dataclass(frozen=True)
class RawFile(ReadableFile):
    """The path of an existing file, which has a complete Bayer mosaic if its name is that of a camera's raw.

    With `camera`, its name must be that of a camera's raw.
    """

    camera: bool = False

    def check(self, name: str, value: Path) -> None:
        super().check(name, value)
        from ..io.raw_file import RAW, check_raw_file  # imports NumPy, which other command lines do not wait for

        if self.camera:
            _check_suffix(value, RAW)
        if value.suffix.lower() in RAW:
            check_raw_file(value)


@dataclass(frozen=True)
class Matching:
    """A text that matches a regular expression as a whole; `remedy` says what to give."""

    pattern: str
    remedy: str

    def check(self, name: str, value: str) -> None:
        if not re.fullmatch(self.pattern, value):
            raise InputError(f"{name}='{value:.40}': {self.remedy}")


@dataclass(frozen=True)
class ExistingFolder:
    """The path of an existing folder."""

    def check(self, name: str, value: Path) -> None:
        check_path(value)
        if not value.is_dir():
            raise InputError(f"{value} is not a folder: give one that exists")


@dataclass(frozen=True)
class WritableFile:
    """The path of a file that can be written; with `suffixes`, its name must end in one of them."""

    suffixes: tuple[str, ...] = ()

    def check(self, name: str, value: Path) -> None:
        check_path(value)
        if not value.is_dir():
            _check_suffix(value, self.suffixes)
        check_writable(value)


@dataclass(frozen=True)
class SeedRange:
    """Seeds as FIRST:LAST, without the last."""

    def check(self, name: str, value: str) -> None:
        seed_range(value)


def seed_range(text: str) -> range:
    """Returns the seeds FIRST:LAST, without the last.

    Args:
        text: The range as text, such as "0:100".

    Raises:
        InputError: For text of another form, an empty range, and more than 100,000 seeds.
    """
    first, colon, last = text.partition(":")
    short = max(len(first), len(last)) <= 10  # digits of the last seed
    if not (colon and short and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise InputError(f"seeds '{text:.40}': give FIRST:LAST, such as 0:100, with at least one seed before the last")
    if int(last) > LAST_SEED or int(last) - int(first) > MOST_SEEDS:
        raise InputError(f"seeds '{text}': give at most {MOST_SEEDS} seeds, and none above {LAST_SEED}")
    return range(int(first), int(last))


InFile: TypeAlias = Annotated[Path, ReadableFile()]
OutFile: TypeAlias = Annotated[Path, WritableFile()]
Seed: TypeAlias = Annotated[int, Within(0, LAST_SEED)]
Seeds: TypeAlias = Annotated[str, SeedRange()]
Count: TypeAlias = Annotated[int, Within(1, 1_000_000)]
Finite: TypeAlias = Annotated[float, Within()]
Positive: TypeAlias = Annotated[float, Within(0.0, above=True)]


def check_values(hints: dict[str, Any], values: dict[str, Any]) -> None:
    """Raises InputError for the first value that violates a constraint in its annotation."""
    for name, hint in hints.items():
        for constraint in _constraints(hint):
            if values[name] is not None:
                constraint.check(name.replace("_", "-"), values[name])
        for path in _paths(values[name]):
            check_path(path)


def check_folder_can_be_made(folder: Path) -> None:
    """Raises InputError unless a folder can be written, or can be created."""
    check_path(folder)
    existing = folder.absolute()
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{folder}: {existing} is not a folder: give another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: the folder {existing} is protected from writing: give another")


def _constraints(hint: Any) -> Iterator[Constraint]:
    if get_origin(hint) is Annotated:
        yield from (constraint for constraint in hint.__metadata__ if isinstance(constraint, Constraint))
        hint = hint.__origin__
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _constraints(part)


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)


def _check_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: unknown extension '{path.suffix}'; give {_one_of(suffixes)}")


def _one_of(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
