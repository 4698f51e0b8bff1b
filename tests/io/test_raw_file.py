"""Raw files are judged before they are decoded: what is refused, in which words, and what the tags say."""

import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import diffsim as ds
from diffsim.io.raw_file import RawTags, check_raw_file, raw_tags

ROOT = Path(__file__).parents[2]
VALUES = np.random.default_rng(0).integers(64, 1000, (32, 48)).astype(np.uint16)
NEGATIVE = [(50706, 1, 4, (1, 4, 0, 0)), (50708, 2, 0, "Test camera"), (50714, 3, 1, 64), (50717, 3, 1, 1023)]
BAYER = [(33421, 3, 2, (2, 2)), (33422, 1, 4, (0, 1, 1, 2))]


def negative(path, photometric=32803, values=VALUES, pattern=BAYER, more=()):
    tags = [*NEGATIVE, *pattern, *more]
    tifffile.imwrite(path, values, photometric=photometric, extratags=[(*tag, True) for tag in tags])
    return path


def test_tags(tmp_path):
    assert raw_tags(negative(tmp_path / "a.dng")) == RawTags()
    more = [
        (51041, 12, 6, (1e-3, 4e-6, 2e-3, 4e-6, 3e-3, 4e-6)),
        (50730, 10, 1, (-3, 2)),
        (50719, 4, 2, (2, 4)),
        (50720, 4, 2, (40, 24)),
    ]
    tags = raw_tags(negative(tmp_path / "b.dng", more=more))
    assert tags.noise == pytest.approx((2e-3, 2e-3))
    assert (tags.exposure, tags.crop) == (-1.5, (4, 2, 24, 40))
    raw = ds.image.read_raw(tmp_path / "b.dng")
    assert (raw.noise, raw.exposure, raw.crop) == (ds.image.Noise(*tags.noise), -1.5, (4, 2, 24, 40))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_orientation(tmp_path, orientation, turns):
    path = negative(tmp_path / "a.dng", more=[(274, 3, 1, orientation)])
    assert ds.image.read_raw(path).quarter_turns == turns


def test_a_crop_beyond_the_mosaic_is_refused(tmp_path):
    path = negative(tmp_path / "a.dng", more=[(50719, 4, 2, (8, 8)), (50720, 4, 2, (48, 24))])
    with pytest.raises(
        ds.InputError, match="24 x 48 pixels from row 8 and column 8, does not lie within its mosaic of 32"
    ):
        ds.image.read_raw(path)


def boxes(*lengths):
    """A CR3's boxes, of which the last says that it is `lengths[-1]` bytes long."""
    head = struct.pack(">I4s", 24, b"ftyp") + b"crx " + bytes(12)
    return head + b"".join(struct.pack(">I4s", n, b"mdat") + bytes(max(n - 8, 0)) for n in lengths)


OTHER = {
    "empty.dng": (b"", "is empty"),
    "photo.dng": (b"\xff\xd8\xff\xe0" + bytes(200), "is a JPEG, developed already"),
    "foveon.x3f": (b"FOVb" + bytes(200), "is a raw of a Foveon sensor, which has all colours at every pixel"),
    "cut.cr3": (boxes(64, 4000)[:300], "is truncated: its data ends at byte 4088, the file at 300"),
    "cut.raf": (b"FUJIFILM" + bytes(92) + struct.pack(">2I", 148, 9000), "is truncated"),
    "text.nef": (b"not a raw at all" * 20, "cannot be decoded"),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_complete_raw_is_refused_in_a_second(tmp_path, name):
    content, message = OTHER[name]
    (tmp_path / name).write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(ds.InputError, match=message):
        check_raw_file(tmp_path / name)
    assert time.perf_counter() - began < 2.0  # a second on an idle machine


def test_negatives_without_a_bayer_mosaic_are_refused(tmp_path):
    colors = np.repeat(VALUES[..., None], 3, axis=2)
    with pytest.raises(ds.InputError, match="is a linear raw, which has all colours at every pixel and no mosaic"):
        check_raw_file(negative(tmp_path / "a.dng", 34892, colors, ()))
    with pytest.raises(ds.InputError, match="is developed already: its picture is RGB"):
        check_raw_file(negative(tmp_path / "b.dng", 2, colors, ()))
    xtrans = [(33421, 3, 2, (6, 6)), (33422, 1, 36, tuple([1, 1, 0, 1, 1, 2] * 6))]
    with pytest.raises(ds.InputError, match=r"its pattern has 6 x 6 pixels .X-Trans.; give a raw with a Bayer pattern"):
        check_raw_file(negative(tmp_path / "c.dng", pattern=xtrans))


def test_every_truncation_of_a_negative_is_refused(tmp_path):
    whole = negative(tmp_path / "a.dng").read_bytes()
    for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.999):
        (tmp_path / "cut.dng").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ds.InputError, match=r"cut\.dng"):
            check_raw_file(tmp_path / "cut.dng")
    check_raw_file(tmp_path / "a.dng")


def test_files_are_judged_without_jax(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"FOVb")
    code = f"""
import sys
from diffsim.app.values import RawFile
from pathlib import Path
try:
    RawFile().check("source", Path({str(tmp_path / "a.dng")!r}))
except Exception as error:
    print(type(error).__name__, "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "InputError False\n", done.stderr
