"""Command lines of every scenario: checked against the source before JAX is imported, without a traceback."""

import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffsim.app import cli
from diffsim.app.script_stubs import job_names, stubs

ROOT = Path(__file__).parents[2]
SCRIPTS = {path.stem: path for path in sorted((ROOT / "scenarios").glob("*.py"))}


@pytest.fixture
def judged(capsys, tmp_path, monkeypatch):
    """The check of a command line by a scenario's source alone: exit code and error output."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        with pytest.raises(SystemExit) as ended:
            cli.main(*stubs(SCRIPTS[name]), argv=list(map(str, words)))
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_source_shows_the_signatures_of_the_functions(name, module_of):
    module, stub_jobs = module_of(name), stubs(SCRIPTS[name])
    jobs = [getattr(module, job) for job in job_names(SCRIPTS[name])]
    assert len(stub_jobs) == len(jobs) > 0
    for stub, job in zip(stub_jobs, jobs, strict=True):
        assert stub.__name__ == job.__name__
        assert inspect.getdoc(stub) == inspect.getdoc(job)
        # Except for run folders, annotations are new objects, which compare by value.
        assert str(inspect.signature(stub)) == str(inspect.signature(job))
        assert inspect.get_annotations(stub) == inspect.get_annotations(job)


def test_defaults_that_stand_in_the_source_are_those_of_the_models(module_of):
    trebuchet, quadrotor = module_of("trebuchet"), module_of("quadrotor")
    defaults = {name: p.default for name, p in inspect.signature(trebuchet.throw_once).parameters.items()}
    assert defaults["mass"] == float(trebuchet.MACHINE.m_weight)
    assert defaults["sling"] == float(trebuchet.MACHINE.l_sling)
    assert inspect.signature(quadrotor.evaluate).parameters["gust"].default == float(quadrotor.WIND.gust)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_refusals_come_before_jax_is_imported(name, tmp_path):
    (tmp_path / "jax.py").write_text("raise SystemExit('JAX is imported')\n")
    (tmp_path / "numpy.py").write_text("raise SystemExit('NumPy is imported')\n")
    own = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for word, code, stream in (("--help", 0, "stdout"), ("trian", 2, "stderr")):
        began = time.perf_counter()
        command = [sys.executable, str(SCRIPTS[name]), word]
        done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Sub-commands" in getattr(done, stream)
        assert "imported" not in done.stderr
        # 0.2 to 0.3 s on an idle machine; longer while other tests run.
        assert time.perf_counter() - began < 3.0


BAD = [
    ("cartpole", ("train", "--seed", 2**64), "seed=18446744073709551616: give a finite number, at least 0 and at most"),
    ("cartpole", ("train", "--seed", "1" * 5000), "seed"),
    ("pendulum", ("guided", "--seed", -1), "seed=-1"),
    ("swingup", ("evaluate", "--seeds", f"0:{10**12}"), "seeds '0:1000000000000': give"),
    ("rocket", ("evaluate", "--seeds", "0:9999999"), "give at most 100000 seeds"),
    ("rocket", ("train", "--policies", 10**12), "policies=1000000000000: give a finite number, at least 1 and at most"),
    ("quadrotor", ("train", "--horizon", 10**12), "horizon=1000000000000: give"),
    ("regression", ("bound", "--problems", 10**10), "problems=10000000000: give"),
    ("regression", ("bound", "--steps", 10**10), "steps=10000000000: give"),
    ("regression", ("sine", "--points", 10**10), "points=10000000000: give"),
    ("classify", ("activations", "--updates", 10**8), "updates=100000000: give"),
    ("identify", ("generate", "out.csv", "--rows", 10**12), "rows=1000000000000: give"),
    ("trebuchet", ("train", "--targets", 10**12), "targets=1000000000000: give"),
    ("trebuchet", ("throw", "--angle", "nan"), "angle=nan: give a finite number"),
    ("enhance", ("train", "--minutes", "inf"), "minutes=inf: give a finite number, above 0 and at most 10000"),
    ("enhance", ("train", "--widths", 10**9, 4), "widths=1000000000: give"),
    ("enhance", ("apply", "a.csv", "out.png", "--rows", 10**9), "rows=1000000000: give"),
    (
        "trebuchet",
        ("sweep", "\udcff.csv", "out.csv"),
        r"'\udcff.csv' is not UTF-8: give plain text, or rename the file",
    ),
    ("trebuchet", ("sweep", "a" * 300, "out.csv"), "a name of 300 bytes, which is too long"),
    ("trebuchet", ("sweep", "a.csv", "a/" * 3000 + "b"), "File name too long"),
    ("trebuchet", ("sweep", "a\0.csv", "out.csv"), "has a NUL"),
    ("trebuchet", ("sweep", "a.csv", "absent/out.csv"), "absent does not exist; make it first"),
    ("trebuchet", ("sweep", "a.csv", "."), "is a folder; give the name of a file"),
    ("trebuchet", ("sweep", ".", "out.csv"), "is a folder"),
    ("trebuchet", ("train", "--runs", "a.csv"), "a.csv is not a folder"),
    ("trebuchet", ("train", "--runs", "a.csv/b/c"), "a.csv is not a folder"),
    ("trebuchet", ("train", "--runs", "b" * 300), "too long"),
    ("cartpole", ("animate", "absent/a.gif"), "absent does not exist"),
    ("cartpole", ("animate", "a.gif", "--policy", "a" * 300), "too long"),
    ("derivatives", ("graph", "absent/a.svg"), "absent does not exist"),
    ("regression", ("surfaces", "a.txt"), "a.txt: unknown extension '.txt'; give .svg, .png or .pdf"),
    ("classify", ("train", "--data", "a.csv"), "a.csv is not a folder: give one that exists"),
    ("enhance", ("train", "--save", "absent/a.npz"), "absent does not exist"),
    ("trebuchet", ("train", "--config", "deep.toml"), "deep.toml is not a file of settings: it is nested too deeply"),
    ("trebuchet", ("train", "--config", "digits.toml"), "digits.toml is not a TOML file"),
    ("trebuchet", ("train", "--config", "latin.toml"), "latin.toml is not a TOML file"),
    ("trebuchet", ("train", "--config", "large.toml"), "large.toml has more than 1000000 bytes"),
    ("trebuchet", ("train", "--config", "."), "is a folder: give a file"),
    ("trebuchet", ("train", "--config", "/dev/zero"), "/dev/zero has more than 1000000 bytes"),
    ("trebuchet", ("train", "--config", "seed.toml"), "seed=18446744073709551616: give"),
    ("trebuchet", ("train", "--config", "long.toml"), "does not fit its type, int"),
    ("trebuchet", ("sweep", "--config", "nul.toml"), "has a NUL, which no path has"),
    ("trebuchet", ("train", "--resume", "a" * 300), "too long"),
    ("trebuchet", ("train", "--resume", "a.csv"), "there is no run"),
]


@pytest.mark.parametrize(("name", "words", "message"), BAD, ids=lambda value: ascii(value)[:40].replace("\\", "-"))
def test_bad_input_is_one_line_that_names_it(name, words, message, judged, tmp_path):
    (tmp_path / "a.csv").write_text("m_weight\n40\n")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    (tmp_path / "digits.toml").write_text("seed = " + "9" * 5000)
    (tmp_path / "latin.toml").write_bytes("# Größe\n".encode("latin-1"))
    (tmp_path / "large.toml").write_text("#" * 2_000_000)
    (tmp_path / "seed.toml").write_text(f"seed = {2**64}")
    (tmp_path / "long.toml").write_text(f'seed = "{"x" * 5000}"')
    (tmp_path / "nul.toml").write_text('machines = "a\\u0000.csv"\nout = "out.csv"\n')
    before = sorted(os.listdir(tmp_path))
    code, complaint = judged(name, *words)
    assert code == 2
    assert message in complaint
    if "--" not in message and message != "seed":
        assert complaint.startswith("error: ")
        assert complaint.count("\n") == 1
        assert len(complaint) < 600
    assert sorted(os.listdir(tmp_path)) == before


def test_a_script_whose_signatures_need_more_is_judged_when_it_runs(tmp_path):
    for text in (
        "import numpy as np\ndef job(*, x: float = np.pi): ...\ncli.main(job)\n",
        "@wrapped\ndef job(): ...\ncli.main(job)\n",
        "def job(): ...\n",
        "cli.main(job)\n",
    ):
        (tmp_path / "script.py").write_text(text)
        assert stubs(tmp_path / "script.py") == []
