"""Measurements from a CSV file: rows of numbers, with gaps, that are checked before anything is fitted to them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .._errors import InputError
from .csv import number, read_rows
from .csv import remarks as remarks


def read_measurements(
    path: Path | str, columns: Sequence[str], *, gaps: Sequence[str] = (), increasing: str | None = None, rows: int = 2
) -> dict[str, Float[np.ndarray, " rows"]]:
    """The named columns of a CSV file with a header; lines that begin with # are remarks.

    The file is UTF-8, or UTF-16 with its byte order mark, with commas between cells and points in numbers. An empty
    cell, or `nan`, in a column of `gaps` is a gap, which becomes NaN. Other columns of the file are left out.
    The column `increasing` must do so from row to row, and there must be `rows` of them at least.

    Raises InputError that names the file's line, the column and the value, and says what to do.
    """
    header, cells, numbers = read_rows(path)
    if not header:
        raise InputError(f"{path} is empty: give a header with {', '.join(columns)}, and rows of numbers")
    for name in columns:
        if name not in header:
            raise InputError(f"{path} has no column {name!r}; it has {', '.join(header):.200}: rename one, or add it")
    if len(cells) < rows:
        raise InputError(f"{path} has {len(cells)} rows of measurements: give at least {rows}")
    found = {name: np.empty(len(numbers)) for name in columns}
    for index, (line, row) in enumerate(zip(numbers, cells, strict=True)):
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {len(row)} cells under {len(header)} columns: give one for each")
        for name in columns:
            found[name][index] = _number(row[header.index(name)], f"{path}, line {line}", name, name in gaps)
    if increasing is not None:
        _check_order(path, increasing, found[increasing], numbers)
    for name in gaps:
        there = int(np.sum(np.isfinite(found[name])))
        if there < rows:
            raise InputError(f"{path} has {there} numbers in column {name!r}: give at least {rows}")
    return found


def _number(text: str, where: str, name: str, gap: bool) -> float:
    if gap and text.strip().lower() in ("", "nan"):
        return math.nan
    fault = "is not a number"
    try:
        value = number(text)
    except ValueError as error:
        value, fault = math.nan, str(error)
    if not math.isfinite(value):
        cure = "a finite number, or nothing for a gap" if gap else "a finite number"
        raise InputError(f"{where}: {name}={text!r:.60} {fault}; give {cure}")
    return value


def _check_order(path: Path | str, name: str, values: np.ndarray, numbers: list[int]) -> None:
    """Raises InputError at the first value that is not above the one before it."""
    late = np.flatnonzero(np.diff(values) <= 0)
    if late.size:
        at = int(late[0]) + 1
        pair = f"{name}={values[at]:g} after {values[at - 1]:g}"
        raise InputError(f"{path}, line {numbers[at]}: {pair}; {name} must increase: sort the rows, drop repeated ones")
