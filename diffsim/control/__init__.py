"""Tools for controllers trained through the dynamics: limits, starts, horizons, losses, judges."""

from .episodes import episodes as episodes
from .horizon import Growth as Growth
from .horizon import gradient_growth as gradient_growth
from .horizon import growths as growths
from .horizon import up_to as up_to
from .limits import saturate as saturate
from .limits import sign as sign
from .optimum import Axis as Axis
from .optimum import Value as Value
from .optimum import best_control as best_control
from .optimum import best_value as best_value
from .policies import finite as finite
from .policies import mean_cost as mean_cost
from .starts import draw_starts as draw_starts
