"""Pictures to display: colours last, in eight bits, and stage by stage with the adjoints of the loss."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ..._errors import InputError
from ...graph.stage_graph import StageGraph, stage_graph
from ..chain import Chain
from ..demosaicing.denoising_network import DenoisingDemosaic
from ..demosaicing.network import DemosaicNetwork
from ..sensor import Camera
from ..stages.color_matrix import ColorMatrix
from ..values import Pixels, check_floating


def colors_last(picture: Float[Pixels, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the picture as (h, w, 3); a mosaic or a number unchanged."""
    values = np.asarray(picture)
    return np.moveaxis(values, 0, 2) if values.ndim == 3 else values


def pixels(picture: Float[Pixels, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture clipped to [0, 1], in 8 bits."""
    check_floating(picture)
    return np.round(np.clip(colors_last(picture), 0, 1) * 255).astype(np.uint8)


def loss_graph(chain: Chain, given: Float[Array, "h w"], scene: Float[Pixels, "3 h w"]) -> StageGraph:
    """Returns the stages from a raw to the squared error of the picture, with their costs and adjoints."""
    graph = stage_graph({**chain.stages, "loss": lambda picture: jnp.mean((picture - scene) ** 2)}, given)
    return replace(graph, stages=tuple(replace(x, picture=colors_last(x.picture)) for x in graph.stages))


def filters(chain: Chain, most: int = 16) -> dict[str, Float[np.ndarray, "28 28"]]:
    """Returns pictures of the filters of the first layer of the network by number, each four squares for R, G, G, B.

    A weight is a square of 4 x 4 pixels; one empty line separates the four, and more surround them.

    Raises:
        InputError: for a chain without such a network.
    """
    network = chain.stages["demosaic"]
    if not isinstance(network, (DemosaicNetwork, DenoisingDemosaic)):
        raise InputError("the chain has no network named demosaic")
    first = network.layers[0] if isinstance(network, DemosaicNetwork) else network.first
    weights = np.asarray(first.weight)[:most]
    fine = np.kron(weights, np.ones((4, 4)))
    separated = np.pad(fine, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=np.nan)
    blocks = [np.block([[w[0], w[1]], [w[2], w[3]]]) for w in separated]
    return {f"{i + 1}": np.pad(block, ((0, 2), (0, 2)), constant_values=np.nan) for i, block in enumerate(blocks)}


def constants(chain: Chain, camera: Camera) -> list[tuple[str, float, float]]:
    """Returns rows of the name of a constant, its value in the chain and in the camera: black level, gains, matrix."""
    balance, color = chain.stages["balance"], chain.stages["color"]
    assert isinstance(color, ColorMatrix)
    matrix = np.asarray(color.matrix)
    pairs = {"black level": "black", "red gain": "red", "blue gain": "blue"}
    rows = [(name, float(getattr(balance, key)), float(getattr(camera, key))) for name, key in pairs.items()]
    places = [(i, j) for i in range(3) for j in range(3)]
    return rows + [(f"matrix {i + 1},{j + 1}", float(matrix[i, j]), camera.matrix[i][j]) for i, j in places]
