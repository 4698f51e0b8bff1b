"""Smooth systems, mild and stiff: the level that every library should pass."""

from ..problem import Event, Phase, Problem, Run, event_time, final, saved


def _decay(xp, t, y, p):
    return [-p[0] * y[0]]


def _relax(xp, t, y, p):
    """A fast state that follows a cosine."""
    return [-p[0] * (y[0] - xp.cos(p[1] * t))]


def _relaxed(mp, p):
    k, w, t = p[0], p[1], mp.mpf(2)
    size = k / (k * k + w * w)
    steady = lambda t: size * (k * mp.cos(w * t) + w * mp.sin(w * t))
    return Run([steady(t) + (p[2] - steady(0)) * mp.exp(-k * t)])


def _reactions(xp, t, y, p):
    """A to B, fast; B to C, slow."""
    return [-p[0] * y[0], p[0] * y[0] - p[1] * y[1], p[1] * y[1]]


def _reacted(mp, p, t):
    fast, slow = mp.exp(-p[0] * t), mp.exp(-p[1] * t)
    return [p[2] * fast, p[2] * p[0] / (p[0] - p[1]) * (slow - fast)]


def _half_time(mp, p):
    """The time at which B, after its fast rise, falls to p[3]."""
    guess = mp.log(p[2] * p[0] / (p[0] - p[1]) / p[3]) / p[1]
    return Run(event_times=[mp.findroot(lambda t: _reacted(mp, p, t)[1] - p[3], guess)])


def _decayed(mp, p, times):
    return [[p[1] * mp.exp(-p[0] * t)] for t in times]


TIMES = (0.0, 0.25, 0.5, 1.0, 1.5, 1.75, 2.0)

PROBLEMS = (
    Problem(
        "decay",
        "smooth",
        1,
        "Exponential decay, with its rate and its initial value as parameters.",
        (Phase(_decay),),
        (0.7, 2.0),
        lambda xp, p: [p[1]],
        (0.0, 2.0),
        final(),
        lambda mp, p: Run(_decayed(mp, p, [2])[0]),
    ),
    Problem(
        "oscillator",
        "smooth",
        1,
        "The position of a harmonic oscillator, which depends on frequency and initial state.",
        (Phase(lambda xp, t, y, p: [y[1], -p[0] * p[0] * y[0]]),),
        (3.0, 1.0, -0.5),
        lambda xp, p: [p[1], p[2]],
        (0.0, 2.5),
        final(),
        lambda mp, p: Run([p[1] * mp.cos(2.5 * p[0]) + p[2] / p[0] * mp.sin(2.5 * p[0])]),
    ),
    Problem(
        "logistic",
        "smooth",
        1,
        "Logistic growth, with rate and capacity as parameters.",
        (Phase(lambda xp, t, y, p: [p[0] * y[0] * (1 - y[0] / p[1])]),),
        (1.5, 2.0),
        lambda xp, p: [0.1 + 0 * p[0]],
        (0.0, 3.0),
        final(),
        lambda mp, p: Run([p[1] / (1 + (p[1] / mp.mpf(0.1) - 1) * mp.exp(-3 * p[0]))]),
    ),
    Problem(
        "forced",
        "smooth",
        1,
        "A decay that is driven by a sine of trained frequency.",
        (Phase(lambda xp, t, y, p: [xp.sin(p[1] * t) - p[0] * y[0]]),),
        (0.8, 3.0),
        lambda xp, p: [0 * p[0]],
        (0.0, 4.0),
        final(),
        lambda mp, p: Run(
            [
                (p[0] * mp.sin(4 * p[1]) - p[1] * mp.cos(4 * p[1]) + p[1] * mp.exp(-4 * p[0]))
                / (p[0] * p[0] + p[1] * p[1])
            ]
        ),
    ),
    Problem(
        "pendulum",
        "smooth",
        1,
        "The angle of a pendulum released at a large angle.",
        (Phase(lambda xp, t, y, p: [y[1], -p[0] * xp.sin(y[0]) - p[1] * y[1]]),),
        (9.81, 0.3, 2.5),
        lambda xp, p: [p[2], 0 * p[0]],
        (0.0, 1.5),
        final(),
    ),
    Problem(
        "predator_prey",
        "smooth",
        1,
        "The prey of a Lotka-Volterra model.",
        (Phase(lambda xp, t, y, p: [p[0] * y[0] - p[1] * y[0] * y[1], p[1] * y[0] * y[1] - p[2] * y[1]]),),
        (1.5, 1.0, 2.0),
        lambda xp, p: [1.0 + 0 * p[0], 1.0 + 0 * p[0]],
        (0.0, 2.0),
        final(),
    ),
    Problem(
        "saved_decay",
        "saving",
        1,
        "A decay that is saved at seven times, both ends among them.",
        (Phase(_decay),),
        (0.7, 2.0),
        lambda xp, p: [p[1]],
        (0.0, 2.0),
        saved(),
        lambda mp, p: Run(saved=_decayed(mp, p, TIMES)),
        saves=TIMES,
    ),
    Problem(
        "stiff_relaxation",
        "stiff",
        2,
        "A state that relaxes to a cosine, ten thousand times faster than the cosine changes.",
        (Phase(_relax),),
        (1e4, 1.5, 0.0),
        lambda xp, p: [p[2]],
        (0.0, 2.0),
        final(),
        _relaxed,
        stiff=True,
    ),
    Problem(
        "stiff_reactions",
        "stiff",
        2,
        "Two reactions in a row with rates of 1e5 and 1, and the amount of what is between them.",
        (Phase(_reactions),),
        (1e5, 1.0, 1.0),
        lambda xp, p: [p[2], 0 * p[0], 0 * p[0]],
        (0.0, 1.0),
        final(1),
        lambda mp, p: Run(_reacted(mp, p, 1)),
        stiff=True,
    ),
    Problem(
        "stiff_event",
        "stiff",
        3,
        "The time at which the product of a fast reaction has decayed to a trained amount.",
        (Phase(_reactions, (Event(lambda xp, t, y, p: y[1] - p[3], "falling"),)),),
        (1e3, 1.0, 1.0, 0.5),
        lambda xp, p: [p[2], 0 * p[0], 0 * p[0]],
        (0.0, 3.0),
        event_time(),
        _half_time,
        max_events=2,
        stiff=True,
    ),
)
