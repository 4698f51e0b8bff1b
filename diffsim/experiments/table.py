"""Experiments from long tables, which have one measurement in each row."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._errors import InputError
from ..io.csv import Rows, read_numbers, read_rows
from ..io.measurements import finite_number, number_or_gap
from .experiment import Experiment


class _Rows(NamedTuple):
    """The rows of a long table.

    Attributes:
        experiments: The names of the experiments.
        observables: The names of the observables.
        times: The times.
        values: The measurements, NaN for gaps.
        stds: Their standard deviations, or None.
        where: Describes a row for a message, by its index.
    """

    experiments: list[str]
    observables: list[str]
    times: Float[np.ndarray, " rows"]
    values: Float[np.ndarray, " rows"]
    stds: Float[np.ndarray, " rows"] | None
    where: Callable[[int], str]


def read_experiments(
    path: Path | str,
    *,
    experiment: str = "experiment",
    time: str = "time",
    observable: str | None = "observable",
    value: str = "value",
    noise: Any = None,
    units: Mapping[str, float] | None = None,
    observables: Sequence[str] | None = None,
) -> list[Experiment]:
    """The experiments in a CSV file that has one measurement in each row, in any order.

    The experiments are in the order in which the file names them first. All have a column for each observable, with
    gaps where nothing was measured. Measurements of one observable at the same time are replicates: further columns of
    the same name, in all experiments as many as the most that the file has.

    Initial states, inputs and an initial time are added by `dataclasses.replace(experiment, y0=..., t0=0.0)`.

    Args:
        path: The file, with a header; lines that begin with # are remarks.
        experiment: The column with the names of the experiments.
        time: The column with the times.
        observable: The column with the names of the observables; None if there is one observable, whose data then have
            the shape (n,) unless there are replicates.
        value: The column with the measurements; an empty cell, or `nan`, is a gap.
        noise: The column with the standard deviation of each measurement, which becomes a weight of 1 / std^2 with a
            noise of 1; or else the noise of every experiment, as in `Experiment`.
        units: The factors from the units of the file to those of the model, by the name of an observable or of the
            column of times (of the column of values if `observable` is None).
        observables: The order of the observables, by default by name; others are left out.

    Raises:
        InputError: For any other file; it names the line, the column and the value, and says what to do.

    Examples:
        >>> rows = ["experiment,time,observable,value", "hot,1.0,x,0.4", "hot,0.0,x,1.0", "hot,1.0,x,0.5"]
        >>> np.savetxt("decay.csv", rows, fmt="%s")
        >>> (hot,) = ds.experiments.read_experiments("decay.csv")
        >>> print(hot.name, hot.ts, hot.columns, hot.data.tolist())
        hot [0. 1.] ('x', 'x') [[1.0, nan], [0.4, 0.5]]
    """
    table = read_rows(path)
    if not table.columns:
        raise InputError(f"{path} is empty: give a header, and a row for each measurement")
    is_column = isinstance(noise, str)
    numbers = {time: finite_number, value: number_or_gap} | ({noise: number_or_gap} if is_column else {})
    for name in [experiment, *([observable] if observable else []), *numbers]:
        if name not in table.columns:
            known = f"{', '.join(table.columns):.200}"
            raise InputError(f"{path} has no column {name!r}; it has {known}: rename one, or name another")
    where = lambda index: f"{path}, line {table.lines[index]}"
    values, wrong = read_numbers(table, numbers)
    for index, complaint in wrong.items():
        raise InputError(f"{where(index)}: {complaint}")
    names = _texts(table, experiment, where)
    observed = _texts(table, observable, where) if observable else [value] * len(names)
    rows = _Rows(names, observed, values[:, 0], values[:, 1], values[:, 2] if is_column else None, where)
    return _experiments(rows, time, observable is None, None if is_column else noise, units, observables)


def experiments_from_table(
    table: Any,
    *,
    experiment: str = "experiment",
    time: str = "time",
    observable: str | None = "observable",
    value: str = "value",
    noise: Any = None,
    units: Mapping[str, float] | None = None,
    observables: Sequence[str] | None = None,
) -> list[Experiment]:
    """The experiments in a table that has one measurement in each row, in any order.

    Args:
        table: The columns by name, such as a dictionary of lists or a data frame of pandas. None and NaN are gaps.
        experiment, time, observable, value, noise, units, observables: As in `read_experiments`.

    Raises:
        InputError: As `read_experiments`, with the row counted from 0.

    Examples:
        >>> table = {"experiment": ["a", "b"], "time": [0.0, 60.0], "heat": [1.0, 2.0]}
        >>> options = {"observable": None, "value": "heat", "units": {"time": 60.0}}  # minutes to seconds
        >>> for experiment in ds.experiments.experiments_from_table(table, **options):
        ...     print(experiment.name, experiment.ts, experiment.data)
        a [0.] [1.]
        b [3600.] [2.]
    """
    is_column = isinstance(noise, str)
    names = [experiment, *([observable] if observable else []), time, value, *([noise] if is_column else [])]
    columns = {}
    for name in names:
        try:
            columns[name] = np.asarray(table[name], object).ravel()
        except KeyError:
            raise InputError(f"table has no column {name!r}: rename one, or name another") from None
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns of table have lengths {lengths}: give one cell for each row")
    where = lambda index: f"row {index} of table"
    text = lambda name: [_text(name, str(cell), where(index)) for index, cell in enumerate(columns[name])]
    convert = lambda name, check: np.array(
        [_cell(name, cell, check, where(index)) for index, cell in enumerate(columns[name])], float
    )
    observed = text(observable) if observable else [value] * lengths[value]
    stds = convert(noise, number_or_gap) if is_column else None
    rows = _Rows(text(experiment), observed, convert(time, finite_number), convert(value, number_or_gap), stds, where)
    return _experiments(rows, time, observable is None, None if is_column else noise, units, observables)


def _experiments(rows: _Rows, time: str, single: bool, noise: Any, units, observables) -> list[Experiment]:
    chosen = list(observables) if observables is not None else sorted(set(rows.observables))
    rows = _in_units(rows, time, chosen, units or {})
    _check(rows, chosen)
    cells: dict[str, dict[float, dict[str, list[int]]]] = {}
    for index, (name, t, observed) in enumerate(zip(rows.experiments, rows.times, rows.observables, strict=True)):
        if observed in chosen:
            row = cells.setdefault(name, {}).setdefault(float(t), {key: [] for key in chosen})
            row[observed] += [index] if np.isfinite(rows.values[index]) else []
    if not cells:
        raise InputError("the table has no measurements: give a row for each")
    most = max(len(indices) for own in cells.values() for row in own.values() for indices in row.values())
    noise = 1.0 if rows.stds is not None else noise
    names = [name for name in dict.fromkeys(rows.experiments) if name in cells]
    return [_experiment(name, cells[name], rows, chosen * max(most, 1), single, noise) for name in names]


def _experiment(name: str, cells: dict, rows: _Rows, columns: list[str], single: bool, noise: Any) -> Experiment:
    ts = sorted(cells)
    data, weights = np.full((len(ts), len(columns)), np.nan), np.ones((len(ts), len(columns)))
    width = len(set(columns))
    for i, t in enumerate(ts):
        for column, indices in enumerate(cells[t].values()):
            places = [column + width * replicate for replicate in range(len(indices))]
            data[i, places] = rows.values[indices]
            weights[i, places] = 1.0 if rows.stds is None else 1 / rows.stds[indices] ** 2
    if single and len(columns) == 1:
        data, weights = data[:, 0], weights[:, 0]
    return Experiment(ts, data, noise=noise, weights=weights, name=name, columns=columns)


def _in_units(rows: _Rows, time: str, chosen: list[str], units: Mapping[str, float]) -> _Rows:
    """The rows with times, measurements and standard deviations in the units of the model."""
    for name, factor in units.items():
        if name not in (time, *chosen):
            raise InputError(f"units has {name!r}: give factors for {', '.join([time, *chosen]):.200}")
        if not (factor > 0 and math.isfinite(factor)):
            raise InputError(f"units[{name!r}]={factor:g}: give a positive factor")
    factors = np.array([units.get(name, 1.0) for name in rows.observables])
    stds = None if rows.stds is None else rows.stds * factors
    return rows._replace(times=rows.times * units.get(time, 1.0), values=rows.values * factors, stds=stds)


def _check(rows: _Rows, chosen: list[str]) -> None:
    for name in chosen:
        if name not in rows.observables:
            known = f"{', '.join(dict.fromkeys(rows.observables)):.200}"
            raise InputError(f"no row has observable {name!r}; known: {known}")
    if rows.stds is not None:
        for index in np.flatnonzero(np.isfinite(rows.values) & ~(rows.stds > 0)):
            std = rows.stds[index]
            raise InputError(f"{rows.where(int(index))}: the standard deviation is {std:g}; give a positive number")


def _texts(table: Rows, name: str, where: Callable[[int], str]) -> list[str]:
    column = table.columns.index(name)
    return [_text(name, cells[column], where(index)) for index, cells in enumerate(table.cells)]


def _text(name: str, text: str, where: str) -> str:
    if not text.strip():
        raise InputError(f"{where}: {name} is empty; give a name")
    return text.strip()


def _cell(name: str, cell: Any, check: Callable[[str, str], float], where: str) -> float:
    try:
        return check(name, "" if cell is None else str(cell))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
