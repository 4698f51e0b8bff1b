"""Batches with a member that fails, and single precision."""

from ..problem import Event, Phase, Problem, Run, event_time, final
from .balls import BOUNCING, bounces

RISE = (Phase(lambda xp, t, y, p: [p[1] * y[0] * y[0]]),)


def _risen(mp, p):
    return Run([p[0] / (1 - p[0] * p[1])])


# A throw whose wall at height 2 is reached by a start that is fast enough.
THROW = (Phase(lambda xp, t, y, p: [y[1], -p[1] + 0 * y[0]], (Event(lambda xp, t, y, p: y[0] - 2, "rising"),)),)


def _reached(mp, p):
    return Run(event_times=[(p[0] - mp.sqrt(p[0] * p[0] - 4 * p[1])) / p[1]])


LATE = 1000.0

PROBLEMS = (
    Problem(
        "batch_with_a_blow_up",
        "batches",
        3,
        "Four starts of y' = y^2, one of which is infinite before the end: the other three are unharmed.",
        RISE,
        (0.25, 1.0),
        lambda xp, p: [p[0]],
        (0.0, 1.0),
        final(),
        _risen,
        batch=((0.25, 1.0), (0.5, 1.0), (2.0, 1.0), (0.75, 1.0)),
        failing=(2,),
    ),
    Problem(
        "batch_with_a_missing_event",
        "batches",
        4,
        "The times at which four throws reach a height, which one of them never does: it says so.",
        THROW,
        (8.0, 9.81),
        lambda xp, p: [0 * p[0], p[0]],
        (0.0, 2.0),
        event_time(),
        _reached,
        batch=((8.0, 9.81), (7.0, 9.81), (5.0, 9.81), (10.0, 9.81)),
        failing=(2,),
        max_events=2,
    ),
    Problem(
        "single_decay",
        "float32",
        2,
        "A decay in single precision.",
        (Phase(lambda xp, t, y, p: [-p[0] * y[0]]),),
        (0.75, 2.0),
        lambda xp, p: [p[1]],
        (0.0, 2.0),
        final(),
        lambda mp, p: Run([p[1] * mp.exp(-2 * p[0])]),
        single=True,
        tolerance=1e-4,
    ),
    Problem(
        "single_bounces",
        "float32",
        3,
        "Three bounces in single precision.",
        BOUNCING,
        (5.0, 9.8125, 0.75),
        lambda xp, p: [p[0], 0 * p[0]],
        (0.0, 4.5),
        final(),
        lambda mp, p: bounces(mp, p, mp.mpf(4.5)),
        single=True,
        max_events=6,
        tolerance=1e-3,
    ),
    Problem(
        "single_and_late",
        "float32",
        4,
        "A threshold reached at a time of about 1000, where neighbouring numbers of float32 are 6e-5 apart.",
        (
            Phase(
                lambda xp, t, y, p: [-p[0] * y[0]],
                (Event(lambda xp, t, y, p: y[0] - 0.5, "falling", lambda xp, t, y, p: [y[0] + p[1]], to=1),),
            ),
            Phase(lambda xp, t, y, p: [-p[0] * y[0]]),
        ),
        (0.75, 1.5),
        lambda xp, p: [1.0 + 0 * p[0]],
        (LATE, LATE + 2),
        final(),
        lambda mp, p: Run([(mp.mpf(0.5) + p[1]) * 2 * mp.exp(-2 * p[0])], event_times=[LATE + mp.log(2) / p[0]]),
        single=True,
        max_events=3,
        tolerance=1e-3,
    ),
)
