"""Short runs of the enhancement scenario as a user starts them, and its messages for bad input."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from diffsim import image
from diffsim.image import pretrained
from diffsim.image.training import train_chain


@pytest.fixture(scope="session")
def enhance(scenario):
    """Runs the scenario and returns the finished process."""
    return partial(scenario, "enhance", timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one picture, of a photograph that nothing was trained on."""
    path = tmp_path_factory.mktemp("pictures")
    picture = train_chain.held_out()["china.jpg"][:, 60:140, 60:160]
    image.write_picture(path / "a.png", picture)
    return path


def answer(done) -> dict:
    """The result that the scenario printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "widths"), [("demosaic", (4,)), ("noisy", (4, 4))])
def test_short_training_writes_a_complete_run(task, widths, tmp_path, enhance):
    words = ("train", "--task", task, "--minutes", "0.005", "--widths", *widths, "--json")
    result = answer(enhance(*words, cwd=tmp_path))
    if task == "demosaic":
        # It starts as Malvar's filters plus small random changes.
        assert abs(result["ours"] - result["malvar"]) < 3
    run = tmp_path / result["run"]
    assert {"config.toml", "metrics.jsonl", "parameters.npz", "report.html"} <= {path.name for path in run.iterdir()}
    page = (run / "report.html").read_text()
    assert "before" in page
    assert "The graph of the stages" in page
    kind, chain = pretrained.load(run / "parameters.npz")
    assert (kind, chain.stages["demosaic"].widths) == (task, widths)


def test_evaluate_beats_the_classical_filters_with_what_ships(folder, tmp_path, enhance):
    result = answer(enhance("evaluate", folder, "--json", cwd=tmp_path))
    assert result["pictures"] == 1
    assert result["ours"] > result["malvar"] > result["bilinear"]


@pytest.mark.slow
def test_apply_writes_a_picture_of_a_picture(folder, tmp_path, enhance):
    answer(enhance("apply", folder / "a.png", tmp_path / "b.png", "--bits", 16, "--json", cwd=tmp_path))
    developed, scene = image.read_picture(tmp_path / "b.png"), image.read_picture(folder / "a.png")
    assert image.psnr(developed, scene) > 22


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("apply", "none.png", "out.png"), "none.png: no such file"),
        (("apply", "a.gif", "out.png"), "unknown extension '.gif'; known are .png, .tif"),
        (("apply", "a.png", "."), "is a folder"),
        (("apply", "a.png", "out.gif"), "out.gif: unknown extension '.gif'; give .png, .tif, .tiff, .jpg or .jpeg"),
        (("apply", "m.raw", "out.png", "--rows", "3", "--columns", "4"), "has 96 bytes, but 3 x 4"),
        (("apply", "m.raw", "out.png", "--rows", "6", "--columns", "8", "--pattern", "RGB"), "pattern='RGB'"),
        (("apply", "grey.png", "out.png"), "no colours"),
        (("apply", "dot.png", "out.png"), "1 x 1 pixels is too small"),
        (("apply", "cut.tif", "out.png"), "cut.tif: "),
        (("evaluate", "empty"), "holds no picture"),
        (("train", "--minutes", "nan"), "minutes=nan"),
        (("train", "--widths", "0", "4"), "widths=0"),
        (("train", "--photographs", "a.png"), "a.png is not a folder: give one that exists"),
        (("train", "--photographs", "empty"), "empty: holds no picture"),
        (("train", "--photographs", "small"), "dot.png: 1 x 1 pixels are too few; give at least 144 x 144"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_named_and_exits_with_2(words, message, folder, tmp_path, command):
    (tmp_path / "a.png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    (tmp_path / "m.raw").write_bytes(bytes(96))
    (tmp_path / "cut.tif").write_bytes(b"II*\0 and no more")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(tmp_path / "dot.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "dot.png").write_bytes((tmp_path / "dot.png").read_bytes())
    code, _, complaint = command("enhance", *words)
    assert code == 2
    assert message in complaint
    assert not list(tmp_path.glob("out*"))
