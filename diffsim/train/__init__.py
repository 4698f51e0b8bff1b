"""Training: the loop over optimizer steps and what it needs."""

from .gradient_accumulation import batched_mean as batched_mean
from .history import FitError as FitError
from .history import History as History
from .learning_rate_range import LearningRateRange as LearningRateRange
from .learning_rate_range import learning_rate_range as learning_rate_range
from .live_plot import LivePlot as LivePlot
from .loggers import Aim as Aim
from .loggers import MLflow as MLflow
from .loggers import TensorBoard as TensorBoard
from .loggers import Wandb as Wandb
from .loggers import callbacks as callbacks
from .options import Checkpoint as Checkpoint
from .options import EarlyStopping as EarlyStopping
from .options import FitProgress as FitProgress
from .options import MetricsFile as MetricsFile
from .options import NonFinite as NonFinite
from .saved_fit import SavedFit as SavedFit
from .saved_fit import read_fit as read_fit
from .sharding import join_processes as join_processes
from .stream import ResumableStream as ResumableStream
