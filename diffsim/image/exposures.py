"""High dynamic range: one mosaic from several of the same scene with different exposures."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .._jax.tracers import is_tracer
from .sensor import Noise
from .values import Pixels, check_floating

BELOW_WHITE = 0.02  # the width of the transition to values that count as saturated, in shares of white


def merge_exposures(
    raws: Float[Pixels, "n *shape"], times: Float[Pixels, " times"], noise: Noise, white: float = 0.98
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Returns the light of a scene for an exposure time of 1, and its standard deviation.

    Values are divided by their times and averaged with weights of one over their variance: that of the sensor at the
    light which the sum of all unsaturated values, divided by the sum of their times, suggests. Weighting each by its
    own noisy value would favour those that are too dark. Saturated values have no weight, but where all are saturated:
    there the shortest exposure counts.

    Source: Hanji, Zhong and Mantiuk, "Noise-aware merging of high dynamic range image stacks without camera
    calibration" (2020).

    Args:
        raws: mosaics or pictures in linear light, 0 at black and 1 at white, aligned with each other.
        times: exposure time of each, or any numbers in their ratio.
        noise: of each raw.
        white: values above it count as saturated; the weight falls to 0 within 0.02 below it.

    Raises:
        InputError: unless there is one time above 0 for each raw.

    Examples:
        >>> light = jnp.array([0.001, 0.1, 3.0])
        >>> raws = jnp.stack([jnp.minimum(time * light, 1.0) for time in (0.25, 4.0)])
        >>> ds.image.merge_exposures(raws, jnp.array([0.25, 4.0]), ds.image.Noise(1e-4, 1e-3))[0].round(4).tolist()
        [0.001, 0.1, 3.0]
    """
    raws = jnp.asarray(raws)
    check_floating(raws)
    if jnp.shape(times) != (len(raws),):
        raise InputError(f"times has shape {jnp.shape(times)} for {len(raws)} raws: give one exposure time for each")
    if not is_tracer(times) and not np.all(np.asarray(times) > 0):
        raise InputError(f"times={jnp.asarray(times).tolist()}: give exposure times above 0")
    each = jnp.asarray(times, raws.dtype).reshape(-1, *(1 for _ in raws.shape[1:]))
    below = jnp.clip((white - raws) / BELOW_WHITE, 0.0, 1.0)
    shortest = jnp.where(each == jnp.min(each), 1.0, 0.0).astype(raws.dtype)
    counted = jnp.where(jnp.all(below == 0.0, axis=0, keepdims=True), shortest, below)
    light = jnp.sum(counted * raws, axis=0) / jnp.sum(counted * each, axis=0)
    variance = noise.shot * each * jnp.maximum(light, 0.0)[None] + noise.read**2 + jnp.finfo(raws.dtype).tiny
    weights = counted * each**2 / (variance / jnp.max(variance))
    total = jnp.sum(weights, axis=0)
    # The variance of a mean with weights w, which where `counted` is between 0 and 1 are not one over the variance.
    spread = jnp.sum(weights**2 * variance / each**2, axis=0)
    return jnp.sum(weights * raws / each, axis=0) / total, jnp.sqrt(spread) / total
