"""Numbers in the documents, read from the results files.

    python docs/results_files.py

writes the present results into README.md, the pages of docs/ and scenarios/README.md. A number that comes from a file
is followed by a comment with its place: `0.02%<!-- trebuchet/commands/main/mean_miss -->` is that entry of
docs/results/trebuchet.json, in percent because of its unit, with as many decimals as stood there before (`2.6e-16`
keeps its exponent), and `2.1<!-- solvers/tables/a/min_us : solvers/tables/b/min_us -->` is a quotient. Entries whose
name ends in `_us`, `_ms` or `_seconds` are converted to the unit that follows the number. The lines between
`<!-- table: NAME -->` and `<!-- end -->` are that table of docs/tables.py.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path

from tables import TABLES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "scenarios" / "README.md"]

MARK = re.compile(
    r"(?P<number>-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)(?P<unit>(?: ?(?:%|[a-zA-Z]+))?)<!-- (?P<place>\S[^>]*?) -->"
)
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "seconds": 1.0}


def entry(place: str):
    """Returns the entry of a results file at a place `file/key/.../key`; lists are entered by number.

    Raises:
        KeyError: For a place that does not exist, with the names that do.
    """
    file, *keys = place.split("/")
    path = RESULTS / f"{file}.json"
    if not path.exists():
        raise KeyError(f"{place}: no file {path.name} in docs/results")
    value = json.loads(path.read_text())
    for key in keys:
        names = value if isinstance(value, dict) else [str(i) for i in range(len(value))]
        if key not in names:
            raise KeyError(f"{place}: no {key!r} among {', '.join(names)}")
        value = value[key] if isinstance(value, dict) else value[int(key)]
    return value


def fill(text: str) -> str:
    """Returns the text with the number before each mark, and each table, replaced by those of the results files."""
    text = BLOCK.sub(lambda match: f"{match[1]}{TABLES[match[2]](entry)}\n{match[3]}", text)
    return MARK.sub(_filled, text)


def _filled(match: re.Match) -> str:
    first, _, second = match["place"].partition(" : ")
    value = _in_unit(first, "s") / _in_unit(second, "s") if second else _in_unit(first, match["unit"].strip())
    mantissa, exponent, _ = match["number"].partition("e")
    decimals = len(mantissa.partition(".")[2])
    number = f"{value:.{decimals}e}" if exponent else f"{value:,.{decimals}f}"
    number = re.sub(r"e(-?)\+?0*(?=\d)", r"e\1", number)
    return f"{number}{match['unit']}<!-- {match['place']} -->"


def _in_unit(place: str, unit: str) -> float:
    """The entry in a unit; numbers without one of these units as they are."""
    value, kind = entry(place), place.rpartition("/")[2].rpartition("_")[2]
    if "seconds" in place.rpartition("/")[2]:
        kind = "s"
    if unit == "%":
        return 100 * value
    return value * _SECONDS[kind] / _SECONDS[unit] if kind in _SECONDS and unit in _SECONDS else value


def write(name: str, command: str, measured: dict[str, dict]) -> None:
    """Writes docs/results/NAME.json: the command, the date, the machine, the versions, and what was measured.

    Args:
        name: The name of the file.
        command: What measured it.
        measured: Groups of entries; other entries of a group in an existing file are kept.
    """
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} shared {platform.machine()} cores",
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
    }
    groups = {group: before.get(group, {}) | entries for group, entries in measured.items()}
    path.write_text(json.dumps(before | about | groups, indent=1) + "\n")


def main() -> None:
    """Writes the present results into every page."""
    for page in PAGES:
        old = page.read_text()
        new = fill(old)
        if new != old:
            page.write_text(new)
            print(f"updated {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
