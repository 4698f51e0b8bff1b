"""Tables as lines of text."""

from collections.abc import Sequence


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of strings as text: its header and rows, each column as wide as its widest cell."""
    widths = [max(len(row[k]) for row in (columns, *rows)) for k in range(len(columns))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows))
    return "\n".join(lines)
