"""Many fits at once: from many starting models, or to many sets of data, each with a status of its own."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from .._errors import InputError, RunError
from .._jax.tracers import is_tracer
from .._trees import common_length, path_name
from .._types import Model
from ..parameters import Parameter, at_bound, parameters, partition, trainable, unconstrain
from .iterations import Solver, run_iterations, traced_now, with_rtol
from .least_squares import LEVENBERG_MARQUARDT
from .status import FitStatus


class Fits(NamedTuple):
    """The results of many fits.

    Attributes:
        models: The fitted models; each parameter has a leading axis that counts the fits.
        loss: The last loss of each fit.
        status: The FitStatus of each fit.

    Examples:
        >>> double_well = lambda x, _: (x**2 - 1) ** 2 + 0.1 * x  # its deeper minimum is on the left
        >>> fits = ds.optimize.fit_many(double_well, jnp.array([-0.8, 0.8]), solver=ds.optimize.LBFGS)
        >>> best = jnp.argmin(fits.loss)
        >>> print(f"{fits.models[best]:.3f}", ds.optimize.FitStatus(int(fits.status[best])).name)
        -1.012 CONVERGED
    """

    models: Model
    loss: Float[Array, " fits"]
    status: Int[Array, " fits"]

    def __repr__(self) -> str:
        """How many fits ended in which way, and the least loss; within `jit` the shapes."""
        if not eqx.is_array(self.loss) or is_tracer(self.loss):
            return tuple.__repr__(self)
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        finite = np.asarray(self.loss)[np.isfinite(self.loss)]
        return f"Fits({counts}; least loss {finite.min():.4g})" if len(finite) else f"Fits({counts}; no finite loss)"

    def counts(self) -> dict[str, int]:
        """The number of fits with each status, by the name of the status."""
        return {status.name.lower(): int(np.sum(np.asarray(self.status) == status)) for status in FitStatus}

    def at_bound(self) -> dict[str, int]:
        """The number of fits that left a parameter on a bound, by its path."""
        names = [name for number in range(len(self.loss)) for name in at_bound(self.model(number), width=0.0)]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def model(self, number: int) -> Model:
        """The model of one fit."""
        return jax.tree.map(lambda leaf: leaf[number] if eqx.is_array(leaf) else leaf, self.models)

    def best(self) -> Model:
        """The model with the least loss of the fits that converged, or else of all.

        Raises:
            RunError: If no loss is finite.
        """
        loss = np.where(np.isfinite(self.loss), self.loss, np.inf)
        if not np.any(np.isfinite(loss)):
            raise RunError(f"none of {len(loss)} fits has a finite loss ({self.counts()}): start them elsewhere")
        # A start that no step improves may be the best of all.
        status = np.asarray(self.status)
        good = ((status <= FitStatus.AT_BOUND) | (status == FitStatus.NO_PROGRESS)) & np.isfinite(loss)
        return self.model(int(np.argmin(np.where(good, loss, np.inf) if good.any() else loss)))


def fit_many(
    function: Callable,
    models: Model,
    data: PyTree = None,
    *,
    separate_data: bool = False,
    solver: Solver = LEVENBERG_MARQUARDT,
    steps: int = 100,
    rtol: float | None = None,
    filter_spec: PyTree[bool] | None = None,
) -> Fits:
    """The results of many fits that run side by side in one compiled call, one from each of `models`.

    A fit that fails raises nothing: its status says so. The batch takes as many iterations as its slowest fit.

    Args:
        function: Residuals for a least-squares solver, a loss for a minimizer, both of (model, data).
        models: The models to start from; every real array has a leading axis that counts the fits, as `draw_models`
            makes it.
        data: The second argument of `function`.
        separate_data: Whether each fit has data of its own, counted by the leading axis of `data`; by default all
            fits have the same.
        solver, steps, rtol, filter_spec: As in `fit_least_squares`.

    Raises:
        InputError: If nothing trains, and for leading axes that differ.

    Examples:
        >>> starts = jnp.array([-2.0, -0.5, 0.5, 3.0])
        >>> fits = ds.optimize.fit_many(lambda x, data: x**2 - data, starts, jnp.array(2.0))
        >>> print(fits.models.round(4))
        [-1.4142 -1.4142  1.4142  1.4142]
    """
    solver = with_rtol(solver, rtol)
    trained, fixed = partition(models, filter_spec)
    counted, rest = eqx.partition(fixed, eqx.is_inexact_array)
    common_length((trained, counted, data if separate_data else None), "models (and data, if each fit has its own)")
    first = lambda tree: jax.tree.map(lambda x: x[0] if eqx.is_array_like(x) and jnp.ndim(x) else x, tree)
    model = eqx.combine(first(trained), first(counted), rest)
    function = traced_now(function, model, first(data) if separate_data else data)
    return _run(function, solver, unconstrain(trained), counted, rest, data, separate_data, steps)


@eqx.filter_jit
def _run(function, solver: Solver, trained, counted, rest, data, separate_data: bool, steps: int) -> Fits:
    def run_fit(trained, counted, data):
        fixed = eqx.combine(counted, rest)
        result = run_iterations(function, solver, trained, fixed, data, steps, jnp.array(True))
        last = jnp.maximum(jnp.sum(jnp.isfinite(result.losses)) - 1, 0)
        return result.trained, result.losses[last], result.status

    data_axis = 0 if separate_data else None
    fitted, loss, status = jax.vmap(run_fit, in_axes=(0, 0, data_axis))(trained, counted, data)
    return Fits(eqx.combine(fitted, counted, rest), loss, status)


def draw_models(
    model: Model,
    count: int,
    *,
    key: Key[Array, ""],
    filter_spec: PyTree[bool] | None = None,
    std: float = 1.0,
    relative: float | None = None,
) -> Model:
    """`count` copies of a model with random trained parameters, as one model whose real arrays have a leading axis.

    A parameter with two bounds is uniform between them. One with one bound has a log-normal distance from it about the
    model's own distance. One without bounds is normal about the model's value.

    Args:
        model: The model.
        count: The number of copies.
        key: The random key.
        filter_spec: The parameters that are drawn; by default all.
        std: The standard deviation: of the logarithm of the distance from one bound; of a parameter without bounds in
            units of its value, or of 1 if that is zero.
        relative: If given, such as 0.2 for plus or minus 20 %, each parameter is instead uniform between
            (1 - relative) and (1 + relative) times its value (within plus or minus `relative` if that is zero), as far
            as the bounds allow.

    Raises:
        InputError: For a count below 1 and a `relative` that is not above 0.

    Examples:
        >>> class Cart(eqx.Module):
        ...     mass: ds.Scalar = ds.param(2.0, "kg", bounds=(0.1, 10.0))
        ...
        >>> carts = ds.optimize.draw_models(Cart(), 100, key=jr.key(0))
        >>> carts.mass.shape, bool(jnp.all((carts.mass > 0.1) & (carts.mass < 10.0)))
        ((100,), True)
    """
    if relative is not None and not relative > 0:
        raise InputError(f"relative={relative:g}: give a share above 0, such as 0.2")
    if count < 1:
        raise InputError(f"count={count}: draw at least one model")
    chosen = trainable(model) if filter_spec is None else filter_spec
    known = parameters(model)
    keys = dict(zip(known, jr.split(key, len(known)), strict=True))

    def leaf(path, value, is_drawn):
        name = path_name(path)
        if name not in known:
            return jnp.broadcast_to(value, (count, *value.shape)) if eqx.is_inexact_array(value) else value
        rows = jnp.broadcast_to(value, (count, *value.shape))
        if not is_drawn:
            return rows
        if relative is not None:
            return _draw_near(known[name], rows, keys[name], relative)
        return _draw(known[name], rows, keys[name], std)

    return jax.tree_util.tree_map_with_path(leaf, model, chosen)


def _draw_near(entry: Parameter, rows: Array, key, relative: float) -> Array:
    reach = relative * jnp.where(rows == 0, 1.0, jnp.abs(rows))
    low, high = jnp.maximum(rows - reach, entry.bounds[0]), jnp.minimum(rows + reach, entry.bounds[1])
    # Within the bounds and not on them, where a fit could not start.
    return low + (high - low) * jr.uniform(key, rows.shape, rows.dtype, minval=1e-6, maxval=1 - 1e-6)


def _draw(entry: Parameter, rows: Array, key, std: float) -> Array:
    low, high = entry.bounds
    if np.isfinite(low) and np.isfinite(high):
        return low + (high - low) * jr.uniform(key, rows.shape, rows.dtype, minval=1e-3, maxval=1 - 1e-3)
    normal = std * jr.normal(key, rows.shape, rows.dtype)
    if np.isinf(low) and np.isinf(high):
        return rows + normal * jnp.where(rows == 0, 1.0, jnp.abs(rows))
    return low + (rows - low) * jnp.exp(normal) if np.isfinite(low) else high - (high - rows) * jnp.exp(normal)
