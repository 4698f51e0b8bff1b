"""Why a fit makes no progress: a comparison of derivatives with finite differences, and data that are not finite."""

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
from .bounds import flat_bounds
from .data import non_finite_in

# Two derivatives agree if they differ by less than this share of the greater one.
AGREEMENT = 0.1
# A minimum is reached below this cosine between residuals and a derivative, or this relative derivative of a loss.
FLAT = 1e-4


class Finding(enum.Enum):
    """The cause of a fit's lack of progress."""

    MINIMUM = enum.auto()
    DERIVATIVE = enum.auto()
    INDEPENDENT = enum.auto()
    ROUGH = enum.auto()


class Diagnosis(NamedTuple):
    """The cause of a fit's lack of progress, and a phrase about it."""

    finding: Finding
    cause: str


class _Derivative(NamedTuple):
    """How a function changes with a relative change of one parameter; "greatest" is by absolute value.

    Attributes:
        derivative: The greatest entry of the derivative.
        difference: The greatest entry by central differences.
        discrepancy: The greatest entry of the difference between the two.
        size: The greatest entry of the function.
        change: The greatest change of the function in the finite differences.
        decrease: The cosine between function and derivative; for a loss the relative derivative.
        step: The relative change of the parameter in a Gauss-Newton step.
    """

    derivative: float
    difference: float
    discrepancy: float
    size: float
    change: float
    decrease: float
    step: float


def diagnose_stuck(
    function: Callable, trained: Model, fixed: Model, data: PyTree, *, squares: bool, paths: Sequence[str] | None = None
) -> Diagnosis:
    """Why no step from these parameters lowers a loss.

    Each parameter is changed by a small share of itself, and the change of the function is compared with its
    derivative. That takes one compilation, which is cached.

    Args:
        function: `function(model, data)`, a loss or residuals.
        trained: The parameters that train, within their bounds.
        fixed: The rest of the model.
        data: The second argument of `function`.
        squares: Whether `function` returns residuals, whose sum of squares is the loss.
        paths: The parameters to examine; by default all.
    """
    x = ravel_pytree(trained)[0]
    low, high = (jnp.asarray(side, x.dtype) for side in flat_bounds(trained))
    share = float(jnp.finfo(x.dtype).eps) ** (1 / 3)  # balances truncation and rounding of central differences
    reach = jnp.where(x == 0, 1.0, jnp.abs(x))
    reach = jnp.minimum(reach, 0.5 * jnp.minimum(x - low, high - x) / share)
    derivatives, first = {}, 0
    for path, entry in parameters(trained).items():
        is_own = (np.arange(x.size) >= first) & (np.arange(x.size) < first + entry.value.size)
        if paths is None or path in paths:
            numbers = _derivative(function, trained, fixed, data, jnp.where(is_own, reach, 0.0), squares)
            derivatives[path] = _Derivative(*(float(number) for number in numbers))
        first += entry.value.size
    return _judge(derivatives, share, "residuals" if squares else "loss")


@eqx.filter_jit
def _derivative(
    function, trained: Model, fixed: Model, data: PyTree, direction: Vector, squares: bool
) -> tuple[Scalar, ...]:
    """The numbers of a `_Derivative`, in its order, for a change in a direction."""
    x, unravel = ravel_pytree(trained)
    value = lambda x: ravel_pytree(function(eqx.combine(unravel(x), fixed), data))[0]
    share = float(jnp.finfo(x.dtype).eps) ** (1 / 3)
    here = value(x)
    # A loss may support reverse mode only.
    if squares:
        derivative = jax.jvp(value, (x,), (direction,))[1]
    else:
        derivative = (jax.grad(lambda x: value(x)[0])(x) @ direction)[None]
    up, down = value(x + share * direction), value(x - share * direction)
    difference = (up - down) / (2 * share)
    greatest = lambda entries: jnp.max(jnp.abs(entries), initial=0.0)
    # Scaled, so that the squares of large derivatives are finite.
    scale = jnp.where(greatest(derivative) == 0, 1.0, greatest(derivative))
    unit = derivative / scale
    along = jnp.abs(here @ unit)
    norm = jnp.linalg.norm(here) * jnp.linalg.norm(unit)
    relative = greatest(derivative) / jnp.where(greatest(here) == 0, 1.0, greatest(here))
    decrease = along / jnp.where(norm == 0, 1.0, norm) if squares else relative
    step = along / (jnp.where(greatest(unit) == 0, 1.0, unit @ unit) * scale)
    discrepancy = greatest(derivative - difference)
    change = jnp.maximum(greatest(up - here), greatest(down - here))
    return greatest(derivative), greatest(difference), discrepancy, greatest(here), change, decrease, step


def _judge(derivatives: dict[str, _Derivative], share: float, name: str) -> Diagnosis:
    """The first of the known causes that the derivatives show; `name` is the name of the function."""
    verb = "do" if name == "residuals" else "does"
    bad = [path for path, d in derivatives.items() if not np.isfinite(d.derivative)]
    if bad:
        return Diagnosis(Finding.DERIVATIVE, f"the derivative of the {name} by {', '.join(bad[:4])} is not finite")
    for path, d in derivatives.items():
        # Finite differences of an adaptive solve with a noise of 1e-7 are uncertain by a hundredth of the function,
        # and those of a symmetric change by the rounding of that change.
        doubt = max(1e-2 * d.size, 1e-3 * d.change / share)
        doubt = max(doubt, AGREEMENT * max(d.derivative, d.difference))
        if np.isfinite(d.discrepancy) and d.discrepancy > doubt:
            sizes = f"{d.derivative:.2g} for a relative change of {path}, finite differences give "
            sizes += f"{d.difference:.2g} and differ by {d.discrepancy:.2g}"
            cure = "look for a rounding, a comparison, a stop_gradient or a wrong rule with check_gradients"
            return Diagnosis(Finding.DERIVATIVE, f"the derivative of the {name} is {sizes}: {cure}")
    if all(d.derivative == 0 and d.change <= 10 * share**3 * d.size for d in derivatives.values()):
        return Diagnosis(
            Finding.INDEPENDENT, f"the {name} {verb} not depend on {', '.join(list(derivatives)[:4])} there"
        )
    close = [d.decrease <= FLAT or (name == "residuals" and d.step <= share**1.5) for d in derivatives.values()]
    if all(close):
        return Diagnosis(Finding.MINIMUM, "the starting model is a minimum already")
    return Diagnosis(
        Finding.ROUGH, f"the {name} may be rough on the scale of a step; start elsewhere or scale the {name}"
    )


def blame_data(function: Callable, model: Model, data: PyTree, name: str) -> str:
    """A phrase that names the data that are not finite, if they are why `function(model, data)` is not finite.

    They are the reason if the function is finite with 0 in their place. Otherwise the phrase is empty.
    """
    phrases = non_finite_in(data, name)
    if not phrases:
        return ""
    filled = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0) if is_real_array(leaf) else leaf, data)
    leaves = jax.tree.leaves(eqx.filter_jit(function)(model, filled))
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
        return ""
    cure = "leave them out, or mask them, as jnp.where(jnp.isnan(seen), 0.0, predicted - jnp.nan_to_num(seen))"
    return f"{' and '.join(phrases[:3])}: {cure}"
