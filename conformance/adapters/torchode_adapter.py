"""torchode: `AutoDiffAdjoint` of `Tsit5` with the `IntegralController`; derivatives by PyTorch.

After the documentation of version 1.0.1 at torchode.readthedocs.org: "Gradients & Backpropagation", which prefers
`AutoDiffAdjoint`, and "Step Size Controllers", whose first choice is the `IntegralController`. It has no events; a
known time ends a solve, and the next one begins from there. The gradient of its step sizes, which is NaN where the
error estimate is zero, is turned off by `backprop_through_step_size_control`. Batches are its own.
"""

import functools
import importlib.metadata

import torch  # pyright: ignore[reportMissingImports]
import torchode  # pyright: ignore[reportMissingImports]

from ..problem import Phase, Problem, Run
from .answers import Answer, NotExpressible, Refused
from .segments import simulate

MAX_STEPS = 65536


def version() -> str:
    """Returns the versions of torchode and PyTorch."""
    return f"{importlib.metadata.version('torchode')} (torch {torch.__version__})"


def prepare(problem: Problem) -> "Solver":
    """Returns the functions that answer a problem."""
    if any(phase.searched for phase in problem.phases):
        raise NotExpressible("it has no events")
    if problem.stiff:
        raise NotExpressible("it has no implicit method")
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
        """Returns answer and gradient of each row by one solve of all of them, which has a status for each."""
        problem, rows = self.problem, self._tensor(rows).requires_grad_()
        p = list(rows.T)
        start = torch.stack([torch.as_tensor(part, dtype=self.dtype) for part in problem.start(torch, p)], dim=1)
        ends = [torch.full((len(rows),), t, dtype=self.dtype) for t in problem.span]
        sol = _solver(problem, problem.phases[0], p).solve(torchode.InitialValueProblem(start, *ends))
        values = torch.stack([problem.measure(torch, Run(y, [], [])) for y in sol.ys[:, -1]])
        (gradients,) = torch.autograd.grad(values.sum(), rows)
        right = (sol.status == torchode.Status.SUCCESS.value).tolist()
        return [
            (Answer(float(value), []), gradient.tolist()) if ok else Refused("its status says so")
            for value, gradient, ok in zip(values, gradients, right, strict=True)
        ]

    def _tensor(self, p):
        return torch.tensor(p, dtype=self.dtype)

    def _gradient(self, p, create_graph=False):
        value = self._quantity(p)[0]
        (gradient,) = torch.autograd.grad(value, p, create_graph=create_graph, allow_unused=True)
        return torch.zeros_like(p) if gradient is None else gradient

    def _quantity(self, p):
        stack = lambda parts: torch.stack([torch.as_tensor(part, dtype=self.dtype) for part in parts])
        solve = functools.partial(_one_phase, self.problem, p)
        run = simulate(self.problem, p, torch, stack, solve, float)
        return self.problem.measure(torch, run), run.event_times


def _solver(problem: Problem, phase: Phase, p):
    """The solver of a phase, for a batch of states."""

    def field(t, y):
        parts = phase.field(torch, t, list(y.T), p)
        return torch.stack([torch.broadcast_to(torch.as_tensor(part, dtype=y.dtype), t.shape) for part in parts], dim=1)

    term = torchode.ODETerm(field)
    tolerances = {"atol": 1e-6, "rtol": 1e-5} if problem.single else {"atol": 1e-12, "rtol": 1e-10}
    controller = torchode.IntegralController(**tolerances, term=term)
    return torchode.AutoDiffAdjoint(
        torchode.Tsit5(term=term), controller, max_steps=MAX_STEPS, backprop_through_step_size_control=False
    )


def _one_phase(problem: Problem, p, phase: Phase, t, y, stop, saves, happened):
    """Time, state, event and saved states of one phase, for the loop of `segments`."""
    t, stop = (torch.as_tensor(s, dtype=y.dtype) for s in (t, stop))
    inside = [s for s in saves if float(t) <= s <= float(stop)]
    times = torch.stack([*(torch.as_tensor(s, dtype=y.dtype) for s in inside), stop])
    problem_ = torchode.InitialValueProblem(y[None], t[None], stop[None], times[None])
    sol = _solver(problem, phase, p).solve(problem_)
    if int(sol.status[0]) != torchode.Status.SUCCESS.value:
        raise Refused(f"status {torchode.Status(int(sol.status[0])).name}")
    return stop, sol.ys[0, -1], None, dict(zip(inside, sol.ys[0], strict=False))
