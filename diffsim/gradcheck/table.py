"""Rows of evidence as an aligned table."""

from collections.abc import Sequence

from .._trees import shape_text
from ..io.aligned_columns import aligned
from .verdict import Row, place

COLUMNS = (
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
    """The rows as an aligned table; below it every note once, after the parameters that it is about."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in (*row.notes, *(f"suspect {suspect}" for suspect in row.suspects)):
            notes.setdefault(note, []).append(row.name)
    lines = [f"{', '.join(names)}: {note}" for note, names in notes.items()]
    return "\n".join([aligned(COLUMNS, [_cells(row) for row in rows]), *lines])


def _cells(row: Row) -> tuple[str, ...]:
    """The cells of one row."""
    shape = shape_text(row.shape) or "scalar"
    numbers = [_number(n, ".7g") for n in (row.value, row.reverse, row.forward, row.difference)]
    rest = (_number(row.error, ".1e"), _number(row.disagreement, ".1e"), row.verdict)
    return (row.name, shape, place(row.index), *numbers, *rest)


def _number(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)
