"""The metrics against scikit-image's and against closed forms."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.signal
from skimage.metrics import structural_similarity

import diffsim as ds
from diffsim import image
from diffsim.image import psnr, ssim
from diffsim.image.color_difference import ciede2000
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


# Sharma, Wu, Dalal (2005): pairs of colours in CIELAB and their difference.
PAIRS = np.array([
    [50.0, 2.6772, -79.7751, 50.0, 0.0, -82.7485, 2.0425],
    [50.0, 3.1571, -77.2803, 50.0, 0.0, -82.7485, 2.8615],
    [50.0, -1.3802, -84.2814, 50.0, 0.0, -82.7485, 1.0000],
    [50.0, 0.0, 0.0, 50.0, -1.0, 2.0, 2.3669],
    [50.0, 2.49, -0.001, 50.0, -2.49, 0.0009, 7.1792],
    [50.0, 2.49, -0.001, 50.0, -2.49, 0.0011, 7.2195],
    [50.0, 2.5, 0.0, 73.0, 25.0, -18.0, 27.1492],
    [50.0, 2.5, 0.0, 56.0, -27.0, -3.0, 31.9030],
    [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
    [22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373],
    [90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441],
    [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
])  # fmt: skip


def test_color_differences_are_the_published_ones():
    found = ciede2000(jnp.asarray(PAIRS[:, :3].T), jnp.asarray(PAIRS[:, 3:6].T))
    np.testing.assert_allclose(found, PAIRS[:, 6], atol=5e-5)


def test_color_differences_of_pictures_are_those_of_scikit_image_and_are_differentiable():
    color = pytest.importorskip("skimage.color")
    a, b = jr.uniform(jr.key(3), (2, 3, 6, 5))
    b = b.at[:, 0, 0].set(a[:, 0, 0]).at[:, 0, 1].set(0.5)
    a = a.at[:, 0, 1].set(0.4)
    lab = lambda x: color.rgb2lab(np.moveaxis(np.asarray(x), 0, 2))
    np.testing.assert_allclose(image.delta_e(a, b), color.deltaE_ciede2000(lab(a), lab(b)), atol=0.02)
    gradient = jax.grad(lambda x: jnp.mean(image.delta_e(x, b)))(a)
    assert np.isfinite(gradient).all()
    assert_gradients(lambda x: jnp.mean(image.delta_e(x, b[:, 1:])), (a[:, 1:],), max_coordinates=8)


def test_similarity_at_several_scales():
    a = jr.uniform(jr.key(4), (2, 180, 190))
    b = jnp.clip(a + 0.1 * jr.normal(jr.key(5), a.shape), 0.0, 1.0)
    assert float(image.ms_ssim(a, a)) == pytest.approx(1.0)
    # The definition, colour by colour with windows by SciPy.
    offsets = np.arange(-5, 6)
    window = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for x, y in zip(np.asarray(a), np.asarray(b), strict=True):
        value = 1.0
        for number, power in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            mean = lambda z: scipy.signal.convolve2d(z, window, mode="valid")
            mx, my = mean(x), mean(y)
            vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
            structure = (2 * cov + 0.0009) / (vx + vy + 0.0009)
            bright = (2 * mx * my + 0.0001) / (mx**2 + my**2 + 0.0001)
            value *= np.mean(structure * bright if number == 4 else structure) ** power
            rows, columns = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
            x, y = (z[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)) for z in (x, y))
        values.append(value)
    assert float(image.ms_ssim(a, b)) == pytest.approx(np.mean(values), rel=1e-9)
    direction = (b - a) * (1 + 0.5 * jnp.cos(jnp.arange(190.0)))[None, None]
    along = jax.jit(lambda s: image.ms_ssim(b + s * direction, a))
    slope, h = jax.jvp(along, (0.0,), (1.0,))[1], 1e-5
    assert float(slope) == pytest.approx(float(along(h) - along(-h)) / (2 * h), rel=1e-6)
    with pytest.raises(ds.InputError, match="give at least 176 x 176"):
        image.ms_ssim(a[:, :170], b[:, :170])
