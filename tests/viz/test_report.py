"""The page of a run: escaped, self-contained, with an animation equal to the arrays it was given."""

import errno
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from diffsim._errors import InputError, RunError
from diffsim.viz import report
from diffsim.viz.report import Animation, Disc, Polyline, Report

TIMES = np.linspace(0.0, 2.0, 21)
PATH = np.stack([30.0 * TIMES, 20.0 * TIMES - 9.81 / 2 * TIMES**2], axis=-1)
ARM = np.stack([np.zeros_like(PATH), PATH], axis=1)


class Picture:
    """Stands for a matplotlib figure."""

    def savefig(self, buffer, **_):
        buffer.write(b"\x89PNG")

    def get_figwidth(self):
        return 6.4


class Structure(HTMLParser):
    """Collects tags, anchors and links, and fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.tags, self.anchors, self.links = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.anchors += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def scene(animation: Animation) -> dict:
    page = Report("A throw")
    page.animation(animation)
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page.html()).group(1))


def full_page() -> str:
    page = Report("Throws & misses", subtitle="at most <1 m>")
    page.text("First <b>paragraph</b>.\n\nSecond.")
    page.settings({"rate <1/s>": 0.01, "window": (0.0, np.float32(0.5))})
    page.table("Result", ["quantity", "reached"], [["miss <m>", np.float64(1 / 3)], ["bias (m)", None]])
    page.section("Result")
    page.figure(Picture(), 'a "quoted" caption')
    page.animation(Animation(TIMES, [Disc(PATH, 0.5)], {"<ball>": PATH}), "the throw")
    return page.html()


def test_page_is_well_formed_and_links_to_every_section():
    structure = Structure(full_page())
    assert structure.anchors == ["settings", "result", "result-2", "animation"]
    assert set(structure.links) == {f"#{anchor}" for anchor in structure.anchors}


def test_everything_given_is_escaped():
    page = full_page()
    for text in (
        "&lt;1 m&gt;",
        "&lt;b&gt;paragraph",
        "rate &lt;1/s&gt;",
        "miss &lt;m&gt;",
        "&#34;quoted&#34;",
    ):
        assert text in page
    assert "<title>Throws &amp; misses</title>" in page
    assert not re.search(r"<(b|m|ball|1)\b", page)


def test_page_is_self_contained():
    tags = Structure(full_page()).tags
    sources = [values["src"] for _, values in tags if "src" in values]
    assert sources == ["data:image/png;base64,iVBORw=="]
    assert not [tag for tag, _ in tags if tag == "link"]


def test_columns_of_numbers_align_right():
    page = full_page()
    assert '<th class="number">reached</th>' in page
    assert '<td class="number">0.333333</td></tr>' in page
    assert '<td class="number"></td></tr>' in page
    assert "<td>miss" in page


def test_a_table_may_be_empty_but_not_ragged():
    page = Report("A throw")
    page.table("None", ["quantity", "reached"], [])
    with pytest.raises(ValueError, match="argument 2 is"):
        page.table("Ragged", ["quantity", "reached"], [["miss"]])


def test_script_is_there_only_for_an_animation():
    page = Report("A throw")
    assert "<script" not in page.html()
    assert "<nav" not in page.html()


def test_a_page_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    def full_disk(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"report\.html was not saved: No space left on device"):
        Report("Throw").write(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_write_returns_the_path(tmp_path):
    path = Report("Größe").write(tmp_path / "report.html")
    assert "Größe" in path.read_text(encoding="utf-8")


def test_frames_match_the_arrays():
    ground = [[-1.0, 0.0], [61.0, 0.0]]
    data = scene(Animation(TIMES, [Polyline(ARM), Disc(PATH, 0.5), Polyline(ground)], {"ball": PATH}))
    arm, ball, line = data["shapes"]
    # Rounded to a hundred-thousandth of the picture, which is 66 m wide.
    np.testing.assert_allclose(np.reshape(arm["frames"], ARM.shape), ARM, atol=6e-4)
    np.testing.assert_allclose(ball["frames"], PATH, atol=6e-4)
    np.testing.assert_allclose(np.reshape(data["trails"][0]["points"], PATH.shape), PATH, atol=6e-4)
    np.testing.assert_allclose(data["times"], TIMES, atol=1e-5)
    assert line["frames"] == [[-1.0, 0.0, 61.0, 0.0]]
    assert ball["radius"] == 0.5


def test_numbers_are_short():
    noise = np.random.default_rng(0).normal(size=(21, 2))
    text = json.dumps(scene(Animation(TIMES, [Disc(noise, 0.1)]))["shapes"][0]["frames"])
    assert max(len(number) for number in re.findall(r"[-\d.e]+", text)) <= 8


def test_coordinates_that_are_not_finite_become_gaps():
    path = PATH.copy()
    path[3] = np.nan
    path[5, 1] = np.inf
    data = scene(Animation(TIMES, [Disc(path, 0.5)], {"ball": path}))
    frames = data["shapes"][0]["frames"]
    assert frames[3] == [None, None]
    assert frames[5][1] is None
    assert None not in frames[4]
    assert all(np.isfinite(data["extent"]))


def test_nothing_finite_still_has_an_extent():
    assert scene(Animation([0.0], [Disc([np.nan, np.nan], 0.5)]))["extent"] == [-1.0, 1.0, -1.0, 1.0]


def test_the_default_extent_holds_every_disc():
    left, right, bottom, top = scene(Animation([0.0], [Disc([1.0, 2.0], 3.0)]))["extent"]
    assert left < -2.0 < 4.0 < right
    assert bottom < -1.0 < 5.0 < top


def test_before_and_after_lie_on_each_other_with_a_slider():
    page = Report("A picture")
    dark, light = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 255, np.uint8)
    page.before_after(dark, light, "a <photograph>")
    page.picture(dark, "dark")
    tags = Structure(page.html()).tags
    assert [values["alt"] for tag, values in tags if tag == "img"] == ["after", "before", "dark"]
    assert [values["type"] for tag, values in tags if tag == "input"] == ["range"]
    assert "a &lt;photograph&gt;" in page.html()
    with pytest.raises(InputError, match="cannot be compared"):
        page.before_after(dark, light[:3], "")


def test_a_label_cannot_close_the_script():
    assert scene(Animation(TIMES, [], {"</script>": PATH}))["trails"][0]["name"] == "</script>"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Animation([], []), "at least one"),
        (lambda: Animation([0.0, np.nan], []), "finite and increasing"),
        (lambda: Animation([0.0, 0.0], []), "finite and increasing"),
        (
            lambda: Animation(TIMES, [Polyline(ARM), Disc(PATH[:5], 1.0)]),
            "shape 1 has 5 frames .* expected 21",
        ),
        (lambda: Animation(TIMES, [Polyline(PATH[None, :, :1])]), "shape 0 has 1 frames"),
        (lambda: Animation(TIMES, [], {"ball": PATH[:5]}), "trail 'ball' has 5 frames"),
    ],
)
def test_frames_that_do_not_fit_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_importing_the_page_and_the_command_line_imports_no_matplotlib():
    code = "import sys, diffsim.app.cli, diffsim.viz.report; sys.exit('matplotlib' in sys.modules)"
    folder = Path(report.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


def test_results_are_in_words_with_units_and_few_digits():
    page = Report("A fit")
    page.result(
        {"training_seconds_median": 0.157841, "at_500": 20, "mean_score": 1234.567, "met": True, "loss": float("nan")}
    )
    cells = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", page.html())
    expected = [
        ("training median", "0.158 s"),
        ("at 500", "20"),
        ("mean score", "1,235"),
        ("met", "yes"),
        ("loss", "nan"),
    ]
    assert cells == expected
