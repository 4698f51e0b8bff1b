"""The page of a run: one HTML file that needs nothing beside it, for screen, phone and paper.

A scenario fills it from top to bottom:

    page = Report("Trebuchet aimed by a network", subtitle="2000 steps of Adam")
    page.settings(run.settings)
    page.table("Result", ["quantity", "reached", "published"], [["miss (m)", 0.12, 0.3]])
    page.figure(plot.learning_curve(losses), "The loss falls by four orders.")
    page.write(run.folder / "report.html")
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from diffsim._errors import InputError
from diffsim.gradcheck.check import GradientCheck
from diffsim.graph.computational_graph import Graph
from diffsim.io.files import write_text
from diffsim.io.json_encoding import json_line, show
from diffsim.viz.animation import Animation, Disc, Polyline

__all__ = ["Animation", "Disc", "Polyline", "Report"]

_CONTROLS = """<div class="controls"><button type="button">Play</button>
<input type="range" min="0" value="0" aria-label="time">
<output>0 s</output>
<select aria-label="speed"><option value="1">real time</option><option value="0.25">1/4 of real time</option>
</select></div>"""


class Report:
    """A page that grows from top to bottom; every title starts a section that the contents list.

    Text is escaped throughout: nothing given is taken for HTML.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[tuple[str, str]] = []
        self._body: list[str] = []

    def section(self, title: str) -> None:
        """Starts a section."""
        stem = re.sub(r"\W+", "-", title.lower()).strip("-") or "section"
        taken = {anchor for anchor, _ in self._sections}
        anchor, number = stem, 2
        while anchor in taken:
            anchor, number = f"{stem}-{number}", number + 1
        self._sections.append((anchor, title))
        self._body.append(f'<h2 id="{escape(anchor)}"><a href="#{escape(anchor)}">{escape(title)}</a></h2>')

    def settings(self, values: Mapping[str, Any], title: str = "Settings") -> None:
        """Adds a section with a table of names and values."""
        self.section(title)
        rows = (f"<tr><th>{escape(str(k))}</th><td>{escape(show(v))}</td></tr>" for k, v in values.items())
        self._body.append(f'<div class="wide"><table class="settings"><tbody>{"".join(rows)}</tbody></table></div>')

    def text(self, text: str) -> None:
        """Adds paragraphs, which empty lines part."""
        self._body += [f"<p>{escape(part.strip())}</p>" for part in re.split(r"\n\s*\n", text) if part.strip()]

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds a section with a table; columns of numbers align right, with six significant digits."""
        self.section(title)
        kinds = [_kind(column) for column in zip(*rows, strict=True)] or [""] * len(columns)
        head = _row("th", columns, kinds)
        body = "".join(_row("td", row, kinds) for row in rows)
        self._body.append(f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>')

    def figure(self, fig: Any, caption: str, *, vector: bool = False) -> None:
        """Adds a matplotlib figure as a picture within the page; `vector` keeps it sharp at any size (SVG)."""
        buffer = io.BytesIO()
        fig.savefig(buffer, format="svg" if vector else "png", dpi=180)
        data = base64.b64encode(buffer.getvalue()).decode()
        width = round(96 * fig.get_figwidth())
        kind = "svg+xml" if vector else "png"
        self._body.append(
            f'<figure><img width="{width}" alt="{escape(caption)}" src="data:image/{kind};base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def graph(self, graph: Graph, drawing: Any, title: str = "Computational graph") -> None:
        """Adds a section with a computational graph: its drawing (`plot.graph`), forward and reverse table."""
        self.section(title)
        self.figure(drawing, "Inputs above, the result below; value, tangent and adjoint in each box.", vector=True)
        self.table(f"{title}: values and tangents", *graph.forward())
        self.table(f"{title}: adjoints", *graph.reverse())

    def certificate(self, check: GradientCheck, title: str = "Gradient certificate") -> None:
        """Adds a section with a gradient check: a verdict per parameter, notes and suspects."""
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
        self._body.append(f"<figure>{_image(pixels, caption)}<figcaption>{escape(caption)}</figcaption></figure>")

    def before_after(self, before: Any, after: Any, caption: str, title: str = "Before and after") -> None:
        """Adds a section with two pictures of one size, arrays (height, width, 3) of 8-bit values, and a slider.

        The slider moves the border between the first, on its left, and the second.
        """
        if before.shape != after.shape:
            raise InputError(f"pictures of shapes {before.shape} and {after.shape} cannot lie on each other")
        self.section(title)
        self._body.append(
            '<figure class="compare"><div>'
            f"{_image(after, 'after')}{_image(before, 'before')}</div>"
            '<input type="range" min="0" max="100" value="50" aria-label="border between before and after" '
            "oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\">"
            f"<figcaption>Left of the border before, right of it after. {escape(caption)}</figcaption></figure>"
        )

    def animation(self, animation: Animation, caption: str = "", title: str = "Animation") -> None:
        """Adds a section in which the animation plays: button, time slider, arrow keys, two speeds."""
        self.section(title)
        data = animation.data()
        legend = "".join(
            f'<span><i style="border-color:{trail["colour"]}"></i>{escape(trail["name"])}</span>'
            for trail in data["trails"]
        )
        # A "<" in a label could close the script element early.
        scene = json_line(data).replace("<", "\\u003c")
        self._body.append(
            '<figure class="animation" tabindex="0">'
            f'<canvas role="img" aria-label="{escape(title)}"></canvas>'
            f'{_CONTROLS}<figcaption>{escape(caption)} <span class="legend">{legend}</span></figcaption>'
            f'<script type="application/json">{scene}</script></figure>'
        )

    def html(self) -> str:
        """Returns the whole page."""
        links = "".join(f'<a href="#{escape(anchor)}">{escape(title)}</a>' for anchor, title in self._sections)
        moving = any('class="animation"' in part for part in self._body)
        return Template(_data("report.html")).substitute(
            title=escape(self.title),
            subtitle=f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else "",
            contents=f'<nav aria-label="Contents">{links}</nav>' if len(self._sections) > 1 else "",
            body="\n".join(self._body),
            script=f"<script>{_data('animation.js')}</script>" if moving else "",
        )

    def write(self, path: str | Path) -> Path:
        """Returns `path`, where the page is now written: the whole page, or what was there before."""
        return write_text(path, self.html())


def _image(pixels: Any, text: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _data(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _kind(column: Sequence[Any]) -> str:
    return ' class="number"' if all(value is None or _is_number(value) for value in column) else ""


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)


def _row(tag: str, values: Sequence[Any], kinds: Sequence[str]) -> str:
    """Returns a table row; None is an empty cell."""
    texts = ("" if value is None else escape(show(value)) for value in values)
    cells = (f"<{tag}{kind}>{text}</{tag}>" for text, kind in zip(texts, kinds, strict=True))
    return f"<tr>{''.join(cells)}</tr>"
