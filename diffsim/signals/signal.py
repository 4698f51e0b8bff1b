"""A signal: an input given by its values at knots, held, linear or cubic in between."""

from collections.abc import Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._errors import InputError
from .._jax.tracers import is_tracer
from .._types import Scalar
from .jump_times import Input, JumpTimes, seen_at, unit

Kind = Literal["hold", "linear", "cubic", "monotonic", "akima"]
Outside = Literal["hold", "refuse", "periodic"]
_KNOTS = {"hold": 1, "linear": 2, "cubic": 4, "monotonic": 4, "akima": 6}  # on which a value depends


class Signal(eqx.Module):
    """An input as a function of time, given at knots; see `diffsim.signal`, which makes one.

    Attributes:
        times: The times of the knots, which increase. They can be trained, as long as they keep their order.
        values: The values at the knots, one in each row.
        period: The time after which it repeats, of a periodic signal, else None.
        kind, outside: As given.
        unit: The unit of the values.

    Examples:
        >>> wind = ds.signal([0.0, 1.0, 3.0], [5.0, 7.0, 3.0], kind="linear", unit="m/s")
        >>> [float(wind(t)) for t in (0.5, 2.0, 9.0)]
        [6.0, 5.0, 3.0]
    """

    times: Float[Array, " knots"]
    values: Float[Array, "knots ..."]
    period: Scalar | None
    kind: Kind = eqx.field(static=True)
    outside: Outside = eqx.field(static=True)
    unit: str = eqx.field(static=True)

    def __call__(self, t: Real[ArrayLike, "*times"]) -> Float[Array, "..."]:
        """Returns the value at the time `t`, or the values at many, whose axes come first."""
        return self.evaluate(t, self)

    def evaluate(self, t: Real[ArrayLike, "..."], source: Input) -> Float[Array, "..."]:
        """Returns the value at `t` of a signal that was made by the input `source`, which has the same jumps."""
        seen = jnp.asarray(seen_at(jnp.asarray(t), source, is_held=self.kind == "hold"), self.times.dtype)
        t = jnp.asarray(t, self.times.dtype)
        if t.ndim == 0:
            return self._at(t, seen)
        return jax.vmap(self._at)(t.ravel(), seen.ravel()).reshape(*t.shape, *self.values.shape[1:])

    @property
    def leaves(self) -> tuple[Array, ...]:
        """The arrays that determine the times of the jumps."""
        return (self.times,) if self.period is None else (self.times, self.period)

    @property
    def jumps(self) -> JumpTimes | None:
        """The times at which the value or its slope jumps, at which the steps of a solve end; None for no times."""
        times = self.times
        if self.kind == "hold":
            times = times if self.period is not None else times[1:]
        elif self.period is not None:
            times = times if self.kind == "linear" else times[:0]
        elif self.outside == "refuse":
            times = times[1:-1] if self.kind == "linear" else times[:0]
        elif self.kind != "linear":
            times = times[:: times.shape[0] - 1]
        return JumpTimes(times, self.period) if times.shape[0] else None

    def padded(self, knots: int) -> "Signal":
        """Returns the same function of time with so many knots, for signals of unequal lengths in one batch.

        Only signals that are held or linear, and do not repeat, can have more knots.
        """
        times, values = np.asarray(self.times), np.asarray(self.values)
        if self.kind not in ("hold", "linear") or self.period is not None:
            raise InputError(f"a {self.kind} signal of {times.size} knots cannot have {knots}: pad it yourself")
        while times.size < knots:
            gap = int(np.argmax(np.diff(times)))
            share = 0.0 if self.kind == "hold" else 0.5
            between = (1 - share) * values[gap] + share * values[gap + 1]
            times = np.insert(times, gap + 1, 0.5 * (times[gap] + times[gap + 1]))
            values = np.insert(values, gap + 1, between, axis=0)
        leaves = jnp.asarray(times, self.times.dtype), jnp.asarray(values, self.values.dtype)
        return eqx.tree_at(lambda signal: (signal.times, signal.values), self, leaves)

    def _at(self, t: Scalar, time: Scalar) -> Float[Array, "..."]:
        """The value at `t`, for which `time` stands in a solve."""
        if self.period is None:
            low, high = self.times[0], self.times[-1]
            inside = (t >= low - 4 * unit(low)) & (t <= high + 4 * unit(high))
            value = self._interpolated(jnp.clip(time, low, high))
            return jnp.where(inside, value, jnp.nan) if self.outside == "refuse" else value
        return self._interpolated(time)

    def _interpolated(self, t: Scalar) -> Float[Array, "..."]:
        knots, count = JumpTimes(self.times, self.period), self.times.shape[0]
        width = _KNOTS[self.kind] if self.period is not None else min(_KNOTS[self.kind], count)
        first = knots.last_before(t) - (width - 1) // 2
        if self.period is None:
            first = jnp.clip(first, 0, count - width)
        numbers = first + jnp.arange(width, dtype=jnp.int32)
        times, values = knots.at(numbers), self.values[numbers % count]
        if width == 1:
            return values[0]
        if width == 2:
            return values[0] + (t - times[0]) / (times[1] - times[0]) * (values[1] - values[0])
        import interpax

        slopes = interpax.approx_df(times, values, method=self.kind)
        # The interval of the window that `t` is in; beyond the ends it is at them.
        left = jnp.clip(jnp.sum(t >= times) - 1, 0, width - 2)
        (t0, t1), (g0, g1), (m0, m1) = (jax.lax.dynamic_slice_in_dim(x, left, 2) for x in (times, values, slopes))
        return cubic((t - t0) / (t1 - t0), g0, (t1 - t0) * m0, g1, (t1 - t0) * m1)


def cubic(s: Float[Array, "..."], g0, m0, g1, m1):
    """The cubic with values g0 and g1 and slopes m0 and m1 at s = 0 and s = 1."""
    square, cube = 3 * (g1 - g0) - 2 * m0 - m1, m0 + m1 - 2 * (g1 - g0)
    return g0 + s * (m0 + s * (square + s * cube))


def signal(
    times: Sequence | Real[ArrayLike, " knots"],
    values: Sequence | Real[ArrayLike, "knots ..."],
    *,
    kind: Kind = "linear",
    outside: Outside = "hold",
    period: float | Scalar | None = None,
    unit: str = "",
) -> Signal:
    """The input that has the given values at the given times, to be called as `signal(t)` in a vector field or event.

    `integrate`, `solve`, `integrate_phase` and `integrate_hybrid` find the signals that their functions evaluate. Steps
    end where a signal or its slope jumps and start again behind it, so that a method keeps its order, and derivatives
    with respect to values and times of knots are exact.

    Args:
        times: The times of the knots, which increase.
        values: The values at the knots; each may be an array.
        kind: "hold": the value of the last knot, as of a digital output. "linear". "cubic", "akima" and "monotonic":
            cubic polynomials with continuous slopes, by interpax; the last has no extrema between knots.
        outside: Before the first and after the last knot: "hold" their values, "refuse" (NaN, with which a solve
            fails), or "periodic".
        period: The time after which a periodic signal repeats. By default the last knot is the first of the next
            period, and has its value.
        unit: The unit of the values, for tables and messages.

    Raises:
        InputError: For times that do not increase, for times or values that are not finite, for lengths that differ, an
            unknown kind, and a period shorter than the knots.

    Examples:
        >>> valve = ds.signal([0.0, 1.0, 2.5], [0.0, 4.0, 1.0], kind="hold")
        >>> level = lambda values: ds.integrate(
        ...     lambda t, y, u: u(t), 0.0, jnp.array([0.0, 3.0]), ds.signal(valve.times, values, kind="hold")
        ... )[-1]
        >>> print(f"{level(valve.values):.3f}", jax.grad(level)(valve.values).round(3))
        6.500 [1.  1.5 0.5]
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind={kind!r} of a signal: use one of {', '.join(get_args(Kind))}")
    if outside not in get_args(Outside):
        raise InputError(f"outside={outside!r} of a signal: use one of {', '.join(get_args(Outside))}")
    if period is not None and outside != "periodic":
        raise InputError(f'period={period} of a signal with outside={outside!r}: give outside="periodic" too')
    values = _real("values", values)
    dtype = values.dtype if not is_tracer(times) and np.asarray(times).dtype.kind in "iu" else None
    times = _real("times", times, dtype)
    dtype = jnp.result_type(times, values)
    times, values = times.astype(dtype), values.astype(dtype)
    _check_knots(times, values, kind)
    if outside != "periodic":
        return Signal(times, values, None, kind, outside, unit)
    return Signal(*_one_period(times, values, kind, period), kind, outside, unit)


def _real(name: str, x, dtype=None) -> Array:
    kind = jnp.result_type(x) if is_tracer(x) else np.asarray(x).dtype
    if kind.kind not in "fiub" and not jnp.issubdtype(kind, jnp.floating):
        raise InputError(f"{name} of a signal have dtype {kind}: give real numbers")
    array = jnp.asarray(x)
    array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(dtype or jnp.result_type(float))
    if not is_tracer(x) and not np.all(np.isfinite(x)):
        row = int(np.argwhere(~np.isfinite(np.asarray(x, float)))[0][0])
        raise InputError(
            f"{name}[{row}]={np.asarray(x)[row]} of a signal: give finite numbers; leave out the knots of a gap"
        )
    return array


def _check_knots(times: Array, values: Array, kind: str) -> None:
    least = 1 if kind == "hold" else 2
    if times.ndim != 1 or times.shape[0] < least:
        raise InputError(f"times of a {kind} signal have shape {times.shape}: give at least {least} in one dimension")
    if values.ndim == 0 or values.shape[0] != times.shape[0]:
        count = values.shape[0] if values.ndim else "one value without an axis"
        raise InputError(f"a signal of {times.shape[0]} times has {count} values: give one for each time")
    if is_tracer(times):
        return
    steps = np.diff(np.asarray(times))
    if np.any(steps <= 0):
        at = int(np.argmax(steps <= 0))
        raise InputError(
            f"times[{at}]={float(times[at]):.17g}, times[{at + 1}]={float(times[at + 1]):.17g} of a signal in "
            f"{times.dtype}: times must increase; sort them, drop repeated ones, or use float64"
        )


def _one_period(times: Array, values: Array, kind: str, period) -> tuple[Array, Array, Array]:
    """The knots of one period, without one at its end that is the first of the next, and the period."""
    if period is None:
        closes = kind == "hold" or is_tracer(values) or bool(jnp.all(values[0] == values[-1]))
        if times.shape[0] < 2 or not closes:
            raise InputError(
                f"values[-1]={values[-1]} is not values[0]={values[0]} of a periodic signal: its last knot is the "
                "first of the next period; make them equal, or give period="
            )
        return times[:-1], values[:-1], times[-1] - times[0]
    period = jnp.asarray(period, times.dtype)
    if not is_tracer(period) and not is_tracer(times) and not float(period) > float(times[-1] - times[0]):
        span = float(times[-1] - times[0])
        raise InputError(f"period={float(period):g} of a signal whose knots span {span:g}: give a longer period")
    return times, values, period
