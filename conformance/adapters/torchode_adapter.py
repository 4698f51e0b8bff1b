"""torchode: `AutoDiffAdjoint` of `Tsit5` with the `IntegralController`; derivatives by PyTorch.

After the documentation of version 1.0.1 at torchode.readthedocs.org: "Gradients & Backpropagation", which prefers
`AutoDiffAdjoint`, and "Step Size Controllers", whose first choice is the `IntegralController`. It has no events; a
known time ends a solve, and the next one begins from there. The gradient of its step sizes, which is NaN where the
error estimate is zero, is turned off by `backprop_through_step_size_control`. Batches are its own.
"""

import importlib.metadata

import torch  # pyright: ignore[reportMissingImports]
import torchode  # pyright: ignore[reportMissingImports]

from ..problem import Phase, Problem, Run
from .answers import Answer, NotExpressible, Refused
from .torch_solver import TorchSolver

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
    return Solver(problem, _one_phase)


class Solver(TorchSolver):
    """Value and derivatives, with batches by a batch axis."""

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row by one solve of all of them, which has a status for each."""
        problem, rows = self.problem, self.tensor(rows).requires_grad_()
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
