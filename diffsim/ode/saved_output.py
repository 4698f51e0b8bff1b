"""What diffrax saved along a path of recorded steps, as a differentiable function of that path."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .._jax.custom_rule import custom_jvp
from .._types import Args, Count, Flag, Scalar, State
from .dirk import Stages
from .replay import End
from .runge_kutta import Point, Stepper
from .tape import Record


class Path(NamedTuple):
    """Recorded steps with differentiable states before each, of which the last step is `last`, of size `h`."""

    stepper: Stepper
    record: Record
    last: End
    h: Scalar
    unravel: Callable

    def start(self, row: Count) -> tuple[Point, Scalar]:
        """The point before a step, and the step's size."""
        final = row >= self.record.attempts - 1
        t, y, h = self.last.t, self.last.y, self.h
        if self.last.path_t is not None and self.last.path_y is not None:
            t = jnp.where(final, t, self.last.path_t[row])
            y = jnp.where(final, y, self.last.path_y[row])
            h = jnp.where(final, h, lax.stop_gradient(self.record.h[row]))
        return self.stepper.point(t, y), h

    def step(self, row: Count):
        """The points before and after a step, and what the solver's interpolation needs to know of it."""
        start, h = self.start(row)
        stages = None if self.record.slopes is None else Stages(self.record.slopes[row])
        # Not written out: fast to compile.
        end, _, info = self.stepper._replace(written_out=False).dense_step(start, h, stages)
        return start, end, info

    def rows(self, times: Float[Array, " times"]) -> Int[Array, " times"]:
        """The steps in which times lie, or at whose ends; -1 for times before the first."""
        known = jnp.arange(self.record.t.shape[0]) < self.record.attempts
        return jnp.searchsorted(jnp.where(known, self.record.t, jnp.inf), times) - 1

    def at(self, row: Count, moving: Scalar, given: Flag) -> State:
        """The state at the time `moving` within a step if that time was `given`, otherwise at the step's end."""
        start, end, info = self.step(jnp.maximum(row, 0))
        # Before the first step lies the initial state.
        moving = jnp.where(given, moving, jnp.where(row < 0, start.t, end.t))
        return self.unravel(self.stepper.solver.interpolation_cls(t0=start.t, t1=end.t, **info).evaluate(moving))


def as_saved(path: Path, sub: dfx.SubSaveAt, saved, args: Args):
    """diffrax's save state, its states with the derivatives of the path."""
    filled = jnp.isfinite(saved.ts)
    times, given = jnp.where(filled, saved.ts, path.record.t[0]), jnp.zeros(saved.ts.shape, bool)
    rows = path.rows(times)
    if sub.ts is not None and len(sub.ts):
        nearest = sub.ts[jnp.searchsorted(lax.stop_gradient(sub.ts), times)]
        given = nearest == times
        times = jnp.where(given, nearest, times)

    def state(filled, row, time, given):
        y = sub.fn(time, path.at(row, time, given), args)
        return jax.tree.map(lambda x: jnp.where(filled, x, jnp.inf), y)

    return type(saved)(
        saveat_ts_index=saved.saveat_ts_index,
        ts=saved.ts,
        ys=_as(saved.ys, jax.vmap(state)(filled, rows, times, given)),
        save_index=saved.save_index,
    )


def as_dense(path: Path, ts, infos):
    """diffrax's dense output, with the derivatives of the path."""

    def row(i):
        start, end, info = path.step(i)
        trees = {name: (path.unravel if x.ndim == 1 else jax.vmap(path.unravel))(x) for name, x in info.items()}
        return start.t, end.t, trees

    rows = ts.shape[0] - 1
    starts, ends, trees = jax.vmap(row)(jnp.arange(rows))
    taken = jnp.arange(rows) < path.record.attempts
    blank = lambda x: jnp.where(taken.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.inf)
    moving = jnp.concatenate([starts[:1], blank(ends)])
    return _as(ts, moving), _as(infos, jax.tree.map(blank, trees))


@custom_jvp
def _as(value, moving):
    """`value`, with the derivative of `moving`, which is the same number but for rounding."""
    return value


@_as.defjvp
def _(primals, tangents):
    return _as(*primals), tangents[1]
