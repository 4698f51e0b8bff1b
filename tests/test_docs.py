"""The documents: their code runs, the site builds without a warning, its links resolve, it has every public name."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import griffe
import pytest
from hooks import public_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IN_REPOSITORY = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "scenarios/README.md")]
_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


EXTRAS = {"brax": "brax", "casadi": "bench", "exponax": "exponax", "mujoco": "mjx", "torchdiffeq": "bench"}
"""Modules that blocks may import although not every installation has them, with the extras that install them."""
WITHOUT_EXTRA = ("jaxonomy", "torchode")
"""Modules of other libraries that blocks import, and that no extra installs."""


def code_of(text):
    """The Python blocks of a page or a section, one after the other."""
    blocks = [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in _BLOCK.findall(text)]
    return "\n".join(blocks)


def needed(code):
    """The modules that code imports and that not every installation has."""
    names = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    return [name for name in dict.fromkeys(names) if name in EXTRAS or name in WITHOUT_EXTRA]


def scripts():
    """The code of each page as one script, but each section that needs such a module as a script of its own."""
    for page in PAGES:
        sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
        apart = [section for section in sections if needed(code_of(section))]
        together = "\n".join(code_of(section) for section in sections if section not in apart)
        if together.strip():
            yield pytest.param(together, id=page.stem)
        for section in apart:
            yield pytest.param(code_of(section), id=f"{page.stem}: {section.splitlines()[0]}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(scripts()))
def test_the_code_of_a_page_runs(code, tmp_path):
    """In a separate process, from top to bottom, as a reader would run it; skipped without a module that it needs."""
    for module in needed(code):
        if importlib.util.find_spec(module) is None:
            source = f"it comes with the extra {EXTRAS[module]}" if module in EXTRAS else "it comes with no extra"
            pytest.skip(f"{module} is not installed: {source}")
    script = tmp_path / "page.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_extras_that_pages_need_are_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(declared)
    assert {name for page in PAGES for name in needed(code_of(page.read_text()))} == {*EXTRAS, *WITHOUT_EXTRA}


def test_what_the_reference_lists_is_public():
    import diffsim as ds

    names = {path.split(".")[-1] for path in public_names()}
    own = {name for name in dir(ds) if not name.startswith("_") and getattr(ds, name).__class__.__name__ != "module"}
    assert own <= names


def test_the_arguments_in_the_reference_are_those_of_the_signatures():
    """Also where one row has several, `low, high: The limits.`; constructors come from docs/constructors.py."""
    extensions = griffe.load_extensions(ROOT / "docs" / "constructors.py")
    package = griffe.load("diffsim", search_paths=[ROOT], extensions=extensions, docstring_parser="google")
    for name in public_names():
        shown = package[name.removeprefix("diffsim.")]
        if shown.is_attribute:
            continue
        sections = shown.docstring.parse(warnings=False)
        tables = [section.value for section in sections if section.kind is griffe.DocstringSectionKind.parameters]
        documented = {argument.lstrip("*") for rows in tables for row in rows for argument in row.name.split(", ")}
        assert documented <= {parameter.name for parameter in shown.parameters}, name


class Page(HTMLParser):
    """The links of a page, what it loads, and its identifiers."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.loaded, self.identifiers = path, [], [], {"", "__top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.identifiers |= {given.get("id"), given.get("name") if tag == "a" else None}
        if tag in ("script", "img", "iframe", "source", "video"):
            self.loaded += [given["src"]] if given.get("src") else []
        if tag == "link":
            self.loaded += [given["href"]] if given.get("rel") in ("stylesheet", "preload", "icon") else []
        if tag == "a":
            self.links += [given["href"]] if given.get("href") else []


def is_outside(link):
    return re.match(r"[a-z]+:|//", link) is not None


def target(page, link, site):
    """The file of a link, and the identifier in it."""
    place, identifier = urldefrag(link)
    path = site / unquote(place)[1:] if place.startswith("/") else page.parent / unquote(place)
    path = page if not place else path.resolve()
    return (path / "index.html" if path.is_dir() else path), unquote(identifier)


@pytest.fixture(scope="module")
def pages(site):
    """The pages of the built site by their paths."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.mark.slow
def test_the_site_has_every_public_name(pages):
    assert len(pages) > 30
    identifiers = set().union(*(page.identifiers for page in pages.values()))
    assert not {name for name in public_names() if name not in identifiers}


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_hosts(pages):
    assert not [(str(path), link) for path, page in pages.items() for link in page.loaded if is_outside(link)]


@pytest.mark.slow
def test_links_anchors_and_images_of_the_site_resolve(pages, site):
    broken = []
    for path, page in pages.items():
        for link in {*page.links, *page.loaded}:
            if is_outside(link):
                continue
            file, identifier = target(path, link, site)
            if not file.is_file() or (file in pages and identifier not in pages[file].identifiers):
                broken.append((str(path.relative_to(site)), link))
    assert not broken


@pytest.mark.parametrize("page", IN_REPOSITORY, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_of_the_repository_resolve(page):
    links = [link for link in _LINK.findall(_CODE.sub("", page.read_text())) if not is_outside(link)]
    assert not [link for link in links if not (page.parent / urldefrag(link)[0]).exists()]
