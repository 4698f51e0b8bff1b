"""Tools for controllers trained through the dynamics: limits, starts, horizons, judges, and what a policy saves."""

from .episodes import episodes as episodes
from .files import load_policy as load_policy
from .files import save_policy as save_policy
from .horizon import Growth as Growth
from .horizon import gradient_growth as gradient_growth
from .horizon import up_to as up_to
from .limits import saturate as saturate
from .limits import sign as sign
from .starts import draw_starts as draw_starts
