"""Blur and deconvolution: against SciPy, dense linear algebra and closed forms; gradients of both adjoints."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from jax.flatten_util import ravel_pytree

import diffsim as ds
from diffsim import image
from diffsim.image.blur import Convolution
from diffsim.image.deconvolution import conjugate_gradients
from diffsim.testing import assert_gradients

SHAPE = 8, 10
SCENE = jr.uniform(jr.key(0), (2, *SHAPE))
KERNEL = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(15)).reshape(3, 5))
BLURRED = image.blur(SCENE, KERNEL) + 0.01 * jr.normal(jr.key(1), (2, 6, 6))
TIGHT = {"reweightings": 2, "cg_steps": 200, "rtol": 1e-13}


def matrix_of(function, shape):
    """The matrix of a linear function of pictures of a shape."""
    columns = [np.ravel(function(jnp.asarray(unit.reshape(shape)))) for unit in np.eye(int(np.prod(shape)))]
    return np.stack(columns, axis=1)


def test_blur_is_the_convolution_of_scipy():
    right = [scipy.signal.convolve(np.asarray(plane), np.asarray(KERNEL), mode="valid") for plane in SCENE]
    np.testing.assert_allclose(image.blur(SCENE, KERNEL), right, atol=1e-14)
    convolution = Convolution(KERNEL, *SHAPE, SCENE.dtype)
    forward = matrix_of(convolution.apply, (1, *SHAPE))
    np.testing.assert_allclose(matrix_of(convolution.adjoint, (1, 6, 6)), forward.T, atol=1e-14)


def test_kernels_have_the_moments_of_line_and_disc():
    line = np.asarray(image.motion_kernel(6.0, 0.4))
    places = np.arange(line.shape[0]) - line.shape[0] // 2
    assert line.sum() == pytest.approx(1.0)
    assert places @ line.sum(axis=1) == pytest.approx(0.0, abs=1e-12)
    along = lambda angle: np.cos(angle) * places[None] + np.sin(angle) * places[:, None]
    second = lambda angle: np.sum(line * along(angle) ** 2)
    # A line has the second moment length^2 / 12; sharing points among pixels adds about 1/6 in both directions.
    assert second(0.4) == pytest.approx(3.0 + 1 / 6, abs=0.1)
    assert second(0.4 + np.pi / 2) == pytest.approx(1 / 6, abs=0.1)
    upright = np.asarray(image.motion_kernel(4.0, np.pi / 2))
    np.testing.assert_allclose(upright[:, 2], np.array([1.0, 2.0, 2.0, 2.0, 1.0]) / 8, atol=1e-12)
    disc = np.asarray(image.disc_kernel(4.3))
    assert disc.sum() == pytest.approx(1.0)
    assert disc[5, 5] == pytest.approx(1 / (np.pi * 4.3**2), rel=0.02)
    np.testing.assert_array_equal(disc, disc[::-1].T)
    np.testing.assert_array_equal(image.motion_kernel(0.0, 1.0), [[1.0]])
    np.testing.assert_array_equal(image.disc_kernel(0.0), [[1.0]])


def test_kernels_have_derivatives_in_length_angle_and_radius():
    weights = jnp.cos(jnp.arange(81.0)).reshape(9, 9)
    assert_gradients(lambda n, a: jnp.sum(weights * image.motion_kernel(n, a, 9)), (5.3, 0.7))
    assert_gradients(lambda r: jnp.sum(weights * image.disc_kernel(r, 9)), (3.21,))


def test_without_blur_and_prior_the_picture_is_its_own_solution():
    free = image.Deconvolution(strengths=np.zeros(5))
    np.testing.assert_allclose(free(SCENE, jnp.ones((1, 1))), SCENE, atol=1e-12)
    delta = jnp.zeros((3, 3)).at[1, 1].set(1.0)
    np.testing.assert_allclose(image.Deconvolution()(SCENE, delta, noise=1e-6), SCENE, atol=1e-8)


@pytest.mark.parametrize("adjoint", ["implicit", "unrolled"])
def test_a_quadratic_prior_gives_the_solution_of_the_normal_equations(adjoint):
    strengths = np.array([0.3, 0.5, 0.1, 0.2, 0.4])
    model = image.Deconvolution(strengths=strengths, powers=np.full(5, 2.0), **TIGHT, adjoint=adjoint)
    blur = matrix_of(lambda x: Convolution(KERNEL, *SHAPE, x.dtype).apply(x), (1, *SHAPE))
    normal = blur.T @ blur
    for strength, taps in zip(strengths, np.asarray(model.filters), strict=True):
        filtered = lambda x, taps=taps: scipy.ndimage.correlate(np.asarray(x[0]), taps, mode="nearest")
        rows = matrix_of(filtered, (1, *SHAPE))
        normal += 0.1**2 * strength * rows.T @ rows
    right = [np.linalg.solve(normal, blur.T @ np.ravel(plane)).reshape(SHAPE)[1:-1, 2:-2] for plane in BLURRED]
    np.testing.assert_allclose(model(BLURRED, KERNEL, noise=0.1), right, atol=1e-9)


def test_reweighting_lowers_the_objective_to_a_stationary_point():
    """Of |K x - y|^2 + noise^2 sum (2/p) (m + width^2)^(p/2), of one plane, whose gradient the weights divide."""
    noise, width, power = 0.1, 0.1, 0.8
    model = image.Deconvolution(
        widths=np.full(5, width), powers=np.full(5, power), reweightings=60, cg_steps=400, rtol=1e-12
    )
    delta = jnp.ones((1, 1))  # no pixels are cut away
    filters = model.filters[:, None]

    def objective(x):
        prior = jnp.sum((image.stencil(x, filters, "edge") ** 2 + width**2) ** (power / 2)) * 2 / power
        return jnp.sum((x - BLURRED[:1]) ** 2) + noise**2 * prior

    solution = model(BLURRED[:1], delta, noise=noise)
    assert objective(solution) < objective(BLURRED[:1])
    np.testing.assert_allclose(jax.grad(objective)(solution), 0.0, atol=1e-7)


WEIGHTS = jnp.cos(jnp.arange(72.0)).reshape(2, 6, 6)


def weighted_sum(model, picture, kernel, noise):
    """Of all pixels, the edge included."""
    return jnp.sum(WEIGHTS * model(picture, kernel / jnp.sum(kernel), noise))


def arguments(adjoint):
    return image.Deconvolution(widths=np.full(5, 0.1), **TIGHT, adjoint=adjoint), BLURRED, KERNEL, jnp.array(0.1)


def test_both_adjoints_agree_with_each_other_with_forward_mode_and_with_differences():
    (model, *rest), (other, *_) = arguments("implicit"), arguments("unrolled")
    at, unravel = ravel_pytree((model, *rest))
    direction = jnp.asarray(np.random.default_rng(0).normal(size=at.size))
    of = lambda x: weighted_sum(*unravel(x))
    unrolled_at, unravel_unrolled = ravel_pytree((other, *rest))

    @jax.jit
    def everything(x):
        reverse = jax.grad(of)(x)
        unrolled = jax.grad(lambda x: weighted_sum(*unravel_unrolled(x)))(x)
        forward = jax.jvp(of, (x,), (direction,))[1]
        points = x[None] + 1e-4 * jnp.outer(jnp.array([-2.0, -1.0, 1.0, 2.0]), direction)
        return reverse, unrolled, forward, jax.lax.map(of, points)

    np.testing.assert_array_equal(at, unrolled_at)
    reverse, unrolled, forward, (far_back, back, ahead, far_ahead) = everything(at)
    for implicit, exact in zip(*(jax.tree.leaves(unravel(x)) for x in (reverse, unrolled)), strict=True):
        scale = float(jnp.max(jnp.abs(exact)))
        assert scale > 0.0
        np.testing.assert_allclose(implicit, exact, atol=1e-6 * scale)
    np.testing.assert_allclose(jnp.vdot(reverse, direction), forward, rtol=1e-8)
    slope = (8 * (ahead - back) - (far_ahead - far_back)) / 12e-4
    np.testing.assert_allclose(forward, slope, rtol=1e-6)


@pytest.mark.slow
def test_gradients_of_the_implicit_adjoint_are_those_of_differences():
    assert_gradients(weighted_sum, arguments("implicit"), max_coordinates=2)


@pytest.mark.slow
def test_an_early_end_of_the_steps_is_differentiated_by_the_unrolled_adjoint():
    """The implicit one takes the last estimate for the solution."""
    model = image.Deconvolution(reweightings=1, cg_steps=3, rtol=0.0, adjoint="unrolled")
    assert_gradients(lambda y: jnp.sum(model(y, KERNEL) ** 3), (BLURRED,), max_coordinates=2)


def test_conjugate_gradients_end_where_the_solution_is_known():
    matrix = lambda x: (jnp.array([[2.0, 1.0], [1.0, 3.0]]) @ x[0, 0])[None, None]
    for unrolled in (False, True):
        solve = lambda b, unrolled=unrolled: conjugate_gradients(matrix, b, 50, 1e-15, unrolled=unrolled)
        np.testing.assert_allclose(solve(jnp.array([[[1.0, 2.0]]])), [[[0.2, 0.6]]], atol=1e-14)
        np.testing.assert_array_equal(solve(jnp.zeros((1, 1, 2))), jnp.zeros((1, 1, 2)))


@pytest.mark.parametrize("adjoint", ["implicit", "unrolled"])
def test_transformations_and_types(adjoint):
    model = image.Deconvolution(reweightings=1, cg_steps=60, rtol=1e-6, adjoint=adjoint)
    sharp = lambda y, k: model(y, k, 0.3)
    # Reverse mode of the unrolled adjoint is that of a loop, and takes long to compile.
    of = sharp if adjoint == "unrolled" else jax.grad(lambda y, k: jnp.sum(WEIGHTS.astype(y.dtype) * sharp(y, k)))
    result = jax.jit(of)(BLURRED.astype(jnp.float32), KERNEL.astype(jnp.float32))
    assert result.dtype == jnp.float32
    both = jax.jit(jax.vmap(of, (0, None)))(jnp.stack([BLURRED[:, ::-1], BLURRED]), KERNEL)
    np.testing.assert_allclose(result, both[1], atol=1e-3)


def test_wiener_inverts_what_it_can():
    delta = jnp.zeros((3, 5)).at[1, 2].set(1.0)
    np.testing.assert_allclose(image.wiener(SCENE, delta, 0.25), SCENE / 1.25, atol=1e-12)
    symmetric = jnp.array([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]])
    mirrored = jnp.pad(SCENE, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    np.testing.assert_allclose(image.wiener(image.blur(mirrored, symmetric), symmetric, 1e-12), SCENE, atol=1e-6)
    assert_gradients(lambda y, r: jnp.sum(jnp.sin(image.wiener(y, KERNEL, r))), (BLURRED, 0.1), max_coordinates=4)


def test_a_prior_that_preserves_edges_is_better_than_wiener():
    scene = jnp.zeros((1, 40, 40)).at[:, 12:28, 8:20].set(0.8).at[:, 20:, 24:].set(0.4)
    kernel = image.disc_kernel(2.0)
    blurred = image.blur(scene, kernel)
    blurred = blurred + 0.01 * jr.normal(jr.key(2), blurred.shape)
    judge = lambda x: image.psnr(x, scene[:, 2:-2, 2:-2], border=6)
    best = max(judge(image.wiener(blurred, kernel, 10.0**-e)) for e in (1.5, 2.0, 2.5, 3.0))
    assert judge(image.Deconvolution()(blurred, kernel)) > best + 3.0


def test_bad_input_is_named(wrong_types):
    third = jnp.full((3, 1), 1 / 3)
    for call, message in [
        (lambda: image.blur(SCENE, jnp.full((2, 3), 1 / 6)), "kernel of 2 x 3 pixels has no centre: add a row"),
        (lambda: image.blur(SCENE, jnp.full((9, 1), 1 / 9)), "9 x 1 pixels is larger than the picture of 8 x 10"),
        (lambda: image.Deconvolution()(SCENE, 2.0 * third), "kernel with sum 2 changes the brightness: divide it"),
        (lambda: image.Deconvolution()(SCENE.astype(int), third), "type int64"),
        (lambda: image.wiener(SCENE, jnp.full((3, 1), jnp.nan), 0.1), "kernel with sum nan"),
        (lambda: image.wiener(SCENE, third, 0.0), "noise_to_signal=0: give a finite number above 0"),
        (lambda: image.Deconvolution()(SCENE, third, noise=0.0), "noise=0: give a finite number above 0"),
        (lambda: image.Deconvolution(adjoint="exact"), "adjoint='exact': give one of implicit, unrolled"),
        (lambda: image.Deconvolution(cg_steps=0), "cg_steps=0: give at least 1"),
        (lambda: image.motion_kernel(-1.0, 0.0), "length=-1 px: give a finite number of at least 0"),
        (lambda: image.motion_kernel(9.0, 0.0, 5), "size=5: give an odd number of at least 11"),
        (lambda: image.disc_kernel(2.0, 6), "size=6: give an odd number of at least 5"),
        (lambda: jax.jit(image.disc_kernel)(2.0), "radius is traced, and the size of the kernel depends on it"),
    ]:
        with pytest.raises(ds.InputError, match=message):
            call()
