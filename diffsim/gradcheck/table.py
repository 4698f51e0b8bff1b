"""Rows of evidence as an aligned table, and as plain data for JSON."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .verdict import Row, place

HEADER = (
    "parameter",
    "shape",
    "index",
    "value",
    "reverse",
    "forward",
    "differences",
    "+-",
    "off by",
    "verdict",
)


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as an aligned table; below it every note once, after the parameters it is about."""
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in (*row.notes, *(f"suspect {suspect}" for suspect in row.suspects)):
            notes.setdefault(note, []).append(row.name)
    return "\n".join(text + [f"{', '.join(names)}: {note}" for note, names in notes.items()])


def plain(data: Any) -> Any:
    """Returns data in which tuples are lists and numbers that are not finite are "nan", "inf" or "-inf"."""
    if isinstance(data, dict):
        return {key: plain(entry) for key, entry in data.items()}
    if isinstance(data, Iterable) and not isinstance(data, str):
        return [plain(entry) for entry in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def _cells(row: Row) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape)) or "scalar"
    numbers = [_number(n, ".7g") for n in (row.value, row.reverse, row.forward, row.difference)]
    rest = (_number(row.error, ".1e"), _number(row.disagreement, ".1e"), row.verdict)
    return (row.name, shape, place(row.index), *numbers, *rest)


def _number(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)
