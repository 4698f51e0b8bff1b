"""torchdiffeq: `odeint` and `odeint_event`, begun again after each event; derivatives by PyTorch.

Its events have no direction and no end: a crossing of the wrong direction is passed over, and the end of the run is an
event too. After an event, a function that is zero is not looked at before a millionth of the time unit, much as in the
library's own example of a bouncing ball, which moves the ball off the floor.
"""

import functools

import torch  # pyright: ignore[reportMissingImports]
import torchdiffeq  # pyright: ignore[reportMissingImports]

from ..problem import Phase, Problem
from .answers import Answer, NotExpressible, each
from .segments import simulate

NUDGE = 1e-6
DIRECTIONS = {"rising": 1, "falling": -1}
OPTIONS = {"rtol": 1e-10, "atol": 1e-12, "method": "dopri8"}
SINGLE = {"rtol": 1e-5, "atol": 1e-6, "method": "dopri5"}


def version() -> str:
    """Returns the versions of torchdiffeq and PyTorch."""
    return f"{torchdiffeq.__version__} (torch {torch.__version__})"


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    if problem.stiff:
        raise NotExpressible("it has no implicit method of variable step size")
    return Solver(problem)


class Solver:
    """Value and derivatives, by reverse mode through the solver's operations."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.dtype = torch.float32 if problem.single else torch.float64

    def value(self, p) -> Answer:
        """Returns the quantity and the event times."""
        value, times = self._quantity(self._tensor(p))
        return Answer(float(value), [float(t) for t in times])

    def gradient(self, p) -> list[float]:
        """Returns the gradient."""
        return self._gradient(self._tensor(p).requires_grad_()).tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the Hessian-vector product, by reverse over reverse mode."""
        p = self._tensor(p).requires_grad_()
        gradient = self._gradient(p, create_graph=True)
        if not gradient.requires_grad:
            return [0.0] * len(p)
        (product,) = torch.autograd.grad(gradient @ self._tensor(v), p, allow_unused=True)
        return (torch.zeros_like(p) if product is None else product).tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row, one after the other."""
        return each(self, rows)

    def _tensor(self, p):
        return torch.tensor(p, dtype=self.dtype)

    def _gradient(self, p, create_graph=False):
        value = self._quantity(p)[0]
        if not value.requires_grad:
            return torch.zeros_like(p)
        (gradient,) = torch.autograd.grad(value, p, create_graph=create_graph, allow_unused=True)
        return torch.zeros_like(p) if gradient is None else gradient

    def _quantity(self, p):
        stack = lambda parts: torch.stack([torch.as_tensor(part, dtype=self.dtype) for part in parts])
        solve = functools.partial(_one_phase, self.problem, p)
        run = simulate(self.problem, p, torch, stack, solve, float)
        return self.problem.measure(torch, run), run.event_times


class _Searched:
    """The event functions of a phase, with the end of the run as the last of them."""

    def __init__(self, phase: Phase, p, stop):
        self.events = phase.searched
        self.p, self.stop = p, stop

    def __call__(self, t, y):
        values = [formula(torch, t, y, self.p) for _, formula in self.events]
        return torch.stack([torch.as_tensor(v, dtype=y.dtype) for v in (*values, self.stop - t)])

    def happened(self, t, y, before):
        """The event whose function is zero at t, given the signs of all functions at the start; None for the end."""
        values = self(t, y)
        place = int(torch.argmin(torch.abs(values)))
        if place == len(self.events):
            return None, True
        event = self.events[place][0]
        sign = DIRECTIONS.get(event.direction, 0)
        return event, sign == 0 or sign * float(before[place]) < 0


def _one_phase(problem: Problem, p, phase: Phase, t, y, stop, saves, happened):
    """Time, state, event and saved states of one phase, for the loop of `segments`."""
    t = torch.as_tensor(t, dtype=y.dtype)
    stop = torch.as_tensor(stop, dtype=y.dtype)
    field = lambda s, z: torch.stack([torch.as_tensor(part, dtype=z.dtype) for part in phase.field(torch, s, z, p)])
    searched = _Searched(phase, p, stop)
    options = SINGLE if problem.single else OPTIONS
    solve = functools.partial(torchdiffeq.odeint, field, **options)
    states, first = {}, y
    while True:
        now, begin = t, y
        if (happened or y is not first) and float(torch.min(torch.abs(searched(t, y)))) < 1e-7:
            now = torch.minimum(t + NUDGE, stop)
            begin = solve(y, torch.stack([t, now]))[-1] if float(now) > float(t) else y
        if not searched.events or float(now) >= float(stop):
            after, event, right = stop, None, True
            end = solve(begin, torch.stack([now, stop]))[-1] if float(stop) > float(now) else begin
        else:
            before = searched(now, begin)
            after, path = torchdiffeq.odeint_event(
                field, begin, now, event_fn=searched, odeint_interface=torchdiffeq.odeint, **options
            )
            end = path[-1]
            event, right = searched.happened(after, end, before)
        inside = [s for s in saves if float(t) <= s <= float(after) and s not in states]
        states |= _saved(solve, t, y, inside)
        if right:
            return (stop if event is None else after), end, event, states
        t, y = after, end


def _saved(solve, t, y, times):
    """States at times of one solve from t, which are not before it."""
    later = [s for s in times if s > float(t)]
    states = {s: y for s in times if s == float(t)}
    if later:
        grid = torch.stack([t, *(torch.as_tensor(s, dtype=y.dtype) for s in later)])
        states |= dict(zip(later, solve(y, grid)[1:], strict=True))
    return states
