"""All figures: each function returns a new matplotlib `Figure` and changes no global state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.rcsetup import cycler
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
_PARTS = 50  # of the steps of a learning curve, over each of which losses are averaged
CROWD = 4  # names of curves in a legend within the axes; with more, the legend is to their right


def learning_curve(
    loss: ArrayLike,
    validation: ArrayLike | None = None,
    reference: Mapping[str, float] | None = None,
    *,
    validation_steps: ArrayLike | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
) -> Figure:
    """Returns a figure of the loss against the step, on a logarithmic scale unless no loss is positive.

    From 100 steps on, a running mean over a fiftieth of them is drawn over the losses.

    Args:
        loss: The loss of each step, shape (steps,).
        validation: Validation losses.
        reference: Named values, such as published results, each drawn as a horizontal line.
        validation_steps: The steps of the validation losses; by default they are evenly spaced up to the last step.
        xlabel, ylabel: The labels of the axes.
    """
    losses = np.asarray(loss, float)
    with _axes(xlabel, ylabel) as (figure, axes):
        style: dict[str, Any] = {} if validation is None else {"linewidth": 1.0, "alpha": 0.6}
        steps, window = np.arange(1, len(losses) + 1), len(losses) // _PARTS
        if window > 1:
            axes.plot(steps, losses, color=PALETTE[0], linewidth=0.7, alpha=0.3)
            losses = running_mean(losses, window)
        axes.plot(steps, losses, color=PALETTE[0], label="training", **style)
        if validation is not None:
            even = np.linspace(0, len(losses), np.size(validation) + 1)[1:]
            steps = even if validation_steps is None else np.asarray(validation_steps)
            axes.plot(steps, np.asarray(validation, float), label="validation")
        for (label, value), dash in zip((reference or {}).items(), cycle(["--", ":", "-."]), strict=False):
            axes.axhline(value, color="0.25", linewidth=1.0, linestyle=dash, label=f"{label}: {value:.4g}")
        if np.any(losses > 0):
            axes.set_yscale("log", nonpositive="mask")
        if validation is not None or reference:
            _legend_above(axes)
    return figure


def _legend_above(axes: Axes) -> None:
    """Names the curves above the axes, where none of them is covered."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=CROWD, borderaxespad=0.2)


def running_mean(values: ArrayLike, window: int) -> np.ndarray:
    """Returns the mean of each value and its neighbours, along the last axis.

    Args:
        values: Values, shape (..., points).
        window: How many values around each are averaged; fewer at the ends.
    """
    rows, half = np.asarray(values, float), window // 2
    windows = (rows[..., max(at - half, 0) : at + half + 1] for at in range(rows.shape[-1]))
    return np.stack([each.mean(axis=-1) for each in windows], axis=-1)


def curves(
    x: ArrayLike, y: Mapping[str, ArrayLike], xlabel: str, ylabel: str, *, log: str = "", dashed: Sequence[str] = ()
) -> Figure:
    """Returns a figure of named curves over one abscissa.

    Args:
        x: The abscissae, shape (points,).
        y: The curves by name, each of shape (points,).
        xlabel, ylabel: The labels of the axes, with units.
        log: The logarithmic axes: "x", "y", "xy" or none.
        dashed: Names of curves to draw dashed, such as bounds.
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
            _legend_above(axes)
    return figure


def seed_curves(losses: ArrayLike, xlabel: str = "update", ylabel: str = "loss") -> Figure:
    """Returns a figure of the learning curves of several seeds: worst, median and best loss at each step.

    The lines are running means over a fiftieth of the steps; a band shows the losses between worst and best.

    Args:
        losses: The losses, shape (seeds, steps).
        xlabel, ylabel: The labels of the axes.
    """
    rows = np.asarray(losses, float)
    levels = {"worst seed": rows.max(axis=0), "median": np.median(rows, axis=0), "best seed": rows.min(axis=0)}
    steps = np.arange(1, rows.shape[1] + 1)
    smooth = {name: running_mean(level, rows.shape[1] // _PARTS) for name, level in levels.items()}
    figure = curves(steps, smooth, xlabel, ylabel, log="y", dashed=("worst seed", "best seed"))
    figure.axes[0].fill_between(steps, levels["best seed"], levels["worst seed"], color="0.5", alpha=0.15, linewidth=0)
    return figure


def gradient_growth(growths: Mapping[str, GradientGrowth], dt: float) -> Figure:
    """Returns a figure of the derivative of a step's cost in the first state against the step's time.

    Args:
        growths: Results of `control.gradient_growth`, by name.
        dt: The duration of a step in s.
    """
    lengths = next(iter(growths.values())).lengths
    norms = {name: growth.norm_initial_state / growth.norm_initial_state[0] for name, growth in growths.items()}
    return curves(dt * lengths, norms, "time of the step (s)", "growth of the derivative", log="xy")


def wrapped(angle: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Returns a path for `field_map` with the angle between -pi and pi, and a gap where it jumps.

    Args:
        angle: Angles in rad, shape (points,).
        y: The other coordinate, shape (points,).

    Returns:
        The points, shape (points, 2).
    """
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
    """Returns a figure of values over a plane as colours. Cells without a finite value are hatched grey.

    Args:
        x, y: The coordinates of the columns and the rows.
        values: The values, shape (len(y), len(x)).
        xlabel, ylabel, label: The labels of the axes and of the colour bar, with units.
        log: Whether the colours are logarithmic; cells without a positive value are then hatched too.
        mask: Cells to hatch, of the shape of `values`.
        contours: Levels to draw as labelled lines.
        paths: Named lines to draw, each of shape (points, 2).
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
        colour_bar = figure.colorbar(mesh, ax=axes, label=label)
        colour_bar.outline.set_visible(False)
    return figure


def pictures(images: Mapping[str, ArrayLike], columns: int = 4) -> Figure:
    """Returns a figure of pictures side by side under their names.

    Args:
        images: The pictures by name. Colour pictures (height, width, 3) are clipped to [0, 1]; those of shape
            (height, width) are drawn grey, from the least to the greatest value.
        columns: The number of pictures in a row.
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
    """Returns a figure of several frames of an animation, drawn over one another, with one scale for both axes.

    Args:
        shapes: The shapes to draw.
        trails: Paths of chosen points by name, shape (frames, 2).
        frames: The frames of the moving shapes to draw, earlier ones paler; by default six from first to last.
        extent: The visible region (left, right, bottom, top), by default all that is drawn.
        labels: The labels of the axes.
        ground: The height of a line for the ground, if one is drawn.
    """
    moving = [shape for shape in shapes if len(shape.frames()) > 1]
    static = [shape for shape in shapes if len(shape.frames()) == 1]
    count = max((len(shape.frames()) for shape in moving), default=1)
    chosen = np.unique(np.linspace(0, count - 1, 6).astype(int)).tolist() if frames is None else frames
    with _world(trails or {}, extent or bounds(shapes, trails or {}), labels, ground) as (figure, axes):
        for shape in static:
            _draw(axes, shape, 0, 1.0)
        for frame, alpha in zip(chosen, np.linspace(0.25, 1.0, len(chosen) + 1)[1:], strict=True):
            for shape in moving:
                _draw(axes, shape, frame, alpha)
    return figure


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Writes a figure, completely or not at all, and returns its path.

    Args:
        figure: The figure.
        path: The file to write. Its extension chooses the format: .png, .svg or .pdf.

    Returns:
        The path.

    Raises:
        InputError: For another extension.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path}: unknown extension '{path.suffix}'; give .png, .svg or .pdf")
    return write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower()))


def save_animation(animation: Animation, path: Path | str, fps: int = 25, *, ground: float | None = None) -> Path:
    """Writes an animation as a GIF that plays in real time, completely or not at all, and returns its path.

    Args:
        animation: The animation.
        path: The file to write, with the extension .gif.
        fps: Frames per second.
        ground: The height of a line for the ground, if one is drawn.

    Returns:
        The path.

    Raises:
        InputError: For another extension.
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
    """Returns a function from a frame's number to its pixels (height, width, 3); the axes are drawn only once."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, so that the axes do not move between frames
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
    """Yields a new figure and its axes; the style applies within the context."""
    with matplotlib.rc_context({"axes.prop_cycle": cycler(color=PALETTE)}, STYLE):
        figure = Figure(figsize=figsize)
        axes = figure.add_subplot()
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield figure, axes


@contextmanager
def _world(
    trails: Mapping[str, ArrayLike], extent: Extent, labels: tuple[str, str], ground: float | None
) -> Iterator[Canvas]:
    """Yields a figure with one scale in both directions, in which trails and ground are drawn."""
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
    """Draws a shape and returns its artist; all have one zorder, so that later shapes cover earlier ones."""
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
    """Moves a drawn shape to its position in a frame."""
    frames = shape.frames()
    points = frames[min(frame, len(frames) - 1)]
    if isinstance(artist, Line2D):
        artist.set_data(*points.T)
        return
    finite = bool(np.isfinite(points).all())
    artist.set(center=tuple(points[0]) if finite else (0.0, 0.0), visible=finite)
