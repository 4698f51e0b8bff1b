"""The report page of a run: one self-contained HTML file, for screen, phone and paper.

A scenario adds its parts from top to bottom:

    page = Report("Trebuchet aimed by a network", subtitle="2000 steps of Adam")
    page.settings(run.settings)
    page.table("Result", ["quantity", "value", "published"], [["miss (m)", 0.12, 0.3]])
    page.figure(plot.learning_curve(losses), "The loss falls by four orders of magnitude.")
    page.write(run.folder / "report.html")
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from diffsim._errors import InputError
from diffsim.gradcheck.report import GradientCheck
from diffsim.graph.computational_graph import Graph
from diffsim.io.files import write_text
from diffsim.io.json_encoding import plain, show
from diffsim.viz.animation import Animation, Disc, Polyline

__all__ = ["Animation", "Disc", "Polyline", "Report"]

FOLDER = Path(__file__).parent


class Report:
    """A page to which parts are added from top to bottom. Every title starts a section, listed in the contents.

    All text is escaped: nothing is interpreted as HTML.

    Args:
        title: The title of the page.
        subtitle: A line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[tuple[str, str]] = []
        self._blocks: list[dict[str, Any]] = []

    def section(self, title: str) -> None:
        """Starts a section with this title."""
        stem = re.sub(r"\W+", "-", title.lower()).strip("-") or "section"
        taken = {anchor for anchor, _ in self._sections}
        anchor, number = stem, 2
        while anchor in taken:
            anchor, number = f"{stem}-{number}", number + 1
        self._sections.append((anchor, title))
        self._add("section", anchor=anchor, title=title)

    def settings(self, values: Mapping[str, Any], title: str = "Settings") -> None:
        """Adds a section with a table of names and values, such as `run.settings`."""
        self.section(title)
        self._add("settings", rows=[(name, show(value)) for name, value in values.items()])

    def result(self, values: Mapping[str, Any], title: str = "Result") -> None:
        """Adds a section with the results of a run, as its command returns them.

        Names are written as words, numbers with three significant digits, and an entry named `..._seconds` in s.
        """
        self.section(title)
        self._add("settings", rows=[_described(name, value) for name, value in values.items()])

    def text(self, text: str) -> None:
        """Adds paragraphs, which are separated by empty lines."""
        self._add("text", paragraphs=[part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()])

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds a section with a table.

        Args:
            title: The title of the section.
            columns: The names of the columns.
            rows: The cells of each row, None for an empty one. Columns of numbers are aligned to the right, with six
                significant digits.

        Raises:
            ValueError: If a row has another number of cells than there are columns.
        """
        self.section(title)
        numeric = [bool(cells) and _is_numeric(cells) for _, *cells in zip(columns, *rows, strict=True)]
        texts = [["" if value is None else show(value) for value in row] for row in rows]
        self._add("table", columns=columns, rows=texts, numeric=numeric)

    def figure(self, fig: Any, caption: str, *, vector: bool = False) -> None:
        """Adds a matplotlib figure.

        Args:
            fig: The figure.
            caption: The text below.
            vector: Whether to embed it as SVG, which is sharp at any size, instead of PNG.
        """
        buffer = io.BytesIO()
        fig.savefig(buffer, format="svg" if vector else "png", dpi=180)
        source = _embedded(buffer, "svg+xml" if vector else "png")
        self._add("picture", source=source, caption=caption, width=round(96 * fig.get_figwidth()))

    def graph(self, graph: Graph, drawing: Any, title: str = "Computational graph") -> None:
        """Adds a section with a computational graph: its drawing, and tables of its forward and reverse mode.

        Args:
            graph: The graph.
            drawing: Its figure, as `plot.graph` returns it.
            title: The title of the section.
        """
        self.section(title)
        self.figure(drawing, "Inputs above, the result below; value, tangent and adjoint in each box.", vector=True)
        self.table(f"{title}: values and tangents", *graph.forward())
        self.table(f"{title}: adjoints", *graph.reverse())

    def certificate(self, check: GradientCheck, title: str = "Gradient certificate") -> None:
        """Adds a section with a gradient check: the verdict on each parameter, notes and suspects."""
        columns = ["parameter", "reverse", "forward", "differences", "+-", "verdict"]
        rows = [(r.name, r.reverse, r.forward, r.difference, r.error, r.verdict) for r in check.rows]
        self.table(title, columns, rows)
        for row in check.rows:
            for note in (*row.notes, *(f"suspect {suspect}" for suspect in row.suspects)):
                self.text(f"{row.name}: {note}")
        for hint in check.hints:
            self.text(hint)

    def picture(self, pixels: Any, caption: str) -> None:
        """Adds a picture: an array (height, width, 3) of 8-bit values."""
        self._add("picture", source=_png(pixels), caption=caption, width=None)

    def before_after(self, before: Any, after: Any, caption: str, title: str = "Before and after") -> None:
        """Adds a section with two pictures, one over the other, and a slider that moves the border between them.

        Args:
            before: The picture on the left of the border: an array (height, width, 3) of 8-bit values.
            after: The picture on its right, of the same shape.
            caption: The text below.
            title: The title of the section.

        Raises:
            InputError: If the pictures differ in shape.
        """
        if before.shape != after.shape:
            raise InputError(f"pictures of shapes {before.shape} and {after.shape} cannot be compared")
        self.section(title)
        self._add("before_after", before=_png(before), after=_png(after), caption=caption)

    def animation(self, animation: Animation, caption: str = "", title: str = "Animation") -> None:
        """Adds a section that plays an animation, with a button, a time slider, arrow keys and two speeds."""
        self.section(title)
        self._add("animation", scene=plain(animation.data()), caption=caption, title=title)

    def interactive(self, title: str, script: str | Path, data: Mapping[str, Any], caption: str) -> None:
        """Adds a section whose drawing a script of your own makes, from sliders that it adds and from data.

        The script runs once, after the page; it finds its figure as `figure.interactive`, in it a `canvas`, a division
        `.sliders`, an `output`, and the data as JSON in a `script`.

        Args:
            title: The title of the section.
            script: The file of the script, which becomes a part of the page.
            data: What the script needs, as numbers, texts, lists and mappings.
            caption: The text below.
        """
        self.section(title)
        source = Path(script).read_text(encoding="utf-8")
        self._add("interactive", title=title, source=source, data=plain(data), caption=caption)

    def html(self) -> str:
        """Returns the page as HTML."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
        is_moving = any(block["kind"] == "animation" for block in self._blocks)
        return environment.get_template("report.html").render(
            title=self.title,
            subtitle=self.subtitle,
            sections=self._sections,
            blocks=self._blocks,
            script=(FOLDER / "animation.js").read_text(encoding="utf-8") if is_moving else "",
        )

    def write(self, path: str | Path) -> Path:
        """Writes the page completely or not at all, and returns the path."""
        return write_text(path, self.html())

    def _add(self, kind: str, **content: Any) -> None:
        """Adds a block; the template has a layout for each kind."""
        self._blocks.append({"kind": kind, **content})


def _described(name: str, value: Any) -> tuple[str, str]:
    """The name of a result in words, and its value as text with its unit."""
    words = name.split("_")
    unit = " s" if "seconds" in words and _is_number(value) else ""
    label = " ".join(word for word in words if word != "seconds" or len(words) == 1)
    if isinstance(value, bool):
        return label, "yes" if value else "no"
    if _is_number(value):
        number = float(value)
        is_large = abs(number) >= 100 and np.isfinite(number)
        return label, (f"{number:,.0f}" if is_large or number.is_integer() else f"{number:.3g}") + unit
    return label, show(value)


def _png(pixels: Any) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return _embedded(buffer, "png")


def _embedded(buffer: io.BytesIO, kind: str) -> str:
    """The data URL of a picture embedded in the page."""
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _is_numeric(column: Sequence[Any]) -> bool:
    """Whether the cells of a column are numbers, or empty."""
    return all(value is None or _is_number(value) for value in column)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)
