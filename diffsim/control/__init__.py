"""Tools for controllers trained through the dynamics: limits, starts, horizons, losses, judges."""

from .dynamic_programming import Axis as Axis
from .dynamic_programming import Value as Value
from .dynamic_programming import best_control as best_control
from .dynamic_programming import best_value as best_value
from .evaluate import episodes as episodes
from .gradient_growth import Growth as Growth
from .gradient_growth import gradient_growth as gradient_growth
from .gradient_growth import growths as growths
from .gradient_growth import up_to as up_to
from .initial_states import draw_starts as draw_starts
from .policies import finite as finite
from .policies import mean_cost as mean_cost
from .straight_through import saturate as saturate
from .straight_through import sign as sign
