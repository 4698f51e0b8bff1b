"""How much better is a picture made of a burst of noisy raws than one made of a single raw?

The camera moves between the raws of a burst. Each raw is registered to the first by least squares through the warp that
moves it, and all are merged: demosaicked, moved, and averaged with weights that leave out what moved in the scene. The
chain of `enhance.py` then develops the mosaic of the mean as a raw of less noise.

    python scenarios/burst.py                      simulated bursts of two photographs, with an object that moves
    python scenarios/burst.py merge FOLDER OUT     the raws of a folder, merged and developed

Expected: eight raws at the high level of noise are 2 to 4 dB better than one; no ghost of the object is left.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import diffsim as ds
from diffsim import image
from diffsim.image import pretrained, sensor
from diffsim.image.burst import merged_noise, mix_by_noise
from diffsim.image.io import pictures
from diffsim.image.training import train_chain, views
from diffsim.io.raw_file import RAW
from diffsim.viz import plot, report

CAMERA = sensor.CAMERA
GAINS = (CAMERA.red, 1.0, CAMERA.blue)
MARGIN = 16  # pixels around the picture that come into view when the camera moves
SIZE = (176, 288)  # of the pictures
SHIFT, ANGLE = 6.0, 0.5  # the greatest, in pixels and degrees
OBJECT = ((0.9, 0.25, 0.2), 11.0)  # color and radius of what moves
ALWAYS = jnp.array(1e6)  # a limit of the merge that no difference reaches


class Burst(NamedTuple):
    """Raws without black level, what the first of them shows, and where the object is in it."""

    raws: jax.Array
    true: np.ndarray
    place: tuple[float, float]


def with_object(scene, row: float, column: float):
    """The scene with a disc whose edge is a pixel wide."""
    color, radius = OBJECT
    rows, columns = image.pixel_places(*scene.shape[1:])
    share = jnp.clip(radius - jnp.hypot(rows - row, columns - column) + 0.5, 0.0, 1.0)[None]
    return scene + share * (jnp.array(color)[:, None, None] - scene)


def simulated(scene, frames: int, noise: image.Noise, key) -> Burst:
    """A burst of a scene by a camera that moves, except for the first raw, and a disc that crosses it."""
    height, width = scene.shape[1:]
    inner = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    raws, first = [], None
    for number, frame in enumerate(jr.split(key, frames)):
        by_shift, by_angle, by_noise = jr.split(frame, 3)
        share = min(number, 1)
        shift = share * SHIFT * jr.uniform(by_shift, (2,), minval=-1.0)
        angle = share * jnp.radians(ANGLE) * jr.uniform(by_angle, minval=-1.0)
        place = 0.5 * height, width * (0.3 + 0.4 * number / max(frames - 1, 1))
        moved = with_object(scene, *place)
        seen = image.warp(moved, image.Motion(shift, angle).places(height, width), "cubic")[inner]
        seen = jnp.clip(seen, 0.0, 1.0)
        first = (np.asarray(seen), place) if first is None else first
        stored = image.unprocess(seen, noise, CAMERA, key=by_noise)
        raws.append((stored - CAMERA.black) / (1 - CAMERA.black))
    assert first is not None
    true, (row, column) = first
    return Burst(jnp.stack(raws), true, (row - MARGIN, column - MARGIN))


def developed(chain, mosaic, noise: image.Noise) -> np.ndarray:
    """The finished picture of a mosaic without black level."""
    raw = CAMERA.black + (1 - CAMERA.black) * mosaic
    return np.asarray(pretrained.with_noise_level(chain, noise)(raw))


def merged(chain, burst: Burst, motions, noise: image.Noise, merge: image.MergeBurst) -> np.ndarray:
    """The finished picture of a burst."""
    mean, effective = jax.jit(lambda raws, motions: merge(raws, motions, noise, GAINS))(burst.raws, motions)
    mosaic = image.mosaic(mean)
    many = developed(chain, mosaic, merged_noise(noise, np.asarray(effective)))
    return np.asarray(mix_by_noise(developed(chain, mosaic, noise), many, effective))


def simulate(
    *,
    frames: Annotated[int, cli.Within(2, 100)] = 8,
    level: Literal["low", "middle", "high"] = "high",
    seeds: Annotated[int, cli.Within(1, 100)] = 3,
    photographs: Annotated[Path, cli.ExistingFolder()] | None = None,
    run: cli.Run,
) -> dict:
    """Simulate bursts of two photographs that no training has seen, merge them, and compare with a single raw.

    Args:
        frames: raws of a burst.
        level: of noise.
        seeds: how many bursts of each photograph.
        photographs: a folder of other photographs, of at least 208 x 320 pixels.
    """
    rows, columns = (n + 2 * MARGIN for n in SIZE)
    scenes = train_chain.held_out() if photographs is None else pictures.read_folder(photographs, (rows, columns))
    noise, chain = sensor.LEVELS[level], pretrained.trained("noisy")
    single, several, plain, ghosts = [], [], [], []
    drawn: dict[str, np.ndarray] = {}
    for name, photograph in scenes.items():
        scene = jnp.asarray(photograph)[:, :rows, :columns]
        for seed in range(seeds):
            burst = simulated(scene, frames, noise, jr.key(seed))
            motions = image.register_burst(burst.raws)
            one = developed(chain, burst.raws[0], noise)
            robust = merged(chain, burst, motions, noise, image.MergeBurst())
            mean = merged(chain, burst, motions, noise, image.MergeBurst(limit=ALWAYS))
            judge = lambda picture, true=burst.true: image.psnr(np.asarray(picture), true)
            single.append(judge(one))
            several.append(judge(robust))
            plain.append(judge(mean))
            ghosts.append(ghost(robust, burst))
            run.say(f"{name}, seed {seed}: one raw {single[-1]:.2f} dB, {frames} raws {several[-1]:.2f} dB")
            if not drawn:
                drawn = {"one raw": one, "mean of all": mean, f"{frames} raws": robust, "scene": burst.true}
    result = {
        "frames": frames,
        "one_raw_db": float(np.mean(single)),
        "burst_db": float(np.mean(several)),
        "gain_db": float(np.mean(np.subtract(several, single))),
        "least_gain_db": float(np.min(np.subtract(several, single))),
        "plain_mean_db": float(np.mean(plain)),
        "ghost": float(np.max(ghosts)),
    }
    write_report(run, drawn, result)
    return result


def ghost(picture, burst: Burst) -> float:
    """How much redder than the scene the picture is along the way of the object, where the first raw does not show it.

    Relative to the object's own difference from the scene.
    """
    row, column = (round(x) for x in burst.place)
    radius = int(OBJECT[1])
    along = np.s_[row - radius // 2 : row + radius // 2, column + 2 * radius : column + 10 * radius]
    redness = lambda x: float(np.mean(x[0][along] - x[1][along]))
    return (redness(picture) - redness(burst.true)) / (OBJECT[0][0] - OBJECT[0][1] - redness(burst.true))


def merge(
    folder: Annotated[Path, cli.ExistingFolder()],
    out: Annotated[Path, cli.WritableFile((".png", ".tif", ".tiff", ".jpg", ".jpeg"))],
    *,
    look: Literal["neutral", "trained"] = "neutral",
) -> dict:
    """Merge the raws of a folder onto the first by name, and develop the result.

    Args:
        folder: with raws of one camera and one exposure.
        out: PNG, TIFF or JPEG to write.
        look: neutral for the scene's own contrast and colours, trained for those learned.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in RAW)
    if len(files) < 2:
        raise ds.InputError(f"{folder}: has {len(files)} raws; give at least 2 ({', '.join(RAW)})")
    raws = [image.read_raw(path) for path in files]
    first = raws[0]
    for path, other in zip(files, raws, strict=True):
        if other.mosaic.shape != first.mosaic.shape or other.pattern != first.pattern:
            raise ds.InputError(f"{path}: has another size or pattern than {files[0].name}; give raws of one camera")
    noise = first.noise or image.estimate_noise(first)
    mosaics = jnp.stack([image.to_rggb(raw.mosaic, raw.pattern) for raw in raws])
    motions = image.register_burst(mosaics)
    mean, effective = jax.jit(lambda raws, motions: image.MergeBurst()(raws, motions, noise, first.gains))(
        mosaics, motions
    )
    cut = image.cut_back(mean, first.pattern, first.mosaic.shape)
    less = merged_noise(noise, np.asarray(effective))
    combined = first._replace(mosaic=np.asarray(image.mosaic(cut, first.pattern)), noise=less)
    few, many = (image.develop(combined, level, look) for level in (noise, less))
    weights = np.asarray(image.cut_back(effective[None], first.pattern, first.mosaic.shape)[0])
    picture = np.asarray(mix_by_noise(few, many, np.rot90(first.cropped(weights), first.quarter_turns)))
    image.write_picture(out, picture)
    farthest = max(float(jnp.max(jnp.abs(motion.shift))) for motion in motions)
    count = float(np.median(effective))
    return {"file": str(out), "raws": len(raws), "largest_shift": farthest, "variance_divided_by": count}


def write_report(run, drawn: dict[str, np.ndarray], result: dict) -> None:
    """The page of a run: result and pictures."""
    page = report.Report("Bursts", "Many noisy raws, one picture")
    page.settings(run.settings)
    rows = [(name.replace("_", " "), round(value, 3)) for name, value in result.items()]
    page.table("Result", ["quantity (PSNR in dB)", "value"], rows)
    names = list(drawn)
    page.before_after(views.pixels(drawn[names[0]]), views.pixels(drawn[names[2]]), "One raw, and the burst.")
    figure = plot.pictures({name: views.colors_last(picture) for name, picture in drawn.items()}, 2)
    page.section("Pictures")
    page.figure(figure, "The disc moves to the right: the mean of all shows its ghosts, the merged burst does not.")
    run.figure("pictures", figure)
    page.write(run.folder / "report.html")


if __name__ == "__main__":
    cli.main(simulate, merge)
