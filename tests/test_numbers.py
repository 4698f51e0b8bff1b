"""Numbers in the documents: those that were measured carry a mark, and are the present ones of their results files."""

import re
from pathlib import Path

import pytest
import results_files

ROOT = Path(__file__).parent.parent
NAMES = [str(page.relative_to(ROOT)) for page in results_files.PAGES]

COMMENT = re.compile(r"<!--(?! table: \w+ -->| end -->| test command -->).*?-->", re.DOTALL)
"""A comment other than those that mean something else than the place of a number."""

NOT_PROSE = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|^#[^\n]*|<!-- table: \w+ -->.*?<!-- end -->", re.DOTALL | re.MULTILINE
)
"""Code, formulas, headings, and tables made from results files."""

MEASURED = re.compile(
    r"(?<![\w.,/])(?<!\w-)\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
    r"(?: ?%| (?:us|ms|s|seconds|minutes|h|dB|MiB|KiB|MB|times)| of \d(?:[\d,]*\d)?)(?![\w/])"
)
"""A number with a unit of what is measured."""

GROWTH = "at which growth a horizon is no longer useful"
RATE = "how often the network decides"
DEFINITIONS = {
    "README.md": {"6%": "the aim; the entry counts the networks that reach it"},
    "docs/concepts.md": {"16 MiB": "the default of an option"},
    "docs/float32.md": {
        "20 s": "the duration of the solve",
        "1000 s": "an example",
        "6e-5 s": "the spacing of float32 at 1000",
    },
    "docs/other_simulators.md": {"1.25 seconds": "when the height is asked for", "5%": "the step of a slope"},
    "docs/scenarios/cartpole.md": {"0.02 s": "the environment's step", "50 times": GROWTH},
    "docs/scenarios/drive_cycle.md": {"1,369 s": "the duration of the schedule"},
    "docs/scenarios/fit_camera.md": {"95%": "the share of a normal distribution within two standard deviations"},
    "docs/scenarios/identify.md": {"12 s": "the duration of the data", "90%": "the level of an interval"},
    "docs/scenarios/kinetics.md": {"90%": "the level of an interval"},
    "docs/scenarios/pendulum.md": {"20 times": RATE, "3.2 s": "64 decisions", "50 times": GROWTH},
    "docs/scenarios/quadrotor.md": {
        "20 times": RATE,
        "3 s": "60 decisions",
        "10 s": "the duration of a test flight",
        "5 s": "the part of it that is judged",
        "50 times": GROWTH,
    },
    "docs/scenarios/rocket.md": {"25 s": "100 decisions"},
    "docs/scenarios/swingup.md": {
        "20 times": RATE,
        "4 s": "the horizon of the loss",
        "2 s": "the part of a test that is judged",
        "50 times": GROWTH,
    },
    "docs/scenarios/trebuchet.md": {
        "97%": "which targets are drawn",
        "0.1%": "the aim; the entry counts the seeds that reach it",
    },
    "docs/scenarios/any_trebuchet.md": {
        "12 times": "the heaviest weights that are drawn",
        "20%": "the nearest targets that are drawn",
        "97%": "the farthest of them",
        "2%": "how near the reach is not judged",
    },
    "scenarios/README.md": {"64 of 64": "the entry counts the seeds for which this holds"},
}
"""Numbers with a unit that were chosen and not measured, by page, with what they are."""


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_results_files(name):
    text = (ROOT / name).read_text()
    assert results_files.fill(text) == text, "run `python docs/results_files.py`"


@pytest.mark.parametrize("name", NAMES)
def test_every_mark_follows_a_number(name):
    """One that does not would never be updated."""
    text = (ROOT / name).read_text()
    updated = {mark.end() for mark in results_files.MARK.finditer(text)}
    assert not [comment[0] for comment in COMMENT.finditer(text) if comment.end() not in updated]


@pytest.mark.parametrize("name", NAMES)
def test_every_measured_number_has_a_mark(name):
    text = results_files.MARK.sub("", NOT_PROSE.sub("", (ROOT / name).read_text()))
    assert set(MEASURED.findall(text)) == set(DEFINITIONS.get(name, {}))


def test_numbers_are_filled_in_with_their_units_and_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(results_files, "RESULTS", tmp_path)
    results_files.write("file", "python measure.py", {"group": {"share": 0.12345, "a_us": 1234.5, "b_us": 2469.0}})
    results_files.write("file", "python measure.py", {"group": {"count": 12345}})
    text = "0%<!-- file/group/share -->, 0.00 ms<!-- file/group/a_us -->, 1.0<!-- file/group/b_us : file/group/a_us -->"
    filled = (
        "12%<!-- file/group/share -->, 1.23 ms<!-- file/group/a_us -->, 2.0<!-- file/group/b_us : file/group/a_us -->"
    )
    assert results_files.fill(text) == filled
    assert results_files.fill("0<!-- file/group/count --> runs") == "12,345<!-- file/group/count --> runs"
    with pytest.raises(KeyError, match="no 'speed' among share, a_us, b_us, count"):
        results_files.fill("1 ms<!-- file/group/speed -->")
