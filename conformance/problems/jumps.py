"""Inputs that jump, and doses, at times that are known or trained."""

from ..problem import Event, Phase, Problem, Run, final, saved


def _driven(level):
    """The field of a decay with rate p[0] towards the input `p[level]`."""
    return lambda xp, t, y, p: [p[level] - p[0] * y[0]]


def _steps(*times):
    """Phases with the inputs p[1], p[2], ... that follow each other at these times."""
    events = [Event(times=lambda xp, p, when=when: [when(p)], to=i + 1) for i, when in enumerate(times)]
    rows = [(event,) for event in events]
    return tuple(Phase(_driven(1 + i), row) for i, row in enumerate([*rows, ()]))


def _after(mp, p, times, end, start=0):
    """The state at `end` of a decay with rate p[0], whose inputs p[1], p[2], ... change at these times."""
    y, t = mp.mpf(start), mp.mpf(0)
    for level, stop in zip(p[1:], [*times, end], strict=False):
        stop = min(stop, end)
        y, t = level / p[0] + (y - level / p[0]) * mp.exp(-p[0] * (stop - t)), stop
    return y


def _dosed(mp, p, times, amounts, end):
    return sum(a * mp.exp(-p[0] * (end - t)) for t, a in zip(times, amounts, strict=True))


def _dose(times, amount):
    """A decay to which doses are added."""
    event = Event(times=times, reset=lambda xp, t, y, p: [y[0] + p[amount]], to=0)
    return (Phase(lambda xp, t, y, p: [-p[0] * y[0]], (event,)),)


def _closely(mp, p):
    times = [p[4], p[5]]
    return Run([_after(mp, p[:4], times, 3)], event_times=times)


def _nothing(xp, p):
    return [0 * p[0]]


SAVES = (0.5, 1.0, 1.5, 2.0, 2.5)

PROBLEMS = (
    Problem(
        "jump_at_fixed_time",
        "jumps",
        1,
        "A decay towards an input that jumps at a known time.",
        _steps(lambda p: 1.3),
        (0.5, 1.0, -4.0),
        _nothing,
        (0.0, 3.0),
        final(),
        lambda mp, p: Run([_after(mp, p, [mp.mpf(1.3)], 3)], event_times=[mp.mpf(1.3)]),
        max_events=3,
    ),
    Problem(
        "jump_at_trained_time",
        "jumps",
        2,
        "A decay towards an input that jumps at a time that is a parameter.",
        _steps(lambda p: p[3]),
        (0.5, 1.0, -4.0, 1.3),
        _nothing,
        (0.0, 3.0),
        final(),
        lambda mp, p: Run([_after(mp, p[:3], [p[3]], 3)], event_times=[p[3]]),
        max_events=3,
    ),
    Problem(
        "three_trained_jumps",
        "jumps",
        2,
        "An input with three jumps, all of whose times are parameters.",
        _steps(lambda p: p[5] * 0.5, lambda p: p[5], lambda p: p[5] + 0.25 * p[0]),
        (2.0, 1.0, -4.0, 3.0, -1.0, 1.3),
        _nothing,
        (0.0, 2.5),
        final(),
        lambda mp, p: Run(
            [_after(mp, p[:5], [p[5] / 2, p[5], p[5] + p[0] / 4], mp.mpf(2.5))],
            event_times=[p[5] / 2, p[5], p[5] + p[0] / 4],
        ),
        max_events=5,
    ),
    Problem(
        "two_close_jumps",
        "jumps",
        3,
        "An input with a pulse of a microsecond, whose two edges are parameters.",
        _steps(lambda p: p[4], lambda p: p[5]),
        (0.5, 1.0, 1e6, -1.0, 1.3, 1.300001),
        _nothing,
        (0.0, 3.0),
        final(),
        _closely,
        max_events=4,
        tolerance=1e-5,
    ),
    Problem(
        "dose_at_trained_time",
        "jumps",
        2,
        "A dose that is added to a decaying amount at a trained time.",
        _dose(lambda xp, p: [p[2]], 1),
        (0.8, 2.0, 0.7),
        lambda xp, p: [1.0 + 0 * p[0]],
        (0.0, 2.0),
        final(),
        lambda mp, p: Run([_dosed(mp, p, [0, p[2]], [1, p[1]], 2)], event_times=[p[2]]),
        max_events=3,
    ),
    Problem(
        "many_doses",
        "jumps",
        3,
        "Ten doses at a trained interval.",
        _dose(lambda xp, p: [p[2] * (k + 1) for k in range(10)], 1),
        (0.4, 1.0, 0.5),
        _nothing,
        (0.0, 6.0),
        final(),
        lambda mp, p: Run(
            [_dosed(mp, p, [p[2] * k for k in range(1, 11)], [p[1]] * 10, 6)],
            event_times=[p[2] * k for k in range(1, 11)],
        ),
        max_events=12,
    ),
    Problem(
        "dose_at_the_start",
        "jumps",
        3,
        "Two doses, the first of which is given at the very start.",
        _dose(lambda xp, p: [0.0, 1.0], 1),
        (0.8, 2.0),
        _nothing,
        (0.0, 2.0),
        final(),
        lambda mp, p: Run([_dosed(mp, p, [0, 1], [p[1], p[1]], 2)], event_times=[mp.mpf(0), mp.mpf(1)]),
        max_events=4,
    ),
    Problem(
        "saved_on_jumps",
        "saving",
        3,
        "States saved exactly at the times at which the input jumps.",
        _steps(lambda p: 0.5, lambda p: 1.0, lambda p: 2.0),
        (2.0, 1.0, -4.0, 3.0, -1.0),
        _nothing,
        (0.0, 2.5),
        saved(),
        lambda mp, p: Run(
            saved=[[_after(mp, p, [mp.mpf(0.5), 1, 2], mp.mpf(t))] for t in SAVES],
            event_times=[mp.mpf(0.5), mp.mpf(1), mp.mpf(2)],
        ),
        saves=SAVES,
        max_events=5,
    ),
)
