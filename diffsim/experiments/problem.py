"""Several experiments fitted together: residuals, likelihood, predictions and log density of one model."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._jax.traced_function import Traced, is_traced
from .._jax.tracers import is_tracer
from .._types import Model, Scalar
from ..parameters import partition, unconstrain
from .density import LogDensity
from .experiment import Experiment, is_function
from .groups import Group, grouped
from .local import entries, repeated, split
from .measurements import as_predictions, in_list_order, with_data
from .terms import log_likelihood_of, loss_of_unknown_noise, residuals_of, sums_of


class FitProblem(eqx.Module):
    """Several experiments, of any lengths and with gaps, that one model is fitted to.

    Gaps have residuals and derivatives of zero, and so count neither as measurements nor as degrees of freedom. The
    experiments are simulated in few batches, one for each structure and range of lengths, so that the time to compile
    does not depend on their number. A batch is padded to its longest experiment by additional times between the given
    ones. Simulations see them in `experiment.ts`, and no name: `integrate` returns the same states, but a simulation
    that steps from one time to the next takes more steps.

    `eqx.filter_jit` compiles the methods. In reverse mode a gap passes a cotangent of zero into the simulation:
    `integrate` returns zero for it, but what is undefined there in the simulation itself needs the functions of
    `ds.safe`.

    Args:
        simulate: `simulate(model, experiment)`, the predictions at `experiment.ts`, an array (n,) or (n, columns) as
            the data of the experiment.
        experiments: The experiments. Either all or none of them have noise.
        local: The paths of the parameters of which each experiment has its own, as in `trainable`.

    Attributes:
        groups: The batches.

    Raises:
        InputError: For no experiments, one without measurements, two of one name, and noise of some experiments only.

    Examples:
        >>> class Decay(eqx.Module):
        ...     rate: ds.Scalar = ds.param(1.0, "1/s", bounds=(0.0, 10.0))
        ...     size: ds.Scalar = ds.param(1.0, "m")
        ...
        >>> simulate = lambda model, experiment: model.size * jnp.exp(-model.rate * experiment.ts)
        >>> ts = np.linspace(0.0, 2.0, 5)
        >>> small = ds.Experiment(ts, 2.0 * np.exp(-0.5 * ts), name="small")
        >>> large = ds.Experiment(ts[:3], [8.0, np.nan, 8.0 * np.exp(-0.5)], name="large")
        >>> problem = ds.FitProblem(simulate, [small, large], local=["size"])
        >>> fitted, history = ds.fit_least_squares(problem.residuals, problem.start(Decay()))
        >>> print(f"{fitted.rate:.3f}", fitted.size.round(3))
        0.500 [2. 8.]
        >>> print(problem.names(fitted))
        {'size[0]': 'small', 'size[1]': 'large'}
    """

    simulate: Callable[[Model, Experiment], Array]
    experiments: tuple[Experiment, ...]
    groups: tuple[Group, ...]
    local: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        simulate: Callable[[Model, Experiment], Any],
        experiments: Sequence[Experiment],
        local: str | Sequence[str] = (),
    ):
        self.simulate = simulate
        self.experiments = tuple(experiments)
        self.local = (local,) if isinstance(local, str) else tuple(local)
        _check(self.experiments)
        self.groups = grouped(self.experiments)

    def __repr__(self) -> str:
        """The numbers of experiments and of batches, and the local parameters."""
        local = f"; local: {', '.join(self.local)}" if self.local else ""
        return f"FitProblem({len(self.experiments)} experiments in {len(self.groups)} batches{local})"

    @property
    def noise(self) -> float | None:
        """The standard deviation of a residual, for `posterior`: 1 where noise is given, None where it is unknown.

        Where it is 1 it is in units of the noise of each measurement, and not that of a new observation in a band.
        """
        return None if self.experiments[0].noise is None else 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each experiment, or else its number in the list."""
        return tuple(experiment.name or str(number) for number, experiment in enumerate(self.experiments))

    @property
    def data(self) -> tuple[Float[Array, "..."], ...]:
        """The data of each experiment; others of these shapes can be given in their place."""
        return tuple(experiment.data for experiment in self.experiments)

    def start(self, model: Model) -> Model:
        """The model with each local parameter repeated along a leading axis of experiments.

        Raises:
            InputError: For a local parameter that the model has not.
        """
        return repeated(model, self.local, len(self.experiments))

    def local_model(self, model: Model, experiment: str | int) -> Model:
        """The model of one experiment, given by name or number: its own values in the place of local parameters."""
        number = self._number(experiment)
        local, shared = split(model, self.local, len(self.experiments))
        return eqx.combine(jax.tree.map(lambda leaf: leaf[number], local), shared)

    def names(self, model: Model) -> dict[str, str]:
        """The experiment of each entry of the local parameters, as in `{'offset[1]': 'hot'}`."""
        return entries(model, self.local, self.labels)

    def residuals(self, model: Model, data: PyTree = None) -> Float[Array, " residuals"]:
        """The residuals by experiment, time and column, zero in gaps, for `fit_least_squares` and `posterior`.

        Args:
            model: A model with local parameters as `start` returns them.
            data: Other data in the place of those of the experiments: a sequence of arrays of their shapes, or a
                dictionary of them by name.

        Raises:
            InputError: For noise that depends on the model, which needs `loss`, and for predictions or data of a wrong
                shape.
        """
        for number, experiment in enumerate(self.experiments):
            if is_function(experiment.noise):
                raise InputError(
                    f"noise of experiment {self.labels[number]!r} depends on the model, which a sum of squares cannot "
                    "fit: use minimize(problem.loss, ...) and laplace_posterior(problem.loss, ...)"
                )
        return in_list_order(self.groups, self.map(residuals_of, model, data))

    def loss(self, model: Model, data: PyTree = None) -> Scalar:
        """The negative log-likelihood, for `minimize` and `laplace_posterior`.

        Noise that is unknown has the standard deviation that makes the data most likely for this model. Up to a
        constant that is also the likelihood averaged over all standard deviations, with a density of 1 / std.

        Args:
            model, data: As in `residuals`.
        """
        if self.noise is None:
            sums = [jnp.sum(values, axis=0) for values in self.map(sums_of, model, data)]
            return loss_of_unknown_noise(jnp.sum(jnp.stack(sums), axis=0))
        return -jnp.sum(jnp.concatenate(self.map(log_likelihood_of, model, data)))

    def log_likelihood(self, model: Model, data: PyTree = None) -> Scalar:
        """The logarithm of the likelihood: `-loss(model, data)`."""
        return -self.loss(model, data)

    def log_density(
        self,
        model: Model,
        log_prior: Callable[[Model], Scalar] | None = None,
        *,
        filter_spec: PyTree[bool] | None = None,
    ) -> LogDensity:
        """The log density of the posterior in unconstrained parameters, for samplers such as those of blackjax.

        Args:
            model: The model to start from, with local parameters as `start` returns them.
            log_prior: The log density of the prior of a model, in its physical parameters; by default flat.
            filter_spec: The parameters that are sampled, as `trainable` and `frozen` return them; by default all.
        """
        split(model, self.local, len(self.experiments))
        trained, fixed = partition(model, filter_spec)
        return LogDensity(self.log_likelihood, log_prior, unconstrain(trained), fixed)

    def predict(self, model: Model) -> dict[str, Array] | list[Array]:
        """The predictions at the times of each experiment: a dictionary if all have names, else a list."""
        padded, index = self._padded_predictions, lambda array, rows: array[np.array(rows)]
        if not is_traced() and not any(is_tracer(leaf) for leaf in jax.tree.leaves((self, model))):
            # Compiled, and again only if the program has changed; rows by NumPy, since there is a shape for each.
            padded = Traced.of(padded, model)
            index = lambda array, rows: jax.device_put(np.asarray(array)[np.array(rows)])
        by_number: dict[int, Array] = {}
        for group, predictions in zip(self.groups, padded(model), strict=True):
            for place, (number, rows) in enumerate(zip(group.members, group.rows, strict=True)):
                by_number[number] = index(predictions[place], rows)
        ordered = [by_number[number] for number in range(len(self.experiments))]
        is_named = all(experiment.name for experiment in self.experiments)
        return dict(zip(self.labels, ordered, strict=True)) if is_named else ordered

    def predictor(self, experiment: str | int, ts: Any = None) -> Callable[[Model], Array]:
        """The function of a model that predicts one experiment, for `Posterior.credible_band`.

        Args:
            experiment: Its name or number.
            ts: Other times than those of its measurements, from its initial time on.
        """
        number = self._number(experiment)
        own = self.experiments[number]
        chosen = own if ts is None else own.at(ts)
        rows = slice(len(chosen.ts) - (len(own.ts) if ts is None else len(ts)), None)
        simulate, label = self.simulate, self.labels[number]
        return lambda model: as_predictions(simulate(self.local_model(model, number), chosen), chosen, [label])[rows]

    def _padded_predictions(self, model: Model) -> list[Array]:
        return self.map(lambda model, experiment, prediction: prediction, model)

    def map(self, function: Callable, model: Model, data: PyTree = None) -> list[Array]:
        """`function(model, experiment, prediction)` of all experiments, for each group with a leading axis of them."""
        local, shared = split(model, self.local, len(self.experiments))
        groups = self.groups if data is None else with_data(self.groups, self.experiments, self.labels, data)
        return [self._map_group(function, local, shared, group) for group in groups]

    def _map_group(self, function: Callable, local: Model, shared: Model, group: Group) -> Array:
        members = np.array(group.members)
        names = [self.labels[number] for number in group.members]
        arrays, rest = eqx.partition(group.batch, eqx.is_array)

        def of_one(local: Model, arrays: Experiment) -> Array:
            model, experiment = eqx.combine(local, shared), eqx.combine(arrays, rest)
            prediction = as_predictions(self.simulate(model, experiment), experiment, names)
            return function(model, experiment, prediction)

        return jax.vmap(of_one)(jax.tree.map(lambda leaf: leaf[members], local), arrays)

    def _number(self, experiment: str | int) -> int:
        count = len(self.experiments)
        if isinstance(experiment, int) and -count <= experiment < count:
            return experiment % count
        if experiment in self.labels:
            return self.labels.index(experiment)
        known = f"{', '.join(self.labels):.200}"
        raise InputError(f"unknown experiment {experiment!r}: give a name or a number; known: {known}")


def _check(experiments: tuple[Experiment, ...]) -> None:
    if not experiments:
        raise InputError("experiments is empty: give at least one")
    names: dict[str, int] = {}
    for number, experiment in enumerate(experiments):
        name = experiment.name or str(number)
        label = f"experiment {name!r}"
        if names.setdefault(name, number) != number:
            raise InputError(f"{label} is number {number}, and number {names[name]}, too: rename one")
        if not _has_measurements(experiment):
            raise InputError(f"{label} has no measurement, only gaps: leave it out, or check its data and weights")
        if (experiment.noise is None) != (experiments[0].noise is None):
            raise InputError(
                f"{label} has noise={experiment.noise}, the first has {experiments[0].noise}: give noise of all "
                "experiments, or of none if it is unknown and common"
            )


def _has_measurements(experiment: Experiment) -> bool:
    arrays = experiment.data, experiment.weights
    return any(map(is_tracer, arrays)) or bool(np.any(~np.isnan(arrays[0]) & (np.asarray(arrays[1]) > 0)))
