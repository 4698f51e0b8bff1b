"""How much does the current of a buck converter ripple, how does that depend on its parts, and which parts are these?

A transistor switches the input voltage on and off, a coil and a capacitor smooth it, and a diode carries the coil's
current while the transistor is off. The edges of the clock are events at known times, the diode's end of conduction is
an event of the state. The ripple of the 100th period, after 200 switchings, is differentiated by duty cycle, period,
inductance and capacitance, twice, and compared with products of matrix exponentials, which are exact. Then inductance,
capacitance and the coil's resistance are fitted to a recording of the start.

    python scenarios/buck_converter.py                    ripple and its derivatives, with a report
    python scenarios/buck_converter.py identify           coil and capacitor from the recording in scenarios/data
    python scenarios/buck_converter.py identify --data MINE.csv
    python scenarios/buck_converter.py generate OUT.csv   a simulated recording with noise and gaps

The recording in scenarios/data is simulated, as its first line says. Expected: ripple to 1e-11, gradient to 1e-10 and
Hessian to 1e-8 of the exact ones; 47 uH, 100 uF and 0.12 ohm within their intervals. About a minute each.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import Annotated, Any, cast

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import diffsim as ds
from diffsim.io.csv import remarks
from diffsim.io.files import write_text
from diffsim.io.measurements import read_measurements
from diffsim.viz import plot, report

DATA = Path(__file__).with_name("data") / "buck_converter.csv"
PERIODS = 100
TOLERANCES: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
FITTED = ("inductance", "capacitance", "coil_resistance")
LEVEL = 0.9  # of intervals
NOISE = {"current": 0.05, "voltage": 0.02}  # A, V: of the generated recording
UNITS = {"current": "A", "voltage": "V"}
ROWS = 12  # measurements that a fit needs


class Converter(eqx.Module):
    """A buck converter. Its state is (current of the coil, A; voltage of the capacitor, V)."""

    clock: ds.signals.Clock
    inductance: ds.Scalar = ds.param(47e-6, "H", (1e-7, 1e-2))
    capacitance: ds.Scalar = ds.param(100e-6, "F", (1e-7, 1e-2))
    coil_resistance: ds.Scalar = ds.param(0.12, "ohm", (0.0, 10.0))
    input_voltage: ds.Scalar = ds.param(12.0, "V", (0.0, 1e3))
    switch_resistance: ds.Scalar = ds.param(0.03, "ohm", (0.0, 10.0))
    diode_voltage: ds.Scalar = ds.param(0.5, "V", (0.0, 5.0))
    load: ds.Scalar = ds.param(4.0, "ohm", (1e-3, 1e6))


def rates(model: Converter, y, source, resistance):
    """dy/dt with a voltage `source` behind a `resistance` at the coil."""
    current, voltage = y
    drop = (model.coil_resistance + resistance) * current
    return jnp.stack(
        [(source - drop - voltage) / model.inductance, (current - voltage / model.load) / model.capacitance]
    )


def on(t, y, model):
    """The transistor conducts."""
    return rates(model, y, model.input_voltage, model.switch_resistance)


def off(t, y, model):
    """The diode conducts."""
    return rates(model, y, -model.diode_voltage, 0.0)


def idle(t, y, model):
    """Neither does: the load empties the capacitor."""
    return jnp.stack([0.0 * y[0], -y[1] / (model.load * model.capacitance)])


switch_on = ds.TimeEvent(lambda model: model.clock.rising, to=0)
PHASES = (
    ds.Phase(on, ds.TimeEvent(lambda model: model.clock.falling, to=1)),
    ds.Phase(off, (ds.Event(lambda t, y, model: y[0], "falling", lambda t, y, model: y.at[0].set(0.0), 2), switch_on)),
    ds.Phase(idle, switch_on),
)


def simulate(model: Converter, ts, start=(0.0, 0.0), max_events: int = 3 * PERIODS):
    """Current and voltage at the times (s), shape (times, 2); switched on at the first edge of the clock at 0 s."""
    options = {"ts": ts, "max_events": max_events, "max_steps": 64, **TOLERANCES}
    return cast(Array, ds.integrate_hybrid(PHASES, jnp.array(start), model, t1=ts[-1], **options).ys)


def ripple(model: Converter):
    """The ripple (A): by how much the current rises in the last of PERIODS periods, after a start near its mean."""
    field = lambda t, y, model: jnp.where(model.clock(t) > 0.5, on(t, y, model), off(t, y, model))
    ts = jnp.stack([0.0, PERIODS - 1.0, PERIODS - 1.0 + model.clock.duty]) * model.clock.period
    current = ds.integrate(field, jnp.array(STEADY), ts, model, max_steps=16384, **TOLERANCES)[:, 0]
    return current[2] - current[1]


STEADY = (0.9, 4.6)


def exact_ripple(model: Converter):
    """The same by matrix exponentials."""
    least, greatest = exact_currents(model)
    return greatest - least


def exact_currents(model: Converter):
    """The least and the greatest current (A) of the last period; each part of a period has linear equations."""

    def propagator(phase, time):
        offset = phase(0.0, jnp.zeros(2), model)
        matrix = jax.jacfwd(lambda y: phase(0.0, y, model))(jnp.zeros(2))
        rows = jnp.concatenate([matrix, offset[:, None]], axis=1)
        return jax.scipy.linalg.expm(jnp.concatenate([rows, jnp.zeros((1, 3))]) * time)

    period, duty = model.clock.period, model.clock.duty
    rise, fall = propagator(on, duty * period), propagator(off, (1 - duty) * period)
    start = jax.lax.fori_loop(0, PERIODS - 1, lambda _, z: fall @ (rise @ z), jnp.array([*STEADY, 1.0]))
    return start[0], (rise @ start)[0]


NAMES = ("clock.duty", "clock.period", "inductance", "capacitance")


def of_logarithms(function, model: Converter):
    """`function` of the logarithms of the parameters NAMES, whose derivatives are changes for relative changes."""
    values = jnp.stack([ds.parameters(model)[name].value for name in NAMES])

    def replaced(logs):
        return function(_with(model, values * jnp.exp(logs)))

    return replaced


def _with(model: Converter, values) -> Converter:
    clock = eqx.tree_at(lambda c: (c.duty, c.period), model.clock, (values[0], values[1]))
    return eqx.tree_at(lambda m: (m.clock, m.inductance, m.capacitance), model, (clock, values[2], values[3]))


def derivatives(
    *, duty: Annotated[float, cli.Within(0.05, 0.95)] = 0.42, period: cli.Positive = 1e-5, run: cli.Run
) -> dict:
    """Differentiate the ripple after 200 switchings, compare with matrix exponentials, write the report.

    Args:
        duty: the share of a period for which the transistor conducts.
        period: of the clock, s.
    """
    model = Converter(ds.clock(period, duty))
    least = float(exact_currents(model)[0])
    if not least > 0:
        raise ds.InputError(
            f"duty={duty:g}, period={period:g}: the current of the coil falls to zero, where the diode stops "
            "conducting and these equations do not hold; give a greater duty or a shorter period"
        )
    run.say(f"{2 * PERIODS} switchings: value, gradient and Hessian")
    all_of = lambda f: jax.jit(lambda z: (f(z), jax.grad(f)(z), jax.hessian(f)(z)))(jnp.zeros(len(NAMES)))
    value, gradient, hessian = all_of(of_logarithms(ripple, model))
    right = all_of(of_logarithms(exact_ripple, model))
    if not np.isfinite(value):
        raise ds.RunError(f"the converter with a period of {period:g} s was not solved: give another period")
    error = lambda own, exact: float(jnp.max(jnp.abs(own - exact)) / jnp.max(jnp.abs(exact)))
    names = ("value", "gradient", "hessian")
    errors = {f"{n}_error": error(a, b) for n, a, b in zip(names, (value, gradient, hessian), right, strict=True)}
    slopes = {f"d_ripple_d_log_{n.split('.')[-1]}": float(g) for n, g in zip(NAMES, gradient, strict=True)}
    result = {"ripple": float(value)} | slopes | errors
    page = report.Report("A buck converter", f"{2 * PERIODS} switchings at a duty cycle of {duty:g}")
    page.settings(run.settings)
    page.result(result)
    rows = [[n, float(g), float(e)] for n, g, e in zip(NAMES, gradient, right[1], strict=True)]
    columns = ["parameter", "by diffsim (A)", "by matrix exponentials (A)"]
    page.table("Change of the ripple for a relative change", columns, rows)
    ts = np.linspace(0.0, 12 * period, 1201)
    start = np.asarray(jax.jit(simulate)(model, ts))
    labels = {"current of the coil (A)": start[:, 0], "voltage at the load (V)": start[:, 1]}
    page.figure(figure := plot.curves(1e6 * ts, labels, "time (us)", ""), "The first twelve periods from rest.")
    run.figure("start", figure)
    run.say("checking the gradients")
    by_name = lambda logs: of_logarithms(ripple, model)(jnp.stack([logs[name] for name in NAMES]))
    check = ds.check_gradients(by_name, (dict.fromkeys(NAMES, 0.0),), rtol=1e-6)
    page.certificate(check)
    page.write(run.folder / "report.html")
    return result


def deviations(model: Converter, data):
    """Simulated minus measured current and voltage in units of their noise; zero in a gap."""
    ts, measured = data
    present = jnp.isfinite(measured)
    noise = jnp.array(list(NOISE.values()))[None]
    simulated = simulate(model, ts, max_events=MOST_EVENTS)
    return jnp.where(present, (simulated - jnp.where(present, measured, 0.0)) / noise, 0.0)


MOST_EVENTS = 200


def identify(
    *,
    data: cli.InFile = DATA,
    duty: Annotated[float, cli.Within(0.05, 0.95)] = 0.42,
    period: cli.Positive = 1e-5,
    run: cli.Run,
) -> dict:
    """Fit inductance, capacitance and the coil's resistance to a recording from rest, write the report.

    Args:
        data: CSV with the columns time (s), current (A) and voltage (V); an empty cell is a gap.
        duty: the share of a period for which the transistor conducted.
        period: of the clock, s.
    """
    table = read_measurements(data, ["time", *NOISE], gaps=list(NOISE), increasing="time", rows=ROWS)
    ts, measured = table["time"], np.column_stack([table[name] for name in NOISE])
    if ts[0] < 0 or ts[-1] > MOST_EVENTS * period / 3:
        most = MOST_EVENTS / 3 * period
        raise ds.InputError(f"{data} has times from {ts[0]:g} to {ts[-1]:g} s: give 0 to {most:g}, from the first edge")
    if ts[0] > 0:
        ts, measured = np.concatenate([[0.0], ts]), np.concatenate([[[np.nan, np.nan]], measured])
    guess = {"inductance": 100e-6, "capacitance": 50e-6, "coil_resistance": 0.05}
    start = ds.replace(Converter(ds.clock(period, duty)), guess)
    chosen = ds.trainable(start, *FITTED)
    run.say(f"fitting {np.sum(np.isfinite(measured))} measurements")
    options = {"filter_spec": chosen, "progress": False}
    model, history = ds.fit_least_squares(deviations, start, (ts, measured), **options)
    posterior = ds.posterior(deviations, model, (ts, measured), noise=1.0, filter_spec=chosen)
    rows = posterior.summary(LEVEL)
    result = {row.path: row.value for row in rows} | {f"{row.path}_std": row.std for row in rows}
    result |= {"loss": float(history.loss[np.isfinite(history.loss)][-1]), "status": history.status}
    comments = remarks(data)
    page = report.Report("A buck converter identified", comments[0] if comments else f"Fitted to {data.name}")
    page.settings(run.settings)
    page.result(result)
    columns = ["parameter", "value", "unit", "standard deviation", f"{LEVEL:.0%} from", "to", "remark"]
    page.table("Parameters", columns, [[r.path, r.value, r.unit, r.std, r.low, r.high, r.remark] for r in rows])
    for column, (name, noise) in enumerate(NOISE.items()):
        one = lambda m, column=column: simulate(m, ts, max_events=MOST_EVENTS)[:, column]
        band = posterior.credible_band(one, LEVEL)
        labels = "time (us)", f"{name} ({UNITS[name]})"
        picture = plot.fit_band(ts * 1e6, measured[:, column], band, noise, *labels, level=LEVEL)
        page.figure(picture, f"The measured {name} and the fit; below, the residuals.")
        run.figure(name, picture)
    page.write(run.folder / "report.html")
    return result


def generate(out: cli.OutFile, *, rows: Annotated[int, cli.Within(ROWS, 5000)] = 300, seed: cli.Seed = 0) -> dict:
    """Simulate a recording of the start from rest with noise and gaps, and write it with a remark that it is simulated.

    Args:
        out: the CSV to write.
        rows: how many, over 60 periods.
        seed: of the noise and the gaps.
    """
    rng = np.random.default_rng(seed)
    model = Converter(ds.clock(1e-5, 0.42))
    ts = np.linspace(0.0, 60 * 1e-5, rows + 1)[1:] - 0.3e-6
    states = np.asarray(jax.jit(lambda ts: simulate(model, ts, max_events=MOST_EVENTS))(np.concatenate([[0.0], ts])))
    if not np.all(np.isfinite(states)):
        raise ds.RunError("the start of the converter was not solved: nothing is written")
    measured = states[1:] + np.array(list(NOISE.values())) * rng.normal(size=(rows, 2))
    measured[rng.random(measured.shape) < 0.08] = np.nan
    text = "a buck converter of 47 uH, 0.12 ohm, 100 uF, started from rest at a duty cycle of 0.42 and 100 kHz"
    lines = [
        f"# Simulated, not measured: {text}, normal noise of 0.05 A and 0.02 V, seed {seed}",
        "time,current,voltage",
    ]
    for t, row in zip(ts, measured, strict=True):
        lines.append(",".join([f"{t:.7g}", *("" if np.isnan(x) else f"{x:.5g}" for x in row)]))
    write_text(out, "\n".join(lines) + "\n")
    return {"file": str(out), "rows": rows}


if __name__ == "__main__":
    cli.main(derivatives, identify, generate)
