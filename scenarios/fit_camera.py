"""Which white balance, colour matrix and tone curve made a picture of a raw, and how well are they known?

A chain of public stages develops a raw: gains of red and blue, a colour matrix, the curve of sRGB, a tone curve. Its
constants are fitted by Levenberg-Marquardt, with derivatives through the chain, so that its picture is that of LibRaw
or of the camera. Compared are means of blocks that are flat and not clipped, in linear light, so that the way of
demosaicking does not matter. The covariance allows for residuals that depend on one another within a region.

What a picture cannot tell apart is fixed: the gain of green is 1, the rows of the matrix sum to 1, and the brightness
is in the tone curve, which begins at black and ends where it ends.

    python scenarios/fit_camera.py                               known constants of simulated raws, recovered
    python scenarios/fit_camera.py fit RAW                       the constants of LibRaw's rendering of a raw
    python scenarios/fit_camera.py fit RAW --rendering PICTURE   ... of another picture of it, such as the camera's

Expected, of LibRaw's rendering: gains within 0.5%, the matrix within 0.01, the picture within 0.003. Needs the extras
`scenarios` and `raw`.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from pathlib import Path
from typing import Annotated, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

import diffsim as ds
from diffsim import image
from diffsim.image import sensor
from diffsim.image.io import pictures
from diffsim.image.io.raw import rendering_by_libraw
from diffsim.image.training import train_chain, views
from diffsim.io.raw_file import RAW
from diffsim.uncertainty import Posterior
from diffsim.viz import plot, report

SIDE, REGION = 8, 4  # pixels of a raw, of a block; blocks, of a region whose residuals may depend on one another
LEAST, MOST = 200, 2000  # blocks of a fit
FLAT, NOISY = 0.03, 0.33  # greatest variation of light between the quarters of a block, and between its pixels
WHITE = 0.98  # of a raw and of its picture: what is brighter may be clipped
SMOOTH = 0.01  # weight of the bends of the tone curve, which matters where no light is
STAGES = (("red", "blue", "rises"), ("red", "blue", "mixing"), ("red", "blue", "mixing", "rises"))  # what is fitted
KNOTS = np.linspace(0.0, 1.0, 16)  # of the tone curve
NOISE = image.Noise(4e-5, 2e-4)  # of the simulated raws: about 25,000 electrons at white
LEVEL = 0.9  # of bands


class Constants(eqx.Module):
    """Gains relative to green, the entries of the matrix off its diagonal, the logarithms of a tone curve's rises."""

    red: ds.Scalar = ds.param(1.0, bounds=(0.2, 8.0))
    blue: ds.Scalar = ds.param(1.0, bounds=(0.2, 8.0))
    mixing: Float[Array, " 6"] = ds.param(np.zeros(6))
    rises: Float[Array, " 15"] = ds.param(np.full(15, -np.log(15.0)))


class Blocks(NamedTuple):
    """Colours before white balance and in the picture, (3, blocks); the region of each block; stops of exposure."""

    light: jax.Array
    target: jax.Array
    region: np.ndarray
    stops: jax.Array


TRUE = Constants(
    red=sensor.CAMERA.red,
    blue=sensor.CAMERA.blue,
    mixing=np.array(sensor.CAMERA.matrix)[~np.eye(3, dtype=bool)],
    rises=np.log(np.asarray(jax.nn.softmax(jnp.linspace(0.5, -0.5, 15)))),
)


def quads(mosaic):
    """The colours of the quads of an RGGB mosaic."""
    red, first, second, blue = (mosaic[i::2, j::2] for i in (0, 1) for j in (0, 1))
    return jnp.stack([red, 0.5 * (first + second), blue])


def chain_of(constants: Constants, stops=0.0, demosaic=quads) -> image.Chain:
    """The chain from an RGGB mosaic without black level to the picture."""
    return image.Chain(
        remat=False,
        balance=image.WhiteBalance(black=0.0, red=constants.red, blue=constants.blue),
        demosaic=demosaic,
        color=image.ColorMatrix(mixing=constants.mixing),
        exposure=image.FunctionStage(lambda stops, x: x * jnp.exp2(stops), jnp.asarray(stops)),
        gamma=sensor.to_srgb,
        tone=image.ToneCurve(rises=constants.rises),  # from 0 to 1
        end=image.FunctionStage(lambda end, x: end * x, jnp.sum(jnp.exp(constants.rises))),
    )


def curve(constants: Constants):
    """The values of the tone curve at its knots."""
    return jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.exp(constants.rises))])


def matrix(constants: Constants):
    """The entries of the colour matrix, row by row."""
    return image.ColorMatrix(mixing=constants.mixing).matrix.ravel()


def developed(constants: Constants, light, stops):
    """The picture of colours before white balance, each of which becomes a quad of a mosaic."""
    twice = jnp.repeat(jnp.repeat(light, 2, axis=1), 2, axis=2)
    return chain_of(constants, stops)(image.mosaic(twice))


def residuals(constants: Constants, data: Blocks):
    """Developed minus target colours of the blocks."""
    return developed(constants, data.light[:, None], data.stops)[:, 0] - data.target


def penalized(constants: Constants, data: Blocks):
    """The residuals, and the bends of the tone curve with a small weight: without light it goes on straight."""
    return residuals(constants, data), SMOOTH * jnp.diff(constants.rises, 2)


def parts(picture, side: int):
    """The picture in squares: (colours, rows, side, columns, side)."""
    rows, columns = (n // side for n in picture.shape[1:])
    return picture[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side)


def variation(squares):
    """The standard deviation of each square over its mean, the greatest of the three colours."""
    return (squares.std((2, 4)) / np.maximum(squares.mean((2, 4)), 1e-9)).max(0)


def light_of(raw: image.Raw) -> np.ndarray:
    """The colours of a raw before white balance, cropped and upright."""
    light = image.bilinear(image.to_rggb(np.asarray(raw.mosaic, np.float32), raw.pattern))
    light = np.asarray(image.cut_back(light, raw.pattern, raw.mosaic.shape))
    top, left, rows, columns = raw.crop or (0, 0, *raw.mosaic.shape)
    return np.rot90(light[:, top : top + rows, left : left + columns], raw.quarter_turns, axes=(1, 2))


def halves(light, picture, name: str = "rendering"):
    """Light and picture in means of at least 2 x 2 pixels of the raw, and how many they are on a side; both linear."""
    seen, given = light.shape[1:], picture.shape[1:]
    times = max(1, round(seen[0] / given[0]))
    if not all(0 <= n - times * own < times for n, own in zip(seen, given, strict=True)):
        sizes = f"{given[1]} x {given[0]} pixels, but the raw's picture has {seen[1]} x {seen[0]}"
        raise ds.InputError(f"{name} has {sizes}; give one of that size or a half, a third ... of it, upright")
    side = max(2, times)
    means = lambda picture, side: parts(picture, side).mean((2, 4), dtype=np.float64)
    linear = np.asarray(sensor.to_linear(jnp.asarray(picture, jnp.float32)))
    clipped = (parts(light, side) > WHITE).any((0, 2, 4)) | (parts(picture, side // times) > WHITE).any((0, 2, 4))
    return means(light, side), means(linear, side // times), clipped, side


def flat_blocks(light, picture, clipped, side: int, stops: float) -> Blocks:
    """The blocks that are flat and not clipped, of the means that `halves` returns; not those at the edges."""
    fine = 2 * max(1, SIDE // (2 * side))  # means on a side of a block
    first, second = parts(light, fine), parts(picture, fine)
    quarters = lambda x: variation(parts(parts(x, fine // 2).mean((2, 4)), 2))
    usable = (np.maximum(quarters(light), quarters(picture)) < FLAT) & ~parts(clipped[None], fine).any((0, 2, 4))
    usable &= np.maximum(variation(first), variation(second)) < NOISY
    usable[[0, -1]] = usable[:, [0, -1]] = False
    rows, columns = np.nonzero(usable)
    if len(rows) < LEAST:
        raise ds.InputError(f"{len(rows)} blocks are flat and not clipped; give a picture with at least {LEAST}")
    some = np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int)
    rows, columns = rows[some], columns[some]
    _, region = np.unique(rows // REGION * 10**6 + columns // REGION, return_inverse=True)
    colors = [x.mean((2, 4))[:, rows, columns] for x in (first, second)]
    return Blocks(jnp.asarray(colors[0]), sensor.to_srgb(jnp.asarray(colors[1])), region, jnp.asarray(stops))


def start_of(data: Blocks) -> Constants:
    """Gains of 1, no matrix, and a straight curve that makes the greens about as bright as in the picture."""
    green = sensor.to_srgb(data.light[1] * jnp.exp2(data.stops))
    start = Constants()
    return ds.replace(start, {"rises": start.rises + jnp.log(jnp.median(data.target[1]) / jnp.median(green))})


def fitted(data: Blocks) -> tuple[Constants, Posterior]:
    """The constants of the blocks, found in three stages from a wrong start, and their posterior."""
    constants, given = start_of(data), data._replace(region=np.zeros(0))
    for free in STAGES:
        spec = ds.trainable(constants, *free)
        constants, history = ds.fit_least_squares(
            penalized, constants, given, filter_spec=spec, rtol=1e-6, steps=300, progress=False
        )
    if history.status != "converged":
        raise ds.RunError(f"the fit has {history.message}; give a picture with more colours, or more of the tones")
    return constants, ds.posterior(residuals, constants, given, clusters=np.tile(data.region, 3))


def table_of(posterior: Posterior) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values and standard deviations of the constants; infinite where the picture does not tell."""
    gains = lambda constants: jnp.stack([constants.red, constants.blue])
    each = {"gains": gains, "matrix": matrix, "curve": lambda constants: curve(constants)[1:]}
    return {name: tuple(map(np.asarray, posterior.delta_method(of))) for name, of in each.items()}


def summary(table, true: dict[str, np.ndarray]) -> dict[str, float]:
    """The greatest errors of the constants that are determined, and how many are within two standard deviations."""
    errors = {name: np.abs(value - true[name]) for name, (value, _) in table.items()}
    known = {name: np.isfinite(std) & (std > 0) for name, (_, std) in table.items()}
    stds = {name: std for name, (_, std) in table.items()}
    near = [np.sum((errors[name] < 2 * stds[name])[known[name]]) for name in table]
    return {
        "gain_error": float(np.max(errors["gains"] / true["gains"])),
        "matrix_error": float(np.max(errors["matrix"])),
        "curve_error": float(np.max(errors["curve"][known["curve"]], initial=0.0)),
        "within_two_std": int(sum(near)),
        "determined": int(sum(np.sum(x) for x in known.values())),
    }


def rmse(first, second, clipped) -> float:
    """The root of the mean squared difference of two pictures where neither is clipped."""
    return float(np.sqrt(np.mean(np.square(np.asarray(first) - np.asarray(second))[:, ~clipped])))


def simulated(scene, key) -> image.Raw:
    """A raw of a scene by the camera with the constants TRUE."""
    camera = sensor.CAMERA._replace(tone=False)
    stored = image.unprocess(scene, NOISE, camera, key=key)
    mosaic = np.asarray((stored - camera.black) / (1 - camera.black), np.float32)
    return image.Raw(mosaic, gains=(camera.red, 1.0, camera.blue), matrix=np.array(camera.matrix))


def simulate(
    *,
    seeds: Annotated[int, cli.Within(1, 100)] = 4,
    photograph: Annotated[Path, cli.ReadableFile(pictures.READ)] | None = None,
    run: cli.Run,
) -> dict:
    """Recover the known constants of simulated raws, rendered by LibRaw and by a chain with a tone curve and 8 bits.

    Args:
        seeds: how many raws, which differ in their noise.
        photograph: another one than the astronaut of scikit-image.
    """
    scene = train_chain.photographs()[0] / np.float32(255) if photograph is None else image.read_picture(photograph)
    # At twice its size it is as smooth as what a lens shows to a sensor.
    size = 3, 2 * scene.shape[1], 2 * scene.shape[2]
    scene = jnp.clip(jax.image.resize(jnp.asarray(scene), size, "cubic"), 0.0, 1.0)
    by_chain = jax.jit(lambda mosaic: chain_of(TRUE, 0.0, image.malvar)(mosaic))
    gains, entries = np.array([TRUE.red, TRUE.blue]), np.asarray(matrix(TRUE))
    true = {"libraw": KNOTS[1:], "chain": np.asarray(curve(TRUE))[1:]}
    results: dict[str, list] = {name: [] for name in true}
    for seed in range(seeds):
        raw = simulated(scene, jr.key(seed))
        file = image.write_raw(run.folder / "simulated.dng", raw)
        made = np.clip(np.asarray(by_chain(jnp.asarray(raw.mosaic, float))), 0.0, 1.0)
        renderings = {"chain": np.round(255 * made) / 255, "libraw": rendering_by_libraw(file, raw, bits=16)}
        for name, picture in renderings.items():
            means = halves(light_of(raw), picture)
            data = flat_blocks(*means, 0.0)
            constants, posterior = fitted(data)
            known = {"gains": gains, "matrix": entries, "curve": true[name]}
            table = table_of(posterior)
            errors = compared(constants, data, means) | summary(table, known)
            results[name].append(errors)
            run.say(
                f"{name}, seed {seed}: gains within {errors['gain_error']:.3%}, matrix {errors['matrix_error']:.4f}"
            )
    worst = {f"{name}_{key}": max(x[key] for x in rows) for name, rows in results.items() for key in rows[0]}
    for name, rows in results.items():
        worst |= {f"{name}_{key}": sum(x[key] for x in rows) for key in ("within_two_std", "determined")}
    write_report(run, worst, constants, posterior, data, means, known)
    return worst


def fit(
    file: Annotated[Path, cli.ReadableFile(RAW)],
    *,
    rendering: Annotated[Path, cli.ReadableFile(pictures.READ)] | None = None,
    run: cli.Run,
) -> dict:
    """Fit gains, matrix and tone curve to LibRaw's rendering of a raw, or to another picture of the same frame.

    Args:
        file: a DNG or maker's raw.
        rendering: PNG, TIFF or JPEG of the same frame, upright, of the size of the raw or a half, a third ... of it.
    """
    raw = image.read_raw(file)
    picture = rendering_by_libraw(file, raw, bits=16) if rendering is None else image.read_picture(rendering)
    means = halves(light_of(raw), picture, str(rendering))
    data = flat_blocks(*means, -np.log2(min(1.0, *raw.gains)))  # white is where the first colour is saturated
    constants, posterior = fitted(data)
    table = table_of(posterior)
    known = {"gains": np.array(raw.gains)[[0, 2]], "matrix": np.ravel(raw.matrix), "curve": KNOTS[1:]}
    result = {"blocks": data.light.shape[1]} | compared(constants, data, means)
    for name, (values, stds) in table.items():
        result |= {name: values.tolist(), f"{name}_std": stds.tolist()}
    write_report(run, result, constants, posterior, data, means, known)
    return result


def compared(constants: Constants, data: Blocks, means) -> dict[str, float]:
    """Errors of the picture before and after the fit, in the flat blocks and all over."""
    light, target, clipped, _ = means
    target = np.asarray(sensor.to_srgb(jnp.asarray(target)))
    before, after = (developed(x, jnp.asarray(light), data.stops) for x in (start_of(data), constants))
    flat = float(jnp.sqrt(jnp.mean(residuals(constants, data) ** 2)))
    return {"rmse_before": rmse(before, target, clipped), "rmse": rmse(after, target, clipped), "rmse_flat": flat}


def write_report(run, result: dict, constants: Constants, posterior: Posterior, data: Blocks, means, known) -> None:
    """The page of a fit: result, constants, pictures, difference, the tone curve with its band, the certificate."""
    page = report.Report("A camera fitted", "White balance, colour matrix and tone curve of a picture")
    page.settings(run.settings)
    page.result({name: value for name, value in result.items() if not isinstance(value, list)})
    names = {"gains": ("gain of red", "gain of blue"), "curve": [f"curve at {x:.3f}" for x in KNOTS[1:]]}
    names["matrix"] = [f"matrix {i},{j}" for i in (1, 2, 3) for j in (1, 2, 3)]
    rows = [
        row for name, pair in table_of(posterior).items() for row in zip(names[name], *pair, known[name], strict=True)
    ]
    columns = ["constant", "fitted", "standard deviation", "true, or of the file"]
    page.table("Constants", columns, [[name, *map(float, numbers)] for name, *numbers in rows])
    page.text("The curve maps values of sRGB to those of the picture. Infinite: the picture does not tell it.")
    target = np.asarray(sensor.to_srgb(jnp.asarray(means[1])))
    before, after = (np.asarray(developed(x, jnp.asarray(means[0]), data.stops)) for x in (start_of(data), constants))
    page.before_after(views.pixels(target), views.pixels(after), "The rendering on the left, the fit on the right.")
    difference = np.where(means[2], np.nan, np.minimum(np.abs(after - target).max(0), 0.02))
    shown = {name: views.colors_last(x) for name, x in (("rendering", target), ("start", before), ("fitted", after))}
    figure = plot.pictures(shown | {"difference": difference}, 2)
    page.section("Pictures")
    page.figure(figure, "Difference: black is 0, white 0.02 or more; what may be clipped is left out.")
    run.figure("pictures", figure)
    band = posterior.credible_band(curve, LEVEL)
    figure = plot.curves(KNOTS, {"fitted": band.value, "sRGB": KNOTS}, "value of sRGB", "value of the picture")
    told = np.isfinite(band.std)
    low, high = (np.asarray(end)[told] for end in (band.low, band.high))
    figure.axes[0].fill_between(KNOTS[told], low, high, color="0.5", alpha=0.3, linewidth=0)
    page.section("Tone curve")
    page.figure(figure, f"The band has a probability of {LEVEL:.0%}.")
    run.figure("curve", figure)
    values = {path: 1.05 * entry.value for path, entry in ds.parameters(constants).items()}
    loss = lambda values: jnp.sum(residuals(ds.replace(constants, values), data._replace(region=np.zeros(0))) ** 2) / 2
    page.certificate(ds.check_gradients(loss, (values,), rtol=1e-5), "Certificate: the loss, 5% away from the fit")
    page.write(run.folder / "report.html")


if __name__ == "__main__":
    cli.main(simulate, fit)
