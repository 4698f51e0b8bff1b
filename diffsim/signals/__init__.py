"""Inputs given as tables: measured signals and clocks, and the times at which they jump."""

from .clock import Clock as Clock
from .clock import clock as clock
from .read_signal import read_signal as read_signal
from .signal import Signal as Signal
from .signal import signal as signal
