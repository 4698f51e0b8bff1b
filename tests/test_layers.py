"""The layers of the package: who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import diffsim

ROOT = Path(diffsim.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

ALL = {"control", "solve", "train", "derivatives", "systems", "image", "plot", "cli", "report"}
FORBIDDEN = {
    "_jax": {"autodiff", *ALL},
    "autodiff": ALL,
    "solve": {"control", "train", "derivatives", "systems", "plot", "cli", "report"},
    "train": {"control", "solve", "derivatives", "systems", "plot", "cli", "report"},
    "control": {"solve", "train", "derivatives", "systems", "plot", "cli", "report"},
    "derivatives": {"control", "solve", "train", "systems", "plot", "cli", "report"},
    "systems": {"control", "train", "derivatives", "plot", "cli", "report"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports; of the package's own, the module and not its attribute."""
    tree = ast.parse(path.read_text())
    name = module_name(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found.add(full if full in MODULES else source)
    return found


def layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "diffsim" else None


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_a_layer_imports_only_what_lies_below(name):
    for module, path in MODULES.items():
        if layer(module) == name:
            wrong = {other for other in imports(path) if layer(other) in FORBIDDEN[name]}
            assert not wrong, f"{module} imports {wrong}"


def test_systems_do_not_import_each_other():
    for module, path in MODULES.items():
        parts = module.split(".")
        if layer(module) == "systems" and len(parts) > 2:
            others = {other for other in imports(path) if layer(other) == "systems"}
            wrong = {other for other in others if other.split(".")[2:3] != parts[2:3]}
            assert not wrong, f"{module} imports {wrong}"


def test_parameters_stand_on_errors_and_types_alone():
    own = {name for name in imports(ROOT / "parameters.py") if name.split(".")[0] == "diffsim"}
    assert own <= {"diffsim._errors", "diffsim._types"}


def test_only_the_plots_import_matplotlib():
    users = {path.name for path in FILES if any(name.split(".")[0] == "matplotlib" for name in imports(path))}
    assert users <= {"plot.py", "posterior_plot.py", "graph_plot.py"}


def test_imports_have_no_cycle():
    graph = {module: imports(path, top_level_only=True) & set(MODULES) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_the_library_leaves_the_configuration_of_jax_alone():
    # But for the named call that switches the cache on.
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
