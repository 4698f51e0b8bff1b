"""Synthetic raws: the camera run backwards and forwards is the identity, the noise has the stated variance."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image
from diffsim.image import sensor
from diffsim.image.training import baselines, patches


def test_developing_an_exposure_gives_the_picture_back():
    # Constant colours, so that demosaicking is exact; inside what the sensor can hold.
    for color in ([0.2, 0.5, 0.7], [0.9, 0.8, 0.85], [0.05, 0.05, 0.05]):
        picture = jnp.broadcast_to(jnp.array(color)[:, None, None], (3, 12, 12))
        raw = image.unprocess(picture, camera=image.Camera(bits=None))
        np.testing.assert_allclose(baselines.develop(np.asarray(raw), image.Camera()), picture, atol=1e-6)


def test_noise_has_its_variance_and_bits_their_steps():
    noise = image.Noise(0.01, 0.02)
    camera = image.Camera(bits=None, tone=False)
    grey = jnp.full((3, 200, 200), 0.6)
    clean = image.unprocess(grey, camera=camera)
    noisy = image.unprocess(grey, noise, camera, key=jr.key(0))
    light = (clean - camera.black) / (1 - camera.black)
    scaled = (noisy - clean) / (1 - camera.black) / jnp.sqrt(0.01 * light + 0.02**2)
    # 40,000 draws: mean and standard deviation within four of their own deviations.
    assert abs(float(scaled.mean())) < 4 / 200
    assert abs(float(scaled.std()) - 1) < 4 / (200 * np.sqrt(2))
    stored = image.unprocess(grey, camera=image.Camera(bits=10)) * 1023
    np.testing.assert_allclose(stored, jnp.round(stored), atol=1e-9)


def test_denoisers_lift_a_noisy_picture():
    y, x = np.mgrid[:48, :48] / 48
    scene = np.stack([0.3 + 0.3 * x, 0.5 + 0.2 * y, np.where(x > y, 0.3, 0.6)]).astype(np.float32)
    raw = np.asarray(image.unprocess(jnp.asarray(scene), sensor.LEVELS["high"], key=jr.key(1)), np.float32)
    plain, means = (image.psnr(baselines.develop(raw, image.Camera(), d), scene) for d in ("", "nlm"))
    assert means > plain + 3


def test_patches_are_the_photographs_and_their_order_is_drawn():
    photograph = np.random.default_rng(0).integers(0, 256, (3, 20, 26), dtype=np.uint8)
    squares = patches.cut([photograph], 8, 6)
    assert squares.shape == (3 * 4, 3, 8, 8)
    np.testing.assert_array_equal(squares[5], photograph[:, 6:14, 6:14])
    drawn = jax.jit(lambda key: patches.draw(jnp.asarray(squares), key=key, saturation=1.0))(jr.key(0))
    values = np.sort(np.round(np.asarray(drawn) * 255).ravel())
    assert any(np.array_equal(values, np.sort(square.ravel())) for square in squares)
    np.testing.assert_array_equal(patches.halve(np.full((3, 5, 6), 7, np.uint8)), np.full((3, 2, 3), 7))
    with pytest.raises(ds.InputError, match="no photograph has 30 x 30"):
        patches.cut([photograph], 30, 6)
