"""Bilateral grids of affine maps against the plain formula, and the network that predicts them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim import image
from diffsim.testing import assert_gradients


def plain(grid, guide, picture, cell):
    """The formula with the weights of all cells and depths for every pixel."""
    hat = lambda place, count: jnp.maximum(1.0 - jnp.abs(jnp.subtract.outer(place, jnp.arange(count))), 0.0)
    at = lambda size, cells: hat(jnp.clip((jnp.arange(size) + 0.5) / cell - 0.5, 0.0, cells - 1.0), cells)
    depth, _, _, rows, columns = grid.shape
    weights = at(guide.shape[0], rows), at(guide.shape[1], columns), hat(jnp.clip(guide, 0.0, 1.0) * (depth - 1), depth)
    entries = jnp.einsum("doirc,yr,xc,yxd->oiyx", grid, *weights)
    return jnp.einsum("oiyx,iyx->oyx", entries[:, :3], picture) + entries[:, 3]


def arguments(height, width, cell, depth=5):
    keys = jr.split(jr.key(height), 3)
    grid = jr.normal(keys[0], (depth, 3, 4, -(-height // cell), -(-width // cell)))
    # Guides away from the values of the depths, where the derivative jumps.
    guide = (
        jr.randint(keys[1], (height, width), 0, depth - 1)
        + jr.uniform(keys[2], (height, width), minval=0.05, maxval=0.95)
    ) / (depth - 1)
    return grid, guide, jr.uniform(keys[2], (3, height, width))


# One cell; cells cut off by both edges; a strip and several strips in half a cell; one row and one column.
@pytest.mark.parametrize(("size", "cell"), [((4, 4), 4), ((13, 22), 6), ((50, 70), 48), ((1, 9), 2), ((40, 1), 20)])
def test_value_and_gradients_are_those_of_the_plain_formula(size, cell):
    args = arguments(*size, cell)
    signs = jnp.cos(jnp.arange(3.0 * size[0] * size[1])).reshape(3, *size)
    both = lambda function: jax.jit(
        jax.value_and_grad(lambda *args: jnp.sum(signs * function(*args, cell) ** 2), (0, 1, 2))
    )
    (value, slopes), (true, expected) = both(image.slice_affine)(*args), both(plain)(*args)
    np.testing.assert_allclose(value, true, rtol=1e-12)
    for slope, other in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(slope, other, atol=1e-11)


def test_forward_and_reverse_mode_second_derivatives_and_batches():
    args = arguments(9, 10, 4)
    assert_gradients(jax.jit(lambda *args: jnp.sum(jnp.sin(image.slice_affine(*args, 4)))), args, max_coordinates=6)
    direction = jax.tree.map(lambda x: jnp.sin(jnp.arange(1.0 * x.size)).reshape(x.shape), args)
    curvature = lambda function: jax.jvp(
        jax.grad(lambda *args: jnp.sum(jnp.sin(function(*args, 4))), (0, 1, 2)), args, direction
    )[1]
    for a, b in zip(curvature(image.slice_affine), curvature(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    many = jax.vmap(lambda gain: image.slice_affine(gain * args[0], *args[1:], 4))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(many[1], 2.0 * image.slice_affine(*args, 4), atol=1e-12)


def test_at_a_depth_the_slope_is_the_mean_of_both_sides():
    grid = jnp.zeros((3, 3, 4, 1, 1)).at[:, :, 3].set(jnp.array([0.0, 1.0, 4.0])[:, None, None, None])
    red = lambda guide: image.slice_affine(grid, jnp.full((2, 2), guide), jnp.zeros((3, 2, 2)), 2)[0, 0, 0]
    assert [round(float(jax.grad(red)(guide)), 12) for guide in (0.25, 0.5, 0.75)] == [2.0, 4.0, 6.0]


def test_wrong_cells_are_named():
    grid, guide, picture = arguments(9, 10, 4)
    with pytest.raises(ds.InputError, match="cell=3: give an even number of pixels"):
        image.slice_affine(grid, guide, picture, 3)
    with pytest.raises(
        ds.InputError, match="a grid of 3 x 3 cells for a picture of 9 x 10 pixels: with cell=6, give 2 x 2"
    ):
        image.slice_affine(grid, guide, picture, 6)


@pytest.fixture(scope="module")
def network():
    """A network with weights that change the picture."""
    untrained = image.RetouchNetwork(4, cells=2, depth=2, key=jr.key(0))
    return eqx.tree_at(lambda n: n.last.weight, untrained, 0.1 * jr.normal(jr.key(1), untrained.last.weight.shape))


@pytest.mark.slow
def test_gradients_of_the_network(network):
    picture = jr.uniform(jr.key(2), (3, 5, 14))
    assert network.grid(picture).shape == (2, 3, 4, 1, 2)
    arrays, static = eqx.partition(network, eqx.is_inexact_array)
    loss = lambda arrays, x: jnp.sum(jnp.sin(eqx.combine(arrays, static)(x)))
    assert_gradients(jax.jit(loss), (arrays, picture), max_coordinates=1)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, picture))
    assert {x.dtype for x in jax.tree.leaves(jax.grad(loss)(*single))} == {jnp.dtype(jnp.float32)}


def test_a_picture_at_twice_the_size_is_retouched_alike(network):
    coarse = jr.uniform(jr.key(3), (3, 4, 4))
    small = jax.image.resize(coarse, (3, 32, 32), "linear")
    large = jnp.repeat(jnp.repeat(small, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(network.grid(large), network.grid(small), atol=1e-12)
    halves = network(large).reshape(3, 32, 2, 32, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(halves, network(small), atol=0.01)


@pytest.mark.slow
def test_it_learns_a_look_that_depends_on_place_and_brightness():
    pictures = jax.image.resize(jr.uniform(jr.key(4), (6, 3, 6, 6)), (6, 3, 48, 48), "linear")
    darker = jnp.linspace(0.5, 1.0, 48)[None, None, None, :] * pictures
    targets = jnp.where(pictures > 0.5, 0.5 + 0.5 * (pictures - 0.5), darker)
    loss = lambda model, batch: jnp.mean((jax.vmap(model)(batch[0]) - batch[1]) ** 2)
    start = image.RetouchNetwork(8, cells=6, depth=6, key=jr.key(5))
    batches = jax.tree.map(lambda x: jnp.broadcast_to(x, (200, *x.shape)), (pictures, targets))
    trained, history = ds.fit(loss, start, optax.adam(1e-2), batches, progress=False)
    assert history.loss[0] > 1e-3
    assert loss(trained, (pictures, targets)) < 0.2 * history.loss[0]
