"""Pictures of integers: refused with the remedy by functions that compute with them, accepted by others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import InputError, image
from diffsim.image import sensor
from diffsim.image.training import baselines, evaluate, views
from diffsim.testing import assert_gradients

KEY = jax.random.key(0)
COLORS = np.random.default_rng(0).integers(0, 256, (3, 24, 24), np.uint8)
ONES = np.ones((1, 3, 3, 3))

STAGES = (
    "ColorMatrix",
    "Gamma",
    "ToneCurve",
    "Saturation",
    "GuidedFilter",
    "BilateralGrid",
    "LocalLaplacian",
    "UnsharpMask",
)
OF_PICTURES = {name: getattr(image, name)() for name in STAGES} | {
    "box_filter": lambda x: image.box_filter(x, 1),
    "luma": image.luma,
    "stabilize_variance": image.stabilize_variance,
    "unstabilize_variance": image.unstabilize_variance,
    "psnr": lambda x: image.psnr(x, x, border=2),
    "psnr, second": lambda x: image.psnr(x / 255.0, x, border=2),
    "ssim": lambda x: image.ssim(x, x),
    "ssim, second": lambda x: image.ssim(x / 255.0, x),
    "integer stencil": lambda x: image.stencil(x, ONES.astype(np.uint8)),
    "unprocess": image.unprocess,
    "to_srgb": sensor.to_srgb,
    "to_linear": sensor.to_linear,
    "pixels": views.pixels,
    "crop_even": evaluate.crop_even,
    "in_tiles": lambda x: image.in_tiles(image.Gamma(), x, size=16, halo=4),
}
OF_MOSAICS = {
    "bilinear": image.bilinear,
    "malvar": image.malvar,
    "menon": image.menon,
    "WhiteBalance": image.WhiteBalance(),
    "DemosaicNetwork": image.DemosaicNetwork(key=KEY),
    "DenoisingDemosaic": image.DenoisingDemosaic(key=KEY),
    "chain": image.Chain(balance=image.WhiteBalance(), demosaic=image.malvar),
    "run_tiles": lambda x: evaluate.run_tiles(image.Chain(demosaic=image.malvar), x),
    "develop": lambda x: baselines.develop(x, sensor.CAMERA),
}


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_whole_numbers_are_refused(kind):
    values = COLORS.astype(kind)
    for functions, picture in ((OF_PICTURES, values), (OF_MOSAICS, values[0])):
        for function in functions.values():
            for given in (picture, jnp.asarray(picture)):
                with pytest.raises(InputError, match=rf"divide it by .* white \(at most {np.iinfo(kind).max}\)"):
                    function(given)


@pytest.mark.usefixtures("wrong_types")
def test_masks_are_refused():
    with pytest.raises(InputError, match="type bool: convert it with astype"):
        image.luma(COLORS > 100)


@pytest.mark.usefixtures("wrong_types")
def test_whole_numbers_are_not_written(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match="divide it by the value of white"):
        image.write_picture(path, COLORS)
    assert not path.exists()
    image.write_picture(path, COLORS / 255)
    np.testing.assert_array_equal(np.round(image.read_picture(path) * 255), COLORS)


def test_what_only_selects_keeps_whole_numbers():
    selected = image.mosaic(COLORS)
    assert selected.dtype == np.uint8
    np.testing.assert_array_equal(selected[::2, 1::2], COLORS[1, ::2, 1::2])
    np.testing.assert_array_equal(image.to_rggb(selected, "RGGB"), selected)


def test_a_stencil_of_fractions_is_right_on_whole_numbers():
    sums = image.correlate(COLORS, ONES / 27)
    np.testing.assert_allclose(sums, image.correlate(COLORS.astype(float), ONES / 27), rtol=1e-6)


def test_the_check_of_stages_does_not_touch_derivatives():
    assert_gradients(lambda x: jnp.sum(image.Gamma()(x) ** 2), (jnp.full((1, 2, 2), 0.4),))
