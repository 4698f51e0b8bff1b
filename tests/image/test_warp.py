"""Warped pictures: against SciPy, against Keys's formula, and their gradients, at the edge of the picture too."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.ndimage

import diffsim as ds
from diffsim import image
from diffsim.testing import assert_gradients

PICTURE = jr.uniform(jr.key(0), (2, 7, 9))
RNG = np.random.default_rng(0)
PLACES = np.stack([RNG.uniform(-2, 8, (5, 6)), RNG.uniform(-2, 10, (5, 6))])


def by_keys(picture, places):
    """Cubic convolution by its definition, pixel by pixel."""

    def weight(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    picture = np.asarray(picture)
    _, height, width = picture.shape
    result = np.zeros((picture.shape[0], *places.shape[1:]))
    for i, j in np.ndindex(*places.shape[1:]):
        y, x = np.clip(places[0, i, j], 0, height - 1), np.clip(places[1, i, j], 0, width - 1)
        for row in range(int(y) - 2, int(y) + 4):
            for column in range(int(x) - 2, int(x) + 4):
                pixel = picture[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
                result[:, i, j] += weight(y - row) * weight(x - column) * pixel
    return result


def test_linear_is_that_of_scipy():
    right = [scipy.ndimage.map_coordinates(np.asarray(p), PLACES, order=1, mode="nearest") for p in PICTURE]
    np.testing.assert_allclose(image.warp(PICTURE, jnp.asarray(PLACES)), right, atol=1e-12)


def test_cubic_is_that_of_keys():
    np.testing.assert_allclose(image.warp(PICTURE, jnp.asarray(PLACES), "cubic"), by_keys(PICTURE, PLACES), atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_gradients_in_picture_and_places_within_and_beyond_the_edge(method):
    weights = jnp.cos(jnp.arange(2.0 * 5 * 6)).reshape(2, 5, 6)
    loss = lambda picture, places: jnp.sum(weights * image.warp(picture, places, method) ** 2)
    assert_gradients(loss, (PICTURE, jnp.asarray(PLACES)), max_coordinates=8)
    hessian = jax.hessian(lambda shift: loss(PICTURE, jnp.asarray(PLACES) + shift))(jnp.array(0.1))
    ahead = jax.grad(lambda shift: loss(PICTURE, jnp.asarray(PLACES) + shift))
    np.testing.assert_allclose(hessian, (ahead(0.1 + 1e-6) - ahead(0.1 - 1e-6)) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_transformations_of_a_warp(method):
    places = jnp.asarray(PLACES)
    batch = jnp.stack([places, places + 0.3])
    both = jax.vmap(lambda p: image.warp(PICTURE, p, method))(batch)
    np.testing.assert_allclose(both[1], image.warp(PICTURE, batch[1], method), atol=1e-12)
    step = jr.normal(jr.key(1), places.shape)
    _, forward = jax.jvp(lambda p: image.warp(PICTURE, p, method), (places,), (step,))
    _, pull = jax.vjp(lambda p: image.warp(PICTURE, p, method), places)
    cotangent = jr.normal(jr.key(2), forward.shape)
    np.testing.assert_allclose(jnp.sum(forward * cotangent), jnp.sum(pull(cotangent)[0] * step), rtol=1e-10)
    single = jax.jit(lambda x, p: image.warp(x, p, method))(PICTURE.astype(jnp.float32), places.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, image.warp(PICTURE, places, method), atol=1e-4)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_at_rest_it_changes_nothing_and_a_place_that_is_no_number_is_none(method):
    places = image.pixel_places(7, 9)
    np.testing.assert_array_equal(image.warp(PICTURE, places, method), PICTURE)
    hole = image.warp(PICTURE, places.at[0, 2, 3].set(jnp.nan), method)
    assert np.isnan(hole[:, 2, 3]).all()
    assert np.isfinite(hole).sum() == hole.size - 2
    np.testing.assert_array_equal(
        image.warp(PICTURE[:, :1, :1], places, method), jnp.broadcast_to(PICTURE[:, :1, :1], (2, 7, 9))
    )


def test_maps_of_places():
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    square = PICTURE[:, :7, :7]
    turned = image.warp(square, image.affine_places(turn, jnp.zeros(2), 7, 7))
    np.testing.assert_allclose(turned, jnp.rot90(square, axes=(1, 2)), atol=1e-12)
    shift = jnp.array([1.0, -2.0])
    moved = image.affine_places(jnp.eye(2), shift, 5, 6)
    np.testing.assert_allclose(moved, image.pixel_places(5, 6) + shift[:, None, None], atol=1e-12)
    matrix = jnp.array([[1.1, 0.2, 0.5], [-0.1, 0.9, 1.0], [0.01, 0.02, 1.3]])
    rows, columns = image.homography_places(matrix, 5, 6)
    for i, j in ((0, 0), (4, 2), (1, 5)):
        seen = np.asarray(matrix) @ [i, j, 1.0]
        np.testing.assert_allclose([rows[i, j], columns[i, j]], seen[:2] / seen[2], rtol=1e-12)
    behind = image.homography_places(matrix.at[2].set(jnp.array([0.0, -1.0, 2.5])), 2, 4)
    assert np.isnan(behind[:, :, 3]).all()
    assert np.isfinite(behind[:, :, :3]).all()


def test_lenses():
    grid = jnp.stack([jnp.cos(image.pixel_places(32, 48).sum(axis=0) / 5.0)] * 3)
    bend = image.LensDistortion(coefficients=jnp.array([0.05, -0.02]))
    rows, columns = (x - (n - 1) / 2 for x, n in zip(np.indices((32, 48)), (32, 48), strict=True))
    square = (rows**2 + columns**2) / ((31 / 2) ** 2 + (47 / 2) ** 2)
    factor = 1 + 0.05 * square - 0.02 * square**2
    right = by_keys(grid[:1], np.stack([rows * factor + 31 / 2, columns * factor + 47 / 2]))[0]
    np.testing.assert_allclose(bend(grid)[0], right, atol=1e-12)
    shade = image.LensShading(coefficients=jnp.array([0.3, 0.1, -0.05]))
    np.testing.assert_allclose(
        shade(grid)[1], np.asarray(grid[1]) * (1 + 0.3 * square + 0.1 * square**2 - 0.05 * square**3), rtol=1e-12
    )
    for stage in (bend, shade):
        assert_gradients(lambda s, x: jnp.sum(jnp.sin(3 * s(x))), (stage, grid[:, :8, :10]), max_coordinates=4)


def test_bad_input_is_named(wrong_types):
    places = image.pixel_places(7, 9)
    for arguments, message in [
        ((PICTURE, places, "nearest"), "method='nearest': give one of linear, cubic"),
        ((PICTURE, places[:1]), r"places of shape \(1, 7, 9\)"),
        ((PICTURE.astype(int), places), "type int64"),
    ]:
        with pytest.raises(ds.InputError, match=message):
            image.warp(*arguments)
