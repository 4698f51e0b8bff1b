"""A signal from two columns of a CSV file, with their units."""

import re
from pathlib import Path

from .._errors import InputError
from ..io.csv import read_rows
from ..io.measurements import read_measurements
from .signal import Kind, Outside, Signal, signal

_HEADER = re.compile(r"(?P<name>.*?)\s*[\[(](?P<unit>[^\])]*)[\])]")


def read_signal(
    path: Path | str,
    value: str,
    *,
    time: str = "time",
    unit: str | None = None,
    time_unit: str = "s",
    factor: float = 1.0,
    time_factor: float = 1.0,
    kind: Kind = "linear",
    outside: Outside = "hold",
) -> Signal:
    """The signal in two columns of a CSV file whose header has names and units, as `speed [m/s]` or `speed (m/s)`.

    Args:
        path: The file, as `read_measurements` reads it.
        value, time: The names of the columns, without their units.
        unit: The unit of the values. By default that of the header.
        time_unit: The unit of the times.
        factor, time_factor: What the numbers of the file are multiplied by, to convert them from the header's units to
            `unit` and `time_unit`: 1 / 3.6 from km/h to m/s.
        kind, outside: As in `diffsim.signal`.

    Raises:
        InputError: For a unit that neither header nor argument names, for units that differ without a factor, and as
            `read_measurements` and `signal` do.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "drive.csv"
        >>> _ = path.write_text("time [s],speed [km/h]\\n0,0\\n10,36\\n")
        >>> speed = ds.signals.read_signal(path, "speed", unit="m/s", factor=1 / 3.6)
        >>> print(f"{speed(5.0):.1f} {speed.unit}")
        5.0 m/s
    """
    header = {}
    for column in read_rows(path).columns:
        match = _HEADER.fullmatch(column)
        header[match["name"] if match else column] = (column, match["unit"].strip() if match else None)
    known = {name: header.get(name, (name, None)) for name in (time, value)}
    unit = _unit(path, value, known[value][1], unit, "factor", factor)
    _unit(path, time, known[time][1], time_unit, "time_factor", time_factor)
    names = [known[time][0], known[value][0]]
    columns = read_measurements(path, names, increasing=names[0], rows=1 if kind == "hold" else 2)
    times, values = (columns[name] for name in names)
    return signal(times * time_factor, values * factor, kind=kind, outside=outside, unit=unit)


def _unit(path, name: str, in_header: str | None, wanted: str | None, argument: str, factor: float) -> str:
    """The unit of a column; raises InputError if nothing names it, or if header and argument contradict each other."""
    if wanted is None:
        if in_header is None:
            raise InputError(
                f"{path} has no unit for column {name!r}: write '{name} [unit]' in its header, or give unit="
            )
        if factor != 1.0:
            raise InputError(f"{argument}={factor:g} of column {name!r}: give unit= too, the unit after the conversion")
        return in_header
    if in_header is not None and in_header != wanted and factor == 1.0:
        raise InputError(
            f"{path} has column {name!r} in {in_header}, not in {wanted}: give {argument}= to convert one to the other"
        )
    return wanted
