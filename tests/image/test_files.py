"""Picture files and trained parameters: round trips, files made by others, damage, bad requests."""

import io
import json
import re
import zipfile

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

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_come_back_as_written(bits, suffix, tmp_path):
    peak = 2**bits - 1
    values = RNG.integers(0, peak + 1, (3, 17, 23))
    path = image.write_picture(tmp_path / f"a{suffix}", values / peak, bits)
    found = image.read_picture(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.round(found.astype(float) * peak), values)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_of_png_is_undone(kind):
    """Rows coded here by the definition, one byte after the other."""
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


def test_a_16_bit_png_is_read_by_others(tmp_path):
    grey = np.broadcast_to(np.linspace(0, 1, 20), (3, 4, 20))
    path = image.write_picture(tmp_path / "a.png", grey, 16)
    np.testing.assert_allclose(np.asarray(Image.open(path).convert("RGB"))[0, :, 0] / 255, grey[0, 0], atol=0.01)


def test_jpeg_is_read_and_written(tmp_path):
    smooth = np.broadcast_to(np.linspace(0.2, 0.8, 32), (3, 32, 32))
    np.testing.assert_allclose(image.read_picture(image.write_picture(tmp_path / "a.jpg", smooth)), smooth, atol=0.02)


def test_bad_pictures_are_named(tmp_path):
    whole = image.write_picture(tmp_path / "a.png", np.zeros((3, 9, 9)), 16)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    (tmp_path / "short.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "no.jpg").write_bytes(b"not a picture")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "whole.tif", np.zeros((400, 4, 3), np.uint8), photometric="rgb")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[:500])
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
    chain = pretrained.untrained(task, (3, 4), key=jr.key(3))
    found_task, found = pretrained.load(pretrained.save(tmp_path / "a.npz", task, chain))
    assert found_task == task
    for a, b in zip(jax.tree.leaves(chain), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a.astype(np.float32), b)


def test_files_without_parameters_are_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK and no more")
    with pytest.raises(ds.InputError, match="holds no arrays as NumPy saves them"):
        pretrained.load(tmp_path / "a.npz")
    with pytest.raises(ds.InputError, match="cannot be read"):
        pretrained.load(tmp_path / "b.npz")
    about = json.dumps({"task": "noisy", "widths": (2, 2)})
    np.savez(tmp_path / "c.npz", about=np.array(about), merge=np.zeros((2, 2, 3, 3)))
    with pytest.raises(ds.InputError, match=r"c\.npz: the parameters are not those of this chain"):
        pretrained.load(tmp_path / "c.npz")
    with pytest.raises(ds.InputError, match="task='other'"):
        pretrained.trained("other")
    with pytest.raises(ds.InputError, match=r"widths=\(4,\): give two"):
        pretrained.untrained("noisy", (4,), key=jr.key(0))


def archive(members: dict[str, bytes]) -> bytes:
    """A ZIP file, packed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def array(value, shape=None, dtype=None) -> bytes:
    """An array as NumPy saves it, with another shape or dtype in its header."""
    out = io.BytesIO()
    value = np.asarray(value)
    header = {
        "descr": dtype or value.dtype.str,
        "fortran_order": False,
        "shape": value.shape if shape is None else shape,
    }
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + value.tobytes()


ABOUT = array(json.dumps({"task": "demosaic", "widths": [3]}))
TALL = array(json.dumps({"task": "demosaic", "widths": [10**9]}))
CRAFTED = {
    "no zip": (b"PK\x03\x04", "holds no arrays as NumPy saves them"),
    "no task": (archive({"a.npy": array(np.zeros(3))}), "its task is missing"),
    "shape beyond memory": (
        archive({"about.npy": ABOUT, "a.npy": array(1.0, (10**12,))}),
        "a.npy has 136 bytes for shape",
    ),
    "negative shape": (archive({"about.npy": ABOUT, "a.npy": array(1.0, (-1,))}), "a.npy has 136 bytes"),
    "objects": (archive({"about.npy": ABOUT, "a.npy": array(1.0, (), "|O")}), "a.npy has 136 bytes"),
    "much more than it says": (
        archive({"about.npy": ABOUT, "a.npy": array(np.zeros(10**7), (3,))}),
        "a.npy has 80000128",
    ),
    "long text": (archive({"about.npy": array("x" * 5000)}), "its task is missing"),
    "no JSON": (archive({"about.npy": array("x")}), "holds no parameters of a chain (JSONDecodeError)"),
    "widths beyond memory": (archive({"about.npy": TALL}), "widths=[1000000000], at most 16 up to 1024"),
    "other names": (archive({"about.npy": ABOUT, "a.npy": array(np.zeros(3))}), "not those of this chain"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_parameter_files_are_checked_before_they_are_unpacked(name, tmp_path, monkeypatch):
    data, message = CRAFTED[name]
    (tmp_path / "a.npz").write_bytes(data)
    monkeypatch.setattr(pretrained, "read_arrays", lambda data: pytest.fail("unpacked"))
    with pytest.raises(ds.InputError, match=re.escape(message)) as error:
        pretrained.load(tmp_path / "a.npz")
    assert str(error.value).startswith(f"{tmp_path / 'a.npz'}: ")
    assert len(str(error.value)) < 400


def test_a_parameter_of_another_shape_or_format_is_named(tmp_path, monkeypatch):
    path = pretrained.save(tmp_path / "a.npz", "demosaic", pretrained.untrained("demosaic", (3,), key=jr.key(0)))
    monkeypatch.setattr(pretrained, "read_arrays", lambda data: pytest.fail("unpacked"))
    with np.load(path) as file:
        values = dict(file)
    name = next(name for name in values if name != "about")
    for wrong in (values[name].astype(np.float64), np.zeros((2, 2), np.float32)):
        np.savez(path, **values | {name: wrong})
        with pytest.raises(
            ds.InputError, match=rf"{re.escape(name)} has shape .*, expected .* of float32; train again"
        ):
            pretrained.load(path)
