"""Random systems driven by signals, clocks and events at known times, each against its closed form.

    python tests/ode/random_signals.py --count 200 --seeds 0:6

prints for each kind how many systems were solved, how many said that they failed, and how many were silently wrong.
The truth goes from switching to switching by matrix exponentials, or by the roots of exponentials; its derivatives are
those of automatic differentiation through these formulas.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from search_table import print_table

import diffsim as ds
from diffsim import Event, Phase, Status, TimeEvent, integrate_hybrid

CYCLES = 9  # of a clock, about time zero


class Outcome(NamedTuple):
    """For each system: its status, and the errors of value, derivative and Hessian in units of the tolerance."""

    status: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """The systems that ended FINISHED with a wrong number."""
        worst = np.max([self.value, self.slope, self.curvature], axis=0)
        return np.flatnonzero((self.status == Status.FINISHED) & ~(worst <= 1.0))


class Pieces(NamedTuple):
    """An input as pieces c0 + c1 t between the times of its jumps, one more piece than jumps."""

    times: jnp.ndarray
    c0: jnp.ndarray
    c1: jnp.ndarray


def held(times, values) -> Pieces:
    """The pieces of a signal that is held."""
    return Pieces(times[1:], values, jnp.zeros_like(values))


def straight(times, values) -> Pieces:
    """The pieces of a signal that is linear between its knots."""
    slopes = jnp.concatenate([jnp.zeros(1), jnp.diff(values) / jnp.diff(times), jnp.zeros(1)])
    at, of = jnp.concatenate([times[:1], times]), jnp.concatenate([values[:1], values])
    return Pieces(times, of - slopes * at, slopes)


def clocked(period, duty, phase) -> Pieces:
    """The pieces of a clock in the cycles about time zero."""
    cycles = jnp.arange(-CYCLES, CYCLES)
    times = jnp.stack([cycles + phase, cycles + phase + duty], axis=1).ravel() * period
    values = jnp.concatenate([jnp.zeros(1), jnp.tile(jnp.array([1.0, 0.0]), 2 * CYCLES)])
    return Pieces(times, values, jnp.zeros_like(values))


def exponential(a, order: int = 24):
    """The exponential of a matrix by its series, with scaling; smooth for any derivative."""
    scale = 2.0**6
    term = total = jnp.eye(a.shape[0])
    for k in range(1, order):
        term = term @ a / (scale * k)
        total = total + term
    for _ in range(6):
        total = total @ total
    return total


def path(a, b, pieces: list[Pieces], product: bool, t0, y0, ts, resets: tuple = ()):
    """States at `ts` of dy/dt = A y + b u with the sum or product u of the inputs, from switching to switching.

    `resets` are pairs of times and functions of the state; at one time the first happens first.
    """
    n, sources = len(y0), len(pieces)
    # Resets come first at their time.
    times = jnp.concatenate([t for t, _ in resets] + [p.times for p in pieces])
    sizes = [len(t) for t, _ in resets] + [len(p.times) for p in pieces]
    which = np.repeat([*range(sources, sources + len(resets)), *range(sources)], sizes)
    order = jnp.argsort(lax.stop_gradient(times), stable=True)
    times, which = times[order], jnp.asarray(which)[order]
    passed = jnp.cumsum(which[:, None] == jnp.arange(sources)[None], axis=0)
    passed = jnp.concatenate([jnp.zeros((1, sources), passed.dtype), passed])
    start = jnp.concatenate([jnp.full(1, -jnp.inf), times])
    end = jnp.concatenate([times, jnp.full(1, jnp.inf)])
    what = jnp.concatenate([jnp.full(1, -1), which, jnp.full(1, -1)])

    def state(t):
        low, high = jnp.minimum(t0, t), jnp.maximum(t0, t)
        clip = lambda x: jnp.where(x <= low, low, jnp.where(x >= high, high, x))
        backward = lax.stop_gradient(t < t0)

        def over(y, k):
            k = jnp.where(backward, len(times) - k, k)
            first = clip(start[k])
            begin = jnp.where(backward, clip(end[k]), first)
            width = jnp.where(backward, first, clip(end[k])) - begin
            # Values and slopes of the inputs at the beginning, and their sum or product as a polynomial.
            poly = jnp.zeros(4).at[0].set(1.0 if product else 0.0)
            for i, p in enumerate(pieces):
                c1 = p.c1[passed[k, i]]
                c0 = p.c0[passed[k, i]] + c1 * begin
                poly = (
                    poly * c0 + c1 * jnp.roll(poly, 1).at[0].set(0.0)
                    if product
                    else poly.at[:2].add(jnp.stack([c0, c1]))
                )
            for i, (_, reset) in enumerate(resets):
                at = jnp.where(backward, end[k], start[k])
                y = jnp.where((what[k + backward] == sources + i) & (at >= low) & (at <= high), reset(y), y)
            m = jnp.zeros((n + 4, n + 4)).at[:n, :n].set(a).at[:n, n:].set(b[:, None] * poly[None])
            m = m.at[n + 1, n].set(1.0).at[n + 2, n + 1].set(2.0).at[n + 3, n + 2].set(3.0)
            z = jnp.concatenate([y, jnp.array([1.0, 0.0, 0.0, 0.0])])
            return (exponential(width * m) @ z)[:n], None

        return lax.scan(over, y0, jnp.arange(len(times) + 1))[0]

    return jax.vmap(state)(ts)


def misfit(actual, right, tolerance: float) -> np.ndarray:
    """The largest error of each system, in units of the tolerance for its numbers and of their size."""
    actual, right = np.asarray(actual, float), np.asarray(right, float)
    axes = tuple(range(1, right.ndim))
    size = 1 + np.max(np.abs(right), axis=axes, initial=0.0)
    return np.max(np.abs(actual - right), axis=axes, initial=0.0) / (tolerance * size)


def compare(
    solve: Callable, truth: Callable, inputs, others, *, smooth=None, tolerance=1e-6, reverse=False, hessian=False
) -> Outcome:
    """Numbers of `solve(x, other)` and `truth(x, other)`, their Jacobians, and Hessians of a sum, for each row.

    `smooth(jacobian, other)` sets to zero what has two derivatives.
    """
    smooth = smooth or (lambda jacobian, other: jacobian)
    outputs = None

    def all_of(function):
        def of(x, other):
            derivative = jax.jacrev if reverse else jax.jacfwd
            split = lambda x: (lambda y, status: (y, (y, status)))(*function(x, other))
            slope, (value, status) = derivative(split, has_aux=True)(x)
            weigh = lambda x: jnp.sum(jnp.sin(jnp.arange(1.0, 1 + value.size)) * function(x, other)[0].ravel())
            curvature = jax.hessian(weigh)(x) if hessian else jnp.zeros((1, 1))
            return value, smooth(slope, other), curvature, status

        return jax.jit(jax.vmap(of))

    outputs = all_of(solve)(inputs, others)
    right = all_of(lambda x, other: (truth(x, other), 0))(jnp.asarray(inputs, float), others)
    pairs = zip(outputs[:3], right[:3], strict=True)
    errors = [misfit(*pair, scale * tolerance) for pair, scale in zip(pairs, (1, 30, 300), strict=True)]
    return Outcome(np.asarray(outputs[3]), *errors)


SOLVERS = [dfx.Tsit5(), dfx.Dopri8(), dfx.Tsit5(), dfx.Kvaerno5(), dfx.Heun(), dfx.Tsit5()]


def driven(seed: int, count: int) -> Outcome:
    """dy/dt = A y + b u with a sum or product u of one to three inputs; times that are asked for lie on knots, too.

    Jumps of two inputs are at the same time in a third of the systems.
    """
    rng = np.random.default_rng(seed)
    kinds = [["hold", "linear", "clock"][i] for i in rng.integers(0, 3, 1 + seed % 3)]
    product, single, backward = bool(rng.integers(2)), seed % 7 == 5, seed % 4 == 2
    solver = SOLVERS[seed % 6]
    unit = [1.0, 1.0, 1e-5, 1.0, 1e5][seed % 5]  # of time
    dtype = np.float32 if single else float
    columns, places, at = [rng.normal(0, 1, (count, 6)), rng.normal(0, 1, (count, 2))], [], 9
    columns.append(rng.uniform(-0.2, 0.2, (count, 1)))  # t0
    shared = rng.uniform(0.3, 1.7, count)
    # The derivative of a product depends on which factor jumps first, which rounding decides in single precision.
    together = (rng.uniform(size=count) < 0.33) & (not (single and product))
    for kind in kinds:
        if kind == "clock":
            period, duty = rng.uniform(0.3, 0.9, count), rng.uniform(0.1, 0.9, count)
            cycle = np.where(rng.uniform(size=count) < 0.5, 1.0, duty + 1.0)
            phase = np.where(together, shared / period - cycle, rng.uniform(-1, 1, count))
            columns.append(np.stack([period, duty, phase], axis=1))
            size = 3
        else:
            times = np.sort(rng.uniform(-0.4, 2.2, (count, 3)), axis=1)
            nearest = np.argmin(np.abs(times - shared[:, None]), axis=1)
            times[np.arange(count)[together], nearest[together]] = shared[together]
            columns += [times, rng.normal(0, 2, (count, 3))]
            size = 6
        places.append((kind, at, size))
        at += size
    x = np.concatenate(columns, axis=1).astype(dtype)
    ts = np.stack([*np.sort(rng.uniform(0.25, 1.9, (2, count)), axis=0), np.full(count, 2.0)], axis=1)
    if backward:
        ts = -0.5 - ts
        x[:, 8] = 1.9
        ts = 1.9 - (ts[:, :] + 2.5)[:, ::-1] * 0.9 - 0.05
        ts = np.sort(ts, axis=1)[:, ::-1]
    on_knot = np.zeros(ts.shape, bool)
    knots = next((place for kind, place, _ in places if kind != "clock"), None)
    if knots is not None:
        for row in range(0, count, 2):
            t = x[row, knots + row % 3]
            if min(ts[row, 0], ts[row, -1]) + 1e-3 < t < max(ts[row, 0], ts[row, -1]) - 1e-3:
                ts[row, 1], on_knot[row, 1] = t, True
    others = jnp.asarray(ts, dtype), jnp.asarray(on_knot)

    def parts(x):
        return x[:4].reshape(2, 2), x[4:6], x[6:8], x[8]

    def inputs(x):
        made = []
        for kind, at, _ in places:
            u = x[at : at + 6]
            if kind == "clock":
                made.append(ds.clock(unit * u[0], u[1], u[2]))
            else:
                made.append(ds.signal(unit * u[:3], u[3:6], kind=kind))
        return made

    def solve(x, other):
        a, b, y, t0 = parts(x)

        def field(t, y, args):
            a, b, signals = args
            u = jnp.stack([signal(t) for signal in signals])
            return (a @ y + b * (jnp.prod(u) if product else jnp.sum(u))) / unit

        ts = unit * jnp.concatenate([t0[None], other[0]])
        rtol = 1e-4 if single else 1e-6 if isinstance(solver, dfx.Heun) else 1e-8
        solution = ds.solve(
            field, y, ts, (a, b, inputs(x)), solver=solver, rtol=rtol, atol=0.01 * rtol, max_steps=6000,
            adjoint=ds.ReplayAdjoint(memory=["auto", "states", "jacobians"][seed % 3]),
        )  # fmt: skip
        return solution.ys[1:], solution.status

    def truth(x, other):
        a, b, y, t0 = parts(x)
        make = {"hold": held, "linear": straight}
        pieces = [
            clocked(x[at], x[at + 1], x[at + 2]) if kind == "clock" else make[kind](x[at : at + 3], x[at + 3 : at + 6])
            for kind, at, _ in places
        ]
        return path(a, b, pieces, product, t0, y, jnp.asarray(other[0], float))

    tolerance = 3e-3 if single else 1e-4 if isinstance(solver, dfx.Heun) else 3e-6
    return compare(
        solve, truth, x, others, smooth=lambda slope, other: jnp.where(other[1][:, None, None], 0.0, slope),
        tolerance=tolerance, reverse=seed % 2 == 0, hessian=seed % 5 == 0 and not single,
    )  # fmt: skip


def dosed(seed: int, count: int) -> Outcome:
    """dy/dt = A y + b (signal + clock), with two lists of doses and one at the clock's edges, often at one time."""
    rng = np.random.default_rng(seed)
    backward = seed % 4 == 3
    base = np.array([-0.3, 0.2, 0.5, 1.1, 1.6])
    grid = rng.choice([*base, 0.0, 1.9], (count, 4))
    free = rng.uniform(-0.3, 1.85, (count, 4))
    times = np.where(rng.uniform(size=(count, 4)) < 0.6, grid, free)
    ends = np.array([0.0, 1.9])[:: -1 if backward else 1]
    ends = ends + (rng.uniform(0.01, 0.02, 2) if seed % 2 else 0.0)
    knots = np.sort(np.where(rng.uniform(size=(count, 3)) < 0.5, rng.choice(base, (count, 3)), 0) +
                    rng.uniform(0.0, 0.1, (count, 3)) * rng.choice([0.0, 1.0], (count, 1)), axis=1)  # fmt: skip
    knots = knots + np.arange(3) * 1e-3 * (np.min(np.diff(knots, axis=1), axis=1, keepdims=True) < 1e-4)
    x = np.concatenate(
        [rng.normal(0, 1, (count, 8)), times, rng.normal(0, 1, (count, 4)), knots, rng.normal(0, 1, (count, 3)),
         np.stack([rng.choice([0.5, 0.55, 0.7], count), rng.uniform(0.2, 0.8, count),
                   rng.choice([0.0, 0.4, -0.3], count)], axis=1)],
        axis=1,
    )  # fmt: skip
    resets = (
        lambda y, x: y + x[12:14],
        lambda y, x: x[14] * y + 0.3,
        lambda y, x: jnp.stack([y[1], x[15] * y[0]]),
    )
    shape = lambda reset: lambda t, y, x: reset(y, x)
    u = lambda x: ds.signal(x[16:19], x[19:22], kind="hold")
    pwm = lambda x: ds.clock(x[22], x[23], x[24])
    events = (
        TimeEvent(lambda x: x[8:10], shape(resets[0]), to=0),
        TimeEvent(lambda x: x[10:12], shape(resets[1]), to=0),
        TimeEvent(lambda x: pwm(x).rising, shape(resets[2]), to=0),
    )
    phase = Phase(lambda t, y, x: x[:4].reshape(2, 2) @ y + x[4:6] * (u(x)(t) + pwm(x)(t)), events)

    def solve(x, other):
        end = integrate_hybrid(
            phase, x[6:8], x, t0=ends[0], t1=ends[1], max_events=12, mode=("auto", "replay", "forward")[seed % 3]
        )
        return end.y[None], end.status

    def truth(x, other):
        cycles = jnp.arange(-CYCLES, CYCLES)
        once = lambda t: jnp.stack([t[0], jnp.where(t[1] == t[0], 1e9, t[1])])
        lists = [once(x[8:10]), once(x[10:12]), (cycles + x[24]) * x[22]]
        # Times that rounding has parted are one.
        for i in (1, 2):
            for j in range(i):
                gap = lax.stop_gradient(lists[i][:, None] - lists[j][None])
                lists[i] = lists[i] - jnp.sum(jnp.where(jnp.abs(gap) < 1e-14, gap, 0.0), axis=1)
        for e in ends:
            lists = [jnp.where(jnp.abs(t - e) < 1e-14, t + lax.stop_gradient(e - t), t) for t in lists]
        which = [(t, functools.partial(reset, x=x)) for t, reset in zip(lists, resets, strict=True)]
        pieces = [held(x[16:19], x[19:22]), clocked(x[22], x[23], x[24])]
        return path(x[:4].reshape(2, 2), x[4:6], pieces, False, ends[0], x[6:8], jnp.array([ends[1]]), tuple(which))

    # An event or a jump at the ends has one derivative on one side alone.
    at_end = np.zeros(count, bool)
    if not seed % 2:
        edges = (np.arange(-9, 9)[:, None] + x[:, 24]) * x[:, 22]
        everything = np.concatenate(
            [x[:, 8:12], x[:, 16:19], edges.T, edges.T + (x[:, 22] * x[:, 23])[:, None]], axis=1
        )
        at_end = np.min(np.abs(everything[:, :, None] - ends), axis=(1, 2)) < 1e-9
    flags = jnp.asarray(at_end)
    if backward:
        # Coincident events happen in the order of their list in either direction, which `path` reverses.
        both = np.concatenate([x[:, 8:12], ((np.arange(-9, 9)[:, None] + x[:, 24]) * x[:, 22]).T], axis=1)
        both = np.sort(both, axis=1)
        good = np.min(np.diff(both, axis=1), axis=1) > 1e-9
        x, flags = x[good], flags[good]
        # Where an event and a jump are at one time the derivative depends on which comes first.
        edges = ((np.arange(-9, 9)[:, None] + x[:, 24]) * x[:, 22]).T
        jumps = np.concatenate([x[:, 16:19], edges, edges + (x[:, 22] * x[:, 23])[:, None]], axis=1)
        gap = lambda a, b: np.min(np.abs(a[:, :, None] - b[:, None]), axis=(1, 2))
        flags |= (gap(x[:, 8:12], jumps) < 1e-9) | (gap(edges, x[:, 16:19]) < 1e-9)
    return compare(
        solve, truth, x, flags, tolerance=1e-6, reverse=seed % 3 == 1, hessian=seed % 6 == 1,
        smooth=lambda slope, at_end: jnp.where(at_end, 0.0, slope),
    )  # fmt: skip


def thermostat(seed: int, count: int) -> Outcome:
    """A heater between two thresholds that jump, and doses of heat; jumps, doses and crossings may be at one time."""
    rng = np.random.default_rng(seed)
    base = np.array([0.4, 0.9, 1.3])
    pick = lambda n: np.sort(np.where(rng.uniform(size=(count, n)) < 0.5, base[:n], rng.uniform(0.1, 1.8, (count, n))))
    lows, highs = rng.uniform(0.5, 1.2, (count, 3)), rng.uniform(1.3, 2.2, (count, 3))
    doses = np.where(rng.uniform(size=(count, 1)) < 0.5, 0.4, rng.uniform(0.1, 1.8, (count, 1)))
    x = np.concatenate(
        [pick(2), lows, pick(2), highs, doses, rng.uniform(-0.3, 0.3, (count, 1)), rng.uniform(0.5, 4, (count, 1)),
         rng.uniform(1.25, 1.29, (count, 1))],
        axis=1,
    )  # fmt: skip
    t1, most = 2.0, 40
    cold, hot = 0.2, 3.0
    low = lambda x: ds.signal(jnp.concatenate([jnp.array([-1.0]), x[0:2]]), x[2:5], kind="hold")
    high = lambda x: ds.signal(jnp.concatenate([jnp.array([-1.0]), x[5:7]]), x[7:10], kind="hold")
    dose = lambda to: TimeEvent(times, lambda t, y, x: y + x[11], to=to)
    times = lambda x: x[10]
    off = Phase(lambda t, y, x: x[12] * (cold - y), (dose(0), Event(lambda t, y, x: y - low(x)(t), "falling", to=1)))
    on = Phase(lambda t, y, x: x[12] * (hot - y), (dose(1), Event(lambda t, y, x: y - high(x)(t), "rising", to=0)))

    def solve(x, other):
        end = integrate_hybrid(
            (off, on), x[13], x, t1=t1, max_events=most, mode=("auto", "replay", "forward")[seed % 3]
        )
        return end.y[None], end.status

    def truth(x, other):
        """From one of crossing, dose and jump to the next; at one time dose, jump of low, jump of high."""
        at = jnp.stack([x[10], *x[0:2], *x[5:7]])
        kind = jnp.array([0, 1, 1, 2, 2])
        order = jnp.argsort(lax.stop_gradient(at), stable=True)
        at, kind = jnp.append(at[order], t1), jnp.append(kind[order], 3)

        def onward(carry, _):
            t, y, mode, place, lows, highs = carry
            target = jnp.where(mode == 1, hot, cold)
            level = jnp.where(mode == 1, x[7 + highs], x[2 + lows])
            armed = jnp.where(mode == 1, y < level, y > level) & (jnp.sign(target - level) == jnp.sign(level - y))
            ratio = jnp.where(armed, (target - y) / jnp.where(armed, target - level, 1.0), 1.0)
            root = jnp.where(armed, t + jnp.log(ratio) / x[12], jnp.inf)
            due = at[jnp.minimum(place, 5)]
            over, is_root = place > 5, root < due
            then = jnp.where(is_root, root, due)
            reached = jnp.where(is_root, level, target + (y - target) * jnp.exp(-x[12] * jnp.where(over, 0.0, due - t)))
            what = jnp.where(is_root, -1, kind[jnp.minimum(place, 5)])
            new_y = reached + jnp.where(what == 0, x[11], 0.0)
            new_lows, new_highs = lows + (what == 1), highs + (what == 2)
            new_level = jnp.where(mode == 1, x[7 + new_highs], x[2 + new_lows])
            was = jnp.where(mode == 1, new_y < level, new_y > level)
            is_now = jnp.where(mode == 1, new_y >= new_level, new_y <= new_level)
            jumped = ((what == 1) | (what == 2)) & was & is_now
            new_mode = jnp.where(is_root | jumped, 1 - mode, mode)
            new = then, new_y, new_mode, place + ~is_root, new_lows, new_highs
            return jax.tree.map(lambda a, b: jnp.where(over, a, b), carry, new), is_root | jumped

        zero = jnp.array(0)
        (_, y, *_), _ = lax.scan(onward, (jnp.array(0.0), x[13], zero, zero, zero, zero), length=most)
        return y[None]

    return compare(solve, truth, x, jnp.zeros(count), tolerance=1e-6, reverse=seed % 3 == 1)


KINDS = {f.__name__: f for f in (driven, dosed, thermostat)}


@functools.cache
def outcome(kind: str, seed: int, count: int) -> Outcome:
    """The outcome of one kind of systems."""
    return KINDS[kind](seed, count)


if __name__ == "__main__":
    print_table(__doc__, KINDS, outcome)
