"""Switches driven by a clock, alone and together with events of the state."""

from ..problem import Event, Phase, Problem, Run, final


def _edges(first, count):
    """Times (first(p) + k) p[1] for k = 0, 1, ...: p[1] is the period."""
    return lambda xp, p: [(first(p) + k) * p[1] for k in range(count)]


def _falling(count):
    return Event(times=_edges(lambda p: p[0], count), to=1)


def _rising(count):
    return Event(times=_edges(lambda p: 1.0, count), to=0)


def _pulsed(count):
    """A state that is driven with 10 while the clock is on and decays with rate p[2] all the time."""
    return (
        Phase(lambda xp, t, y, p: [10.0 - p[2] * y[0]], (_falling(count),)),
        Phase(lambda xp, t, y, p: [-p[2] * y[0]], (_rising(count),)),
    )


def _pulsed_exactly(count, end):
    def exact(mp, p):
        duty, period, rate = p
        times = [(k + part) * period for k in range(count + 1) for part in (duty, 1)]
        t, y, on, past = mp.mpf(0), mp.mpf(0), True, []
        for stop in [*(u for u in times if u < end), mp.mpf(end)]:
            level = 10 / rate if on else 0
            y, t, on = level + (y - level) * mp.exp(-rate * (stop - t)), stop, not on
            past.append(stop)
        return Run([y], event_times=past[:-1])

    return exact


def _pulse_width(name, level, about, count, end, p):
    return Problem(
        name,
        "clocks",
        level,
        about,
        _pulsed(count),
        p,
        lambda xp, p: [0 * p[0]],
        (0.0, end),
        final(),
        _pulsed_exactly(count, end),
        max_events=2 * count + 2,
    )


# A current that a clock of period p[1] switches on and a limit p[0] switches off; p[2] is its rate, p[3] its drive.
PEAK = (
    Phase(
        lambda xp, t, y, p: [p[3] - p[2] * y[0]],
        (Event(lambda xp, t, y, p: y[0] - p[0], "rising", to=1),),
    ),
    Phase(lambda xp, t, y, p: [-1.0 - p[2] * y[0]], (_rising(8),)),
)


def _limited(mp, p):
    """The current at 0.75: charged to the limit, then discharged to the next edge of the clock."""
    limit, period, rate, drive = p
    t, y, times = mp.mpf(0), mp.mpf(0), []
    high, low = drive / rate, -1 / rate
    for k in range(1, 8):
        off = t + mp.log((y - high) / (limit - high)) / rate
        y, t = low + (limit - low) * mp.exp(-rate * (k * period - off)), k * period
        times += [off, t]
    off = t + mp.log((y - high) / (limit - high)) / rate
    times.append(off)
    return Run([low + (limit - low) * mp.exp(-rate * (mp.mpf(0.78) - off))], event_times=times)


# A buck converter: inductor and capacitor driven by a switch that is on for the share p[0] of each period p[1].
def _buck(on):
    return lambda xp, t, y, p: [20.0 * on - 2.0 * y[1] - p[2] * y[0] + 0 * p[0], 8.0 * y[0] - 4.0 * y[1]]


BUCK = (Phase(_buck(1.0), (_falling(12),)), Phase(_buck(0.0), (_rising(12),)))


def _converted(mp, p):
    """The state from edge to edge, by the eigenvalues of the matrix of the circuit."""
    duty, period, damping = p
    a = mp.matrix([[-damping, -2], [8, -4]])
    half, product = (a[0, 0] + a[1, 1]) / 2, mp.det(a)
    w = mp.sqrt(product - half * half)
    steady = -mp.inverse(a) * mp.matrix([20, 0])
    times = [(k + part) * period for k in range(10) for part in (duty, 1)]
    t, y, on, past = mp.mpf(0), mp.matrix([0, 0]), 1, []
    for stop in [*(u for u in times if u < 1), mp.mpf(1)]:
        tau, rest = stop - t, y - on * steady
        turned = mp.cos(w * tau) * rest + mp.sin(w * tau) / w * (a * rest - half * rest)
        y, t, on = on * steady + mp.exp(half * tau) * turned, stop, 1 - on
        past.append(stop)
    return Run([y[0], y[1]], event_times=past[:-1])


PROBLEMS = (
    _pulse_width(
        "pulse_width", 2, "A heater switched by a clock of trained duty and period.", 5, 0.93, (0.37, 0.2, 1.5)
    ),
    _pulse_width("fast_clock", 3, "The same with two hundred edges.", 100, 1.0, (0.37, 0.0101, 1.5)),
    Problem(
        "buck_converter",
        "clocks",
        3,
        "The current of a buck converter after eight periods of its switch.",
        BUCK,
        (0.4, 0.12, 1.0),
        lambda xp, p: [0 * p[0], 0 * p[0]],
        (0.0, 1.0),
        final(),
        _converted,
        max_events=26,
    ),
    Problem(
        "peak_current",
        "clocks",
        4,
        "A current that is switched on by a clock and off at a limit: events of time and state in turn.",
        PEAK,
        (0.5, 0.1, 0.5, 12.0),
        lambda xp, p: [0 * p[0]],
        (0.0, 0.78),
        final(),
        _limited,
        max_events=18,
    ),
)
