"""The scenario of bursts: simulated ones, the raws of a folder, and bad input."""

import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import tifffile

from diffsim import image


@pytest.fixture
def written(tmp_path):
    """Writes a digital negative of a mosaic."""

    def write(name, mosaic):
        tags = [(50706, 1, 4, (1, 4, 0, 0)), (33421, 3, 2, (2, 2)), (33422, 1, 4, (0, 1, 1, 2))]
        tags += [(50708, 2, 0, "Test camera"), (50714, 3, 1, 256), (50717, 3, 1, 4095)]
        values = np.clip(np.round(256 + 3839 * np.asarray(mosaic)), 0, 4095).astype(np.uint16)
        tifffile.imwrite(tmp_path / name, values, photometric=32803, extratags=[(*tag, True) for tag in tags])

    return write


@pytest.mark.slow
def test_a_simulated_burst_is_better_than_one_raw(scenario, tmp_path):
    done = scenario("burst", "--frames", 4, "--seeds", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["gain_db"] > 1.0
    assert result["least_gain_db"] > 0.5
    assert abs(result["ghost"]) < 0.05
    assert result["plain_mean_db"] < result["burst_db"]


@pytest.mark.slow
def test_the_raws_of_a_folder_are_merged(tmp_path, written, command):
    rows, columns = image.pixel_places(96, 128)
    scene = jnp.stack([0.3 + 0.1 * jnp.sin(rows / a + columns / b) for a, b in ((9.0, 7.0), (8.0, 11.0), (12.0, 6.0))])
    shifts = [(0.0, 0.0), (1.5, -0.5), (-1.0, 2.5)]
    for number, shift in enumerate(shifts):
        places = image.Motion(shift=jnp.array(shift)).places(96, 128)
        noise = 0.01 * jr.normal(jr.key(number), (96, 128))
        written(f"{number}.dng", image.mosaic(image.warp(scene, places, "cubic")) + noise)
    code, out, _ = command("burst", "merge", tmp_path, tmp_path / "out.png", "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["raws"] == 3
    assert result["largest_shift"] == pytest.approx(2.5, abs=0.2)
    assert 2.0 < result["variance_divided_by"] <= 3.0
    assert image.read_picture(tmp_path / "out.png").shape == (3, 96, 128)


def test_bad_folders_are_refused(tmp_path, written, command):
    code, _, err = command("burst", "merge", tmp_path, tmp_path / "out.png")
    assert code != 0
    assert "has 0 raws; give at least 2" in err
    written("a.dng", np.full((64, 64), 0.2))
    written("b.dng", np.full((64, 48), 0.2))
    code, _, err = command("burst", "merge", tmp_path, tmp_path / "out.png")
    assert code != 0
    assert "b.dng: has another size or pattern than a.dng" in err


def test_the_simulated_camera_moves_and_the_first_raw_does_not(module_of):
    s = module_of("burst")
    scene = jnp.broadcast_to(image.pixel_places(208, 320)[:1] / 300.0, (3, 208, 320))
    burst = s.simulated(scene, 2, image.Noise(0.0, 0.0), jr.key(0))
    assert burst.raws.shape == (2, *s.SIZE)
    inner = s.with_object(scene, 104.0, 96.0)[:, s.MARGIN : -s.MARGIN, s.MARGIN : -s.MARGIN]
    np.testing.assert_allclose(burst.true, inner, atol=1e-6)
    assert float(jnp.max(jnp.abs(burst.raws[1] - burst.raws[0]))) > 1e-3
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), burst.raws))
