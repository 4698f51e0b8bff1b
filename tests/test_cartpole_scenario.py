"""Short runs of the cart-pole scenario as a user starts them, and its messages for bad input."""

import json
from functools import partial

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim.io.exported import load_exported


@pytest.fixture(scope="session")
def cartpole(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "cartpole")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cartpole):
    folder = tmp_path_factory.mktemp("cartpole")
    done = cartpole("train", "--policies", 2, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    return result, folder / result["run"]


@pytest.mark.slow
def test_two_seeds_reach_the_maximum_and_write_a_complete_run(trained):
    result, run = trained
    assert result["at_500"] == 2
    assert {"config.toml", "metrics.jsonl", "versions.json", "report.html", "figures", "policy.npz"} <= {
        path.name for path in run.iterdir()
    }
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_saved_policy_is_judged_as_it_was_trained(trained, tmp_path, cartpole):
    _, run = trained
    done = cartpole("evaluate", "--policy", run / "policy.npz", "--seeds", "100:110", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["episodes"], result["at_500"], result["mean_score"]) == (10, 10, 500.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "--seeds", "100:0"), "seeds '100:0': give FIRST:LAST"),
        (("evaluate", "--seeds", "5:5"), "at least one seed"),
        (("evaluate", "--seeds", "five"), "seeds 'five'"),
        (("evaluate", "--policy", "missing.npz"), "missing.npz"),
        (("evaluate", "--policy", "text.npz"), "is no checkpoint of diffsim"),
        (("evaluate", "--policy", "other.npz"), "is of another state"),
        (("train", "--policies", "0"), "policies=0"),
        (("train", "--horizon", "0"), "horizon=0"),
        (("animate", "picture.png"), "picture.png"),
        (("export", "picture.png"), "unknown extension '.png'; give .jax or .onnx"),
        (("export", "none/policy.jax"), "none does not exist"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, tmp_path, command):
    (tmp_path / "text.npz").write_text("weights")
    ds.save(tmp_path / "other.npz", {"weights": np.zeros(3)})
    code, _, complaint = command("cartpole", *words)
    assert code == 2
    assert message in complaint
    assert not (tmp_path / "picture.png").exists()


@pytest.mark.parametrize("precision", ["single", "double"])
def test_an_exported_policy_is_that_of_the_file(precision, tmp_path, command, module_of):
    policy = module_of("cartpole").network(jr.key(3))
    ds.save(tmp_path / "policy.npz", policy)
    words = ["--single"] if precision == "single" else []
    code, out, _ = command("cartpole", "export", "policy.jax", "--policy", "policy.npz", *words, "--json")
    result = json.loads(out)
    assert (code, result["file"]) == (0, "policy.jax")
    assert result["bytes"] == (tmp_path / "policy.jax").stat().st_size
    assert result["microseconds_per_call"] > 0
    states = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32 if words else float)
    force = load_exported(tmp_path / "policy.jax")(states)
    assert force.dtype == states.dtype
    # Of the limit of 10 N.
    np.testing.assert_allclose(force, jax.vmap(policy)(states.astype(float)), atol=1e-5 if words else 1e-13, rtol=0)


@pytest.mark.slow
def test_a_policy_that_is_not_finite_is_refused(trained, tmp_path, cartpole):
    like = ds.BoundedMLP(4, -1.0, 1.0, width=24, depth=2, scale=np.ones(4), key=jr.key(0))
    policy = ds.load(trained[1] / "policy.npz", like)
    ds.save(tmp_path / "nan.npz", eqx.tree_at(lambda p: p.layers.layers[0].bias, policy, np.full(24, np.nan)))
    done = cartpole("evaluate", "--policy", "nan.npz", cwd=tmp_path)
    assert done.returncode == 2
    assert "of the policy is not finite" in done.stderr


@pytest.mark.slow
def test_a_horizon_beyond_the_useful_one_is_warned_of(tmp_path, cartpole):
    done = cartpole("train", "--policies", 1, "--horizon", 190, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a horizon of 190 steps is longer than the useful one of" in done.stderr
    useful = json.loads(done.stdout.splitlines()[-1])["useful_horizon"]
    # Upright the pole falls as exp(4 t): a hundredfold after 1.15 s, 58 steps; the cost's weights move that by some.
    assert 40 <= useful <= 90


def test_without_gymnasium_the_remedy_is_named(tmp_path, cartpole):
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "gymnasium.py").write_text("raise ImportError('not installed')\n")
    done = cartpole("evaluate", cwd=tmp_path, path=(absent,))
    assert done.returncode == 2
    assert "pip install 'diffsim[scenarios]'" in done.stderr
    assert "Traceback" not in done.stderr
