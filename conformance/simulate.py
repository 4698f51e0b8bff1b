"""A simulation of a problem in many digits, by Taylor series: what closed forms are checked against.

It is simple: Taylor series integrate, event functions are sampled at many times, and `mpmath.findroot`
finds their zeros. Nothing of it depends on a library under test.
"""

import mpmath as mp

from .problem import Event, Phase, Problem, Run
from .taylor import Flow

SAMPLES = 64
"""Samples of the event functions in each unit of time, or between start and end of a shorter run."""


def simulate(problem: Problem, p, samples: int = SAMPLES) -> Run:
    """Returns the run of a problem at the parameters `p`, in the present precision of mpmath."""
    t, end = (mp.mpf(time) for time in problem.span)
    y, phase, event_times = list(problem.start(mp, p)), 0, []
    states = {}
    last = None
    while True:
        flow, found = _one_phase(problem.phases[phase], t, y, p, end, samples, last)
        until = end if found is None else found[0]
        states |= {s: flow(s) for s in map(mp.mpf, problem.saves) if t <= s <= until and s not in states}
        y = flow(until)
        if found is None:
            break
        (t, event), last = found, found
        event_times.append(t)
        if event.reset is not None:
            y = [mp.mpf(component) for component in event.reset(mp, t, y, p)]
        if event.to is None:
            break
        phase = event.to
    return Run(y, [states[mp.mpf(s)] for s in problem.saves if mp.mpf(s) in states], event_times)


def _one_phase(phase: Phase, t, y, p, end, samples, last):
    """The flow from (t, y), and time and event that end it, or None."""
    flow = Flow(lambda xp, s, z: phase.field(xp, s, z, p), t, y)
    step = (end - t) / max(8, int(samples * max(1, end - t)))
    found = None
    for event in phase.events:
        hit = _known(event, t, p, end, last) if event.times else _crossing(event, flow, t, p, end, step)
        if hit is not None and (found is None or hit < found[0]):
            found = (hit, event)
            end = hit
    return flow, found


def _known(event: Event, t, p, end, last):
    """The first of an event's times from t on; that at which it just happened does not count."""
    happened = last is not None and last[1] is event
    times = [mp.mpf(time) for time in event.times(mp, p)]  # type: ignore[misc]
    return next((time for time in times if t <= time <= end and not (happened and time == t)), None)


def _crossing(event: Event, flow, t, p, end, step):
    """The first crossing; a function that is zero at the start crosses there if it moves in the event's direction."""
    value = lambda s: event.function(mp, s, flow(s), p)  # type: ignore[misc]
    tiny = mp.mpf(10) ** (-mp.mp.dps // 2)
    before = value(t)
    if abs(before) < tiny:
        before = value(t + step / 1024)
        if event.direction != "both" and _crosses(event, -before, before):
            return t
    low = t
    while low < end:
        high = min(low + step, end)
        after = value(high)
        if _crosses(event, before, after):
            return mp.findroot(value, (low if low > t else t + step / 1024, high), solver="anderson")
        low, before = high, after
    return None


def _crosses(event: Event, before, after) -> bool:
    rises, falls = before < 0 <= after, before > 0 >= after
    return {"rising": rises, "falling": falls, "both": rises or falls}[event.direction]
