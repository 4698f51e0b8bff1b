"""The scenario of a network that aims any trebuchet: training, answers, the page's own simulator, bad input."""

import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.systems import trebuchet
from diffsim.systems.trebuchet import Aimer, Trebuchet


@pytest.fixture(scope="module")
def s(module_of):
    return module_of("any_trebuchet")


@pytest.fixture(scope="module")
def machines():
    return jax.vmap(trebuchet.random_machine)(jr.split(jr.key(5), 6))


def test_the_farthest_throw_is_farther_than_any_of_a_fine_grid(s, machines):
    reach, angles = s.farthest(machines)
    fine = np.deg2rad(np.arange(5.0, 65.0, 1.0))
    found = np.stack([s.fast_range(machines, np.full(6, angle)) for angle in fine]).max(axis=0)
    np.testing.assert_allclose(reach, found, rtol=1e-3)
    assert (reach > found * (1 - 1e-4)).all()
    assert ((angles > fine[0]) & (angles < fine[-1])).all()


def test_the_gradient_of_the_angle_is_that_of_differences(s):
    aimer, keys = Aimer(8, 1, key=jr.key(0)), jr.split(jr.key(1), 4)
    bias = lambda shift: ds.replace(aimer, {"for_angle.linear.bias": aimer.for_angle.linear.bias + shift})
    loss = jax.jit(lambda shift: s.angle_loss(bias(shift), keys))
    slope = jax.jit(jax.grad(lambda shift: s.angle_loss(bias(shift), keys)))(0.0)
    difference = (loss(0.03) - loss(-0.03)) / 0.06
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def test_the_gradient_of_answers_is_that_of_differences(s):
    """By the weight, at an angle near the best, where the loss leaves the angle's own part out."""
    aimer, keys = Aimer(8, 1, key=jr.key(0)), jr.split(jr.key(2), 4)
    path = "for_mass.linear.bias"
    bias = lambda shift: ds.replace(aimer, {path: aimer.for_mass.linear.bias + shift})
    angle = jnp.float64(0.55)
    fixed = lambda self, x, log_ratio: angle
    own, Aimer.angle = Aimer.angle, fixed
    try:
        misses = lambda shift: s.answer_loss(bias(shift), keys)
        slope = jax.jit(jax.grad(misses))(0.0)
        # The error of the range's network depends on the weight too, but not for the gradient: it is left out here.
        both = jax.jit(lambda shift: (misses(shift), range_error(s, bias(shift), keys, angle)))
        (high, high_range), (low, low_range) = both(0.02), both(-0.02)
    finally:
        Aimer.angle = own
    difference = ((high - high_range) - (low - low_range)) / 0.04
    assert abs(difference) > 1e-2
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def range_error(s, aimer, keys, angle):
    machines, x, share = s.draw(keys)
    heaviest = jnp.log(machines.m_weight / jax.vmap(trebuchet.balance)(machines))
    near = 0.75 * s.NEAREST
    target = jax.vmap(aimer.log_range)(x, heaviest) + jnp.log(near + (1.02 - near) * share)
    log_ratio = jax.vmap(aimer.log_ratio)(x, target)
    far, _ = s.log_ranges(jnp.full(len(keys), angle), log_ratio, machines)
    return jnp.mean((jax.vmap(aimer.log_range)(x, log_ratio) - far) ** 2)


def test_a_throw_without_range_has_no_part_in_a_loss(s, machines):
    weights = jnp.log(jnp.array([0.5, 4.0, 4.0, 4.0, 0.9, 4.0]))  # a weight below the balance does not lift the ball
    value, is_throw = s.log_ranges(jnp.full(6, 0.6), weights, machines)
    assert is_throw.tolist() == [False, True, True, True, False, True]
    slope = jax.grad(lambda angle: s.mean_of(*s.log_ranges(angle, weights, machines)))(jnp.full(6, 0.6))
    assert np.isfinite(slope).all()
    assert np.isfinite(value).all()
    assert (np.asarray(slope) != 0).tolist() == is_throw.tolist()


def test_batches_of_kept_throws_can_begin_anywhere(s):
    throws = np.arange(40.0).reshape(20, 2), np.arange(20.0)
    from_start = s.batches_of(throws, jr.key(3), 0)
    next(from_start)
    again = next(s.batches_of(throws, jr.key(3), 1))
    for a, b in zip(next(from_start), again, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again[0][:, 0], 2 * again[1])


@pytest.mark.slow
def test_training_lowers_the_miss_and_writes_networks_that_aim(scenario, tmp_path):
    words = ("--throws", 60_000, "--regression-steps", 1500, "--answer-steps", 60, "--machines", 200, "--json")
    done = scenario("any_trebuchet", "train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mean_miss"] < 0.06
    assert result["mean_miss_after_newton"] < 0.1 * result["mean_miss"]
    assert result["failed_throws"] == 0
    assert (tmp_path / result["run"] / "report.html").exists()
    model = tmp_path / result["run"] / "aimer.npz"
    done = scenario("any_trebuchet", "aim", "--model", model, "--newton", 2, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["relative_miss"] < 1e-4


@pytest.mark.slow
def test_the_shipped_networks_are_as_good_as_the_page_says(scenario, tmp_path):
    done = scenario("any_trebuchet", "--machines", 500, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mean_miss"] < 0.003
    assert result["mean_miss_after_newton"] < 1e-4
    assert result["beyond_reach_said_so"] > 0.98
    assert result["within_reach_said_beyond"] < 0.02
    page = (tmp_path / result["run"] / "report.html").read_text(encoding="utf-8")
    assert "setUpMachine" in page


def test_a_machine_of_ones_own_is_aimed(command, tmp_path):
    table = tmp_path / "machine.csv"
    table.write_text("l_long,l_sling,m_weight\n2.2,2.1,60\n", encoding="utf-8")
    code, out, _ = command("any_trebuchet", "aim", "--machine", table, "--distance", 50, "--wind", -2, "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    p = ds.replace(Trebuchet(), {"l_long": 2.2, "l_sling": 2.1, "m_weight": 60.0, "wind": -2.0})
    p = ds.replace(trebuchet.loaded(p, result["mass"]), {"angle": np.deg2rad(result["angle"])})
    assert abs(float(jax.jit(trebuchet.throw)(p).range) / 50.0 - 1) < 0.02
    assert not result["out_of_reach"]


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        ("l_long\n2.1\n2.2\n", (), "has 2 machines: give one row"),
        ("l_sling\n9.0\n", (), "l_sling / l_long is 4.35: the networks know machines with 0.8 to 1.2"),
        ("sling\n2.0\n", (), "unknown column 'sling'"),
        ("l_sling\nlong\n", (), "long"),
        ("l_sling\n2.0\n", ("--wind", 50), "wind / sqrt(g l_long) is 11.1"),
        ("l_sling\n2.0\n", ("--distance", 0.5), "distance=0.5 m: the networks know targets from"),
        ("l_sling\n2.0\n", ("--model", "machine.csv"), "machine.csv"),
    ],
)
def test_bad_machines_are_refused(command, tmp_path, table, words, message):
    (tmp_path / "machine.csv").write_text(table, encoding="utf-8")
    code, _, err = command("any_trebuchet", "aim", "--machine", tmp_path / "machine.csv", *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_page_answers_and_throws_as_the_library_does(s, machines, tmp_path):
    aimer, angles = trebuchet.pretrained_aimer(), np.deg2rad(np.linspace(20.0, 55.0, 6))
    targets, masses = 15 * np.asarray(machines.l_long), 0.8 * np.asarray(machines.m_weight)
    data = {"networks": [s.plain_weights(n) for n in (aimer.for_angle, aimer.for_range, aimer.for_mass)]}
    data |= {name: np.asarray(value).tolist() for name, value in trebuchet.SCALING.items()}
    rows = [{name: float(getattr(machines, name)[i]) for name in ds.parameters(Trebuchet())} for i in range(6)]
    given = {"data": data, "machines": rows, "targets": targets.tolist(), "angles": angles.tolist()}
    (tmp_path / "given.json").write_text(json.dumps(given | {"masses": masses.tolist()}), encoding="utf-8")
    (tmp_path / "ask.js").write_text(
        f"""
        const {{ aim, simulate }} = require({json.dumps(str(s.JAVASCRIPT))});
        const given = JSON.parse(require("fs").readFileSync("given.json"));
        console.log(JSON.stringify(given.machines.map((p, i) => {{
          const answer = aim(given.data, p, given.targets[i]), thrown = simulate(p, given.angles[i], given.masses[i]);
          return [answer.angle, answer.mass, answer.excess, answer.nearest, thrown.range];
        }})));
        """,
        encoding="utf-8",
    )
    done = subprocess.run(["node", "ask.js"], cwd=tmp_path, capture_output=True, text=True, check=True)
    angle, mass, excess, nearest, ranges = np.array(json.loads(done.stdout)).T
    answers = s.answered(aimer, machines, jnp.asarray(targets))
    np.testing.assert_allclose(angle, answers.angle, atol=1e-4)
    np.testing.assert_allclose(mass, answers.mass, rtol=1e-4)
    np.testing.assert_allclose(nearest, answers.nearest, rtol=1e-3)
    np.testing.assert_allclose(excess, answers.excess, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ranges, s.exact_throw(machines, angles, masses)[0], rtol=1e-6)
