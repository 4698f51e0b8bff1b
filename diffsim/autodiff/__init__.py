"""Ways of differentiating a function: automatic, by differences, by complex steps, by formula."""

from .compare_modes import ModeComparison as ModeComparison
from .derivative_table import DerivativeTable as DerivativeTable
