"""Hybrid systems: phases joined by guards and resets, chained or repeated."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .._errors import InputError
from .._types import Args, Count, Scalar, State
from .checks import check_state
from .evolve import evolve
from .guard import Phase
from .status import Status


class Hybrid(NamedTuple):
    """What a hybrid system did: up to `max_events` events and the end.

    `event_t`, `event_y` (before the reset), `event_guard` and `event_phase` have a leading axis of `max_events`;
    rows from `events` on hold NaN and -1. `t`, `y` and `phase` are those at the end; `ys` are the states at the
    times asked for (at an event: after its reset), NaN after the end.
    """

    event_t: Float[Array, " events"]
    event_y: State
    event_guard: Int[Array, " events"]
    event_phase: Int[Array, " events"]
    events: Count
    t: Scalar
    y: State
    phase: Count
    status: Count
    ys: State | None


def hybrid(
    phases: Sequence[Phase],
    y0: State,
    args: Args = None,
    *,
    t1,
    t0=0.0,
    first: int = 0,
    max_events: int = 32,
    ts: Float[Array, " times"] | None = None,
    **options,
) -> Hybrid:
    """The events and the end of a system that switches between `phases`, starting in phase `first`.

    A guard's `to` names the phase after it, None ends the trajectory; its `reset` gives the state there. All
    phases share the structure of `y0`: for phases with states of their own, chain `evolve`. `options` are
    those of `evolve`. One compiled phase serves all events, so the compile time does not depend on how many.

    Status: FINISHED at `t1` or at an ending guard, EVENT_LIMIT if `max_events` came first, GRAZING where events
    pile up at one time, or as in `evolve`.
    """
    phases = tuple(phases)
    _check_targets(phases, first)
    y0 = check_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    t0, ts = jnp.asarray(t0, dtype), None if ts is None else jnp.asarray(ts, dtype)
    blank = jax.tree.map(lambda x: jnp.full((ts.shape[0], *x.shape), jnp.nan), y0) if ts is not None else None
    start = _Stage(t0, y0, jnp.array(first), jnp.array(0), jnp.array(False), jnp.array(Status.FINISHED), blank)

    def next_event(stage, _):
        return lax.cond(stage.over, _rest, lambda s: _pass(phases, s, args, t1, ts, options), stage)

    end, (t, y, guard, phase) = lax.scan(jax.checkpoint(next_event), start, length=max_events)
    status = jnp.where(end.over, end.status, Status.EVENT_LIMIT)
    return Hybrid(t, y, guard, phase, end.events, end.t, end.y, end.phase, status, end.ys)


class _Stage(NamedTuple):
    t: Scalar
    y: State
    phase: Count
    events: Count
    over: Array
    status: Count
    ys: State | None


def _rest(stage: _Stage):
    """Nothing more happens after the end."""
    nowhere = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), (stage.t, stage.y))
    return stage, (*nowhere, jnp.array(-1), jnp.array(-1))


def _pass(phases, stage: _Stage, args, t1, ts, options):
    """The stage after the phase at hand has run to its event or to the end, and the record of the event."""

    def run(phase, stage):
        arrival = evolve(phase, stage.t, stage.y, args, t1=t1, ts=ts, **options)
        to = jnp.array([-1 if g.to is None else g.to for g in phase.guards] or [-1])
        return arrival, jnp.where(arrival.guard >= 0, to[arrival.guard], -1)

    arrival, to = lax.switch(stage.phase, [lambda s, p=p: run(p, s) for p in phases], stage)
    fired = arrival.guard >= 0
    failed = (arrival.status != Status.FINISHED) & (arrival.status != Status.GUARD_NOT_FOUND)
    # Events nearer to each other than time can tell apart pile up; there is no next one to find.
    near = arrival.t - stage.t <= 64 * jnp.finfo(arrival.t.dtype).eps * jnp.abs(arrival.t)
    piled = fired & near & (stage.events > 0)
    go_on = fired & (to >= 0) & ~failed & ~piled
    y = jax.tree.map(lambda new, old: jnp.where(fired, new, old), arrival.next_y, arrival.y)
    ys = stage.ys
    if ts is not None:
        begun = ts >= stage.t
        ys = jax.tree.map(lambda new, old: jnp.where(_rows(begun, new), new, old), arrival.ys, ys)
    status = jnp.where(failed, arrival.status, jnp.where(piled, Status.GRAZING, Status.FINISHED))
    phase = jnp.where(go_on, to, stage.phase)
    after = _Stage(arrival.t, y, phase, stage.events + fired, ~go_on, status, ys)
    seen = jax.tree.map(lambda x: jnp.where(fired, x, jnp.nan), (arrival.t, arrival.y))
    return after, (*seen, arrival.guard, jnp.where(fired, stage.phase, -1))


def _rows(flags, like):
    return flags.reshape(flags.shape + (1,) * (like.ndim - 1))


def _check_targets(phases, first):
    if not phases:
        raise InputError("phases is empty: give at least one Phase")
    for name, target in [("first", first), *(("Guard.to", g.to) for p in phases for g in p.guards)]:
        if target is not None and not 0 <= target < len(phases):
            raise InputError(f"{name}={target}: there are {len(phases)} phases, numbered from 0")
