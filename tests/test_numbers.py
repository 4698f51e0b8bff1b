"""Numbers in the documents: those that were measured are the present ones of their results files."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import results_files  # noqa: E402

CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
MEASURED = re.compile(
    r"(?<![\w.])\d[\d,]*(?:\.\d+)? ?(?:%|us|ms|s|seconds|minutes?|h|dB|MiB|KiB|MB|times|of \d[\d,]*)(?![\w/])"
)
"""A number with a unit of what is measured; those in code are not claims."""

DEFINITIONS = {
    "README.md": {},
    "docs/float32.md": {"20 s", "1000 s", "6e-5 s"},
    "docs/many_devices.md": set(),
}


@pytest.mark.parametrize("page", results_files.PAGES, ids=lambda page: page.stem)
def test_numbers_are_those_of_the_results_files(page):
    text = page.read_text()
    assert results_files.fill(text) == text, "run `python docs/results_files.py`"
