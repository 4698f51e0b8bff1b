"""`python -m diffsim.gradcheck`: its table, its JSON, its exit codes, and its words for bad input."""

import json
import subprocess
import sys

import pytest

from diffsim.gradcheck import __main__ as command

SIMULATION = """
import jax, jax.numpy as jnp, numpy as np

def right(length, masses=1.0):
    return jnp.sum(jnp.sin(length)) * jnp.sum(jnp.asarray(masses))

def wrong(length):
    return jnp.sum(jax.lax.stop_gradient(length) * length)

def point():
    return ({"a": jnp.ones(2)},)

def of_tree(tree):
    return jnp.sum(tree["a"] ** 3)

def failing(x):
    raise ArithmeticError("the mass is negative")

def keyword_only(x, *, y=1.0):
    return x * y

def outside(x):
    return float(np.sum(x**2))

def outside_vjp(args, cotangent):
    return (2 * args[0] * cotangent,)

CONSTANT = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "simulation_of_a_user.py").write_text(SIMULATION)
    (tmp_path / "values.json").write_text("[[0.3, 1.2]]")
    (tmp_path / "named.json").write_text('{"masses": [1, 2], "length": 0.5}')
    (tmp_path / "number.json").write_text("3.0")
    (tmp_path / "broken.json").write_text("[1.0")
    (tmp_path / "two.json").write_text("[1.0, 2.0]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield tmp_path
    sys.modules.pop("simulation_of_a_user", None)


def run(capsys, function, *words):
    code = command.main([f"simulation_of_a_user:{function}", *map(str, words)])
    return code, *capsys.readouterr()


def test_a_right_gradient(folder, capsys):
    code, out, err = run(capsys, "right", "--at", "values.json")
    assert (code, err) == (0, "")
    assert "agrees" in out
    code, out, _ = run(capsys, "right", "--at", "named.json", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["ok"]
    assert [row["name"] for row in report["rows"]] == ["args[0]", "args[1]"]


def test_a_wrong_gradient_and_its_cause(folder, capsys):
    code, out, _ = run(capsys, "wrong", "--at", "values.json")
    assert code == 1
    assert "suspect stop_gradient at simulation_of_a_user.py:8" in out
    code, out, _ = run(capsys, "wrong", "--at", "values.json", "--json", "--modes", "forward", "--rtol", "0.6")
    assert code == 0


def test_arguments_from_a_function(folder, capsys):
    assert run(capsys, "of_tree", "--at", "simulation_of_a_user:point")[0] == 0


def test_derivatives_from_outside(folder, capsys):
    words = ("--at", "values.json", "--vjp")
    assert run(capsys, "outside", *words, "simulation_of_a_user:outside_vjp")[0] == 0
    code, out, _ = run(capsys, "outside", *words, "simulation_of_a_user:failing")
    assert code == 1
    assert "reverse not available: vjp raised TypeError" in out


@pytest.mark.parametrize(
    ("function", "words", "code", "message"),
    [
        ("absent", ["--at", "values.json"], 2, "has no absent: it has failing"),
        ("CONSTANT", ["--at", "values.json"], 2, "is a int: name a function"),
        ("right", ["--at", "absent.json"], 2, "absent.json cannot be read: No such file"),
        ("right", ["--at", "broken.json"], 2, "broken.json is not JSON"),
        ("right", ["--at", "number.json"], 2, "holds a float: write a list of arguments"),
        ("wrong", ["--at", "two.json"], 2, "does not fit the parameters (length): too many positional arguments"),
        ("wrong", [], 2, "the command (no --at) does not fit the parameters (length): missing a required argument"),
        ("keyword_only", ["--at", "values.json"], 2, "y can be passed by name alone"),
        ("failing", ["--at", "values.json"], 1, "failing raised ArithmeticError: the mass is negative"),
    ],
)
def test_bad_requests(folder, capsys, function, words, code, message):
    found, out, err = run(capsys, function, *words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_as_a_process(folder):
    words = [sys.executable, "-m", "diffsim.gradcheck"]
    good = [*words, "simulation_of_a_user:right", "--at", "values.json", "--x64"]
    done = subprocess.run(good, capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*words, "no_such_module:f"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no_such_module cannot be imported")
    done = subprocess.run([*words, "nothing"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 2
    assert "write MODULE:FUNCTION" in done.stderr
