"""Mosaics and demosaicking: patterns, exact cases, second implementations, gradients."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import ndimage

import diffsim as ds
from diffsim import image
from diffsim.image.demosaicing.bayer import MISSING, picture_quads, quads
from diffsim.testing import assert_gradients

PICTURE = jr.uniform(jr.key(0), (3, 16, 18))


# Where red, green and blue are; of green, by the colour in its row or column.
SITES = {"red": (0, 0), "next to red": (0, 1), "below red": (1, 0), "blue": (1, 1)}


@pytest.mark.parametrize("pattern", image.PATTERNS)
def test_mosaics_follow_the_pattern(pattern):
    mosaic = np.asarray(image.mosaic(PICTURE, pattern))
    for i, color in enumerate(pattern):
        site = np.s_[i // 2 :: 2, i % 2 :: 2]
        np.testing.assert_array_equal(mosaic[site], PICTURE["RGB".index(color)][site])


def test_bilinear_is_the_mean_of_the_nearest_of_each_color():
    cross, square = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    mosaic = np.asarray(image.mosaic(PICTURE))
    masks = image_masks(mosaic.shape)
    interpolated = image.bilinear(image.mosaic(PICTURE))
    for color, (mask, kernel) in enumerate(zip(masks, (square, cross, square), strict=True)):
        expected = ndimage.convolve(mosaic * mask, kernel, mode="mirror")
        np.testing.assert_allclose(interpolated[color], expected, atol=1e-12)


def image_masks(shape):
    """Where an RGGB mosaic is red, green and blue."""
    red, blue = np.zeros(shape), np.zeros(shape)
    red[0::2, 0::2] = blue[1::2, 1::2] = 1.0
    return red, 1.0 - red - blue, blue


def test_malvar_is_exact_where_the_colors_differ_by_constants():
    # A parabola of the same curvature in all colours: the correction by the others' second differences is right.
    y, x = np.mgrid[:16, :18] / 18.0
    grey = x + 0.5 * y + x**2 - 0.3 * y**2
    picture = jnp.asarray(np.stack([grey, grey + 0.2, grey - 0.1]))
    inner = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(image.malvar(image.mosaic(picture))[inner], picture[inner], atol=2e-3)
    assert np.abs(image.bilinear(image.mosaic(picture)) - picture)[inner].max() > 2e-3


@pytest.mark.parametrize("pattern", image.PATTERNS)
def test_every_pattern_goes_through_the_red_first_form(pattern):
    picture = jnp.broadcast_to(jnp.array([0.2, 0.5, 0.9])[:, None, None], (3, 8, 10))
    rggb = image.to_rggb(image.mosaic(picture, pattern), pattern)
    interpolated = image.cut_back(image.bilinear(rggb), pattern, (8, 10))
    np.testing.assert_allclose(interpolated, picture, rtol=1e-12)


def test_menon_gives_the_numbers_of_a_public_implementation():
    """The numbers of `demosaicing_CFA_Bayer_Menon2007` in colour-demosaicing 0.2.7: a corner and weighted sums."""
    y, x = np.indices((12, 14))
    picture = image.menon(0.5 + 0.3 * np.sin(0.7 * x + 0.05 * y**2) + 0.1 * np.cos(1.3 * x * y))
    weights = np.cos(np.arange(picture.size)).reshape(picture.shape)
    np.testing.assert_allclose(picture[:, 11, 13], [0.55018212, 0.59968733, 0.57337873], atol=1e-8)
    np.testing.assert_allclose(
        np.sum(weights * picture, axis=(1, 2)), [2.17889535, -0.27374136, -1.78296956], atol=1e-8
    )


def test_odd_sizes_are_filled_up_and_cut_back():
    mosaic = image.mosaic(PICTURE)[:15, :17]
    picture = image.malvar(image.to_rggb(mosaic, "RGGB"))
    assert image.cut_back(picture, "RGGB", mosaic.shape).shape == (3, 15, 17)


@pytest.fixture(scope="module")
def network():
    return image.DemosaicNetwork((5, 4), key=jr.key(1))


def test_the_network_keeps_what_was_measured_and_starts_near_malvar(network):
    mosaic = image.mosaic(PICTURE)
    picture = network(mosaic)
    np.testing.assert_array_equal(image.mosaic(picture), mosaic)
    zero = jax.tree.map(jnp.zeros_like, network)
    np.testing.assert_allclose(zero(mosaic), image.malvar(mosaic), atol=1e-12)


@pytest.mark.slow
def test_the_halo_is_how_far_a_pixel_reaches(network):
    mosaic = jr.uniform(jr.key(4), (32, 32))
    touched = jax.grad(lambda m: jnp.sum(network(m)[:, 16:18, 16:18]))(mosaic) != 0
    rows = np.nonzero(np.asarray(touched).any(axis=1))[0]
    assert (rows.min(), rows.max()) == (16 - network.halo, 17 + network.halo)


def test_gradients_of_the_network():
    # With offsets: without, all of a black quad lies on the kink of relu.
    model = jax.tree.map(lambda x: x + 0.05, image.DemosaicNetwork((3,), key=jr.key(2)))
    # Away from the kinks of relu, which differences cannot distinguish from errors.
    loss = lambda model, m: jnp.sum(jnp.sin(model(m)))
    mosaic = image.mosaic(PICTURE)[:10, :12]
    # Quads of 0, the black level, grey, white, and saturated in one colour.
    for at, quad in enumerate([(0, 0, 0, 0), (0.0625,) * 4, (0.5,) * 4, (1, 1, 1, 1), (1, 0, 0, 0)]):
        mosaic = mosaic.at[4:6, 2 * at : 2 * at + 2].set(jnp.array(quad).reshape(2, 2))
    assert_gradients(jax.jit(loss), (model, mosaic), max_coordinates=3)


def test_quads_of_picture_and_mosaic_agree():
    known = [i for i in range(12) if i not in MISSING]
    np.testing.assert_array_equal(picture_quads(PICTURE)[np.array(known)], quads(image.mosaic(PICTURE)))


def test_bad_patterns_and_odd_sizes_are_named():
    with pytest.raises(ds.InputError, match="pattern='RGBG'"):
        image.mosaic(PICTURE, "RGBG")
    with pytest.raises(ds.InputError, match="15 x 18"):
        image.mosaic(PICTURE[:, :15])
