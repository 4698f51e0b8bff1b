"""The documents: their code runs, the site builds without a warning, and it contains every public name."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def code_of(page):
    """The Python blocks of a page, one after the other."""
    blocks = [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in _BLOCK.findall(page.read_text())]
    return "\n".join(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path):
    """In a separate process, from top to bottom, as a reader would run it."""
    script = tmp_path / "page.py"
    script.write_text(code_of(page))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def public_names():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks.public_names()


def test_what_the_reference_lists_is_public():
    import diffsim as ds

    names = {path.split(".")[-1] for path in public_names()}
    own = {name for name in dir(ds) if not name.startswith("_") and getattr(ds, name).__class__.__name__ != "module"}
    assert own <= names


class Resources(HTMLParser):
    """The resources that a page loads, and its identifiers."""

    def __init__(self):
        super().__init__()
        self.loaded, self.identifiers = [], set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.identifiers.add(given.get("id"))
        if tag in ("script", "img", "iframe"):
            self.loaded.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(given.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_and_is_complete(tmp_path):
    """In strict mode, so that a missing link, anchor or name fails; nothing is loaded from other hosts."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    identifiers = set()
    for path in (tmp_path / "site").rglob("*.html"):
        page = Resources()
        page.feed(path.read_text())
        assert not [link for link in page.loaded if link.startswith(("http", "//"))], path
        identifiers |= page.identifiers
    assert not {name for name in public_names() if name not in identifiers}
