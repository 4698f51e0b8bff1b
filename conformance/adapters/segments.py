"""The loop of a user whose library ends a solve at an event and leaves the rest to its caller.

It runs in Python: after each event it applies the reset and begins again. What a library supplies is one function that
solves a single phase; numbers may be traced by an automatic differentiation whose values can be read.
"""

import math
from collections.abc import Callable
from typing import Any

from ..problem import Event, Phase, Problem, Run
from .answers import Refused


def simulate(
    problem: Problem, p: Any, xp: Any, start: Callable, solve: Callable, number: Callable[[Any], float]
) -> Run:
    """Returns the run of a problem.

    Args:
        problem: The problem.
        p: The parameters.
        xp: The array namespace.
        start: `start(values)` makes a state of a list of scalars.
        solve: `solve(phase, t, y, stop, saves, happened)` solves until the first event of the state, or `stop`. It
            returns time, state, the event (or None), and the states at `saves` up to there, by their times.
            `happened` is the event that has just happened at t, or None.
        number: `number(t)` reads the value of a time.
    """
    t: Any = problem.span[0]
    end = problem.span[1]
    y, phase, times, saved = start(problem.start(xp, p)), 0, [], {}
    happened: Event | None = None
    limit = 10 * problem.max_events + 100
    while True:
        now = problem.phases[phase]
        known = next_known(now, xp, p, number, number(t), end, happened)
        stop = known[0] if known else end
        left = [s for s in problem.saves if s not in saved]
        if number(stop) > number(t):
            t, y, event, states = solve(now, t, y, stop, left, happened)
            saved |= states
        else:
            saved |= {s: y for s in left if s == number(t)}
            event = None
        event = event or (known[1] if known else None)
        if event is None:
            break
        times.append(t)
        if len(times) > limit:
            raise Refused("more events than the limit of the loop")
        y = start(event.reset(xp, t, y, p)) if event.reset else y
        if event.to is None:
            break
        phase, happened = event.to, event
    return Run(y, [saved[s] for s in problem.saves if s in saved], times)


def next_known(phase: Phase, xp: Any, p: Any, number: Callable, now: float, end: float, happened: Event | None):
    """Returns time and event of the next event at a known time, or None; one that has just happened does not count."""
    future = [
        (time, event)
        for event in phase.events
        if event.times is not None
        for time in event.times(xp, p)
        if now <= number(time) <= end and not (event is happened and number(time) == now)
    ]
    return min(future, key=lambda pair: number(pair[0]), default=None)


def all_times_fixed(problem: Problem) -> bool:
    """Returns whether there are events, and all of them are at times that no parameter changes."""
    events = [event for phase in problem.phases for event in phase.events]
    other = [1.25 * x + 0.125 for x in problem.parameters]
    same = lambda times: times(math, problem.parameters) == times(math, other)
    return bool(events) and all(event.times is not None and same(event.times) for event in events)


def schedule(problem: Problem, p: Any, xp: Any, number: Callable[[Any], float]) -> list[tuple[Any, Event]]:
    """Returns times and events of a problem all of whose times are known, in their order."""
    found: list[tuple[Any, Event]] = []
    now, phase, happened = problem.span[0], 0, None
    while phase is not None:
        known = next_known(problem.phases[phase], xp, p, number, now, problem.span[1], happened)
        if known is None:
            break
        found.append(known)
        now, happened = number(known[0]), known[1]
        phase = happened.to
    return found


class Reader:
    """Reads numbers out of a run; a traced run has no numbers, and reads those of the run before it."""

    def __init__(self, log=(), replay=False):
        self.log, self.replay = list(log), replay

    def __call__(self, number) -> float:
        if self.replay:
            return self.log.pop(0)
        self.log.append(float(number))
        return self.log[-1]

    def again(self) -> "Reader":
        """Returns a reader that repeats what this one read."""
        return Reader(self.log, replay=True)


def turned(event: Event, xp: Any, t: Any, y: Any, p: Any, field: Callable, number: Callable = float) -> str:
    """Returns the direction of the next crossing of an event of both directions that has just happened at t.

    Its function is zero there, and libraries that look for a change of sign need to be told which one comes next.
    """
    assert event.function is not None
    step = 1e-6
    ahead = event.function(xp, t + step, y + step * field(t, y), p)
    return "falling" if number(ahead) > 0 else "rising"
