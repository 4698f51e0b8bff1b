"""One experiment: times, measurements with gaps, and what distinguishes its simulation from that of others."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._errors import InputError
from .._jax.tracers import is_tracer
from .noise import NoiseModel, Normal, check_noise_shape
from .validate import as_floats, check_numbers, check_separation, check_shapes, check_times


class Experiment(eqx.Module):
    """The measurements of one experiment, with gaps, and its initial state, inputs and noise.

    Numbers in `y0` and `inputs`, of Python or NumPy, become arrays; all else (None, texts, functions) stays. Every
    attribute can be given anew with `dataclasses.replace`.

    Args:
        ts: The times of the measurements, shape (n,), increasing.
        data: The measurements, shape (n,) or (n, columns); NaN is a gap.
        y0: The initial state, or what the simulation needs of it, any pytree.
        inputs: What else the simulation needs, any pytree: constants, signals.
        noise: The distribution of the measurements: None if it is normal with a standard deviation that is unknown and
            common to all experiments; a number or an array (columns,), the standard deviation; a noise model such as
            `ds.experiments.Student`; or a function of the model that returns one of these, whose numbers then train
            with the model.
        weights: Factors on the squared residuals, shape (n,) or (n, columns), by default 1. A weight w stands for a
            standard deviation that is smaller by a factor sqrt(w), as that of the mean of w measurements is; 0 is a
            gap.
        t0: The initial time, by default `ts[0]`. An earlier one becomes the first of `ts`, with a gap there.
        name: The name.
        columns: The names of the columns. Columns of one name are replicates, which one prediction stands for; they
            come in blocks, as in ("x", "y", "x", "y").

    Attributes:
        ts, data, weights: With the row of the initial time; `weights` has the shape of `data`.
        noise: None, a noise model or a function.

    Raises:
        InputError: For times that do not increase or are too near to each other for their format, for shapes that do
            not agree, for infinite data, for negative weights and noise.

    Examples:
        >>> hot = ds.Experiment([0.5, 1.0, 2.0], [2.5, np.nan, 0.9], y0=3.0, t0=0.0, noise=0.1, name="hot")
        >>> print(hot.ts, hot.data)
        [0.  0.5 1.  2. ] [nan 2.5 nan 0.9]
        >>> print(hot.measured)
        [False  True False  True]
    """

    ts: Float[Array, "..."]
    data: Float[Array, "..."]
    y0: PyTree
    inputs: PyTree
    noise: Any
    weights: Float[Array, "..."]
    name: str = eqx.field(static=True)
    columns: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        ts: Any,
        data: Any,
        y0: PyTree = None,
        inputs: PyTree = None,
        noise: Any = None,
        weights: Any = None,
        t0: Any = None,
        name: str = "",
        columns: Sequence[str] = (),
    ):
        try:
            check_times(ts)
            ts, data = as_floats("ts", ts), as_floats("data", data)
            weights = np.ones(data.shape, data.dtype) if weights is None else as_floats("weights", weights)
            check_shapes(ts, data, weights, tuple(columns))
            weights = weights[:, None] if weights.ndim < data.ndim else weights
            weights = (jnp if is_tracer(weights) else np).broadcast_to(weights, data.shape)
            ts, data, weights = _from_initial_time(ts, data, weights, t0)
            check_separation(ts)
            check_numbers(data, weights)
            self.ts, self.data, self.weights = jax.device_put((ts, data, weights))
            self.name, self.columns = name, tuple(columns)
            self.y0 = jax.tree.map(lambda leaf: _number_as_array(leaf, floating=True), y0)
            self.inputs = jax.tree.map(lambda leaf: _number_as_array(leaf, floating=False), inputs)
            self.noise = noise if noise is None or is_function(noise) else as_noise(noise, self.noise_shape)
        except InputError as error:
            raise InputError(f"experiment {name!r}: {error}" if name else f"experiment without name: {error}") from None

    @property
    def measured(self) -> Bool[Array, "..."]:
        """Which of `data` are measurements and not gaps."""
        return ~jnp.isnan(self.data) & (self.weights > 0)

    @property
    def observables(self) -> tuple[str, ...]:
        """The names of the columns, each once."""
        return tuple(dict.fromkeys(self.columns))

    @property
    def replicates(self) -> int:
        """The number of columns for each prediction."""
        return len(self.columns) // len(self.observables) if self.columns else 1

    def at(self, ts: Any) -> "Experiment":
        """The experiment with other times, from its initial time on, and gaps there.

        Args:
            ts: The times, increasing; the initial time becomes the first of them.
        """
        data = np.full((len(ts), *self.data.shape[1:]), np.nan, self.data.dtype)
        return Experiment(ts, data, self.y0, self.inputs, self.noise, None, self.ts[0], self.name, self.columns)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of noise with one number for each observable."""
        return () if self.data.ndim == 1 else (self.data.shape[-1] // self.replicates,)


def is_function(noise: Any) -> bool:
    """Whether the noise of an experiment depends on the model."""
    return callable(noise) and not isinstance(noise, NoiseModel)


def as_noise(noise: Any, shape: tuple[int, ...]) -> NoiseModel:
    """The noise model that a number, an array or a noise model stands for, checked."""
    if not isinstance(noise, NoiseModel):
        try:
            noise = Normal(noise)
        except (TypeError, ValueError) as error:
            cure = error if isinstance(error, InputError) else "give numbers, a noise model or a function of the model"
            raise InputError(f"noise={noise!r:.60}: {cure}") from None
    check_noise_shape(noise, shape)
    return noise


def _number_as_array(leaf: Any, *, floating: bool) -> Any:
    """A number as an array, which needs no compilation of its own; anything else as it is."""
    is_number = isinstance(leaf, int | float | np.ndarray | np.number) and np.asarray(leaf).dtype.kind in "iufc"
    if not is_number:
        return leaf
    is_integer = np.asarray(leaf).dtype.kind in "iu"
    # Given without a format, a Python number would remain one of weak type.
    is_python = isinstance(leaf, float) and not isinstance(leaf, np.number)
    return jnp.asarray(leaf, jnp.result_type(float) if is_python or (is_integer and floating) else None)


def _from_initial_time(ts: Any, data: Any, weights: Any, t0: Any) -> tuple[Any, Any, Any]:
    """Times, data and weights with a first row at the initial time."""
    with_first = lambda value, array: (jnp if is_tracer(array) else np).concatenate(
        [np.full((1, *array.shape[1:]), value, array.dtype), array]
    )
    if t0 is None:
        return ts, data, weights
    if is_tracer(t0) or is_tracer(ts):
        raise InputError(f"t0={t0} within jit or vmap: give the initial time as the first of ts, with data NaN there")
    if np.ndim(t0) != 0 or not np.isfinite(t0):
        raise InputError(f"t0={t0!r:.60}: give one finite number")
    if t0 > ts[0]:
        raise InputError(f"t0={t0:g} is after ts[0]={ts[0]:g}: give an initial time that is not later")
    if t0 == ts[0]:
        return ts, data, weights
    ts, data, weights = (with_first(value, array) for value, array in ((t0, ts), (np.nan, data), (1.0, weights)))
    return ts, data, weights
