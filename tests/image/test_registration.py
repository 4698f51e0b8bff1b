"""Registered pictures: known motions are found, for every model, with noise, and bad input is named."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image
from diffsim.image.training import train_chain

SIZE, MARGIN = 128, 24


@pytest.fixture(scope="module")
def scene():
    picture = jnp.asarray(train_chain.held_out()["china.jpg"], float)[:, 20 : 20 + SIZE + 2 * MARGIN]
    return picture[:, :, 100 : 100 + SIZE + 2 * MARGIN].mean(axis=0, keepdims=True)


def inner(picture):
    return picture[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def moved(scene, motion):
    """The scene as a camera sees it that has moved, and so that `motion` of the inner part brings it back."""
    whole = SIZE + 2 * MARGIN
    motion = ds.replace(motion, {"perspective": motion.perspective * (whole - 1) / (SIZE - 1)})
    return inner(image.warp(scene, inverse(motion, whole, whole), "cubic"))


def inverse(motion, height, width):
    """The places of the inverse motion, by Newton's method."""
    target, places = image.pixel_places(height, width), image.pixel_places(height, width)
    ahead = lambda p: image.warp(motion.places(height, width), p, "linear")
    for _ in range(20):
        places = places + target - ahead(places)
    return places


def error(found, true):
    """The greatest distance of the places, in pixels."""
    return float(jnp.max(jnp.linalg.norm(found.places(SIZE, SIZE) - true.places(SIZE, SIZE), axis=0)))


def random_motion(seed):
    shift, angle = jr.split(jr.key(seed))
    direction = jr.uniform(shift, (), float, 0.0, 2 * jnp.pi)
    return image.Motion(
        shift=8.0 * jnp.stack([jnp.cos(direction), jnp.sin(direction)]),
        angle=jnp.radians(3.0) * jr.rademacher(angle, (), float),
    )


def check(scene, true, model, within, noise=0.0):
    other = moved(scene, true)
    given = [x + noise * jr.normal(jr.key(i), x.shape) for i, x in enumerate((other, inner(scene)))]
    found = image.register(*given, model)
    assert error(found, true) < within, found.__dict__
    return found


@pytest.mark.parametrize("seed", range(2))
def test_eight_pixels_and_three_degrees_are_found(scene, seed):
    check(scene, random_motion(seed), "rigid", 0.02)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(2, 20))
def test_more_motions_are_found(scene, seed):
    check(scene, random_motion(seed), "rigid", 0.02)


@pytest.mark.slow
def test_every_model_finds_its_motion(scene):
    shift = jnp.array([2.3, -3.7])
    found = check(scene, image.Motion(shift=shift), "shift", 0.02)
    assert float(found.angle) == 0.0
    stretched = image.Motion(shift=shift, stretch=jnp.array([[0.02, -0.01], [0.015, -0.03]]))
    check(scene, stretched, "affine", 0.02)
    tilted = image.Motion(shift, stretch=stretched.stretch, perspective=jnp.array([0.01, -0.02]))
    check(scene, tilted, "homography", 0.03)


@pytest.mark.slow
def test_noise_is_averaged_over_the_picture(scene):
    check(scene, random_motion(1), "rigid", 0.15, noise=0.05)


def test_places_are_those_of_the_definition_and_have_derivatives():
    motion = image.Motion(
        jnp.array([1.0, -2.0]), jnp.array(0.1), jnp.array([[0.1, 0.0], [0.02, -0.1]]), jnp.array([0.01, 0.0])
    )
    places = motion.places(5, 8)
    turn = np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    centre = np.array([2.0, 3.5])
    for i, j in ((0, 0), (4, 7), (2, 5)):
        p = np.array([i, j]) - centre
        right = (
            turn @ (np.eye(2) + np.asarray(motion.stretch)) @ p / (1 + 0.02 * p[0] / np.hypot(4, 7))
            + centre
            + [1.0, -2.0]
        )
        np.testing.assert_allclose(places[:, i, j], right, rtol=1e-12)
    again = motion.scaled(2.0).places(10, 16)
    np.testing.assert_allclose((again[:, ::2, ::2] + again[:, 1::2, 1::2]) / 4 - 0.25, places, atol=0.02)
    slopes = jax.jacfwd(lambda m: m.places(5, 8))(motion)
    np.testing.assert_allclose(slopes.shift[:, 1, 1], np.eye(2), atol=1e-12)


def test_bad_input_is_named(wrong_types):
    picture = jnp.ones((1, 20, 20))
    for arguments, message in [
        ((picture, picture, "elastic"), "model='elastic': give one of shift, rigid"),
        ((picture, picture[:, :18]), "give two of one shape"),
        ((picture[:, :8], picture[:, :8]), "8 x 20 pixels: give at least 16"),
        ((picture.at[0, 0, 0].set(jnp.nan), picture), "not finite"),
        ((picture.astype(int), picture), "type int64"),
    ]:
        with pytest.raises(ds.InputError, match=message):
            image.register(*arguments)
