"""Tables of other programs: read, or refused with the reason and the remedy."""

import csv
import os
import re

import numpy as np
import pytest

from diffsim import InputError
from diffsim.io.csv import read_rows, remarks
from diffsim.io.measurements import read_measurements
from diffsim.io.model_table import read_table, write_table
from diffsim.systems.pendulum import Pendulum

TEXT = "# made up\ntime,angle\n0,1.5\n1,\n2,-1e-1\n"
READ = {
    "UTF-8": TEXT.encode(),
    "a byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "empty lines and no end": b"\n" + TEXT.replace("\n1,", "\n\n  \n1,").rstrip().encode(),
    "quoted": TEXT.replace("1.5", '"1.5"').replace("time", '"time"').encode(),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_however_it_was_saved(name, tmp_path):
    (tmp_path / "a.csv").write_bytes(READ[name])
    columns = read_measurements(tmp_path / "a.csv", ["time", "angle"], gaps=["angle"], increasing="time")
    np.testing.assert_array_equal(columns["time"], [0, 1, 2])
    np.testing.assert_array_equal(columns["angle"], [1.5, np.nan, -0.1])
    assert remarks(tmp_path / "a.csv") == ["made up"]


REFUSED = {
    "Latin-1": ("# Größe\n".encode("latin-1") + TEXT.encode(), "line 1: byte 0xf6 is not UTF-8"),
    "UTF-16 without its mark": (TEXT.encode("utf-16-le"), "has NULs, as UTF-16 without its mark"),
    "half of UTF-16": (TEXT.encode("utf-16")[:-1], "is not UTF-8"),
    "semicolons": (
        b"time;angle\n0;1,5\n1;2\n",
        "has semicolons between its columns: save it with commas, and with points",
    ),
    "tabs": (b"time\tangle\n0\t1\n", "has tabs between its columns"),
    "decimal commas": (
        b'time,angle\n0,"1,5"\n1,2\n',
        "line 2: angle='1,5' is not a number; give a decimal point, as in 0.5",
    ),
    "a column twice": (b"time,angle,angle\n0,1,2\n1,2,3\n", "has two columns of the name 'angle': rename one"),
    "a long cell": (b"time,angle\n0," + b"1" * 1_000_000 + b"\n", "line 2: a cell has more than 10000 characters"),
    "a cell without an end": (b'time,angle\n0,"1\n' + b"1,2\n" * 5000, "is a quotation mark left open?"),
    "a stray quotation mark": (b'time,angle\n0,"1"2\n', "line 2: ',' expected after '\"': mend the file"),
    "digits in groups": (b"time,angle\n0,1_000\n1,2\n", "line 2: angle='1_000' is not a number"),
    "a long word": (b"time,angle\n0," + b"x" * 9000 + b"\n1,2\n", "line 2: angle='xxxx"),
    "nothing": (b"", "is empty: give a header"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_read_is_refused(name, tmp_path):
    data, message = REFUSED[name]
    (tmp_path / "a.csv").write_bytes(data)
    limit = csv.field_size_limit()
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_measurements(tmp_path / "a.csv", ["time", "angle"])
    assert len(str(error.value)) < 500
    assert csv.field_size_limit() == limit
    if message.startswith("has "):
        with pytest.raises(InputError, match=re.escape(message)):
            read_table(tmp_path / "a.csv", Pendulum(), {})


def test_tables_of_machines_take_the_same_files(tmp_path):
    (tmp_path / "a.csv").write_bytes("length,mass,note\n1.5,2,ö\n1.5\n1.5,2,3,4\n1.5,2_0,\n".encode("utf-16"))
    table = read_table(tmp_path / "a.csv", Pendulum(), {}, ["note"])
    assert table.columns == ["length", "mass"]
    np.testing.assert_array_equal(table.values[0], [1.5, 2.0])
    assert sorted(table.bad) == [1, 2, 3]
    assert table.bad[1] == "1 cells under 3 columns: give one for each"
    assert "mass='2_0' is not a number" in table.bad[3]


def test_a_table_is_written_completely_or_not_at_all(tmp_path):
    (tmp_path / "a.csv").write_text("length,note\n1.5,ö\n2.5,b\n")
    table = read_table(tmp_path / "a.csv", Pendulum(), {}, ["note"])
    out = tmp_path / "out.csv"
    write_table(out, table, {"range": np.array([0.1, 1 / 3])}, ["taut", "taut"], keep=["note"])
    first = out.read_bytes()
    assert first.decode().splitlines() == ["length,note,range,status", "1.5,ö,0.1,taut", f"2.5,b,{1 / 3!r},taut"]
    with pytest.raises(IndexError):
        write_table(out, table, {"range": np.array([0.1])}, ["taut", "taut"])
    assert out.read_bytes() == first
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "out.csv"]
    assert read_rows(out).columns == ["length", "note", "range", "status"]


def test_a_short_first_row_is_written_with_all_columns(tmp_path):
    (tmp_path / "a.csv").write_text("length,mass\n1.5\n2.5,3\n")
    table = read_table(tmp_path / "a.csv", Pendulum(), {})
    write_table(tmp_path / "out.csv", table, {"range": np.array([0.1, 0.2])}, ["taut", "taut"])
    first = "1.5,,nan,bad_input: 1 cells under 2 columns: give one for each"
    assert (tmp_path / "out.csv").read_text().splitlines() == ["length,mass,range,status", first, "2.5,3,0.2,taut"]
    np.testing.assert_array_equal(table.values[0], [Pendulum().length, Pendulum().mass])
