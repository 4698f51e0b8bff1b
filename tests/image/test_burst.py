"""Merged bursts: less noise, no ghosts, motions found on raws, gradients, and bad input."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image
from diffsim.image import burst
from diffsim.testing import assert_gradients

NOISE = image.Noise(0.004, 0.002)
STILL = image.Motion()


def frames(scene, key, count):
    keys = jr.split(key, count)
    sigma = jnp.sqrt(NOISE.shot * scene + NOISE.read**2)
    return jnp.stack([image.mosaic(scene) + image.mosaic(sigma) * jr.normal(k, scene.shape[1:]) for k in keys])


def smooth_scene(size=96):
    rows, columns = image.pixel_places(size, size)
    return jnp.stack([0.4 + 0.2 * jnp.sin(rows / a + columns / b) for a, b in ((9.0, 7.0), (8.0, 11.0), (12.0, 6.0))])


def test_without_motion_it_is_the_mean_of_the_demosaicked_raws():
    raws = frames(smooth_scene(), jr.key(0), 4)
    merged, effective = image.MergeBurst(limit=20.0)(raws, [STILL] * 3, NOISE)
    np.testing.assert_allclose(merged, jnp.mean(jax.vmap(image.malvar)(raws), axis=0), atol=1e-6)
    np.testing.assert_allclose(effective, 4.0, rtol=1e-5)
    noise = burst.merged_noise(NOISE, np.asarray(effective))
    np.testing.assert_allclose(noise, (NOISE.shot / 4, NOISE.read / 2), rtol=1e-5)


def test_gains_change_the_demosaicking_alone():
    flat = jnp.full((3, 32, 32), 0.3)
    raws = jnp.stack([image.mosaic(flat)] * 2)
    merged, _ = image.MergeBurst()(raws, [STILL], NOISE, (2.0, 1.0, 1.5))
    np.testing.assert_allclose(merged, flat, rtol=1e-6)


def test_what_moved_in_the_scene_leaves_no_ghost():
    scene = smooth_scene()
    other = scene.at[:, 30:50, 30:50].set(0.9)
    raws = frames(scene, jr.key(1), 4)
    raws = raws.at[2].set(frames(other, jr.key(2), 1)[0])
    clean, _ = image.MergeBurst()(raws[jnp.array([0, 1, 3])], [STILL] * 2, NOISE)
    merged, effective = image.MergeBurst()(raws, [STILL] * 3, NOISE)
    inside = np.s_[:, 34:46, 34:46]
    np.testing.assert_allclose(merged[inside], clean[inside], atol=1e-3)
    np.testing.assert_allclose(effective[34:46, 34:46].mean(), 3.0, atol=0.1)


def test_motions_are_found_on_noisy_raws_and_noise_falls():
    scene = smooth_scene(128)
    motion = image.Motion(shift=jnp.array([2.6, -1.7]), angle=jnp.array(0.01))
    # What the camera sees after it has moved: the scene at the places of the motion.
    seen = image.warp(scene, motion.places(128, 128), "cubic")
    raws = jnp.concatenate([frames(seen, jr.key(3), 1), frames(scene, jr.key(4), 1)])
    (found,) = image.register_burst(raws)
    distance = jnp.linalg.norm(found.places(128, 128) - motion.places(128, 128), axis=0)
    assert float(distance.max()) < 0.5
    merged, _ = image.MergeBurst()(raws, [found], NOISE)
    rmse = lambda x: float(jnp.sqrt(jnp.mean((x - seen)[:, 16:-16, 16:-16] ** 2)))
    assert rmse(merged) < 0.8 * rmse(image.malvar(raws[0]))


def test_gradients_in_weights_raws_and_motions():
    raws = frames(smooth_scene(24), jr.key(5), 2)
    motion = image.Motion(shift=jnp.array([0.4, -0.3]), angle=jnp.array(0.01))
    merge = image.MergeBurst(limit=1.1, width=0.3)
    assert_gradients(
        lambda merge, raws, motion: jnp.sum(jnp.sin(5 * merge(raws, [motion], NOISE)[0])),
        (merge, raws, motion), max_coordinates=4,
    )  # fmt: skip


def test_a_motion_for_each_raw_is_wanted():
    with pytest.raises(ds.InputError, match="1 motions of 3 raws"):
        image.MergeBurst()(jnp.ones((3, 32, 32)), [STILL], NOISE)


def test_where_one_raw_is_left_the_picture_is_that_of_one():
    effective = jnp.full((24, 24), 8.0).at[:, :10].set(1.0)
    few, many = jnp.zeros((3, 24, 24)), jnp.ones((3, 24, 24))
    mixed = burst.mix_by_noise(few, many, effective)
    np.testing.assert_allclose(mixed[:, :, :6], 0.0, atol=1e-6)
    np.testing.assert_allclose(mixed[:, :, 14:], 1.0, rtol=1e-6)
    assert np.all(np.diff(np.asarray(mixed[0, 0])) >= -1e-6)
    np.testing.assert_array_equal(burst.mix_by_noise(few, many, jnp.ones((24, 24))), few)
