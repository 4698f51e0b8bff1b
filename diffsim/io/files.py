"""Atomic writes: a file is written next to its place, flushed to the disk and renamed; and checks of paths."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .._errors import InputError, RunError

PARTIAL = ".partial"  # what the name of a file ends in while it is written
LONGEST = 255 - len(PARTIAL)  # bytes of a file's name that a system takes, with room for that end


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Writes a file completely or not at all, and returns its path.

    A pipe or a device, such as /dev/stdout, is written to as it is. Two processes must not write to the same path at
    the same time.

    Args:
        path: The file.
        write: Writes the content to an open file.

    Raises:
        InputError: For a path that cannot be written.
        RunError: If the disk is full or refuses; what was there before is then as it was.
    """
    path = Path(path)
    check_writable(path)
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                write(stream)
        else:
            _replace(target, write)
            _flush_folder(target.parent)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{path} was not saved: {reason}. What was there before is as it was") from error
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text in UTF-8, as `write_whole`, and returns the path."""
    data = text.encode()
    return write_whole(path, lambda file: file.write(data))


def read_at_most(path: str | Path, limit: int) -> bytes:
    """Returns the bytes of a file; it may be a pipe, or a device without an end.

    Args:
        path: The file.
        limit: The number of bytes that it may have.

    Raises:
        InputError: For a folder, and for a file with more bytes.
    """
    path = Path(path)
    check_path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path} has more than {limit} bytes: give a smaller file")
    return data


def check_path(path: Path) -> None:
    """Checks that a path is one that a system can have.

    Raises:
        InputError: For one with a NUL, for one that is not UTF-8, and for one that is too long.
    """
    try:
        long = max((len(part.encode()) for part in path.parts), default=0)
    except UnicodeEncodeError:
        raise InputError(f"{str(path)!r} is not UTF-8: rename the file") from None
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} has a NUL, which no path has: leave it out")
    if long > LONGEST:
        raise InputError(f"{_short(path)}: a name of {long} bytes, which is too long; give at most {LONGEST}")
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # the operation on the path reports these errors more precisely
    except OSError as error:
        raise InputError(f"{_short(path)} cannot be a path: {error.strerror}; give another") from error


def check_writable(path: Path) -> None:
    """Checks, before the work begins, that a file can be written to a path.

    Raises:
        InputError: If not.
    """
    check_path(path)
    target = Path(os.path.realpath(path))
    check_path(target)
    if target.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist; make it first")
    if target.exists():
        if not os.access(target, os.W_OK):
            raise InputError(f"{path} is protected from writing: give another path, or permit it")
        if not target.is_file():
            return
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the folder {target.parent} is protected from writing: give another path")


def clear_partial(folder: Path) -> None:
    """Removes the partial files that a killed process left in a folder and those in it."""
    for partial in folder.rglob(f"*{PARTIAL}"):
        with suppress(OSError):
            partial.unlink()


def partial_of(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(path.name + PARTIAL)


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> None:
    partial = partial_of(target)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _flush_folder(folder: Path) -> None:
    """Flushes a folder, where the system allows it, so that a new name survives a power failure."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"
