"""Developed raws of known scenes: colours, highlights, noise, hot pixels, exposure, orientation and crop."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image
from diffsim.image import sensor
from diffsim.image.develop import automatic_stops
from diffsim.image.training import train_chain

GAINS, MATRIX = (1.9, 1.0, 1.6), np.asarray(sensor.CAMERA.matrix)
PLAIN = sensor.CAMERA._replace(tone=False, black=0.0, bits=None)
CLEAN = image.Noise(0.0, 0.0)


@pytest.fixture(scope="module")
def scene():
    return np.asarray(train_chain.held_out()["china.jpg"][:, 40:168, 60:252], np.float32)


def raw_of(scene, noise=CLEAN, **options):
    """The raw of a scene by a camera without a tone curve, whose neutral development is the scene."""
    mosaic = np.asarray(image.unprocess(jnp.asarray(scene), noise, PLAIN, key=jr.key(0)))
    return image.Raw(mosaic, gains=GAINS, matrix=MATRIX, noise=noise, **options)


@pytest.mark.parametrize("noise", [CLEAN, *sensor.LEVELS.values()])
@pytest.mark.parametrize("grey", [0.1, 0.5, 0.9])
def test_a_grey_scene_comes_back_in_its_brightness(noise, grey):
    """The raw has no noise, but is developed as if it had."""
    raw = raw_of(jnp.full((3, 64, 64), grey))
    np.testing.assert_allclose(image.develop(raw, noise)[:, 16:-16, 16:-16].mean(axis=(1, 2)), grey, atol=4e-3)


@pytest.mark.parametrize("level", [-10.0, -5.0, -3.0, -1.0])
def test_a_scene_comes_back_the_better_the_less_noise_there_is(scene, level):
    middle = sensor.LEVELS["middle"]
    noise = image.Noise(middle.shot * 4.0**level, middle.read * 2.0**level)
    developed = image.develop(raw_of(scene, noise))
    linear = image.malvar(np.asarray(raw_of(scene, noise).mosaic) * _gains(scene.shape[1:]))
    plain = sensor.to_srgb(jnp.clip(jnp.einsum("ij,jhw->ihw", MATRIX, linear), 0, 1))
    assert image.psnr(developed, scene) > image.psnr(np.asarray(plain), scene) + 0.5


def _gains(size):
    return np.tile([[GAINS[0], 1.0], [1.0, GAINS[2]]], (size[0] // 2, size[1] // 2))


def test_the_picture_is_continuous_in_the_noise_down_to_none(scene):
    raw = raw_of(scene)
    without = image.develop(raw, CLEAN)
    for level in (-10.0, -12.0):
        noise = sensor.at_level(level)
        bound = 1e3 * float(sensor.relative_noise(noise))  # its slope at 0, at most
        np.testing.assert_allclose(image.develop(raw, noise), without, atol=bound)


def test_without_noise_it_is_as_good_as_the_small_network_on_balanced_values(scene):
    raw = raw_of(scene)
    balanced = jnp.asarray(np.minimum(raw.mosaic * _gains(scene.shape[1:]), 1.0), jnp.float32)
    light = sensor.to_linear(image.pretrained.trained("demosaic")(sensor.to_srgb(balanced)))
    small = sensor.to_srgb(jnp.clip(jnp.einsum("ij,jhw->ihw", jnp.asarray(MATRIX, jnp.float32), light), 0.0, 1.0))
    assert image.psnr(image.develop(raw), scene) > image.psnr(np.asarray(small), scene) - 0.3


def test_saturated_highlights_are_white():
    bright = np.ones((3, 64, 64), np.float32)
    bright[:, 16:48, 16:48] = 0.3
    raw = raw_of(bright)
    over = raw._replace(mosaic=np.minimum(4 * raw.mosaic, 1.0))
    picture = image.develop(over)
    np.testing.assert_allclose(picture[:, :8], 1.0, atol=2e-3)
    spread = lambda x, a, b: float(np.ptp(x[:, a:b, a:b].mean(axis=(1, 2))))
    assert spread(picture, 24, 40) < 1 / 255  # a step of eight bits, within reach of the saturated pixels
    wide = np.pad(over.mosaic[24:40, 24:40], 32, mode="wrap")  # the grey alone, then saturated pixels around it
    wide = np.pad(wide, 16, constant_values=1.0)
    assert spread(image.develop(over._replace(mosaic=wide)), 48, 64) < 1e-3


def test_highlights_of_which_some_colors_are_saturated_keep_their_brightness():
    light = np.repeat(np.linspace(0.5, 1.5, 256, dtype=np.float32)[None], 64, axis=0)
    values = light / _gains(light.shape)  # grey, as the sensor sees it: green saturates first
    raw = image.Raw(np.minimum(values, 1.0), gains=GAINS, matrix=MATRIX, noise=CLEAN)
    picture = image.develop(raw, exposure=-1.0)[:, 8:-8].mean(axis=1)
    np.testing.assert_allclose(picture[1, :120], sensor.to_srgb(0.5 * light[0, :120]), atol=5e-3)
    assert np.all(np.diff(picture.mean(axis=0)[8:-8:8]) > 0)
    assert picture.mean(axis=0)[-16] > picture.mean(axis=0)[128] + 0.05
    assert np.ptp(picture[:, 160:-16], axis=0).max() < 0.02


def test_a_gain_below_one_does_not_color_the_highlights():
    raw = image.Raw(np.ones((64, 64)), gains=(0.8, 1.0, 1.5), noise=CLEAN)
    np.testing.assert_allclose(image.develop(raw), 1.0, atol=2e-3)


def test_hot_pixels_vanish_and_lights_stay(scene):
    raw, random = (
        raw_of(np.asarray(sensor.to_srgb(0.3 * sensor.to_linear(jnp.asarray(scene))))),
        np.random.default_rng(0),
    )
    rows, columns = random.integers(8, 120, 30), random.integers(8, 184, 30)
    damaged = raw.mosaic.copy()
    damaged[rows, columns] = 1.0
    noise = image.Noise(1e-4, 1e-4)
    repaired = image.without_hot_pixels(raw._replace(mosaic=damaged), noise)
    found = np.abs(repaired[rows, columns] - raw.mosaic[rows, columns])
    assert np.mean(found < 0.1) >= 0.9
    # The rest of the scene is as it was, and so is a light that all colours see.
    untouched = image.without_hot_pixels(raw, noise)
    assert np.mean(untouched != raw.mosaic) < 1e-3
    star = np.full((32, 32), 0.05)
    star[15:17, 15:17] = np.array([[0.5, 0.9], [0.9, 0.55]])
    assert np.array_equal(image.without_hot_pixels(image.Raw(star, gains=GAINS), noise), star)


def test_exposure(scene):
    raw = raw_of(scene)
    light = lambda **options: sensor.to_linear(
        jnp.asarray(image.develop(raw._replace(**options.pop("of", {})), **options))
    )
    plain = np.minimum(light(), 0.999)  # what is cut at white has lost its brightness
    darker = light(exposure=-1.0)
    np.testing.assert_allclose(np.minimum(darker, 0.4995), plain / 2, atol=1e-5)
    np.testing.assert_array_equal(light(of={"exposure": -1.5}, exposure=0.5), darker)
    dark = raw._replace(mosaic=raw.mosaic / 4)
    bright = image.develop(dark, exposure="auto")
    assert 0.005 < np.mean(bright.max(axis=0) >= 1.0 - 1e-6) < 0.02
    assert automatic_stops(np.zeros((3, 4, 4))) == 0.0


def test_orientation_and_crop(scene):
    raw = raw_of(scene)
    whole = image.develop(raw)
    cropped = image.develop(raw._replace(crop=(8, 6, 100, 150)))
    np.testing.assert_array_equal(cropped, whole[:, 8:108, 6:156])
    np.testing.assert_array_equal(image.develop(raw._replace(quarter_turns=3)), np.rot90(whole, 3, axes=(1, 2)))


@pytest.mark.usefixtures("wrong_types")
def test_looks(scene):
    raw = raw_of(scene)
    neutral, trained = image.develop(raw), image.develop(raw, look="trained")
    assert image.psnr(neutral, scene) > image.psnr(trained, scene)
    with pytest.raises(ds.InputError, match="look='vivid': give one of neutral, trained"):
        image.develop(raw, look="vivid")


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"exposure": np.nan}, "exposure=nan: give a finite number of stops"),
        ({"gains": (0.0, 1.0, 1.0)}, {}, "give three numbers above 0"),
        ({"mosaic": np.zeros((8, 8)), "noise": None}, {}, "give at least 64 x 64"),
        ({"mosaic": np.ones((64, 64)), "noise": None}, {}, "neither clipped nor empty: give its noise"),
    ],
)
def test_what_cannot_be_developed_is_named(scene, change, options, message):
    with pytest.raises(ds.InputError, match=message):
        image.develop(raw_of(scene)._replace(**change), **options)


def test_progress_and_every_pattern(scene):
    shares, scene = [], np.asarray(image.box_filter(jnp.asarray(scene), 2))
    mosaic = np.asarray(raw_of(scene).mosaic)
    for pattern, shift in {"RGGB": (0, 0), "GRBG": (0, 1), "GBRG": (1, 0), "BGGR": (1, 1)}.items():
        part = mosaic[shift[0] : shift[0] + 100, shift[1] : shift[1] + 120]
        picture = image.develop(image.Raw(part, pattern, GAINS, MATRIX, CLEAN), progress=shares.append)
        assert picture.shape == (3, 100, 120)
        own = scene[:, shift[0] : shift[0] + 100, shift[1] : shift[1] + 120]
        assert image.psnr(picture, own) > 30
    assert shares == [1.0] * 4


@pytest.mark.parametrize("level", [-4, -2, 0, 1])
def test_noise_is_measured_where_the_scene_is_smooth(level):
    random, middle = np.random.default_rng(level + 9), sensor.LEVELS["middle"]
    light = np.tile(np.linspace(0.003, 0.9, 1024) ** 2, (768, 1))
    noise = image.Noise(middle.shot * 4.0**level, middle.read * 2.0**level)
    mosaic = light + np.sqrt(noise.shot * light + noise.read**2) * random.normal(size=light.shape)
    for pattern in ("RGGB", "GBRG"):
        found = image.estimate_noise(image.Raw(mosaic, pattern))
        np.testing.assert_allclose(found, noise, rtol=0.1)
