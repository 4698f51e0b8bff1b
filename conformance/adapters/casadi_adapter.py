"""CasADi: `cvodes` of SUNDIALS for smooth problems, and `erk` with its events, which are experimental.

`cvodes` uses the formulas that SUNDIALS advises: those of Adams, and those of backward differentiation for stiff
problems.

Times that are trained are inputs of an integrator whose time is scaled, as its users do. Events of the state are those
of the integrator: a function that becomes negative, and a transition of the state. Phase, number of events and
their times are states, too, which only transitions change.
"""

import casadi as ca  # pyright: ignore[reportMissingImports]

from ..problem import Problem, Run
from .answers import Answer, NotExpressible, Refused, each
from .segments import next_known

SMOOTH = {"reltol": 1e-10, "abstol": 1e-10, "quad_err_con": True, "max_num_steps": 200000}
"""Options of `cvodes`; gradients by parameters are quadratures, which `quad_err_con` holds to the tolerances."""

HYBRID = {"reltol": 1e-10, "abstol": 1e-12, "max_num_steps": 200000}
"""Options of `erk`."""

NEVER = -1e301
"""The time of an event that has not happened, which is a state and so cannot be NaN."""


def version() -> str:
    """Returns the version of CasADi."""
    return ca.__version__


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    if problem.single:
        raise NotExpressible("CasADi computes in double precision")
    return Solver(problem)


class Solver:
    """Value and derivatives of one expression."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.p = ca.MX.sym("p", len(problem.parameters))
        searched = any(event.function for phase in problem.phases for event in phase.events)
        build = _with_events if searched else _by_segments
        run = build(problem, self.p)
        times = ca.vertcat(*run.event_times) if isinstance(run.event_times, list) else run.event_times
        self.quantity = problem.measure(ca, run)
        self._value = ca.Function("value", [self.p], [self.quantity, times])

    def value(self, p) -> Answer:
        """Returns the quantity and the event times."""
        value, times = self._value(p)
        if float(value) <= NEVER:
            raise Refused("the event did not happen")
        return Answer(float(value), [float(t) for t in times.full().ravel() if t > NEVER])

    def gradient(self, p) -> list[float]:
        """Returns the gradient, by the adjoint sensitivities of the integrator."""
        self.value(p)
        return ca.Function("gradient", [self.p], [ca.gradient(self.quantity, self.p)])(p).full().ravel().tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the Hessian-vector product, by forward sensitivities of the adjoint ones."""
        product = ca.jtimes(ca.gradient(self.quantity, self.p), self.p, ca.DM(v))
        return ca.Function("hvp", [self.p], [product])(p).full().ravel().tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row, one after the other."""
        return each(self, rows)


def _by_segments(problem: Problem, p) -> Run:
    """The run of a problem without events of the state: one integrator for each phase, with scaled time."""
    number = lambda t: float(ca.Function("t", [p], [t])(list(problem.parameters))) if isinstance(t, ca.MX) else float(t)
    integrators = [_scaled(problem, phase, p.numel()) for phase in problem.phases]
    t, end = problem.span
    y, phase, times, saved, happened = ca.vertcat(*problem.start(ca, p)), 0, [], [], None
    now = number(t)
    while True:
        known = next_known(problem.phases[phase], ca, p, number, now, end, happened)
        stop = known[0] if known else end
        last = number(stop)
        for s in [s for s in problem.saves[len(saved) :] if s <= last]:
            y, t = integrators[phase](y, p, t, s), s
            saved.append(y)
        y, t, now = integrators[phase](y, p, t, stop), stop, last
        if known is None:
            return Run(y, saved, times)
        times.append(t)
        happened = known[1]
        y = ca.vertcat(*happened.reset(ca, t, y, p)) if happened.reset else y
        if happened.to is None:
            return Run(y, saved, times)
        phase = happened.to


def _scaled(problem: Problem, phase, count: int):
    """A function (y, p, t0, t1) that integrates a phase."""
    size = len(problem.start(ca, ca.MX.sym("p", count)))
    y, q, s = ca.MX.sym("y", size), ca.MX.sym("q", count + 2), ca.MX.sym("s")
    p, t0, t1 = q[:count], q[count], q[count + 1]
    slope = (t1 - t0) * ca.vertcat(*phase.field(ca, t0 + s * (t1 - t0), y, p))
    options = SMOOTH | {"linear_multistep_method": "bdf" if problem.stiff else "adams"}
    solve = ca.integrator("segment", "cvodes", {"x": y, "p": q, "t": s, "ode": slope}, 0.0, 1.0, options)
    return lambda y, p, t0, t1: solve(x0=y, p=ca.vertcat(p, t0, t1))["xf"]


def _with_events(problem: Problem, p) -> Run:
    """The run of a problem with events of the state, by one integrator with transitions."""
    size, count = len(problem.start(ca, p)), problem.max_events
    x, t, index = ca.MX.sym("x", size + 2 + count), ca.MX.sym("t"), ca.MX.sym("index")
    q = ca.MX.sym("q", p.numel())
    y, phase = x[:size], x[size]
    slope = ca.MX.zeros(size)
    for i, one in enumerate(problem.phases):
        slope += ca.if_else(phase == i, 1, 0) * ca.vertcat(*one.field(ca, t, y, q))
    zeros, after = _transitions(problem, x, t, q, size)
    post = ca.MX(x)
    for k, state in enumerate(after):
        post = ca.if_else(index == k, state, post)
    none = ca.MX.sym("none", 0)
    names = ["index", "t", "x", "z", "p", "u"], ["post_x", "post_z"]
    transition = ca.Function("transition", [index, t, x, none, q, none], [post, ca.MX(0, 1)], *names)
    ode = ca.vertcat(slope, ca.MX.zeros(2 + count))
    oracle = {"x": x, "p": q, "t": t, "ode": ode, "zero": ca.vertcat(*zeros)}
    grid = sorted({*problem.saves, problem.span[1]} - {problem.span[0]})
    options = HYBRID | {"transition": transition, "event_tol": 1e-10, "max_events": 10 * count + 100}
    solve = ca.integrator("hybrid", "erk", oracle, problem.span[0], grid, options)
    start = ca.vertcat(*problem.start(ca, p), 0, 0, NEVER * ca.DM.ones(count))
    ends = solve(x0=start, p=p)["xf"]
    states = {s: ends[:size, i] for i, s in enumerate(grid)} | {problem.span[0]: start[:size]}
    return Run(ends[:size, -1], [states[s] for s in problem.saves], ends[size + 2 :, -1])


def _transitions(problem: Problem, x, t, p, size: int):
    """The event functions, which cross zero from above, and the states after each of them."""
    y, phase, number = x[:size], x[size], x[size + 1]
    record = x[size + 2 :]
    zeros, after = [], []
    for i, one in enumerate(problem.phases):
        for event in one.events:
            values = [event.function(ca, t, y, p)] if event.function else [t - u for u in event.times(ca, p)]  # type: ignore[misc]
            signs = {"falling": [1], "rising": [-1], "both": [1, -1]}[event.direction] if event.function else [-1]
            reset = ca.vertcat(*event.reset(ca, t, y, p)) if event.reset else y
            to = len(problem.phases) if event.to is None else event.to
            times = [ca.if_else(number == k, t, record[k]) for k in range(record.numel())]
            state = ca.vertcat(reset, to, number + 1, *times)
            for value in values:
                for sign in signs:
                    zeros.append(sign * value)
                    after.append(ca.if_else(phase == i, state, x))
    return zeros, after
