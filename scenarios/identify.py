"""Which pendulum was it? Its length and friction from measured angles, with their uncertainties.

The measurements are a CSV file with columns `time` (s, increasing) and `angle` (rad, zero where it hangs; an empty cell
is a gap). Length, friction and the first angle and rate are fitted by Levenberg-Marquardt through the ODE solver, over
a horizon that grows, so that a wrong first length does not end in a local minimum of the wrong frequency. The
covariance gives intervals and a band, the profile likelihood checks the interval of the friction, and a certificate
checks the derivatives. Friction and mass enter the motion only by their ratio: the mass is given, and the page names
the combination of parameters that the data do not determine.

    python scenarios/identify.py                            the pendulum of the data set in scenarios/data
    python scenarios/identify.py pendulum --data MINE.csv --mass 0.3
    python scenarios/identify.py drag --data THROWS.csv     a trebuchet's drag coefficient from observed ranges
    python scenarios/identify.py generate OUT.csv           simulated angles with noise; or `--of throws`

Both data sets in scenarios/data are generated, as their first lines say. Expected: length 0.65 m and friction
0.012 N m s within their intervals; drag coefficient 0.9 within its own.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import functools
from pathlib import Path
from typing import Annotated, Literal, cast

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import numpy as np

import diffsim as ds
from diffsim.io.csv import remarks
from diffsim.io.files import write_text
from diffsim.io.measurements import read_measurements
from diffsim.systems.pendulum import Pendulum, State, pendulum
from diffsim.systems.trebuchet import FAST, Trebuchet, throw
from diffsim.uncertainty import Posterior, ProfileLikelihood
from diffsim.viz import plot, report

DATA = Path(__file__).with_name("data")
MACHINE = Trebuchet()  # whose throws are observed
LEVEL = 0.9  # of intervals and bands
ROWS = {"pendulum": 12, "throws": 4}  # measurements that a fit needs
LONG = 4000  # rows of a fit at most: the gradient stores the state at each of them
CONTROLLER = dfx.PIDController(rtol=1e-8, atol=1e-10)
FITTED = ("machine.length", "machine.friction", "angle", "rate")
TRUE_DRAG, TRUE_NOISE = 0.9, {"pendulum": 0.03, "throws": 0.4}  # of the generated data: rad, m
ANGLES, MASSES = (25.0, 55.0), (30.0, 90.0)  # degrees, kg: of generated throws


class Swing(eqx.Module):
    """A pendulum and the state it starts from."""

    machine: Pendulum
    angle: ds.Scalar = ds.param(0.5, "rad", (-np.pi, np.pi))
    rate: ds.Scalar = ds.param(0.0, "rad/s")


def solve(model: Swing, ts):
    """The angle (rad) at each of the times (s), and the status of the solve."""
    field = lambda t, s, machine: pendulum(machine, s)
    start, most = State(model.angle, model.rate), max(4096, 4 * len(ts))  # a step ends at each of the times
    options = {"stepsize_controller": CONTROLLER, "max_steps": most}
    swing = ds.solve(field, start, ts, model.machine, **options)
    return cast(State, swing.ys).angle, swing.status


def swing(model: Swing, ts):
    """The angle (rad) at each of the times (s), NaN after a solve that failed."""
    return solve(model, ts)[0]


def deviations(model: Swing, data):
    """Simulated minus measured angle (rad) at each time; zero in a gap."""
    ts, observed = data
    present = jnp.isfinite(observed)
    return jnp.where(present, swing(model, ts) - jnp.where(present, observed, 0.0), 0.0)


def measured(model: Swing, data):
    """The deviations (rad) where something was measured."""
    ts, observed = data
    return swing(model, ts)[np.isfinite(observed)] - observed[np.isfinite(observed)]


def fit_pendulum(
    *, data: cli.InFile = DATA / "pendulum.csv", mass: cli.Positive = 1.0, length: cli.Positive = 1.0, run: cli.Run
) -> dict:
    """Fit length, friction and start of a pendulum to measured angles, write the report.

    Args:
        data: CSV with the columns time (s) and angle (rad); an empty angle is a gap.
        mass: of the pendulum's bob, kg; the fitted friction is proportional to it.
        length: to start from, m.
    """
    table = read_measurements(data, ["time", "angle"], gaps=["angle"], increasing="time", rows=ROWS["pendulum"])
    ts, observed = table["time"], table["angle"]
    if len(ts) > LONG:
        raise ds.InputError(f"{data} has {len(ts)} rows: give at most {LONG}, by leaving some out")
    first = float(np.clip(observed[np.isfinite(observed)][0], -3.1, 3.1))
    begin = {"length": length, "mass": mass, "friction": 0.1 * mass * length**2}
    start = Swing(ds.replace(Pendulum(), begin), jnp.asarray(first))
    lengths = np.unique(np.geomspace(max(len(ts) // 16, 6), len(ts), 7).astype(int)).tolist()
    options = {"filter_spec": ds.trainable(start, *FITTED), "progress": False}
    run.say(f"fitting {np.sum(np.isfinite(observed))} measurements, over {lengths} rows")
    model, history = ds.optimize.fit_growing(deviations, start, (ts, observed), lengths=lengths, **options)
    # NumPy chooses the rows without gaps, so the times and the measurements cannot be traced arguments here.
    residuals = lambda model, _: measured(model, (ts, observed))
    posterior = ds.posterior(residuals, model, filter_spec=options["filter_spec"])
    run.say("profiling the friction")
    friction = ds.profile_likelihood(
        residuals, model, path="machine.friction", level=LEVEL, filter_spec=options["filter_spec"]
    )
    result = summary(posterior, history) | {"friction_profile": [friction.low, friction.high]}
    page = begin_page("A pendulum identified", data, run, posterior, result)
    pendulum_pages(page, run, model, posterior, friction, ts, observed)
    page.write(run.folder / "report.html")
    return result


def summary(posterior: Posterior, history: ds.train.History) -> dict:
    """The result of a fit: values, standard deviations, noise, loss, and which parameters are on a bound."""
    losses = history.loss[np.isfinite(history.loss)]
    rows = {row.path.split(".")[-1]: row for row in posterior.summary(LEVEL)}
    values = {name: row.value for name, row in rows.items()}
    stds = {f"{name}_std": None if np.isnan(row.std) else row.std for name, row in rows.items()}
    # The losses after the last iteration are NaN, so that a finite last one means that the iterations ran out.
    rest = {"noise": float(posterior.noise), "loss": float(losses[-1]), "converged": not np.isfinite(history.loss[-1])}
    rest |= {"at_bound": list(history.at_bound)}
    return values | stds | rest


def begin_page(title: str, data: Path, run: cli.Run, posterior: Posterior, result: dict) -> report.Report:
    """A page with the settings, the origin of the data and the table of parameters."""
    comments = remarks(data)
    page = report.Report(title, comments[0] if comments else f"Fitted to {data.name}")
    page.settings(run.settings)
    for remark in comments:
        page.text(remark)
    columns = ["parameter", "value", "unit", "standard deviation", f"{LEVEL:.0%} from", "to", "remark"]
    rows = [[r.path, r.value, r.unit, r.std, r.low, r.high, r.remark] for r in posterior.summary(LEVEL)]
    page.table("Parameters", columns, rows)
    page.result(result)
    for name, value in result.items():
        run.metric(name=name, value=value)
    return page


def pendulum_pages(
    page, run: cli.Run, model: Swing, posterior: Posterior, friction: ProfileLikelihood, ts, observed
) -> None:
    """Band, residuals, profile, what the data do not determine, sensitivities and the certificate."""
    band = posterior.credible_band(lambda model: swing(model, ts), LEVEL, include_noise=True)
    picture = plot.fit_band(ts, observed, band, float(posterior.noise), "time (s)", "angle (rad)", level=LEVEL)
    add_figure(page, run, "band", picture, "Measured angles, the fit and its band; below, the residuals.")
    std = float(posterior.std()[list(ds.parameters(posterior.trained)).index("machine.friction")])
    if 0 < std < np.inf:
        curve = plot.profile_curve(friction, std, float(posterior.critical_value(LEVEL)), "friction (N m s)")
        add_figure(page, run, "profile", curve, "Profile of the friction; dotted, the ends of its interval.")
    page.section("What the data do not determine")
    both = ds.trainable(model, *FITTED, "machine.mass")
    for direction in ds.posterior(
        lambda model, _: measured(model, (ts, observed)), model, filter_spec=both
    ).flat_directions():
        page.text(
            "Not determined, were the mass fitted too: " + ", ".join(f"{n} {w:+.3g}" for n, w in direction.items())
        )
    page.text("The numbers are relative changes which, made together, leave every simulated angle unchanged.")
    last = float(ts[-1])
    parts = ds.uncertainty.sensitivities(
        lambda m: swing(m, jnp.array([ts[0], last]))[-1], model, filter_spec=ds.trainable(model, *FITTED)
    )
    rows = [(name, float(value)) for name, value in parts.items()]
    page.table(f"Relative sensitivity of the angle at {last:g} s", ["parameter", "percent for one percent"], rows)
    run.say("checking the gradients")
    values = {path: entry.value for path, entry in ds.parameters(posterior.trained).items()}
    loss = lambda values: jnp.sum(measured(ds.replace(model, values), (ts, observed)) ** 2) / 2
    # Away from the minimum, where derivatives of the loss are not zero.
    check = ds.check_gradients(loss, ({path: 1.05 * value for path, value in values.items()},), rtol=1e-5)
    page.certificate(check, "Certificate: derivatives of the loss, 5% away from the fit")


def add_figure(page, run: cli.Run, name: str, figure, caption: str) -> None:
    """Puts a figure on the page and into the run folder."""
    page.figure(figure, caption)
    run.figure(name, figure)


@functools.partial(ds.forward_mode, in_axes=(None, 0, 0))
def distances(coefficient, angle, mass):
    """Range (m) of each throw of the default machine with this drag coefficient, release angle (rad), weight (kg)."""
    machine = ds.replace(MACHINE, {"Cd": coefficient, "angle": angle, "m_weight": mass})
    return throw(machine, check=False, stepsize_controller=FAST, mode="forward").range


def ranges(model: Trebuchet, shots):
    """The range (m) of each shot (release angle in rad, counterweight in kg), shape (shots, 2)."""
    return distances(model.Cd, shots[:, 0], shots[:, 1])


def misses(model: Trebuchet, data):
    """Simulated minus observed range (m)."""
    shots, observed = data
    return ranges(model, shots) - observed


def drag(*, data: cli.InFile = DATA / "throws.csv", start: cli.Positive = 0.5, run: cli.Run) -> dict:
    """Fit the drag coefficient of the default trebuchet's ball to observed ranges, write the report.

    Args:
        data: CSV with the columns angle_deg (release, degrees), m_weight (kg) and range (m), one throw a row.
        start: the drag coefficient to start from.
    """
    table = read_measurements(data, ["angle_deg", "m_weight", "range"], rows=ROWS["throws"])
    shots = np.column_stack([np.deg2rad(table["angle_deg"]), table["m_weight"]])
    if np.any(table["m_weight"] <= 0):
        raise ds.InputError(f"{data}: m_weight={table['m_weight'].min():g} kg is not allowed; give more than zero")
    machine, observed = ds.replace(MACHINE, {"Cd": start}), table["range"]
    chosen = ds.trainable(machine, "Cd")
    run.say(f"fitting {len(observed)} throws")
    model, history = ds.fit_least_squares(misses, machine, (shots, observed), filter_spec=chosen, progress=False)
    posterior = ds.posterior(misses, model, (shots, observed), filter_spec=chosen)
    result = summary(posterior, history)
    page = begin_page("A trebuchet's drag identified", data, run, posterior, result)
    shots, observed = (column[np.argsort(misses(model, (shots, 0.0)))] for column in (shots, observed))
    band = posterior.credible_band(lambda model: ranges(model, shots), LEVEL, include_noise=True)
    labels = "simulated range (m)", "observed range (m)"
    picture = plot.fit_band(band.value, observed, band, float(posterior.noise), *labels, level=LEVEL)
    add_figure(page, run, "band", picture, "Observed ranges against simulated ones; below, the residuals.")
    run.say("checking the gradients")
    loss = lambda values: jnp.sum(misses(ds.replace(model, values), (shots, observed)) ** 2) / 2
    check = ds.check_gradients(loss, ({"Cd": 1.05 * model.Cd + 0.01},), rtol=1e-4)
    page.certificate(check, "Certificate: derivative of the loss, 5% away from the fit")
    page.write(run.folder / "report.html")
    return result


def generate(
    out: cli.OutFile,
    *,
    of: Literal["pendulum", "throws"] = "pendulum",
    rows: Annotated[int, cli.Within(0, 100_000)] = 0,
    seed: cli.Seed = 0,
) -> dict:
    """Simulate measurements with noise and gaps, and write them with a remark that they are simulated.

    Args:
        out: the CSV to write.
        of: what is measured.
        rows: how many; 0 stands for 240 angles or 24 throws.
        seed: of the noise and the gaps.
    """
    if 0 < rows < ROWS[of]:
        raise ds.InputError(f"rows={rows}: give at least {ROWS[of]}, or 0")
    rng = np.random.default_rng(seed)
    make = simulate_angles if of == "pendulum" else simulate_throws
    header, columns, description = make(rng, rows or (240 if of == "pendulum" else 24))
    lines = [f"# Generated, not measured: {description}, normal noise of {TRUE_NOISE[of]}, seed {seed}", header]
    lines += [",".join("" if np.isnan(x) else f"{x:.6g}" for x in row) for row in np.column_stack(columns)]
    write_text(out, "\n".join(lines) + "\n")
    return {"file": str(out), "rows": len(lines) - 2}


def simulate_angles(rng, rows: int):
    """A header, columns and a description: angles of a pendulum at 20 Hz, a tenth of them and half a second missing."""
    machine = ds.replace(Pendulum(), {"length": 0.65, "friction": 0.012})
    true = Swing(machine, jnp.asarray(1.1), jnp.asarray(-0.4))
    ts = 0.05 * np.arange(rows)
    angles, status = jax.jit(solve)(true, ts)
    if not ds.finished(status):
        raise ds.RunError(f"the pendulum's motion was not solved: {ds.Status(int(status)).explanation}")
    observed = np.asarray(angles) + TRUE_NOISE["pendulum"] * rng.normal(size=rows)
    observed[1:][((rng.random(rows) < 0.1) | ((ts > 4.0) & (ts < 4.5)))[1:]] = np.nan
    description = "a pendulum of 0.65 m, 1 kg, friction 0.012 N m s, started at 1.1 rad, -0.4 rad/s"
    return "time,angle", (ts, observed), description


def simulate_throws(rng, rows: int):
    """A header, columns and a description: ranges of the default trebuchet at random angles and weights."""
    angles, masses = rng.uniform(*ANGLES, rows), rng.uniform(*MASSES, rows)
    machine = ds.replace(MACHINE, {"Cd": TRUE_DRAG})
    observed = np.asarray(jax.jit(ranges)(machine, np.column_stack([np.deg2rad(angles), masses])))
    failed = int(np.sum(~np.isfinite(observed)))
    if failed:
        raise ds.RunError(f"{failed} of {rows} throws have no range: give another seed")
    observed = observed + TRUE_NOISE["throws"] * rng.normal(size=rows)
    return "angle_deg,m_weight,range", (angles, masses, observed), f"throws of the default trebuchet, drag {TRUE_DRAG}"


fit_pendulum.__name__ = "pendulum"

if __name__ == "__main__":
    cli.main(fit_pendulum, drag, generate)
