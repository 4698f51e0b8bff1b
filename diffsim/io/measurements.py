"""Measurements from a CSV file: rows of numbers, with gaps, that are checked before anything is fitted to them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .._errors import InputError
from .csv import number, read_numbers, read_rows


def read_measurements(
    path: Path | str, columns: Sequence[str], *, gaps: Sequence[str] = (), increasing: str | None = None, rows: int = 2
) -> dict[str, Float[np.ndarray, " rows"]]:
    """Returns the named columns of a CSV file with a header; lines that begin with # are remarks.

    The file is UTF-8, or UTF-16 with its byte order mark, with commas between cells and points in numbers. Other
    columns of the file are left out.

    Args:
        path: The file.
        columns: The names of the columns.
        gaps: Columns in which an empty cell, or `nan`, is a gap, which becomes NaN.
        increasing: A column that must increase from row to row.
        rows: The least number of rows, and of numbers in each column of `gaps`.

    Raises:
        InputError: For any other file; it names the line, the column and the value, and says what to do.
    """
    table = read_rows(path)
    if not table.columns:
        raise InputError(f"{path} is empty: give a header with {', '.join(columns)}, and rows of numbers")
    for name in columns:
        if name not in table.columns:
            known = f"{', '.join(table.columns):.200}"
            raise InputError(f"{path} has no column {name!r}; it has {known}: rename one, or add it")
    if len(table.cells) < rows:
        raise InputError(f"{path} has {len(table.cells)} rows of measurements: give at least {rows}")
    numbers, wrong = read_numbers(table, {name: number_or_gap if name in gaps else finite_number for name in columns})
    for index, complaint in wrong.items():
        raise InputError(f"{path}, line {table.lines[index]}: {complaint}")
    values = dict(zip(columns, numbers.T, strict=True))
    if increasing is not None:
        _check_order(path, increasing, values[increasing], table.lines)
    for name in gaps:
        count = int(np.sum(np.isfinite(values[name])))
        if count < rows:
            raise InputError(f"{path} has {count} numbers in column {name!r}: give at least {rows}")
    return values


def number_or_gap(name: str, text: str) -> float:
    """The finite number in a cell of the column `name`; NaN for an empty cell or `nan`, and InputError for others."""
    if text.strip().lower() in ("", "nan"):
        return math.nan
    return finite_number(name, text, "give a finite number, or nothing for a gap")


def finite_number(name: str, text: str, remedy: str = "give a finite number") -> float:
    """The finite number in a cell of the column `name`; raises InputError for other text."""
    value = number(name, text, remedy)
    if not math.isfinite(value):
        raise InputError(f"{name}={text!r:.60} is not finite; {remedy}")
    return value


def _check_order(path: Path | str, name: str, values: np.ndarray, lines: list[int]) -> None:
    """Raises InputError at the first value that is not above the one before it."""
    late = np.flatnonzero(np.diff(values) <= 0)
    if late.size:
        at = int(late[0]) + 1
        pair = f"{name}={values[at]:g} after {values[at - 1]:g}"
        raise InputError(f"{path}, line {lines[at]}: {pair}; {name} must increase: sort the rows, drop repeated ones")
