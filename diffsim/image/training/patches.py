"""Training pictures: small squares cut from photographs, turned, mirrored and recoloured at random."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from ..._errors import InputError


def cut(photographs: Sequence[UInt8[np.ndarray, "3 _ _"]], size: int, stride: int) -> UInt8[np.ndarray, "n 3 s s"]:
    """All squares of `size` pixels of the photographs, `stride` apart; a photograph that is smaller gives none."""
    found = [
        photograph[:, i : i + size, j : j + size]
        for photograph in photographs
        for i in range(0, photograph.shape[1] - size + 1, stride)
        for j in range(0, photograph.shape[2] - size + 1, stride)
    ]
    if not found:
        raise InputError(f"no photograph has {size} x {size} pixels")
    return np.stack(found)


def halve(photograph: UInt8[np.ndarray, "3 h w"]) -> UInt8[np.ndarray, "3 h/2 w/2"]:
    """The photograph at half the size, by means of four: for files whose colours are stored at half the size."""
    channels, height, width = photograph.shape
    fours = photograph[:, : height // 2 * 2, : width // 2 * 2].reshape(channels, height // 2, 2, width // 2, 2)
    return np.round(fours.mean(axis=(2, 4))).astype(np.uint8)


def draw(patches: UInt8[Array, "n 3 s s"], *, key: PRNGKeyArray, saturation: float = 1.6) -> Float[Array, "3 s s"]:
    """One patch in [0, 1]: mirrored and turned at random, its three colours in random order and strengthened.

    The order makes red, green and blue alike in what is learned of them. Colours are moved away from their mean by a
    factor between 1 and `saturation`, since photographs at hand are paler than what cameras meet.
    """
    which, mirror, order, strength = jr.split(key, 4)
    x = patches[jr.randint(which, (), 0, len(patches))].astype(jnp.float32) / 255
    up, left, turn = jr.bernoulli(mirror, 0.5, (3,))
    x = jnp.where(up, x[:, ::-1], x)
    x = jnp.where(left, x[:, :, ::-1], x)
    x = jnp.where(turn, jnp.swapaxes(x, 1, 2), x)
    x = x[jr.permutation(order, 3)]
    grey = jnp.mean(x, axis=0, keepdims=True)
    factor = jr.uniform(strength, (), x.dtype, 1.0, saturation)
    return jnp.clip(grey + factor * (x - grey), 0.0, 1.0)


def mean_over(
    function, patches: UInt8[Array, "n 3 s s"], keys: PRNGKeyArray, *, saturation: float = 1.6
) -> Float[Array, ""]:
    """The mean of `function(picture, key)` over random patches, one for each key, in turn: each fits the cache."""

    def one(key):
        drawn, noise = jr.split(key)
        return function(draw(patches, key=drawn, saturation=saturation), noise)

    return jnp.mean(jax.lax.map(one, keys))
