"""Events that happen within one step, at the same time, at the start, and at once after a reset."""

from ..problem import Event, Phase, Problem, Run, final, saved


def _sink(xp, t, y, p):
    """Two heights that sink with speeds p[2] and p[3]."""
    return [-p[2] + 0 * y[0], -p[3] + 0 * y[0]]


def _lift(i):
    """The event at which a height reaches zero: it is set back to p[i]."""

    def reset(xp, t, y, p):
        return [p[k] if k == i else y[k] for k in (0, 1)]

    return Event(lambda xp, t, y, p: y[i], "falling", reset, to=0)


SINKING = (Phase(_sink, (_lift(0), _lift(1))),)


def _sunk(laps):
    """The run of the two heights until 2.5, each of which is lifted `laps` times."""

    def exact(mp, p):
        end = mp.mpf(2.5)
        ends = [(laps + 1) * p[i] - p[2 + i] * end for i in (0, 1)]
        times = [k * p[i] / p[2 + i] for i in (0, 1) for k in range(1, laps + 1)]
        return Run(ends, event_times=sorted(times))

    return exact


def _sinking(name, level, about, p, measured=None):
    return Problem(
        name,
        "coincidences",
        level,
        about,
        SINKING,
        p,
        lambda xp, p: [p[0], p[1]],
        (0.0, 2.5),
        measured or (lambda xp, run: run.y[0] * run.y[1]),
        _sunk(2),
        max_events=8,
    )


def _throw_down(xp, t, y, p):
    return [y[1], -p[1] + 0 * y[0]]


FLOOR = Event(lambda xp, t, y, p: y[0], "falling", lambda xp, t, y, p: [y[0], -p[2] * y[1]], to=0)


def _thrown(mp, p):
    """A ball that is thrown down at the floor, from the floor."""
    up = p[2] * p[0]
    return Run([up / 2 - p[1] / 8], event_times=[mp.mpf(0)])


# A growing state is set to p[0] at 1; the second phase has its threshold there, which it crosses at once.
CHAIN = (
    Phase(
        lambda xp, t, y, p: [p[2] + 0 * y[0]],
        (Event(lambda xp, t, y, p: y[0] - 1, "rising", lambda xp, t, y, p: [p[0] + 0 * y[0]], to=1),),
    ),
    Phase(
        lambda xp, t, y, p: [p[2] * y[0]],
        (Event(lambda xp, t, y, p: y[0] - p[0], "rising", lambda xp, t, y, p: [p[1] * y[0]], to=2),),
    ),
    Phase(lambda xp, t, y, p: [-p[2] * y[0]]),
)


def _chained(mp, p):
    t = 1 / p[2]
    return Run([p[0] * p[1] * mp.exp(-p[2] * (2 - t))], event_times=[t, t])


def _wall(i):
    """A wall at zero of one coordinate of a point in a plane."""

    def turn(xp, t, y, p):
        return [-y[k] if k == i + 2 else y[k] for k in range(4)]

    return Event(lambda xp, t, y, p: y[i], "falling", turn, to=0)


CORNER = (Phase(lambda xp, t, y, p: [y[2], y[3], 0 * y[0], 0 * y[0]], (_wall(0), _wall(1))),)


def _in_corner(mp, p):
    ends = [p[2 + i] * 2 - p[i] for i in (0, 1)]
    return Run([*ends, p[2], p[3]], event_times=sorted([p[0] / p[2], p[1] / p[3]]))


def _order(first):
    """Two clocks that ring at once: one adds p[2], the other doubles. `first` adds before it doubles, or after."""

    def exact(mp, p):
        total = 2 * (p[3] + p[2]) if first else 2 * p[3] + p[2]
        return Run([0, 0, total], event_times=sorted([p[0], p[1]]))

    return exact


def _ring(i, change):
    return Event(
        lambda xp, t, y, p: y[i],
        "falling",
        lambda xp, t, y, p: [1.0 + 0 * y[0] if k == i else y[k] for k in (0, 1)] + [change(y[2], p)],
        to=0,
    )


RINGING = (
    Phase(
        lambda xp, t, y, p: [-1.0 + 0 * y[0], -1.0 + 0 * y[0], 0 * y[0]],
        (_ring(0, lambda z, p: z + p[2]), _ring(1, lambda z, p: 2 * z)),
    ),
)


def _save_exact(side):
    """The height of a ball at its bounce, saved there: the derivative is that before or after."""

    def exact(mp, p):
        fall, t = mp.sqrt(2 * p[0] / p[1]), mp.mpf(1)
        before = p[0] - p[1] / 2
        tau = t - fall
        after = p[2] * p[1] * fall * tau - p[1] * tau * tau / 2
        return Run(saved=[[before if side == "before" else after]], event_times=[fall])

    return exact


PROBLEMS = (
    _sinking(
        "two_events_in_one_step",
        3,
        "Two events within a millionth of a second of each other.",
        (1.0, 1.000001, 1.0, 1.0),
    ),
    _sinking(
        "two_events_at_one_time",
        4,
        "Two events at the same time, of two states that do not see each other.",
        (1.0, 1.0, 1.0, 1.0),
    ),
    _sinking(
        "two_speeds_at_one_time",
        4,
        "Two events at the same time, of two states with different speeds.",
        (1.0, 0.5, 1.0, 0.5),
        lambda xp, run: run.y[0] + 2 * run.y[1],
    ),
    Problem(
        "event_at_the_start",
        "coincidences",
        3,
        "A ball on the floor that is thrown downward, so that it bounces at the very start.",
        (Phase(_throw_down, (FLOOR,)),),
        (8.0, 9.81, 0.7),
        lambda xp, p: [0 * p[0], -p[0]],
        (0.0, 0.5),
        final(),
        _thrown,
        max_events=4,
    ),
    Problem(
        "event_at_once_after_a_reset",
        "coincidences",
        4,
        "A reset that puts the state exactly on the threshold of the next phase, which it crosses upward at once.",
        CHAIN,
        (2.0, 1.5, 0.8),
        lambda xp, p: [0 * p[0]],
        (0.0, 2.0),
        final(),
        _chained,
        max_events=4,
    ),
    Problem(
        "into_a_corner",
        "coincidences",
        4,
        "A point that hits two walls at the same time, in the corner.",
        CORNER,
        (1.0, 1.0, 1.0, 1.0),
        lambda xp, p: [p[0], p[1], -p[2], -p[3]],
        (0.0, 2.0),
        lambda xp, run: run.y[0] + 2 * run.y[1],
        _in_corner,
        max_events=4,
    ),
    Problem(
        "order_matters",
        "coincidences",
        5,
        "Two events at one time whose resets give different states in the two orders: either order, or a refusal.",
        RINGING,
        (0.75, 0.75, 0.5, 2.0),
        lambda xp, p: [p[0], p[1], p[3]],
        (0.0, 1.25),
        final(2),
        _order(True),
        others=(_order(False),),
        refusal=True,
        max_events=4,
    ),
    Problem(
        "saved_on_a_bounce",
        "saving",
        5,
        "The height of a ball saved exactly at its bounce: the derivative before it, that after it, or a refusal.",
        (Phase(lambda xp, t, y, p: [y[1], -p[1] + 0 * y[0]], (FLOOR,)),),
        (4.0, 8.0, 0.5),
        lambda xp, p: [p[0], 0 * p[0]],
        (0.0, 1.25),
        saved(),
        _save_exact("before"),
        others=(_save_exact("after"),),
        refusal=True,
        saves=(1.0,),
        max_events=4,
        scale=1.0,
    ),
)
