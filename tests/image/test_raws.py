"""Raws: plain mosaics and digital negatives, whose constants come from the file, up to the developed picture."""

import struct
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

import diffsim as ds
from diffsim import image
from diffsim.image import sensor
from diffsim.image.io.raw import rendering_by_libraw
from diffsim.image.sensor import SRGB_TO_XYZ
from diffsim.image.training import train_chain

RNG = np.random.default_rng(0)
# From XYZ to the colours of two invented cameras and of a real one (Adobe's matrix for it).
SEES_SRGB = np.linalg.inv(SRGB_TO_XYZ)
SEES_MIXED = np.array([[0.7, -0.2, -0.05], [-0.4, 1.25, 0.12], [-0.05, 0.2, 0.6]])
SEES_D850 = np.array([[1.0405, -0.3755, -0.1270], [-0.5461, 1.3787, 0.1793], [-0.1040, 0.2015, 0.6785]])


def to_srgb(to_camera):
    """Balanced colours of a camera to linear sRGB, by the definition of digital negatives: white stays white."""
    seen = to_camera @ SRGB_TO_XYZ
    return np.linalg.inv(seen / seen.sum(axis=1, keepdims=True))


def test_binary_mosaics_come_back(tmp_path):
    values = RNG.integers(0, 1024, (6, 8)).astype("<u2")
    (tmp_path / "a.raw").write_bytes(values.tobytes())
    raw = image.read_binary(tmp_path / "a.raw", (6, 8), "gbrg", black=64, white=1023)
    assert raw.pattern == "GBRG"
    np.testing.assert_allclose(raw.mosaic, (values - 64.0) / 959.0, rtol=1e-6, atol=1e-7)


def test_binary_mosaics_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(96))
    for options, message in [
        ({"size": (6, 9)}, "has 96 bytes, but 6 x 9 pixels of 16 bits take 108"),
        ({"size": (6, 8), "pattern": "RGB"}, "pattern='RGB'"),
        ({"size": (6, 8), "bits": 12}, "bits=12"),
        ({"size": (0, 8)}, "size="),
        ({"size": (6, 8), "black": 9, "white": 9}, "black must lie below white"),
    ]:
        with pytest.raises(ds.InputError, match=message):
            image.read_binary(path, **options)


def rational(values):
    return tuple(x for value in values for x in (round(value * 10000), 10000))


def dng(path, mosaic, pattern="RGGB", black=64, white=1023, gains=(2.0, 1.0, 1.5), to_camera=SEES_SRGB, more=()):
    """Writes a digital negative with the required tags only; no matrix if `to_camera` is None.

    `more` are further tags (code, type, count, values), which take the place of those of the same code.
    """
    colors = ["RGB".index(c) for c in pattern]
    tags = [
        (50706, 1, 4, (1, 4, 0, 0)),  # version
        (33421, 3, 2, (2, 2)),  # size of the pattern
        (33422, 1, 4, tuple(colors)),
        (50708, 2, 0, "Test camera"),
        (50714, 3, 1, black),
        (50717, 3, 1, white),
        (50728, 5, 3, rational(1 / g for g in gains)),  # what the camera sees of grey
        (50778, 3, 1, 21),  # daylight
    ]
    if to_camera is not None:
        tags.append((50721, 10, 9, rational(to_camera.ravel())))
    tags = [tag for tag in tags if tag[0] not in {other[0] for other in more}] + list(more)
    tifffile.imwrite(path, mosaic.astype(np.uint16), photometric=32803, extratags=[(*t, True) for t in tags])
    return path


@pytest.mark.parametrize("pattern", image.PATTERNS)
def test_a_digital_negative_brings_its_constants(pattern, tmp_path):
    values = RNG.integers(64, 1024, (32, 48))
    raw = image.read_raw(dng(tmp_path / "a.dng", values, pattern))
    assert raw.pattern == pattern
    np.testing.assert_allclose(raw.mosaic, (values - 64.0) / 959.0, atol=1e-6)
    np.testing.assert_allclose(raw.gains, (2.0, 1.0, 1.5), rtol=1e-3)
    # A camera with the colours of sRGB: its matrix is the identity.
    np.testing.assert_allclose(raw.matrix, np.eye(3), atol=2e-3)


def test_the_matrix_is_that_of_the_file(tmp_path):
    values = RNG.integers(64, 1024, (32, 48))
    matrix = image.read_raw(dng(tmp_path / "a.dng", values, to_camera=SEES_MIXED)).matrix
    assert np.abs(matrix - np.eye(3)).max() > 0.5
    # The file stores the matrix in steps of 1e-4.
    np.testing.assert_allclose(matrix, to_srgb(SEES_MIXED), atol=1e-3)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-6)
    # Without a matrix, and from an unknown camera, colours do not change.
    bare = image.read_raw(dng(tmp_path / "b.dng", values, to_camera=None)).matrix
    np.testing.assert_array_equal(bare, np.eye(3))


def area(*corners):
    return (50829, 4, 4, corners)


def black_pattern(high, wide, values):
    return (50713, 3, 2, (high, wide)), (50714, 5, len(values), rational(values))


def by_column(values):
    return (50715, 10, len(values), rational(values))


def by_row(values):
    return (50716, 10, len(values), rational(values))


ROWS, COLUMNS = np.arange(32) % 5 * 8 - 10, np.arange(48) % 7 - 2.5
QUAD, SIXTEEN = np.array([[60, 64], [70, 75.5]]), np.arange(50, 66).reshape(4, 4)
TURNED = {(0, 0): "RGGB", (0, 1): "GRBG", (1, 0): "GBRG", (1, 1): "BGGR"}
LEVELS = {
    "quad": (black_pattern(2, 2, QUAD.ravel()), np.tile(QUAD, (16, 24))),
    "sixteen": (black_pattern(4, 4, SIXTEEN.ravel()), np.tile(SIXTEEN, (8, 12))),
    "three rows": (black_pattern(3, 1, [8, 16, 64]), np.resize([8, 16, 64], 32)[:, None]),
    "rows": ([by_row(ROWS)], 64 + ROWS[:, None]),
    "columns": ([by_column(COLUMNS)], 64 + COLUMNS),
    "all": (
        [*black_pattern(2, 2, QUAD.ravel()), by_row(ROWS), by_column(COLUMNS)],
        np.tile(QUAD, (16, 24)) + ROWS[:, None] + COLUMNS,
    ),
}


@pytest.mark.parametrize("name", LEVELS)
def test_black_levels_differ_as_the_tags_of_a_negative_say(name, tmp_path):
    tags, black = LEVELS[name]
    values = RNG.integers(100, 1024, (32, 48))
    raw = image.read_raw(dng(tmp_path / "a.dng", values, more=tags))
    # By the definition, one scale for all pixels: from the greatest black level to white.
    np.testing.assert_allclose(raw.mosaic, (values - black) / (1023 - np.max(black)), atol=1e-6)


@pytest.mark.parametrize("corner", [(2, 4), (2, 5), (3, 4), (3, 5)], ids=str)
def test_patterns_of_colors_and_of_black_count_from_the_active_area(corner, tmp_path):
    values = RNG.integers(100, 1024, (32, 48))
    top, left = corner
    rows, columns = ROWS[: 29 - top], COLUMNS[: 45 - left]
    tags = [area(top, left, 29, 45), *black_pattern(2, 2, QUAD.ravel()), by_row(rows), by_column(columns)]
    raw = image.read_raw(dng(tmp_path / "a.dng", values, more=tags))
    black = np.tile(QUAD, (16, 24))[: 29 - top, : 45 - left] + rows[:, None] + columns
    expected = (values[top:29, left:45] - black) / (1023 - black.max())
    # LibRaw leaves out a row and a column if the area begins at odd ones; the pattern is shifted accordingly.
    cut = top % 2, left % 2
    assert raw.pattern == TURNED[cut]
    np.testing.assert_allclose(raw.mosaic, expected[cut[0] :, cut[1] :], atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([by_row(ROWS[:31])], r"tag BlackLevelDeltaV has 31 values where 32 are needed; .*image\.Raw"),
        ([by_column(COLUMNS[:3])], "tag BlackLevelDeltaH has 3 values where 48 are needed"),
        ([(50714, 5, 1, (64, 0))], "tag BlackLevel has a zero for a denominator"),
        ([(50714, 3, 4, (1, 2, 3, 4))], "tag BlackLevel has 4 values where 1 are needed"),
        ([(50713, 3, 2, (0, 2))], "tag BlackLevelRepeatDim is 0 x 2"),
        ([(50717, 3, 4, (1000, 1023, 1023, 900))], "tag WhiteLevel has 4 values that differ"),
        ([(50714, 3, 1, 1023)], "tag WhiteLevel is 1023, which is not above the black level 1023"),
    ],
    ids=["rows", "columns", "denominator", "sites", "no pattern", "white", "no range"],
)
def test_levels_that_cannot_be_read_are_refused_by_their_tag(tags, message, tmp_path):
    path = dng(tmp_path / "a.dng", RNG.integers(100, 1024, (32, 48)), more=tags)
    with pytest.raises(ds.InputError, match=message):
        image.read_raw(path)


def directory(at, entries):
    """The directory of a TIFF file that begins there, with the values that have no place within it behind."""
    kinds = {1: "B", 3: "H", 4: "I", 5: "I"}
    head, more = struct.pack("<H", len(entries)), b""
    for tag, kind, values in entries:
        data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{kinds[kind]}", *values)
        count = len(data) // {3: 2, 4: 4, 5: 8}.get(kind, 1)
        if len(data) > 4:
            data, more = struct.pack("<I", at + 6 + 12 * len(entries) + len(more)), more + data
        head += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
    return head + bytes(4) + more


def write_parts(path, parts):
    """Writes a file with each part at its place."""
    file = bytearray(max(at + len(part) for at, part in parts.items()))
    for at, part in parts.items():
        file[at : at + len(part)] = part
    path.write_bytes(file)
    return path


def mosaic_tags(mosaic, pattern, at):
    """The tags of a mosaic without compression, whose values begin there."""
    height, width = mosaic.shape
    sizes = [(256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1]), (262, 3, [32803])]
    strips = [(273, 4, [at]), (277, 3, [1]), (278, 4, [height]), (279, 4, [2 * mosaic.size])]
    return sizes, strips, [(33421, 3, [2, 2]), (33422, 1, ["RGB".index(c) for c in pattern])]


def nef(path, mosaic, pattern, model, gains=None):
    """Writes a raw as Nikon's cameras do, without compression; white balance as in its maker's note, if `gains`."""
    first, raw, camera, pixels = 8, 512, 1024, 2048
    note = [(1, 7, b"0210")]
    if gains is not None:
        numbers = [round(256 * gain) for gain in (gains[0], gains[2], gains[1], gains[1])]
        note.append((12, 5, [x for number in numbers for x in (number, 256)]))
    note = b"Nikon\0\2\x10\0\0" + b"II*\0\x08\0\0\0" + directory(8, note)
    sizes, strips, colors = mosaic_tags(mosaic, pattern, pixels)
    parts = {
        0: b"II*\0" + struct.pack("<I", first),
        first: directory(
            first, [(271, 2, b"NIKON CORPORATION\0"), (272, 2, model), (330, 4, [raw]), (34665, 4, [camera])]
        ),
        raw: directory(raw, [(254, 4, [0]), *sizes, *strips, *colors]),
        camera: directory(camera, [(37500, 7, note)]),
        pixels: mosaic.astype("<u2").tobytes(),
    }
    return write_parts(path, parts)


def maker_raw(path, mosaic, maker, model, orientation=1, magic=b"II*\0"):
    """Writes a raw without compression as many makers do, in a file that is built like a TIFF."""
    first, pixels = 8, 2048
    sizes, strips, colors = mosaic_tags(mosaic, "RGGB", pixels)
    names = [(271, 2, maker.encode() + b"\0"), (272, 2, model.encode() + b"\0")]
    turned = [(274, 3, [orientation])]
    entries = [(254, 4, [0]), *sizes, *names, *strips[:1], *turned, *strips[1:], *colors]
    parts = {0: magic + struct.pack("<I", first), first: directory(first, entries)}
    return write_parts(path, parts | {pixels: mosaic.astype("<u2").tobytes()})


MAKERS = {  # extension: maker, model, and what else is theirs
    "a.arw": ("SONY", "ILCE-7M3", {"white": 16383}),
    "b.arw": ("SONY", "DSLR-A900", {"white": 16383, "orientation": 6}),
    "a.pef": ("PENTAX Corporation", "PENTAX K10D", {}),
    "b.pef": ("RICOH IMAGING COMPANY, LTD.", "PENTAX K-1", {"orientation": 8}),
    "a.srw": ("SAMSUNG", "NX300", {"orientation": 3}),
    "a.rw2": ("Panasonic", "DMC-GH4", {"seen_as": "BGGR", "magic": b"IIU\0", "black": 15}),
    "a.mef": ("Mamiya", "Mamiya ZD", {}),
    "a.erf": ("SEIKO EPSON CORP.", "R-D1", {}),
    "a.rwl": ("Leica Camera AG", "LEICA Q2", {"orientation": 6}),
    "b.dng": ("LEICA", "M8", {}),
    "a.iiq": ("Phase One", "P 45", {}),
    "a.3fr": ("Hasselblad", "Hasselblad H4D", {}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_makers_raw_is_developed_as_by_libraw(name, tmp_path):
    """A grey and a coloured patch, as the camera sees them in the light of its white balance."""
    maker, model, options = MAKERS[name]
    options = {"white": 65535, "black": 0, "seen_as": "RGGB"} | options
    white, black, pattern = (options.pop(name) for name in ("white", "black", "seen_as"))
    size = 64, 96
    flat = np.full(size, (white + black) // 8)
    given = image.read_raw(maker_raw(tmp_path / name, flat, maker, model, **options))
    assert given.pattern == pattern
    assert (name == "a.3fr") == np.array_equal(given.matrix, np.eye(3))  # LibRaw has no matrix of that camera
    light = np.full((3, *size), 0.18)
    light[:, :, 48:] = np.array([0.3, 0.2, 0.1])[:, None, None]
    seen = np.einsum("ij,jhw->ihw", np.linalg.inv(given.matrix), light) / np.asarray(given.gains)[:, None, None]
    sites = np.array(["RGB".index(c) for c in given.pattern]).reshape(2, 2)
    values = np.take_along_axis(seen, np.tile(sites, (32, 48))[None], axis=0)[0]
    path = maker_raw(tmp_path / name, np.round(black + (white - black) * values), maker, model, **options)
    raw = image.read_raw(path)
    picture, libraw = image.develop(raw, image.Noise(0.0, 0.0)), rendering_by_libraw(path, raw)
    turned = options.get("orientation", 1) in (6, 8)
    assert picture.shape == libraw.shape == (3, *(size[::-1] if turned else size))
    upright = np.rot90(picture, -raw.quarter_turns, axes=(1, 2))
    right = np.asarray(sensor.to_srgb(jnp.asarray(light)))
    for patch in (np.s_[:, 8:-8, 8:40], np.s_[:, 8:-8, 56:88]):
        np.testing.assert_allclose(upright[patch].mean(axis=(1, 2)), right[patch].mean(axis=(1, 2)), atol=3e-3)
    inside = np.s_[:, 8:-8, 8:-8]
    np.testing.assert_allclose(picture[inside].mean(axis=(1, 2)), libraw[inside].mean(axis=(1, 2)), atol=4e-3)


@pytest.mark.parametrize("pattern", image.PATTERNS)
def test_a_known_cameras_raw_has_the_colors_of_its_table(pattern, tmp_path):
    values = RNG.integers(0, 2**16, (32, 48))
    raw = image.read_raw(nef(tmp_path / "a.nef", values, pattern, b"NIKON D850\0", gains=(2.0, 1.0, 1.5)))
    assert raw.pattern == pattern
    np.testing.assert_allclose(raw.mosaic, values / 65535.0, atol=1e-6)
    np.testing.assert_allclose(raw.gains, (2.0, 1.0, 1.5), rtol=1e-6)
    np.testing.assert_allclose(raw.matrix, to_srgb(SEES_D850), atol=1e-4)


def test_a_known_cameras_daylight_is_white_and_its_colors_come_back(tmp_path):
    # Without a white balance in the file; the light of sRGB, and one colour, as this camera sees them.
    color = np.array([0.6, 0.3, 0.2])
    white, seen = (SEES_D850 @ SRGB_TO_XYZ @ np.stack([np.ones(3), color], axis=1)).T
    mosaic = image.mosaic(np.broadcast_to((0.5 * seen / white.max())[:, None, None], (3, 32, 48)))
    raw = image.read_raw(nef(tmp_path / "a.nef", np.round(65535 * np.asarray(mosaic)), "RGGB", b"NIKON D850\0"))
    mean = lambda y, x: raw.mosaic[y::2, x::2].mean()
    balanced = np.array(raw.gains) * [mean(0, 0), mean(0, 1), mean(1, 1)]
    np.testing.assert_allclose(raw.matrix @ balanced / (0.5 * white[1] / white.max()), color, rtol=1e-3)


def test_an_unknown_cameras_colors_stay(tmp_path):
    raw = image.read_raw(nef(tmp_path / "a.nef", RNG.integers(0, 2**16, (32, 48)), "RGGB", b"NIKON NOBODY\0"))
    np.testing.assert_array_equal(raw.matrix, np.eye(3))


def test_raws_that_cannot_be_decoded_are_named(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"II*\0 and no more")
    with pytest.raises(ds.InputError, match="cannot be decoded"):
        image.read_raw(tmp_path / "a.dng")
    with pytest.raises(ds.InputError, match="unknown extension"):
        image.read_raw(tmp_path / "a.txt")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "a.dng").write_bytes(b"II*\0 and no more")
    with pytest.raises(ds.InputError, match=r"pip install 'diffsim\[raw\]'"):
        image.read_raw(tmp_path / "a.dng")


CAMERAS = {
    "a.dng": ("RGGB", {"black": 64, "white": 1023, "gains": (2.0, 1.0, 1.5), "to_camera": SEES_SRGB}),
    "b.dng": ("GBRG", {"black": 2048, "white": 15300, "gains": (1.4, 1.0, 2.3), "to_camera": SEES_MIXED}),
    "c.nef": ("BGGR", {"black": 0, "white": 65535, "gains": (1.8, 1.0, 1.3), "to_camera": SEES_D850}),
}


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("pattern", image.PATTERNS)
def test_a_raw_that_was_written_comes_back(pattern, turns, tmp_path):
    mosaic = RNG.uniform(-0.05, 1.05, (40, 48)).astype(np.float32)
    matrix, noise = np.array(image.Camera().matrix), image.Noise(1e-3, 2e-3)
    raw = image.Raw(mosaic, pattern, (1.9, 1.0, 1.6), matrix, noise, 0.5, turns, (2, 4, 32, 40))
    back = image.read_raw(image.write_raw(tmp_path / "a.dng", raw))
    np.testing.assert_allclose(back.mosaic, mosaic, atol=2e-5)  # a step is 1 / 57344
    np.testing.assert_allclose(back.gains, raw.gains, rtol=1e-5)
    np.testing.assert_allclose(back.matrix, matrix, atol=1e-5)
    np.testing.assert_allclose(back.noise, noise, rtol=1e-6)
    assert back[-3:] == raw[-3:]
    assert back.pattern == pattern
    given = rendering_by_libraw(tmp_path / "a.dng", back, bits=16)
    np.testing.assert_allclose(rendering_by_libraw(tmp_path / "a.dng", back), given, atol=1 / 255)  # both round down


def test_raws_that_cannot_be_written_are_named(tmp_path):
    raw = image.Raw(np.full((4, 6), 0.25, np.float32))
    for name, change, message in [
        ("a.tif", {}, "a.tif: unknown extension '.tif'; a raw is written as .dng"),
        ("a.dng", {"pattern": "RGB"}, "pattern='RGB'"),
        ("a.dng", {"gains": (0.0, 1.0, 1.0)}, r"gains=\(0.0, 1.0, 1.0\): give three numbers above 0"),
        ("a.dng", {"matrix": np.ones((3, 3)) / 3}, "give one with an inverse, whose rows sum to 1"),
        ("a.dng", {"mosaic": np.full((4, 6), np.nan)}, "24 values of the mosaic are not finite"),
    ]:
        with pytest.raises(ds.InputError, match=message):
            image.write_raw(tmp_path / name, raw._replace(**change))


@pytest.mark.slow
def test_three_cameras_raws_of_a_scene_are_developed_alike(tmp_path, scenario):
    # Smooth, so that it does not matter where which colour was seen.
    scene = image.box_filter(jnp.asarray(train_chain.held_out()["china.jpg"][:, 40:120, 60:162]), 3)
    pictures = []
    for name, (pattern, constants) in CAMERAS.items():
        red, _, blue = constants["gains"]
        # Each camera has its own colour matrix, filter pattern and number range.
        matrix = tuple(map(tuple, to_srgb(constants["to_camera"])))
        camera = image.Camera(red=red, blue=blue, matrix=matrix, tone=False)
        seen = image.mosaic(sensor.camera_colors(scene, camera), pattern)
        stored = np.round(constants["black"] + (constants["white"] - constants["black"]) * seen)
        # One row and column less: not an integer number of quads.
        path, stored = tmp_path / name, stored[:79, :101]
        if path.suffix == ".dng":
            dng(path, stored, pattern, **constants)
        else:
            nef(path, stored, pattern, b"NIKON D850\0", constants["gains"])
        out = path.with_suffix(".png")
        done = scenario("enhance", "apply", path, out, "--noise", "low", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        pictures.append(image.read_picture(out))
    assert pictures[0].shape == (3, 79, 101)
    for i, picture in enumerate(pictures):
        assert image.psnr(picture, np.asarray(scene[:, :79, :101])) > 33
        assert image.psnr(picture, pictures[i - 1]) > 40
