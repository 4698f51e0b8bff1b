"""A clock: an input that is switched on and off periodically, as in pulse-width modulation."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._errors import InputError
from .._jax.tracers import is_tracer
from .._types import Scalar
from ..parameters import param
from .jump_times import JumpTimes
from .signal import Signal


class Clock(eqx.Module):
    """A periodic switch: 1 from (k + phase) period on, for a share `duty` of the period, else 0, for every integer k.

    Good values: a duty between 0.01 and 0.99. Breaks when: a fit moves the duty to 0 or 1, where its edges meet: the
    values are right there, and derivatives by the duty are 0.

    Attributes:
        period: The period, in s.
        duty: The share of the period for which the clock is 1.
        phase: The delay of the first rising edge, in periods.

    Examples:
        >>> pwm = ds.clock(period=0.1, duty=0.25)
        >>> [float(pwm(t)) for t in (0.01, 0.02, 0.03, 0.11)]
        [1.0, 1.0, 0.0, 1.0]
    """

    period: Scalar = param(1.0, "s", bounds=(0.0, np.inf))
    duty: Scalar = param(0.5, bounds=(0.0, 1.0))
    phase: Scalar = param(0.0)

    def __check_init__(self):
        for name, value, high in (("period", self.period, np.inf), ("duty", self.duty, 1.0)):
            if not is_tracer(value) and not 0 < float(value) < high:
                what = "above 0" if name == "period" else "between 0 and 1, or use a constant in place of the clock"
                raise InputError(f"{name}={float(value):g} of a clock: give a number {what}")

    def __call__(self, t: Real[ArrayLike, "*times"]) -> Float[Array, "*times"]:
        """Returns 1 while the clock is on at the time `t`, else 0."""
        return self._signal.evaluate(t, self)

    @property
    def _signal(self) -> Signal:
        start = self.phase * self.period
        times = jnp.stack([start, start + self.duty * self.period])
        return Signal(times, jnp.asarray([1.0, 0.0], times.dtype), self.period, "hold", "periodic", "")

    @property
    def jumps(self) -> JumpTimes:
        """The times of all edges."""
        return JumpTimes(self._signal.times, self.period)

    @property
    def leaves(self) -> tuple[Array, ...]:
        """The arrays that determine the times of the jumps."""
        return self.period, self.duty, self.phase

    @property
    def rising(self) -> JumpTimes:
        """The times at which it switches on, for `diffsim.TimeEvent`."""
        return JumpTimes((self.phase * self.period)[None], self.period)

    @property
    def falling(self) -> JumpTimes:
        """The times at which it switches off, for `diffsim.TimeEvent`."""
        return JumpTimes(((self.phase + self.duty) * self.period)[None], self.period)


def clock(period: float | Scalar, duty: float | Scalar = 0.5, phase: float | Scalar = 0.0) -> Clock:
    """A clock for pulse-width modulation or a schedule: called as `clock(t)` it is 1 while on, else 0.

    All three can be trained; solves land on its edges, so that their derivatives are exact (see `signal`). For modes
    that are switched, use its edges in `diffsim.TimeEvent(lambda args: clock.rising)`.

    Args:
        period: The period, in s.
        duty: The share of a period for which it is on, between 0 and 1.
        phase: The delay of the first rising edge, in periods.

    Raises:
        InputError: For a period that is not positive and a duty that is not between 0 and 1.

    Examples:
        >>> charge = lambda duty: ds.integrate(
        ...     lambda t, y, pwm: 10.0 * pwm(t), 0.0, jnp.array([0.0, 1.0]), ds.clock(0.1, duty)
        ... )[-1]
        >>> print(f"{charge(0.37):.4f} {jax.grad(charge)(0.37):.4f}")  # 10 duty
        3.7000 10.0000
    """
    dtype = jnp.result_type(period, duty, phase, 0.0)  # arrays keep their format beside Python's numbers
    return Clock(*(jnp.asarray(x, dtype) for x in (period, duty, phase)))
