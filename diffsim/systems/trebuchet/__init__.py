"""The trebuchet: its parameters, equations of motion, and a throw as one differentiable function."""

from .aiming import Aim as Aim
from .aiming import aim as aim
from .frames import Drawing as Drawing
from .frames import drawing as drawing
from .machine import Direction as Direction
from .machine import Flight as Flight
from .machine import Slide as Slide
from .machine import Swing as Swing
from .machine import Trebuchet as Trebuchet
from .machine import energy as energy
from .machine import flight as flight
from .machine import slide as slide
from .machine import swing as swing
from .shot import EXACT as EXACT
from .shot import FAST as FAST
from .shot import Throw as Throw
from .shot import ThrowStatus as ThrowStatus
from .shot import throw as throw
