"""The optimal cost and control of a small system, by dynamic programming on a grid of states."""

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


class GridAxis(NamedTuple):
    """Evenly spaced grid points along one component of the state.

    The points run from `low` to `high`, both included. On a `periodic` axis `high` is the same state as `low` and is
    left out.

    Examples:
        >>> ds.control.GridAxis(0.0, 1.0, 5).points().tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> ds.control.GridAxis(0.0, 1.0, 4, periodic=True).points().tolist()
        [0.0, 0.25, 0.5, 0.75]
    """

    low: float
    high: float
    num: int
    periodic: bool = False

    def points(self) -> Float[np.ndarray, " num"]:
        """The grid points."""
        return np.linspace(self.low, self.high, self.num, endpoint=not self.periodic)


class ValueFunction(eqx.Module):
    """The least cost-to-go from every state: a table on a grid, interpolated multilinearly between its points.

    Examples:
        >>> value = ds.control.ValueFunction(jnp.array([0.0, 1.0, 4.0]), (ds.control.GridAxis(0.0, 2.0, 3),))
        >>> float(value((jnp.array(1.5),))), float(jax.grad(value)((jnp.array(1.5),))[0])
        (2.5, 3.0)
    """

    table: Float[Array, "..."]
    axes: tuple[GridAxis, ...] = eqx.field(static=True)

    def __call__(self, state: State) -> Scalar:
        """The value of one state, a tuple of numbers; beyond the end of an axis, the value at that end."""
        neighbors = [self._neighbors(x, axis) for x, axis in zip(state, self.axes, strict=True)]
        corners = list(itertools.product(*neighbors))
        weights = [jnp.prod(jnp.stack([weight for _, weight in corner])) for corner in corners]
        indices = [tuple(index for index, _ in corner) for corner in corners]
        return sum((w * self.table[index] for w, index in zip(weights, indices, strict=True)), jnp.zeros(()))

    @staticmethod
    def _neighbors(x: Scalar, axis: GridAxis):
        """The two grid points next to a coordinate, each as an index and a weight."""
        cells = axis.num if axis.periodic else axis.num - 1
        position = (x - axis.low) / (axis.high - axis.low) * cells
        position = position % cells if axis.periodic else jnp.clip(position, 0.0, float(cells))
        # Rounding may put the remainder on the last point itself.
        index = jnp.minimum(jnp.floor(position).astype(int), cells - 1)
        upper = (index + 1) % cells if axis.periodic else index + 1
        return (index, index + 1.0 - position), (upper, position - index)


def value_iteration(
    step: Callable[[State, Scalar], State],
    cost: Callable[[State, Scalar], Scalar],
    axes: Sequence[GridAxis],
    controls: Sequence[float] | Float[ArrayLike, " choices"],
    horizon: int,
    *,
    make_state: Callable[[Sequence[Scalar]], State] = tuple,
) -> ValueFunction:
    """The least total cost of `horizon` steps from every state, by Bellman's recursion backwards in time.

        V[0](s) = 0,   V[k](s) = min over u of  cost(s, u) + V[k - 1](step(s, u))

    Good values: two or three axes. Breaks when: there are more, since work and memory are proportional to the product
    of the counts.

    Args:
        step: `step(state, control)`, the state after one step.
        cost: `cost(state, control)`, the cost of that step.
        axes: The grid, one axis for each component of the state, in the order of the components.
        controls: The numbers that a control may be, shape (choices,).
        horizon: The number of steps.
        make_state: Makes a state of a sequence of numbers; for a NamedTuple, its `_make`.

    Returns:
        The value function of the first step.

    Raises:
        InputError: For a horizon below 1, without controls or axes, and for an axis of fewer than 2 points.

    Source: R. Bellman, Dynamic Programming (1957), chapter III.

    Examples:
        >>> step, cost = lambda s, u: (s[0] + u,), lambda s, u: abs(s[0])
        >>> axes = [ds.control.GridAxis(-5.0, 5.0, 11)]
        >>> value = ds.control.value_iteration(step, cost, axes, [-1.0, 0.0, 1.0], horizon=10)
        >>> print(f"{value((jnp.array(3.0),)):.3f}")  # 3 + 2 + 1
        6.000
    """
    axes, controls = tuple(axes), jnp.asarray(controls, float)
    if horizon < 1 or controls.size < 1 or not axes or min(axis.num for axis in axes) < 2:
        raise InputError(
            f"horizon={horizon}, {controls.size} controls, axes {axes}: give at least one of each, "
            "and axes of at least 2 points"
        )
    points = np.meshgrid(*(axis.points() for axis in axes), indexing="ij")
    points = [jnp.asarray(x) for x in points]
    return ValueFunction(_bellman_recursion(step, cost, axes, controls, points, horizon, make_state), axes)


@eqx.filter_jit
def _bellman_recursion(step, cost, axes, controls, points, horizon, make_state):
    """The table of values of the first step."""
    on_grid = lambda function: lambda u: jnp.vectorize(lambda *x: function(make_state(x), u))(*points)
    # The successors and costs are the same at every step, so they are computed once.
    successors = lax.map(on_grid(lambda s, u: tuple(step(s, u))), controls)
    costs = lax.map(on_grid(cost), controls)

    def backward_step(table, _):
        value = jnp.vectorize(lambda *x: ValueFunction(table, axes)(x))

        def minimum_over(best, choice):
            successor, step_cost = choice
            return jnp.minimum(best, step_cost + value(*successor)), None

        return lax.scan(minimum_over, jnp.full_like(table, jnp.inf), (successors, costs))[0], None

    return lax.scan(backward_step, jnp.zeros_like(points[0]), None, length=horizon)[0]


def greedy_control(
    step: Callable, cost: Callable, value: ValueFunction, controls: Sequence[float] | Float[ArrayLike, " choices"]
) -> Callable[[State], Scalar]:
    """The greedy policy of a value function: the control that minimizes the cost of the step plus the value after it.

        u(s) = argmin over u of  cost(s, u) + value(step(s, u))

    Args:
        step, cost, controls: As in `value_iteration`.
        value: The cost-to-go after the step.

    Examples:
        >>> step, cost = lambda s, u: (s[0] + u,), lambda s, u: abs(s[0])
        >>> axes, controls = [ds.control.GridAxis(-5.0, 5.0, 11)], [-1.0, 0.0, 1.0]
        >>> value = ds.control.value_iteration(step, cost, axes, controls, horizon=10)
        >>> policy = ds.control.greedy_control(step, cost, value, controls)
        >>> [float(policy((jnp.array(x),))) for x in (-2.0, 0.0, 3.0)]
        [1.0, 0.0, -1.0]
    """
    controls = jnp.asarray(controls, float)

    def policy(state: State) -> Scalar:
        return controls[jnp.argmin(jax.vmap(lambda u: cost(state, u) + value(step(state, u)))(controls))]

    return policy
