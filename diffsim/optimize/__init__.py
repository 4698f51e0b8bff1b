"""Parameters that fit: least squares, minimization, bounds, multistart, evolution, multiple shooting."""

from .cma_es import fit_cma_es as fit_cma_es
from .least_squares import LBFGS as LBFGS
from .least_squares import LEVENBERG_MARQUARDT as LEVENBERG_MARQUARDT
from .least_squares import fit_least_squares as fit_least_squares
from .least_squares import minimize as minimize
from .multistart import Fits as Fits
from .multistart import draw_models as draw_models
from .multistart import fit_many as fit_many
from .shooting import ShootingProblem as ShootingProblem
from .shooting import fit_growing as fit_growing
from .shooting import fit_multiple_shooting as fit_multiple_shooting
from .status import FitStatus as FitStatus
