"""Training: one call for any model, loss, optimizer and data."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PyTree

from .._errors import InputError, RunError
from .._types import Model
from ..parameters import parameters, partition, unconstrain
from .batches import ArrayBatches
from .compiled_steps import TrainState
from .data import non_finite_in
from .diagnosis import Finding, blame_data, diagnose_stuck
from .history import FitError, History
from .host_loop import FitLoop
from .options import NO_EARLY_STOPPING, Checkpoint, EarlyStopping, FitProgress, NonFinite
from .progress import ProgressBar, title
from .saved_fit import described
from .sharding import DeviceGroup, to_default_device
from .snapshot import Checkpointer, Snapshot, fingerprint
from .stream import StreamBatches, StreamFailedError, is_stream
from .validate import check_on_host, check_optimizer

MIN_STEPS_WITHOUT_PROGRESS = 10  # so many losses, none of them below the first, are reported as no progress


def fit(
    loss: Callable[[Model, Any], Float[jax.Array, ""]],
    model: Model,
    optimizer: optax.GradientTransformation,
    batches: PyTree,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer_state: PyTree | None = None,
    filter_spec: PyTree[bool] | None = None,
    steps_per_call: int = 50,
    progress: bool = True,
    checkpoint: str | Path | Checkpoint | None = None,
    non_finite: str | NonFinite = "stop",
    early_stopping: EarlyStopping = NO_EARLY_STOPPING,
    callback: Callable[[FitProgress], None] | None = None,
    devices: Sequence | None = None,
) -> tuple[Model, History]:
    """The model after one optimizer step for each batch, and the history of the loss.

    Parameters with bounds are trained through a transform that keeps them inside. The compiled program is cached: the
    same `loss`, `optimizer` and shapes do not compile again. If no loss is below the first, the history's status is
    "no_progress" and its message names a likely cause.

    Args:
        loss: `loss(model, batch)`, a scalar.
        model: The model to start from.
        optimizer: An optimizer of optax.
        batches: A tree of arrays whose leading axis counts the steps: a stack of keys, of minibatches, of targets. Or a
            stream that gives one batch after the other, a tree of arrays of the same shapes each: a generator or other
            iterator, a loader of grain or PyTorch, a `diffsim.train.ResumableStream`. A thread reads it ahead of the
            steps, by up to three calls.
        steps: The number of steps with a stream, which is passed through again where that takes it; by default one
            pass, whatever its length.
        epochs: The number of passes through a stream, in place of `steps`.
        optimizer_state: The state of the optimizer to start from: `history.optimizer_state` of a fit that this one
            continues.
        filter_spec: The parameters that train, as `trainable` and `frozen` return them; by default all.
        steps_per_call: The number of steps of a compiled call. The host reads the losses of a call while the next one
            runs, so that 50 steps hide its work for small models; validation, callback and checkpoints happen between
            the calls.
        progress: Whether to show progress on stderr.
        checkpoint: The file in which the fit is saved, and how often. If the file exists, the fit resumes from it:
            interrupted at any time and called again with the same arguments, on the same machine and versions, it
            returns the same bits as if it had never stopped. A file of a fit with other arguments is refused and left
            as it is; only `loss` cannot be compared. A fit with a stream goes on where the stream stood, and may be
            given more `steps`; it needs one that can tell its position, of grain or a `ResumableStream`.
        non_finite: What to do with a step whose loss or gradient is not finite.
        early_stopping: When to end before the last batch.
        callback: Called with a `FitProgress` after each compiled call.
        devices: Devices that share every batch, such as `jax.devices()`, each with an equal part along the second axis
            of `batches`. The loss and gradient of a step are the means over the parts, which is right for a `loss`
            that is a mean over the items of its batch. All processes of `jax.distributed` make the same call with all
            of the batches, or each with a stream of its own part of each batch; process 0 alone reads and writes files,
            shows progress and calls `callback`. A checkpoint may be resumed with another number of devices, with the
            same numbers up to rounding.

    Returns:
        The trained model, with a validation loss the best one, and the history.

    Raises:
        InputError: For batches of unequal length, an empty stream, an `optimizer` that is not one of optax, a loss that
            is not a scalar, nothing to train, a checkpoint of other arguments, devices that cannot share a batch
            equally, and within `jit`, `vmap` or `grad`, since fits run on the host.
        FitError: At the first loss or gradient that is not finite, or at the limit of `non_finite`; for a stream that
            fails, ends before its `steps`, or gives a batch of other shapes. The error holds the model up to there.
        RunError: If another process is lost.

    Examples:
        >>> loss = lambda slope, x: jnp.mean((slope * x - 2.0 * x) ** 2)
        >>> batches = jr.uniform(jr.key(0), (100, 32))  # 100 steps on 32 points each
        >>> slope, history = ds.fit(loss, jnp.array(0.0), optax.sgd(0.5), batches)
        >>> print(f"{slope:.3f}", history.loss.shape)
        2.000 (100,)
    """
    check_on_host("fit", model, None if is_stream(batches) else batches)
    check_optimizer(optimizer)
    began = time.monotonic()
    policy = NonFinite(non_finite) if isinstance(non_finite, str) else non_finite
    if steps_per_call < 1:
        raise InputError(f"steps_per_call={steps_per_call}: a call makes at least one step")
    trained, fixed = partition(model, filter_spec)
    trained = unconstrain(trained)
    group = DeviceGroup.of(devices)
    source = _source(batches, steps, epochs, steps_per_call, group, checkpoint is not None)
    loop = FitLoop(loss, optimizer, fixed, source, policy, early_stopping, group)
    opt_state = optimizer.init(trained) if optimizer_state is None else _continued(optimizer, trained, optimizer_state)
    snapshot = loop.initial_snapshot(TrainState(trained, opt_state, jnp.array(0), jnp.array(True)))
    checkpointer = Checkpointer(checkpoint, group, _settings(loop, trained))
    if checkpointer.options is not None:
        own = fingerprint(source, model, optimizer, optimizer_state, snapshot.state)
        # Of streams that each process has for itself, that of the leader counts.
        own = own._replace(batches=int(group.broadcast(np.asarray(own.batches, np.uint32))))
        snapshot = checkpointer.resume(snapshot._replace(fingerprint=own), policy)
    with ProgressBar(source.expected, progress and group.is_leader) as bar:
        with bar.compiling(loss):
            snapshot, compile_seconds = loop.compile(snapshot)
        checkpointer.save(snapshot)
        deadline = np.inf if early_stopping.minutes is None else began + 60 * early_stopping.minutes
        snapshot, stopped = _run(loop, snapshot, checkpointer, bar, callback if group.is_leader else None, deadline)
        if stopped or (snapshot.done and snapshot.done != source.expected):
            bar.show(snapshot.done, snapshot.losses[snapshot.done - 1], last=True)
        status, message = _ending(loop, model, filter_spec, snapshot, stopped)
        bar.say(message)
    history = _history(loop, snapshot, compile_seconds, stopped)._replace(status=status, message=message)
    if not bool(snapshot.state.healthy):
        _raise_fit_error(loop, model, filter_spec, snapshot.state, history)
    checkpointer.save(snapshot)
    if isinstance(stopped, StreamFailedError):
        message = f"{stopped}. The error's `model` is the one after step {snapshot.done}"
        raise FitError(message, loop.model(snapshot.state.trained), history) from stopped.__cause__
    best = snapshot.best
    return loop.model(best.trained if best is not None and best.call else snapshot.state.trained), history


def _source(batches, steps: int | None, epochs: int | None, steps_per_call: int, group: DeviceGroup, resumable: bool):
    """The batches of a fit, from arrays or a stream."""
    if is_stream(batches):
        return StreamBatches(batches, steps, epochs, steps_per_call, group, resumable)
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None:
            raise InputError(f"{name}={value} is for streams: batches that are arrays have a row for each step")
    return ArrayBatches(batches, steps_per_call, group)


def _settings(loop: FitLoop, trained: Model) -> dict[str, Any]:
    """What a checkpoint notes about the fit, in plain words and numbers."""
    stopping, policy = loop.early_stopping, loop.policy
    return {
        "loss": title(loop.loss),
        "steps": loop.batches.steps,
        "steps_per_call": loop.batches.steps_per_call,
        "non_finite": policy.policy,
        "minutes": stopping.minutes,
        "patience": stopping.patience,
        "has_validation": stopping.validation is not None,
        "devices": len(loop.group.devices or [0]),
        "parameters": described(trained),
    }


def _continued(optimizer: optax.GradientTransformation, trained: Model, optimizer_state: PyTree) -> PyTree:
    """The state that a fit continues from; raises InputError if it is not one of this optimizer and model."""
    expected = jax.eval_shape(optimizer.init, trained)
    shapes = lambda tree: [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]
    same = jax.tree.structure(expected) == jax.tree.structure(optimizer_state)
    if not same or shapes(expected) != shapes(optimizer_state):
        raise InputError(
            "optimizer_state is of another optimizer, model or filter_spec: give history.optimizer_state of a fit with "
            "these, or leave it out to start the optimizer anew"
        )
    return optimizer_state


def _run(loop: FitLoop, snapshot: Snapshot, checkpointer: Checkpointer, bar: ProgressBar, callback, deadline: float):
    """The snapshot at the end of a fit, and what ended it before its last batch: a word, or the failure of a stream."""
    began = time.perf_counter() - snapshot.seconds
    try:
        for result in loop.run_calls(snapshot):
            new = loop.snapshot_after(snapshot, result)
            new = new._replace(seconds=time.perf_counter() - began)
            healthy = bool(new.state.healthy)
            steps_made = new.done if healthy else int(new.state.step)
            if steps_made:
                bar.show(steps_made, new.losses[steps_made - 1], last=not healthy)
            if not healthy:
                return new, ""
            if callback is not None:
                callback(loop.progress(snapshot.done, new))
            snapshot = new
            if loop.is_finished(snapshot):
                break
            if deadline < np.inf and loop.group.broadcast(time.monotonic() > deadline):
                return snapshot, "minutes"
            checkpointer.save_if_due(snapshot)
    except StreamFailedError as error:
        return snapshot, error
    except KeyboardInterrupt:
        checkpointer.save_interrupted(snapshot)
        raise
    except jax.errors.JaxRuntimeError as error:
        if not loop.group.spans_processes:
            raise
        checkpointer.save(snapshot)
        where = f"at step {snapshot.done}"
        raise RunError(f"another process was lost {where}: start all again with the same call") from error
    return snapshot, "patience" if loop.is_out_of_patience(snapshot) else ""


def _history(loop: FitLoop, snapshot: Snapshot, compile_seconds: float, stopped) -> History:
    """The history of a fit up to a snapshot."""
    made = bool(snapshot.state.healthy) or loop.batches.is_stream
    losses = snapshot.losses[: snapshot.done] if made else snapshot.losses
    validation = None if snapshot.best is None else snapshot.validation[: loop.number_of_calls(snapshot.done)]
    word = "stream" if isinstance(stopped, StreamFailedError) else stopped
    opt_state, dropped = to_default_device(snapshot.state.opt_state), int(np.sum(snapshot.dropped))
    times = snapshot.seconds, compile_seconds
    return History(losses, *times, dropped, validation, word, optimizer_state=opt_state)


def _ending(loop: FitLoop, model: Model, filter_spec, snapshot: Snapshot, stopped) -> tuple[str, str]:
    """The status of a fit and a sentence about how it ended, both empty if there is nothing to say."""
    if isinstance(stopped, StreamFailedError):
        return "", ""
    of = "" if loop.batches.steps is None else f" of {loop.batches.steps}"
    message = f"stopped by {stopped} after {snapshot.done}{of} steps" if stopped else ""
    losses = snapshot.losses[: snapshot.done][~snapshot.dropped[: snapshot.done]]
    constant = len(losses) > 1 and np.all(losses == losses[0])
    long_enough = constant or len(losses) >= MIN_STEPS_WITHOUT_PROGRESS
    if not bool(snapshot.state.healthy) or np.any(losses < losses[:1]) or not long_enough:
        return "", message
    if loop.group.spans_processes:
        return "no_progress", f"no progress: no loss of {len(losses)} steps is below the first"
    trained, fixed = partition(model, filter_spec)
    batch = loop.batches.first
    finding, cause = diagnose_stuck(loop.loss, trained, fixed, batch, squares=False)
    if finding == Finding.MINIMUM:
        return "converged", f"no loss of {len(losses)} steps is below the first, {losses[0]:.4g}: {cause}"
    if finding == Finding.ROUGH:
        cause = "the learning rate may be too large" if losses[-1] > losses[0] else "the learning rate may be too small"
    cause = "; ".join([*non_finite_in(batch, "batches"), cause])
    return "no_progress", f"no progress: no loss of {len(losses)} steps is below the first, {losses[0]:.4g}; {cause}"


def _raise_fit_error(loop: FitLoop, start: Model, filter_spec, state: TrainState, history: History):
    """Raises FitError, naming the first parameter whose gradient is not finite at the step that failed."""
    step, model = int(state.step), loop.model(state.trained)
    batch = loop.batches.at(step)
    gradient = eqx.filter_grad(loop.loss)(model, batch)
    bad = [path for path, entry in parameters(gradient).items() if not np.all(np.isfinite(entry.value))]
    where = f"; the gradient of {bad[0]} is not finite there" if bad else ""
    dropped = f", the last of {loop.policy.limit} in a row that are not finite" if loop.policy.policy != "stop" else ""
    value, of = float(loop.loss(model, batch)), "" if loop.batches.steps is None else f" of {loop.batches.steps}"
    cure = "try a smaller learning rate, or a loss that masks failed trajectories by their status"
    if not loop.group.spans_processes:
        value_and_gradient = lambda model, batch: eqx.filter_value_and_grad(loop.loss)(model, batch)
        cure = blame_data(value_and_gradient, model, batch, "the batch") or cure
    if not (loop.group.spans_processes or bad or non_finite_in(batch, "the batch")):
        cure = _wrong_derivative(loop, start, filter_spec) or cure
    raise FitError(
        f"loss {value:g} at step {step}{of}{dropped}{where}; {cure}. The error's `model` is the one before that step",
        model,
        history,
    )


def _wrong_derivative(loop: FitLoop, start: Model, filter_spec) -> str:
    """A phrase that names the derivative of the starting model that finite differences contradict, if there is one."""
    trained, fixed = partition(start, filter_spec)
    finding, cause = diagnose_stuck(loop.loss, trained, fixed, loop.batches.first, squares=False)
    return cause if finding == Finding.DERIVATIVE else ""
