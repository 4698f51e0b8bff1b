"""Tools for controllers trained through the dynamics: actuator limits, initial states, horizons, losses, evaluation."""

from .dynamic_programming import GridAxis as GridAxis
from .dynamic_programming import ValueFunction as ValueFunction
from .dynamic_programming import greedy_control as greedy_control
from .dynamic_programming import value_iteration as value_iteration
from .evaluate import evaluate_episodes as evaluate_episodes
from .gradient_growth import GradientGrowth as GradientGrowth
from .gradient_growth import compare_gradient_growth as compare_gradient_growth
from .gradient_growth import gradient_growth as gradient_growth
from .gradient_growth import horizon_weights as horizon_weights
from .initial_states import sample_initial_states as sample_initial_states
from .policy_cost import check_finite as check_finite
from .policy_cost import mean_cost as mean_cost
from .straight_through import straight_through_clip as straight_through_clip
from .straight_through import straight_through_sign as straight_through_sign
