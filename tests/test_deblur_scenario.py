"""The scenario of deblurring: its main command, a picture of one's own, and bad input."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import image


@pytest.mark.slow
def test_the_prior_is_better_than_wiener_and_the_adjoints_agree(scenario, tmp_path):
    done = scenario("deblur", "--steps", 4, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["gain_db"] > 1.0
    assert result["least_gain_db"] > 0.5
    assert result["adjoints_differ"] < 1e-6
    assert result["gradients_agree"]
    assert (tmp_path / result["run"] / "report.html").exists()


def test_a_picture_of_ones_own_is_sharpened(tmp_path, command):
    rows, columns = image.pixel_places(48, 60)
    scene = jnp.stack([(((rows // 12 + columns // 12 + k) % 2) * 0.6 + 0.2) for k in range(3)])
    blurred = image.blur(scene, image.disc_kernel(2.0))
    image.write_picture(tmp_path / "blurred.png", np.asarray(blurred))
    words = ("apply", tmp_path / "blurred.png", tmp_path / "sharp.png", "--kernel", "disc", "--radius", 2)
    code, out, _ = command("deblur", *words, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["kernel_size"] == 5
    true, sharp = np.asarray(scene[:, 2:-2, 2:-2]), image.read_picture(tmp_path / "sharp.png")
    assert image.psnr(sharp, true, border=4) > image.psnr(np.asarray(blurred), true, border=4) + 5.0


def test_bad_input_is_refused(tmp_path, command):
    image.write_picture(tmp_path / "small.png", np.full((3, 12, 12), 0.5))
    code, _, err = command(
        "deblur", "apply", tmp_path / "small.png", tmp_path / "out.png", "--kernel", "motion", "--length", 20
    )
    assert code == 2
    assert "kernel of 21 x 21 pixels is larger than the picture of 12 x 12" in err
    code, _, err = command("deblur", "--photographs", tmp_path)
    assert code == 2
    assert "small.png: is too small; give photographs of at least 200 x 300 pixels" in err
