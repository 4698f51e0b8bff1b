"""All figures: each function returns a new matplotlib `Figure` and changes no global state."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from diffsim._errors import InputError
from diffsim.control.gradient_growth import GradientGrowth
from diffsim.io.files import write_whole
from diffsim.viz.animation import PALETTE, colour
from diffsim.viz.animation import Animation as Animation
from diffsim.viz.animation import Disc as Disc
from diffsim.viz.animation import Polyline as Polyline
from diffsim.viz.animation_plot import polylines as polylines
from diffsim.viz.animation_plot import save_animation as save_animation
from diffsim.viz.canvas import STYLE, new_axes
from diffsim.viz.graph_plot import graph as graph
from diffsim.viz.graph_plot import stages as stages
from diffsim.viz.learning_rate_plot import learning_rate_range as learning_rate_range
from diffsim.viz.posterior_plot import fit_band as fit_band
from diffsim.viz.posterior_plot import profile_curve as profile_curve

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
    with new_axes(xlabel, ylabel) as (figure, axes):
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
    x: ArrayLike,
    y: Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    *,
    log: str = "",
    dashed: Sequence[str] = (),
    points: tuple[ArrayLike, Mapping[str, ArrayLike]] | None = None,
) -> Figure:
    """Returns a figure of named curves over one abscissa.

    Args:
        x: The abscissae, shape (points,).
        y: The curves by name, each of shape (points,).
        xlabel, ylabel: The labels of the axes, with units.
        log: The logarithmic axes: "x", "y", "xy" or none.
        dashed: Names of curves to draw dashed, such as bounds.
        points: Abscissae of measurements, and their values by the name of the curve; NaN is a gap.
    """
    with new_axes(xlabel, ylabel) as (figure, axes):
        for number, (name, values) in enumerate(y.items()):
            style = "--" if name in dashed else "-" if number < len(PALETTE) else ":"
            (line,) = axes.plot(np.asarray(x), np.asarray(values), label=name, linestyle=style)
            if points is not None and name in points[1]:
                axes.plot(np.asarray(points[0]), np.asarray(points[1][name]), ".", color=line.get_color())
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
    with new_axes(xlabel, ylabel, figsize=(6.4, 4.6)) as (figure, axes):
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
