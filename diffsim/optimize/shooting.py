"""Fits to long and oscillating data: a horizon that grows, and multiple shooting.

A simulation that is out of phase with its data by half a turn or more has a loss with many local minima, one for each
turn. Over a short time the loss has one minimum, which leads to that of all data.
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
from ..train.history import History
from .least_squares import fit_least_squares


def fit_growing(
    residuals: Callable, model: Model, data: PyTree = None, *, lengths: Sequence[int], **options: Any
) -> tuple[Model, History]:
    """The model fitted to the first times, then to more and more of them; and the history of the last fit.

    All fits share one compiled call, which computes all residuals.

    Good values: the first length covers less than half a turn of the phase error, each next one is about 1.5 times the
    one before.

    Args:
        residuals: `residuals(model, data)`, arrays with a leading axis of times.
        model: The model to start from.
        data: The second argument of `residuals`.
        lengths: The numbers of times that count in each fit, increasing.
        **options: Arguments of `fit_least_squares`.

    Raises:
        InputError: For lengths that do not increase from 1 up.

    Examples:
        >>> ts = jnp.linspace(0.0, 20.0, 101)
        >>> residuals = lambda rate, seen: jnp.cos(rate * ts) - seen
        >>> rate, _ = ds.optimize.fit_growing(residuals, jnp.array(1.5), jnp.cos(2.0 * ts), lengths=[20, 40, 101])
        >>> stuck, _ = ds.fit_least_squares(residuals, jnp.array(1.5), jnp.cos(2.0 * ts))
        >>> print(f"{rate:.3f} {stuck:.3f}")
        2.000 1.613
    """
    if not lengths or lengths[0] < 1 or np.any(np.diff(lengths) <= 0):
        raise InputError(f"lengths={list(lengths)}: give numbers of times that increase, from 1 up")
    fit = lambda start, length: fit_least_squares(of_first, start, (jnp.array(length), data), **options)
    of_first = _FirstResiduals(residuals)
    fitted, history = fit(model, lengths[0])
    for length in lengths[1:]:
        fitted, history = fit(_off_bounds(fitted, model), length)
    return fitted, history


def _off_bounds(fitted: Model, first: Model) -> Model:
    """A fitted model to start from again: parameters that ended on a bound have their first values."""
    # A leaf that is no parameter, such as the activation of a network, is never on a bound.
    chosen = lambda new, old, at_bound: new if at_bound is False else jnp.where(at_bound, old, new)
    return jax.tree.map(chosen, fitted, first, is_at_bound(fitted))


class _FirstResiduals(eqx.Module):
    """Residuals of which only those of the first times count; the others are zero."""

    residuals: Callable

    def __call__(self, model: Model, length_and_data: tuple) -> PyTree:
        length, data = length_and_data
        counts = lambda r: jnp.arange(r.shape[0]).reshape(-1, *[1] * (r.ndim - 1)) < length
        return jax.tree.map(lambda r: jnp.where(counts(r), r, 0.0), self.residuals(model, data))


class ShootingProblem(NamedTuple):
    """How to simulate and observe a system, from any initial state.

    Attributes:
        simulate: `simulate(model, y0, ts)`, the states at the times `ts`, the first being `y0`.
        initial_state: `initial_state(model)`, the state at the first time of all.
        observe: `observe(states)`, the predicted observations, an array with a leading axis of times.

    Examples:
        >>> problem = ds.optimize.ShootingProblem(
        ...     simulate=lambda rate, y0, ts: ds.integrate(lambda t, y, rate: -rate * y, y0, ts, rate),
        ...     initial_state=lambda rate: jnp.array(3.0),
        ...     observe=jnp.log,
        ... )
        >>> states = problem.simulate(2.0, problem.initial_state(2.0), jnp.array([0.0, 1.0]))
        >>> print(problem.observe(states).round(4))  # log(3) and log(3) - 2
        [ 1.0986 -0.9014]
    """

    simulate: Callable[[Model, State, Array], State]
    initial_state: Callable[[Model], State]
    observe: Callable[[State], Array]


class _Shot(NamedTuple):
    """What multiple shooting trains: the model, and the initial states of the segments after the first."""

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
    """The model fitted by multiple shooting and from there by single shooting; and the history of the last fit.

    The times are divided into segments of equal length. Each segment starts from a state of its own, and the jumps
    between the segments are residuals too.

    Good values: segments of less than half a turn; weights of about the noise of an observation over that of the
    state.

    Args:
        problem: The simulation and the observation.
        model: The model to start from.
        ts: The times, shape (times,).
        observations: What was observed, with a leading axis of times; NaN where there is none.
        nodes: A guess of the initial states of the segments after the first, each leaf with a leading axis of
            segments - 1.
        weights: The factors on the jumps, growing, one fit for each.
        filter_spec: The parameters that train; by default all.
        **options: Other arguments of `fit_least_squares`.

    Raises:
        InputError: If the segments do not divide the times equally, or `ts` and `observations` differ in length.

    Source: H. G. Bock, in Modelling of Chemical Reaction Systems, Springer 1981, 102.

    Examples:
        >>> problem = ds.optimize.ShootingProblem(
        ...     simulate=lambda rate, phase, ts: phase + rate * (ts - ts[0]),
        ...     initial_state=lambda rate: jnp.array(0.0),
        ...     observe=jnp.cos,
        ... )
        >>> ts = jnp.linspace(0.0, 20.0, 101)
        >>> nodes = jnp.round(2.0 * ts[10:-1:10])  # a rough guess of the phases at the starts of segments of 2 s
        >>> rate, _ = ds.optimize.fit_multiple_shooting(
        ...     problem, jnp.array(1.5), ts, jnp.cos(2.0 * ts), nodes, weights=[1.0]
        ... )
        >>> print(f"{rate:.4f}")
        2.0000
    """
    segments = (common_length(nodes, "nodes") or 0) + 1
    if len(observations) != len(ts):
        counts = f"ts has {len(ts)} times, observations has {len(observations)}"
        raise InputError(f"{counts}: give one observation for each")
    if (len(ts) - 1) % segments:
        raise InputError(f"{len(ts)} times make {len(ts) - 1} steps, which {segments} segments do not divide")
    shot = _Shot(model, nodes)
    model_spec = trainable(model) if filter_spec is None else filter_spec
    shot_spec = _Shot(model_spec, jax.tree.map(lambda _: True, nodes))
    residuals, fitted = _SegmentResiduals(problem), shot
    for weight in weights:
        data = (*_divide(ts, observations, segments), jnp.array(float(weight)))
        fitted, _ = fit_least_squares(residuals, _off_bounds(fitted, shot), data, filter_spec=shot_spec, **options)
    start, data = _off_bounds(fitted.model, model), (jnp.asarray(ts), jnp.asarray(observations))
    return fit_least_squares(_SingleShootingResiduals(problem), start, data, filter_spec=filter_spec, **options)


def _divide(ts, observations, segments: int) -> tuple[Array, Array]:
    """Times and observations by segment, each with the first ones of the next segment."""
    size = (len(ts) - 1) // segments
    rows = np.arange(segments)[:, None] * size + np.arange(size + 1)[None]
    return jnp.asarray(ts)[rows], jnp.asarray(observations)[rows]


class _SegmentResiduals(eqx.Module):
    """The residuals of all segments, and the jumps between them."""

    problem: ShootingProblem

    def __call__(self, shot: _Shot, data: tuple) -> tuple:
        ts, observations, weight = data
        simulate, initial_state, observe = self.problem
        first = initial_state(shot.model)
        starts = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, shot.nodes)
        states = jax.vmap(simulate, in_axes=(None, 0, 0))(shot.model, starts, ts)
        jumps = jax.tree.map(lambda y, node: weight * (y[:-1, -1] - node), states, shot.nodes)
        residuals = _masked_difference(jax.vmap(observe)(states), observations)
        # A time that two segments share counts once.
        return residuals[:, 1:], residuals[0, 0], jumps


class _SingleShootingResiduals(eqx.Module):
    """The residuals of one simulation over all times."""

    problem: ShootingProblem

    def __call__(self, model: Model, data: tuple) -> Array:
        ts, observations = data
        simulate, initial_state, observe = self.problem
        return _masked_difference(observe(simulate(model, initial_state(model), ts)), observations)


def _masked_difference(predicted: Array, observations: Array) -> Array:
    """Predicted minus observed, and zero where nothing was observed."""
    observed = jnp.isfinite(observations)
    return jnp.where(observed, predicted - jnp.where(observed, observations, 0.0), 0.0)
