"""Can a look be learned from pairs of pictures, before and after, and applied to a picture of any size at once?

A network reads a small copy of a picture and predicts a grid of affine maps of colour, which differ by place and by
brightness. Each pixel reads its map from the grid. The look to learn is made by a slow chain: local Laplacian
filtering, a curve for each colour, more vibrance, and darker corners. It can also come from pairs of files.

    python scenarios/retouch.py                                    the look of the chain, about two minutes
    python scenarios/retouch.py --before FOLDER --after FOLDER     the look of your own pairs
    python scenarios/retouch.py apply IN OUT --network FILE        retouch a picture

Expected: on photographs that no training has seen, 5 dB better than one map for all places.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

import time
from pathlib import Path
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import diffsim as ds
from diffsim import image
from diffsim.image.io import pictures
from diffsim.image.training import patches, train_chain, views
from diffsim.viz import plot, report

SIZE, STRIDE = 192, 64  # pixels, of the squares to train on
BATCH, RATE = 4, 4e-3
RISES = np.linspace(-1.0, 1.0, 15)
CURVES = np.stack([-0.6 * RISES**2 + 0.3 * RISES, -0.6 * RISES**2, -0.4 * RISES**2 - 0.4 * RISES])
LOOK = image.Chain(
    local=ds.replace(image.LocalLaplacian(), {"detail": 0.6, "contrast": 0.6}),
    curves=ds.replace(image.ColorCurves(), {"rises": CURVES}),
    saturation=ds.replace(image.Saturation(), {"saturation": 1.0, "vibrance": 0.4}),
    corners=ds.replace(image.LensShading(), {"coefficients": np.array([-0.3, 0.0, 0.0])}),
)


def untrained(key, cells: int = 16) -> image.RetouchNetwork:
    """The network before training."""
    return image.RetouchNetwork(cells=cells, key=key)


def loss(model, batch):
    """The mean squared error over a batch of pictures (n, 3, h, w) before and after."""
    before, after = batch
    return jnp.mean((jax.lax.map(model, before) - after) ** 2)


def learn(model, pairs, steps: int, key) -> tuple[image.RetouchNetwork, ds.train.History]:
    """The network trained on pairs of squares (n, 3, s, s), mirrored at random."""

    def drawn(frozen, keys):
        model, pairs = frozen

        def one(key):
            which, mirror = jr.split(key)
            number, left = jr.randint(which, (), 0, len(pairs[0])), jr.bernoulli(mirror)
            return jax.tree.map(
                lambda x: jnp.where(left, x[number][..., ::-1], x[number]).astype(jnp.float32) / 255, pairs
            )

        return loss(model, jax.vmap(one)(keys))

    rates = optax.cosine_onecycle_schedule(steps, RATE)
    keys = jax.vmap(lambda key: jr.split(key, BATCH))(jr.split(key, steps))
    (trained, _), history = ds.fit(drawn, (model, pairs), optax.adam(rates), keys)
    return trained, history


def own_pairs(before: Path | None, after: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pictures before and after in two folders, by the names that the files have in both."""
    if before is None or after is None:
        raise ds.InputError("--before and --after belong together: give both folders, or neither")
    first, second = pictures.read_folder(before), pictures.read_folder(after)
    names = [name for name in first if name in second]
    if len(names) < 2:
        raise ds.InputError(
            f"{before} and {after}: {len(names)} files have the same name in both; give at least 2 pairs"
        )
    for name in names:
        if first[name].shape != second[name].shape:
            raise ds.InputError(
                f"{name}: {first[name].shape[1:]} pixels before and {second[name].shape[1:]} after; give equal sizes"
            )
    return {name: (first[name], second[name]) for name in names}


def in_squares(pair) -> np.ndarray:
    """The squares (2, n, 3, s, s) of a pair, in eight bits."""
    as_bytes = [np.round(255 * np.clip(x, 0.0, 1.0)).astype(np.uint8) for x in pair]
    return np.stack([patches.cut([x], SIZE, STRIDE) for x in as_bytes])


def train(
    *,
    minutes: Annotated[float, cli.Within(0.0, 10_000.0, above=True)] = 1.0,
    seed: cli.Seed = 0,
    before: Annotated[Path, cli.ExistingFolder()] | None = None,
    after: Annotated[Path, cli.ExistingFolder()] | None = None,
    photographs: Annotated[Path, cli.ExistingFolder()] | None = None,
    run: cli.Run,
) -> dict:
    """Learn a look from pairs of pictures, and compare it with one map of colours for all places.

    Args:
        minutes: of training on two cores, as a number of steps.
        seed: of weights and batches.
        before: a folder of pictures; the last fifth of them, at least one, judges the result.
        after: the same pictures with the look to learn, by the same names.
        photographs: a folder of more photographs to train on, without a look; the chain gives them its own.
    """
    apply_look = eqx.filter_jit(LOOK)
    if before is not None or after is not None:
        pairs = own_pairs(before, after)
        count = max(1, len(pairs) // 5)
        judged, trained_on = dict(list(pairs.items())[-count:]), list(pairs.values())[:-count]
        squares = jnp.asarray(np.concatenate([in_squares(pair) for pair in trained_on], axis=1))
    else:
        given = train_chain.squares(photographs, size=SIZE, stride=STRIDE)
        look = lambda x: jnp.round(255 * jnp.clip(LOOK(x.astype(jnp.float32) / 255), 0.0, 1.0)).astype(jnp.uint8)
        squares = jnp.stack([given, jax.jit(lambda all: jax.lax.map(look, all))(given)])
        judged = {name: (x, np.clip(apply_look(jnp.asarray(x)), 0, 1)) for name, x in train_chain.held_out().items()}
    steps = max(4, round(minutes * 300))
    run.say(f"training on {squares.shape[1]} squares, {steps} steps for each of two networks")
    weights, batches = jr.split(jr.key(seed))
    model, history = learn(untrained(weights), (squares[0], squares[1]), steps, batches)
    single, _ = learn(untrained(weights, cells=1), (squares[0], squares[1]), steps, batches)
    ds.save(run.folder / "network.npz", model)
    result = {"squares": int(squares.shape[1]), "steps": steps, "training_seconds": history.seconds}
    result |= judge(model, single, judged)
    result |= speed(model, next(iter(judged.values()))[0], apply_look)
    write_report(run, model, single, judged, result)
    return result


def judge(model, single, judged: dict) -> dict:
    """The mean PSNR of the pictures before, by one map, and by the grid."""
    mean = lambda function: float(np.mean([image.psnr(np.asarray(function(x)), y) for x, y in judged.values()]))
    return {"before_db": mean(lambda x: x), "one_map_db": mean(single), "grid_db": mean(model)}


def speed(model, picture, apply_look) -> dict:
    """Milliseconds per megapixel of the network and of the chain whose look it has, the least of three runs."""
    large = jnp.tile(jnp.asarray(picture), (1, 2, 2))
    size = large.shape[1] * large.shape[2] / 1e6
    times = {}
    for name, function in {"network": eqx.filter_jit(model), "chain": apply_look}.items():
        jax.block_until_ready(function(large))
        runs = []
        for _ in range(3):
            began = time.perf_counter()
            jax.block_until_ready(function(large))
            runs.append(time.perf_counter() - began)
        times[f"{name}_seconds"] = min(runs) / size
    return times


def apply(
    source: cli.InFile,
    out: Annotated[Path, cli.WritableFile((".png", ".tif", ".tiff", ".jpg", ".jpeg"))],
    *,
    network: cli.InFile,
) -> dict:
    """Retouch a picture with a network that `train` wrote.

    Args:
        source: PNG, TIFF or JPEG.
        out: PNG, TIFF or JPEG to write.
        network: network.npz of the run.
    """
    model = ds.load(network, like=untrained(jr.key(0)))
    picture = image.read_picture(source)
    image.write_picture(out, np.clip(eqx.filter_jit(model)(jnp.asarray(picture)), 0, 1))
    return {"file": str(out), "pixels": int(picture.shape[1] * picture.shape[2])}


def write_report(run, model, single, judged: dict, result: dict) -> None:
    """The page of a run: result, pictures, certificate."""
    page = report.Report("Retouching", "A look learned from pairs of pictures")
    page.settings(run.settings)
    rows = [(name.replace("_", " "), round(value, 4)) for name, value in result.items()]
    page.table("Result", ["quantity (PSNR in dB, seconds per megapixel)", "value"], rows)
    before, after = next(iter(judged.values()))
    drawn = {"before": before, "one map": single(before), "grid of maps": model(before), "to learn": after}
    drawn = {name: np.clip(x, 0.0, 1.0) for name, x in drawn.items()}
    page.before_after(views.pixels(drawn["before"]), views.pixels(drawn["grid of maps"]), "Before, and by the network.")
    figure = plot.pictures({name: views.colors_last(picture) for name, picture in drawn.items()}, 2)
    page.section("Pictures")
    page.figure(figure, "One map for all places cannot make the corners darker, nor add local contrast.")
    run.figure("pictures", figure)
    part = jnp.asarray(before[None, :, :32, :48]), jnp.asarray(after[None, :, :32, :48])
    arrays, static = eqx.partition(model.last, eqx.is_inexact_array)
    of_last = lambda last: loss(eqx.tree_at(lambda m: m.last, model, eqx.combine(last, static)), part)
    page.certificate(
        ds.check_gradients(of_last, (arrays,), max_coordinates=4), "Certificate: the loss by the last layer"
    )
    page.write(run.folder / "report.html")


if __name__ == "__main__":
    cli.main(train, apply)
