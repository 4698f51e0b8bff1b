"""Long horizons, and systems that amplify what is done to them."""

from ..problem import Event, Phase, Problem, Run, final


def _oscillate(xp, t, y, p):
    return [y[1], -p[0] * p[0] * y[0]]


def _oscillated(mp, p):
    return Run([p[1] * mp.cos(100 * p[0])])


def _lorenz(xp, t, y, p):
    return [p[0] * (y[1] - y[0]), y[0] * (p[1] - y[2]) - y[1], y[0] * y[1] - p[2] * y[2]]


def _grown(mp, p):
    return Run([p[1] * mp.exp(10 * p[0])])


# A point between walls at 0 and 1 that gains speed at each: by the factor p[1], with the first speed p[0].
def _faster(xp, t, y, p):
    return [y[0], -p[1] * y[1]]


WALLS = (
    Phase(
        lambda xp, t, y, p: [y[1], 0 * y[0]],
        (
            Event(lambda xp, t, y, p: y[0] - 1, "rising", _faster, to=0),
            Event(lambda xp, t, y, p: y[0], "falling", _faster, to=0),
        ),
    ),
)


def _bounced(mp, p):
    t, speed, times = 1 / p[0], p[0], []
    while t < 15:
        times.append(t)
        speed = p[1] * speed
        t = t + 1 / speed
    travelled = speed * (15 - times[-1])
    odd = len(times) % 2
    return Run([1 - travelled if odd else travelled, -speed if odd else speed], event_times=times)


# Each crossing of 1 sends the state back to a place that depends on its speed: a map that doubles small differences.
BAKER = (
    Phase(
        lambda xp, t, y, p: [y[1], 0 * y[0]],
        (Event(lambda xp, t, y, p: y[0] - 1, "rising", lambda xp, t, y, p: [0 * y[0], p[0] * (y[1] - 1) + 1], to=0),),
    ),
)


def _sped_up(mp, p):
    t, gain, times = mp.mpf(0), p[1], []
    while t + 1 / (1 + gain) < 16:
        t, gain = t + 1 / (1 + gain), p[0] * gain
        times.append(t)
    return Run([(1 + gain) * (16 - t), 1 + gain], event_times=times)


PROBLEMS = (
    Problem(
        "hundred_periods",
        "growth",
        2,
        "The phase of an oscillator after a hundred periods.",
        (Phase(_oscillate),),
        (6.3, 1.0),
        lambda xp, p: [p[1], 0 * p[0]],
        (0.0, 100.0),
        final(),
        _oscillated,
        tolerance=1e-5,
    ),
    Problem(
        "unstable_growth",
        "growth",
        2,
        "Exponential growth by a factor of a billion.",
        (Phase(lambda xp, t, y, p: [p[0] * y[0]]),),
        (2.0, 0.5),
        lambda xp, p: [p[1]],
        (0.0, 10.0),
        final(),
        _grown,
    ),
    Problem(
        "lorenz",
        "growth",
        3,
        "The Lorenz system over a time in which differences grow a hundredfold.",
        (Phase(_lorenz),),
        (10.0, 28.0, 2.6666666666666665),
        lambda xp, p: [1.0 + 0 * p[0], 1.0 + 0 * p[0], 20.0 + 0 * p[0]],
        (0.0, 3.0),
        final(),
        tolerance=1e-5,
    ),
    Problem(
        "faster_at_each_wall",
        "growth",
        3,
        "A point between two walls that gains speed at each of 25 bounces.",
        WALLS,
        (1.1, 1.04),
        lambda xp, p: [0 * p[0], p[0]],
        (0.0, 15.0),
        final(),
        _bounced,
        max_events=40,
    ),
    Problem(
        "amplifying_resets",
        "growth",
        4,
        "Resets that amplify a difference of 1e-5 at each of sixteen events.",
        BAKER,
        (2.0, 1e-5),
        lambda xp, p: [0 * p[0], 1 + p[1]],
        (0.0, 16.0),
        final(),
        _sped_up,
        max_events=24,
        tolerance=1e-5,
    ),
)
