"""Can a whole raw-to-picture chain be learned by differentiating through every stage at once?

A chain develops a camera's raw: black level and white balance, a small network that demosaicks and denoises, guided
filter, colour matrix, gamma, tone curve, saturation, sharpening. All of it starts wrong and is trained together,
through the finished picture, on raws synthesised from the photographs that come with scikit-image.

    python scenarios/enhance.py                                   train the noisy chain for about a minute
    python scenarios/enhance.py train --minutes 10                ... as long as the parameters that ship
    python scenarios/enhance.py train --task demosaic --minutes 3 the clean mosaic alone
    python scenarios/enhance.py apply IN OUT                      develop a raw (or what a camera makes of a picture)
    python scenarios/enhance.py evaluate FOLDER                   PSNR beside the classical chains
    python scenarios/enhance.py ablation                          the same stages trained one by one
    python scenarios/enhance.py recover                           known constants found again from noise-free data

Published on the McMaster set of 18 (clean mosaics, 8 bits, a border of 10 pixels left out): bilinear 32.30 dB, Malvar
34.43, Menon 34.20. Expected here: 36.0 with 4,904 parameters after three minutes of training.

The parameters that ship were written by `train --minutes 10 --save diffsim/image/parameters/noisy.npz`, and by the
same with `--task demosaic --minutes 3`. Needs the extras `scenarios` and, for raws and TIFF, `raw`.
"""

import time
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from diffsim import cli, image, plot, report
from diffsim.image import baselines, pictures, raw, sensor, trained, training

Task = Literal["noisy", "demosaic"]
Level = Literal["low", "middle", "high"]

STEPS_A_MINUTE = {"noisy": 1200, "demosaic": 5000}  # on two cores
CAMERA = sensor.CAMERA


def train(
    *,
    task: Task = "noisy",
    minutes: float = 1.0,
    seed: int = 0,
    widths: tuple[int, ...] = (),
    save: Path | None = None,
    run: cli.Run,
) -> dict:
    """Train a chain through all its stages, judge it on photographs held out, write the report.

    Args:
        task: the noisy chain from raw to picture, or the demosaicking of clean mosaics.
        minutes: of training on two cores, as a number of steps.
        seed: of weights, patches and noise.
        widths: channels between the network's layers; none are the task's own.
        save: also write the parameters here.
    """
    steps = max(1, round(minutes * STEPS_A_MINUTE[task]))
    weights, batches = jr.split(jr.key(seed))
    chain = trained.untrained(task, widths or None, key=weights)
    squares = training.squares()
    count = sum(entry.value.size for entry in ds.parameters(chain).values())
    run.say(f"training {count} parameters on {len(squares)} patches, {steps} steps")
    (chain, _), history = ds.fit(
        training.LOSSES[task], (chain, squares), training.schedule(steps), jr.split(batches, steps)
    )
    trained.save(run.folder / "parameters.npz", task, chain)
    if save is not None:
        trained.save(save, task, chain)
    for step in range(0, steps, 20):
        run.metric(step=step, loss=float(history.loss[step : step + 20].mean()))
    result = {"parameters": count, "steps": steps, "training_seconds": history.seconds}
    result |= {"compile_seconds": history.compile_seconds} | judge(task, chain, training.held_out())
    write_report(run, task, chain, history, result)
    return result


def run_tiles(chain, mosaic) -> np.ndarray:
    """The chain's picture of a mosaic, tile by tile."""
    return image.in_tiles(chain, np.asarray(mosaic, np.float32), size=1024, halo=24)


def judge(task: str, chain, scenes: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean PSNR (dB) over the scenes, ours and the classical ones; for noise one figure for each level."""
    if task == "demosaic":
        methods = {"ours": lambda m: run_tiles(chain, m), "bilinear": image.bilinear, "malvar": image.malvar}
        methods["menon"] = image.menon
        return {name: mean_psnr(method, clean_mosaics(scenes)) for name, method in methods.items()}
    found = {}
    for level, noise in sensor.LEVELS.items():
        found[f"ours_{level}"] = mean_psnr(lambda m: run_tiles(chain, m), raws(scenes, noise))
        found[f"malvar_{level}"] = mean_psnr(lambda m: baselines.develop(m, CAMERA), raws(scenes, noise))
    return found


def even(scene) -> np.ndarray:
    """The scene without a last odd row or column."""
    return np.asarray(scene[:, : scene.shape[1] // 2 * 2, : scene.shape[2] // 2 * 2], np.float32)


def clean_mosaics(scenes):
    """Pairs (mosaic, scene) without noise, of the finished values."""
    return [(np.asarray(image.mosaic(even(s))), even(s)) for s in scenes.values()]


def raws(scenes, noise, seed: int = 1000):
    """Pairs (raw, scene) as the camera records them; the noise is the same for every method."""
    keys = jr.split(jr.key(seed), len(scenes))
    return [
        (np.asarray(_exposed(even(s), jnp.array(noise), k)), even(s))
        for s, k in zip(scenes.values(), keys, strict=True)
    ]


_exposed = jax.jit(lambda scene, noise, key: image.expose(scene, noise, key=key))


def mean_psnr(method, pairs) -> float:
    """The mean over all pairs: 8 bits, finished sRGB values, a border of 10 pixels left out."""
    return float(np.mean([image.psnr(np.asarray(method(mosaic)), scene) for mosaic, scene in pairs]))


def evaluate(folder: Path, *, task: Task = "demosaic", parameters: Path | None = None, bm3d: bool = False) -> dict:
    """PSNR on every picture of a folder, ours beside bilinear, Malvar, Menon or the classical noisy chains.

    The classical noisy chains are given the camera's true constants and, of four strengths, the best on this folder.

    Args:
        folder: with PNG, TIFF or JPEG pictures in colour.
        task: clean mosaics, or raws at three levels of noise.
        parameters: a file that `train` wrote; else those that ship.
        bm3d: also the classical chain with BM3D, which is slow.
    """
    if not folder.is_dir():
        raise ds.InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in pictures.READ)
    if not files:
        raise ds.InputError(f"{folder}: holds no picture ({', '.join(pictures.READ)})")
    scenes = {path.name: image.read_picture(path) for path in files}
    chain = chosen(task, parameters)
    result: dict = {"pictures": len(scenes)} | judge(task, chain, scenes)
    if task == "demosaic":
        pairs = zip(scenes, clean_mosaics(scenes), strict=True)
        result |= {name: image.psnr(run_tiles(chain, mosaic), scene) for name, (mosaic, scene) in pairs}
        return result
    for denoiser in ("nlm", "bm3d") if bm3d else ("nlm",):
        for level, noise in sensor.LEVELS.items():
            pairs = raws(scenes, noise)
            tries = [
                mean_psnr(lambda m, s=s, d=denoiser: baselines.develop(m, CAMERA, d, s), pairs)
                for s in baselines.STRENGTHS
            ]
            result[f"menon_{denoiser}_{level}"] = max(tries)
    return result


def chosen(task: str, parameters: Path | None):
    """The chain with parameters from a file, or as shipped."""
    if parameters is None:
        return trained.trained(task)
    kind, chain = trained.load(parameters)
    if kind != task:
        raise ds.InputError(f"{parameters}: was trained for the task {kind!r}, not {task!r}")
    return chain


def apply(
    source: Path,
    out: Path,
    *,
    parameters: Path | None = None,
    bits: Literal[8, 16] = 8,
    noise: Level | None = None,
    rows: int = 0,
    columns: int = 0,
    pattern: str = "RGGB",
    black: float = 0.0,
    white: float | None = None,
    stored: Literal[8, 16] = 16,
) -> dict:
    """Develop a raw into a picture: of a camera, or a plain binary mosaic, or what a camera makes of a picture.

    Args:
        source: a DNG or maker's raw; a .bin or .raw file of plain numbers; a picture, exposed first.
        out: PNG, TIFF or JPEG to write.
        parameters: a file that `train` wrote; else those that ship.
        bits: per value of the picture to write.
        noise: of the camera that is to photograph a picture.
        rows: of a plain mosaic.
        columns: of a plain mosaic.
        pattern: of a plain mosaic.
        black: stored value of black in a plain mosaic.
        white: stored value of white in a plain mosaic; by default the greatest possible.
        stored: bits per pixel of a plain mosaic.
    """
    pictures.check_output(out)
    began = time.perf_counter()
    chain = chosen("noisy", parameters)
    if source.suffix.lower() in pictures.READ:
        scene = even(image.read_picture(source))
        level = sensor.LEVELS[noise] if noise else sensor.CLEAN
        picture = run_tiles(chain, _exposed(scene, jnp.array(level), jr.key(0)))
    else:
        if source.suffix.lower() in (".bin", ".raw"):
            given = raw.read_binary(source, (rows, columns), pattern, bits=stored, black=black, white=white)
        else:
            given = image.read_raw(source)
        picture = developed(chain, given)
    image.write_picture(out, picture, bits)
    size = f"{picture.shape[2]} x {picture.shape[1]}"
    return {"file": str(out), "size": size, "seconds": time.perf_counter() - began}


def developed(chain, given: image.Raw) -> np.ndarray:
    """The picture of a raw, the chain's camera exchanged for the one that took it."""
    fitted = chain.replace(
        balance=ds.replace(image.Balance(), {"black": 0.0, "red": given.gains[0], "blue": given.gains[2]}),
        colour=ds.replace(image.ColourMatrix(), {"mixing": given.matrix[~np.eye(3, dtype=bool)]}),
    )
    picture = run_tiles(fitted, image.to_rggb(given.mosaic, given.pattern))
    rows, columns = given.mosaic.shape
    return np.asarray(image.cut_back(picture, given.pattern, (rows, columns)))


def ablation(*, minutes: float = 1.0, seed: int = 0) -> dict:
    """The same stages trained together and one by one, judged on photographs held out.

    One by one, each stage has as many steps as all together, and learns to turn what those before it make into the
    camera's own picture at its place.

    Args:
        minutes: of training on two cores, each way.
        seed: of weights, patches and noise.
    """
    steps = max(10, round(minutes * STEPS_A_MINUTE["noisy"]))
    weights, batches = jr.split(jr.key(seed))
    start = trained.untrained("noisy", key=weights)
    squares = training.squares()
    keys = jr.split(batches, steps)
    (joint, _), _ = ds.fit(training.noisy_loss, (start, squares), training.schedule(steps), keys)
    apart = start
    # Each stage alone is given as many steps as all of them together.
    for name in (name for name in start.stages if ds.parameters(start.stages[name])):
        loss, free = training.stage_loss(name), ds.trainable((apart, squares), f"0.stages.{name}")
        (apart, _), _ = ds.fit(loss, (apart, squares), training.schedule(steps), keys, train=free)
    scenes = training.held_out()
    both = {"joint": judge("noisy", joint, scenes), "one_by_one": judge("noisy", apart, scenes)}
    result = {f"{way}_{level}": both[way][f"ours_{level}"] for way in both for level in sensor.LEVELS}
    gains = [both["joint"][f"ours_{level}"] - both["one_by_one"][f"ours_{level}"] for level in sensor.LEVELS]
    return result | {"steps": steps, "gain_db": float(np.mean(gains))}


def recover(*, off: float = 0.2, seed: int = 0, steps: int = 30) -> dict:
    """The camera's constants, found again from noise-free raws of smooth scenes after a wrong start.

    Args:
        off: how wrong the start is, as a fraction.
        seed: of the signs of the errors and the choice of scenes.
        steps: of Levenberg-Marquardt.
    """
    signs, which = jr.split(jr.key(seed))
    true = true_finish()
    wrong = 1.0 + off * jr.rademacher(signs, (9,), jnp.float32)
    start = ds.replace(
        true,
        {
            "stages.balance.black": true.stages["balance"].black * wrong[0],
            "stages.balance.red": true.stages["balance"].red * wrong[1],
            "stages.balance.blue": true.stages["balance"].blue * wrong[2],
            "stages.colour.mixing": true.stages["colour"].mixing * wrong[3:],
        },
    )
    squares = np.asarray(training.squares())
    scenes = squares[np.asarray(jr.choice(which, len(squares), (12,), replace=False))] / np.float32(255)
    # Smooth scenes: what demosaicking cannot know would pull at the constants.
    scenes = jax.vmap(lambda x: image.box(image.box(image.box(x, 4), 4), 4))(jnp.asarray(scenes))
    camera = CAMERA._replace(tone=False, bits=None)
    data = (jax.vmap(lambda x: image.expose(x, camera=camera))(scenes), scenes)
    edge = training.BORDER  # at their edges the mosaics are mirrored
    inner = np.s_[..., edge:-edge, edge:-edge]
    residuals = lambda chain, data: (jax.vmap(chain)(data[0]) - data[1])[inner]
    free = ds.trainable(start, "stages.balance", "stages.colour")
    found, history = ds.fit_least_squares(residuals, start, data, steps=steps, train=free)
    balance, matrix = found.stages["balance"], np.asarray(found.stages["colour"].matrix)
    return {
        "black_error": abs(float(balance.black) - CAMERA.black),
        "red_error": abs(float(balance.red) / CAMERA.red - 1),
        "blue_error": abs(float(balance.blue) / CAMERA.blue - 1),
        "matrix_error": float(abs(matrix - np.array(CAMERA.matrix)).max()),
        "start_error": off,
        "loss": float(np.nanmin(history.loss)),  # not a number where a step was not taken
    }


def true_finish():
    """The chain of the camera's own constants, without its tone."""
    matrix = np.array(CAMERA.matrix, np.float32)
    return image.Chain(
        remat=False,
        balance=ds.replace(image.Balance(), {"black": CAMERA.black, "red": CAMERA.red, "blue": CAMERA.blue}),
        demosaic=image.malvar,
        colour=ds.replace(image.ColourMatrix(), {"mixing": matrix[~np.eye(3, dtype=bool)]}),
        display=sensor.to_srgb,
    )


def pixels(picture) -> np.ndarray:
    """A picture (3, h, w) as an array (h, w, 3) of 8-bit values."""
    return np.round(np.clip(np.moveaxis(np.asarray(picture), 0, 2), 0, 1) * 255).astype(np.uint8)


def write_report(run, task: str, chain, history, result) -> None:
    """The page of a training run: result, slider, every stage's picture, what was learned, adjoints of the stages."""
    page = report.Report("From camera raw to picture", "One gradient through every stage of the chain")
    page.settings(run.settings)
    rows = [(name.replace("_", ", "), value) for name, value in result.items()]
    page.table("Result", ["quantity (PSNR in dB, photographs held out)", "value"], rows)
    smooth = (
        history.loss[: len(history.loss) // 20 * 20].reshape(-1, 20).mean(axis=1)
        if len(history.loss) > 20
        else history.loss
    )
    curve = plot.learning_curve(smooth, xlabel="step / 20", ylabel="loss")
    page.figure(curve, "Learning curve: the loss, over twenty steps each.")
    run.figure("learning_curve", curve)
    scene = even(training.held_out()["china.jpg"])[:, :200, :300]
    if task == "demosaic":
        given, before = image.mosaic(scene), image.bilinear(image.mosaic(scene))
    else:
        given = _exposed(scene, jnp.array(sensor.LEVELS["high"]), jr.key(7))
        before = baselines.develop(np.asarray(given), CAMERA)
    stages = jax.jit(lambda c, m: c.pictures(m))(chain, given)
    after = list(stages.values())[-1]
    what = "bilinear" if task == "demosaic" else "the classical chain without a denoiser, at the high level of noise"
    page.before_after(pixels(before), pixels(after), f"A photograph held out; before is {what}.")
    shown = {"raw": given, **stages, "scene": scene}
    drawn = {name: np.moveaxis(np.asarray(x), 0, 2) if x.ndim == 3 else np.asarray(x) for name, x in shown.items()}
    add_figure(run, page, "stages", "Every stage's picture", plot.pictures(drawn), "What each stage makes of the raw.")
    filters = np.asarray(chain.stages["demosaic"].layers[0].weight)[:16]
    tiles = {f"{i + 1}": np.block([[w[0], w[1]], [w[2], w[3]]]) for i, w in enumerate(filters)}
    caption = "The first layer's filters on R, G, G, B (four squares each); grey from least to greatest weight."
    add_figure(run, page, "filters", "Learned filters", plot.pictures(tiles, 8), caption)
    if task == "noisy":
        add_curves(run, page, chain)
    add_adjoints(page, chain, given, scene)
    page.write(run.folder / "report.html")


def add_figure(run, page, name: str, title: str, figure, caption: str) -> None:
    """A section with one figure, which is also saved."""
    page.section(title)
    page.figure(figure, caption)
    run.figure(name, figure)


def add_curves(run, page, chain) -> None:
    """The learned tone curve and constants beside the camera's own."""
    x = np.linspace(0, 1, 101, dtype=np.float32)
    curve = lambda stage: np.asarray(stage(jnp.asarray(x)[None, None])[0, 0])
    lines = {"learned": curve(chain.stages["tone"]), "the camera's": 3 * x**2 - 2 * x**3, "start": x}
    figure = plot.curves(x, lines, "display value (white = 1)", "picture value (white = 1)")
    add_figure(run, page, "tone", "Learned curve", figure, "The tone curve after training.")
    balance, matrix = chain.stages["balance"], np.asarray(chain.stages["colour"].matrix)
    rows = [("black level", float(balance.black), CAMERA.black), ("red gain", float(balance.red), CAMERA.red)]
    rows += [("blue gain", float(balance.blue), CAMERA.blue)]
    rows += [(f"matrix {i + 1},{j + 1}", float(matrix[i, j]), CAMERA.matrix[i][j]) for i in range(3) for j in range(3)]
    page.table("Constants", ["constant", "learned", "the camera's"], rows)
    page.text("With noise the constants are only jointly identifiable: later stages make up for earlier ones.")


def add_adjoints(page, chain, given, scene) -> None:
    """How strongly the loss depends on what each stage puts out."""
    slopes = jax.jit(lambda c, m: image.adjoints(c, m, lambda x: jnp.mean((x - scene) ** 2)))(chain, given)
    norms = {name: float(jnp.sqrt(jnp.sum(slope**2))) for name, slope in slopes.items()}
    rows = [(name, norm, bool(np.isfinite(norm))) for name, norm in norms.items()]
    page.table("Gradient of the loss at each stage", ["stage", "norm of the adjoint", "finite"], rows)


if __name__ == "__main__":
    cli.main(train, apply, evaluate, ablation, recover)
