"""Stencils against a second implementation, their adjoints against the definition, gather against differences."""

import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import ndimage

import diffsim as ds
from diffsim.image.ops import correlate_channels_last
from diffsim.image.ops.box_filter import box_filter
from diffsim.image.ops.correlate import correlate, stencil
from diffsim.testing import assert_gradients

thin = sys.modules["diffsim.image.ops.correlate"]  # the package's name for it is the function


def case(channels=2, out=3, size=(9, 11), kernel=(3, 5), seed=0):
    image, weights = jr.split(jr.key(seed))
    return jr.normal(image, (channels, *size)), jr.normal(weights, (out, channels, *kernel))


@pytest.fixture(params=[10**6, 0], ids=["thin", "deep"])
def both_ways(request, monkeypatch):
    """Stencils between few channels and between many, whatever their number."""
    monkeypatch.setattr(thin, "UNROLLED", request.param)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("edge", "mode"), [("reflect", "mirror"), ("edge", "nearest"), ("zero", "constant")])
def test_stencil_is_scipys_correlation(edge, mode):
    image, weights = case()
    expected = [sum(ndimage.correlate(x, w, mode=mode) for x, w in zip(image, k, strict=True)) for k in weights]
    np.testing.assert_allclose(stencil(image, weights, edge), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cache", [1, 5 * 3 * 5 * 9 * 2, 10**9], ids=["rows", "strips", "whole"])
def test_the_ways_to_sum_agree(cache, monkeypatch):
    image, weights = case(size=(21, 13))
    cotangent = jr.normal(jr.key(3), (3, 19, 9))
    monkeypatch.setattr(correlate_channels_last, "AROUND", cache)
    last, against = image.transpose(1, 2, 0), cotangent.transpose(1, 2, 0)
    # Not through the primitives, whose compiled form is cached from one setting to the next.
    result = correlate_channels_last._apply(last, weights).transpose(2, 0, 1)
    np.testing.assert_allclose(result, thin._apply(image, weights), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        correlate_channels_last._taps(last, against), thin._taps(image, cotangent), rtol=1e-12, atol=1e-12
    )


@pytest.mark.usefixtures("both_ways")
def test_gradients_agree_with_differences_in_both_arguments_and_modes():
    assert_gradients(lambda x, w: jnp.sum(jnp.sin(stencil(x, w))), case())


@pytest.mark.usefixtures("both_ways")
def test_adjoints_satisfy_their_definition():
    image, weights = case()
    out, vjp = jax.vjp(correlate, image, weights)
    cotangent = jr.normal(jr.key(3), out.shape)
    to_image, to_weights = vjp(cotangent)
    other_image, other_weights = case(seed=5)
    np.testing.assert_allclose(jnp.vdot(cotangent, correlate(other_image, weights)), jnp.vdot(to_image, other_image))
    np.testing.assert_allclose(
        jnp.vdot(cotangent, correlate(image, other_weights)), jnp.vdot(to_weights, other_weights)
    )


@pytest.mark.usefixtures("both_ways")
def test_the_adjoint_gathers():
    image, weights = case()
    program = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(correlate(x, weights) ** 2)))(image))
    assert "scatter" not in program
    assert "add_any" not in program


@pytest.mark.usefixtures("both_ways")
def test_second_derivatives():
    image, weights = case(size=(5, 6), kernel=(3, 3))
    loss = lambda x, w: jnp.sum(jnp.sin(correlate(x, w)))
    tangents = case(size=(5, 6), kernel=(3, 3), seed=7)
    slope = lambda s: jax.grad(loss, (0, 1))(image + s * tangents[0], weights + s * tangents[1])
    exact = jax.jvp(slope, (0.0,), (1.0,))[1]
    again = jax.grad(lambda x, w: sum(map(jnp.vdot, jax.grad(loss, (0, 1))(x, w), tangents)), (0, 1))(image, weights)
    step = 1e-5
    differences = jax.tree.map(lambda a, b: (a - b) / (2 * step), slope(step), slope(-step))
    for a, b, c in zip(exact, again, differences, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(a, c, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("both_ways")
def test_batches_of_either_argument_and_both_nest():
    image, weights = case(size=(6, 7), kernel=(3, 3))
    images, kernels = jnp.stack([image, 2 * image]), jnp.stack([weights, weights**2, -weights])
    both = jax.vmap(jax.vmap(correlate, (None, 0)), (0, None))(images, kernels)
    assert both.shape == (2, 3, 3, 4, 5)
    for i, x in enumerate(images):
        for j, w in enumerate(kernels):
            np.testing.assert_allclose(both[i, j], correlate(x, w), rtol=1e-12, atol=1e-12)
    shared = jax.grad(lambda w: jnp.sum(jax.vmap(correlate, (0, None))(images, w) ** 2))(weights)
    single = sum(jax.grad(lambda w, x=x: jnp.sum(correlate(x, w) ** 2))(weights) for x in images)
    np.testing.assert_allclose(shared, single, rtol=1e-12)


def test_box_is_the_mean_of_what_exists():
    image, _ = case()
    expected = [[[_mean(x, i, j) for j in range(11)] for i in range(9)] for x in np.asarray(image)]
    np.testing.assert_allclose(box_filter(image, 2), expected, rtol=1e-12)
    assert_gradients(lambda x: jnp.sum(jnp.cos(box_filter(x, 2))), (image,))


def _mean(x, i, j):
    return x[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].mean()


def test_single_precision_stays_single():
    image, weights = (x.astype(jnp.float32) for x in case())
    assert stencil(image, weights).dtype == box_filter(image, 1).dtype == jnp.float32


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 9, 9), (1, 2, 4, 4)), "no centre"),
        (((2, 9, 9), (1, 3, 3, 3)), "channels must agree"),
        (((2, 2, 2), (1, 2, 5, 5)), "too small to mirror"),
    ],
)
def test_what_does_not_fit_is_named(shapes, message):
    with pytest.raises(ds.InputError, match=message):
        stencil(jnp.zeros(shapes[0]), jnp.zeros(shapes[1]))


def test_unknown_edge_is_named():
    with pytest.raises(ds.InputError, match="edge='wrap'"):
        stencil(*case(), edge="wrap")
