"""Pages of the site generated from other files: notebooks, the scenarios' table, the reference, the change log."""

import ast
import base64
import itertools
import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
REFERENCE_PAGES = {
    "solve": ("Solving", ["ode", "discrete", "mechanics", "safe"]),
    "gradients": ("Gradients and their evidence", ["autodiff", "gradcheck", "graph", "testing"]),
    "train": (
        "Models, training and optimizing",
        ["parameters", "nn", "train", "optimize", "io", "compilation", "_jax"],
    ),
    "signals": ("Signals and clocks", ["signals"]),
    "experiments": ("Several experiments", ["experiments"]),
    "uncertainty": ("Uncertainty", ["uncertainty"]),
    "control": ("diffsim.control", ["control"]),
    "image": ("diffsim.image", ["image"]),
    "other": ("Errors and types", ["_errors", "_types"]),
}
"""The pages of the reference: their titles, and the folders and files of the package whose public names they list."""

ASSUMED = (
    "The examples assume double precision and these names: `jax`, `optax`, `diffrax`, `jnp` (`jax.numpy`), "
    "`jr` (`jax.random`), `np` (`numpy`), `eqx` (`equinox`) and `ds` (`diffsim`)."
)
"""What the doctests of the reference need not import."""

LINKS = {"docs/": "", "scenarios/README.md": "scenarios.md", "CONTRIBUTING.md": "contributing.md"}
"""The pages of the site for links in other files."""

_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w`])\$([^$\n`]+?)\$(?![\w`])", re.DOTALL)
# Links to source files: the site does not contain them, and a repository does.
_SOURCE = re.compile(r"\[(`[^`]+`)\]\((?:\.\./)+[^)]+\.py\)")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def on_files(files, config):
    """Adds the generated pages, and the pictures of the notebooks."""
    sources = {"scenarios": "scenarios/README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
    for page, source in sources.items():
        files.append(File.generated(config, f"{page}.md", content=_with_links((ROOT / source).read_text())))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in _notebook(path).items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    names = public_names()
    for page, (title, subpackages) in REFERENCE_PAGES.items():
        paths = [path for subpackage in subpackages for path in names if path.split(".")[1] == subpackage]
        files.append(File.generated(config, f"reference/{page}.md", content=_reference(title, paths)))
    return files


def on_page_markdown(markdown, **_):
    """Converts formulas between dollar signs to MathML, which browsers display without a script, and unlinks code."""
    markdown = _SOURCE.sub(r"\1", markdown)
    parts = _CODE.split(markdown)
    return "".join(part if part.startswith("`") else _MATH.sub(_mathml, part) for part in parts)


def public_names() -> list[str]:
    """Returns the full path of every public name, of `diffsim` and its subpackages; only the source is read."""
    package = ROOT / "diffsim"
    modules = [alias.name for node in _imports(package / "_public.py") if node.module is None for alias in node.names]
    folders = [package / name / "__init__.py" for name in modules if name != "systems"]
    files = [package / "_public.py", *filter(Path.exists, folders), package / "compilation.py"]
    paths = []
    for file in files:
        here = ["diffsim", *file.relative_to(package).parent.parts]
        for node in filter(lambda node: node.module is not None, _imports(file)):
            base = here[: len(here) - node.level + 1] if node.level else []
            paths += [".".join([*base, node.module, alias.name]) for alias in node.names]
    functions = [n.name for n in ast.parse((package / "safe.py").read_text()).body if isinstance(n, ast.FunctionDef)]
    return [*dict.fromkeys(paths), *(f"diffsim.safe.{name}" for name in functions), "diffsim.testing.assert_gradients"]


def _imports(file: Path) -> list[ast.ImportFrom]:
    """The statements `from ... import ...` at the top of a module."""
    return [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]


def _reference(title: str, paths: list[str]) -> str:
    return "\n\n".join([f"# {title}", ASSUMED, *(f"::: {path}" for path in paths)])


def _with_links(text: str) -> str:
    for old, new in LINKS.items():
        text = text.replace(f"](../{old}", f"]({new}").replace(f"]({old}", f"]({new}")
    return text


def _mathml(match) -> str:
    block, inline = match.groups()
    if block:
        return f'<div class="formula">{convert(block, display="block")}</div>'
    # A line that begins with the element itself would be taken for a block.
    return f"<span>{convert(inline)}</span>"


def _notebook(path: Path) -> dict[str, str | bytes]:
    """A notebook as a page of Markdown, and the pictures among its outputs."""
    page, pictures = [], {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            page.append(cell.source.replace("](../docs/", "](../"))
            continue
        page.append(f"```python\n{cell.source}\n```")
        for shown, outputs in itertools.groupby(cell.get("outputs", []), _is_picture):
            if not shown:
                text = "".join(map(_text, outputs)).rstrip()
                page += [f"```text\n{text}\n```"] if text else []
                continue
            for output in outputs:
                name = f"{path.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(output["data"]["image/png"])
                page.append(f"![{_caption(page)}]({name})")
    return {f"{path.stem}.md": "\n\n".join(page) + "\n", **pictures}


def _is_picture(output: dict) -> bool:
    return "image/png" in output.get("data", {})


def _text(output: dict) -> str:
    """What a cell printed, or its value; several in a row become one block."""
    return output.get("text") or output.get("data", {}).get("text/plain", "").rstrip() + "\n"


def _caption(page: list[str]) -> str:
    """What a picture shows: the first sentence of the text before it."""
    text = next((part for part in reversed(page) if not part.startswith(("```", "!["))), "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    sentence = " ".join(lines).split(". ")[0]
    return re.sub(r"[\[\]`$]", "", sentence)[:200] or "Result of the code above"
