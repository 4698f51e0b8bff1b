"""Times, step sizes and tolerances: errors where their values are known, a flag where they are being traced."""

import warnings

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import InputError
from .._jax.tracers import is_tracer
from .._types import Flag, Scalar

_FINEST_DEFAULT = 8  # units of eps: the least relative tolerance that is chosen by default
_SEPARATION = 4  # units of eps * |t|: nearer times cannot be distinguished


def check_time(name: str, t, dtype) -> None:
    """Raises InputError for a time that is not one finite real number."""
    kind = jnp.result_type(t)
    if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise InputError(f"{name} has dtype {kind}: give a time as a real number")
    if not is_tracer(t) and not np.all(np.isfinite(np.asarray(t))):
        raise InputError(f"{name}={t}: give a finite time")


def check_times(ts, dtype) -> tuple[float | None, Float[Array, " times"]]:
    """The direction in which times run, 1 or -1 (None while they are traced), and the times in the state's `dtype`."""
    check_time("ts", 0.0 if not is_tracer(ts) and np.asarray(ts).dtype.kind in "fiu" else ts, dtype)
    if is_tracer(ts):
        if ts.ndim != 1 or ts.size < 2:
            raise InputError(f"ts has shape {ts.shape}: give at least two times in one dimension")
        return None, jnp.asarray(ts, dtype)
    values = np.asarray(ts)
    if values.ndim != 1 or values.size < 2:
        raise InputError(f"ts has shape {values.shape}: give at least two times in one dimension")
    if not np.all(np.isfinite(values)):
        where = int(np.argmin(np.isfinite(values)))
        raise InputError(f"ts[{where}]={values[where]}: give finite times")
    direction = 1.0 if values[-1] >= values[0] else -1.0
    if not np.all(direction * np.diff(values) > 0):
        where, word = int(np.argmin(direction * np.diff(values) > 0)), "increase" if direction > 0 else "decrease"
        pair = f"ts[{where}]={values[where]:g}, ts[{where + 1}]={values[where + 1]:g}"
        raise InputError(f"ts must {word}: {pair}")
    steps, rounded = np.diff(values), np.diff(values.astype(dtype))
    if np.any(np.abs(rounded - steps) > 0.01 * np.abs(steps)):
        where = int(np.argmax(np.abs(rounded - steps) / np.abs(steps)))
        raise InputError(
            f"ts[{where + 1}] - ts[{where}] = {steps[where]:g} cannot be resolved in {dtype} at a time of "
            f"{values[where]:g}: count the times from the first, or use float64"
        )
    return direction, jnp.asarray(ts, dtype)


def direction_of(t0, t1) -> Scalar | float:
    """1 where `t1` is not before `t0`, else -1; a Python number where it is the same for all."""
    if any(is_tracer(t) for t in (t0, t1)):
        dtype = jnp.result_type(t0, t1, float)
        return jnp.where(jnp.asarray(t1) < jnp.asarray(t0), -1.0, 1.0).astype(dtype)
    backward = np.asarray(t1) < np.asarray(t0)
    return -1.0 if np.all(backward) else 1.0


def in_order(ts: Float[Array, " times"], direction) -> Flag:
    """Whether times are finite, run in `direction`, and are far enough from each other to be distinguished."""
    separate = direction * jnp.diff(ts) > _SEPARATION * jnp.finfo(ts.dtype).eps * jnp.maximum(
        jnp.abs(ts[1:]), jnp.abs(ts[:-1])
    )
    return jnp.all(jnp.isfinite(ts)) & jnp.all(separate)


def _check_method(solver, controller) -> None:
    """Raises InputError, with the remedy, for a solver or step size controller that is not one of diffrax."""
    if not isinstance(solver, dfx.AbstractSolver):
        names = {name.lower(): name for name in dir(dfx) if name[0].isupper()}
        name = names.get(str(solver).lower(), "Tsit5")
        raise InputError(f"solver={_shown(solver)} is not a solver: give one of diffrax, such as diffrax.{name}()")
    if not isinstance(controller, dfx.AbstractStepSizeController):
        raise InputError(
            f"stepsize_controller={_shown(controller)} is not a step size controller: give one of diffrax, such as "
            "diffrax.PIDController(rtol=1e-6, atol=1e-9)"
        )


def chosen_controller(controller, default: dfx.PIDController, rtol, atol, solver, dt0, dtype, *, noise: bool = False):
    """The controller, or one of the tolerances that were given instead; one left out keeps its ratio in the `default`.

    The default tolerances are those of double precision, or eight units of rounding of the state's `dtype`. Where none
    was given, a solver without an error estimate, or an equation with noise, takes constant steps of `dt0`.
    Raises InputError for what is no solver or controller of diffrax, for tolerances beside a controller, and where such
    a solver or equation has no `dt0`.
    """
    _check_method(solver, controller)
    if rtol is None and atol is None:
        if controller is not default:
            return controller
        if isinstance(solver, dfx.AbstractAdaptiveSolver) and not noise:
            least = _FINEST_DEFAULT * float(jnp.finfo(dtype).eps)
            coarser = dfx.PIDController(rtol=least, atol=least * default.atol / default.rtol)
            return default if default.rtol >= least else coarser
        if dt0 is None:
            what = "an equation with noise" if noise else f"{type(solver).__name__}, which has no error estimate,"
            raise InputError(f"dt0=None: {what} takes constant steps; give their size, such as dt0=0.01")
        return dfx.ConstantStepSize()
    if controller is not default:
        raise InputError(
            "both stepsize_controller= and rtol= or atol= were given: give the tolerances to the controller"
        )
    rtol = atol * (default.rtol / default.atol) if rtol is None else rtol
    atol = rtol * (default.atol / default.rtol) if atol is None else atol
    return dfx.PIDController(rtol=rtol, atol=atol)


def _shown(value) -> str:
    return value.__name__ if isinstance(value, type) else f"{value!r:.60}"


def check_options(controller, dt0, max_steps, dtype) -> None:
    """Raises InputError for options of a solve that make no sense, where their values are known.

    Warns of a relative tolerance that is less than one unit of rounding of the state's `dtype`.
    """
    if not isinstance(max_steps, int | np.integer) or isinstance(max_steps, bool) or max_steps < 1:
        raise InputError(f"max_steps={max_steps}: give a whole number of steps, at least 1")
    eps = float(jnp.finfo(dtype).eps)
    for name, value in _numbers(controller, dt0):
        known = None if is_tracer(value) else np.asarray(value)
        if known is not None and not np.all(known >= 0 if name != "dt0" else (known > 0) & np.isfinite(known)):
            what = "a step size is positive, also backward in time" if name == "dt0" else "a tolerance is not negative"
            raise InputError(f"{name}={value}: {what}")
        if known is not None and name == "rtol" and np.any((known > 0) & (known < eps)):
            warnings.warn(
                f"rtol={value} is less than {jnp.dtype(dtype)} resolves, {eps:.1e}: there will be more steps and no "
                f"smaller errors; give {_FINEST_DEFAULT * eps:.0e}, or compute in float64",
                stacklevel=3,
            )


def sensible(t0: Scalar, t1: Scalar, controller, dt0) -> Flag | None:
    """Whether times, tolerances and step size make sense; None where all of them are known, and have been checked."""
    flags = [jnp.isfinite(t) for t in (t0, t1) if is_tracer(t)]
    finest = _SEPARATION * jnp.finfo(t0.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    for name, value in _numbers(controller, dt0):
        if name == "dt0":
            flags.append((jnp.asarray(value) > finest) & jnp.isfinite(value) | (t0 == t1))
        elif is_tracer(value):
            flags.append(jnp.all(value >= 0))
    return jnp.all(jnp.stack(flags)) if flags else None


def both(a: Flag | None, b: Flag | None) -> Flag | None:
    """Whether both hold; None stands for what is known to."""
    return b if a is None else a if b is None else a & b


def _numbers(controller, dt0):
    """Step size and tolerances by name."""
    if dt0 is not None:
        yield "dt0", dt0
    for name in ("rtol", "atol"):
        for value in jax.tree.leaves(getattr(controller, name, None)):
            yield name, value
