"""Training: the loop over optimizer steps and what it needs."""

from .gradient_accumulation import batched_mean as batched_mean
from .history import FitError as FitError
from .history import History as History
from .options import Checkpoint as Checkpoint
from .options import EarlyStopping as EarlyStopping
from .options import FitProgress as FitProgress
from .options import MetricsFile as MetricsFile
from .options import NonFinite as NonFinite
from .saved_fit import SavedFit as SavedFit
from .saved_fit import read_fit as read_fit
from .sharding import join_processes as join_processes
from .stream import ResumableStream as ResumableStream
