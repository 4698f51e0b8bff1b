"""Event functions and resets that depend on parameters and on time."""

from ..problem import Event, Phase, Problem, Run, event_time, final


def _decay(xp, t, y, p):
    return [-p[0] * y[0]]


def _one(xp, p):
    return [1.0 + 0 * p[0]]


def _threshold(mp, p):
    return Run(event_times=[mp.log(1 / p[1]) / p[0]])


def _moving(mp, p):
    return Run(event_times=[mp.log(1 / p[1]) / (p[0] + p[2])])


def _kicked(mp, p):
    """A decay that is kicked by p[2] sin(3 t) where it reaches p[1]."""
    t = mp.log(1 / p[1]) / p[0]
    return Run([(p[1] + p[2] * mp.sin(3 * t)) * mp.exp(-p[0] * (2 - t))], event_times=[t])


KICKED = (
    Phase(
        _decay, (Event(lambda xp, t, y, p: y[0] - p[1], reset=lambda xp, t, y, p: [y[0] + p[2] * xp.sin(3 * t)], to=1),)
    ),
    Phase(_decay),
)


def _air(xp, t, y, p):
    return [y[1], -p[0] + 0 * y[0]]


def _water(xp, t, y, p):
    return [y[1], -p[1] * y[1]]


def _dived(mp, p):
    """A fall of p[2], and the depth that is reached by a velocity that then decays with rate p[1]."""
    fall = mp.sqrt(2 * p[2] / p[0])
    return Run([-p[0] * fall / p[1] * (1 - mp.exp(-p[1] * (2 - fall)))], event_times=[fall])


DIVER = (Phase(_air, (Event(lambda xp, t, y, p: y[0], to=1),)), Phase(_water))


def _wall(xp, t, y, p):
    """The distance from a wall through (1, 0), whose normal is at an angle of p[2] to the first axis."""
    return (1 - y[0]) * xp.cos(p[2]) - y[1] * xp.sin(p[2])


def _mirrored(xp, t, y, p):
    c, s = xp.cos(p[2]), xp.sin(p[2])
    along = 2 * (y[2] * c + y[3] * s)
    return [y[0], y[1], y[2] - along * c, y[3] - along * s]


def _reflected(mp, p):
    c, s = mp.cos(p[2]), mp.sin(p[2])
    normal = p[0] * c + p[1] * s
    t = c / normal
    x, y = p[0] * t, p[1] * t
    vx, vy = p[0] - 2 * normal * c, p[1] - 2 * normal * s
    return Run([x + vx * (3 - t), y + vy * (3 - t), vx, vy], event_times=[t])


MIRROR = (
    Phase(
        lambda xp, t, y, p: [y[2], y[3], 0 * y[0], 0 * y[0]],
        (Event(_wall, "falling", _mirrored, to=1),),
    ),
    Phase(lambda xp, t, y, p: [y[2], y[3], 0 * y[0], 0 * y[0]]),
)


def _crossing(xp, t, y, p):
    return y[0]


WAVE = (
    Phase(
        lambda xp, t, y, p: [p[0] * p[1] * xp.cos(p[1] * t + p[2]) + 0 * y[0]],
        (Event(_crossing, "both", to=0),),
    ),
)


def _zeros(mp, p):
    times = [(k * mp.pi - p[2]) / p[1] for k in range(1, 6)]
    return Run([p[0] * mp.sin(p[1] * 4 + p[2])], event_times=times)


def _table(xp, t, y, p):
    """The height of a ball above a table that is shaken."""
    return y[0] - p[1] * xp.sin(5 * t)


def _hit(xp, t, y, p):
    return [y[0], -p[2] * y[1] + (1 + p[2]) * p[1] * 5 * xp.cos(5 * t)]


SHAKEN = (Phase(lambda xp, t, y, p: [y[1], -9.81 + 0 * y[0]], (Event(_table, "falling", _hit, to=0),)),)


def _shaken(mp, p):
    """Flight by flight; the guesses are near the roots at the given parameters."""
    g, t, y, v, times = mp.mpf(9.81), mp.mpf(0), p[0], mp.mpf(0), []
    for guess in (0.443, 1.054):
        flight = lambda s, t=t, y=y, v=v: y + v * (s - t) - g * (s - t) ** 2 / 2
        hit = mp.findroot(lambda s, flight=flight: flight(s) - p[1] * mp.sin(5 * s), guess)
        v = -p[2] * (v - g * (hit - t)) + (1 + p[2]) * p[1] * 5 * mp.cos(5 * hit)
        t, y = hit, flight(hit)
        times.append(hit)
    rest = mp.mpf(1.25) - t
    return Run([y + v * rest - g * rest * rest / 2], event_times=times)


PROBLEMS = (
    Problem(
        "trained_threshold",
        "guards",
        1,
        "The time at which a decay reaches a trained threshold.",
        (Phase(_decay, (Event(lambda xp, t, y, p: y[0] - p[1]),)),),
        (0.7, 0.4),
        _one,
        (0.0, 4.0),
        event_time(),
        _threshold,
        max_events=2,
    ),
    Problem(
        "moving_threshold",
        "guards",
        2,
        "The time at which a decay meets a threshold that grows with time.",
        (Phase(_decay, (Event(lambda xp, t, y, p: y[0] - p[1] * xp.exp(p[2] * t)),)),),
        (0.7, 0.4, 0.3),
        _one,
        (0.0, 4.0),
        event_time(),
        _moving,
        max_events=2,
    ),
    Problem(
        "reset_that_depends_on_time",
        "guards",
        2,
        "A decay that is kicked at a threshold, by an amount that depends on the time of the event.",
        KICKED,
        (0.7, 0.6, 0.5),
        _one,
        (0.0, 2.0),
        final(),
        _kicked,
        max_events=3,
    ),
    Problem(
        "from_air_into_water",
        "guards",
        2,
        "A fall through air and then, by another equation, through water.",
        DIVER,
        (9.81, 3.0, 4.0),
        lambda xp, p: [p[2], 0 * p[0]],
        (0.0, 2.0),
        final(),
        _dived,
        max_events=3,
    ),
    Problem(
        "inclined_mirror",
        "guards",
        2,
        "A ray that is reflected by a wall whose angle is a parameter of both the guard and the reset.",
        MIRROR,
        (1.0, 0.4, 0.3),
        lambda xp, p: [0 * p[0], 0 * p[0], p[0], p[1]],
        (0.0, 3.0),
        lambda xp, run: run.y[0] + 2 * run.y[1],
        _reflected,
        max_events=3,
    ),
    Problem(
        "zeros_of_a_sine",
        "guards",
        3,
        "The time of the fifth zero of a sine, whose zeros are events of either direction.",
        WAVE,
        (1.5, 4.0, 0.5),
        lambda xp, p: [p[0] * xp.sin(p[2])],
        (0.0, 4.0),
        event_time(4),
        _zeros,
        max_events=8,
    ),
    Problem(
        "shaken_table",
        "guards",
        3,
        "A ball that bounces twice on a table shaken by a sine: guard and reset depend on time.",
        SHAKEN,
        (1.0, 0.05, 0.7),
        lambda xp, p: [p[0], 0 * p[0]],
        (0.0, 1.25),
        final(),
        _shaken,
        max_events=5,
    ),
)
