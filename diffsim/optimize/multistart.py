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
from .._trees import common_length
from .._types import Model
from ..parameters import Parameter, at_bound, parameters, partition, trainable, unconstrain
from .iterations import FitStatus, Solver, as_it_is, iterate, with_rtol
from .least_squares import LEVENBERG_MARQUARDT


class Fits(NamedTuple):
    """The ends of many fits: their models (a leading axis on each parameter), last losses, and a FitStatus each."""

    models: Model
    loss: Float[Array, " fits"]
    status: Int[Array, " fits"]

    def __repr__(self) -> str:
        """How many fits ended in which way, and the least loss; within `jit` the shapes."""
        if not eqx.is_array(self.loss) or is_tracer(self.loss):
            return tuple.__repr__(self)
        ways = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        finite = np.asarray(self.loss)[np.isfinite(self.loss)]
        return f"Fits({ways}; least loss {finite.min():.4g})" if len(finite) else f"Fits({ways}; no finite loss)"

    def counts(self) -> dict[str, int]:
        """How many fits ended in which way, by name."""
        return {status.name.lower(): int(np.sum(np.asarray(self.status) == status)) for status in FitStatus}

    def at_bound(self) -> dict[str, int]:
        """How many fits left each parameter on a bound, by path."""
        names = [name for number in range(len(self.loss)) for name in at_bound(self.model(number), width=0.0)]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def model(self, number: int) -> Model:
        """One of the models."""
        return jax.tree.map(lambda leaf: leaf[number] if eqx.is_array(leaf) else leaf, self.models)

    def best(self) -> Model:
        """The model with the least loss of those that converged, or else of all; RunError if no loss is finite."""
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
    each: bool = False,
    solver: Solver = LEVENBERG_MARQUARDT,
    steps: int = 100,
    rtol: float | None = None,
    filter_spec: PyTree[bool] | None = None,
) -> Fits:
    """The ends of fits that run side by side, one from each of some models, in one compiled call.

    Every real array of `models` has a leading axis that counts the fits, as `draw_models` makes it. `function` gives
    residuals for a least-squares solver, and a loss for a minimizer. All fits are to the same `data`, or `each` to its
    own, whose leading axis counts them too. `filter_spec`, bounds, `steps` and `rtol` are as in `fit_least_squares`; nothing
    is raised for a fit that fails: its status says so. The batch takes as many iterations as its slowest fit.

    Raises InputError if nothing trains and for leading axes that differ.
    """
    solver = with_rtol(solver, rtol)
    trained, fixed = partition(models, filter_spec)
    counted, rest = eqx.partition(fixed, eqx.is_inexact_array)
    common_length((trained, counted, data if each else None), "models (and data, if each has its own)")
    first = lambda tree: jax.tree.map(lambda x: x[0] if eqx.is_array_like(x) and jnp.ndim(x) else x, tree)
    model = eqx.combine(first(trained), first(counted), rest)
    function = as_it_is(function, model, first(data) if each else data)
    return _run(function, solver, unconstrain(trained), counted, rest, data, each, steps)


@eqx.filter_jit
def _run(function, solver: Solver, trained, counted, rest, data, each: bool, steps: int) -> Fits:
    def one(trained, counted, data):
        end = iterate(function, solver, trained, eqx.combine(counted, rest), data, steps, jnp.array(True))
        last = jnp.maximum(jnp.sum(jnp.isfinite(end.losses)) - 1, 0)
        return end.trained, end.losses[last], end.status

    axis = 0 if each else None
    ends, loss, status = jax.vmap(one, in_axes=(0, 0, axis))(trained, counted, data)
    return Fits(eqx.combine(ends, counted, rest), loss, status)


def draw_models(
    model: Model,
    count: int,
    *,
    key: Key[Array, ""],
    filter_spec: PyTree[bool] | None = None,
    std: float = 1.0,
    relative: float | None = None,
) -> Model:
    """So many copies of a model, each real array with a leading axis, the trained ones drawn at random.

    A parameter with two bounds is uniform between them; one with one bound has a distance from it that is log-normal
    about the model's own, and one without is normal about its value: `std` is the standard deviation, of the
    logarithm there, and here in units of the value (of 1 if that is zero).

    With `relative`, as 0.2 for plus or minus 20 %, each is uniform between (1 - relative) and (1 + relative) times its
    value (within plus or minus `relative` if that is zero), as far as the bounds allow, and `std` is not used.

    Raises InputError for a count below 1 and a `relative` that is not above 0.
    """
    if relative is not None and not relative > 0:
        raise InputError(f"relative={relative:g}: give a share above 0, such as 0.2")
    if count < 1:
        raise InputError(f"count={count}: draw at least one model")
    chosen = trainable(model) if filter_spec is None else filter_spec
    known = parameters(model)
    keys = dict(zip(known, jr.split(key, len(known)), strict=True))

    def leaf(path, value, drawn):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in known:
            return jnp.broadcast_to(value, (count, *value.shape)) if eqx.is_inexact_array(value) else value
        rows = jnp.broadcast_to(value, (count, *value.shape))
        if not drawn:
            return rows
        if relative is not None:
            return _draw_near(known[name], rows, keys[name], relative)
        return _draw(known[name], rows, keys[name], std)

    return jax.tree_util.tree_map_with_path(leaf, model, chosen)


def _draw_near(entry: Parameter, rows: Array, key, relative: float) -> Array:
    reach = relative * jnp.where(rows == 0, 1.0, jnp.abs(rows))
    low, high = jnp.maximum(rows - reach, entry.bounds[0]), jnp.minimum(rows + reach, entry.bounds[1])
    # Within the bounds, not on them: from there a fit could not start.
    return low + (high - low) * jr.uniform(key, rows.shape, rows.dtype, minval=1e-6, maxval=1 - 1e-6)


def _draw(entry: Parameter, rows: Array, key, std: float) -> Array:
    low, high = entry.bounds
    if np.isfinite(low) and np.isfinite(high):
        return low + (high - low) * jr.uniform(key, rows.shape, rows.dtype, minval=1e-3, maxval=1 - 1e-3)
    normal = std * jr.normal(key, rows.shape, rows.dtype)
    if np.isinf(low) and np.isinf(high):
        return rows + normal * jnp.where(rows == 0, 1.0, jnp.abs(rows))
    return low + (rows - low) * jnp.exp(normal) if np.isfinite(low) else high - (high - rows) * jnp.exp(normal)
