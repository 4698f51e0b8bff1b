"""Loggers of fits, each against its package without a network: the values of the history, each step once."""

import json
import struct
import sys

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim.train.loggers import metrics_of

# Warnings of the packages and of what they import, not of their use here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(aim|wandb|mlflow|sqlalchemy|tensorboard|google|pytz).*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
START, STEPS = jnp.array(0.0), 95
SCHEDULE = optax.exponential_decay(1.0, STEPS, 0.1)
BAD = jnp.arange(STEPS) == 33
EVENTS = {"loss": list(range(1, STEPS + 1)), "learning_rate": list(range(1, STEPS + 1))}
CALLS = [*range(10, STEPS, 10), STEPS]


class Killed(Exception):
    pass


def loss(x, is_bad):
    return jnp.where(is_bad, jnp.nan, (x - 3.0) ** 2)


def run_fit(callback, path, kill_at=None):
    """A fit that is saved after every second call, and killed after the call that ends with a step."""

    def call(progress):
        callback(progress)
        if progress.step == kill_at:
            raise Killed

    options = {"steps_per_call": 10, "progress": False, "non_finite": "skip", "callback": call}
    stopping = ds.EarlyStopping(validation=lambda x: (x - 2.0) ** 2)
    saved = ds.Checkpoint(path, calls=2)
    optimizer = optax.sgd(lambda count: 0.01 * SCHEDULE(count))
    return ds.fit(loss, START, optimizer, BAD, early_stopping=stopping, checkpoint=saved, **options)[1]


def interrupted_fit(make_logger, path):
    """The history of a fit that is killed after step 50, one call after the last saving, and resumed."""
    with pytest.raises(Killed):
        run_fit(make_logger(), path, kill_at=50)
    return run_fit(make_logger(), path)


def check(logged, history):
    """The steps and values by name are those of the history, each once and in order."""
    steps = {name: [step for step, _ in points] for name, points in logged.items()}
    assert steps == {**EVENTS, "dropped": CALLS, "validation": CALLS}
    values = {name: [value for _, value in points] for name, points in logged.items()}
    # TensorBoard has single precision.
    np.testing.assert_allclose(values["loss"], history.loss, rtol=1e-7)
    np.testing.assert_allclose(values["learning_rate"], 0.1 ** (np.arange(STEPS) / STEPS), rtol=1e-6)
    np.testing.assert_allclose(values["validation"], history.validation, rtol=1e-7)
    assert values["dropped"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def read_events(folder):
    """What TensorBoard shows of a folder."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_each_step_of_a_resumed_fit_once(tmp_path):
    pytest.importorskip("tensorboardX")
    loggers = []

    def make_logger():
        for logger in loggers:
            logger.close()
        loggers.append(ds.train.TensorBoard(tmp_path / "events", learning_rate=SCHEDULE))
        return loggers[-1]

    history = interrupted_fit(make_logger, tmp_path / "fit.npz")
    assert len(list((tmp_path / "events").iterdir())) == 2
    check(read_events(tmp_path / "events"), history)


def test_a_fit_that_starts_again_replaces_the_events_of_the_folder(tmp_path):
    pytest.importorskip("tensorboardX")
    events = ds.train.TensorBoard(str(tmp_path))
    for target in (1.0, 2.0):
        targets = jnp.full(4, target)
        ds.fit(lambda x, b: (x - b) ** 2, START, optax.sgd(0.1), targets, callback=events, progress=False)
    assert read_events(tmp_path)["loss"][0] == (1, 4.0)
    assert len(read_events(tmp_path)["loss"]) == 4


def read_wandb(path):
    """The logged values of an offline run: records in blocks, as in LevelDB's log."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, whole, logged = path.read_bytes(), 7, b"", {}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind not in (1, 4):  # the last part of a record, or all of it
            continue
        record, whole = messages.Record.FromString(whole), b""
        values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for name in ("loss", "learning_rate", "dropped", "validation"):
            if f"fit/{name}" in values:
                logged.setdefault(name, []).append((values["fit/step"], values[f"fit/{name}"]))
    return logged


class StandIn:
    """A run of Weights & Biases or Aim, whose packages take seconds to start."""

    def __init__(self):
        self.summary, self.axes, self.rows = {}, {}, {}

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values):
        self.summary.update(values)
        self.rows.setdefault(values["step"], []).append(values)

    def track(self, values, step):
        self.rows[step] = [{"step": step} | values]


@pytest.mark.parametrize("make", [ds.train.Wandb, ds.train.Aim])
def test_a_run_receives_each_step_of_a_resumed_fit_once(make, tmp_path):
    run = StandIn()
    history = interrupted_fit(lambda: make(run, learning_rate=SCHEDULE), tmp_path / "fit.npz")
    rows = [row for rows in run.rows.values() for row in rows]
    points = lambda name: [(row["step"], row[name]) for row in rows if name in row]
    check({name: points(name) for name in ("loss", "learning_rate", "dropped", "validation")}, history)
    assert set(run.axes.values()) == ({"step"} if make is ds.train.Wandb else set())


@pytest.mark.slow
def test_wandb_has_each_step_of_a_resumed_fit_once(tmp_path):
    """A run that resumes on the server is not possible offline; the two fits log to one run."""
    wandb = pytest.importorskip("wandb")
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True)
    run = wandb.init(project="test", mode="offline", dir=str(tmp_path), settings=settings)
    make_logger = lambda: ds.train.Wandb(run, learning_rate=SCHEDULE, prefix="fit/")
    history = interrupted_fit(make_logger, tmp_path / "fit.npz")
    run.finish()
    wandb.teardown()
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    check(read_wandb(path), history)


@pytest.fixture
def mlflow_client(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    # The store without a database, which a newer version runs only on demand.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())


def test_mlflow_has_each_step_of_a_resumed_fit_once(tmp_path, mlflow_client):
    run = mlflow_client.create_run(mlflow_client.create_experiment("test"))
    make_logger = lambda: ds.train.MLflow(run, client=mlflow_client, learning_rate=SCHEDULE, prefix="fit/")
    history = interrupted_fit(make_logger, tmp_path / "fit.npz")
    names = ("loss", "learning_rate", "dropped", "validation")
    entries = {name: mlflow_client.get_metric_history(run.info.run_id, f"fit/{name}") for name in names}
    check({name: [(entry.step, entry.value) for entry in entries[name]] for name in names}, history)


def test_mlflow_takes_more_metrics_than_a_request_may_hold(mlflow_client):
    run = mlflow_client.create_run(mlflow_client.create_experiment("test"))
    log, steps = ds.train.MLflow(run, client=mlflow_client), jnp.zeros(2100)
    ds.fit(lambda x, _: x**2, START + 1, optax.sgd(1e-3), steps, steps_per_call=2100, callback=log, progress=False)
    assert len(mlflow_client.get_metric_history(run.info.run_id, "loss")) == 2100


@pytest.mark.slow
def test_aim_has_each_step_of_a_resumed_fit_once(tmp_path):
    aim = pytest.importorskip("aim", reason="Aim has packages for Python 3.12 and older only")
    repo = aim.Repo.from_path(str(tmp_path), init=True)
    quiet = {"system_tracking_interval": None, "log_system_params": False, "capture_terminal_logs": False}
    runs = [aim.Run(repo=repo, **quiet)]
    name = runs[0].hash

    def make_logger():
        runs[-1].close()
        runs.append(aim.Run(name, repo=repo, **quiet))
        return ds.train.Aim(runs[-1], learning_rate=SCHEDULE)

    history = interrupted_fit(make_logger, tmp_path / "fit.npz")
    logged = {}
    for metric in runs[-1].metrics():
        steps, (values, *_) = metric.data.items_list()
        logged[metric.name] = list(zip(steps, values, strict=True))
    runs[-1].close()
    check(logged, history)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ds.train.TensorBoard("x"), r"tensorboardX is not installed: pip install 'diffsim\[tensorboard\]'"),
        (lambda: ds.train.MLflow(None), r"mlflow.* is not installed: pip install 'diffsim\[mlflow\]'"),
    ],
    ids=["tensorboard", "mlflow"],
)
def test_a_missing_package_is_named_with_its_extra(make, message, monkeypatch):
    for module in ("tensorboardX", "mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ds.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "source"),
    [(ds.train.Wandb, "wandb.init"), (ds.train.Aim, "aim.Run"), (ds.train.MLflow, "mlflow.start_run")],
    ids=["wandb", "aim", "mlflow"],
)
def test_what_is_not_a_run_is_refused(make, source):
    if make is ds.train.MLflow:
        pytest.importorskip("mlflow")
    with pytest.raises(ds.InputError, match=rf"run='my run' is not a run: give what {source}\("):
        make("my run")


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (optax.constant_schedule(0.5), [0.5, 0.5]),
        (optax.join_schedules([optax.constant_schedule(0.5), optax.linear_schedule(0.4, 0.0, 4)], [3]), [0.5, 0.4]),
    ],
    ids=["constant", "joined"],
)
def test_rates_are_those_of_the_steps(schedule, rates):
    """The schedule counts from 0: the rate of step 3 is schedule(2)."""
    progress = ds.train.FitProgress(4, np.array([1.0, np.inf]), np.array([False, True]), None, lambda: None, 8)
    first, second = metrics_of(progress, schedule, "a/").items()
    assert first == (3, {"a/loss": 1.0, "a/learning_rate": pytest.approx(rates[0])})
    assert second == (4, {"a/loss": np.inf, "a/learning_rate": pytest.approx(rates[1]), "a/dropped": 1.0})
