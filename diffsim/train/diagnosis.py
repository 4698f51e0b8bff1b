"""Why a fit does not move: derivatives compared with finite differences, by parameter, and data that are not finite."""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from .._trees import is_real_array
from .._types import Model, Scalar, Vector
from ..parameters import parameters
from .bounds import limits
from .data import non_finite_in

AGREE = 0.1  # of the greater of two derivatives: they agree up to here
FLAT = 1e-4  # cosine between residuals and a derivative, or relative slope of a loss: below it a minimum is reached


class Finding(enum.Enum):
    """What keeps a fit from moving."""

    MINIMUM = enum.auto()
    DERIVATIVE = enum.auto()
    INDEPENDENT = enum.auto()
    ROUGH = enum.auto()


class Diagnosis(NamedTuple):
    """What keeps a fit from moving, and a phrase that says so."""

    finding: Finding
    cause: str


class _Slope(NamedTuple):
    """What a function says for a relative change of one parameter.

    `derivative` and `difference` are the greatest entries by differentiation and by central differences, `apart` is the
    greatest entry of what they differ by. `size` is the greatest entry of the function, `change` of what the
    differences change in it. `decrease` is the cosine between function and derivative, for a loss the relative slope;
    `step` the relative change that a Gauss-Newton step makes.
    """

    derivative: float
    difference: float
    apart: float
    size: float
    change: float
    decrease: float
    step: float


def diagnose_stuck(
    function: Callable, trained: Model, fixed: Model, data: PyTree, *, squares: bool, paths: Sequence[str] | None = None
) -> Diagnosis:
    """Why no step from these parameters lowers a loss or, with `squares`, the sum of the squares of residuals.

    `trained` are the parameters within their bounds. Each of them, or of `paths`, is changed by a small share of
    itself; what that does to `function(model, data)` is compared with its derivative. It takes one compilation, which
    is kept.
    """
    x = ravel_pytree(trained)[0]
    low, high = (jnp.asarray(side, x.dtype) for side in limits(trained))
    share = float(jnp.finfo(x.dtype).eps) ** (1 / 3)
    reach = jnp.where(x == 0, 1.0, jnp.abs(x))
    reach = jnp.minimum(reach, 0.5 * jnp.minimum(x - low, high - x) / share)
    slopes, first = {}, 0
    for path, entry in parameters(trained).items():
        here = (np.arange(x.size) >= first) & (np.arange(x.size) < first + entry.value.size)
        if paths is None or path in paths:
            slope = _slope(function, trained, fixed, data, jnp.where(here, reach, 0.0), squares)
            slopes[path] = _Slope(*(float(number) for number in slope))
        first += entry.value.size
    return _judge(slopes, share, "residuals" if squares else "loss")


@eqx.filter_jit
def _slope(
    function, trained: Model, fixed: Model, data: PyTree, direction: Vector, squares: bool
) -> tuple[Scalar, ...]:
    """The numbers of a `_Slope`, in its order."""
    x, unravel = ravel_pytree(trained)
    value = lambda x: ravel_pytree(function(eqx.combine(unravel(x), fixed), data))[0]
    share = float(jnp.finfo(x.dtype).eps) ** (1 / 3)
    here = value(x)
    # A loss may have no derivative but in reverse mode.
    if squares:
        derivative = jax.jvp(value, (x,), (direction,))[1]
    else:
        derivative = (jax.grad(lambda x: value(x)[0])(x) @ direction)[None]
    up, down = value(x + share * direction), value(x - share * direction)
    difference = (up - down) / (2 * share)
    greatest = lambda entries: jnp.max(jnp.abs(entries), initial=0.0)
    # Scaled, for the squares of great derivatives to be finite.
    scale = jnp.where(greatest(derivative) == 0, 1.0, greatest(derivative))
    unit = derivative / scale
    along = jnp.abs(here @ unit)
    norm = jnp.linalg.norm(here) * jnp.linalg.norm(unit)
    relative = greatest(derivative) / jnp.where(greatest(here) == 0, 1.0, greatest(here))
    decrease = along / jnp.where(norm == 0, 1.0, norm) if squares else relative
    step = along / (jnp.where(greatest(unit) == 0, 1.0, unit @ unit) * scale)
    apart = greatest(derivative - difference)
    change = jnp.maximum(greatest(up - here), greatest(down - here))
    return greatest(derivative), greatest(difference), apart, greatest(here), change, decrease, step


def _judge(slopes: dict[str, _Slope], share: float, what: str) -> Diagnosis:
    """The first of the known causes that the slopes show."""
    verb = "do" if what == "residuals" else "does"
    bad = [path for path, slope in slopes.items() if not np.isfinite(slope.derivative)]
    if bad:
        return Diagnosis(Finding.DERIVATIVE, f"the derivative of the {what} by {', '.join(bad[:4])} is not finite")
    for path, slope in slopes.items():
        # An adaptive solve with a noise of 1e-7 leaves a hundredth of the function in doubt, and rounding a part of
        # changes that go both ways alike.
        doubt = max(1e-2 * slope.size, 1e-3 * slope.change / share)
        doubt = max(doubt, AGREE * max(slope.derivative, slope.difference))
        if np.isfinite(slope.apart) and slope.apart > doubt:
            sizes = f"{slope.derivative:.2g} for a relative change of {path}, finite differences give "
            sizes += f"{slope.difference:.2g} and differ by {slope.apart:.2g}"
            cure = "look for a rounding, a comparison, a stop_gradient or a wrong rule with check_gradients"
            return Diagnosis(Finding.DERIVATIVE, f"the derivative of the {what} is {sizes}: {cure}")
    if all(slope.derivative == 0 and slope.change <= 10 * share**3 * slope.size for slope in slopes.values()):
        return Diagnosis(Finding.INDEPENDENT, f"the {what} {verb} not depend on {', '.join(list(slopes)[:4])} there")
    close = [slope.decrease <= FLAT or (what == "residuals" and slope.step <= share**1.5) for slope in slopes.values()]
    if all(close):
        return Diagnosis(Finding.MINIMUM, "the starting model is a minimum already")
    return Diagnosis(
        Finding.ROUGH, f"the {what} may be rough on the scale of a step; start elsewhere or scale the {what}"
    )


def blame_data(function: Callable, model: Model, data: PyTree, what: str) -> str:
    """A phrase that names data that are not finite, if with 0 in their place the value of `function` is finite.

    It is empty if all data are finite, or if they are not what makes `function(model, data)` so.
    """
    phrases = non_finite_in(data, what)
    if not phrases:
        return ""
    filled = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0) if is_real_array(leaf) else leaf, data)
    leaves = jax.tree.leaves(eqx.filter_jit(function)(model, filled))
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
        return ""
    cure = "leave them out, or mask them, as jnp.where(jnp.isnan(seen), 0.0, predicted - jnp.nan_to_num(seen))"
    return f"{' and '.join(phrases[:3])}: {cure}"
