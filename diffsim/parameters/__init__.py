"""Parameters: arrays with a unit and bounds, declared once and addressed by path."""

from .declare import UNBOUNDED as UNBOUNDED
from .declare import Bounds as Bounds
from .declare import check_bounds as check_bounds
from .declare import constant_field as constant_field
from .declare import param as param
from .paths import Parameter as Parameter
from .paths import frozen as frozen
from .paths import parameters as parameters
from .paths import partition as partition
from .paths import python_numbers as python_numbers
from .paths import replace as replace
from .paths import trainable as trainable
from .transform import at_bound as at_bound
from .transform import constrain as constrain
from .transform import unconstrain as unconstrain
