"""Tables as lines of text."""

from collections.abc import Collection, Sequence


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A table of strings as text: its header and rows, each column as wide as its widest cell.

    Args:
        columns: The cells of the header, or of the first row of a table without one.
        rows: The cells of each row, as many as there are columns.
        right: The numbers of the columns that are aligned to the right.
    """
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    align = [str.rjust if number in right else str.ljust for number in range(len(widths))]
    cells = ([f(cell, width) for f, cell, width in zip(align, row, widths, strict=True)] for row in (columns, *rows))
    return "\n".join("  ".join(row).rstrip() for row in cells)
