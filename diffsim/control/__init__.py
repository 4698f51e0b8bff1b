"""Tools for controllers trained through the dynamics: limits, starts, horizons, judges, and what a policy saves."""

from .episodes import episodes as episodes
from .files import load_policy as load_policy
from .files import save_policy as save_policy
from .horizon import Growth as Growth
from .horizon import gradient_growth as gradient_growth
from .horizon import up_to as up_to
from .limits import saturate as saturate
from .limits import sign as sign
from .optimum import Axis as Axis
from .optimum import Value as Value
from .optimum import best_control as best_control
from .optimum import best_value as best_value
from .starts import draw_starts as draw_starts
