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
from diffsim.image.demosaicing.bayer import quads
from diffsim.image.io.raw import rendering_by_libraw
from diffsim.image.training import flat_blocks, train_chain, views
from diffsim.uncertainty import Posterior
from diffsim.viz import plot, report

SMOOTH = 0.01  # weight of the bends of the tone curve, which matters where no light is
STAGES = (("red", "blue", "rises"), ("red", "blue", "mixing"), ("red", "blue", "mixing", "rises"))  # what is fitted
KNOTS = np.linspace(0.0, 1.0, 16)  # of the tone curve
NOISE = image.Noise(2e-5, 2e-4)  # of the simulated raws: 50,000 electrons at white
CURVE = np.linspace(0.5, -0.5, 15) - np.log(np.exp(np.linspace(0.5, -0.5, 15)).sum())  # rises of the simulated one
LEVEL = 0.9  # of bands


class Constants(eqx.Module):
    """Gains relative to green, the entries of the matrix off its diagonal, the logarithms of a tone curve's rises."""

    red: ds.Scalar = ds.param(1.0, bounds=(0.2, 8.0))
    blue: ds.Scalar = ds.param(1.0, bounds=(0.2, 8.0))
    mixing: Float[Array, " 6"] = ds.param(np.zeros(6))
    rises: Float[Array, " 15"] = ds.param(np.full(15, -np.log(15.0)))


class Data(NamedTuple):
    """Light of blocks before white balance, their colours in the picture, and the stops of exposure."""

    light: jax.Array
    target: jax.Array
    stops: jax.Array


class Fit(NamedTuple):
    """Means of a raw and its picture, those that are compared, the wrong start, the constants and their posterior."""

    means: flat_blocks.Means
    data: Data
    start: Constants
    constants: Constants
    posterior: Posterior


def of_quads(mosaic):
    """The colours of the quads of an RGGB mosaic."""
    red, first, second, blue = quads(mosaic)
    return jnp.stack([red, 0.5 * (first + second), blue])


def chain_of(constants: Constants, stops=0.0, demosaic=of_quads) -> image.Chain:
    """The chain from an RGGB mosaic without black level to the picture."""
    return image.Chain(
        remat=False,
        balance=image.WhiteBalance(black=jnp.zeros(()), red=constants.red, blue=constants.blue),
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


def residuals(constants: Constants, data: Data):
    """Developed minus target colours of the blocks."""
    return developed(constants, data.light[:, None], data.stops)[:, 0] - data.target


def penalized(constants: Constants, data: Data):
    """The residuals, and the bends of the tone curve with a small weight: without light it goes on straight."""
    return residuals(constants, data), SMOOTH * jnp.diff(constants.rises, 2)


def fitted(raw: image.Raw, picture, name: str = "picture") -> Fit:
    """The constants of a picture of a raw, found in three stages, from gains of 1, no matrix and a straight curve."""
    means = flat_blocks.small_means(flat_blocks.light_of(raw), picture, name)
    light, target, region = flat_blocks.flat_blocks(means, name)
    stops = -jnp.log2(min(1.0, *raw.gains))  # white is where the first colour is saturated
    data, start = Data(light, target, stops), Constants()
    brightness = jnp.median(target[1]) / jnp.median(sensor.to_srgb(light[1] * jnp.exp2(stops)))
    start = constants = ds.replace(start, {"rises": start.rises + jnp.log(brightness)})
    for free in STAGES:
        spec = ds.trainable(constants, *free)
        constants, history = ds.fit_least_squares(
            penalized, constants, data, steps=300, rtol=1e-6, filter_spec=spec, progress=False
        )
        if history.status == "no_progress":
            raise ds.RunError(f"{name}: {history.message}; give one with more colours and tones")
    posterior = ds.posterior(residuals, constants, data, clusters=np.tile(region, 3))
    return Fit(means, data, start, constants, posterior)


def table_of(posterior: Posterior) -> dict[str, tuple]:
    """Values and standard deviations of the constants; infinite where the picture does not tell."""
    each = {"gains": lambda x: jnp.stack([x.red, x.blue]), "matrix": matrix, "curve": lambda x: curve(x)[1:]}
    return {name: tuple(map(np.asarray, posterior.delta_method(of))) for name, of in each.items()}


def rmse(fit: Fit) -> dict[str, float]:
    """Errors of the picture at the start and after the fit, where nothing is clipped, and in the flat blocks."""
    light, target = jnp.asarray(fit.means.light), sensor.to_srgb(jnp.asarray(fit.means.picture))
    error = lambda x: np.asarray(developed(x, light, fit.data.stops) - target)[:, ~fit.means.clipped]
    size = lambda x: float(np.sqrt(np.mean(np.square(x))))
    flat = residuals(fit.constants, fit.data)
    return {"rmse_before": size(error(fit.start)), "rmse": size(error(fit.constants)), "rmse_flat": size(flat)}


def summary(fit: Fit, true: dict[str, np.ndarray]) -> dict[str, float]:
    """The greatest errors of the constants that are determined, and how many are within two standard deviations."""
    table = table_of(fit.posterior)
    known = {name: np.isfinite(std) for name, (_, std) in table.items()}
    errors = {name: np.abs(value - true[name])[known[name]] for name, (value, _) in table.items()}
    near = [errors[name] < 2 * std[known[name]] for name, (_, std) in table.items()]
    greatest = {"gain_error": errors["gains"] / true["gains"], "matrix_error": errors["matrix"]}
    numbers = {name: float(np.max(x)) for name, x in (greatest | {"curve_error": errors["curve"]}).items()}
    return numbers | {"within_two_std": int(np.sum(np.concatenate(near))), "determined": sum(map(len, near))}


def simulate(
    *,
    seeds: Annotated[int, cli.Within(1, 100)] = 3,
    photograph: cli.InFile | None = None,
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
    scene = jnp.clip(jax.image.resize(jnp.asarray(scene, jnp.float32), size, "cubic"), 0.0, 1.0)
    camera = sensor.CAMERA._replace(tone=False)
    mixing = np.array(camera.matrix)[~np.eye(3, dtype=bool)]
    true = ds.replace(Constants(), {"red": camera.red, "blue": camera.blue, "mixing": mixing, "rises": CURVE})
    known = {"gains": np.array([camera.red, camera.blue]), "matrix": np.ravel(camera.matrix)}
    curves = {"libraw": KNOTS[1:], "chain": np.asarray(curve(true))[1:]}
    results: dict[str, list[dict]] = {name: [] for name in curves}
    fits: dict[str, Fit] = {}
    for seed in range(seeds):
        stored = image.unprocess(scene, NOISE, camera, key=jr.key(seed))
        mosaic = np.asarray((stored - camera.black) / (1 - camera.black), np.float32)
        raw = image.Raw(mosaic, gains=(camera.red, 1.0, camera.blue), matrix=np.array(camera.matrix))
        file = image.write_raw(run.folder / "simulated.dng", raw)
        by_chain = np.clip(chain_of(true, 0.0, image.malvar)(jnp.asarray(mosaic, float)), 0.0, 1.0)
        renderings = {"libraw": rendering_by_libraw(file, raw, bits=16), "chain": np.round(255 * by_chain) / 255}
        for name, picture in renderings.items():
            fit = fits[name] = fitted(raw, picture)
            errors = rmse(fit) | summary(fit, known | {"curve": curves[name]})
            results[name].append(errors)
            error = f"gains within {errors['gain_error']:.3%}, matrix within {errors['matrix_error']:.4f}"
            run.say(f"{name}, seed {seed}: {error}")
    together = {"within_two_std": sum, "determined": sum}  # of the others the worst
    result = {
        f"{name}_{key}": together.get(key, max)(row[key] for row in rows)
        for name, rows in results.items()
        for key in rows[0]
    }
    write_report(run, result, fits["chain"], known | {"curve": curves["chain"]})
    return result


def fit(
    file: Annotated[Path, cli.RawFile(camera=True)],
    *,
    rendering: cli.InFile | None = None,
    run: cli.Run,
) -> dict:
    """Fit gains, matrix and tone curve to LibRaw's rendering of a raw, or to another picture of the same frame.

    Args:
        file: a DNG or maker's raw.
        rendering: PNG, TIFF or JPEG of the same frame, upright, of the size of the raw or a half, a third ... of it.
    """
    raw = image.read_raw(file)
    picture = rendering_by_libraw(file, raw, bits=16) if rendering is None else image.read_picture(rendering)
    fit = fitted(raw, picture, str(rendering or file))
    result = {"blocks": fit.data.light.shape[1]} | rmse(fit)
    for name, (values, stds) in table_of(fit.posterior).items():
        result |= {name: values.tolist(), f"{name}_std": stds.tolist()}
    known = {"gains": np.array(raw.gains)[[0, 2]], "matrix": np.ravel(raw.matrix), "curve": KNOTS[1:]}
    write_report(run, result, fit, known)
    return result


def write_report(run, result: dict, fit: Fit, known: dict[str, np.ndarray]) -> None:
    """The page of a fit: result, constants, pictures, difference, the tone curve with its band, the certificate."""
    page = report.Report("A camera fitted", "White balance, colour matrix and tone curve of a picture")
    page.settings(run.settings)
    page.result({name: value for name, value in result.items() if not isinstance(value, list)})
    names = {"gains": ("gain of red", "gain of blue"), "curve": [f"curve at {x:.3f}" for x in KNOTS[1:]]}
    names["matrix"] = [f"matrix {i},{j}" for i in (1, 2, 3) for j in (1, 2, 3)]
    rows = []
    for name, columns in table_of(fit.posterior).items():
        rows += [[title, *map(float, row)] for title, *row in zip(names[name], *columns, known[name], strict=True)]
    page.table("Constants", ["constant", "fitted", "standard deviation", "true, or of the file"], rows)
    page.text("The curve takes sRGB values to those of the picture. A deviation is infinite where no data tell.")
    target = np.asarray(sensor.to_srgb(jnp.asarray(fit.means.picture)))
    at = lambda constants: np.asarray(developed(constants, jnp.asarray(fit.means.light), fit.data.stops))
    before, after = at(fit.start), at(fit.constants)
    page.before_after(views.pixels(target), views.pixels(after), "The rendering on the left, the fit on the right.")
    difference = np.where(fit.means.clipped, np.nan, np.minimum(np.abs(after - target).max(0), 0.02))
    shown = {"rendering": target, "start": before, "fitted": after, "difference": difference}
    figure = plot.pictures({name: views.colors_last(x) for name, x in shown.items()}, 2)
    page.section("Pictures")
    page.figure(figure, "Difference: 0 is black, 0.02 and more white. What may be clipped is white too, and left out.")
    run.figure("pictures", figure)
    band = fit.posterior.credible_band(curve, LEVEL)
    lines = {"fitted": band.value, "true, or of sRGB": np.append(0.0, known["curve"])}
    figure = plot.curves(KNOTS, lines, "sRGB value", "value of the picture", dashed=("true, or of sRGB",))
    told = np.isfinite(band.std)
    low, high = (np.asarray(end)[told] for end in (band.low, band.high))
    figure.axes[0].fill_between(KNOTS[told], low, high, color="0.5", alpha=0.4, linewidth=0)
    page.section("Tone curve")
    page.figure(figure, f"The curve, and a band that holds it with a probability of {LEVEL:.0%}.")
    run.figure("curve", figure)
    values = {path: 1.05 * entry.value for path, entry in ds.parameters(fit.constants).items()}
    loss = lambda values: jnp.sum(residuals(ds.replace(fit.constants, values), fit.data) ** 2) / 2
    check = ds.check_gradients(loss, (values,), rtol=1e-5, max_coordinates=3)
    page.certificate(check, "Certificate: the loss, 5% away from the fit")
    page.write(run.folder / "report.html")


if __name__ == "__main__":
    cli.main(simulate, fit)
