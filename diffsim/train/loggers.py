"""Callbacks of a fit that write its course to TensorBoard, Weights & Biases, MLflow and Aim."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._errors import InputError
from .._extras import extra
from .options import FitProgress

MLFLOW_BATCH = 1000  # metrics that one request to a tracking server may hold


def callbacks(*functions: Callable[[FitProgress], None]) -> Callable[[FitProgress], None]:
    """A callback of a fit that calls several, one after the other.

    Args:
        functions: The callbacks.

    Examples:
        >>> steps = []
        >>> both = ds.train.callbacks(lambda p: steps.append(p.step), ds.train.MetricsFile("metrics.jsonl"))
        >>> x, _ = ds.fit(lambda x, _: x**2, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(4), callback=both)
        >>> steps
        [4]
    """

    def call_all(progress: FitProgress) -> None:
        for function in functions:
            function(progress)

    return call_all


class TensorBoard:
    """A callback of a fit that writes event files for TensorBoard by the package tensorboardX (extra `tensorboard`).

    It writes `loss` and `learning_rate` of each step, and `dropped` and `validation` of each compiled call at its last
    step. When a fit resumes or starts again, TensorBoard hides what the folder has of the steps that follow. A folder
    therefore holds one fit.

    Args:
        folder: The folder of the event files.
        learning_rate: The schedule of the optimizer, if the rate is to be written too. It counts all steps, also those
            that are dropped.
        options: Arguments of `tensorboardX.SummaryWriter`.

    Raises:
        InputError: If tensorboardX is not installed.

    Examples:
        >>> events, loss = ds.train.TensorBoard("events"), lambda x, _: x**2
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(4), callback=events)
    """

    def __init__(self, folder: str | Path, *, learning_rate: optax.Schedule | None = None, **options: Any):
        self.make_writer = extra("tensorboardX", "tensorboard").SummaryWriter
        self.folder, self.learning_rate, self.options = str(folder), learning_rate, options
        self.writer = None

    def __call__(self, progress: FitProgress) -> None:
        rows = metrics_of(progress, self.learning_rate)
        if self.writer is None:
            # The package names a file by the second, and a file of the same name would be overwritten.
            options = {"filename_suffix": f".{time.time_ns()}"} | self.options
            self.writer = self.make_writer(self.folder, purge_step=next(iter(rows)), **options)
        for step, values in rows.items():
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        self.writer.flush()
        if progress.step == progress.total:
            self.close()

    def close(self) -> None:
        """Writes what is pending; only needed after a fit that ended early, and before the end of the program."""
        if self.writer is not None:
            self.writer.close()
        self.writer = None


class Wandb:
    """A callback of a fit that logs to a run of Weights & Biases (extra `wandb`).

    It logs `loss` and `learning_rate` of each step, and `dropped` and `validation` of each compiled call at its last
    step, over an axis of their own, `step`. Steps that the run already has are not logged again: a fit that resumes
    with a run that resumes (`wandb.init(id=..., resume="allow")`) computes the same numbers. A second fit in one run
    therefore needs another prefix.

    Args:
        run: The run, from `wandb.init`.
        learning_rate: The schedule of the optimizer, if the rate is to be logged too. It counts all steps, also those
            that are dropped.
        prefix: What the names begin with, such as "pretraining/".

    Raises:
        InputError: If `run` is not a run.

    Examples:
        >>> class Run:  # stands for `run = wandb.init(project="cart")`
        ...     summary, define_metric = {}, lambda *args, **options: None
        ...     log = lambda self, values: print(values)
        >>> loss = lambda x, _: x**2
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(2), callback=ds.train.Wandb(Run()))
        {'step': 1, 'loss': 1.0}
        {'step': 2, 'loss': 0.25, 'dropped': 0.0}
    """

    def __init__(self, run: Any, *, learning_rate: optax.Schedule | None = None, prefix: str = ""):
        _check_run(run, "log", "wandb.init(project=...)")
        self.run, self.learning_rate, self.prefix = run, learning_rate, prefix
        self.last_step = None

    def __call__(self, progress: FitProgress) -> None:
        if self.last_step is None:
            self.last_step = self.run.summary.get(f"{self.prefix}step") or 0
            for name in ("loss", "learning_rate", "dropped", "validation"):
                self.run.define_metric(f"{self.prefix}{name}", step_metric=f"{self.prefix}step")
        for step, values in metrics_of(progress, self.learning_rate, self.prefix).items():
            if step > self.last_step:
                self.run.log({f"{self.prefix}step": step} | values)


class MLflow:
    """A callback of a fit that logs to a run of MLflow (extra `mlflow`).

    It logs `loss` and `learning_rate` of each step, and `dropped` and `validation` of each compiled call at its last
    step. Steps that the run already has are not logged again: a fit that resumes with a run that resumes
    (`mlflow.start_run(run_id=...)`) computes the same numbers. A second fit in one run therefore needs another prefix.

    Args:
        run: The run, from `mlflow.start_run` or `MlflowClient.create_run`.
        client: The client of the run's tracking server; by default one of `mlflow.get_tracking_uri()`.
        learning_rate: The schedule of the optimizer, if the rate is to be logged too. It counts all steps, also those
            that are dropped.
        prefix: What the names begin with, such as "pretraining/".

    Raises:
        InputError: If mlflow is not installed, and if `run` is not a run.

    Examples:
        >>> class Client:  # stands for `mlflow.MlflowClient()`, and Run for `mlflow.start_run()`
        ...     get_metric_history = lambda self, run_id, name: []
        ...     log_batch = lambda self, run_id, metrics: print([(m.key, m.step, m.value) for m in metrics])
        >>> class Run:
        ...     class info:
        ...         run_id = "4f1c"
        >>> log, loss = ds.train.MLflow(Run(), client=Client()), lambda x, _: x**2
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(2), callback=log)
        [('loss', 1, 1.0), ('loss', 2, 0.25), ('dropped', 2, 0.0)]
    """

    def __init__(self, run: Any, *, client: Any = None, learning_rate: optax.Schedule | None = None, prefix: str = ""):
        self.make_metric = extra("mlflow.entities", "mlflow").Metric
        _check_run(run, "info", "mlflow.start_run()")
        self.client = extra("mlflow", "mlflow").MlflowClient() if client is None else client
        self.run_id, self.learning_rate, self.prefix = run.info.run_id, learning_rate, prefix
        self.last_step = None

    def __call__(self, progress: FitProgress) -> None:
        if self.last_step is None:
            logged = self.client.get_metric_history(self.run_id, f"{self.prefix}loss")
            self.last_step = max((metric.step for metric in logged), default=0)
        now, rows = int(1000 * time.time()), metrics_of(progress, self.learning_rate, self.prefix)
        new = {step: values for step, values in rows.items() if step > self.last_step}
        metrics = [self.make_metric(name, value, now, step) for step, row in new.items() for name, value in row.items()]
        for first in range(0, len(metrics), MLFLOW_BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + MLFLOW_BATCH])


class Aim:
    """A callback of a fit that tracks it in a run of Aim (extra `aim`).

    It tracks `loss` and `learning_rate` of each step, and `dropped` and `validation` of each compiled call at its last
    step. Aim has one value for each step: those of a fit that resumes with its run (`aim.Run(run_hash)`) replace the
    values of the same steps. A second fit in one run therefore needs another prefix.

    Args:
        run: The run, an `aim.Run`.
        learning_rate: The schedule of the optimizer, if the rate is to be tracked too. It counts all steps, also those
            that are dropped.
        prefix: What the names begin with, such as "pretraining/".

    Raises:
        InputError: If `run` is not a run.

    Examples:
        >>> class Run:  # stands for `run = aim.Run(experiment="cart")`
        ...     track = lambda self, values, *, step: print(step, values)
        >>> loss = lambda x, _: x**2
        >>> x, _ = ds.fit(loss, jnp.array(1.0), optax.sgd(0.25), jnp.zeros(2), callback=ds.train.Aim(Run()))
        1 {'loss': 1.0}
        2 {'loss': 0.25, 'dropped': 0.0}
    """

    def __init__(self, run: Any, *, learning_rate: optax.Schedule | None = None, prefix: str = ""):
        _check_run(run, "track", "aim.Run(experiment=...)")
        self.run, self.learning_rate, self.prefix = run, learning_rate, prefix

    def __call__(self, progress: FitProgress) -> None:
        for step, values in metrics_of(progress, self.learning_rate, self.prefix).items():
            self.run.track(values, step=step)


def metrics_of(
    progress: FitProgress, learning_rate: optax.Schedule | None = None, prefix: str = ""
) -> dict[int, dict[str, float]]:
    """The values to log by name, for each step of a call by its number; the first step of a fit has number 1."""
    first = progress.step - len(progress.losses)
    rows = {first + 1 + row: {f"{prefix}loss": float(loss)} for row, loss in enumerate(progress.losses)}
    if learning_rate is not None:
        for step, rate in zip(rows, rates_of(learning_rate, first, progress.step), strict=True):
            rows[step][f"{prefix}learning_rate"] = float(rate)
    rows[progress.step][f"{prefix}dropped"] = float(np.sum(progress.dropped))
    if progress.validation is not None:
        rows[progress.step][f"{prefix}validation"] = float(progress.validation)
    return rows


def rates_of(learning_rate: optax.Schedule, first: int, stop: int) -> np.ndarray:
    """The learning rates of the steps after `first` others, up to `stop`; a schedule begins with 0."""
    rates = jax.vmap(lambda count: jnp.asarray(learning_rate(count)))(jnp.arange(first, stop))
    return np.asarray(rates)


def _check_run(run: Any, method: str, source: str) -> None:
    if not hasattr(run, method):
        raise InputError(f"run={run!r} is not a run: give what {source} returns")
