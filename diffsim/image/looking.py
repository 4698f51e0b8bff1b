"""Pictures as they are looked at: colours last, in eight bits, and stage by stage with what the loss hangs on."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ..derivatives.stages import StageGraph, stage_graph
from .bayer import Pixels
from .chain import Chain


def colours_last(picture: Float[Pixels, "*c h w"]) -> Float[np.ndarray, "h w *c"]:
    """The picture as it is drawn: (h, w, 3), or a mosaic as it is."""
    values = np.asarray(picture)
    return np.moveaxis(values, 0, 2) if values.ndim == 3 else values


def pixels(picture: Float[Pixels, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as values of 8 bits, cut to [0, 1]."""
    return np.round(np.clip(colours_last(picture), 0, 1) * 255).astype(np.uint8)


def to_the_loss(chain: Chain, given: Float[Array, "h w"], scene: Float[Pixels, "3 h w"]) -> StageGraph:
    """The stages from a raw to the squared error against the scene, with their costs and adjoints, to draw."""
    graph = stage_graph({**chain.stages, "loss": lambda picture: jnp.mean((picture - scene) ** 2)}, given)
    return replace(graph, stages=tuple(replace(x, picture=colours_last(x.picture)) for x in graph.stages))
