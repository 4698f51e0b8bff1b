"""Can all stages of a raw-to-picture chain be learned together, by differentiating through the chain?

A chain develops a camera's raw: black level and white balance, a network that demosaicks and denoises for the noise of
the raw, which may be none, colour matrix, gamma, tone curve, saturation, sharpening. All parameters start from wrong
values and are trained on the loss of the finished picture, on raws synthesised from the photographs that come with
scikit-image and those in a folder.

    python scenarios/enhance.py                                   train the noisy chain for about a minute
    python scenarios/enhance.py train --photographs FOLDER        ... on your own photographs too
    python scenarios/enhance.py train --task demosaic             the mosaic alone
    python scenarios/enhance.py apply IN OUT                      develop a raw (or the simulated raw of a picture)
    python scenarios/enhance.py export chain.onnx                 the chain for programs without diffsim
    python scenarios/enhance.py evaluate FOLDER                   PSNR compared with classical chains
    python scenarios/enhance.py ablation                          the same stages trained one by one
    python scenarios/enhance.py recover                           known constants recovered from noise-free data

Published on the McMaster set of 18 (clean mosaics, 8 bits, a border of 10 pixels left out): bilinear 32.30 dB, Malvar
34.43, Menon 34.20. Expected here: 36.7 with 11,981 parameters after two minutes of training.

The parameters that ship were written by `train` itself, by the commands in `diffsim/image/parameters/README.md`. Needs
the extras `scenarios` and, for raws and TIFF, `raw`.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from diffsim import image
from diffsim.image import pretrained, sensor
from diffsim.image.io import pictures, raw
from diffsim.image.training import calibration, stagewise, train_chain, views
from diffsim.image.training.evaluate import (
    best_classical,
    crop_even,
    example,
    judge,
    judge_between,
    judge_each,
    synthesize_raw,
)
from diffsim.io.exported import measured
from diffsim.io.raw_file import RAW
from diffsim.viz import plot, report

Task = Literal["noisy", "demosaic"]
Level = Literal["none", "low", "middle", "high"]
Minutes = Annotated[float, cli.Within(0.0, 10_000.0, above=True)]
Size = Annotated[int, cli.Within(0, 100_000)]  # pixels
Side = Annotated[int, cli.Within(2, 10_000)]  # pixels

STEPS_A_MINUTE = {"noisy": 1500, "demosaic": 2500}  # on two cores
CAMERA = sensor.CAMERA
NOISES = {"none": sensor.CLEAN} | sensor.LEVELS
NUMBER = r"[0-9.]+(e-?[0-9]+)?"
NOISE_WORDS = rf"auto|none|low|middle|high|{NUMBER}(,{NUMBER})?"
NOISE = cli.Matching(NOISE_WORDS, "give auto, none, low, middle, high or SHOT,READ")
EXPOSURE = cli.Matching(rf"auto|[+-]?{NUMBER}", "give a number of stops, or auto")
PLAIN = (".bin", ".raw")  # files of the values of a mosaic and nothing else


def steps_in(minutes: float, task: Task) -> int:
    """The number of steps of a training of `minutes`."""
    return max(1, round(minutes * STEPS_A_MINUTE[task]))


def train(
    *,
    task: Task = "noisy",
    minutes: Minutes = 1.0,
    seed: cli.Seed = 0,
    widths: Annotated[tuple[int, ...], cli.Each(cli.Within(1, 1024))] = (),
    photographs: Annotated[Path, cli.ExistingFolder()] | None = None,
    mined: bool = False,
    start: cli.InFile | None = None,
    save: Annotated[Path, cli.WritableFile((".npz",))] | None = None,
    run: cli.ResumableRun,
) -> dict:
    """Train a chain through all its stages, judge it on photographs held out, write the report.

    Args:
        task: the noisy chain from raw to picture, or the demosaicking of mosaics of finished values.
        minutes: of training on two cores, as a number of steps.
        seed: of weights, patches and noise.
        widths: channels between the network's layers; none are the task's own.
        photographs: a folder of more photographs to train on, PNG, TIFF or JPEG.
        mined: only on the half of the patches that is hardest to demosaick; smooth ones teach to denoise.
        start: a file that `train` wrote, whose training is continued.
        save: also write the parameters here.
    """
    steps = steps_in(minutes, task)
    weights, batches = jr.split(jr.key(seed))
    chain = pretrained.load_for_task(task, start) if start else pretrained.untrained(task, widths or None, key=weights)
    squares = train_chain.squares(photographs, mined)
    count = sum(entry.value.size for entry in ds.parameters(chain).values())
    run.say(f"training {count} parameters on {len(squares)} patches, {steps} steps")
    chain, history = train_chain.train(
        task, chain, squares, steps, key=batches, state=run.state, trained_before=start is not None
    )
    pretrained.save(run.folder / "parameters.npz", task, chain)
    if save is not None:
        pretrained.save(save, task, chain)
    for number, loss in enumerate(train_chain.smoothed(history)):
        run.metric(step=20 * number, loss=float(loss))
    result = {"parameters": count, "steps": steps, "training_seconds": history.seconds}
    result |= {"compile_seconds": history.compile_seconds} | judge(task, chain, train_chain.held_out())
    write_report(run, task, chain, history, result)
    return result


def evaluate(
    folder: Annotated[Path, cli.ExistingFolder()],
    *,
    task: Task = "demosaic",
    parameters: cli.InFile | None = None,
    bm3d: bool = False,
) -> dict:
    """PSNR on every picture of a folder, compared with bilinear, Malvar, Menon or the classical noisy chains.

    The classical noisy chains are given the camera's true constants and, of five strengths, the best on this folder.

    Args:
        folder: with PNG, TIFF or JPEG pictures in colour.
        task: mosaics of finished values, or raws, without noise and at several levels of it.
        parameters: a file that `train` wrote; else those that ship.
        bm3d: also the classical chain with BM3D, which is slow.
    """
    scenes = pictures.read_folder(folder)
    chain = pretrained.load_for_task(task, parameters)
    result: dict = {"pictures": len(scenes)} | judge(task, chain, scenes)
    if task == "demosaic":
        return result | judge_each(chain, scenes)
    result |= judge_between(chain, scenes)
    for denoiser in ("nlm", "bm3d") if bm3d else ("nlm",):
        result |= best_classical(denoiser, scenes)
    return result


def apply(
    source: Annotated[Path, cli.RawFile()],
    out: Annotated[Path, cli.WritableFile((".png", ".tif", ".tiff", ".jpg", ".jpeg"))],
    *,
    parameters: cli.InFile | None = None,
    bits: Literal[8, 16] = 8,
    noise: Annotated[str, NOISE] = "auto",
    look: Literal["neutral", "trained"] | None = None,
    exposure: Annotated[str, EXPOSURE] = "0",
    gains: Annotated[tuple[float, float], cli.Each(cli.Within(0.0, 100.0, above=True))] | None = None,
    matrix: Annotated[tuple[float, ...], cli.Each(cli.Within(-100.0, 100.0))] = (),
    page: Annotated[Path, cli.WritableFile((".html",))] | None = None,
    rows: Size = 0,
    columns: Size = 0,
    pattern: str = "RGGB",
    black: cli.Finite = 0.0,
    white: cli.Finite | None = None,
    stored: Literal[8, 16] = 16,
) -> dict:
    """Develop a raw into a picture: of a camera, or a plain binary mosaic, or the simulated raw of a picture.

    Args:
        source: a DNG or maker's raw; a .bin or .raw file of plain numbers; a picture, made into a raw first.
        out: PNG, TIFF or JPEG to write.
        parameters: a file that `train` wrote; else those that ship.
        bits: per value of the picture to write.
        noise: SHOT,READ (white is 1), or none, low, middle or high; auto is that of the file, or measured.
        look: neutral for the scene's own contrast and colours, trained for those learned; by default neutral for raws.
        exposure: stops, added to those of the file; auto brightens until one pixel in a hundred is white.
        gains: of red and blue over green; else those of the file.
        matrix: nine numbers, from balanced camera colours to linear sRGB, row by row; else that of the file.
        page: also write a page that compares the picture of a camera's raw with LibRaw's.
        rows: of a plain mosaic.
        columns: of a plain mosaic.
        pattern: of a plain mosaic.
        black: stored value of black in a plain mosaic.
        white: stored value of white in a plain mosaic; by default the greatest possible.
        stored: bits per pixel of a plain mosaic.
    """
    pictures.check_extension(source, (*pictures.READ, *RAW, *PLAIN))
    kind = source.suffix.lower()
    if page is not None and kind not in RAW:
        raise ds.InputError(f"{page}: only a camera's raw can be compared with LibRaw's picture; leave out --page")
    own_look = "trained" if kind in pictures.READ else "neutral"
    began = time.perf_counter()
    chain = pretrained.load_for_task("noisy", parameters)
    stops = exposure if exposure == "auto" else float(exposure)
    if kind in pictures.READ:
        scene = crop_even(image.read_picture(source))
        level = given_noise(noise) or sensor.CLEAN
        camera = image.Raw(
            (np.asarray(synthesize_raw(scene, jnp.array(level), jr.key(0))) - CAMERA.black) / (1 - CAMERA.black),
            gains=(CAMERA.red, 1.0, CAMERA.blue),
            matrix=np.asarray(CAMERA.matrix),
            noise=level,
        )
    elif kind in PLAIN:
        camera = raw.read_binary(source, (rows, columns), pattern, bits=stored, black=black, white=white)
    else:
        camera = image.read_raw(source)
    camera = with_constants(camera, gains, matrix)
    level = given_noise(noise) or camera.noise or image.estimate_noise(camera)
    picture = image.develop(camera, level, look or own_look, exposure=stops, chain=chain, progress=progress)
    image.write_picture(out, picture, bits)
    if page is not None:
        brighter = camera.exposure + (0.0 if stops == "auto" else stops)
        compare_with_libraw(page, source, camera, level, picture, brighter)
    seconds = time.perf_counter() - began
    size = f"{picture.shape[2]} x {picture.shape[1]}"
    return {"file": str(out), "size": size, "shot_noise": level.shot, "read_noise": level.read, "seconds": seconds}


def given_noise(word: str) -> image.Noise | None:
    """The noise that a word of the command line names; None for auto."""
    if word == "auto":
        return None
    if word in NOISES:
        return NOISES[word]
    shot, _, read = word.partition(",")
    return image.Noise(float(shot), float(read or 0.0))


def with_constants(camera: image.Raw, gains: tuple[float, float] | None, matrix: tuple[float, ...]) -> image.Raw:
    """The raw with the gains and the matrix of the command line, as far as these are given."""
    if gains is not None:
        camera = camera._replace(gains=(gains[0], 1.0, gains[1]))
    if not matrix:
        return camera
    rows = np.reshape(matrix, (3, 3)) if len(matrix) == 9 else np.zeros((3, 3))
    sums = rows.sum(axis=1, keepdims=True)
    if len(matrix) != 9 or np.any(np.abs(sums) < 1e-6):
        raise ds.InputError(f"matrix={matrix}: give nine numbers, none of whose rows sums to 0")
    return camera._replace(matrix=rows / sums)  # white stays white


def progress(share: float) -> None:
    """Says on a terminal how much of a picture is developed."""
    if sys.stderr.isatty():
        print(f"\rdeveloped {share:4.0%}", end="\n" if share == 1.0 else "", file=sys.stderr, flush=True)


def compare_with_libraw(path: Path, source: Path, camera: image.Raw, noise, picture, stops: float) -> None:
    """A page with the picture of a raw and LibRaw's, crops of both, and where the sensor was saturated."""
    page = report.Report(f"The raw {source.name}", "Developed by diffsim and by LibRaw")
    rows = [("gain of red", camera.gains[0]), ("gain of blue", camera.gains[2]), ("stops of exposure", camera.exposure)]
    rows += [("shot noise", noise.shot), ("read noise", noise.read)]
    page.table("Constants", ["constant", "value"], rows)
    theirs = raw.rendering_by_libraw(source, camera, stops)
    page.before_after(views.pixels(theirs), views.pixels(picture), "LibRaw on the left, diffsim on the right.")
    page.section("Crops")
    height, width = picture.shape[1:]
    side = min(160, height, width)
    for y, x in ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75)):
        top, left = int(y * (height - side)), int(x * (width - side))
        both = [image[:, top : top + side, left : left + side] for image in (theirs, picture)]
        shown = plot.pictures({"LibRaw": views.colors_last(both[0]), "diffsim": views.colors_last(both[1])})
        page.figure(shown, f"{side} x {side} pixels from row {top}, column {left}.")
    saturated = np.rot90(np.asarray(camera.mosaic) >= 0.99, camera.quarter_turns)
    page.section("Saturated sites")
    page.picture(
        np.repeat(np.uint8(255) * ~saturated[..., None], 3, axis=2),
        f"Black where the sensor was saturated: {saturated.mean():.2%}.",
    )
    page.write(path)


def export(
    out: Annotated[Path, cli.WritableFile((".jax", ".onnx"))],
    *,
    parameters: cli.InFile | None = None,
    noise: Level = "middle",
    rows: Side = 512,
    columns: Side = 512,
) -> dict:
    """The noisy chain in a file that runs without diffsim: mosaics of one size, in [0, 1], to pictures.

    Args:
        out: the file to write: .onnx for onnxruntime, .jax for JAX, with derivatives.
        parameters: a file that `train` wrote; else those that ship.
        noise: of the raws.
        rows: of the mosaic, an even number.
        columns: of the mosaic, an even number.
    """
    chain = pretrained.with_noise_level(pretrained.load_for_task("noisy", parameters), NOISES[noise])
    ds.export(lambda mosaic: chain(mosaic), jax.ShapeDtypeStruct((rows, columns), jnp.float32), path=out)
    return measured(out, np.full((rows, columns), 0.5, np.float32))


def ablation(*, minutes: Minutes = 0.63, seed: cli.Seed = 0) -> dict:
    """The same stages trained together and one by one, judged on photographs held out.

    All ways take as many steps of the same losses on the same raws. One by one, a stage learns while the others are
    frozen; every stage but the network gets a hundred steps, and the network the rest (or half, if steps are few).
    Training one by one is done twice: against the finished picture, the only target of training together, and each
    stage against the camera's picture after that stage, which is known only for a simulated camera.

    After 0.63 minutes training together was ahead by 1.4 dB, and by 0.5 dB of stages with targets of their own (seed
    0). The longer the training, the less it is ahead.

    Args:
        minutes: of training on two cores, each way.
        seed: of weights, patches and noise.
    """
    steps = max(10, steps_in(minutes, "noisy"))
    weights, batches = jr.split(jr.key(seed))
    start, squares = pretrained.untrained("noisy", key=weights), train_chain.squares()
    ways = {
        "joint": train_chain.train("noisy", start, squares, steps, key=batches)[0],
        "one_by_one": stagewise.one_by_one(start, squares, steps, key=batches),
        "own_targets": stagewise.one_by_one(start, squares, steps, key=batches, own_targets=True),
    }
    results = {way: judge("noisy", chain, train_chain.held_out()) for way, chain in ways.items()}
    ours = [f"ours_{level}" for level in sensor.LEVELS]
    result = {f"{way}_{x}": results[way][x] for way in ways for x in ours}
    ahead = lambda way: float(np.mean([results["joint"][x] - results[way][x] for x in ours]))
    gains = {"gain_db": ahead("one_by_one"), "gain_over_own_targets_db": ahead("own_targets")}
    network, few = stagewise.shares(start, steps)
    counts = {"steps_each_way": train_chain.CONSTANTS + steps, "alone_network_steps": network, "alone_other_steps": few}
    return result | counts | gains


def recover(
    *,
    off: Annotated[float, cli.Within(0.0, 0.9)] = 0.2,
    seed: cli.Seed = 0,
    steps: Annotated[int, cli.Within(1, 10_000)] = 30,
) -> dict:
    """The camera's constants, recovered from noise-free raws of smooth scenes after a wrong start.

    Args:
        off: how wrong the start is, as a fraction.
        seed: of the signs of the errors and the choice of scenes.
        steps: of Levenberg-Marquardt.
    """
    signs, which = jr.split(jr.key(seed))
    recovered, loss = calibration.recover(calibration.wrong_start(off, signs), steps, key=which)
    return calibration.errors(recovered) | {"start_error": off, "loss": loss}


def write_report(run, task: str, chain, history, result) -> None:
    """The page of a training run: result, slider, every stage's picture, what was learned, adjoints of the stages."""
    page = report.Report("From camera raw to picture", "One gradient through every stage of the chain")
    page.settings({**run.settings, "widths": chain.stages["demosaic"].widths})
    rows = [(name.replace("_", ", "), round(value, 2)) for name, value in result.items()]
    page.table("Result", ["quantity (PSNR in dB, photographs held out)", "value"], rows)
    curve = plot.learning_curve(train_chain.smoothed(history), xlabel="step / 20", ylabel="loss")
    page.figure(curve, "Learning curve: the loss, over twenty steps each.")
    run.figure("learning_curve", curve)
    scene = crop_even(train_chain.held_out()["china.jpg"])[:, :200, :300]
    given, before, chain = example(task, chain, scene)
    stages = jax.jit(lambda c, m: c.pictures(m))(chain, given)
    after = list(stages.values())[-1]
    what = "bilinear" if task == "demosaic" else "the classical chain without a denoiser, at the high level of noise"
    page.before_after(views.pixels(before), views.pixels(after), f"A photograph held out; before is {what}.")
    shown = {"raw": given, **stages, "scene": scene}
    drawn = plot.pictures({name: views.colors_last(x) for name, x in shown.items()})
    add_figure(run, page, "stages", "Every stage's picture", drawn, "The output of each stage.")
    caption = (
        "The first layer's filters: four squares each, for R, G, G, B; black is the least weight, white the greatest."
    )
    add_figure(run, page, "filters", "Learned filters", plot.pictures(views.filters(chain), 8), caption)
    if task == "noisy":
        add_curves(run, page, chain)
    graph = views.loss_graph(chain, given, scene)
    caption = (
        "From the raw to the loss: the cost of each stage, and the gradient of the loss with respect to its picture."
    )
    add_figure(run, page, "graph", "The graph of the stages", plot.stages(graph), caption)
    page.write(run.folder / "report.html")


def add_figure(run, page, name: str, title: str, figure, caption: str) -> None:
    """A section with one figure, which is also saved."""
    page.section(title)
    page.figure(figure, caption)
    run.figure(name, figure)


def add_curves(run, page, chain) -> None:
    """The learned tone curve and constants, and those of the camera."""
    x = np.linspace(0, 1, 101, dtype=np.float32)
    learned = np.asarray(chain.stages["tone"](jnp.asarray(x)[None, None])[0, 0])
    lines = {"learned": learned, "the camera's": 3 * x**2 - 2 * x**3, "start": x}
    figure = plot.curves(x, lines, "display value (white = 1)", "picture value (white = 1)")
    add_figure(run, page, "tone", "Learned curve", figure, "The tone curve after training.")
    rows = [(name, round(learned, 4), own) for name, learned, own in views.constants(chain, CAMERA)]
    page.table("Constants", ["constant", "learned", "the camera's"], rows)
    page.text("With noise the constants are only jointly identifiable: later stages compensate for earlier ones.")


if __name__ == "__main__":
    # A training's batches are shared among the cores, each a device.
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, train_chain.BATCH))
    cli.main(train, apply, evaluate, export, ablation, recover)
