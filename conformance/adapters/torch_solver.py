"""What the adapters of libraries on PyTorch share: derivatives by reverse mode through the solver's operations."""

import functools
from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]

from ..problem import Problem
from .answers import Answer, each
from .segments import simulate


class TorchSolver:
    """Value and derivatives of a problem; `one_phase(problem, p, ...)` solves a phase for the loop of `segments`."""

    def __init__(self, problem: Problem, one_phase: Callable):
        self.problem, self.one_phase = problem, one_phase
        self.dtype = torch.float32 if problem.single else torch.float64

    def value(self, p) -> Answer:
        """Returns the quantity and the event times."""
        value, times = self._quantity(self.tensor(p))
        return Answer(float(value), [float(t) for t in times])

    def gradient(self, p) -> list[float]:
        """Returns the gradient."""
        return self._gradient(self.tensor(p).requires_grad_()).tolist()

    def hvp(self, p, v) -> list[float]:
        """Returns the Hessian-vector product, by reverse over reverse mode."""
        p = self.tensor(p).requires_grad_()
        gradient = self._gradient(p, create_graph=True)
        if not gradient.requires_grad:
            return [0.0] * len(p)
        (product,) = torch.autograd.grad(gradient @ self.tensor(v), p, allow_unused=True)
        return (torch.zeros_like(p) if product is None else product).tolist()

    def batch(self, rows) -> list:
        """Returns answer and gradient of each row, one after the other."""
        return each(self, rows)

    def tensor(self, p):
        """Returns the numbers as a tensor of the problem's number format."""
        return torch.tensor(p, dtype=self.dtype)

    def _gradient(self, p, create_graph=False):
        value = self._quantity(p)[0]
        if not value.requires_grad:
            return torch.zeros_like(p)
        (gradient,) = torch.autograd.grad(value, p, create_graph=create_graph, allow_unused=True)
        return torch.zeros_like(p) if gradient is None else gradient

    def _quantity(self, p):
        stack = lambda parts: torch.stack([torch.as_tensor(part, dtype=self.dtype) for part in parts])
        solve = functools.partial(self.one_phase, self.problem, p)
        run = simulate(self.problem, p, torch, stack, solve, float)
        return self.problem.measure(torch, run), run.event_times
