"""Tables of machines: a CSV file whose columns are a model's parameters, one model in each row."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import InputError
from .._types import Model
from ..parameters import Parameter, check_bounds, parameters
from .csv import number, read_numbers, read_rows, write_rows


class Table(NamedTuple):
    """A table of models.

    Attributes:
        rows: The rows of the file as text, by column.
        columns: The columns that are inputs.
        values: Their numbers, (rows, columns); a bad row has the model's own.
        bad: What is wrong with bad rows, by index.
    """

    rows: list[dict[str, str]]
    columns: list[str]
    values: np.ndarray
    bad: dict[int, str]


def read_table(path: Path | str, model: Model, degrees: Mapping[str, str], others: Collection[str] = ()) -> Table:
    """Returns the table of models in a CSV file; a bad number makes only its own row invalid.

    Args:
        path: The file, whose columns are paths of the model's parameters or names in `degrees`.
        model: The model, whose values stand for columns that are absent.
        degrees: Columns that give a parameter (rad) in degrees, and that parameter.
        others: Columns that are read and are no inputs; so are those that begin with `d_` or `err_` (derivatives).

    Raises:
        InputError: For a file without rows, without an input column, or with a column of another name.
    """
    table = read_rows(path)
    if not table.cells:
        raise InputError(f"{path} has no rows: give a header and at least one machine")
    known = parameters(model)
    inputs = {name: (known[name], 1.0) for name in known}
    inputs |= {name: (known[target], math.pi / 180) for name, target in degrees.items()}
    allowed = {*inputs, *others}
    unknown = [name for name in table.columns if name not in allowed and not name.startswith(("d_", "err_"))]
    if unknown:
        raise InputError(f"{path}: unknown column {unknown[0]!r:.60}; inputs are {', '.join(inputs)}")
    columns = [name for name in table.columns if name in inputs]
    if not columns:
        raise InputError(f"{path} has no input column; inputs are {', '.join(inputs)}")
    values, bad = read_numbers(table, {name: partial(_number, *inputs[name]) for name in columns})
    values[list(bad)] = [float(parameter.value) / scale for parameter, scale in (inputs[name] for name in columns)]
    padded = ([*row, *[""] * len(table.columns)] for row in table.cells)
    return Table([dict(zip(table.columns, row, strict=False)) for row in padded], columns, values, bad)


def _number(parameter: Parameter, scale: float, name: str, text: str) -> float:
    value = number(name, text)
    low, high = parameter.bounds
    check_bounds(name, np.asarray(value), (low / scale, high / scale), parameter.unit if scale == 1.0 else "deg")
    return value


def write_table(
    path: Path | str, table: Table, results: Mapping[str, np.ndarray], status: Sequence[str], keep: Collection[str] = ()
) -> None:
    """Writes a table with results to a CSV file, completely or not at all.

    Args:
        path: The file.
        table: The table, whose inputs are written first.
        results: Columns of numbers, which are written in full precision, `nan` in bad rows.
        status: The status of each row; that of a bad row is what is wrong with it.
        keep: Other columns of the table that are written, too.
    """
    copied = [name for name in table.rows[0] if name in table.columns or name in keep]
    rows = []
    for i, row in enumerate(table.rows):
        bad = i in table.bad
        numbers = ["nan" if bad else repr(float(column[i])) for column in results.values()]
        rows.append([*(row[name] for name in copied), *numbers, f"bad_input: {table.bad[i]}" if bad else status[i]])
    write_rows(path, [*copied, *results, "status"], rows)
