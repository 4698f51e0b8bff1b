"""The layers of the package: what may import what, and what an import costs."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import diffsim

ROOT = Path(diffsim.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

BASE = {"_errors", "_types", "_extras", "_trees"}
LOW = BASE | {"_jax", "autodiff", "parameters", "io"}
# What each subpackage may import besides itself; arrows point down.
MAY_IMPORT = {
    "_errors": set(),
    "_types": set(),
    "_extras": BASE,
    "_trees": BASE,
    "_jax": BASE,
    "parameters": {"_errors", "_types", "_trees", "_jax"},
    "safe": set(),
    "nn": BASE | {"parameters"},
    "mechanics": BASE | {"_jax"},
    "autodiff": BASE | {"_jax", "io", "parameters"},
    "compilation": {"_jax"},
    "io": BASE | {"parameters", "_jax"},
    "graph": LOW,
    "gradcheck": LOW | {"graph"},
    "ode": LOW | {"signals"},
    "signals": BASE | {"_jax", "io", "parameters"},
    "discrete": LOW | {"ode"},
    "train": LOW,
    "optimize": LOW | {"train"},
    "uncertainty": LOW | {"train", "optimize"},
    "experiments": LOW | {"signals", "optimize", "uncertainty"},
    "control": LOW,
    "systems": LOW - {"_jax"} | {"ode", "discrete", "mechanics"},
    "image": LOW | {"graph", "train", "optimize", "safe"},
    "viz": LOW | {"graph", "gradcheck", "control", "train", "uncertainty"},
    "app": {"_errors", "_extras", "io"},
    "testing": LOW | {"gradcheck"},
    "pytest_plugin": {"testing"},
}
TOP = {"", "_public"}  # the package itself, and its list of names


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports; of the package's own, the module and not its attribute."""
    tree = ast.parse(path.read_text())
    name = module_name(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                names.add(full if full in MODULES else source)
    return names


def subpackage(module: str) -> str:
    """The folder or file directly below the package that contains a module."""
    return ".".join(module.split(".")[1:2])


def test_every_subpackage_is_in_the_table():
    assert {subpackage(module) for module in MODULES} == {*MAY_IMPORT, *TOP}


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_subpackage_imports_only_what_lies_below(name):
    for module, path in MODULES.items():
        if subpackage(module) == name:
            own = {other for other in imports(path) if other.split(".")[0] == "diffsim"}
            wrong = {other for other in own if subpackage(other) not in MAY_IMPORT[name] | {name}}
            assert not wrong, f"{module} imports {wrong}"


def test_systems_do_not_import_each_other():
    for module, path in MODULES.items():
        parts = module.split(".")
        if subpackage(module) == "systems" and len(parts) > 2:
            others = {other for other in imports(path) if subpackage(other) == "systems"}
            wrong = {other for other in others if other.split(".")[2:3] != parts[2:3]}
            assert not wrong, f"{module} imports {wrong}"


def test_only_the_plots_import_matplotlib():
    users = {path.name for path in FILES if any(name.split(".")[0] == "matplotlib" for name in imports(path))}
    plots = {"plot.py", "posterior_plot.py", "graph_plot.py", "learning_rate_plot.py", "animation_plot.py", "canvas.py"}
    assert users <= plots


def test_imports_have_no_cycle():
    graph = {module: imports(path, top_level_only=True) & set(MODULES) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


INTERNALS = (
    "jax.interpreters",
    "jax.extend",
    "jax.core",
    "jax._src",
    "jax.experimental.xla_metadata",
    "equinox.internal",
)


def test_what_is_not_public_of_jax_is_used_in_one_subpackage():
    for module, path in MODULES.items():
        if subpackage(module) != "_jax":
            wrong = {name for name in imports(path) if name.startswith(INTERNALS)}
            assert not wrong, f"{module} imports {wrong}"
            assert "__version_info__" not in path.read_text(), f"{module} asks for a version"


def test_the_library_leaves_the_configuration_of_jax_alone():
    # Except in the call whose name says that it turns on the cache.
    for path in set(FILES) - {ROOT / "_jax" / "compilation.py"}:
        for node in ast.walk(ast.parse(path.read_text())):
            touched = isinstance(node, ast.Attribute) and node.attr == "config" and ast.unparse(node) == "jax.config"
            assert not touched, f"{path.name}:{node.lineno} touches jax.config"


def test_the_import_brings_no_plots_and_starts_no_device():
    code = (
        "import sys, diffsim; assert 'matplotlib' not in sys.modules; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
