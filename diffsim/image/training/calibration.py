"""Calibration: the constants of a camera recovered from noise-free raws, after a wrong start."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ...optimize.least_squares import fit_least_squares
from ...parameters import replace, trainable
from ..chain import Chain
from ..demosaicing.linear import malvar
from ..ops.box_filter import box_filter
from ..sensor import CAMERA, to_srgb, unprocess
from ..stages.color_matrix import ColorMatrix
from ..stages.white_balance import WhiteBalance
from . import train_chain

SCENES = 12


def true_finish() -> Chain:
    """Returns the chain with the constants of the camera, without its tone."""
    matrix = np.array(CAMERA.matrix, np.float32)
    return Chain(
        remat=False,
        balance=replace(WhiteBalance(), {"black": CAMERA.black, "red": CAMERA.red, "blue": CAMERA.blue}),
        demosaic=malvar,
        color=replace(ColorMatrix(), {"mixing": matrix[~np.eye(3, dtype=bool)]}),
        display=to_srgb,
    )


def wrong_start(off: float, key: PRNGKeyArray) -> Chain:
    """Returns the true chain with each of its nine constants changed by a fraction `off`, up or down."""
    true = true_finish()
    wrong = 1.0 + off * jr.rademacher(key, (9,), jnp.float32)
    names = ("stages.balance.black", "stages.balance.red", "stages.balance.blue")
    balance, color = _stages(true)
    right = balance.black, balance.red, balance.blue
    values = {name: value * wrong[i] for i, (name, value) in enumerate(zip(names, right, strict=True))}
    return replace(true, values | {"stages.color.mixing": color.mixing * wrong[3:]})


def _stages(chain: Chain) -> tuple[WhiteBalance, ColorMatrix]:
    """The stages with the constants."""
    balance, color = chain.stages["balance"], chain.stages["color"]
    assert isinstance(balance, WhiteBalance)
    assert isinstance(color, ColorMatrix)
    return balance, color


def recover(start: Chain, steps: int, *, key: PRNGKeyArray) -> tuple[Chain, float]:
    """Returns the chain whose constants fit noise-free raws of smooth scenes, and the least loss of the fit."""
    squares = np.asarray(train_chain.squares())
    scenes = squares[np.asarray(jr.choice(key, len(squares), (SCENES,), replace=False))] / np.float32(255)
    # Smooth scenes: errors of demosaicking would bias the constants.
    scenes = jax.vmap(lambda x: box_filter(box_filter(box_filter(x, 4), 4), 4))(jnp.asarray(scenes))
    camera = CAMERA._replace(tone=False, bits=None)
    data = (jax.vmap(lambda x: unprocess(x, camera=camera))(scenes), scenes)
    free = trainable(start, "stages.balance", "stages.color")
    fitted, history = fit_least_squares(_residuals, start, data, steps=steps, filter_spec=free)
    return fitted, float(np.nanmin(history.loss))  # not a number where a step was rejected


def _residuals(chain: Chain, data: tuple[Array, Array]):
    edge = train_chain.BORDER  # beyond their edges the mosaics are mirrored
    return (jax.vmap(chain)(data[0]) - data[1])[..., edge:-edge, edge:-edge]


def errors(chain: Chain) -> dict[str, float]:
    """Returns the errors of the constants: black level, gains as fractions, the greatest of the matrix."""
    balance, color = _stages(chain)
    return {
        "black_error": abs(float(balance.black) - CAMERA.black),
        "red_error": abs(float(balance.red) / CAMERA.red - 1),
        "blue_error": abs(float(balance.blue) / CAMERA.blue - 1),
        "matrix_error": float(abs(np.asarray(color.matrix) - np.array(CAMERA.matrix)).max()),
    }
