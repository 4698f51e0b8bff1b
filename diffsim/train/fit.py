"""Training: one call for any model, loss, optimiser and data."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PyTree

from .._errors import InputError, RunError
from .._jax.traced_function import is_traced
from .._jax.tracers import is_tracer
from .._types import Model
from ..parameters import parameters, partition, unconstrain
from .compiled_steps import State
from .data import non_finite_in
from .diagnosis import Finding, blame_data, diagnose_stuck
from .host_loop import Task
from .options import TO_THE_END, Checkpoint, EarlyStopping, FitProgress, NonFinite
from .progress import Progress
from .sharding import Group
from .snapshot import Keeper, Snapshot, origin

ENOUGH = 10  # losses none of which is below the first that tell of no progress


class History(NamedTuple):
    """What a fit went through: the loss of each step, and the wall times in seconds of stepping and of compiling.

    `dropped` counts the steps that were not finite and left out, `validation` has the validation loss after each
    compiled call, and `stopped` tells what ended the fit before its batches did: "minutes", "patience" or nothing.
    `at_bound` has the paths of the parameters that a least-squares fit or a minimizer left on a bound. `status` is the
    name of their `FitStatus` in small letters, and "no_progress" for any fit of which no step lowered the loss;
    `message` says in words how the fit ended, and what keeps it from moving.
    """

    loss: Float[np.ndarray, " steps"]
    seconds: float
    compile_seconds: float
    dropped: int = 0
    validation: Float[np.ndarray, " calls"] | None = None
    stopped: str = ""
    at_bound: tuple[str, ...] = ()
    status: str = ""
    message: str = ""

    @property
    def last_loss(self) -> float:
        """The last loss that is finite; NaN if there is none."""
        finite = self.loss[np.isfinite(self.loss)]
        return float(finite[-1]) if len(finite) else float("nan")

    def __repr__(self) -> str:
        """The first and the last loss, the number of steps, the times, and how the fit ended."""
        if not isinstance(self.loss, np.ndarray):
            return tuple.__repr__(self)
        made = int(np.sum(~np.isnan(self.loss)))
        first = f"{self.loss[0]:.4g} -> " if made > 1 else ""
        parts = [f"loss {first}{self.last_loss:.4g} in {made} of {len(self.loss)} steps"]
        parts += [f"{self.seconds:.3g} s (and {self.compile_seconds:.3g} s of compiling)"]
        parts += [f"{self.dropped} steps dropped"] if self.dropped else []
        parts += [f"at its bound: {', '.join(self.at_bound)}"] if self.at_bound else []
        return f"History({'; '.join([*parts, *([self.message] if self.message else [])])})"


class FitError(RunError):
    """A fit that met a loss or gradient that is not finite; it keeps the last healthy `model` and the `history`."""

    def __init__(self, message: str, model: Model, history: History):
        super().__init__(message)
        self.model, self.history = model, history


def fit(
    loss: Callable[[Model, Any], Float[jax.Array, ""]],
    model: Model,
    optimizer: optax.GradientTransformation,
    batches: PyTree,
    *,
    filter_spec: PyTree[bool] | None = None,
    steps_per_call: int = 50,
    progress: bool = True,
    checkpoint: str | Path | Checkpoint | None = None,
    non_finite: str | NonFinite = "stop",
    early_stopping: EarlyStopping = TO_THE_END,
    callback: Callable[[FitProgress], None] | None = None,
    devices: Sequence | None = None,
) -> tuple[Model, History]:
    """The model after one optimiser step for each batch, and the history of the loss.

    `loss(model, batch)` is a scalar; `batches` is a tree of arrays whose leading axis counts the steps (a stack of
    keys, of minibatches, of targets). `filter_spec` chooses the parameters as `trainable` and `frozen` do, by default all.
    Parameters with bounds are trained through a transform that keeps them inside.

    `steps_per_call` steps run in one compiled call, and the host reads a call's losses while the next one runs. The
    compiled call is kept: the same `loss`, `optimizer` and shapes do not compile twice. Progress goes to stderr.

    A fit with a `checkpoint` goes on from the file if there is one: stopped at any moment and called again with the
    same arguments, on the same machine and versions, it ends with the same bits as if it had never stopped. A file of
    other arguments is refused, and kept; only `loss` cannot be compared. `non_finite` is what becomes of a step whose
    loss or gradient is not finite, `early_stopping` may end the fit early, and `callback` is called between compiled calls.

    With `devices`, such as `jax.devices()`, each takes an equal part of every batch, along the second axis of
    `batches`, and the loss and gradient of a step are the means over the parts: right for a `loss` that is a mean over
    the items of its batch. All processes of `jax.distributed` make the same call, with all of the batches; process 0
    alone reads and writes files, shows progress and calls `callback`. A checkpoint goes on with any number of devices,
    with the same numbers but for rounding.

    If no loss comes below the first, the history's status is "no_progress", and its message names a likely cause.

    Raises InputError for batches of unequal length, for an `optimizer` that is none of optax, as a number, within
    `jit`, `vmap` and `grad` (fits run on the host), for a loss that is no scalar, if nothing trains, for a checkpoint
    of other arguments and for devices that cannot share a batch equally, FitError at the first loss or gradient that
    is not finite, or at the limit of `non_finite`, and RunError if another process is lost.
    """
    on_host("fit", model, batches)
    check_optimizer(optimizer)
    began = time.monotonic()
    policy = NonFinite(non_finite) if isinstance(non_finite, str) else non_finite
    steps = _count(batches)
    if steps_per_call < 1:
        raise InputError(f"steps_per_call={steps_per_call}: a call makes at least one step")
    trained, fixed = partition(model, filter_spec)
    trained = unconstrain(trained)
    group = Group.of(devices, batches)
    task = Task(loss, optimizer, fixed, batches, steps, min(steps_per_call, steps), policy, early_stopping, group)
    snapshot = task.start(State(trained, optimizer.init(trained), jnp.array(0), jnp.array(True)))
    keeper = Keeper(checkpoint, group)
    if keeper.options is not None:
        of_fit = origin(steps, task.size, model, batches, optimizer, snapshot.state)
        snapshot = keeper.resume(snapshot._replace(origin=of_fit), policy)
    with Progress(steps, progress and group.leads) as bar:
        with bar.compiling(loss):
            snapshot, compiling = task.warm(snapshot)
        keeper.save(snapshot)
        deadline = np.inf if early_stopping.minutes is None else began + 60 * early_stopping.minutes
        snapshot, stopped = _run(task, snapshot, keeper, bar, callback if group.leads else None, deadline)
        if stopped:
            bar.show(snapshot.done, snapshot.losses[snapshot.done - 1], last=True)
        status, message = _ending(task, model, filter_spec, snapshot, stopped)
        bar.say(message)
    healthy = bool(snapshot.state.healthy)
    losses = snapshot.losses[: snapshot.done] if healthy else snapshot.losses
    validation = None if snapshot.best is None else snapshot.validation[: -(-snapshot.done // task.size)]
    history = History(losses, snapshot.seconds, compiling, int(np.sum(snapshot.dropped)), validation, stopped)
    history = history._replace(status=status, message=message)
    if not healthy:
        _fail(task, model, filter_spec, snapshot.state, history)
    keeper.save(snapshot)
    best = snapshot.best
    return task.model(best.trained if best is not None and best.call else snapshot.state.trained), history


def _run(task: Task, snapshot: Snapshot, keeper: Keeper, bar: Progress, callback, deadline: float):
    """The snapshot at the end of a fit, and what ended it before its batches did."""
    began = time.perf_counter() - snapshot.seconds
    try:
        for call in task.calls(snapshot):
            new = task.after(snapshot, call)
            new = new._replace(seconds=time.perf_counter() - began)
            healthy = bool(new.state.healthy)
            made = new.done if healthy else int(new.state.step)
            if made:
                bar.show(made, new.losses[made - 1], last=not healthy)
            if not healthy:
                return new, ""
            if callback is not None:
                callback(task.progress(snapshot.done, new))
            snapshot = new
            if task.over(snapshot) or (deadline < np.inf and task.group.agree(time.monotonic() > deadline)):
                break
            keeper.offer(snapshot)
    except KeyboardInterrupt:
        keeper.interrupted(snapshot)
        raise
    except jax.errors.JaxRuntimeError as error:
        if not task.group.several:
            raise
        keeper.save(snapshot)
        where = f"at step {snapshot.done} of {task.steps}"
        raise RunError(f"another process was lost {where}: start all again with the same call") from error
    if task.out_of_patience(snapshot):
        return snapshot, "patience"
    return snapshot, "" if snapshot.done == task.steps else "minutes"


def _ending(task: Task, model: Model, filter_spec, snapshot: Snapshot, stopped: str) -> tuple[str, str]:
    """The status of a fit and a sentence, both empty unless something is to be said of how it ended."""
    message = f"stopped by {stopped} after {snapshot.done} of {task.steps} steps" if stopped else ""
    losses = snapshot.losses[: snapshot.done][~snapshot.dropped[: snapshot.done]]
    same = len(losses) > 1 and np.all(losses == losses[0])
    if not bool(snapshot.state.healthy) or np.any(losses < losses[:1]) or not (same or len(losses) >= ENOUGH):
        return "", message
    if task.group.several:
        return "no_progress", f"no progress: no loss of {len(losses)} steps is below the first"
    trained, fixed = partition(model, filter_spec)
    batch = jax.tree.map(lambda leaf: leaf[0], task.batches)
    finding, cause = diagnose_stuck(task.loss, trained, fixed, batch, squares=False)
    if finding == Finding.MINIMUM:
        return "converged", f"no loss of {len(losses)} steps is below the first, {losses[0]:.4g}: {cause}"
    if finding == Finding.ROUGH:
        cause = "the learning rate may be too large" if losses[-1] > losses[0] else "the learning rate may be too small"
    cause = "; ".join([*non_finite_in(batch, "batches"), cause])
    return "no_progress", f"no progress: no loss of {len(losses)} steps is below the first, {losses[0]:.4g}; {cause}"


def _fail(task: Task, start: Model, filter_spec, state: State, history: History):
    """Raises FitError, naming the first parameter whose gradient is not finite at the step that failed."""
    step, model = int(state.step), task.model(state.trained)
    batch = jax.tree.map(lambda leaf: leaf[step], task.batches)
    gradient = eqx.filter_grad(task.loss)(model, batch)
    bad = [path for path, entry in parameters(gradient).items() if not np.all(np.isfinite(entry.value))]
    where = f"; the gradient of {bad[0]} is not finite there" if bad else ""
    dropped = f", the last of {task.policy.limit} in a row that are not finite" if task.policy.policy != "stop" else ""
    value = float(task.loss(model, batch))
    cure = "try a smaller learning rate, or a loss that masks failed trajectories by their status"
    if not task.group.several:
        value_and_gradient = lambda model, batch: eqx.filter_value_and_grad(task.loss)(model, batch)
        cure = blame_data(value_and_gradient, model, batch, "the batch") or cure
    if not (task.group.several or bad or non_finite_in(batch, "the batch")):
        cure = _wrong(task, start, filter_spec, cure)
    raise FitError(
        f"loss {value:g} at step {step} of {task.steps}{dropped}{where}. The last healthy model is kept; {cure}",
        model,
        history,
    )


def _wrong(task: Task, start: Model, filter_spec, otherwise: str) -> str:
    """The derivative of the starting model that finite differences contradict, or another phrase if there is none."""
    trained, fixed = partition(start, filter_spec)
    batch = jax.tree.map(lambda leaf: leaf[0], task.batches)
    finding, cause = diagnose_stuck(task.loss, trained, fixed, batch, squares=False)
    return cause if finding == Finding.DERIVATIVE else otherwise


def on_host(what: str, *trees: PyTree) -> None:
    """Raises InputError, in which `what` is the name of a fit, if it is called from within a transformed function."""
    if is_traced() or any(is_tracer(leaf) for leaf in jax.tree.leaves(trees)):
        raise InputError(
            f"{what} was called within jit, vmap or grad: fits run on the host. Call it outside; "
            "fit_many runs many fits side by side in one compiled call"
        )


def check_optimizer(optimizer: Any) -> None:
    """Raises InputError for what is no optimizer, as a learning rate, a schedule or one that was not called."""
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return
    if isinstance(optimizer, int | float) or eqx.is_array(optimizer):
        raise InputError(f"optimizer={optimizer} is a number: give an optimizer, such as optax.adam({optimizer})")
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    raise InputError(f"optimizer={name} is no optimizer: give one of optax with its learning rate, as optax.adam(1e-3)")


def _count(batches) -> int:
    """The number of steps: the common length of the leading axes."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        found = ", ".join(sorted(str(length[0]) if length else "none" for length in lengths))
        raise InputError(f"batches have leading axes of lengths {found}: give one common number of steps")
    return next(iter(lengths))[0]
