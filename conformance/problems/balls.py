"""Balls that fall and bounce: the time of an impact, one bounce, many, and their accumulation."""

from ..problem import Event, Phase, Problem, Run, event_time, final, saved


def _fall(xp, t, y, p):
    return [y[1], -p[1] + 0 * y[0]]


def _bounce(xp, t, y, p):
    return [y[0], -p[2] * y[1]]


def _height(xp, t, y, p):
    return y[0]


FALLING = (Phase(_fall, (Event(_height, "falling"),)),)
BOUNCING = (Phase(_fall, (Event(_height, "falling", _bounce, to=0),)),)


def _from_rest(xp, p):
    return [p[0], 0 * p[0]]


def bounces(mp, p, end, times=()):
    """The run of a ball from rest at p[0] under gravity p[1] with restitution p[2]: a parabola for each flight."""
    fall = mp.sqrt(2 * p[0] / p[1])
    event_times, speed = [fall], p[2] * p[1] * fall
    while event_times[-1] + 2 * speed / p[1] < end:
        event_times.append(event_times[-1] + 2 * speed / p[1])
        speed = p[2] * speed

    def state(t):
        before = [u for u in event_times if u <= t]
        if not before:
            return [p[0] - p[1] * t * t / 2, -p[1] * t]
        up, tau = p[2] ** len(before) * p[1] * fall, t - before[-1]
        return [up * tau - p[1] * tau * tau / 2, up - p[1] * tau]

    return Run(state(end), [state(mp.mpf(t)) for t in times], event_times)


def _bounced(end):
    return lambda mp, p: bounces(mp, p, mp.mpf(end))


def _landed(mp, p):
    fall = mp.sqrt(2 * p[0] / p[1])
    return Run([mp.mpf(0), -p[1] * fall], event_times=[fall])


def _apex(mp, p):
    t = p[2] / p[1]
    return Run([p[0] + p[2] * t / 2, mp.mpf(0)], event_times=[t])


def _two(xp, t, y, p):
    return [y[1], -p[2] + 0 * y[0], y[3], -p[2] + 0 * y[0]]


def _floor(i):
    def bounce(xp, t, y, p):
        return [-p[3] * s if k == i + 1 else s for k, s in enumerate(y[j] for j in range(4))]

    return Event(lambda xp, t, y, p: y[i], "falling", bounce, to=0)


def _two_bounced(mp, p):
    one, two = (bounces(mp, [p[i], p[2], p[3]], mp.mpf(2)) for i in (0, 1))
    return Run([*one.y, *two.y], event_times=sorted([*one.event_times, *two.event_times]))


def _bouncing(name, level, about, end, p, count, component=0, **options):
    return Problem(
        name,
        "bounces",
        level,
        about,
        BOUNCING,
        p,
        _from_rest,
        (0.0, end),
        final(component),
        _bounced(end),
        max_events=count + 3,
        **options,
    )


SAVES = tuple(0.04 * i for i in range(1, 51))

PROBLEMS = (
    Problem(
        "time_of_fall",
        "bounces",
        1,
        "The time at which a falling ball reaches the floor.",
        FALLING,
        (5.0, 9.81),
        _from_rest,
        (0.0, 3.0),
        event_time(),
        _landed,
        max_events=2,
    ),
    Problem(
        "speed_of_impact",
        "bounces",
        1,
        "The velocity with which a falling ball reaches the floor.",
        FALLING,
        (5.0, 9.81),
        _from_rest,
        (0.0, 3.0),
        final(1),
        _landed,
        max_events=2,
    ),
    Problem(
        "greatest_height",
        "guards",
        1,
        "The height of a thrown ball at the event at which its velocity is zero.",
        (Phase(_fall, (Event(lambda xp, t, y, p: y[1], "falling"),)),),
        (1.5, 9.81, 6.0),
        lambda xp, p: [p[0], p[2]],
        (0.0, 2.0),
        final(),
        _apex,
        max_events=2,
    ),
    _bouncing("one_bounce", 2, "The height of a ball some time after its first bounce.", 1.5, (5.0, 9.81, 0.8), 1),
    _bouncing("ten_bounces", 3, "The height of a ball after ten bounces.", 9.2, (5.0, 9.81, 0.83), 10),
    _bouncing(
        "near_accumulation",
        4,
        "The velocity of a ball after 24 bounces, a few microseconds before the bounces accumulate.",
        4.03853,
        (5.0, 9.81, 0.6),
        24,
        component=1,
        tolerance=1e-5,
        scale=1.0,
    ),
    Problem(
        "beyond_accumulation",
        "bounces",
        5,
        "A ball at a time after infinitely many bounces: it lies on the floor, or the library refuses.",
        BOUNCING,
        (5.0, 9.81, 0.6),
        _from_rest,
        (0.0, 6.0),
        final(),
        lambda mp, p: Run([0 * p[0], 0 * p[0]], event_times=None),
        refusal=True,
        max_events=60,
    ),
    Problem(
        "two_balls",
        "bounces",
        2,
        "Two balls on one floor that bounce at different times, and a sum of their heights.",
        (Phase(_two, (_floor(0), _floor(2))),),
        (5.0, 3.0, 9.81, 0.8),
        lambda xp, p: [p[0], 0 * p[0], p[1], 0 * p[0]],
        (0.0, 2.0),
        lambda xp, run: run.y[2] + 0.5 * run.y[0],
        _two_bounced,
        max_events=6,
    ),
    Problem(
        "saved_flight",
        "saving",
        2,
        "The heights of a bouncing ball at fifty times, none of which is a bounce.",
        BOUNCING,
        (1.0, 9.81, 0.8),
        _from_rest,
        (0.0, 2.0),
        saved(),
        lambda mp, p: bounces(mp, p, mp.mpf(2), SAVES),
        saves=SAVES,
        max_events=9,
    ),
    Problem(
        "saved_velocities",
        "saving",
        3,
        "The velocities of a bouncing ball, which jump, at fifty times.",
        BOUNCING,
        (1.0, 9.81, 0.8),
        _from_rest,
        (0.0, 2.0),
        saved(1),
        lambda mp, p: bounces(mp, p, mp.mpf(2), SAVES),
        saves=SAVES,
        max_events=9,
    ),
)
