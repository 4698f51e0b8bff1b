"""The design of experiments: when to measure, and with which inputs, to learn most about chosen parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError, RunError
from .._trees import path_name
from .._types import Model, Scalar, Vector
from ..autodiff.jacobian import value_and_jacobian
from ..optimize.least_squares import LBFGS
from ..optimize.multistart import fit_many
from ..parameters import partition
from ..uncertainty.posterior import entry_names
from .experiment import Experiment
from .measurements import aligned, as_predictions
from .problem import FitProblem
from .terms import noise_of

Variables = Float[Array, " variables"]
_RIDGE = 1e-12  # of the information in units of the parameters: keeps what is not determined finite
_SPREAD = 1.5  # standard deviation of the random starts, without bounds


class Design(NamedTuple):
    """A designed experiment and what it promises.

    Attributes:
        experiment: The experiment with the times, inputs or initial states that were chosen; its data have no meaning.
        std: The standard deviation of each trained number, by path, that is expected after it.
        std_before: The same after the experiment as it was given.
        objective: What was minimized, after each start; see `design_experiment`.

    Examples:
        >>> simulate = lambda slope, experiment: slope * experiment.ts
        >>> line = ds.Experiment([0.2, 0.4], [0.0, 0.0], noise=0.1)
        >>> options = {"criterion": "", "min_gap": 0.1, "starts": 1}
        >>> design = ds.experiments.design_experiment(simulate, jnp.array(1.0), line, {"ts": (0.0, 1.0)}, **options)
        >>> print(design.experiment.ts.round(2))
        [0.9 1. ]
    """

    experiment: Experiment
    std: dict[str, float]
    std_before: dict[str, float]
    objective: Float[Array, " starts"]


def design_experiment(
    simulate: Callable[[Model, Experiment], Any],
    model: Model,
    experiment: Experiment,
    vary: Mapping[str, tuple[Any, Any]],
    *,
    criterion: str | Sequence[str] = "D",
    existing: FitProblem | None = None,
    filter_spec: PyTree[bool] | None = None,
    min_gap: float | None = None,
    starts: int = 8,
    steps: int = 100,
    seed: int = 0,
) -> Design:
    """The experiment that shrinks the uncertainty of a model's parameters most, by the gradient through the simulation.

    The expected covariance is the inverse of the Fisher information at the model, that of `existing` measurements and
    of the new ones. Parameters count by relative changes (those that are zero, by absolute ones).

    Args:
        simulate: As in `FitProblem`.
        model: The present model, at which the information is evaluated.
        experiment: The experiment to start from: how many times, which columns (NaN in its data is what will not be
            measured), inputs, initial state, noise. Its other data have no meaning.
        vary: What may be chosen, by path in the experiment, and its least and greatest value: `{"ts": (0.0, 10.0),
            "inputs.dose": (0.0, 5.0), "y0": (0.1, 1.0)}`. Times keep their order. An initial time at which nothing is
            measured, as `t0=` makes one, stays; without one the first measurement is the initial time, and moves.
        criterion: What is minimized: "D", the volume of the confidence ellipsoid (the logarithm of the determinant of
            the covariance); "A", the mean variance; or the path of a parameter, or several, the mean of the logarithms
            of their standard deviations.
        existing: Experiments that were made already.
        filter_spec: The parameters that will be fitted; by default all.
        min_gap: The least time between two measurements; by default a thousandth of the range divided by their number.
        starts: From how many designs the search starts: the one given, and random ones.
        steps: The greatest number of iterations from each.
        seed: The seed of the random starts.

    Raises:
        InputError: For an unknown path, a range that does not increase, too many times for `min_gap`, an experiment
            without noise, and an unknown criterion.
        RunError: If no start gave a finite objective: the simulation fails, or the parameters are not determined.

    Source: A. C. Atkinson, A. N. Donev, R. D. Tobias, Optimum Experimental Designs, with SAS, Oxford 2007, chapter 10.

    Examples:
        >>> simulate = lambda model, experiment: model["size"] * jnp.exp(-model["rate"] * experiment.ts)
        >>> model = {"rate": jnp.array(0.5), "size": jnp.array(2.0)}
        >>> two = ds.Experiment([1.0, 2.0], [0.0, 0.0], noise=0.1)
        >>> best = ds.experiments.design_experiment(simulate, model, two, {"ts": (0.0, 10.0)}, criterion="D", starts=2)
        >>> print(best.experiment.ts.round(2))  # D-optimal are 0 and 1 / rate
        [0. 2.]
    """
    if experiment.noise is None:
        raise InputError("noise=None of the experiment: a design needs the expected noise; give noise=")
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    names = entry_names(trained)
    scale = jnp.where(x == 0, 1.0, jnp.abs(x))
    variables = _Variables.of(experiment, vary, min_gap)
    model_of = lambda x: eqx.combine(unravel(x), fixed)
    known = jnp.zeros((x.size, x.size), x.dtype)
    if existing is not None:
        known = _information_of_problem(existing, model_of, x)

    chosen, measurements = _criterion(criterion, names), _Measurements(simulate, model_of, experiment, x)

    def covariance(prediction: Array, jacobian: Array) -> Array:
        """That expected, in relative changes."""
        scaled = (known + measurements.information(prediction, jacobian)) * scale[:, None] * scale[None]
        ridge = _RIDGE * jnp.trace(scaled)
        return jnp.linalg.inv(scaled + ridge * jnp.eye(x.size, dtype=x.dtype))

    of_information = lambda prediction, jacobian: chosen(covariance(prediction, jacobian))
    objective = lambda z, _: _of_jacobian(
        of_information, lambda x, z: measurements.predict(x, variables.experiment(z)), x, z
    )

    first = variables.start()
    random = _SPREAD * jr.normal(jr.key(seed), (max(starts - 1, 0), first.size), first.dtype)
    fits = fit_many(objective, jnp.concatenate([first[None], random]), solver=LBFGS, steps=steps)
    if not np.any(np.isfinite(fits.loss)):
        raise RunError(
            f"none of {starts} designs has a finite objective: the simulation fails, or the measurements do not "
            "determine the parameters; train fewer, or measure more"
        )
    best = variables.experiment(fits.best())

    @eqx.filter_jit
    def std(experiment: Experiment) -> Vector:
        expected = covariance(*value_and_jacobian(lambda x: measurements.predict(x, experiment), x))
        return scale * jnp.sqrt(jnp.diagonal(expected))

    by_name = lambda experiment: dict(zip(names, np.asarray(std(experiment)).tolist(), strict=True))
    return Design(best, by_name(best), by_name(experiment), fits.loss)


class _Measurements(NamedTuple):
    """The measurements of an experiment that is designed: their predictions, and their information."""

    simulate: Callable
    model_of: Callable
    given: Experiment
    x: Vector

    def predict(self, x: Vector, experiment: Experiment) -> Float[Array, " rows"]:
        """The predictions for parameters x."""
        simulated = self.simulate(self.model_of(x), experiment)
        return jnp.ravel(as_predictions(simulated, experiment, ["of the design"]))

    def information(self, prediction: Float[Array, " rows"], jacobian: Float[Array, "rows n"]) -> Float[Array, "n n"]:
        """The Fisher information on the parameters, from predictions and their Jacobian."""
        shape = len(self.given.ts), *self.given.noise_shape
        weights = _weights(self.model_of(self.x), self.given, prediction.reshape(shape))
        return _weighted_square(jacobian, jnp.ravel(weights))


def _of_jacobian(function: Callable, predict: Callable, x: Vector, z: Variables) -> Scalar:
    """`function(p, dp/dx)` of the predictions p = predict(x, z), with its derivative in z by reverse mode.

    That is sum_k d/dx_k (G_k^T dp/dz) + g^T dp/dz with G and g the derivatives of `function`: forward mode along each
    parameter over one reverse pass, whatever the number of variables z.
    """

    of_variables = lambda z: value_and_jacobian(lambda x: predict(x, z), x)

    @jax.custom_vjp
    def value(z):
        return function(*of_variables(z))

    def forward(z):
        result, slopes = jax.value_and_grad(function, (0, 1))(*of_variables(z))
        return result, (z, *slopes)

    def backward(residuals, cotangent):
        z, of_prediction, of_jacobian = residuals
        pull = lambda x, slope: jax.vjp(lambda z: predict(x, z), z)[1](slope)[0]
        along = lambda slope, e: jax.jvp(lambda x: pull(x, slope), (x,), (e,))[1]
        mixed = jax.vmap(along)(of_jacobian.T, jnp.eye(x.size, dtype=x.dtype))
        return (cotangent * (jnp.sum(mixed, axis=0) + pull(x, of_prediction)),)

    value.defvjp(forward, backward)
    return value(z)


def _information_of_problem(problem: FitProblem, model_of: Callable, x: Vector) -> Float[Array, "n n"]:
    """That of experiments that were made."""
    if problem.noise is None:
        raise InputError("noise=None of the existing experiments: a design needs their noise; give noise=")

    @eqx.filter_jit
    def information(problem: FitProblem, x: Vector) -> Array:
        flat = lambda x: ravel_pytree(problem.map(lambda model, experiment, prediction: prediction, model_of(x)))[0]
        jacobian = value_and_jacobian(flat, x)[1]
        return _weighted_square(jacobian, ravel_pytree(problem.map(_weights, model_of(x)))[0])

    return information(problem, x)


def _weights(model: Model, experiment: Experiment, prediction: Array) -> Array:
    """The Fisher information of the measurements on each prediction; zero where nothing is measured."""
    aligned_prediction, _, weights, measured = aligned(experiment, prediction)
    information = noise_of(model, experiment).information(aligned_prediction, weights)
    information = jnp.where(measured, information, 0.0)
    return jnp.sum(information, axis=1) if experiment.replicates > 1 else information


def _weighted_square(jacobian: Float[Array, "rows n"], weights: Float[Array, " rows"]) -> Float[Array, "n n"]:
    jacobian = jnp.where(weights[:, None] > 0, jacobian, 0.0)
    return jacobian.T @ (jacobian * weights[:, None])


def _criterion(criterion: str | Sequence[str], names: list[str]) -> Callable[[Array], Scalar]:
    """The number that a design makes small, of the relative covariance."""
    if criterion == "D":
        return lambda covariance: jnp.linalg.slogdet(covariance)[1]
    if criterion == "A":
        return lambda covariance: jnp.trace(covariance) / len(names)
    wanted = [criterion] if isinstance(criterion, str) else list(criterion)
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise InputError(f'criterion={criterion!r}: give "D", "A" or paths of trained numbers: {", ".join(names)}')
    places = np.array([names.index(name) for name in wanted])
    return lambda covariance: 0.5 * jnp.mean(jnp.log(jnp.diagonal(covariance)[places]))


class _Variables(NamedTuple):
    """What of an experiment is chosen: leaves by number with their ranges, and the times."""

    given: Experiment
    leaves: dict[int, tuple[Array, Array]]
    times: tuple[float, float, float] | None  # first and last time, least gap
    first: int  # how many of the times are fixed: that of the start, if nothing is measured there

    @classmethod
    def of(cls, experiment: Experiment, vary: Mapping[str, tuple[Any, Any]], min_gap: float | None) -> "_Variables":
        """The variables of `vary`, checked."""
        paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(experiment)]
        leaves, times = {}, None
        for path, (low, high) in vary.items():
            if path not in paths or path in ("data", "weights"):
                known = ", ".join(name for name in paths if name not in ("data", "weights"))
                raise InputError(f"vary has {path!r}: give paths of the experiment, one of {known}")
            if not np.all(np.asarray(low) < np.asarray(high)):
                raise InputError(f"vary[{path!r}]=({low}, {high}): give a least and a greatest value")
            if path == "ts":
                times = _time_range(experiment, float(low), float(high), min_gap)
                continue
            leaf = jax.tree.leaves(experiment)[paths.index(path)]
            if not eqx.is_inexact_array(leaf):
                raise InputError(f"vary has {path!r}, which is no real array: vary numbers")
            leaves[paths.index(path)] = tuple(
                jnp.broadcast_to(jnp.asarray(x, leaf.dtype), leaf.shape) for x in (low, high)
            )
        if not vary:
            raise InputError("vary is empty: name what of the experiment can be chosen, as {'ts': (0.0, 10.0)}")
        return cls(experiment, leaves, times, _fixed_rows(experiment))

    def start(self) -> Variables:
        """The experiment as it was given, without bounds."""
        parts = []
        flat = jax.tree.leaves(self.given)
        for place, (low, high) in self.leaves.items():
            share = jnp.clip((flat[place] - low) / (high - low), 0.02, 0.98)
            parts.append(jnp.ravel(jnp.log(share) - jnp.log1p(-share)))
        if self.times is not None:
            low, high, gap = self.times
            ts = self.given.ts[self.first :]
            gaps = jnp.diff(jnp.concatenate([jnp.array([low]), ts, jnp.array([high])]))
            least = jnp.full(gaps.size, gap).at[jnp.array([0, -1])].set(0.0)
            # Not zero, where the search would find no slope.
            slack = jnp.maximum(gaps - least, 0.05 * (high - low) / gaps.size)
            parts.append(jnp.log(slack))
        return jnp.concatenate(parts)

    def experiment(self, z: Variables) -> Experiment:
        """The experiment that numbers without bounds stand for."""
        flat, tree = jax.tree.flatten(self.given)
        for place, (low, high) in self.leaves.items():
            size = flat[place].size
            flat[place] = low + (high - low) * jax.nn.sigmoid(z[:size].reshape(low.shape))
            z = z[size:]
        experiment = jax.tree.unflatten(tree, flat)
        if self.times is None:
            return experiment
        low, high, gap = self.times
        count = self.given.ts.shape[0] - self.first
        slack = (high - low - (count - 1) * gap) * jnp.cumsum(jax.nn.softmax(z))[:count]
        ts = low + slack + gap * jnp.arange(count)
        ts = jnp.concatenate([self.given.ts[: self.first], ts.astype(self.given.ts.dtype)])
        return eqx.tree_at(lambda e: e.ts, experiment, ts)


def _time_range(experiment: Experiment, low: float, high: float, min_gap: float | None) -> tuple[float, float, float]:
    """The first and last time that can be chosen, and the least gap."""
    fixed = _fixed_rows(experiment)
    count = experiment.ts.shape[0] - fixed
    gap = 1e-3 * (high - low) / count if min_gap is None else min_gap
    low = max(low, float(experiment.ts[0]) + gap) if fixed else low
    if not 0 <= gap * (count - 1) < high - low:
        raise InputError(f"min_gap={gap:g}: {count} times do not fit between {low:g} and {high:g}; give a smaller one")
    return low, high, gap


def _fixed_rows(experiment: Experiment) -> int:
    return int(not np.any(np.asarray(experiment.measured)[0]))
