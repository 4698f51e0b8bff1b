"""The scenario of retouching: pairs of files, what is refused, and a picture retouched from the command line."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image


@pytest.fixture(scope="module")
def retouch(module_of):
    return module_of("retouch")


def written(folder, **sizes):
    """A folder of pictures of random colours, by name and size."""
    folder.mkdir()
    for name, size in sizes.items():
        image.write_picture(folder / f"{name}.png", np.random.default_rng(0).uniform(size=(3, *size)))
    return folder


def test_pairs_are_the_files_of_one_name(tmp_path, retouch):
    before = written(tmp_path / "before", a=(8, 9), b=(7, 6), only=(4, 4))
    pairs = retouch.own_pairs(before, written(tmp_path / "after", a=(8, 9), b=(7, 6)))
    assert {name: (x.shape, y.shape) for name, (x, y) in pairs.items()} == {
        "a.png": ((3, 8, 9), (3, 8, 9)),
        "b.png": ((3, 7, 6), (3, 7, 6)),
    }


def test_pairs_that_do_not_fit_are_named(tmp_path, retouch):
    before, other = written(tmp_path / "before", a=(8, 9), b=(7, 6)), written(tmp_path / "other", a=(8, 9), b=(7, 8))
    with pytest.raises(ds.InputError, match="--before and --after belong together: give both folders, or neither"):
        retouch.own_pairs(before, None)
    with pytest.raises(ds.InputError, match="1 files have the same name in both; give at least 2 pairs"):
        retouch.own_pairs(before, written(tmp_path / "few", a=(8, 9)))
    with pytest.raises(ds.InputError, match=r"b.png: \(7, 6\) pixels before and \(7, 8\) after; give equal sizes"):
        retouch.own_pairs(before, other)


def test_a_saved_network_retouches_a_picture(tmp_path, retouch):
    model, picture = retouch.untrained(jr.key(0)), np.random.default_rng(1).uniform(size=(3, 20, 30))
    darker = image.slice_affine(0.5 * model.grid(jnp.asarray(picture)), jnp.zeros((20, 30)), jnp.asarray(picture), 8)
    np.testing.assert_allclose(darker, 0.5 * picture, atol=1e-6)
    ds.save(tmp_path / "network.npz", model)
    image.write_picture(tmp_path / "in.png", picture)
    result = retouch.apply(tmp_path / "in.png", tmp_path / "out.png", network=tmp_path / "network.npz")
    assert result["pixels"] == 600
    written, given = (image.read_picture(tmp_path / name) for name in ("out.png", "in.png"))
    np.testing.assert_allclose(written, given, atol=0.6 / 255)
