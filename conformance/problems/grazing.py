"""Event functions that come near zero, touch it, or cross it and come back within a step."""

from ..problem import Event, Phase, Problem, Run, event_time, final


def _dive(xp, t, y, p):
    """A height that is a parabola of time: a start at p[0], a velocity of -p[1] and an acceleration of p[2]."""
    return [y[1], p[2] + 0 * y[0]]


def _start(xp, p):
    return [p[0], -p[1]]


def _bounce(xp, t, y, p):
    return [y[0], -y[1]]


DIVE = (Phase(_dive, (Event(lambda xp, t, y, p: y[0], "falling", _bounce, to=0),)),)


def _missed(mp, p):
    return Run([p[0] - 2 * p[1] + 2 * p[2], 2 * p[2] - p[1]], event_times=[])


def _hit(mp, p):
    """The height at 2 of a point whose velocity is turned where its parabola first meets zero."""
    speed = mp.sqrt(p[1] * p[1] - 2 * p[0] * p[2])
    t = (p[1] - speed) / p[2]
    rest = 2 - t
    return Run([speed * rest + p[2] * rest * rest / 2, speed + p[2] * rest], event_times=[t])


def _diving(name, level, about, p, exact, refusal=False, tolerance=1e-6):
    return Problem(
        name,
        "grazing",
        level,
        about,
        DIVE,
        p,
        _start,
        (0.0, 2.0),
        final(),
        exact,
        refusal=refusal,
        max_events=4,
        tolerance=tolerance,
    )


# A height that is 1 + cos(p[1] t), seen from p[0] above its minimum, where it stays for a short time only.
DIP = (
    Phase(
        lambda xp, t, y, p: [-p[1] * xp.sin(p[1] * t) + 0 * y[0]],
        (Event(lambda xp, t, y, p: y[0] - p[0], "falling"),),
    ),
)

PROBLEMS = (
    _diving("clear_miss", 1, "A parabola that stays above the threshold.", (1.0, 2.0, 2.5), _missed),
    _diving(
        "near_miss",
        3,
        "A parabola whose minimum is a millionth above the threshold, so that no event happens.",
        (1.000001, 2.0, 2.0),
        _missed,
    ),
    _diving("shallow_hit", 2, "A parabola that crosses the threshold at a small angle.", (0.99, 2.0, 2.0), _hit),
    _diving(
        "near_graze",
        4,
        "A parabola that crosses the threshold a ten thousandth above its minimum: derivatives of 200 and more.",
        (0.9999, 2.0, 2.0),
        _hit,
        tolerance=1e-5,
    ),
    _diving(
        "graze",
        5,
        "A parabola that touches the threshold at its minimum: the derivative of the miss, or a refusal.",
        (1.0, 2.0, 2.0),
        _missed,
        refusal=True,
    ),
    Problem(
        "brief_dip",
        "grazing",
        3,
        "A cosine that is below the threshold for a hundredth of its period, which is less than a step.",
        DIP,
        (0.0005, 2.0),
        lambda xp, p: [2.0 + 0 * p[0]],
        (0.0, 3.0),
        event_time(),
        lambda mp, p: Run(event_times=[mp.acos(p[0] - 1) / p[1]]),
        max_events=2,
    ),
)
