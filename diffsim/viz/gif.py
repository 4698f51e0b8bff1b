"""Animated GIF files: each pixel has the nearest colour of one palette for all frames."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..io.files import write_whole

COLOURS = 256  # that a GIF can have
SHADES = 16  # between a colour and white, as on the edge of a line


def write_gif(path: Path, frames: Iterable[np.ndarray], palette: np.ndarray, fps: int) -> Path:
    """Writes frames as an animated GIF that repeats, completely or not at all, and returns its path.

    All frames share one palette: choosing one for every frame would take most of the time.

    Args:
        path: The file to write.
        frames: Pictures of bytes, each of shape (height, width, 3).
        palette: The colours (256, 3), as `palette_of` chooses them.
        fps: Frames per second.

    Returns:
        `path`.
    """
    nearest = _nearest(palette)

    def image(frame: np.ndarray) -> Image.Image:
        indexed = Image.fromarray(nearest(frame))
        indexed.putpalette(palette.tobytes())
        return indexed

    images = map(image, frames)
    first = next(images)
    options = {"save_all": True, "append_images": images, "duration": 1000 // fps, "loop": 0, "optimize": False}
    return write_whole(path, lambda file: first.save(file, format="GIF", **options))


def palette_of(frames: Sequence[np.ndarray], colours: Sequence[str]) -> np.ndarray:
    """Returns the 256 colours of a GIF: given ones with their shades up to white, and the most frequent ones.

    Args:
        frames: Pictures (height, width, 3) of bytes whose frequent colours are taken.
        colours: Hexadecimal colours such as "#0072b2" that must be in the palette.

    Returns:
        The palette, shape (256, 3).
    """
    shade = np.linspace(0.0, 1.0, SHADES)[:, None]
    ramps = [(1 - shade) * np.frombuffer(bytes.fromhex(c[1:]), np.uint8) + 255 * shade for c in sorted(set(colours))]
    fixed = np.concatenate([*ramps, np.empty((0, 3))]).round().astype(np.uint8)
    codes, counts = np.unique(_code(np.stack(frames)), return_counts=True)
    frequent = codes[np.argsort(-counts, kind="stable")][: COLOURS - len(fixed)]
    palette = np.concatenate([fixed, np.stack([frequent >> 16, frequent >> 8 & 255, frequent & 255], axis=1)])
    return np.pad(palette, ((0, COLOURS - len(palette)), (0, 0)), mode="edge").astype(np.uint8)


def _code(frame: np.ndarray) -> np.ndarray:
    """Returns one number for the colour of each pixel."""
    red, green, blue = np.moveaxis(frame.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _nearest(palette: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from pixels to the indices of the nearest colours, which caches them."""
    table = np.full(1 << 24, -1, np.int16)
    entries = palette.astype(int)

    def indices(frame: np.ndarray) -> np.ndarray:
        code = _code(frame)
        unknown = np.unique(code[table[code] < 0])
        for part in np.array_split(unknown, 1 + len(unknown) // 4096):
            values = np.stack([part >> 16, part >> 8 & 255, part & 255], axis=1)
            table[part] = np.argmin(np.sum((values[:, None] - entries) ** 2, axis=-1), axis=1)
        return table[code].astype(np.uint8)

    return indices
