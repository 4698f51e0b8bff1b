"""An animation as data: lines and discs in world coordinates, and the times of its frames."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffsim._errors import InputError
from diffsim.io.json_encoding import plain

# Okabe and Ito's colours, which colour-blind readers can distinguish.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

SMALLEST = 1 / 300  # radius of a disc as a fraction of the picture

Extent = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Polyline:
    """A line through points, which may move.

    Attributes:
        points: Shape (frames, points, 2), or (points, 2) if the line does not move.
        colour: The number of its colour in the palette.
        width: In points of 1/72 inch.
    """

    points: ArrayLike
    colour: int = 0
    width: float = 2.0

    def frames(self) -> np.ndarray:
        """Returns the points, (frames, points, 2), with one frame for a line that does not move."""
        points = np.asarray(self.points, float)
        return points[None] if points.ndim == 2 else points


@dataclass(frozen=True, eq=False)
class Disc:
    """A disc, which may move.

    Attributes:
        centre: Shape (frames, 2), or (2,) if the disc does not move.
        radius: In the units of the coordinates.
        colour: The number of its colour in the palette.
    """

    centre: ArrayLike
    radius: float
    colour: int = 0

    def drawn_radius(self, size: float) -> float:
        """Returns the radius in a picture whose longer side is `size`, at least 1/300 of it, so that it is visible."""
        return max(float(self.radius), SMALLEST * float(size))

    def frames(self) -> np.ndarray:
        """Returns the centre, (frames, 1, 2), with one frame for a disc that does not move."""
        return np.atleast_2d(np.asarray(self.centre, float))[:, None]


Shape = Polyline | Disc


@dataclass(frozen=True, eq=False)
class Animation:
    """Shapes that move, and the times of their frames. Coordinates that are not finite leave gaps.

    Attributes:
        times: Times of the frames in seconds, increasing, shape (frames,).
        shapes: The shapes to draw, later ones over earlier ones.
        trails: Paths of chosen points by name, shape (frames, 2), each drawn as a line behind its point.
        extent: The visible region (left, right, bottom, top), by default all that is drawn in any frame.
        labels: The labels of the axes.

    Raises:
        InputError: If the numbers of frames differ, or the times are not finite and increasing.
    """

    times: ArrayLike
    shapes: Sequence[Shape]
    trails: Mapping[str, ArrayLike] = field(default_factory=dict)
    extent: Extent | None = None
    labels: tuple[str, str] = ("x (m)", "height (m)")

    def __post_init__(self) -> None:
        times = np.asarray(self.times, float)
        count = len(times)
        if count == 0 or not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
            raise InputError("the times of an animation must be finite and increasing, and at least one")
        for number, shape in enumerate(self.shapes):
            _check(f"shape {number}", shape.frames(), {1, count})
        for name, path in self.trails.items():
            _check(f"trail '{name}'", np.asarray(path)[:, None], {count})

    def data(self) -> dict[str, Any]:
        """Returns the animation as lists for JSON, rounded to a hundred-thousandth of its size.

        A frame of a shape is the flat list x0, y0, x1, y1, ...; None stands for what is not finite.
        """
        left, right, bottom, top = self.extent or bounds(self.shapes, self.trails)
        size = max(right - left, top - bottom)
        times = np.asarray(self.times, float)
        return {
            "times": _rounded(times, np.ptp(times)),
            "extent": [left, right, bottom, top],
            "labels": list(self.labels),
            "shapes": [_shape_data(shape, size) for shape in self.shapes],
            "trails": [
                {"name": name, "colour": colour(number), "points": _rounded(np.ravel(path), size)}
                for number, (name, path) in enumerate(self.trails.items())
            ],
        }


def colour(number: int) -> str:
    """Returns colour `number` of the palette, which repeats after its end."""
    return PALETTE[number % len(PALETTE)]


def bounds(shapes: Iterable[Shape], trails: Mapping[str, ArrayLike], margin: float = 0.05) -> Extent:
    """Returns (left, right, bottom, top) around all finite points, with a margin relative to their range."""
    boxes = [np.asarray(path, float).reshape(-1, 2) for path in trails.values()]
    for shape in shapes:
        points, radius = shape.frames().reshape(-1, 2), getattr(shape, "radius", 0.0)
        boxes += [points - radius, points + radius]
    points = np.concatenate([*boxes, np.empty((0, 2))])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return -1.0, 1.0, -1.0, 1.0
    low, high = points.min(axis=0), points.max(axis=0)
    pad = margin * float(max(high - low)) or 1.0
    return float(low[0]) - pad, float(high[0]) + pad, float(low[1]) - pad, float(high[1]) + pad


def _check(name: str, frames: np.ndarray, counts: set[int]) -> None:
    if frames.ndim != 3 or frames.shape[-1] != 2 or len(frames) not in counts:
        raise InputError(
            f"{name} has {len(frames)} frames of shape {frames.shape[1:]}; expected "
            f"{max(counts)} frames of points (x, y), one for each time"
        )


def _shape_data(shape: Shape, size: float) -> dict[str, Any]:
    frames = [_rounded(frame.ravel(), size) for frame in shape.frames()]
    if isinstance(shape, Disc):
        return {"colour": colour(shape.colour), "radius": shape.drawn_radius(size), "frames": frames}
    return {"colour": colour(shape.colour), "width": shape.width, "frames": frames}


def _rounded(values: ArrayLike, size: float) -> list[float | None]:
    """Returns the values to a hundred-thousandth of `size`: more digits only make a page larger."""
    decimals = 5 - math.ceil(math.log10(size)) if size > 0 else 5
    rounded = np.round(np.asarray(values, float), decimals) + 0.0  # no negative zeros
    return plain(rounded)
