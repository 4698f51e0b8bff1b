"""A picture of the results: a grid of problems and libraries, with a colour and a sign for each outcome."""

from . import outcomes, table
from .problems import PROBLEMS

# Colours of Okabe and Ito, which differ in brightness too; the signs repeat what they say.
STYLES = {
    outcomes.RIGHT: ("#56b4e9", ""),
    outcomes.INACCURATE: ("#f0e442", "~"),
    outcomes.SILENT: ("#d55e00", "x"),
    outcomes.LOUD: ("#4d4d4d", "!"),
    outcomes.MISSING: ("#ffffff", "-"),
}
UNKNOWN = "#e8e8e8"
COLUMNS = ("first order", "Hessian")


def draw(results: dict[str, dict], path: str) -> None:
    """Draws the picture into a file; its format follows from the ending of the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    libraries = table.ordered(results)
    problems = sorted(PROBLEMS, key=lambda problem: problem.level)
    figure = Figure((3.4 + 0.95 * len(libraries), 1.6 + 0.19 * len(problems)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, problem in enumerate(problems):
        for column, library in enumerate(libraries):
            entry = results[library]["problems"].get(problem.name)
            for part, outcome in enumerate(_outcomes(entry)):
                _cell(axes, column + 0.5 * part, row, outcome)
    _labels(axes, libraries, problems)
    _legend(figure)
    figure.savefig(path, dpi=110)


def _outcomes(entry: dict | None) -> tuple[str | None, str | None]:
    """The outcomes of value, gradient and event times together, and of the Hessian-vector product."""
    if entry is None:
        return None, None
    second = entry["quantities"].get("hvp")
    return table.overall(entry), second and second["outcome"]


def _cell(axes, x: float, y: int, outcome: str | None) -> None:
    from matplotlib.patches import Rectangle

    color, sign = STYLES[outcome] if outcome else (UNKNOWN, "")
    axes.add_patch(Rectangle((x, y), 0.48, 0.92, facecolor=color, edgecolor="#999999", linewidth=0.3))
    ink = "white" if outcome in (outcomes.LOUD, outcomes.SILENT) else "black"
    axes.text(x + 0.24, y + 0.44, sign, ha="center", va="center", fontsize=7, color=ink)


def _labels(axes, libraries: list[str], problems: list) -> None:
    axes.set_xlim(0, len(libraries))
    axes.set_ylim(len(problems), 0)
    ticks = [column + 0.5 * part + 0.24 for column in range(len(libraries)) for part in (0, 1)]
    axes.set_xticks(ticks, [*COLUMNS] * len(libraries), rotation=90, fontsize=7)
    axes.set_yticks(
        [row + 0.45 for row in range(len(problems))], [p.name.replace("_", " ") for p in problems], fontsize=7
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for column, library in enumerate(libraries):
        axes.text(column + 0.49, len(problems) + 0.9, library, ha="center", va="center", fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    levels = [problem.level for problem in problems]
    for level in sorted(set(levels)):
        first = levels.index(level)
        axes.axhline(first - 0.04, color="black", linewidth=0.8)
        axes.text(len(libraries) + 0.05, first + 0.45, f"level {level}", va="center", fontsize=8)


def _legend(figure) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=color, edgecolor="#999999", label=f"{outcome} ({sign})" if sign else outcome)
        for outcome, (color, sign) in STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
