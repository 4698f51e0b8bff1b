"""The installed package: imports are declared, internals that it uses are pinned, and the wheel is complete."""

import ast
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = {"jax", "diffrax", "equinox", "optimistix", "lineax"}
"""Packages of which the library uses internals, which may change with any release."""


def named(requirements):
    """The names of requirements, in lower case."""
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def imported(nodes):
    """The names of the modules that syntax trees import, without the standard library and this package."""
    own = {path.stem for path in (ROOT / "scenarios").glob("*.py")} | {"diffsim"}
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from {name.split(".")[0] for name in names if name} - own - set(sys.stdlib_module_names)


def undeclared(modules, requirements):
    """The modules that no distribution among the requirements provides."""
    distributions, declared = importlib.metadata.packages_distributions(), named(requirements)
    return {name for name in modules if not declared & {d.lower() for d in distributions.get(name, [name])}}


@pytest.mark.parametrize("folder", ["diffsim", "scenarios"])
def test_what_is_imported_is_declared(folder):
    """Imports within functions need an extra or a base dependency, those at the top of a module a base dependency."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))]
    base, extras = PROJECT["dependencies"], itertools.chain(*PROJECT["optional-dependencies"].values())
    assert not undeclared(imported(node for tree in trees for node in ast.walk(tree)), [*base, *extras])
    if folder == "diffsim":
        # The plugin of pytest is imported by pytest alone.
        assert undeclared(imported(node for tree in trees for node in tree.body), base) <= {"pytest"}


def test_packages_whose_internals_are_used_have_an_upper_bound():
    bounded = {name for line in PROJECT["dependencies"] if "<" in line for name in named([line])}
    assert bounded == PINNED


@pytest.mark.slow
def test_a_wheel_built_from_the_source_distribution_works(tmp_path):
    """It contains all data files, and computes a simulation, a picture and a report without the repository."""
    build = lambda kind, folder: subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(tmp_path)],
        cwd=folder,
        check=True,
        timeout=120,
    )
    build("sdist", ROOT)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    build("wheel", next((tmp_path / "source").iterdir()))
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    files = lambda folder: {p.relative_to(folder) for p in folder.rglob("*.*") if p.is_file() and p.suffix != ".pyc"}
    assert files(ROOT / "diffsim") <= files(tmp_path / "site" / "diffsim")
    code = """
import jax.numpy as jnp
import diffsim as ds
from diffsim.image import pretrained
from diffsim.viz import report

assert abs(float(ds.integrate(lambda t, y, a: -y, jnp.array(1.0), jnp.array([0.0, 1.0]))[-1]) - 0.3679) < 1e-3
pretrained.trained("noisy")
report.Report("Title", "Text").write("report.html")
print(ds.__file__)
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
