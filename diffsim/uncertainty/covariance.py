"""Posteriors of fitted parameters: by Gauss-Newton for a least-squares fit, by Laplace for any likelihood."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._errors import InputError, RunError
from .._jax.tracers import is_tracer
from .._types import Model, Vector
from ..autodiff.jacobian import value_and_jacobian
from ..parameters import partition
from ..train.bounds import is_at_bound
from ..train.data import non_finite_in
from .posterior import Posterior


def posterior(
    residuals: Callable,
    model: Model,
    data: PyTree = None,
    *,
    noise: float | None = None,
    measurements: int | None = None,
    clusters: Int[Array | np.ndarray, " residuals"] | None = None,
    filter_spec: PyTree[bool] | None = None,
) -> Posterior:
    """The normal posterior of the parameters of a least-squares fit, with a flat prior and independent residuals.

        covariance = noise^2 (J^T J)^-1,  J the Jacobian of the residuals

    With `clusters`, residuals r may depend on one another within a cluster, and their variances may differ. Over G
    clusters of the rows of J and r, n residuals and p free parameters, the covariance is the sandwich

        (J^T J)^-1 (sum_c J_c^T r_c r_c^T J_c) (J^T J)^-1  G / (G - 1)  (n - 1) / (n - p)

    and intervals take Student's distribution with G - 1 degrees of freedom. It takes many more clusters than
    parameters.

    Parameters on a bound are taken as known. The columns of J are scaled to length one, so that units and values do not
    matter; directions whose singular value is then below about 1e-6 of the greatest are flat: the data do not determine
    them. Works under `jit` and `vmap` (`eqx.filter_vmap`); too few
    measurements then give a noise of NaN.

    A residual counts as missing, not as a measurement, if it is exactly zero and so is its derivative by every trained
    parameter. That is what a mask leaves, as `jnp.where(jnp.isnan(seen), 0.0, predicted - seen)` or a weight of zero;
    a residual that is zero by chance has a derivative and counts. It matters for the estimate of the noise alone.

    Args:
        residuals: `residuals(model, data)`, an array or a tree of arrays.
        model: The fitted model.
        data: The second argument of `residuals`.
        noise: The standard deviation of a residual, in its unit. By default it is estimated, as
            sqrt(sum(residuals^2) / (measurements - free parameters)).
        measurements: The number of measurements; by default counted as described above. Give it if a measurement
            equals its prediction exactly and depends on no trained parameter.
        clusters: The number of the cluster of each residual, from 0, in the order of `ravel_pytree`; none without a
            residual. By default residuals are independent.
        filter_spec: The parameters that were fitted; by default all.

    Raises:
        InputError: If the noise is to be estimated from no more measurements than free parameters, for residuals that
            are not finite, and for clusters that are fewer than two, do not fit the residuals or come with a noise.

    Source: G. A. F. Seber, C. J. Wild, Nonlinear Regression, Wiley 1989, sections 2.1 and 5.1. The sandwich: A. C.
    Cameron, D. L. Miller, A Practitioner's Guide to Cluster-Robust Inference, Journal of Human Resources 50, 2015.

    Examples:
        >>> ts, seen = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.1, 3.9, 6.0])
        >>> residuals = lambda line, seen: line["slope"] * ts - seen
        >>> line, _ = ds.fit_least_squares(residuals, {"slope": jnp.array(1.0)}, seen)
        >>> print(ds.posterior(residuals, line, seen, noise=0.1))  # of slope, 0.1 / sqrt(sum(ts^2)) = 0.0267
        slope = 1.993 +- 0.027
        noise = 0.1 (given); +- is one standard deviation
    """
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    flat_residuals = lambda x: ravel_pytree(residuals(eqx.combine(unravel(x), fixed), data))[0]
    r, jacobian = value_and_jacobian(flat_residuals, x)
    _check_finite(r, data)
    groups = 0 if clusters is None else _check_clusters(clusters, r.size, noise)
    count = jnp.sum(is_measurement(r, jacobian)) if measurements is None else measurements
    at_bound = ravel_pytree(is_at_bound(trained))[0]
    scale, is_moving = _scale(x, jnp.linalg.norm(jacobian, axis=0), at_bound)
    scaled = jacobian * jnp.where(is_moving, scale, 0.0)[None]
    # A row for each parameter on a bound makes it a direction of its own; the rows of zeros make the number of
    # directions that of the parameters.
    rows = jnp.concatenate([scaled, jnp.diag(at_bound * jnp.linalg.norm(scaled))])
    _, singular_values, directions = jnp.linalg.svd(rows, full_matrices=False)
    flat = singular_values <= _rounding_limit(x) * jnp.max(singular_values)
    free = x.size - jnp.sum(at_bound) - jnp.sum(flat)
    if noise is None:
        _check_count(count, free, r.size, x.size)
        degrees = count - free
        noise_std = jnp.where(degrees > 0, jnp.sqrt(jnp.sum(r**2) / jnp.maximum(degrees, 1)), jnp.nan)
    else:
        degrees, noise_std = jnp.inf, jnp.asarray(noise, x.dtype)
    singular_values = singular_values / (noise_std if clusters is None else 1.0)
    result = _assemble(trained, fixed, scale, directions, singular_values, flat, at_bound, noise_std, degrees)
    if clusters is None:
        return result
    scores = jax.ops.segment_sum(jacobian * r[:, None], clusters, groups) @ result.covariance
    covariance = groups / (groups - 1) * (count - 1) / degrees * scores.T @ scores
    degrees = jnp.asarray(groups - 1, x.dtype)
    return eqx.tree_at(lambda p: (p.covariance, p.degrees_of_freedom), result, (covariance, degrees))


def _check_clusters(clusters, residuals: int, noise: float | None) -> int:
    """The number of clusters; raises InputError for clusters that do not fit the residuals."""
    if noise is not None:
        raise InputError(
            f"noise={noise:g} with clusters: the residuals of the clusters tell the noise; give one of both"
        )
    if clusters.shape != (residuals,):
        raise InputError(f"clusters has {clusters.size} numbers for {residuals} residuals; give one for each")
    numbers = np.unique(np.asarray(clusters))
    if len(numbers) < 2 or numbers[0] != 0 or numbers[-1] != len(numbers) - 1:
        raise InputError(f"clusters has {len(numbers)} different numbers; give 0, 1, ... and at least two of them")
    return len(numbers)


def _scale(x: Vector, norms: Vector, at_bound: Bool[Array, " n"]) -> tuple[Vector, Bool[Array, " n"]]:
    """The change of each parameter that changes the prediction by one, and whether the parameter changes it at all.

    A derivative that is rounding in comparison with the others, for unit and for relative changes, is taken as zero.
    The change is then that of the parameter itself, or 1. Parameters on a bound do not change.
    """
    influence, limit = norms * jnp.abs(x), 16 * jnp.finfo(x.dtype).eps
    is_rounding = (norms <= limit * jnp.max(norms)) & (influence <= limit * jnp.max(influence))
    is_moving = ~(at_bound | is_rounding | (norms == 0))
    own = jnp.where(x == 0, 1.0, jnp.abs(x))
    return jnp.where(at_bound, 0.0, jnp.where(is_moving, 1 / jnp.where(is_moving, norms, 1.0), own)), is_moving


def is_measurement(r: Float[Array, " residuals"], jacobian: Float[Array, "residuals n"]) -> Bool[Array, " residuals"]:
    """Which residuals are measurements: all but those that are zero with a row of zeros in the Jacobian."""
    return (r != 0) | jnp.any(jacobian != 0, axis=1)


def _check_finite(r: Vector, data: PyTree) -> None:
    """Raises InputError for concrete residuals that are not finite; names the data that are not."""
    if is_tracer(r) or bool(jnp.all(jnp.isfinite(r))):
        return
    bad = np.flatnonzero(~np.isfinite(r))
    where = f"{len(bad)} of {r.size} residuals are not finite, the first is number {bad[0]}"
    cure = "set the residuals of missing measurements to zero, as jnp.where(jnp.isnan(seen), 0.0, predicted - seen)"
    raise InputError("; ".join([where, *non_finite_in(data, "data"), cure]))


def _check_count(measurements, free, residuals: int, numbers: int) -> None:
    """Raises InputError if there are too few measurements to estimate the noise, as far as that is known."""
    cure = "give noise=, measure more, or train less"
    if is_tracer(measurements) or is_tracer(free):
        if residuals <= numbers:
            raise InputError(f"{residuals} residuals cannot determine the noise and {numbers} parameters: {cure}")
    elif int(measurements) <= int(free):
        missing = residuals - int(measurements)
        gaps = f" ({missing} of {residuals} are masked)" if missing > 0 else ""
        counts = f"{int(measurements)} residuals{gaps} cannot determine the noise and {int(free)} parameters"
        raise InputError(f"{counts}: {cure}")


def laplace_posterior(
    loss: Callable, model: Model, data: PyTree = None, *, filter_spec: PyTree[bool] | None = None
) -> Posterior:
    """The normal posterior at the minimum of a negative log-likelihood: covariance = the inverse of its Hessian.

    Args:
        loss: `loss(model, data)`, the negative logarithm of a likelihood or of a posterior density.
        model: The model at its minimum.
        data: The second argument of `loss`.
        filter_spec: The parameters that were fitted; by default all.

    Returns:
        The posterior; its `noise` is 1 and has no meaning.

    Raises:
        RunError: If the loss has negative curvature in some direction: the model is then not at its minimum.

    Examples:
        >>> loss = lambda rate, counts: jnp.sum(rate - counts * jnp.log(rate))  # counts of a Poisson distribution
        >>> posterior = ds.uncertainty.laplace_posterior(loss, jnp.array(4.0), jnp.array([3.0, 4.0, 5.0]))
        >>> print(f"{posterior.std()[0]:.4f}")  # sqrt(4 / 3)
        1.1547
    """
    trained, fixed = partition(model, filter_spec)
    x, unravel = ravel_pytree(trained)
    at_bound = ravel_pytree(is_at_bound(trained))[0]
    hessian = jax.hessian(lambda x: loss(eqx.combine(unravel(x), fixed), data))(x)
    scale, is_moving = _scale(x, jnp.sqrt(jnp.abs(jnp.diagonal(hessian))), at_bound)
    used = jnp.where(is_moving, scale, 0.0)
    scaled = used[:, None] * hessian * used[None]
    # Parameters on a bound are directions of their own.
    eigenvalues, directions = jnp.linalg.eigh(scaled + jnp.diag(at_bound * jnp.linalg.norm(scaled)))
    if not is_tracer(eigenvalues) and float(eigenvalues[0]) < -1e-6 * float(eigenvalues[-1]):
        raise RunError("the loss curves downwards at this model: it is no minimum; fit it first, to tight tolerances")
    singular_values = jnp.sqrt(jnp.maximum(eigenvalues, 0.0))
    flat = singular_values <= _rounding_limit(x) * jnp.max(singular_values)
    noise, degrees = jnp.ones((), x.dtype), jnp.asarray(jnp.inf, x.dtype)
    return _assemble(trained, fixed, scale, directions.T, singular_values, flat, at_bound, noise, degrees)


def _assemble(
    trained, fixed, scale, directions, singular_values, flat, at_bound, noise, degrees_of_freedom
) -> Posterior:
    is_zero = singular_values == 0
    weights = jnp.where(flat | is_zero, 0.0, 1 / jnp.where(is_zero, 1.0, singular_values))
    root = jnp.diag(scale) @ directions.T @ jnp.diag(weights)
    covariance = root @ root.T
    degrees_of_freedom = jnp.asarray(degrees_of_freedom, covariance.dtype)
    return Posterior(trained, fixed, covariance, scale, directions, flat, at_bound, noise, degrees_of_freedom)


def _rounding_limit(x: Vector) -> float:
    """The ratio of singular values that rounding of the Jacobian leaves uncertain."""
    return float(jnp.finfo(x.dtype).eps) ** 0.4
