"""Every figure: each function returns a new matplotlib `Figure` and touches no global state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from diffsim._errors import InputError
from diffsim.control.gradient_growth import GradientGrowth
from diffsim.io.files import write_whole
from diffsim.viz.animation import PALETTE, Extent, Shape, bounds, colour
from diffsim.viz.animation import Animation as Animation
from diffsim.viz.animation import Disc as Disc
from diffsim.viz.animation import Polyline as Polyline
from diffsim.viz.gif import palette_of, write_gif
from diffsim.viz.graph_plot import graph as graph
from diffsim.viz.graph_plot import stages as stages
from diffsim.viz.posterior_plot import fit_band as fit_band
from diffsim.viz.posterior_plot import profile_curve as profile_curve

STYLE = Path(__file__).with_name("plot.mplstyle")
Canvas = tuple[Figure, Axes]
SAMPLES = 8  # frames from which the colours of a GIF are chosen
CROWD = 4  # names of curves that fit into the axes; more stand beside them


def learning_curve(
    loss: ArrayLike,
    validation: ArrayLike | None = None,
    reference: Mapping[str, float] | None = None,
    *,
    validation_steps: ArrayLike | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
) -> Figure:
    """Returns the loss (steps,) against the step, on a logarithmic scale unless no loss is positive.

    `validation` values belong to `validation_steps`, or else are spread evenly up to the last step;
    `reference` draws a level line for each named value, such as a published figure.
    """
    losses = np.asarray(loss, float)
    with _axes(xlabel, ylabel) as (figure, axes):
        quiet: dict[str, Any] = {} if validation is None else {"linewidth": 1.0, "alpha": 0.6}
        axes.plot(np.arange(1, len(losses) + 1), losses, label="training", **quiet)
        if validation is not None:
            even = np.linspace(0, len(losses), np.size(validation) + 1)[1:]
            steps = even if validation_steps is None else np.asarray(validation_steps)
            axes.plot(steps, np.asarray(validation, float), label="validation")
        for (label, value), dash in zip((reference or {}).items(), cycle(["--", ":", "-."]), strict=False):
            axes.axhline(value, color="0.25", linewidth=1.0, linestyle=dash, label=f"{label}: {value:.4g}")
        if np.any(losses > 0):
            axes.set_yscale("log", nonpositive="mask")
        if validation is not None or reference:
            axes.legend()
    return figure


def curves(
    x: ArrayLike, y: Mapping[str, ArrayLike], xlabel: str, ylabel: str, *, log: str = "", dashed: Sequence[str] = ()
) -> Figure:
    """Returns the named curves `y`, each (points,), against `x`; labels are to name their units.

    `log` names the logarithmic axes: "x", "y" or "xy". Curves in `dashed`, such as bounds, are drawn so.
    """
    with _axes(xlabel, ylabel) as (figure, axes):
        for number, (name, values) in enumerate(y.items()):
            style = "--" if name in dashed else "-" if number < len(PALETTE) else ":"
            axes.plot(np.asarray(x), np.asarray(values), label=name, linestyle=style)
        for axis in log:
            getattr(axes, f"set_{axis}scale")("log", nonpositive="mask")
        if len(y) > CROWD:
            figure.legend(loc="outside right center", fontsize=8)
        elif len(y) > 1:
            axes.legend()
    return figure


def seed_curves(losses: ArrayLike, xlabel: str = "update", ylabel: str = "loss") -> Figure:
    """Returns the learning curves of several seeds, (seeds, steps): at each step the worst, the median, the best."""
    rows = np.asarray(losses, float)
    levels = {"worst seed": rows.max(axis=0), "median": np.median(rows, axis=0), "best seed": rows.min(axis=0)}
    steps = np.arange(1, rows.shape[1] + 1)
    return curves(steps, levels, xlabel, ylabel, log="y", dashed=("worst seed", "best seed"))


def gradient_growth(growths: Mapping[str, GradientGrowth], dt: float) -> Figure:
    """Returns the growth of the derivative of a step's cost in the first state against the step's time.

    `growths` are what `control.gradient_growth` measured, by name; a step takes `dt` seconds.
    """
    lengths = next(iter(growths.values())).lengths
    norms = {name: growth.norm_initial_state / growth.norm_initial_state[0] for name, growth in growths.items()}
    return curves(dt * lengths, norms, "time of the step (s)", "growth of the derivative", log="xy")


def wrapped(angle: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Returns a path (points, 2) for `field_map`: the angle from -pi to pi, with a gap where it comes round."""
    turned = (np.asarray(angle, float) + np.pi) % (2 * np.pi) - np.pi
    jumps = np.abs(np.diff(turned, prepend=turned[:1])) > np.pi
    return np.column_stack([np.where(jumps, np.nan, turned), np.asarray(y, float)])


def field_map(
    x: ArrayLike,
    y: ArrayLike,
    values: ArrayLike,
    xlabel: str,
    ylabel: str,
    label: str,
    *,
    log: bool = False,
    mask: ArrayLike | None = None,
    contours: Sequence[float] = (),
    paths: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Returns a map of `values` (len(y), len(x)), its colours explained by a bar with `label`.

    Cells where `mask` is true, or without a finite value (with `log`, a positive one), are hatched grey.
    `contours` are levels to draw as labelled lines, `paths` named rows (points, 2) of places to join up.
    """
    field = np.asarray(values, float)
    hidden = ~np.isfinite(field) | (field <= 0 if log else False)
    hidden |= False if mask is None else np.asarray(mask, bool)
    shown = np.ma.array(field, mask=hidden)
    low, high = (1.0, 10.0) if hidden.all() else (shown.min(), shown.max())
    norm = LogNorm(low, high) if log else Normalize(low, high)
    with _axes(xlabel, ylabel, figsize=(6.4, 4.6)) as (figure, axes):
        axes.grid(False)
        axes.patch.set(facecolor="0.9", hatch="////", edgecolor="0.7")
        mesh = axes.pcolormesh(np.asarray(x), np.asarray(y), shown, norm=norm, cmap="viridis", shading="nearest")
        levels = sorted(level for level in contours if low < level < high)
        if levels:
            lines = axes.contour(np.asarray(x), np.asarray(y), shown, levels, colors="white", linewidths=1.0)
            # Dark edges keep white readable on the bright end of the map.
            edge = [withStroke(linewidth=2.0, foreground="0.25")]
            lines.set(path_effects=edge)
            for text in axes.clabel(lines, fmt="%g", fontsize=8):
                text.set(path_effects=edge)
        for number, (name, points) in enumerate((paths or {}).items()):
            line = np.asarray(points, float)
            axes.plot(
                *line.T, color=colour(number + 1), label=name, path_effects=[withStroke(linewidth=3, foreground="w")]
            )
            axes.plot(*line[-1], "o", color=colour(number + 1), markeredgecolor="white")
        if paths:
            axes.set(xlim=np.asarray(x, float)[[0, -1]], ylim=np.asarray(y, float)[[0, -1]])
            axes.legend(framealpha=0.8, frameon=True)
        bar = figure.colorbar(mesh, ax=axes, label=label)
        bar.outline.set_visible(False)
    return figure


def pictures(images: Mapping[str, ArrayLike], columns: int = 4) -> Figure:
    """Returns pictures side by side under their names: (height, width, 3) in [0, 1], cut to it, or (height, width).

    One without colours is drawn grey, from its least to its greatest value.
    """
    rows = -(-len(images) // columns)
    shapes = [np.shape(image)[:2] for image in images.values()]
    height = max((2.0 * h / w for h, w in shapes), default=1.0) + 0.3
    with matplotlib.rc_context({}, STYLE):
        figure = Figure(figsize=(2.0 * columns, rows * height))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, image) in zip(grid.flat, images.items(), strict=False):
            values = np.asarray(image, float)
            axes.imshow(np.clip(values, 0, 1) if values.ndim == 3 else values, cmap="gray", interpolation="nearest")
            axes.set_title(name, fontsize=8)
    return figure


def polylines(
    shapes: Sequence[Shape],
    trails: Mapping[str, ArrayLike] | None = None,
    *,
    frames: Sequence[int] | None = None,
    extent: Extent | None = None,
    labels: tuple[str, str] = ("x (m)", "height (m)"),
    ground: float | None = None,
) -> Figure:
    """Returns one still picture of shapes in world coordinates, equal on both axes, as under a stroboscope.

    Of the moving shapes the given `frames` are drawn, by default six from first to last, the earlier ones
    paler; `ground` is the height of a line to stand on.
    """
    moving = [shape for shape in shapes if len(shape.frames()) > 1]
    still = [shape for shape in shapes if len(shape.frames()) == 1]
    count = max((len(shape.frames()) for shape in moving), default=1)
    chosen = np.unique(np.linspace(0, count - 1, 6).astype(int)).tolist() if frames is None else frames
    with _world(trails or {}, extent or bounds(shapes, trails or {}), labels, ground) as (figure, axes):
        for shape in still:
            _draw(axes, shape, 0, 1.0)
        for frame, alpha in zip(chosen, np.linspace(0.25, 1.0, len(chosen) + 1)[1:], strict=True):
            for shape in moving:
                _draw(axes, shape, frame, alpha)
    return figure


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Returns `path`, where the figure now is, as its extension says: .png, .svg or .pdf; all of it, or nothing new.

    Raises `InputError` for another extension.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path}: unknown extension '{path.suffix}'; give .png, .svg or .pdf")
    return write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower()))


def save_animation(animation: Animation, path: Path | str, fps: int = 25, *, ground: float | None = None) -> Path:
    """Returns `path`, where the animation is now a GIF that plays in real time.

    Raises `InputError` if the name does not end in .gif.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise InputError(f"{path}: an animation can be written as .gif only")
    times = np.asarray(animation.times, float)
    clock = np.arange(times[0], times[-1] + 1 / fps, 1 / fps)
    chosen = (np.searchsorted(times, clock, side="right") - 1).tolist()
    extent = animation.extent or bounds(animation.shapes, animation.trails)
    with _world(animation.trails, extent, animation.labels, ground) as (figure, axes):
        render = _renderer(figure, axes, animation.shapes)
        samples = [render(frame) for frame in chosen[:: -(-len(chosen) // SAMPLES)]]
        palette = palette_of(samples, [colour(shape.colour) for shape in animation.shapes])
        return write_gif(path, map(render, chosen), palette, fps)


def _renderer(figure: Figure, axes: Axes, shapes: Sequence[Shape]) -> Callable[[int], np.ndarray]:
    """Returns a function from a frame's number to its pixels (height, width, 3); only what moves is drawn again."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, so that the axes stay where they are
    drawn = [_draw(axes, shape, 0, 1.0) for shape in shapes]
    legend = axes.get_legend()
    above = drawn if legend is None else [*drawn, legend]
    for artist in above:
        artist.set_animated(True)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)

    def render(frame: int) -> np.ndarray:
        canvas.restore_region(background)
        for artist, shape in zip(drawn, shapes, strict=True):
            _move(artist, shape, frame)
        for artist in above:
            axes.draw_artist(artist)
        return np.array(canvas.buffer_rgba())[..., :3]

    return render


@contextmanager
def _axes(xlabel: str, ylabel: str, figsize: tuple[float, float] | None = None) -> Iterator[Canvas]:
    """Gives a new figure and its axes, to be drawn on while the style holds."""
    with matplotlib.rc_context({"axes.prop_cycle": cycler(color=PALETTE)}, STYLE):
        figure = Figure(figsize=figsize)
        axes = figure.add_subplot()
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield figure, axes


@contextmanager
def _world(
    trails: Mapping[str, ArrayLike], extent: Extent, labels: tuple[str, str], ground: float | None
) -> Iterator[Canvas]:
    """Gives a figure with one scale in both directions, the trails and the ground drawn."""
    left, right, bottom, top = extent
    height = np.clip(6.4 * (top - bottom) / (right - left), 2.0, 8.0)
    with _axes(*labels, figsize=(7.0, height + 0.6)) as (figure, axes):
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        if ground is not None:
            axes.axhline(ground, color="0.35", linewidth=1.2, zorder=1)
        for number, (name, path) in enumerate(trails.items()):
            points = np.asarray(path, float)
            axes.plot(*points.T, color=colour(number), linewidth=1.0, alpha=0.7, zorder=1.5, label=name)
        if trails:
            axes.legend()
        yield figure, axes


def _draw(axes: Axes, shape: Shape, frame: int, alpha: float) -> Line2D | Circle:
    """Returns the shape as drawn; one zorder for all, so that later shapes cover earlier ones."""
    if isinstance(shape, Polyline):
        (artist,) = axes.plot([], [], color=colour(shape.colour), linewidth=shape.width)
    else:
        size = max(np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim()))
        artist = Circle((0.0, 0.0), shape.drawn_radius(size), color=colour(shape.colour), linewidth=0)
        axes.add_patch(artist)
    artist.set(alpha=alpha, zorder=3)
    _move(artist, shape, frame)
    return artist


def _move(artist: Line2D | Circle, shape: Shape, frame: int) -> None:
    """Puts a drawn shape where it is in a frame."""
    frames = shape.frames()
    points = frames[min(frame, len(frames) - 1)]
    if isinstance(artist, Line2D):
        artist.set_data(*points.T)
        return
    finite = bool(np.isfinite(points).all())
    artist.set(center=tuple(points[0]) if finite else (0.0, 0.0), visible=finite)
