"""What is measured about one parameter: its derivatives by every mode, and differences."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..autodiff.inputs import Inputs
from ..autodiff.ridders import Slope, ridders
from ..autodiff.sweep import Sweep
from .directional import slopes_along
from .directions import Probes


class Evidence(NamedTuple):
    """The measurements on one parameter. Arrays have one number for each probe; slopes are per step of 1.

    Attributes:
        name: The name of the parameter.
        leaf: Its value.
        entry: The entry that each probe moves.
        unit: The number by which a slope along the probe is divided for a partial derivative.
        modes: The slopes by "reverse" and "forward", as far as these are available.
        slope: The slopes by differences, with error estimates.
        points: The values of the function from which `slope` was computed.
        eps: The rounding unit of the number format with the fewest digits among inputs and value.
        slack: The errors of the slopes that are known to come from the tolerances of solves.
    """

    name: str
    leaf: np.ndarray
    entry: np.ndarray
    unit: np.ndarray
    modes: Mapping[str, np.ndarray]
    slope: Slope
    points: Sweep
    eps: float
    slack: np.ndarray | float = 0.0


def slopes_by_mode(
    gradient: list[np.ndarray] | None, forward: np.ndarray | None, probes: Probes
) -> dict[str, np.ndarray]:
    """The slopes along all probes, by the name of each mode that is available."""
    slopes = {"reverse": None if gradient is None else slopes_along(gradient, probes), "forward": forward}
    return {mode: array for mode, array in slopes.items() if array is not None}


def gather(inputs: Inputs, probes: Probes, modes: Mapping[str, np.ndarray], points: Sweep) -> list[Evidence]:
    """The evidence on each parameter, from the slopes and values along all probes."""
    return [_evidence_on(number, inputs, probes, modes, points) for number in range(len(inputs.leaves))]


def _evidence_on(
    number: int, inputs: Inputs, probes: Probes, modes: Mapping[str, np.ndarray], points: Sweep
) -> Evidence:
    """The evidence on the parameter of this number."""
    chosen = probes.leaf == number
    points = Sweep(points.steps, points.centre[chosen], points.ahead[:, chosen], points.behind[:, chosen])
    return Evidence(
        inputs.names[number],
        np.asarray(inputs.leaves[number], np.float64),
        probes.entry[chosen],
        probes.units()[chosen],
        {mode: slopes[chosen] for mode, slopes in modes.items()},
        ridders(points),
        points,
        max(float(jnp.finfo(array.dtype).eps) for array in (points.centre, *inputs.leaves)),
    )
