"""Ordinary differential equations with events: integration, and the derivatives of what it computes."""

from .hybrid import HybridResult as HybridResult
from .integrate import Solution as Solution
from .solve_phase import PhaseResult as PhaseResult
from .status import count_statuses as count_statuses
