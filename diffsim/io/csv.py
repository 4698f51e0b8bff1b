"""CSV files: text read and checked (encoding, separator, columns, cells), numbers in it, and tables written."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import InputError
from .files import read_at_most, write_text

LARGEST = 2**30  # bytes of a file
LONGEST = 10_000  # characters of a cell


class Rows(NamedTuple):
    """The names of the columns, the cells of each row, and the line of the file on which each row ends."""

    columns: list[str]
    cells: list[list[str]]
    lines: list[int]


def read_rows(path: Path | str) -> Rows:
    """Returns the rows of a CSV file with a header; empty lines and lines that begin with # are left out.

    Text is UTF-8, or UTF-16 with its byte order mark; lines end as on any system; commas stand between the cells.

    Args:
        path: The file.

    Raises:
        InputError: For any other file, for two columns of one name, and for a cell of more than 10,000 characters; it
            names the line and the remedy.
    """
    numbers: list[int] = []
    reader = csv.reader(_rows_of_text(text_of(path), numbers), strict=True)
    rows, lines = [], []
    usual = csv.field_size_limit(LONGEST)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) or len(cells) > 1:
                rows.append(cells)
                lines.append(numbers[-1])
    except csv.Error as error:
        raise InputError(f"{path}, line {numbers[-1] if numbers else 1}: {_reason(error)}") from None
    finally:
        csv.field_size_limit(usual)
    columns = [name.strip() for name in rows[0]] if rows else []
    _check_columns(path, columns)
    return Rows(columns, rows[1:], lines[1:])


def remarks(path: Path | str) -> list[str]:
    """Returns the lines of a CSV file that begin with #, without it."""
    lines = (line.strip() for line in io.StringIO(text_of(path), newline=None))
    return [line.lstrip("# ") for line in lines if line.startswith("#")]


def write_rows(path: str | Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Writes a table completely or not at all, and returns the path."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def number(name: str, text: str, remedy: str = "give a number") -> float:
    """The number in a cell of the column `name`, which may be NaN or infinite; raises InputError for other text."""
    fault = f"{name}={text!r:.60} is not a number"
    if "," in text:
        raise InputError(f"{fault}; give a decimal point, as in 0.5, and no separators")
    try:
        # Python would take the underscore for a separator.
        return float("" if "_" in text else text)
    except ValueError:
        raise InputError(f"{fault}; {remedy}") from None


def read_numbers(rows: Rows, columns: Mapping[str, Callable[[str, str], float]]) -> tuple[np.ndarray, dict[int, str]]:
    """Returns the numbers (rows, columns) of chosen columns, and what is wrong with rows that have none.

    Args:
        rows: The rows of a file.
        columns: For each column, a function of its name and a cell that returns a number or raises InputError.

    Returns:
        The numbers, NaN in wrong rows, and the complaint about each of these by its index.
    """
    values, wrong = np.full((len(rows.cells), len(columns)), np.nan), {}
    for index, cells in enumerate(rows.cells):
        try:
            if len(cells) != len(rows.columns):
                raise InputError(f"{len(cells)} cells under {len(rows.columns)} columns: give one for each")
            row = dict(zip(rows.columns, cells, strict=True))
            values[index] = [convert(name, row[name]) for name, convert in columns.items()]
        except InputError as error:
            wrong[index] = str(error)
    return values, wrong


def text_of(path: Path | str) -> str:
    """Returns the text of a file, without its byte order mark.

    Raises:
        InputError: If it is neither UTF-8 nor marked as UTF-16, and for one of more than a gibibyte.
    """
    data = read_at_most(path, LARGEST)
    try:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        byte = f"byte 0x{data[error.start]:02x}" if error.start < len(data) else "the end"
        raise InputError(
            f"{path}, line {line}: {byte} is not UTF-8, as in a file in Latin-1: save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{path} has NULs, as UTF-16 without its mark or a file that is no text: save it as UTF-8")
    return text


def _rows_of_text(text: str, numbers: list[int]) -> Iterator[str]:
    """The lines that are neither empty nor comments, whose numbers are recorded."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            numbers.append(number)
            yield line


def _check_columns(path: Path | str, columns: list[str]) -> None:
    named = [name for name in columns if name]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise InputError(f"{path} has two columns of the name {twice[0]!r:.60}: rename one, or take it out")
    for separator, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(columns) == 1 and separator in columns[0]:
            raise InputError(
                f"{path} has {word} between its columns: save it with commas, and with points in numbers, as in 0.5"
            )


def _reason(error: csv.Error) -> str:
    if "field larger than" in str(error):
        return f"a cell has more than {LONGEST} characters: is a quotation mark left open? Mend the file"
    return f"{error}: mend the file"
