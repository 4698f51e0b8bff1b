"""Tables of machines: a CSV file whose columns are a model's parameters, one model in each row."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import InputError
from .._types import Model
from ..parameters import Parameter, check_bounds, parameters
from .csv import check_width, number, read_rows, write_rows


class Table(NamedTuple):
    """The rows of a file as text, the columns that are inputs, their numbers, and what is wrong with bad rows.

    `values` has shape (rows, columns); a bad row holds the model's own values there and its complaint in `bad`.
    """

    rows: list[dict[str, str]]
    columns: list[str]
    values: np.ndarray
    bad: dict[int, str]


def read_table(path: Path | str, model: Model, degrees: Mapping[str, str], others: Collection[str] = ()) -> Table:
    """The table of models at `path`.

    Columns are paths of the model's parameters, or names in `degrees`, which give a parameter (rad) in degrees.
    Columns in `others`, and those that begin with `d_` or `err_` (derivatives), are read but are not inputs.
    Raises InputError for a file without rows, without an input column, or with a column of another name; a bad
    number spoils its own row only.
    """
    names, cells, _ = read_rows(path)
    rows = [dict(zip(names, [*row, *[""] * len(names)], strict=False)) for row in cells]
    if not rows:
        raise InputError(f"{path} has no rows: give a header and at least one machine")
    known = parameters(model)
    inputs = {name: (known[name], 1.0) for name in known}
    inputs |= {name: (known[target], math.pi / 180) for name, target in degrees.items()}
    allowed = {*inputs, *others}
    unknown = [name for name in names if name not in allowed and not name.startswith(("d_", "err_"))]
    if unknown:
        raise InputError(f"{path}: unknown column {unknown[0]!r:.60}; inputs are {', '.join(inputs)}")
    columns = [name for name in names if name in inputs]
    if not columns:
        raise InputError(f"{path} has no input column; inputs are {', '.join(inputs)}")
    values, bad = np.empty((len(rows), len(columns))), {}
    for i, row in enumerate(rows):
        try:
            check_width(cells[i], names)
            values[i] = [_number(name, row[name], *inputs[name]) for name in columns]
        except InputError as error:
            bad[i] = str(error)
            values[i] = [float(parameter.value) / scale for parameter, scale in (inputs[name] for name in columns)]
    return Table(rows, columns, values, bad)


def _number(name: str, text: str, parameter: Parameter, scale: float) -> float:
    value = number(name, text)
    low, high = parameter.bounds
    check_bounds(name, np.asarray(value), (low / scale, high / scale), parameter.unit if scale == 1.0 else "deg")
    return value


def write_table(
    path: Path | str, table: Table, results: Mapping[str, np.ndarray], status: Sequence[str], keep: Collection[str] = ()
) -> None:
    """Writes the table's inputs and the columns in `keep`, the results in full precision, and each row's status.

    A bad row's results are `nan` and its status is what is wrong with it. The file is there whole or not at all.
    """
    copied = [name for name in table.rows[0] if name in table.columns or name in keep]
    rows = []
    for i, row in enumerate(table.rows):
        bad = i in table.bad
        numbers = ["nan" if bad else repr(float(column[i])) for column in results.values()]
        rows.append([*(row[name] for name in copied), *numbers, f"bad_input: {table.bad[i]}" if bad else status[i]])
    write_rows(path, [*copied, *results, "status"], rows)
