"""Long and oscillating data: fits over a horizon that grows, and multiple shooting.

A simulation that runs out of step with its data, by half a turn or more, has a loss with a minimum at each frequency
that hides the next. Over a short time there is one minimum only, and it leads to the one of the whole.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._trees import common_length
from .._types import Model, State
from ..parameters import trainable
from ..train.bounds import is_at_bound
from ..train.fit import History
from .least_squares import fit_least_squares


def fit_growing(
    residuals: Callable, model: Model, data: PyTree = None, *, lengths: Sequence[int], **options: Any
) -> tuple[Model, History]:
    """The model fitted to the first times, then to more and more of them; and the history of the last fit.

    Every array of `residuals(model, data)` has a leading axis of times; each of the increasing `lengths` is how many
    of them count. `options` are those of `fit_least_squares`. All lengths share one compiled call, which computes all
    residuals.

    Raises InputError for lengths that do not increase from 1 up.

    Good values: the first covers less than half a turn of the error of phase, each about 1.5 times the one before.
    """
    if not lengths or lengths[0] < 1 or np.any(np.diff(lengths) <= 0):
        raise InputError(f"lengths={list(lengths)}: give numbers of times that increase, from 1 up")
    first, fitted = _First(residuals), model
    for length in lengths:
        start = _off_bounds(fitted, model)
        fitted, history = fit_least_squares(first, start, (jnp.array(length), data), **options)
    return fitted, history


def _off_bounds(fitted: Model, first: Model) -> Model:
    """A fitted model to start from again: parameters that ended on a bound have their first values."""
    return jax.tree.map(lambda new, old, on: jnp.where(on, old, new), fitted, first, is_at_bound(fitted))


class _First(eqx.Module):
    """Residuals of which only the first so many count."""

    residuals: Callable

    def __call__(self, model: Model, counted: tuple) -> PyTree:
        length, data = counted
        early = lambda r: jnp.arange(r.shape[0]).reshape(-1, *[1] * (r.ndim - 1)) < length
        return jax.tree.map(lambda r: jnp.where(early(r), r, 0.0), self.residuals(model, data))


class ShootingProblem(NamedTuple):
    """What was measured and how to simulate it.

    `simulate(model, y0, ts)` gives the states at the times `ts`, the first being `y0`; `initial_state(model)` is the state at
    the first time of all; `observe(states)` is what a measurement would be, an array with a leading axis of times.
    """

    simulate: Callable[[Model, State, Array], State]
    initial_state: Callable[[Model], State]
    observe: Callable[[State], Array]


class _Shot(NamedTuple):
    """What multiple shooting trains: the model, and the states that segments after the first begin with."""

    model: Model
    nodes: State


def fit_multiple_shooting(
    problem: ShootingProblem,
    model: Model,
    ts: Float[Array, " times"],
    observations: Float[Array, "times ..."],
    nodes: State,
    *,
    weights: Sequence[float] = (0.1, 1.0, 10.0),
    filter_spec: PyTree[bool] | None = None,
    **options: Any,
) -> tuple[Model, History]:
    """The model fitted by multiple shooting and then, from there, by single shooting; and the last fit's history.

    The times are cut into segments of equal length. Each begins with a state of its own, `nodes` (a guess, each leaf
    with a leading axis of segments - 1), and the jumps between them are residuals too, times each of the growing
    `weights` in turn. NaN in `observations` is a gap. `options` are those of `fit_least_squares`; The bounds are those of
    the model.

    Raises InputError if the times do not divide into one more segment than there are nodes, or differ from `observations`.

    Good values: segments of less than half a turn; weights of about the measurement's noise over what the state's is.

    Source: H. G. Bock, in Modelling of Chemical Reaction Systems, Springer 1981, 102.
    """
    segments = (common_length(nodes, "nodes") or 0) + 1
    if np.shape(observations)[0] != np.shape(ts)[0]:
        raise InputError(f"ts has {len(ts)} times, observations has {len(observations)}: give one observation for each")
    if (len(ts) - 1) % segments:
        raise InputError(f"{len(ts)} times make {len(ts) - 1} steps, which {segments} segments do not divide")
    shot = _Shot(model, nodes)
    chosen = _Shot(trainable(model) if filter_spec is None else filter_spec, jax.tree.map(lambda _: True, nodes))
    jumps, fitted = _Segments(problem), shot
    for weight in weights:
        data = (*_cut(ts, observations, segments), jnp.array(float(weight)))
        fitted, _ = fit_least_squares(jumps, _off_bounds(fitted, shot), data, filter_spec=chosen, **options)
    start, data = _off_bounds(fitted.model, model), (jnp.asarray(ts), jnp.asarray(observations))
    return fit_least_squares(_Whole(problem), start, data, filter_spec=filter_spec, **options)


def _cut(ts, observations, segments: int) -> tuple[Array, Array]:
    """Times and measurements by segment, each with the first ones of the next."""
    size = (len(ts) - 1) // segments
    rows = np.arange(segments)[:, None] * size + np.arange(size + 1)[None]
    return jnp.asarray(ts)[rows], jnp.asarray(observations)[rows]


class _Segments(eqx.Module):
    """Residuals of all segments, and the jumps between them."""

    problem: ShootingProblem

    def __call__(self, shot: _Shot, data: tuple) -> tuple:
        ts, observations, weight = data
        simulate, initial_state, observe = self.problem
        first = initial_state(shot.model)
        starts = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, shot.nodes)
        states = jax.vmap(simulate, in_axes=(None, 0, 0))(shot.model, starts, ts)
        jumps = jax.tree.map(lambda y, node: weight * (y[:-1, -1] - node), states, shot.nodes)
        apart = _measured(jax.vmap(observe)(states), observations)
        # A time that two segments share counts once.
        return apart[:, 1:], apart[0, 0], jumps


class _Whole(eqx.Module):
    """Residuals of the whole, simulated in one go."""

    problem: ShootingProblem

    def __call__(self, model: Model, data: tuple) -> Array:
        ts, observations = data
        simulate, initial_state, observe = self.problem
        return _measured(observe(simulate(model, initial_state(model), ts)), observations)


def _measured(predicted: Array, observations: Array) -> Array:
    """Differences where there is a measurement, and zero where there is none."""
    there = jnp.isfinite(observations)
    return jnp.where(there, predicted - jnp.where(there, observations, 0.0), 0.0)
