"""Picture files as arrays (3, height, width) of numbers in [0, 1], and back, in 8 and 16 bits."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..._errors import InputError
from ..._extras import extra
from ...io.files import check_path, check_writable, write_whole
from ..values import check_floating
from . import png

READ = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
WRITTEN = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


def read_picture(path: Path | str) -> Float[np.ndarray, "3 h w"]:
    """Returns the colour picture in a PNG, TIFF or JPEG file of 8 or 16 bits, as float32 in [0, 1].

    Raises:
        InputError: for another kind of file, a damaged one, another number of bits, and a picture without colours.

    Examples:
        >>> path = ds.image.write_picture("grey.png", np.full((3, 4, 6), 0.2))
        >>> picture = ds.image.read_picture("grey.png")
        >>> picture.shape, picture.dtype.name, round(float(picture.max()), 3)
        ((3, 4, 6), 'float32', 0.2)
    """
    path = Path(path)
    check_extension(path, READ)
    values = read_values(path)
    if values.ndim != 3 or values.shape[2] not in (3, 4):
        raise InputError(f"{path}: has shape {values.shape} and no colours; a picture of three colours is needed")
    return np.moveaxis(values[..., :3].astype(np.float32) / np.iinfo(values.dtype).max, 2, 0)


def read_folder(folder: Path | str, least: tuple[int, int] = (1, 1)) -> dict[str, Float[np.ndarray, "3 _ _"]]:
    """Returns the pictures in a folder, by the names of their files.

    Args:
        folder: where they are.
        least: rows and columns that each has at least.

    Raises:
        InputError: for a folder that does not exist or holds no picture, and for a picture that is too small.
    """
    pictures = {path.name: read_picture(path) for path in picture_files(folder)}
    rows, columns = least
    small = [name for name, x in pictures.items() if x.shape[1] < rows or x.shape[2] < columns]
    if small:
        raise InputError(f"{small[0]}: is too small; give photographs of at least {rows} x {columns} pixels")
    return pictures


def picture_files(folder: Path | str) -> list[Path]:
    """Returns the paths of the pictures in a folder, in the order of their names.

    Raises:
        InputError: for a folder that does not exist or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READ)
    if not files:
        raise InputError(f"{folder}: holds no picture ({', '.join(READ)})")
    return files


def write_picture(path: Path | str, picture: Float[np.ndarray, "3 h w"], bits: int = 8) -> Path:
    """Writes a picture, completely or not at all, and returns the path.

    Args:
        path: a PNG, TIFF or JPEG file.
        picture: its values, clipped to [0, 1].
        bits: 8, or 16 for PNG and TIFF, to which the values are rounded.

    Raises:
        InputError: for an unknown extension, a folder of that name, whole numbers, values that are not finite, and 16
            bits in a JPEG.

    Examples:
        >>> red = np.array([1.0, 0.0, 0.0])[:, None, None] * np.ones((3, 4, 6))
        >>> ds.image.write_picture("red.png", red, bits=16).name
        'red.png'
        >>> ds.image.read_picture("red.png")[:, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    path, picture = Path(path), np.asarray(picture)
    check_output(path)
    if bits not in (8, 16) or (bits == 16 and path.suffix.lower() in (".jpg", ".jpeg")):
        raise InputError(f"bits={bits} for {path.name}: give 8, or 16 with .png or .tif")
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise InputError(f"a picture of shape {picture.shape} cannot be written: (3, height, width) is needed")
    check_floating(picture)
    if not np.isfinite(picture).all():
        raise InputError(f"{np.sum(~np.isfinite(picture))} values of the picture are not finite: nothing is written")
    values = np.round(np.clip(picture, 0.0, 1.0) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return write_whole(path, lambda out: _encode(out, path.suffix.lower(), np.moveaxis(values, 0, 2)))


def check_extension(path: Path, known: tuple[str, ...]) -> None:
    """Checks a file to be read.

    Raises:
        InputError: for an extension that is not `known`, and for a file that does not exist.
    """
    check_path(path)
    if path.suffix.lower() not in known:
        raise InputError(f"{path}: unknown extension {path.suffix!r}; known are {', '.join(known)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file")
    if not path.exists():
        raise InputError(f"{path}: no such file")


def check_output(path: Path | str) -> None:
    """Checks, before the work begins, that a picture can be written to `path`.

    Raises:
        InputError: if it cannot.
    """
    path = Path(path)
    check_writable(path)
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"{path}: unknown extension {path.suffix!r}; pictures are written as {', '.join(WRITTEN)}")


def read_values(path: Path) -> np.ndarray:
    """Returns the values of a picture file as stored, of 8 or 16 bits: (height, width[, channels])."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            values = extra("tifffile", "raw").imread(path)
        else:
            values = _read_with_pillow(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # readers raise many types of errors for damaged files
        raise InputError(f"{path}: cannot be read, {type(error).__name__}: {error}") from error
    if values.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has values of type {values.dtype}; only 8 and 16 bits are known")
    return values


def _read_with_pillow(path: Path) -> np.ndarray:
    data = path.read_bytes()
    if data[:8] == png.SIGNATURE:
        *_, bits, _, interlaced = png.header(data)
        if bits == 16 and not interlaced:
            values = png.decode(data)
            return values[..., 0] if values.shape[2] in (1, 2) else values
    from PIL import Image

    with Image.open(path) as file:
        if file.mode == "P":
            file = file.convert("RGB")
        return np.asarray(file)


def _encode(out, suffix: str, values: np.ndarray) -> None:
    """Writes a picture (height, width, 3) of 8- or 16-bit values into an open file."""
    if suffix in (".tif", ".tiff"):
        buffer = io.BytesIO()  # tifffile asks an open file for its name, and a temporary file has none
        extra("tifffile", "raw").imwrite(buffer, values, photometric="rgb")
        out.write(buffer.getvalue())
    elif values.dtype == np.uint16:
        out.write(png.encode(values))
    else:
        from PIL import Image

        options = {"quality": 95} if suffix in (".jpg", ".jpeg") else {}
        Image.fromarray(values).save(out, format="JPEG" if options else "PNG", **options)
