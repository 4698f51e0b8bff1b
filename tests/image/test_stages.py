"""Every stage: invariants, exact cases, and gradients at pixels where formulas are singular."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.interpolate

import diffsim as ds
from diffsim import image
from diffsim.image import sensor
from diffsim.image.ops import pointwise
from diffsim.testing import assert_gradients

# Rows of pixels at 0, the black level, grey, white, beyond both ends, and saturated in one colour.
SPECIAL = np.array([[0, 0, 0], [0.0625] * 3, [0.5] * 3, [1, 1, 1], [-0.02, 0, 0.01], [1.1, 1, 1], [1, 0, 0], [0, 0, 1]])
PICTURE = jnp.concatenate(
    [jnp.tile(jnp.asarray(SPECIAL.T)[:, :, None], (1, 1, 3)), jr.uniform(jr.key(0), (3, 8, 7))], 2
)
MOSAIC = image.mosaic(PICTURE)
CURVE = image.ToneCurve(rises=np.sin(np.arange(15.0)))
STAGES = {
    "balance": (image.WhiteBalance(black=0.0625, red=1.9, blue=1.6), MOSAIC),
    "stabilize variance": (image.FunctionStage(lambda _, x: image.stabilize_variance(x)), MOSAIC),
    "unstabilize variance": (image.FunctionStage(lambda _, x: image.unstabilize_variance(x)), MOSAIC),
    "colour matrix": (image.ColorMatrix(mixing=np.array([-0.5, -0.1, -0.25, -0.3, 0.05, -0.65])), PICTURE),
    "gamma": (image.Gamma(), PICTURE),
    "tone curve": (CURVE, PICTURE),
    "saturation": (image.Saturation(saturation=1.2, vibrance=0.4), PICTURE),
    "guided filter": (image.GuidedFilter(radius=2), PICTURE),
    "guided filter, one plane": (image.GuidedFilter(radius=2), PICTURE[:1]),
    "unsharp mask": (image.UnsharpMask(amount=0.5, radius=3), PICTURE),
    "bilateral grid": (image.BilateralGrid(cell=3, depth=4), PICTURE),
    "colour curves": (image.ColorCurves(rises=np.sin(np.arange(45.0)).reshape(3, 15)), PICTURE),
    "colour transform": (
        image.ColorTransform(matrix=np.array([[0.9, 0.2, -0.3], [0.1, 1.1, 0], [0.3, 0, 1]])),
        PICTURE,
    ),
    "table": (image.LookupTable(np.random.default_rng(0).uniform(size=(4, 4, 4, 3))), 0.94 * PICTURE + 0.031),
    "lens shading": (image.LensShading(coefficients=np.array([0.3, 0.1, -0.1])), PICTURE),
    "lens distortion": (image.LensDistortion(coefficients=np.array([0.07, -0.02]), scale=1.05), PICTURE),
    "highlights": (image.Highlights(white=0.93), 1.4 * PICTURE),
    "local Laplacian": (image.LocalLaplacian(detail=0.5, contrast=0.8, levels=2, references=4), PICTURE),
}


@pytest.mark.parametrize("name", STAGES)
def test_gradients_at_the_pixels_where_code_breaks(name):
    stage, x = STAGES[name]
    # A loss that weighs every pixel differently, so that no error cancels.
    weights = jnp.cos(jnp.arange(x.size)).reshape(x.shape)
    assert_gradients(jax.jit(lambda stage, x: jnp.sum(weights * jnp.sin(stage(x)))), (stage, x), max_coordinates=6)


@pytest.mark.parametrize("name", STAGES)
def test_single_precision_stays_single_and_finite(name):
    stage, x = jax.tree.map(lambda a: a.astype(jnp.float32), STAGES[name])
    value, gradient = eqx.filter_value_and_grad(lambda both: jnp.sum(both[0](both[1]) ** 2))((stage, x))
    assert value.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("of_stage", "of_picture"), [(jnp.float32, jnp.float64), (jnp.float64, jnp.float32)])
def test_stage_and_picture_may_differ_in_precision(name, of_stage, of_picture):
    stage, x = STAGES[name]
    stage, x = jax.tree.map(lambda a: a.astype(of_stage), stage), x.astype(of_picture)
    slopes = jax.jit(jax.grad(lambda both: jnp.sum(jnp.sin(both[0](both[1])))))
    mixed, double = slopes((stage, x)), slopes(jax.tree.map(lambda a: a.astype(jnp.float64), (stage, x)))
    for given, a, b in zip(*map(jax.tree.leaves, ((stage, x), mixed, double)), strict=True):
        assert a.dtype == given.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gamma", "saturation", "highlights"])
def test_stages_in_strips_are_the_same(name, monkeypatch):
    stage, x = STAGES[name]
    loss = lambda s, x: jnp.sum(jnp.cos(s(x)) * x)
    in_one = jax.grad(loss, (0, 1))(stage, x)
    # The last strip is moved inward, over pixels of the one before.
    monkeypatch.setattr(pointwise, "STRIP", 7)
    strips = jax.grad(loss, (0, 1))(stage, x)
    for a, b in zip(jax.tree.leaves(in_one), jax.tree.leaves(strips), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "name", ["gamma", "tone curve", "saturation", "guided filter", "unsharp mask", "bilateral grid"]
)
def test_a_batch_of_pictures_is_what_each_is_with_gradients(name):
    stage, _ = jax.tree.map(lambda a: a.astype(jnp.float32), STAGES[name])
    pictures = jr.uniform(jr.key(1), (64, 3, 64, 64), jnp.float32)
    slopes = jax.grad(lambda stage, x: jnp.sum(jnp.sin(stage(x))), (0, 1))
    many, one = jax.jit(jax.vmap(slopes, (None, 0)))(stage, pictures), jax.jit(slopes)(stage, pictures[9])
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a[9], b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 2300), (40, 1100)])
@pytest.mark.parametrize(
    "stage", [image.UnsharpMask(amount=0.5), image.BilateralGrid()], ids=["unsharp mask", "bilateral grid"]
)
def test_a_wide_picture_is_treated_as_a_tall_one(stage, size):
    """Both stages give the same for a transposed picture, although their strips are rows."""
    x = jr.uniform(jr.key(1), (3, *size))
    slopes = jax.jit(jax.grad(lambda stage, x: jnp.sum(jnp.sin(stage(x))), (0, 1)))
    wide, tall = slopes(stage, x), slopes(stage, x.transpose(0, 2, 1))
    np.testing.assert_allclose(wide[1], tall[1].transpose(0, 2, 1), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(jax.tree.leaves(wide[0]), jax.tree.leaves(tall[0]), rtol=1e-10)


def test_balance_undoes_the_sensor():
    camera = image.Camera(bits=None, matrix=tuple(map(tuple, np.eye(3))), tone=False)
    grey = jnp.full((3, 4, 4), 0.5)
    balance = image.WhiteBalance(black=camera.black, red=camera.red, blue=camera.blue)
    np.testing.assert_allclose(
        balance(image.unprocess(grey, camera=camera)), sensor.to_linear(jnp.array(0.5)), rtol=1e-12
    )


def test_color_matrix_keeps_grey_to_the_last_bit():
    stage = STAGES["colour matrix"][0]
    grey = jnp.broadcast_to(jr.uniform(jr.key(1), (1, 4, 5)), (3, 4, 5))
    np.testing.assert_array_equal(stage(grey), grey)
    np.testing.assert_allclose(stage(PICTURE), jnp.einsum("ij,jhw->ihw", stage.matrix, PICTURE), atol=1e-14)


def test_gamma_starts_as_srgb():
    # The published constants are rounded, which leaves their slope at the toe 1.7% off; ours has no jump there.
    np.testing.assert_allclose(image.Gamma()(PICTURE), sensor.to_srgb(PICTURE), rtol=0.02, atol=1e-12)
    light = jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(sensor.to_linear(sensor.to_srgb(light)), light, atol=1e-7)


def test_tone_curve_is_monotone_through_its_knots_and_starts_as_identity():
    np.testing.assert_allclose(image.ToneCurve()(PICTURE), PICTURE, atol=1e-14)
    at = jnp.broadcast_to(jnp.linspace(0, 1, 16)[None, None], (1, 2, 16))
    np.testing.assert_allclose(CURVE(at)[0, 0], CURVE.knots, atol=1e-14)
    fine = CURVE(jnp.linspace(-0.2, 1.2, 999)[None, None])
    assert np.all(np.diff(fine[0, 0]) > 0)


def test_unstabilize_variance_is_the_inverse_of_stabilize_variance():
    x = jnp.linspace(-0.5, 2.0, 99)
    np.testing.assert_allclose(image.unstabilize_variance(image.stabilize_variance(x)), x, atol=1e-14)


def test_saturation_keeps_luma_and_zero_makes_grey():
    stage = STAGES["saturation"][0]
    np.testing.assert_allclose(image.luma(stage(PICTURE)), image.luma(PICTURE), atol=1e-14)
    grey = ds.replace(image.Saturation(), {"saturation": 0.0})(PICTURE)
    np.testing.assert_allclose(grey, jnp.broadcast_to(image.luma(PICTURE)[None], PICTURE.shape), atol=1e-14)


def test_guided_filter_is_exact_on_lines_of_the_luma_and_smooths_noise():
    grey = jr.uniform(jr.key(2), (20, 20))
    lines = jnp.stack([grey, grey, grey])
    np.testing.assert_allclose(image.GuidedFilter(smoothing=1e-7)(lines), lines, atol=1e-5)
    noise = 0.5 + 0.01 * jr.normal(jr.key(3), (3, 40, 40))
    assert np.std(image.GuidedFilter(smoothing=1e-1)(noise)) < 0.2 * np.std(noise)


def test_guided_filter_of_one_plane_is_that_of_three_equal_planes():
    plane = jr.uniform(jr.key(4), (1, 20, 24))
    guided = image.GuidedFilter(radius=2)
    np.testing.assert_allclose(guided(plane), guided(jnp.repeat(plane, 3, axis=0))[:1], rtol=1e-12)
    with pytest.raises(ds.InputError, match="2 planes has no guide"):
        guided(PICTURE[:2])


def test_unsharp_mask_steepens_an_edge_and_nothing_flat():
    edge = jnp.broadcast_to(jnp.where(jnp.arange(24) < 12, 0.2, 0.8)[None, None], (3, 24, 24))
    sharp = image.UnsharpMask(amount=0.5)(edge)
    np.testing.assert_allclose(sharp[:, :, :4], edge[:, :, :4], atol=1e-12)
    assert sharp[0, 12, 11] < 0.2 < 0.8 < sharp[0, 12, 12]


def test_bilateral_grid_keeps_flat_colors_and_edges_and_smooths_noise():
    flat = jnp.broadcast_to(jnp.array([0.2, 0.5, 0.7])[:, None, None], (3, 19, 23))
    np.testing.assert_allclose(image.BilateralGrid(strength=1.0, cell=4)(flat), flat, atol=1e-5)
    noise = 0.02 * jr.normal(jr.key(3), (3, 32, 32))
    edge = jnp.broadcast_to(jnp.where(jnp.arange(32) < 16, 0.2, 0.8)[None, None], (3, 32, 32))
    smoothed = image.BilateralGrid(strength=1.0, cell=8)(edge + noise)
    assert np.std(smoothed - edge) < 0.4 * np.std(noise)


def test_local_laplacian_without_change_is_identity_and_detail_adds_contrast():
    picture = jr.uniform(jr.key(7), (3, 21, 26))
    np.testing.assert_allclose(image.LocalLaplacian()(picture), picture, atol=1e-12)
    texture = 0.5 + 0.02 * jr.normal(jr.key(8), (3, 32, 32))
    assert np.std(image.LocalLaplacian(detail=1.0)(texture)) > 1.3 * np.std(texture)


def test_highlights_keep_their_mean_and_what_is_not_saturated_stays():
    stage, x = image.Highlights(white=0.9), 1.5 * PICTURE
    over, inside = np.asarray(stage(x)) * 0.9, np.asarray(jnp.max(x, axis=0) <= 0.9)
    np.testing.assert_allclose(over.mean(axis=0), x.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(over[:, inside], np.asarray(x)[:, inside], atol=1e-12)
    # Where all are saturated they are grey; where one is, its hue stays, with the chroma of the picture cut at white.
    magenta = stage(jnp.array([1.9, 1.0, 1.6])[:, None, None])
    np.testing.assert_allclose(magenta, 1.5 / 0.9, rtol=1e-5)
    orange = np.array([1.6, 0.85, 0.4])
    kept, cut = np.asarray(stage(jnp.asarray(orange)[:, None, None]))[:, 0, 0] * 0.9, np.minimum(orange, 0.9)
    ratio = np.linalg.norm(cut - cut.mean()) / np.linalg.norm(orange - orange.mean())
    np.testing.assert_allclose(kept, orange.mean() + ratio * (orange - orange.mean()), rtol=1e-3)


def test_a_table_is_interpolated_linearly(wrong_types):
    table = np.random.default_rng(0).uniform(size=(5, 5, 5, 3))
    axis = np.linspace(0.0, 1.0, 5)
    right = scipy.interpolate.interpn((axis,) * 3, table, np.moveaxis(np.clip(np.asarray(PICTURE), 0, 1), 0, 2))
    np.testing.assert_allclose(image.LookupTable(table)(PICTURE), np.moveaxis(right, 2, 0), atol=1e-12)
    inside = jnp.clip(PICTURE, 0.0, 1.0)
    np.testing.assert_allclose(image.LookupTable(size=9)(inside), inside, atol=1e-12)
    for shape in ((5, 5, 4, 3), (1, 1, 1, 3), (5, 5, 5, 4)):
        with pytest.raises(ds.InputError, match="a table of shape"):
            image.LookupTable(np.zeros(shape))
    with pytest.raises(ds.InputError, match="size=1"):
        image.LookupTable(size=1)


def test_curves_of_each_color_are_tone_curves():
    rises = np.sin(np.arange(45.0)).reshape(3, 15)
    planes = [image.ToneCurve(rises=r)(plane[None])[0] for r, plane in zip(rises, PICTURE, strict=True)]
    np.testing.assert_allclose(image.ColorCurves(rises=rises)(PICTURE), jnp.stack(planes), rtol=1e-12)
