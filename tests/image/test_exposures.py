"""Merging of exposures: exact without noise, as precise as the bound with it, and its gradients."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image
from diffsim.testing import assert_gradients

TIMES = jnp.array([0.25, 1.0, 4.0])
NOISE = image.Noise(1e-3, 3e-3)
LIGHT = jnp.array([0.0, 0.002, 0.02, 0.2, 0.5, 2.0])


def exposed(light, key=None):
    """Raws of a light, saturated at white."""
    seen = TIMES.reshape(-1, *(1 for _ in light.shape)) * light[None]
    if key is not None:
        seen = seen + jnp.sqrt(NOISE.shot * seen + NOISE.read**2) * jr.normal(key, seen.shape)
    return jnp.clip(seen, -1.0, 1.0)


def test_without_noise_the_light_is_exact():
    light, deviation = image.merge_exposures(exposed(LIGHT), TIMES, image.Noise(0.0, 0.0))
    np.testing.assert_allclose(light, LIGHT, atol=1e-12)
    np.testing.assert_allclose(deviation, 0.0, atol=1e-12)


def test_the_spread_is_the_stated_one_and_that_of_the_best_weights():
    many = jnp.tile(LIGHT[:, None], (1, 40_000))
    light, stated = image.merge_exposures(exposed(many, jr.key(0)), TIMES, NOISE)
    spread, unsaturated = np.std(light, axis=1), TIMES[:, None] * LIGHT[None] < 0.9
    information = jnp.sum(
        unsaturated * TIMES[:, None] ** 2 / (NOISE.shot * TIMES[:, None] * LIGHT[None] + NOISE.read**2), axis=0
    )
    np.testing.assert_allclose(spread, information**-0.5, rtol=0.02)  # five standard deviations of a spread
    np.testing.assert_allclose(np.mean(stated, axis=1)[1:], spread[1:], rtol=0.03)
    # At black, only light that the noise makes positive has a variance of its own: the stated one is too large.
    assert 1.0 < np.mean(stated, axis=1)[0] / spread[0] < 1.1
    # Weights that depend on the noise make a small bias.
    assert np.all(np.abs(np.mean(light, axis=1) - LIGHT) < 0.05 * spread)


def test_where_all_are_saturated_the_shortest_counts():
    light, _ = image.merge_exposures(exposed(jnp.array([7.0, 0.1])), TIMES, NOISE)
    np.testing.assert_allclose(light, [4.0, 0.1], rtol=1e-12)


def test_gradients_at_black_at_white_and_between():
    # 0.24125 is half way to saturation in the longest exposure.
    raws = exposed(jnp.array([0.0, 0.003, 0.05, 0.2, 0.2425, 0.6, 2.0]))[:, None]
    loss = lambda raws, times: sum(jnp.sum(jnp.sin(x)) for x in image.merge_exposures(raws, times, NOISE))
    assert_gradients(jax.jit(loss), (raws.at[:, 0, 0].set(1e-4), TIMES), max_coordinates=21)
    single = jax.grad(loss)(raws.astype(jnp.float32), TIMES.astype(jnp.float32))
    assert single.dtype == jnp.float32
    assert np.isfinite(single).all()


def test_times_that_do_not_fit_are_refused():
    with pytest.raises(ds.InputError, match=r"times has shape \(2,\) for 3 raws: give one exposure time for each"):
        image.merge_exposures(exposed(LIGHT), TIMES[:2], NOISE)
    with pytest.raises(ds.InputError, match=r"times=\[0.25, 0.0, 4.0\]: give exposure times above 0"):
        image.merge_exposures(exposed(LIGHT), TIMES.at[1].set(0.0), NOISE)
