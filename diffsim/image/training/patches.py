"""Training pictures: small squares cut from photographs, turned, mirrored and recoloured at random."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, UInt8

from ..._errors import InputError
from ..demosaicing.bayer import mosaic
from ..demosaicing.linear import malvar


def cut(photographs: Sequence[UInt8[np.ndarray, "3 _ _"]], size: int, stride: int) -> UInt8[np.ndarray, "n 3 s s"]:
    """Returns all squares of `size` pixels of the photographs, `stride` apart.

    Raises:
        InputError: if all photographs are smaller.
    """
    squares = [
        photograph[:, i : i + size, j : j + size]
        for photograph in photographs
        for i in range(0, photograph.shape[1] - size + 1, stride)
        for j in range(0, photograph.shape[2] - size + 1, stride)
    ]
    if not squares:
        raise InputError(f"no photograph has {size} x {size} pixels")
    return np.stack(squares)


def worst(squares: UInt8[np.ndarray, "n 3 s s"], share: float = 0.5) -> UInt8[np.ndarray, "m 3 s s"]:
    """Returns the share of the squares that Malvar's filters restore worst, where fine patterns make false colours.

    In the others there is little to learn.
    """
    errors = np.array([_malvar_error(square) for square in squares])
    return squares[np.argsort(-errors)[: max(1, round(share * len(squares)))]]


@jax.jit
def _malvar_error(square):
    """The mean squared error of Malvar's filters on a square."""
    picture = square.astype(jnp.float32) / 255
    return jnp.mean((malvar(mosaic(picture)) - picture) ** 2)


def halve(photograph: UInt8[np.ndarray, "3 h w"]) -> UInt8[np.ndarray, "3 h//2 w//2"]:
    """Returns the photograph at half the size, by means of four: for files that store colours at half the size."""
    channels, height, width = photograph.shape
    fours = photograph[:, : height // 2 * 2, : width // 2 * 2].reshape(channels, height // 2, 2, width // 2, 2)
    return np.round(fours.mean(axis=(2, 4))).astype(np.uint8)


def draw(patches: UInt8[Array, "n 3 s s"], *, key: PRNGKeyArray, saturation: float = 1.6) -> Float[Array, "3 s s"]:
    """Returns one patch in [0, 1], mirrored, rotated, its colours permuted and saturated at random.

    The permutation makes the statistics of red, green and blue equal. Colours are moved away from their mean by a
    factor between 1 and `saturation`, since these photographs are paler than what cameras record.
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
    function, patches: UInt8[Array, "n 3 s s"], keys: Key[Array, " batch"], *, saturation: float = 1.6
) -> Float[Array, ""]:
    """Returns the mean of `function(picture, key)` over random patches, one for each key, in turn to fit the cache."""

    def one(key):
        drawn, noise = jr.split(key)
        return function(draw(patches, key=drawn, saturation=saturation), noise)

    return jnp.mean(jax.lax.map(one, keys))
