"""Systems that switch by their state: thermostat, stick and slip, diode, sliding."""

from ..problem import Event, Phase, Problem, Run, final


def _toward(level):
    """A temperature that approaches p[level] with rate p[0]; level None means zero."""
    return lambda xp, t, y, p: [p[0] * ((0 if level is None else p[level]) - y[0])]


# Parameters: rate, hot level, lower threshold, upper threshold.
THERMOSTAT = (
    Phase(_toward(1), (Event(lambda xp, t, y, p: y[0] - p[3], "rising", to=1),)),
    Phase(_toward(None), (Event(lambda xp, t, y, p: y[0] - p[2], "falling", to=0),)),
)


def _regulated(end):
    """The temperature at `end`, from switch to switch."""

    def exact(mp, p):
        rate, hot, low, high = p
        t, y, heating, times = mp.mpf(0), low, True, []
        while True:
            level, goal = (hot, high) if heating else (0, low)
            after = t + mp.log((y - level) / (goal - level)) / rate
            if after > end:
                return Run([level + (y - level) * mp.exp(-rate * (end - t))], event_times=times)
            t, y, heating = after, goal, not heating
            times.append(t)

    return exact


def _thermostat(name, level, about, end, p, count):
    return Problem(
        name,
        "switching",
        level,
        about,
        THERMOSTAT,
        p,
        lambda xp, p: [p[2]],
        (0.0, end),
        final(),
        _regulated(end),
        max_events=count + 3,
    )


# A block of unit mass on a belt of velocity p[0], held by a unit spring; static friction p[1], sliding friction p[2].
FRICTION = (
    Phase(
        lambda xp, t, y, p: [p[0] + 0 * y[0], 0 * y[0]],
        (Event(lambda xp, t, y, p: y[0] - p[1], "rising", to=1),),
    ),
    Phase(
        lambda xp, t, y, p: [y[1], p[2] - y[0]],
        (Event(lambda xp, t, y, p: y[1] - p[0], "rising", to=0),),
    ),
)


def _slipped(mp, p):
    """Sticks, slips, sticks, slips: x - p[2] is an arc of a circle in the plane of position and velocity."""
    belt, static, sliding = p
    offset = static - sliding
    slip = 2 * (mp.pi - mp.atan(offset / belt))
    first = static / belt
    second = first + slip
    third = second + 2 * offset / belt
    tau = mp.mpf(12) - third
    end = sliding + offset * mp.cos(tau) + belt * mp.sin(tau)
    return Run([end, -offset * mp.sin(tau) + belt * mp.cos(tau)], event_times=[first, second, third])


# A capacitor behind a diode: it follows sin(p[0] t) while current flows, and then discharges with rate p[1].
RECTIFIER = (
    Phase(
        lambda xp, t, y, p: [p[0] * xp.cos(p[0] * t) + 0 * y[0]],
        (Event(lambda xp, t, y, p: p[0] * xp.cos(p[0] * t) + p[1] * y[0], "falling", to=1),),
    ),
    Phase(
        lambda xp, t, y, p: [-p[1] * y[0]],
        (Event(lambda xp, t, y, p: xp.sin(p[0] * t) - y[0], "rising", to=0),),
    ),
)


def _rectified(mp, p):
    """Conducts, blocks, conducts, blocks; the guess of the second event is near it at the given parameters."""
    w, rate = p
    opens = (mp.pi - mp.atan(w / rate)) / w
    peak = mp.sin(w * opens)
    closes = mp.findroot(lambda t: mp.sin(w * t) - peak * mp.exp(-rate * (t - opens)), 3.63)
    again = opens + 2 * mp.pi / w
    return Run([mp.sin(w * again) * mp.exp(-rate * (mp.mpf(5) - again))], event_times=[opens, closes, again])


# y' = -p[0] above zero and +p[1] below: both fields point at zero, where events follow each other without end.
SLIDING = (
    Phase(lambda xp, t, y, p: [-p[0] + 0 * y[0]], (Event(lambda xp, t, y, p: y[0], "falling", to=1),)),
    Phase(lambda xp, t, y, p: [p[1] + 0 * y[0]], (Event(lambda xp, t, y, p: y[0], "rising", to=0),)),
)

PROBLEMS = (
    _thermostat("thermostat", 2, "A thermostat after three switches.", 2.5, (1.0, 2.0, 0.6, 1.2), 3),
    _thermostat("thermostat_long", 3, "A thermostat after forty switches.", 28.2, (1.0, 2.0, 0.7, 1.4), 45),
    _thermostat(
        "thermostat_narrow",
        3,
        "A thermostat whose thresholds are a thousandth apart.",
        0.1,
        (1.0, 2.0, 1.0, 1.001),
        110,
    ),
    Problem(
        "stick_and_slip",
        "switching",
        4,
        "A block on a moving belt that sticks and slips; at the start of a slip the function of its end is zero.",
        FRICTION,
        (0.5, 1.0, 0.6),
        lambda xp, p: [0 * p[0], p[0]],
        (0.0, 12.0),
        final(),
        _slipped,
        max_events=6,
    ),
    Problem(
        "diode",
        "switching",
        4,
        "A rectifier: when its diode blocks, the function of the next event is zero and has no slope.",
        RECTIFIER,
        (2.0, 0.5),
        lambda xp, p: [0 * p[0]],
        (0.0, 5.0),
        final(),
        _rectified,
        max_events=6,
    ),
    Problem(
        "sliding",
        "switching",
        5,
        "Two fields that point at each other across a threshold: the state stays there, or the library refuses.",
        SLIDING,
        (1.0, 2.0),
        lambda xp, p: [0.5 + 0 * p[0]],
        (0.0, 1.0),
        final(),
        lambda mp, p: Run([0 * p[0]], event_times=None),
        refusal=True,
        max_events=60,
    ),
)
