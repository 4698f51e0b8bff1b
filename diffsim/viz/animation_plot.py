"""Animations as figures of several frames and as GIF files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import ArrayLike

from diffsim._errors import InputError
from diffsim.viz.animation import Animation, Extent, Polyline, Shape, bounds, colour
from diffsim.viz.canvas import Canvas, new_axes
from diffsim.viz.gif import palette_of, write_gif

SAMPLES = 8  # frames from which the colours of a GIF are chosen


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
    with world(trails or {}, extent or bounds(shapes, trails or {}), labels, ground) as (figure, axes):
        for shape in static:
            draw(axes, shape, 0, 1.0)
        for frame, alpha in zip(chosen, np.linspace(0.25, 1.0, len(chosen) + 1)[1:], strict=True):
            for shape in moving:
                draw(axes, shape, frame, alpha)
    return figure


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
    with world(animation.trails, extent, animation.labels, ground) as (figure, axes):
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
    drawn = [draw(axes, shape, 0, 1.0) for shape in shapes]
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
def world(
    trails: Mapping[str, ArrayLike], extent: Extent, labels: tuple[str, str], ground: float | None
) -> Iterator[Canvas]:
    """Yields a figure with one scale in both directions, in which trails and ground are drawn."""
    left, right, bottom, top = extent
    height = np.clip(6.4 * (top - bottom) / (right - left), 2.0, 8.0)
    with new_axes(*labels, figsize=(7.0, height + 0.6)) as (figure, axes):
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        if ground is not None:
            axes.axhline(ground, color="0.35", linewidth=1.2, zorder=1)
        for number, (name, path) in enumerate(trails.items()):
            points = np.asarray(path, float)
            axes.plot(*points.T, color=colour(number), linewidth=1.0, alpha=0.7, zorder=1.5, label=name)
        if trails:
            axes.legend()
        yield figure, axes


def draw(axes: Axes, shape: Shape, frame: int, alpha: float) -> Line2D | Circle:
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
