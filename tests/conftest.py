"""Shared by all tests: double precision, explicit ranks, a compilation cache on disk, scenarios as processes."""

import functools
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import pytest

# XLA 0.10 has two ways to generate code for a CPU, of which this compiles in half the time. Later versions have one.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))  # what makes the documents is tested too

# Annotations are checked, except where they are of command lines and where every operation of a program passes through.
CHECKED = {path.stem for path in (ROOT / "diffsim").iterdir()} - {"__init__", "__pycache__", "_jax", "app"}
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int is a float, too
jaxtyping.install_import_hook([f"diffsim.{name}" for name in sorted(CHECKED)], CHECKER)

from diffsim.app import cli  # noqa: E402
from diffsim.app.script_stubs import job_names  # noqa: E402

CACHE = str(ROOT / ".cache" / "jax")
FULL = 1.2e9  # bytes

# One core for each of the processes that run tests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def memory() -> float:
    """Bytes of memory of this process; infinite if the system does not report them."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else float("inf")


def pytest_collection_modifyitems(items):
    """Whoever leaves out slow tests also leaves out the exhaustive ones."""
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker("slow")


@pytest.fixture(scope="module", autouse=True)
def _programs_are_dropped_as_they_fill_the_memory():
    """Clears compiled programs after a module if the process is large: those of all modules take 5 GB."""
    yield
    if memory() > FULL:
        jax.clear_caches()


@pytest.fixture
def wrong_types():
    """Turns the check of annotations off, for a test of what the library says to an argument of a wrong type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def scenario():
    """Runs a scenario as a user does: `scenario(name, *words, cwd=)` returns the finished process.

    Folders of `path` are searched for modules first.
    """

    def run(name, *words, cwd, path=(), timeout=600):
        own = {"JAX_COMPILATION_CACHE_DIR": CACHE, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
        command = [sys.executable, str(ROOT / "scenarios" / f"{name}.py"), *map(str, words)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=os.environ | own)

    return run


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the documentation's site, built in strict mode: a warning is a failure."""
    folder = tmp_path_factory.mktemp("site").resolve()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@functools.cache
def load(name):
    """Runs a scenario in this process, which saves the start of a new one where little is computed."""
    path = ROOT / "scenarios" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, [getattr(module, job) for job in job_names(path)]


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs a scenario's command line in this process, in an empty folder: exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        with pytest.raises(SystemExit) as ended:
            cli.main(*load(name)[1], argv=list(map(str, words)))
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def module_of():
    """A scenario as a module of this process, by its name."""
    return lambda name: load(name)[0]
