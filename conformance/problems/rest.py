"""Systems at rest, whose state does not move but whose tangent does."""

from ..problem import Event, Phase, Problem, Run, final


def _pulled(xp, t, y, p):
    return [-p[1] * (y[0] - p[0])]


def _pulled_exactly(mp, p):
    return Run([p[0] * (1 - mp.exp(-p[1]))])


def _pushed(xp, t, y, p):
    """An oscillator of frequency p[0] under a force p[1]."""
    return [y[1], p[1] - p[0] * p[0] * y[0]]


def _pushed_exactly(mp, p):
    return Run([p[1] * (1 - mp.cos(2 * p[0])) / (p[0] * p[0])])


def _squared(xp, t, y, p):
    return [p[0] * p[0] - p[1] * y[0]]


def _squared_exactly(mp, p):
    return Run([p[0] * p[0] / p[1] * (1 - mp.exp(-p[1]))])


# Nothing moves before p[0]; then a force p[1] accelerates a mass.
WOKEN = (
    Phase(lambda xp, t, y, p: [y[1], 0 * y[0]], (Event(times=lambda xp, p: [p[0]], to=1),)),
    Phase(lambda xp, t, y, p: [y[1], p[1] + 0 * y[0]]),
)


def _woken(mp, p):
    tau = 2 - p[0]
    return Run([p[1] * tau * tau / 2, p[1] * tau], event_times=[p[0]])


def _upright(xp, t, y, p):
    """A pendulum at its unstable equilibrium, under a torque p[1]."""
    return [y[1], p[0] * xp.sin(y[0]) + p[1]]


def _upright_exactly(mp, p):
    """To the second order in the torque, which is zero: sinh is odd, so that there is no second-order term."""
    w = mp.sqrt(p[0])
    return Run([p[1] / p[0] * (mp.cosh(2 * w) - 1)])


def _at_rest(name, level, about, field, p, end, exact, start=1, stiff=False):
    return Problem(
        name,
        "rest",
        level,
        about,
        (Phase(field),),
        p,
        lambda xp, p: [0 * p[0]] * start,
        (0.0, end),
        final(),
        exact,
        stiff=stiff,
        scale=1.0,
    )


PROBLEMS = (
    _at_rest("mild_rest", 2, "A state at rest with a rate of 2.", _pulled, (0.0, 2.0), 1.0, _pulled_exactly),
    _at_rest(
        "stiff_rest",
        4,
        "A state at rest with a rate of 1000: a solver whose steps grow without limit has no derivative.",
        _pulled,
        (0.0, 1000.0),
        1.0,
        _pulled_exactly,
        stiff=True,
    ),
    _at_rest(
        "oscillator_at_rest",
        3,
        "A fast oscillator at rest, whose force is zero.",
        _pushed,
        (20.0, 0.0),
        2.0,
        _pushed_exactly,
        start=2,
    ),
    _at_rest(
        "upright_pendulum",
        3,
        "A pendulum at its upper equilibrium, and what a torque would do.",
        _upright,
        (9.81, 0.0),
        2.0,
        _upright_exactly,
        start=2,
    ),
    _at_rest(
        "second_derivative_at_rest",
        4,
        "A state at rest whose gradient is zero too, and whose Hessian is not.",
        _squared,
        (0.0, 50.0),
        1.0,
        _squared_exactly,
    ),
    Problem(
        "woken_by_a_clock",
        "rest",
        3,
        "A mass at rest until a force is switched on at a trained time.",
        WOKEN,
        (1.25, 3.0),
        lambda xp, p: [0 * p[0], 0 * p[0]],
        (0.0, 2.0),
        final(),
        _woken,
        max_events=3,
    ),
)
