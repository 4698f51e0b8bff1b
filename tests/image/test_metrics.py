"""The metrics against scikit-image's and against closed forms."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from skimage.metrics import structural_similarity

import diffsim as ds
from diffsim.image import psnr, ssim
from diffsim.testing import assert_gradients


def pair(size=(24, 27)):
    true = jr.uniform(jr.key(0), (3, *size))
    return jnp.clip(true + 0.1 * jr.normal(jr.key(1), true.shape), 0, 1), true


def test_psnr_of_a_known_error():
    true = np.full((3, 40, 40), 0.5)
    assert psnr(true + 0.1, true, bits=None) == pytest.approx(20.0)
    assert psnr(true, true) == np.inf
    # 0.5 is 127.5 of 255: rounded to 128, and 0.6 to 153.
    assert psnr(true + 0.1, true) == pytest.approx(20 * np.log10(255 / 25))


def test_psnr_leaves_out_the_border():
    true = np.full((3, 40, 40), 0.5)
    picture = true.copy()
    picture[:, :10] = picture[:, -10:] = picture[:, :, :10] = picture[:, :, -10:] = 0.0
    assert psnr(picture, true) == np.inf
    assert psnr(picture, true, border=9) < 20


def test_ssim_is_scikit_images():
    picture, true = pair()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = structural_similarity(np.asarray(picture), np.asarray(true), channel_axis=0, **options)
    assert float(jax.jit(ssim)(picture, true)) == pytest.approx(expected, rel=1e-10)
    assert float(ssim(true, true)) == pytest.approx(1.0)


def test_ssim_is_differentiable():
    picture, true = pair((12, 12))
    assert_gradients(lambda x: ssim(x, true), (picture,), max_coordinates=4)


@pytest.mark.usefixtures("wrong_types")
def test_pictures_that_cannot_be_compared_are_named():
    with pytest.raises(ds.InputError, match=r"\(3, 5, 5\) and \(3, 5, 6\)"):
        psnr(np.zeros((3, 5, 5)), np.zeros((3, 5, 6)))
    with pytest.raises(ds.InputError, match="border of 10"):
        psnr(np.zeros((3, 20, 20)), np.zeros((3, 20, 20)))
