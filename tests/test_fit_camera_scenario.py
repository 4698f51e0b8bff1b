"""The scenario of a camera's constants: recovery, derivatives, coverage of the uncertainty, pictures, bad input."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image
from diffsim.image.training import flat_blocks

BLOCKS, REGION, NOISE = 240, 4, 1e-3


@pytest.fixture(scope="module")
def true(module_of):
    s = module_of("fit_camera")
    mixing = jnp.array([-0.5, -0.1, -0.25, -0.3, 0.05, -0.65])
    return ds.replace(s.Constants(), {"red": 1.9, "blue": 1.6, "mixing": mixing, "rises": s.CURVE})


def blocks_of(s, true, key):
    """Blocks of all brightnesses and little saturated colours; half of the variance of a region's noise is common."""
    by_light, by_noise, by_region = jr.split(key, 3)
    grey = jnp.linspace(0.002, 0.8, BLOCKS) ** 1.5 + 0.002
    light = grey[None] * (1.0 + 0.3 * jr.uniform(by_light, (3, BLOCKS), minval=-1.0))
    balanced = light / jnp.array([true.red, 1.0, true.blue])[:, None]
    exact = s.developed(true, balanced[:, None], jnp.zeros(()))[:, 0]
    common = jnp.repeat(jr.normal(by_region, (BLOCKS // REGION,)), REGION)[None]
    noise = NOISE * jnp.sqrt(0.5) * (common + jr.normal(by_noise, (3, BLOCKS)))
    return s.Data(balanced, exact, jnp.zeros(())), noise


def test_the_chain_has_the_values_of_plain_formulas(module_of, true):
    s = module_of("fit_camera")
    colors = np.array([0.1, 0.3, 0.15])
    light = np.reshape(s.matrix(true), (3, 3)) @ (colors * np.array([1.9, 1.0, 1.6]))
    right = np.interp(np.asarray(image.sensor.to_srgb(light)), s.KNOTS, np.asarray(s.curve(true)))
    picture = s.developed(true, jnp.asarray(colors)[:, None, None], jnp.zeros(()))
    np.testing.assert_allclose(picture[:, 0, 0], right, rtol=1e-12)


def test_the_residuals_have_their_gradient(module_of, true):
    s = module_of("fit_camera")
    data, noise = blocks_of(s, true, jr.key(1))
    few = s.Data(data.light[:, ::20], (data.target + noise)[:, ::20], data.stops)
    values = {path: 1.07 * entry.value for path, entry in ds.parameters(true).items()}
    weights = jr.normal(jr.key(2), few.target.shape)
    loss = lambda values: jnp.sum(weights * s.residuals(ds.replace(true, values), few))
    ds.testing.assert_gradients(loss, (values,), max_coordinates=2)


def test_constants_come_back_with_standard_deviations_that_are_right(module_of, true):
    """Over 20 noises, 88 to 99% of the constants are within two standard deviations of the truth; 95% are expected."""
    s = module_of("fit_camera")
    data, _ = blocks_of(s, true, jr.key(0))
    noises = jax.vmap(lambda key: blocks_of(s, true, key)[1])(jr.split(jr.key(1), 20))
    region = np.tile(np.arange(BLOCKS) // REGION, 3)

    @eqx.filter_jit
    def uncertain(constants, data):
        posterior = ds.posterior(s.residuals, constants, data, clusters=region)
        each = lambda x: jnp.concatenate([jnp.stack([x.red, x.blue]), s.matrix(x), s.curve(x)[1:]])
        return posterior.delta_method(each)

    right = np.concatenate([[1.9, 1.6], s.matrix(true), s.curve(true)[1:]])
    z = []
    for noise in noises:
        seen = s.Data(data.light, data.target + noise, data.stops)
        constants, history = ds.fit_least_squares(s.penalized, true, seen, steps=300, rtol=1e-6, progress=False)
        assert history.status == "converged", history.message
        value, std = uncertain(constants, seen)
        z.append((np.asarray(value) - right) / np.asarray(std))
    assert np.isfinite(z).all()
    assert 0.88 < np.mean(np.abs(z) < 2) < 0.99
    assert 0.8 < np.std(z) < 1.25


@pytest.mark.slow
def test_a_wrong_start_is_left(module_of, true, monkeypatch):
    """From gains of 1 and no matrix, on a raw of colour patches and its picture by the same constants."""
    s = module_of("fit_camera")
    monkeypatch.setattr(flat_blocks, "LEAST", 20)
    patches = 0.05 + 0.6 * np.random.default_rng(0).uniform(size=(3, 10, 16)) ** 2
    patches[1:] = 0.5 * (patches[:1] + patches[1:])
    scene = np.kron(patches, np.ones((32, 32)))
    mosaic = image.mosaic(scene / np.array([1.9, 1.0, 1.6])[:, None, None])
    picture = np.clip(s.chain_of(true, 0.0, image.bilinear)(mosaic), 0.0, 1.0)
    fit = s.fitted(image.Raw(np.asarray(mosaic, np.float32), gains=(1.9, 1.0, 1.6)), np.asarray(picture, np.float32))
    known = {
        "gains": np.array([1.9, 1.6]),
        "matrix": np.asarray(s.matrix(true)),
        "curve": np.asarray(s.curve(true))[1:],
    }
    errors = s.summary(fit, known)
    assert errors["gain_error"] < 1e-3
    assert errors["matrix_error"] < 5e-3
    assert s.rmse(fit)["rmse_flat"] < 3e-4 < 0.05 < s.rmse(fit)["rmse_before"]


def test_means_are_of_the_same_places_in_raw_and_picture():
    light = np.random.default_rng(0).uniform(0.1, 0.5, (3, 48, 65)).astype(np.float32)
    picture = np.asarray(image.sensor.to_srgb(jnp.asarray(light)))
    for times in (1, 3):
        rows, columns = 48 // times, 65 // times
        small = light[:, : rows * times, : columns * times].reshape(3, rows, times, columns, times).mean((2, 4))
        given = picture if times == 1 else np.asarray(image.sensor.to_srgb(jnp.asarray(small)))
        means = flat_blocks.small_means(light, given)
        assert means.side == max(2, times)
        np.testing.assert_allclose(means.picture, means.light, rtol=1e-5)
    bright = picture.copy()
    bright[1, 10, 20] = 1.0
    assert np.argwhere(flat_blocks.small_means(light, bright).clipped).tolist() == [[5, 10]]


def test_pictures_that_do_not_fit_are_refused(tmp_path, command):
    mosaic = np.random.default_rng(0).uniform(0.1, 0.9, (64, 96)).astype(np.float32)
    raw = image.write_raw(tmp_path / "a.dng", image.Raw(mosaic, gains=(2.0, 1.0, 1.5)))
    other = image.write_picture(tmp_path / "other.png", np.full((3, 64, 64), 0.5))
    for words, message in [
        (
            (raw, "--rendering", other),
            "other.png: has 64 x 64 pixels, but the raw's picture has 96 x 64; give one of that",
        ),
        ((raw,), "a.dng: 0 blocks are flat and not clipped; give one with at least 200"),
        ((tmp_path / "none.dng",), "none.dng"),
        ((raw, "--rendering", tmp_path / "a.txt"), "a.txt"),
    ]:
        code, _, err = command("fit_camera", "fit", *words)
        assert code == 2
        assert message in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_the_constants_of_libraws_rendering_come_back(scenario, tmp_path):
    done = scenario("fit_camera", "--seeds", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for name in ("libraw", "chain"):
        assert result[f"{name}_gain_error"] < 0.005
        assert result[f"{name}_matrix_error"] < 0.01
        assert result[f"{name}_rmse_flat"] < 0.003
        assert result[f"{name}_within_two_std"] > 0.6 * result[f"{name}_determined"]
