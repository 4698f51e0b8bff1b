"""Picture files and trained parameters: round trips, files of other programs, damage, bad requests."""

import re
import struct
import tracemalloc

import jax
import jax.random as jr
import numpy as np
import pytest
import tifffile
from PIL import Image

import diffsim as ds
from diffsim import image
from diffsim.image import pretrained
from diffsim.image.io import png
from diffsim.io.checkpoint import read, write
from diffsim.io.leaves import Leaf

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_come_back_as_written(bits, suffix, tmp_path):
    peak = 2**bits - 1
    values = RNG.integers(0, peak + 1, (3, 17, 23))
    path = image.write_picture(tmp_path / f"a{suffix}", values / peak, bits)
    picture = image.read_picture(path)
    assert picture.dtype == np.float32
    np.testing.assert_array_equal(np.round(picture.astype(float) * peak), values)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_of_png_is_undone(kind):
    """Rows encoded by the definition, byte by byte."""
    pixels = RNG.integers(0, 256, (6, 7, 6), dtype=np.uint8)
    coded = np.zeros_like(pixels)
    for y in range(6):
        for x in range(7):
            for k in range(6):
                left, above = (int(pixels[y, x - 1, k]) if x else 0), (int(pixels[y - 1, x, k]) if y else 0)
                corner = int(pixels[y - 1, x - 1, k]) if x and y else 0
                nearest = min((left, above, corner), key=lambda v, p=left + above - corner: abs(p - v))
                guess = (0, left, above, (left + above) // 2, nearest)[kind]
                coded[y, x, k] = (int(pixels[y, x, k]) - guess) % 256
    np.testing.assert_array_equal(png._unfilter(np.full(6, kind), coded), pixels)


def test_a_png_that_unpacks_to_more_than_its_header_says_takes_no_memory(tmp_path):
    tall = png.encode(np.zeros((10**8 // 8, 1, 4), np.uint16))
    start = png._chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 6, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(tall[:8] + start + tall[33:])
    tracemalloc.start()
    with pytest.raises(ds.InputError, match=r"a\.png: is a damaged or cut off PNG file"):
        image.read_picture(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 5 * 10**6
    tracemalloc.stop()


def test_a_16_bit_png_is_read_by_others(tmp_path):
    grey = np.broadcast_to(np.linspace(0, 1, 20), (3, 4, 20))
    path = image.write_picture(tmp_path / "a.png", grey, 16)
    np.testing.assert_allclose(np.asarray(Image.open(path).convert("RGB"))[0, :, 0] / 255, grey[0, 0], atol=0.01)


def test_jpeg_is_read_and_written(tmp_path):
    smooth = np.broadcast_to(np.linspace(0.2, 0.8, 32), (3, 32, 32))
    np.testing.assert_allclose(image.read_picture(image.write_picture(tmp_path / "a.jpg", smooth)), smooth, atol=0.02)


def test_bad_pictures_are_named(tmp_path):
    complete = image.write_picture(tmp_path / "a.png", np.zeros((3, 9, 9)), 16)
    (tmp_path / "cut.png").write_bytes(complete.read_bytes()[:60])
    (tmp_path / "short.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "no.jpg").write_bytes(b"not a picture")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "complete.tif", np.zeros((400, 4, 3), np.uint8), photometric="rgb")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "complete.tif").read_bytes()[:500])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "folder.png").mkdir()
    for name, message in {
        "cut.png": "cut off",
        "short.png": "cut off",
        "no.jpg": "cannot be read",
        "deep.tif": "type float32",
        "cut.tif": "cannot be read",
        "grey.png": "no colours",
        "folder.png": "is a folder",
        "none.png": "no such file",
        "a.gif": "unknown extension '.gif'",
    }.items():
        with pytest.raises(ds.InputError, match=message) as caught:
            image.read_picture(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.usefixtures("wrong_types")
def test_bad_writes_are_named_and_leave_nothing(tmp_path, monkeypatch):
    good = np.zeros((3, 4, 4))
    (tmp_path / "folder.png").mkdir()
    for path, picture, bits, message in [
        ("folder.png", good, 8, "is a folder"),
        ("a.gif", good, 8, "unknown extension"),
        ("a.jpg", good, 16, "bits=16"),
        ("none/a.png", good, 8, "the folder .*none does not exist"),
        ("a.png", np.full((3, 4, 4), np.nan), 8, "48 values .* not finite"),
        ("a.png", np.zeros((4, 4)), 8, r"shape \(4, 4\)"),
    ]:
        with pytest.raises(ds.InputError, match=message):
            image.write_picture(tmp_path / path, picture, bits)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(png, "encode", fail)
    with pytest.raises(ds.RunError, match=r"a\.png was not saved: disk full"):
        image.write_picture(tmp_path / "a.png", good, 16)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("task", pretrained.WIDTHS)
def test_parameters_come_back_from_their_file(task, tmp_path):
    chain = pretrained.untrained(task, (4, 4), key=jr.key(3))
    loaded_task, loaded = pretrained.load(pretrained.save(tmp_path / "a.npz", task, chain))
    assert loaded_task == task
    for a, b in zip(jax.tree.leaves(chain), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a.astype(np.float32), b)


def test_files_without_parameters_are_named(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK and no more")
    with pytest.raises(ds.InputError, match=r"a\.npz is no checkpoint of diffsim"):
        pretrained.load(path)
    with pytest.raises(ds.InputError, match="cannot be read"):
        pretrained.load(tmp_path / "b.npz")
    ds.save(path, {"merge": np.zeros((2, 2, 3, 3))})
    with pytest.raises(ds.InputError, match=r"a\.npz holds no parameters of a chain: .*`task`"):
        pretrained.load(path)
    with pytest.raises(ds.InputError, match="task='other'"):
        pretrained.trained("other")
    with pytest.raises(ds.InputError, match=r"widths=\(4,\): give two"):
        pretrained.untrained("noisy", (4,), key=jr.key(0))


ABOUTS = {
    "no task": ({"widths": [3]}, "`task`"),
    "another task": ({"task": "other", "widths": [3]}, "Invalid enum value 'other'"),
    "no widths": ({"task": "demosaic"}, "`widths`"),
    "widths that are text": ({"task": "demosaic", "widths": "3"}, "widths"),
    "a width that is true": ({"task": "demosaic", "widths": [True]}, "widths"),
    "no channels": ({"task": "demosaic", "widths": [0]}, "widths"),
    "widths beyond memory": ({"task": "demosaic", "widths": [10**9]}, "<= 1024"),
    "many layers": ({"task": "demosaic", "widths": [1] * 17}, "length <= 16"),
}


@pytest.mark.parametrize("name", ABOUTS)
def test_a_wrong_description_of_a_chain_is_named(name, tmp_path):
    about, message = ABOUTS[name]
    write(tmp_path / "a.npz", {"a": Leaf(np.zeros(3, np.float32))}, about)
    with pytest.raises(ds.InputError, match=rf"a\.npz holds no parameters of a chain: .*{re.escape(message)}"):
        pretrained.load(tmp_path / "a.npz")


def test_a_parameter_of_another_name_shape_or_dtype_is_named_before_the_chain_is_built(tmp_path):
    path = pretrained.save(tmp_path / "a.npz", "demosaic", pretrained.untrained("demosaic", (3,), key=jr.key(0)))
    _, leaves, about = read(path)
    name, value = next(iter(leaves.items()))
    wrong = {
        "is missing": {key: leaf for key, leaf in leaves.items() if key != name},
        "is unknown": leaves | {"more": value},
        "has dtype float64, expected float32": leaves | {name: Leaf(value.value.astype(np.float64))},
        r"has shape \(2, 2\), expected": leaves | {name: Leaf(np.zeros((2, 2), np.float32))},
    }
    for message, changed in wrong.items():
        write(path, changed, about)
        with pytest.raises(ds.InputError, match=rf"a\.npz: the parameters are not .*, [\w.]+ {message}.*train again"):
            pretrained.load(path)
    # Of a network whose weights would take 0.6 GB, in a small file.
    write(path, leaves, {"task": "demosaic", "widths": [1024] * 16})
    tracemalloc.start()
    with pytest.raises(ds.InputError, match="the parameters are not those of this chain"):
        pretrained.load(path)
    assert tracemalloc.get_traced_memory()[1] < 100 * 10**6
    tracemalloc.stop()
