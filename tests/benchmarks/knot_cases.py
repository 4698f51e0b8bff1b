"""A first-order lag driven by a signal of 3,600 knots: by diffsim, diffrax, SciPy piece by piece, and exactly."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import diffsim as ds

KNOTS, RATE = 3600, 0.3  # at 1 Hz; 1/s
RTOL, ATOL, MAX_STEPS = 1e-6, 1e-9, 16384
TIMES = np.arange(float(KNOTS))
VALUES = 0.1 * np.cumsum(np.random.default_rng(0).normal(size=KNOTS))


def by_diffsim(kind: str, values):
    """The solution with a signal as a vector field reads it: the solver ends a step on each knot."""
    signal = ds.signal(TIMES, values, kind=kind)
    span = jnp.array([0.0, KNOTS - 1.0])
    options = {"rtol": RTOL, "atol": ATOL, "max_steps": MAX_STEPS}
    return ds.solve(lambda t, y, u: -RATE * y + u(t), jnp.array(0.0), span, signal, **options)


def by_diffrax(kind: str, values):
    """The solution with the knots as `jump_ts`, and the default adjoint."""
    times = jnp.asarray(TIMES)

    def field(t, y, values):
        if kind == "hold":
            # The last value would begin at the end, where the last stage of the last step is.
            place = jnp.minimum(jnp.searchsorted(times, t, side="right") - 1, KNOTS - 2)
            return -RATE * y + values[place]
        return -RATE * y + dfx.LinearInterpolation(times, values).evaluate(t)

    controller = dfx.ClipStepSizeController(dfx.PIDController(rtol=RTOL, atol=ATOL), jump_ts=times[1:-1])
    span, options = (0.0, KNOTS - 1.0, None), {"stepsize_controller": controller, "max_steps": MAX_STEPS}
    return dfx.diffeqsolve(dfx.ODETerm(field), dfx.Tsit5(), *span, y0=jnp.array(0.0), args=values, **options)


def exact(kind: str, values):
    """The last state in closed form, knot by knot."""
    decay = np.exp(-RATE)

    def piece(y, ends):
        first, last = ends
        if kind == "hold":
            return y * decay + first * (1 - decay) / RATE, None
        slope = last - first
        return (y - (first / RATE - slope / RATE**2)) * decay + last / RATE - slope / RATE**2, None

    return jax.lax.scan(piece, jnp.array(0.0), (values[:-1], values[1:]))[0]


def by_scipy(kind: str) -> float:
    """The last state by a call of `solve_ivp` for each piece."""
    y = np.zeros(1)
    for k in range(KNOTS - 1):
        first, slope = VALUES[k], VALUES[k + 1] - VALUES[k] if kind == "linear" else 0.0
        field = lambda t, y, k=k, first=first, slope=slope: -RATE * y + first + slope * (t - k)
        y = solve_ivp(field, (k, k + 1.0), y, rtol=RTOL, atol=ATOL).y[:, -1]
    return float(y[0])
