"""The best that any controller can do, by dynamic programming on a grid of states: an oracle for small systems."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._errors import InputError
from .._types import Scalar, State


class Axis(NamedTuple):
    """Grid points along one part of the state, evenly from `low` to `high`; if `periodic`, `high` is `low` again."""

    low: float
    high: float
    count: int
    periodic: bool = False

    def points(self) -> Float[np.ndarray, " count"]:
        """The grid points."""
        return np.linspace(self.low, self.high, self.count, endpoint=not self.periodic)


class Value(eqx.Module):
    """The least cost to come from every state, on a grid; between the points it is interpolated linearly."""

    table: Float[Array, "..."]
    axes: tuple[Axis, ...] = eqx.field(static=True)

    def __call__(self, state: State) -> Scalar:
        """The value of one state, a tuple of numbers; beyond an axis that is not periodic, that of its end."""
        corners = [self._corners(x, axis) for x, axis in zip(state, self.axes, strict=True)]
        chosen = list(itertools.product(*corners))
        weights = [jnp.prod(jnp.stack([weight for _, weight in corner])) for corner in chosen]
        places = [tuple(index for index, _ in corner) for corner in chosen]
        return sum((w * self.table[place] for w, place in zip(weights, places, strict=True)), jnp.zeros(()))

    @staticmethod
    def _corners(x: Scalar, axis: Axis):
        """The two neighbours of a coordinate on its axis, each an index and a weight."""
        cells = axis.count if axis.periodic else axis.count - 1
        at = (x - axis.low) / (axis.high - axis.low) * cells
        at = at % cells if axis.periodic else jnp.clip(at, 0.0, float(cells))
        # Rounding may put the remainder on the last point itself.
        index = jnp.minimum(jnp.floor(at).astype(int), cells - 1)
        beyond = (index + 1) % cells if axis.periodic else index + 1
        return (index, index + 1.0 - at), (beyond, at - index)


def best_value(
    step: Callable[[State, Scalar], State],
    cost: Callable[[State, Scalar], Scalar],
    axes: Sequence[Axis],
    controls: Float[ArrayLike, " choices"],
    stages: int,
    *,
    make: Callable[[Sequence[Scalar]], State] = tuple,
) -> Value:
    """The least total cost of `stages` steps from every state: Bellman's recursion backwards, from zero at the end.

        V[k](s) = min over u of  cost(s, u) + V[k - 1](step(s, u))

    States are tuples of numbers in the order of `axes`; `make` makes them of their numbers, such as the `_make` of a
    NamedTuple. Controls are one of the given numbers. Raises InputError for an axis or a choice of controls that is
    empty.

    Good values: two or three axes. Breaks when: there are more (work and memory grow as the product of the counts).
    Source: R. Bellman, Dynamic Programming (1957), chapter III.
    """
    axes, controls = tuple(axes), jnp.asarray(controls, float)
    if stages < 1 or controls.size < 1 or not axes or min(axis.count for axis in axes) < 2:
        raise InputError(f"{stages} stages, {controls.size} controls, axes {axes}: give some of each, axes of 2 points")
    points = np.meshgrid(*(axis.points() for axis in axes), indexing="ij")
    return Value(_recursion(step, cost, axes, controls, [jnp.asarray(x) for x in points], stages, make), axes)


@eqx.filter_jit
def _recursion(step, cost, axes, controls, points, stages, make):
    """The table of values of the last stage."""
    everywhere = lambda function: lambda u: jnp.vectorize(lambda *place: function(make(place), u))(*points)
    # Where each control leads does not change from stage to stage.
    places = lax.map(everywhere(lambda s, u: tuple(step(s, u))), controls)
    prices = lax.map(everywhere(cost), controls)

    def stage(table, _):
        value = jnp.vectorize(lambda *place: Value(table, axes)(place))

        def better(best, choice):
            place, price = choice
            return jnp.minimum(best, price + value(*place)), None

        return lax.scan(better, jnp.full_like(table, jnp.inf), (places, prices))[0], None

    return lax.scan(stage, jnp.zeros_like(points[0]), None, length=stages)[0]


def best_control(step: Callable, cost: Callable, value: Value, controls: Float[ArrayLike, " choices"]) -> Callable:
    """The policy that is best if every later step is: from a state to one of the controls."""
    controls = jnp.asarray(controls, float)

    def policy(state: State) -> Scalar:
        return controls[jnp.argmin(jax.vmap(lambda u: cost(state, u) + value(step(state, u)))(controls))]

    return policy
