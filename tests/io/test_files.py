"""Files that are written completely or not at all, and paths that no file can have."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from diffsim._errors import InputError, RunError
from diffsim.io import csv, idx, measurements
from diffsim.io.files import check_path, check_writable, clear_partial, write_text, write_whole
from diffsim.viz import plot


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udcff")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_and_links_stay(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "text")
    assert os.read(reader, 99) == b"text"
    os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(RunError, match="/dev/full was not saved: No space left"):
        write_text("/dev/full", "text")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/a.txt", "the folder .*absent does not exist; make it first"),
        (".", "is a folder; give the name of a file"),
        ("file/a.txt", "the folder .*file does not exist"),
        ("a" * 300, "a name of 300 bytes, which is too long; give at most 247"),
        ("a\0b", "has a NUL"),
        ("\udcff.txt", r"udcff.txt' is not UTF-8: rename the file"),
        ("a/" * 3000 + "a", "File name too long"),
    ],
    ids=lambda value: value[:12].encode("ascii", "backslashreplace").decode().replace("\0", "NUL"),
)
def test_paths_that_cannot_be_written_are_named(name, message, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message) as error:
        check_writable(tmp_path / name)
    assert len(str(error.value)) < 400


def test_folders_and_files_protected_from_writing_are_named(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a.txt", "old")
    # A superuser may write anywhere, so the answer of the system is replaced instead of the file's mode.
    monkeypatch.setattr(os, "access", lambda where, mode: Path(where) != path)
    with pytest.raises(InputError, match="is protected from writing: give another path, or permit it"):
        write_text(path, "new")
    monkeypatch.setattr(os, "access", lambda where, mode: Path(where) == path)
    with pytest.raises(InputError, match=r"the folder .* is protected from writing"):
        check_writable(path)
    assert path.read_text() == "old"


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "figures").mkdir()
    complete = write_text(tmp_path / "fit.npz", "")
    for name in ("fit.npz.partial", "figures/a.png.partial"):
        (tmp_path / name).write_text("half")
    clear_partial(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [complete]


def test_a_path_may_be_of_a_file_that_is_not_there(tmp_path):
    check_path(tmp_path / "absent" / "a.txt")


def test_paths_may_be_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_text("# by hand\nt,x\n0,1\n1,2\n")
    (tmp_path / "i.idx").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]))
    assert csv.remarks("m.csv") == ["by hand"]
    np.testing.assert_array_equal(measurements.read_measurements("m.csv", ["x"])["x"], [1.0, 2.0])
    np.testing.assert_array_equal(idx.read_idx("i.idx"), [5, 6])
    assert plot.save_figure(Figure(), "f.png").stat().st_size > 0
    with pytest.raises(InputError, match=r"unknown extension '\.xyz'"):
        plot.save_figure(Figure(), "f.xyz")
