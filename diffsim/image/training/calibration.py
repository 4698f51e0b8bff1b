"""A camera's constants found again from noise-free raws, after a wrong start."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ...optimize.least_squares import fit_least_squares
from ...parameters import replace, trainable
from ..chain import Chain
from ..demosaicing.linear import malvar
from ..ops.box_filter import box
from ..sensor import CAMERA, expose, to_srgb
from ..stages.color import Balance, ColourMatrix
from . import train_chain

SCENES = 12


def true_finish() -> Chain:
    """The chain of the camera's own constants, without its tone."""
    matrix = np.array(CAMERA.matrix, np.float32)
    return Chain(
        remat=False,
        balance=replace(Balance(), {"black": CAMERA.black, "red": CAMERA.red, "blue": CAMERA.blue}),
        demosaic=malvar,
        colour=replace(ColourMatrix(), {"mixing": matrix[~np.eye(3, dtype=bool)]}),
        display=to_srgb,
    )


def wrong_start(off: float, key: PRNGKeyArray) -> Chain:
    """The true chain, each of its nine constants wrong by a fraction `off` up or down."""
    true = true_finish()
    wrong = 1.0 + off * jr.rademacher(key, (9,), jnp.float32)
    names = ("stages.balance.black", "stages.balance.red", "stages.balance.blue")
    balance = true.stages["balance"]
    right = (balance.black, balance.red, balance.blue)  # pyright: ignore[reportAttributeAccessIssue]
    values = {name: value * wrong[i] for i, (name, value) in enumerate(zip(names, right, strict=True))}
    mixing = true.stages["colour"].mixing  # pyright: ignore[reportAttributeAccessIssue]
    return replace(true, values | {"stages.colour.mixing": mixing * wrong[3:]})


def recover(start: Chain, steps: int, *, key: PRNGKeyArray) -> tuple[Chain, float]:
    """The chain whose constants fit noise-free raws of smooth scenes, and the least loss on the way."""
    squares = np.asarray(train_chain.squares())
    scenes = squares[np.asarray(jr.choice(key, len(squares), (SCENES,), replace=False))] / np.float32(255)
    # Smooth scenes: what demosaicking cannot know would pull at the constants.
    scenes = jax.vmap(lambda x: box(box(box(x, 4), 4), 4))(jnp.asarray(scenes))
    camera = CAMERA._replace(tone=False, bits=None)
    data = (jax.vmap(lambda x: expose(x, camera=camera))(scenes), scenes)
    free = trainable(start, "stages.balance", "stages.colour")
    found, history = fit_least_squares(_residuals, start, data, steps=steps, filter_spec=free)
    return found, float(np.nanmin(history.loss))  # not a number where a step was not taken


def _residuals(chain: Chain, data: tuple[Array, Array]):
    edge = train_chain.BORDER  # at their edges the mosaics are mirrored
    return (jax.vmap(chain)(data[0]) - data[1])[..., edge:-edge, edge:-edge]


def errors(chain: Chain) -> dict[str, float]:
    """How far the chain's constants are from the camera's: black level, gains as fractions, greatest of the matrix."""
    balance, matrix = chain.stages["balance"], np.asarray(chain.stages["colour"].matrix)  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "black_error": abs(float(balance.black) - CAMERA.black),  # pyright: ignore[reportAttributeAccessIssue]
        "red_error": abs(float(balance.red) / CAMERA.red - 1),  # pyright: ignore[reportAttributeAccessIssue]
        "blue_error": abs(float(balance.blue) / CAMERA.blue - 1),  # pyright: ignore[reportAttributeAccessIssue]
        "matrix_error": float(abs(matrix - np.array(CAMERA.matrix)).max()),
    }
