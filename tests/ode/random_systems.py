"""Random systems with known solutions, to search for solves with the status FINISHED and a wrong number.

    python tests/ode/random_systems.py --count 500 --seeds 0:2

prints for each kind how many systems were solved, how many said that they failed, and how many were silently wrong.
The truth is a closed form, or an event-driven simulation that goes from root to root of quadratic equations; its
derivatives are by complex steps, which are exact to rounding.
"""

import functools
from collections.abc import Callable

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm
from search_table import Outcome, print_table

import diffsim as ds
from diffsim import Event, Phase, Status, integrate_hybrid, integrate_phase

STEP = 1e-30  # of complex differentiation


def complex_slopes(function: Callable, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and Jacobian (..., n) of a function of a real vector (n,), by complex steps."""
    columns = [function(x + 1j * STEP * e) for e in np.eye(len(x))]
    return np.real(columns[0]), np.stack([np.imag(c) / STEP for c in columns], axis=-1)


def misfit(actual, right, tolerance: float) -> np.ndarray:
    """The largest error of each system, in units of the tolerance for its numbers and of their size."""
    actual, right = np.asarray(actual, float), np.asarray(right, float)
    axes = tuple(range(1, right.ndim))
    size = 1 + np.max(np.abs(right), axis=axes, initial=0.0)
    return np.max(np.abs(actual - right), axis=axes, initial=0.0) / (tolerance * size)


def compare(solve: Callable, truth: Callable, inputs: np.ndarray, tolerance: float, reverse: bool = False) -> Outcome:
    """Values and derivatives of `solve(x) -> (numbers, status)` at each row of inputs, and those of `truth(x)`."""

    def both(x):
        derivative = jax.jacrev if reverse else jax.jacfwd
        return derivative(lambda x: (lambda y, status: (y, (y, status)))(*solve(x)), has_aux=True)(x)

    slopes, (values, status) = jax.jit(jax.vmap(both))(inputs)
    right = [complex_slopes(truth, np.asarray(x, float)) for x in inputs]
    of_values, of_slopes = np.stack([v for v, _ in right]), np.stack([s for _, s in right])
    return Outcome(np.asarray(status), misfit(values, of_values, tolerance), misfit(slopes, of_slopes, 30 * tolerance))


def linear(seed: int, count: int) -> Outcome:
    """dy/dt = A y + b forward or backward between random times, by a random solver, controller and number format."""
    rng = np.random.default_rng(seed)
    solver = [dfx.Tsit5(), dfx.Dopri5(), dfx.Dopri8(), dfx.Bosh3(), dfx.Kvaerno5(), dfx.Heun()][seed % 6]
    single = seed % 4 == 3
    rtol = 1e-4 if single or isinstance(solver, dfx.Heun) else 1e-7
    dtype = np.float32 if single else np.float64
    controller = dfx.PIDController(
        rtol=rtol, atol=0.01 * rtol, pcoeff=0.3 * (seed % 2), icoeff=0.7, dtmax=0.5 if seed % 3 == 1 else None
    )
    n, between = 2, rng.uniform(0.1, 0.9, 2)
    inputs = np.concatenate(
        [
            rng.normal(0, 1, (count, n * n)),
            rng.normal(0, 1, (count, 2 * n)) * rng.choice([0.0, 1.0, 1.0], (count, 2 * n)),
            rng.uniform(-5, 5, (count, 1)),
            rng.choice([-1, 1], (count, 1)) * 10 ** rng.uniform(-2, 0.3, (count, 1)),
        ],
        axis=1,
    ).astype(dtype)

    def parts(x):
        return x[: n * n].reshape(n, n), x[n * n : n * n + n], x[n * n + n : n * n + 2 * n], x[-2], x[-1]

    def solve(x):
        a, b, y, t, span = parts(x)
        ts = t + span * jnp.asarray(np.concatenate([[0.0], np.sort(between), [1.0]]), dtype)
        field = lambda t, y, args: args[0] @ y + args[1]
        options = {"solver": solver, "stepsize_controller": controller, "max_steps": 2000}
        solution = ds.solve(field, y, ts, (a, b), **options)
        return solution.ys, solution.status

    def truth(x):
        a, b, y, _, span = parts(x)
        augmented = np.block([[a, b[:, None]], [np.zeros((1, n + 1))]])
        start = np.append(y, 1.0)
        return np.stack([(expm(span * s * augmented) @ start)[:n] for s in [0.0, *np.sort(between), 1.0]])

    return compare(solve, truth, inputs, 300 * rtol, reverse=seed % 2 == 0)


def at_rest(seed: int, count: int) -> Outcome:
    """dy/dt = -K (y - c) of three components, from rest or near it, some of them coupled and stiff."""
    rng = np.random.default_rng(seed)
    rates = 10 ** rng.uniform(-1, 3, (count, 3))
    start = rng.choice([0.0, 0.0, 1e-11, 1e-8, 1e-3, 1.0], (count, 3))
    couple = rng.choice([0.0, 1.0], (count, 1)) * rng.normal(0, 1, (count, 1))
    inputs = np.concatenate([rates, start, couple, np.zeros((count, 3))], axis=1)

    def solve(x):
        rates, y, couple, c = x[:3], x[3:6], x[6], x[7:]

        def field(t, y, args):
            pull = -rates * (y - c)
            return pull + couple * jnp.array([0.0, 0.0, 1.0]) * y[0]

        _, ends, status, *_ = ds.solve(field, y, jnp.array([0.0, 1.0]), None)
        return ends[-1], status

    def truth(x):
        rates, y, couple, c = x[:3], x[3:6], x[6], x[7:]
        a = np.diag(-rates).astype(complex)
        a[2, 0] += couple
        augmented = np.block([[a, (rates * c)[:, None]], [np.zeros((1, 4))]])
        return (expm(augmented) @ np.append(y, 1.0))[:3]

    return compare(solve, truth, inputs, 1e-4, reverse=seed % 2 == 0)


def billiard(seed: int, count: int) -> Outcome:
    """A point at constant velocity in a square with walls, which often meets a corner or starts at a wall."""
    rng = np.random.default_rng(seed)
    position = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0, rng.uniform(0.1, 0.9)], (count, 2))
    velocity = rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0, rng.uniform(0.3, 2)], (count, 2))
    # Off the walls at the end, where the position has no derivative.
    inputs = np.concatenate([position, velocity], axis=1)
    t1 = 2.3 + 0.1 * rng.uniform()
    away = np.abs(((position + t1 * velocity) % 1.0) - 0.5) < 0.49
    # A start at a wall that is left inwards, or met at once.
    inputs = inputs[away.all(axis=1)]

    def wall(axis, place, direction):
        def bounce(t, y, args):
            return y.at[2 + axis].multiply(-1.0)

        return Event(lambda t, y, args: y[axis] - place, direction, bounce, to=0)

    walls = tuple(wall(axis, *which) for axis in (0, 1) for which in ((0.0, "falling"), (1.0, "rising")))
    phase = Phase(lambda t, y, args: jnp.concatenate([y[2:], jnp.zeros(2)]), walls)

    def solve(x):
        end = integrate_hybrid([phase], x, t1=t1, max_events=24, mode=("auto", "replay")[seed % 2])
        return end.y, end.status

    def truth(x):
        reached = x[:2] + t1 * x[2:]
        cell = np.floor(np.real(reached))
        odd = cell % 2 == 1
        place = np.where(odd, 1 - (reached - cell), reached - cell)
        # At a wall that is met at once the velocity is turned, which for the folded line is the next cell.
        return np.concatenate([place, np.where(odd, -x[2:], x[2:])])

    return compare(solve, truth, inputs, 1e-7, reverse=seed % 2 == 0)


def balls(seed: int, count: int) -> Outcome:
    """Two balls on one floor, which bounce with restitution, often at the same time; and their derivatives."""
    rng = np.random.default_rng(seed)
    heights = rng.choice([0.0, 0.5, 1.0, 1.0, 2.0, rng.uniform(0.2, 2)], (count, 2))
    speeds = rng.choice([0.0, 0.0, 1.0, 2.0], (count, 2)) + np.where(heights == 0, 1.0, 0.0)
    keep = rng.choice([0.92, 0.95, rng.uniform(0.92, 1.0)], (count, 1))  # smaller ones would let the bounces accumulate
    inputs = np.concatenate([heights, speeds, keep, np.full((count, 1), 9.81)], axis=1)
    t1 = rng.uniform(0.8, 1.6)

    def floor(ball):
        def bounce(t, y, x):
            return y.at[2 + ball].multiply(-x[4])

        return Event(lambda t, y, x: y[ball], "falling", bounce, to=0)

    phase = Phase(lambda t, y, x: jnp.concatenate([y[2:], -x[5] * jnp.ones(2)]), (floor(0), floor(1)))

    def solve(x):
        end = integrate_hybrid([phase], x[:4], x, t1=t1, max_events=24, mode=("auto", "replay")[seed % 2])
        return end.y, end.status

    def one(height, speed, keep, g):
        """From bounce to bounce of one ball."""
        left = t1 + 0j
        while True:
            fall = (speed + np.sqrt(speed**2 + 2 * g * height)) / g
            if np.real(fall) > np.real(left):
                return height + speed * left - g * left**2 / 2, speed - g * left
            left, height, speed = left - fall, 0.0, keep * (g * fall - speed)

    def truth(x):
        ends = [one(x[i], x[2 + i], x[4], x[5]) for i in (0, 1)]
        return np.array([ends[0][0], ends[1][0], ends[0][1], ends[1][1]])

    outcome = compare(solve, truth, inputs, 1e-6, reverse=seed % 2 == 0)
    # A system that bounces at the very end has no derivative there.
    last = np.array([min(np.real(one(*(x[[i, 2 + i, 4, 5]] + 0j)))[0] for i in (0, 1)) for x in inputs])
    return Outcome(*(part[last > 1e-4] for part in outcome))


def crossings(seed: int, count: int) -> Outcome:
    """The zeros of a sin(w t + p) - a sin(p), where the phase begins again at each: the times of the first three."""
    rng = np.random.default_rng(seed)
    inputs = np.stack(
        [rng.uniform(0.1, 60, count), rng.uniform(0.5, 4, count), rng.choice([0.0, rng.uniform(0.1, 1.2)], count)],
        axis=1,
    )
    event = Event(lambda t, y, x: y, "both", lambda t, y, x: y, to=0)
    phase = Phase(lambda t, y, x: x[0] * x[1] * jnp.cos(x[1] * t + x[2]), (event,))

    def solve(x):
        end = integrate_hybrid(
            [phase], jnp.zeros_like(x[0]), x, t1=30.0, max_events=3, mode=("auto", "replay")[seed % 2]
        )
        # The solve ends at the last event, as intended.
        status = jnp.where(end.status == Status.EVENT_LIMIT, Status.FINISHED, end.status)
        return end.event_t, status

    def truth(x):
        # sin(w t + p) = sin(p): w t = pi - 2 p, 2 pi, 3 pi - 2 p, ...
        return np.array([np.pi - 2 * x[2], 2 * np.pi, 3 * np.pi - 2 * x[2]]) / x[1]

    return compare(solve, truth, inputs, 1e-6, reverse=seed % 2 == 0)


def jumps(seed: int, count: int) -> Outcome:
    """dy/dt = u - k y with an input u that jumps at three times, which are among the parameters."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.1, 1.9, (count, 3)), axis=1)
    times[: count // 4, 1] = times[: count // 4, 0] + 1e-6  # nearly at once
    inputs = np.concatenate([times, rng.normal(0, 5, (count, 4)), rng.uniform(0.1, 5, (count, 1))], axis=1)
    t1 = 2.0

    def solve(x):
        controller = dfx.ClipStepSizeController(dfx.PIDController(rtol=1e-8, atol=1e-10), jump_ts=x[:3])
        field = lambda t, y, x: x[3:7][jnp.sum(t >= x[:3])] - x[7] * y
        _, ends, status, *_ = ds.solve(
            field, jnp.array(0.3), jnp.array([0.0, 1.0, t1]), x, stepsize_controller=controller
        )
        return ends, status

    def truth(x):
        def at(end):
            y, t = 0.3 + 0j, 0.0
            for stop, u in zip([*x[:3], np.inf], x[3:7], strict=True):
                stop = stop if np.real(stop) < end else end
                y, t = u / x[7] + (y - u / x[7]) * np.exp(-x[7] * (stop - t)), stop
                if stop is end:
                    return y
            return y

        return np.array([0.3, at(1.0), at(t1)])

    far = np.min(np.abs(times - 1.0), axis=1) > 1e-4  # at a time asked for, the state has two derivatives
    return compare(solve, truth, inputs[far], 1e-6, reverse=seed % 2 == 0)


def captured(seed: int, count: int) -> Outcome:
    """A decay whose field reads rate and power from an object that changes between calls; without a batch."""
    rng = np.random.default_rng(seed)
    given = {"rate": 1.0, "power": 1}
    field = lambda t, y, args: -given["rate"] * y ** given["power"]
    phase = Phase(field)
    start, end = jnp.array(1.0), jnp.array([0.0, 1.0])
    ways = [
        lambda: (lambda s: (s.ys, s.status))(ds.solve(field, start, end)),
        lambda: (lambda a: (a.y[None], a.status))(integrate_phase(phase, 0.0, start, t1=1.0)),
        lambda: (lambda h: (h.y[None], h.status))(integrate_hybrid([phase], start, t1=1.0, max_events=1)),
    ]
    values, right, statuses = [], [], []
    for _ in range(count):
        given["rate"], given["power"] = rng.choice([0.5, 1.0, 2.0, 3.0]), int(rng.choice([1, 2]))
        ends, status = ways[rng.integers(3)]()
        values.append(float(ends[-1]))
        statuses.append(int(status))
        rate = given["rate"]
        right.append(np.exp(-rate) if given["power"] == 1 else 1 / (1 + rate))
    value = misfit(values, right, 1e-5)
    return Outcome(np.array(statuses), value, np.zeros_like(value))


KINDS = {f.__name__: f for f in (linear, at_rest, billiard, balls, crossings, jumps, captured)}


@functools.cache
def outcome(kind: str, seed: int, count: int) -> Outcome:
    """The outcome of one kind of systems."""
    return KINDS[kind](seed, count)


if __name__ == "__main__":
    print_table(__doc__, KINDS, outcome)
