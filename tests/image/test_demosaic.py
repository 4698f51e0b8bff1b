"""Mosaics and demosaicking: patterns, exact cases, second implementations, gradients."""

import equinox as eqx
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
    """A network without zero weights."""
    leaves, structure = jax.tree.flatten(image.DemosaicNetwork((4, 4, 4), key=jr.key(1)))
    keys = jr.split(jr.key(9), len(leaves))
    lively = [x + 0.1 * jr.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return at_noise(jax.tree.unflatten(structure, lively), 0.0)


def at_noise(network, noise):
    return eqx.tree_at(lambda n: n.noise, network, jnp.asarray(noise, network.noise.dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_without_noise_the_network_keeps_what_was_measured(network, dtype):
    cast = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)
    mosaic = cast(image.mosaic(PICTURE))
    picture = cast(network)(mosaic)
    assert picture.dtype == dtype
    np.testing.assert_array_equal(image.mosaic(picture), mosaic)
    assert np.abs(picture - image.malvar(mosaic)).max() > 0.01
    noisy = cast(at_noise(network, 1.0))(mosaic)
    assert np.abs(image.mosaic(noisy) - mosaic).max() > 0.01


def test_untrained_the_network_is_malvars_filters():
    mosaic = image.mosaic(PICTURE)
    untrained = at_noise(image.DemosaicNetwork((4, 4), key=jr.key(1)), 1.0)
    np.testing.assert_allclose(untrained(mosaic), image.malvar(mosaic), atol=1e-12)


def test_the_network_is_smooth_in_the_noise_down_to_none(network):
    mosaic = image.mosaic(PICTURE)
    at = lambda noise: at_noise(network, noise)(mosaic)
    values = [at(noise) for noise in (0.0, 1e-9, 1e-6, 1e-3)]
    steps = [np.abs(x - values[0]).max() for x in values[1:]]
    assert 0 < steps[0] < steps[1] < steps[2]
    np.testing.assert_allclose(steps[1] / steps[0], 1e3, rtol=1e-2)
    step = 1e-6
    slope = jax.jvp(at, (jnp.array(0.0),), (jnp.array(1.0),))[1]
    np.testing.assert_allclose(slope, (at(step) - at(-step)) / (2 * step), rtol=1e-5, atol=1e-7)


def test_the_network_sees_the_mosaic_mirrored_beyond_its_edges(network):
    mosaic, halo = jr.uniform(jr.key(4), (40, 44)), network.halo
    larger = jnp.pad(mosaic, halo, mode="reflect")
    picture = network(mosaic)
    np.testing.assert_allclose(network(larger)[:, halo:-halo, halo:-halo], picture, atol=1e-12)
    np.testing.assert_allclose(image.in_tiles(network, mosaic, size=16, halo=halo), picture, atol=1e-12)


def test_batches_are_the_pictures_one_by_one(network):
    mosaics, noise = jr.uniform(jr.key(5), (3, 12, 16)), jnp.array([0.0, 0.5, 4.0])
    one = lambda noise, mosaic: at_noise(network, noise)(mosaic)
    expected = [one(n, m) for n, m in zip(noise, mosaics, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(noise, mosaics), expected, atol=1e-12)


@pytest.mark.slow
def test_the_halo_is_how_far_a_pixel_reaches(network):
    mosaic = jr.uniform(jr.key(4), (32, 32))
    touched = jax.grad(lambda m: jnp.sum(network(m)[:, 16:18, 16:18]))(mosaic) != 0
    rows = np.nonzero(np.asarray(touched).any(axis=1))[0]
    assert (rows.min(), rows.max()) == (16 - network.halo, 17 + network.halo)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_gradients_of_the_network(noise):
    # With offsets: without, all of a black quad lies on the kink of relu.
    model = at_noise(jax.tree.map(lambda x: x + 0.05, image.DemosaicNetwork((3, 3), key=jr.key(2))), noise)
    # Away from the kinks of relu, which differences cannot distinguish from errors.
    loss = lambda model, m: jnp.sum(jnp.sin(model(m)))
    mosaic = image.mosaic(PICTURE)[:10, :12]
    # Quads of 0, the black level, grey, white, and saturated in one colour.
    for at, quad in enumerate([(0, 0, 0, 0), (0.0625,) * 4, (0.5,) * 4, (1, 1, 1, 1), (1, 0, 0, 0)]):
        mosaic = mosaic.at[4:6, 2 * at : 2 * at + 2].set(jnp.array(quad).reshape(2, 2))
    assert_gradients(jax.jit(loss), (model, mosaic), max_coordinates=3)


def test_layers_of_different_widths_are_refused():
    with pytest.raises(ds.InputError, match=r"widths=\(4, 5\): give one number of channels"):
        image.DemosaicNetwork((4, 5), key=jr.key(0))


def test_quads_of_picture_and_mosaic_agree():
    known = [i for i in range(12) if i not in MISSING]
    np.testing.assert_array_equal(picture_quads(PICTURE)[np.array(known)], quads(image.mosaic(PICTURE)))


def test_bad_patterns_and_odd_sizes_are_named():
    with pytest.raises(ds.InputError, match="pattern='RGBG'"):
        image.mosaic(PICTURE, "RGBG")
    with pytest.raises(ds.InputError, match="15 x 18"):
        image.mosaic(PICTURE[:, :15])
