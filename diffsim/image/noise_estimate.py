"""The noise of a raw, measured on the raw itself."""

import itertools

import numpy as np
import scipy.optimize
from jaxtyping import Float

from .._errors import InputError
from .demosaicing.bayer import to_rggb
from .io.raw import Raw
from .sensor import Noise

SIDE = 4  # sites of red, or of blue, along a block
BINS = 24  # of brightness
SHARE = 0.1  # of the blocks of a bin, those with the least structure
WHITE = 0.95  # blocks with brighter sites are left out: clipping hides their noise
ROUNDS = 8


def estimate_noise(raw: Raw) -> Noise:
    """Returns the shot and read noise of a raw's mosaic.

    The four green sites around a site of red have a mean, two differences of opposite sites, and the difference of the
    two pairs. For white noise these are independent, so that blocks without structure can be chosen by the first three
    without a bias of the last, whose variance is that of the noise; every green site is used once. The same about blue
    sites. A line through variance against mean is fitted over the chosen blocks of all brightnesses, by weighted least
    squares. Grain and fine texture of the scene count as noise.

    Args:
        raw: its mosaic is at least 64 x 64 pixels large.

    Raises:
        InputError: for a mosaic that is too small, or has no block that is neither clipped nor empty.

    Examples:
        >>> light = np.tile(np.linspace(0.003, 0.9, 1024) ** 2, (768, 1))
        >>> noise = np.sqrt(0.002 * light + 0.003**2) * np.random.default_rng(0).normal(size=light.shape)
        >>> found = ds.image.estimate_noise(ds.image.Raw(light + noise))
        >>> abs(found.shot / 0.002 - 1) < 0.1, abs(found.read / 0.003 - 1) < 0.1
        (True, True)
    """
    if min(raw.mosaic.shape) < 64:
        raise InputError(f"a mosaic of {raw.mosaic.shape[0]} x {raw.mosaic.shape[1]} pixels: give at least 64 x 64")
    rggb = np.asarray(to_rggb(np.asarray(raw.mosaic), raw.pattern), np.float64)
    measured = [_blocks(turned, rggb.min()) for turned in (rggb, rggb[::-1, ::-1])]
    mean, variance = (np.concatenate([part[k] for part in measured]) for k in (0, 1))
    if not mean.size:
        raise InputError("no part of the mosaic is neither clipped nor empty: give its noise")
    return _line(mean, variance)


def _blocks(rggb: Float[np.ndarray, "h w"], floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and noise variances of the blocks about red that have the least structure for their brightness."""
    above, below = rggb[1:-2:2, 2::2], rggb[3::2, 2::2]
    left, right = rggb[2::2, 1:-2:2], rggb[2::2, 3::2]
    rows, columns = (n // SIDE * SIDE for n in above.shape)
    of_block = lambda x: np.concatenate([_split(x[0::2, 0::2]), _split(x[1::2, 1::2])], axis=1)  # as on a chessboard
    around = np.stack([of_block(x[:rows, :columns]) for x in (above, below, left, right)])
    mean, opposite = around.mean(axis=0), (around[0] - around[1]) ** 2 + (around[2] - around[3]) ** 2
    pairs = (around[0] + around[1] - around[2] - around[3]) / 2
    structure = opposite.mean(axis=1) / 4 + 2 * np.var(2 * mean, axis=1)
    kept = np.flatnonzero((around.max(axis=(0, 2)) < WHITE) & (np.mean(around <= floor, axis=(0, 2)) < 0.02))
    mean, chosen = mean.mean(axis=1), []
    edges = np.quantile(mean[kept], np.linspace(0, 1, BINS + 1)) if kept.size else []
    for low, high in itertools.pairwise(edges):
        inside = kept[(mean[kept] >= low) & (mean[kept] <= high)]
        chosen.append(inside[np.argsort(structure[inside])[: max(4, round(SHARE * inside.size))]])
    chosen = np.unique(np.concatenate(chosen)) if chosen else kept
    return mean[chosen], np.mean(pairs[chosen] ** 2, axis=1)


def _split(x: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "blocks sites"]:
    """The values in each of the blocks of an array, whose sizes are multiples of a block's."""
    side = SIDE // 2
    rows, columns = x.shape
    parts = x.reshape(rows // side, side, columns // side, side)
    return parts.swapaxes(1, 2).reshape(-1, side * side)


def _line(mean: np.ndarray, variance: np.ndarray) -> Noise:
    """The line variance = shot mean + read^2, neither negative, with weights from the line itself."""
    level = np.full(mean.shape, max(np.median(variance), 1e-12))
    kept = np.full(mean.shape, True)
    spread = 2.0 / SIDE  # of a block's variance, relative: it has SIDE^2 / 2 independent differences
    slope, offset = 0.0, 0.0
    for _ in range(ROUNDS):
        terms = np.stack([np.maximum(mean, 0.0), np.ones_like(mean)], axis=1)[kept] / level[kept, None]
        (slope, offset), _ = scipy.optimize.nnls(terms, variance[kept] / level[kept])
        level = np.maximum(slope * np.maximum(mean, 0.0) + offset, 1e-12)
        kept = variance < level * (1 + 4 * spread)
    return Noise(float(slope), float(np.sqrt(offset)))
