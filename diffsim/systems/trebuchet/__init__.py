"""The trebuchet: machine, equations of motion, and a throw as one differentiable function."""

from .machine import Flight as Flight
from .machine import Slide as Slide
from .machine import Swing as Swing
from .machine import Trebuchet as Trebuchet
from .machine import energy as energy
from .machine import flight as flight
from .machine import slide as slide
from .machine import swing as swing
from .throw import EXACT as EXACT
from .throw import FAST as FAST
from .throw import Drawing as Drawing
from .throw import Throw as Throw
from .throw import ThrowStatus as ThrowStatus
from .throw import drawing as drawing
from .throw import throw as throw
