"""What does a drive through town cost the battery of an electric car, and what does its voltage tell about the battery?

The input is measured: the speed of the Urban Dynamometer Driving Schedule of the US Environmental Protection Agency,
1,369 s at 1 Hz, which begins with the trip to work of a driver in Los Angeles. Mass, rolling resistance and drag give
the power at the wheels; a battery with a capacity, a resistance and one branch of a resistance and a capacitor gives
it. The energy of the drive is differentiated by all parameters of car and battery. Then four parameters of the battery
are fitted to its voltage, of which the recording has gaps.

    python scenarios/drive_cycle.py                    energy and its derivatives, the battery, with a report
    python scenarios/drive_cycle.py --cycle MINE.csv --voltage VOLTS.csv
    python scenarios/drive_cycle.py generate OUT.csv   a simulated recording of the voltage with noise and gaps

The speed is measured, the voltage in scenarios/data is simulated, as its first line says. Expected: the true values of
resistances, capacitor and capacity within their intervals. About a minute.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import diffsim as ds
from diffsim.io.csv import remarks
from diffsim.io.files import write_text
from diffsim.io.measurements import read_measurements
from diffsim.viz import plot, report

DATA = Path(__file__).with_name("data")
G, AIR = 9.81, 1.2  # m/s2, kg/m3
MPH = 0.44704  # m/s
NOISE = 0.2  # V, of the voltage
LEVEL = 0.9  # of intervals
TOLERANCES = {"rtol": 1e-7, "atol": 1e-9, "max_steps": 16384}


class Car(eqx.Module):
    """A car on a level road."""

    mass: ds.Scalar = ds.param(1600.0, "kg", (100.0, 1e5))
    rolling: ds.Scalar = ds.param(0.010, "", (0.0, 0.1))
    drag_area: ds.Scalar = ds.param(0.65, "m2", (0.0, 20.0))
    auxiliary: ds.Scalar = ds.param(400.0, "W", (0.0, 1e4))
    efficiency: ds.Scalar = ds.param(0.88, "", (0.1, 1.0))

    def power(self, speed, acceleration):
        """The power (W) that the battery gives, positive, or takes while braking."""
        inertia, road = self.mass * acceleration, self.mass * G * self.rolling
        wheels = (inertia + road + 0.5 * AIR * self.drag_area * speed**2) * speed
        return self.auxiliary + jnp.where(wheels > 0, wheels / self.efficiency, wheels * self.efficiency)


class Battery(eqx.Module):
    """A battery as an equivalent circuit: a voltage without load, a resistance, and one branch that lags behind."""

    resistance: ds.Scalar = ds.param(0.08, "ohm", (1e-3, 1.0))
    branch_resistance: ds.Scalar = ds.param(0.05, "ohm", (1e-3, 1.0))
    branch_capacitance: ds.Scalar = ds.param(600.0, "F", (1.0, 1e5))
    capacity: ds.Scalar = ds.param(20.0, "A h", (1.0, 500.0))
    charge: ds.Scalar = ds.param(0.8, "", (0.05, 1.0))

    def open_voltage(self, charge):
        """The voltage (V) without load."""
        return 330.0 + 50.0 * charge - 12.0 * jnp.exp(-12.0 * charge)


class Model(eqx.Module):
    """Car and battery."""

    car: Car = Car()
    battery: Battery = Battery()


class State(NamedTuple):
    """Charge as a share of the capacity, voltage of the branch (V), energy that was drawn (J)."""

    charge: Float[Array, "..."]
    branch: Float[Array, "..."]
    energy: Float[Array, "..."]


def current_and_voltage(model: Model, t, state: State, speed):
    """Current (A) and voltage (V) of the battery at a time, from its power: (u - r i) i = power."""
    battery = model.battery
    v, acceleration = jax.jvp(speed, (t,), (jnp.ones_like(t),))
    power = model.car.power(v, acceleration)
    inner = battery.open_voltage(state.charge) - state.branch
    current = (inner - jnp.sqrt(inner**2 - 4 * battery.resistance * power)) / (2 * battery.resistance)
    return current, inner - battery.resistance * current


def drive(t, state: State, args):
    """dy/dt."""
    model, speed = args
    battery = model.battery
    current, voltage = current_and_voltage(model, t, state, speed)
    return State(
        -current / (3600 * battery.capacity),
        (current - state.branch / battery.branch_resistance) / battery.branch_capacitance,
        current * voltage,
    )


def simulate(model: Model, speed, ts) -> State:
    """The states at the times (s)."""
    start = State(model.battery.charge, jnp.zeros(()), jnp.zeros(()))
    return ds.integrate(drive, start, ts, (model, speed), **TOLERANCES)


def voltages(model: Model, speed, ts):
    """The voltage (V) at the times (s), each between two knots of the speed, where the acceleration jumps."""
    states = simulate(model, speed, jnp.concatenate([jnp.zeros(1), ts]))
    rows = jax.tree.map(lambda x: x[1:], states)
    return jax.vmap(lambda t, state: current_and_voltage(model, t, state, speed)[1])(ts, rows)


def deviations(model: Model, data):
    """Simulated minus measured voltage (V); zero in a gap."""
    speed, ts, measured = data
    present = jnp.isfinite(measured)
    return jnp.where(present, voltages(model, speed, ts) - jnp.where(present, measured, 0.0), 0.0)


FITTED: tuple[str, ...] = (
    "battery.resistance",
    "battery.branch_resistance",
    "battery.branch_capacitance",
    "battery.capacity",
)
SHOWN = ("car.mass", "car.drag_area", "car.rolling")
GUESS: dict[str, float] = dict(zip(FITTED, (0.15, 0.02, 2000.0, 30.0), strict=True))


def cost(
    *, cycle: cli.InFile = DATA / "udds.csv", voltage: cli.InFile = DATA / "drive_cycle.csv", run: cli.Run
) -> dict:
    """Energy of a drive cycle with its derivatives, and the battery from its voltage; write the report.

    Args:
        cycle: CSV with the columns time [s] and speed [mph] or [m/s].
        voltage: CSV with the columns time (s) and voltage (V); an empty cell is a gap.
    """
    speed = read_speed(cycle)
    ts = jnp.asarray(speed.times)
    run.say(f"{ts.size} measured speeds: energy and its derivatives")
    energy = lambda model: simulate(model, speed, ts[jnp.array([0, -1])]).energy[-1]
    model = Model()
    joule, slopes = jax.jit(jax.value_and_grad(energy))(model)
    if not np.isfinite(joule):
        raise ds.RunError(
            f"{cycle} was not solved, as where it needs more power than the battery has: give a slower one"
        )
    metres = float(np.trapezoid(speed.values, speed.times))
    values, by = ds.parameters(model), ds.parameters(slopes)
    relative = {path: float(values[path].value * by[path].value / joule) for path in values}
    run.say("fitting the battery")
    table = read_measurements(voltage, ["time", "voltage"], gaps=["voltage"], increasing="time", rows=12)
    if table["time"][0] <= 0 or table["time"][-1] > ts[-1]:
        first, last = table["time"][[0, -1]]
        raise ds.InputError(f"{voltage} has times from {first:g} to {last:g} s: give times above 0, to {ts[-1]:g}")
    data = speed, jnp.asarray(table["time"]), jnp.asarray(table["voltage"])
    start = ds.replace(model, GUESS)
    chosen = ds.trainable(start, *FITTED)
    fitted, history = ds.fit_least_squares(deviations, start, data, filter_spec=chosen, progress=False)
    posterior = ds.posterior(deviations, fitted, data, filter_spec=chosen)
    rows = posterior.summary(LEVEL)
    short = lambda path: path.split(".")[-1]
    result = {"kwh_per_100km": float(joule) / 3.6e6 / metres * 1e5, "kilometres": metres / 1e3}
    result |= {f"percent_per_percent_{short(path)}": relative[path] for path in SHOWN}
    result |= {short(row.path): row.value for row in rows} | {f"{short(row.path)}_std": row.std for row in rows}
    result |= {"noise": float(posterior.noise), "status": history.status}
    comments = [*remarks(cycle), *remarks(voltage)]
    page = report.Report("A drive cycle", comments[0] if comments else cycle.name)
    page.settings(run.settings)
    for remark in comments:
        page.text(remark)
    page.result(result)
    columns = ["parameter", "value", "unit", "standard deviation", f"{LEVEL:.0%} from", "to", "remark"]
    page.table("The battery", columns, [[r.path, r.value, r.unit, r.std, r.low, r.high, r.remark] for r in rows])
    page.table("Energy: percent for one percent of a parameter", ["parameter", "percent"], list(relative.items()))
    band = posterior.credible_band(lambda m: voltages(m, speed, data[1]), LEVEL, include_noise=True)
    labels = "time (s)", "voltage (V)"
    picture = plot.fit_band(data[1], data[2], band, float(posterior.noise), *labels, level=LEVEL)
    page.figure(picture, "The recorded voltage, the fit and its band; below, the residuals.")
    run.figure("voltage", picture)
    states = jax.jit(lambda m: simulate(m, speed, ts))(fitted)
    picture = plot.curves(ts, {"speed (m/s)": speed.values, "charge (%)": 100 * states.charge}, "time (s)", "")
    page.figure(picture, "The measured speed, and the charge of the fitted battery.")
    run.figure("drive", picture)
    page.write(run.folder / "report.html")
    return result


def read_speed(path: Path) -> ds.signals.Signal:
    """The speed (m/s) of a cycle, linear between its knots."""
    header = path.read_text(errors="replace").splitlines()[:50]
    in_miles = any("mph" in line for line in header if not line.startswith("#"))
    return ds.signals.read_signal(path, "speed", unit="m/s", factor=MPH if in_miles else 1.0)


def generate(out: cli.OutFile, *, seed: cli.Seed = 1) -> dict:
    """Simulate the battery's voltage over the cycle with noise and gaps, and write it with a remark on its origin.

    Args:
        out: the CSV to write.
        seed: of the noise and the gaps.
    """
    rng = np.random.default_rng(seed)
    speed = read_speed(DATA / "udds.csv")
    ts = np.arange(3.5, float(speed.times[-1]), 4.0)
    exact = np.asarray(jax.jit(voltages)(Model(), speed, jnp.asarray(ts)))
    if not np.all(np.isfinite(exact)):
        raise ds.RunError("the drive was not solved: nothing is written")
    measured = exact + NOISE * rng.normal(size=ts.size)
    measured[(rng.random(ts.size) < 0.1) | ((ts > 600) & (ts < 660))] = np.nan
    truth = "0.08 ohm, 0.05 ohm with 600 F, 20 A h, from a charge of 0.8"
    origin = f"the voltage over that cycle of a battery of {truth}, normal noise of {NOISE} V, seed {seed}"
    lines = [f"# Simulated, not measured: {origin}", "time,voltage"]
    lines += [f"{t:g}," + ("" if np.isnan(u) else f"{u:.2f}") for t, u in zip(ts, measured, strict=True)]
    write_text(out, "\n".join(lines) + "\n")
    return {"file": str(out), "rows": ts.size}


if __name__ == "__main__":
    cli.main(cost, generate)
