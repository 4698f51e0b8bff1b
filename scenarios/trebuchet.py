"""Can a network learn to aim a trebuchet by differentiating through the throw?

A small network reads (target distance, wind) and sets (release angle, counterweight mass). The simulator has
three phases joined by exact events, slide, swing and flight; the residual is the relative miss, and Levenberg-
Marquardt on the network's weights differentiates through the ODE solver, its events and the network at once.

    python scenarios/trebuchet.py                        train, then judge on fresh targets at tight tolerance
    python scenarios/trebuchet.py train --evidence       with the stages of the pipeline and a check of the gradients
    python scenarios/trebuchet.py throw --angle 35       one shot
    python scenarios/trebuchet.py aim --distance 60 --wind -3
    python scenarios/trebuchet.py sweep IN.csv OUT.csv   every row of a table of machines
    python scenarios/trebuchet.py animate throw.gif

Published elsewhere: 300 s of training for a mean miss of 0.3% in a simulator of its own. Expected here: a mean miss
below 0.1% of fresh reachable targets after some seconds of training.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import functools
import time
from pathlib import Path
from typing import Annotated

import jax

jax.config.update("jax_enable_x64", True)

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optimistix as optx

import diffsim as ds
from diffsim.io.model_table import read_table, write_table
from diffsim.systems import trebuchet
from diffsim.systems.trebuchet import FAST, ThrowStatus, Trebuchet, drawing, throw
from diffsim.viz import plot, report

ANGLES = (np.deg2rad(5.0), np.deg2rad(65.0))  # rad, release angles the network may choose
MASSES = (10.0, 122.0)  # kg: a lighter weight does not throw, with a heavier one the sling goes slack
WINDS = (-20.0, 20.0)  # m/s
DISTANCES = (20.0, 100.0)  # m
BLOCK = 256
PUBLISHED = {"mean miss": 0.003, "training s": 300.0, "aim s": 0.1}

MACHINE = Trebuchet()
# The damped normal equations are well conditioned, and many times cheaper than a QR decomposition.
OPTIMIZER = optx.LevenbergMarquardt(rtol=1e-9, atol=1e-12, linear_solver=lx.Normal(lx.Cholesky()))


def network(key) -> ds.BoundedMLP:
    """The aimer: (distance, wind) to (release angle, logarithm of the mass)."""
    low, high = jnp.array([ANGLES[0], np.log(MASSES[0])]), jnp.array([ANGLES[1], np.log(MASSES[1])])
    return ds.BoundedMLP(2, low, high, width=12, depth=2, scale=jnp.array([60.0, 5.0]), key=key)


def shot(angle, mass, wind, machine=MACHINE) -> Trebuchet:
    """The machine set for one shot: release angle (rad), counterweight (kg), wind (m/s)."""
    return ds.replace(machine, {"angle": angle, "m_weight": mass, "wind": wind})


@functools.partial(ds.forward_mode, in_axes=(0, 0, 0))
def distances(angle, log_mass, wind):
    """Range (m) of the default machine, fast: to 1e-6, with forward-mode derivatives of what is differentiated."""
    p = shot(angle, jnp.exp(log_mass), wind)
    return throw(p, check=False, stepsize_controller=FAST, solver=dfx.Tsit5(), mode="forward").range


def misses(model, targets):
    """Relative misses of the network on targets of shape (n, 2): distance (m), wind (m/s)."""
    controls = jax.vmap(model)(targets)
    # One throw after another, each with only the steps it needs: on a CPU that is faster than a batch in lockstep.
    ranges = ds.compilation.compile_whole(distances)(controls[:, 0], controls[:, 1], targets[:, 1])
    return ranges / targets[:, 0] - 1


@jax.jit
def _block_of_throws(shots):
    return jax.lax.map(lambda x: throw(shot(*x), mode="forward"), shots)


@eqx.filter_jit
def _block_of_controls(model, targets):
    return jax.vmap(model)(targets)


def block_by_block(function, rows):
    """A compiled function of rows, in blocks of one size, so that it compiles once."""
    blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
    blocks[-1] = np.pad(blocks[-1], ((0, BLOCK - len(blocks[-1])), (0, 0)), mode="edge")
    results = [jax.tree.map(np.asarray, function(block)) for block in blocks]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *results)


def exact_throws(angles, masses, winds):
    """Throws at the tight tolerance (1e-10), one for each row."""
    return block_by_block(_block_of_throws, np.column_stack(np.broadcast_arrays(angles, masses, winds)).astype(float))


def check_landed(throws) -> None:
    """Raises RunError, with the first throw's reason, unless all throws have a range."""
    failed = np.flatnonzero(~np.isfinite(throws.range))
    if failed.size:
        reason = ThrowStatus(int(throws.status[failed[0]])).explanation
        raise ds.RunError(f"{failed.size} of {len(throws.range)} throws have no range: {reason}")


def reach() -> tuple[np.ndarray, np.ndarray]:
    """Winds (m/s) and the greatest range (m) that the heaviest weight reaches in each."""
    winds, angles = np.linspace(*WINDS, 41), np.linspace(np.deg2rad(5), np.deg2rad(55), 51)
    grid = [x.ravel() for x in np.meshgrid(winds, angles, indexing="ij")]
    throws = exact_throws(grid[1], MASSES[1], grid[0])
    check_landed(throws)
    return winds, throws.range.reshape(winds.size, -1).max(axis=1)


def draw_targets(draw: np.random.Generator, count: int, reaches) -> np.ndarray:
    """Reachable targets (distance, wind): uniform and normal (sd 5 m/s), below 0.97 of the reach at that wind."""
    many = np.column_stack([draw.uniform(*DISTANCES, 3 * count), draw.normal(0.0, 5.0, 3 * count)])
    chosen = many[many[:, 0] < 0.97 * np.interp(many[:, 1], *reaches)][:count]
    if len(chosen) < count:
        raise ds.RunError(
            f"{len(chosen)} of {count} targets are within reach of the machine: give another seed, or more targets"
        )
    return chosen


def judge(model, targets) -> tuple[np.ndarray, np.ndarray]:
    """Relative misses at tight tolerance, without sign, NaN of a failed throw; and the controls (angle, mass) used."""
    angles, log_masses = block_by_block(functools.partial(_block_of_controls, model), targets).T
    controls = np.stack([angles, np.exp(log_masses)], axis=1)
    throws = exact_throws(controls[:, 0], controls[:, 1], targets[:, 1])
    return np.abs(throws.range / targets[:, 0] - 1), controls


def learn(model, data, steps: int, state: Path):
    """The trained network and the history; they are saved in the file `state`, and read from it if it exists."""
    if state.exists():
        return ds.load(state, (model, ds.train.History(np.zeros(steps), 0.0, 0.0)))
    options = {"solver": OPTIMIZER, "steps": steps, "filter_spec": ds.trainable(model, "layers")}
    model, history = ds.fit_least_squares(misses, model, data, **options)
    ds.save(state, (model, history))
    return model, history


def train(
    *,
    seed: cli.Seed = 0,
    targets: Annotated[int, cli.Within(1, 100_000)] = 512,
    steps: Annotated[int, cli.Within(1, 10_000)] = 60,
    evidence: bool = False,
    run: cli.ResumableRun,
) -> dict:
    """Train the aimer through the simulator, judge it on 1,000 fresh targets, write the report.

    Args:
        seed: of the network's weights and of all targets.
        targets: number of training targets.
        steps: iterations of Levenberg-Marquardt.
        evidence: add the stages of the pipeline and a check of the gradients to the report.
    """
    chosen, fresh = np.random.default_rng(seed).spawn(2)
    reaches = reach()
    run.say(f"training on {targets} targets, {steps} iterations")
    data = jnp.asarray(draw_targets(chosen, targets, reaches))
    model, history = learn(network(jr.key(seed)), data, steps, run.state())
    test = draw_targets(fresh, 1000, reaches)
    miss, _ = judge(model, test)
    landed = miss[np.isfinite(miss)]
    if not landed.size:
        raise ds.RunError(f"none of the {len(test)} throws at fresh targets has a range: train longer")
    result = {
        "mean_miss": float(landed.mean()),
        "median_miss": float(np.median(landed)),
        "worst_miss": float(landed.max()),
        "fresh_targets": len(test),
        "failed_throws": len(test) - len(landed),
        "training_seconds": history.seconds,
        "compile_seconds": history.compile_seconds,
        "published_miss": PUBLISHED["mean miss"],
        "published_seconds": PUBLISHED["training s"],
    }
    for step, loss in enumerate(history.loss):
        run.metric(step=step, loss=float(loss))
    page = report_on(run, model, history, reaches, result)
    if evidence:
        page.section("Stages of the pipeline")
        page.figure(plot.stages(pipeline(model, 60.0)), "One target, 60 m away, on its way to the loss.")
        run.say("checking the gradients")
        page.certificate(gradient_check(), "Certificate: the loss of four targets by the weights before training")
    page.write(run.folder / "report.html")
    return result


def report_on(run, model, history, reaches, result) -> report.Report:
    """The page of a training run: result, learning curve, map of misses, a throw to play."""
    page = report.Report("Trebuchet aimed by a network", "One gradient through slide, swing, flight and network")
    page.settings(run.settings)
    rows = [
        ("mean relative miss, 1,000 fresh targets", f"{result['mean_miss']:.3%}", f"{PUBLISHED['mean miss']:.1%}"),
        ("worst relative miss", f"{result['worst_miss']:.2%}", None),
        ("training, s", f"{result['training_seconds']:.1f}", f"{PUBLISHED['training s']:.0f}"),
        ("compilation, s", f"{result['compile_seconds']:.1f}", None),
    ]
    page.table("Result against published figures", ["quantity", "value", "published"], rows)
    rms = np.sqrt(2 * history.loss / max(int(run.settings["targets"]), 1))
    curve = plot.learning_curve(rms, ylabel="rms relative miss", reference={"published mean": PUBLISHED["mean miss"]})
    page.figure(curve, "Learning curve: rms miss over the training targets after each iteration.")
    run.figure("learning_curve", curve)
    picture = miss_map(model, reaches)
    page.figure(picture, "Miss over (target, wind), judged at tight tolerance; grey is out of reach.")
    run.figure("miss_map", picture)
    _, ((angle, mass),) = judge(model, np.array([[60.0, 0.0]]))
    page.animation(animation(angle, mass, 0.0), "The network's throw at a target 60 m away without wind.")
    return page


def pipeline(model, target: float) -> ds.graph.StageGraph:
    """The stages from one target to the loss, each with its output, cost, and the loss's derivative by it."""
    aim = jnp.array([target, 0.0])
    stages = {
        "network": model,
        "controls": lambda outputs: {"angle": outputs[0], "mass": jnp.exp(outputs[1])},
        # With only two controls, forward mode computes the gradient, and compiles several times as fast.
        "throw": ds.forward_mode(lambda c: throw(shot(c["angle"], c["mass"], aim[1]), check=False, mode="forward")),
        "loss": lambda result: (result.range / target - 1) ** 2,
    }
    return ds.stage_graph(stages, aim)


def miss_map(model, reaches):
    """Relative misses over a grid of targets and winds, with what is out of reach left out."""
    distances, winds = np.linspace(*DISTANCES, 41), np.linspace(-12.5, 12.5, 26)
    grid = np.column_stack([x.ravel() for x in np.meshgrid(distances, winds)])
    miss, _ = judge(model, grid)
    beyond = (grid[:, 0] > 0.97 * np.interp(grid[:, 1], *reaches)).reshape(winds.size, -1)
    label = "relative miss"
    values = np.maximum(miss, 1e-7).reshape(beyond.shape)
    return plot.field_map(distances, winds, values, "target (m)", "wind (m/s)", label, log=True, mask=beyond)


def gradient_check() -> ds.gradcheck.GradientCheck:
    """The evidence on the loss's gradient by an untrained network's weights; the solver's tolerance matters at 1e-6."""
    model, targets = network(jr.key(0)), jnp.array([[60.0, 2.0], [50.0, -3.0], [80.0, 0.0], [45.0, 1.0]])

    def loss(layers):
        return jnp.mean(misses(eqx.tree_at(lambda model: model.layers, model, layers), targets) ** 2)

    return ds.check_gradients(loss, (model.layers,), rtol=1e-5, max_coordinates=4)


def animation(angle: float, mass: float, wind: float) -> report.Animation:
    """A throw as frames to play: dense while the machine moves, then along the flight."""
    result = jax.tree.map(lambda x: x[0], exact_throws(angle, np.array([mass]), wind))
    if not np.isfinite(result.range):
        raise ds.RunError(f"nothing to draw: {ThrowStatus(int(result.status)).explanation}")
    d = jax.tree.map(np.asarray, jax.jit(drawing)(shot(angle, mass, wind), result))
    in_sling = (d.t <= float(result.t_release))[:, None]
    line = np.stack([d.tip, np.where(in_sling, d.ball, d.tip)], axis=1)
    shapes = [
        report.Polyline(np.array([[0.0, 0.0], [0.0, float(MACHINE.h_pivot)]]), colour=3),
        report.Polyline(np.stack([d.hinge, d.tip], axis=1), width=4.0),
        report.Polyline(np.stack([d.hinge, d.weight], axis=1)),
        report.Polyline(line, colour=1),
        report.Disc(d.weight, 0.25),
        report.Disc(d.ball, 0.12, colour=1),
    ]
    return report.Animation(d.t, shapes, trails={"ball": d.ball})


def throw_once(
    *,
    angle: cli.Finite = 45.0,
    mass: cli.Positive = 44.492875573300005,
    wind: cli.Finite = 0.0,
    sling: cli.Positive = 2.0826984,
) -> dict:
    """One shot at the tight tolerance.

    Args:
        angle: release angle, degrees above the horizontal.
        mass: counterweight, kg.
        wind: along the throw, m/s.
        sling: length, m.
    """
    machine = ds.replace(shot(np.deg2rad(angle), mass, wind), {"l_sling": sling})
    result = jax.jit(throw)(machine)
    status = ThrowStatus(int(result.status))
    if not np.isfinite(result.range):
        raise ds.RunError(f"no range: {status.explanation}")
    names = ("range", "t_liftoff", "t_release", "t_impact", "v_release", "tension", "clearance")
    return {name: float(getattr(result, name)) for name in names} | {"status": status.name.lower()}


aim_compiled = jax.jit(ds.compilation.compile_whole(lambda p, target: trebuchet.aim(p, target, *MASSES)))


def aim(*, distance: cli.Positive = 60.0, wind: cli.Finite = 0.0, angle: cli.Finite = 32.0) -> dict:
    """The counterweight that hits one target, by Newton's method through the simulator.

    Args:
        distance: of the target, m.
        wind: along the throw, m/s.
        angle: release angle, degrees; near 32 the machine reaches farthest.
    """
    angle_rad = np.deg2rad(angle)
    ends = exact_throws(angle_rad, np.array(MASSES), wind)
    check_landed(ends)
    nearest, farthest = ends.range
    if not nearest <= distance <= farthest:
        raise ds.InputError(
            f"distance={distance:g} m is out of reach: at {angle:g} degrees and wind {wind:g} m/s this machine "
            f"reaches {nearest:.1f} to {farthest:.1f} m"
        )
    arguments = shot(angle_rad, MASSES[0], wind), jnp.asarray(float(distance))
    hit = jax.block_until_ready(aim_compiled(*arguments))
    began = time.perf_counter()
    jax.block_until_ready(aim_compiled(*arguments))
    seconds = time.perf_counter() - began
    if not abs(float(hit.miss)) <= 1e-6:
        miss, count = float(hit.miss), int(hit.throws)
        raise ds.RunError(f"the search ended with a miss of {miss:.1e} of {distance:g} m after {count} throws")
    mass = float(hit.mass)
    final = exact_throws(angle_rad, np.array([mass]), wind)
    check_landed(final)
    return {
        "mass": mass,
        "angle": angle,
        "range": float(final.range[0]),
        "relative_miss": abs(float(final.range[0]) / distance - 1),
        "throws": int(hit.throws),
        "seconds_after_compile": seconds,
        "status": ThrowStatus(int(final.status[0])).name.lower(),
    }


OUTPUTS = ("range", "t_liftoff", "t_release", "t_impact", "v_release")
# Columns of results that an input table may contain; they are ignored.
RESULTS = {"case", "slack", "status", "flight_time", *OUTPUTS} | {
    f"{quantity}_{at}" for quantity in ("x", "y", "vx", "vy") for at in ("release", "impact")
}


def sweep(machines: cli.InFile, out: cli.OutFile, *, gradients: bool = False) -> dict:
    """Throw every row of a table of machines and write the table with ranges, times and statuses.

    Args:
        machines: CSV with columns named after the machine's parameters (`angle_deg` in degrees); missing columns
            take the default machine's values, and columns of results are ignored.
        out: CSV to write: the inputs, the results and, with --gradients, d(range)/d(column).
        gradients: add a column d_<column> for every input column.
    """
    table = read_table(machines, MACHINE, {"angle_deg": "angle"}, RESULTS)

    def machine(row):
        given = dict(zip(table.columns, row, strict=True))
        if "angle_deg" in given:
            given["angle"] = jnp.deg2rad(given.pop("angle_deg"))
        return ds.replace(MACHINE, given)

    throws = jax.jit(lambda rows: jax.lax.map(lambda row: throw(machine(row), mode="forward"), rows))(table.values)
    results = {name: np.asarray(getattr(throws, name)) for name in OUTPUTS}
    slopes = None
    if gradients:
        slope = jax.jacfwd(lambda row: throw(machine(row), check=False, mode="forward").range)
        slopes = np.asarray(jax.jit(lambda rows: jax.lax.map(slope, rows))(table.values))
        results |= {f"d_{column}": slopes[:, i] for i, column in enumerate(table.columns)}
    status = [ThrowStatus(int(s)).name.lower() for s in np.asarray(throws.status)]
    write_table(out, table, results, status, keep=("case",))
    counted = ["bad_input" if i in table.bad else s for i, s in enumerate(status)]
    summary = {"rows": len(counted)} | {kind: counted.count(kind) for kind in sorted(set(counted))}
    if slopes is not None:
        good = [i for i in range(len(counted)) if np.isfinite(results["range"][i]) and i not in table.bad]
        summary["rows_without_gradient"] = int(np.sum(~np.isfinite(slopes[good]).all(axis=1)))
    return summary


def animate(
    out: Annotated[Path, cli.WritableFile((".gif",))],
    *,
    distance: cli.Positive = 60.0,
    wind: cli.Finite = 0.0,
    angle: cli.Finite = 32.0,
) -> dict:
    """A throw that hits a target, as an animated GIF.

    Args:
        out: the GIF to write.
        distance: of the target, m.
        wind: along the throw, m/s.
        angle: release angle, degrees.
    """
    hit = aim(distance=distance, wind=wind, angle=angle)
    plot.save_animation(animation(np.deg2rad(angle), hit["mass"], wind), out, ground=0.0)
    return {"file": str(out), "range": hit["range"], "mass": hit["mass"]}


throw_once.__name__ = "throw"

if __name__ == "__main__":
    cli.main(train, throw_once, sweep, aim, animate)
