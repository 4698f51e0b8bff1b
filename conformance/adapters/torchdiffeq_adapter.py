"""torchdiffeq: `odeint` and `odeint_event`, begun again after each event; derivatives by PyTorch.

After the README of version 0.2.5, section "Differentiable event handling", and its example `bouncing_ball.py`: the
parameters of event functions are in the state, the method is the default `dopri5`, and a function that is zero after
its event is not looked at for 1e-7, since it would trigger the next event at once.

Its events have no direction and no end. A crossing in the wrong direction is passed over, and the end of a phase is an
event too; what it ends is solved again by `odeint`.
"""

import torch  # pyright: ignore[reportMissingImports]
import torchdiffeq  # pyright: ignore[reportMissingImports]

from ..problem import Phase, Problem
from .answers import NotExpressible
from .segments import turned
from .torch_solver import TorchSolver

NUDGE = 1e-7
OPTIONS = {"rtol": 1e-10, "atol": 1e-12}
SINGLE = {"rtol": 1e-5, "atol": 1e-6}


def version() -> str:
    """Returns the versions of torchdiffeq and PyTorch."""
    return f"{torchdiffeq.__version__} (torch {torch.__version__})"


def prepare(problem: Problem) -> TorchSolver:
    """Returns the functions that answer a problem."""
    if problem.stiff:
        raise NotExpressible("it has no implicit method of variable step size")
    return TorchSolver(problem, _one_phase)


class _Searched:
    """The event functions of a phase, with its end as the last of them; their parameters are part of the state."""

    def __init__(self, phase: Phase, stop):
        self.events = phase.searched
        self.stop = stop

    def __call__(self, t, state):
        y, p = state
        values = [formula(torch, t, y, p) for _, formula in self.events]
        return torch.stack([torch.as_tensor(v, dtype=y.dtype) for v in (*values, self.stop - t)])

    def first(self, t, state):
        """The event whose function is zero at t, or None for the end of the phase."""
        place = int(torch.argmin(torch.abs(self(t, state))))
        return None if place == len(self.events) else self.events[place][0]

    def is_zero(self, event, t, state):
        """Whether the function of an event is zero, but for the error with which its time was found."""
        places = [i for i, (other, _) in enumerate(self.events) if other is event]
        return bool(places) and abs(float(self(t, state)[places[0]])) < NUDGE


def _one_phase(problem: Problem, p, phase: Phase, t, y, stop, saves, happened):
    """Time, state, event and saved states of one phase, for the loop of `segments`."""
    t, stop = (torch.as_tensor(s, dtype=y.dtype) for s in (t, stop))
    slope = lambda s, z: torch.stack([torch.as_tensor(part, dtype=z.dtype) for part in phase.field(torch, s, z, p)])
    field = lambda s, state: (slope(s, state[0]), torch.zeros_like(p))
    options = SINGLE if problem.single else OPTIONS
    solve = lambda y, times: torchdiffeq.odeint(field, (y, p), torch.stack(times), **options)[0][1:]
    searched, states = _Searched(phase, stop), {}
    while searched.events:
        now, begin = t, y
        if searched.is_zero(happened, t, (y, p)):
            now = torch.minimum(t + NUDGE, stop)
            begin = solve(y, [t, now])[-1]
        if float(now) >= float(stop):
            break
        after, path = torchdiffeq.odeint_event(field, (begin, p), now, event_fn=searched, **options)
        end = path[0][-1]
        happened = searched.first(after, (end, p))
        if happened is None:
            break
        states |= _saved(solve, t, y, [s for s in saves if float(t) <= s <= float(after) and s not in states])
        direction = happened.direction
        if direction == "both" or direction != turned(happened, torch, after, end, p, slope):
            return after, end, happened, states
        # A crossing at once has no derivative with respect to t: what is passed over there is not begun again from it.
        t, y = (after, end) if float(after) > float(t) else (t, y)
    states |= _saved(solve, t, y, [s for s in saves if float(t) <= s <= float(stop) and s not in states])
    return stop, solve(y, [t, stop])[-1] if float(stop) > float(t) else y, None, states


def _saved(solve, t, y, times):
    """States at times of one solve from t, which are not before it."""
    later = [s for s in times if s > float(t)]
    states = {s: y for s in times if s == float(t)}
    if later:
        found = solve(y, [t, *(torch.as_tensor(s, dtype=y.dtype) for s in later)])
        states |= dict(zip(later, found, strict=True))
    return states
