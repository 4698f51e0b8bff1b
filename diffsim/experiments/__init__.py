"""Several experiments of unequal lengths, with gaps, fitted together; noise models, long tables, densities, designs."""

from .density import LogDensity as LogDensity
from .design import Design as Design
from .design import design_experiment as design_experiment
from .noise import NoiseModel as NoiseModel
from .noise import Normal as Normal
from .noise import Proportional as Proportional
from .noise import Student as Student
from .petab import PetabProblem as PetabProblem
from .petab import read_petab as read_petab
from .table import experiments_from_table as experiments_from_table
from .table import read_experiments as read_experiments
