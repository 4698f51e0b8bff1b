"""Ways of differentiating a function."""

from .compare_modes import ModeComparison as ModeComparison
from .derivative_table import DerivativeTable as DerivativeTable
