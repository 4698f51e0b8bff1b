"""How much of a blurred picture comes back if the prior of the solver is trained through the solver?

A photograph is blurred by a moving camera or a lens out of focus, and noise of 1% is added. The blur is known. The
sharp picture is that of least squares with a prior that preserves edges, by conjugate gradients in a few reweightings.
The filters and weights of the prior are trained end to end: the loss is differentiated through the linear systems by
the implicit function theorem, and the result is compared with differentiating the steps of their solver.

    python scenarios/deblur.py                                          train, and compare with Wiener's filter
    python scenarios/deblur.py apply IN OUT --kernel motion --length 9 --angle 30      sharpen a picture of your own
    python scenarios/deblur.py apply IN OUT --kernel disc --radius 3

Expected: more than 1 dB better than Wiener's filter with the best constant for each picture, in about two minutes.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

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

KERNEL = 17  # pixels of a kernel's side
NOISE = 0.01  # standard deviation; white is 1
PATCH = 64  # pixels of a side of the scenes to train with
LENGTHS, RADII = (4.0, 16.0), (1.0, 6.0)  # of the kernels to train with, in pixels
RATE = 0.03
CLEAN = 1e-6  # squared error at which the loss levels off
KERNELS = {
    "motion of 9 pixels": image.motion_kernel(9.0, np.radians(30.0), KERNEL),
    "motion of 15 pixels": image.motion_kernel(15.0, np.radians(115.0), KERNEL),
    "disc of radius 2": image.disc_kernel(2.0, KERNEL),
    "disc of radius 4": image.disc_kernel(4.0, KERNEL),
}
SHOWN, DETAIL = ("motion of 9 pixels", "disc of radius 2"), np.s_[60:180, 100:260]  # drawn, of the first scene
SIZE = (200, 300)  # of the scenes to judge on
BORDER = 16  # pixels at the edge that do not count, where Wiener's filter sees its mirror image
CONSTANTS = 10.0 ** np.arange(-3.5, -0.5, 0.125)  # of Wiener's filter
TIGHT = {"reweightings": 2, "cg_steps": 300, "rtol": 1e-12}  # for evidence in double precision


def random_kernel(key):
    """The blur of a random motion or of a random lack of focus."""
    kind, size, direction = jr.split(key, 3)
    share = jr.uniform(size)
    between = lambda limits: limits[0] + share * (limits[1] - limits[0])
    motion = image.motion_kernel(between(LENGTHS), jr.uniform(direction, maxval=jnp.pi), KERNEL)
    return jnp.where(jr.bernoulli(kind), motion, image.disc_kernel(between(RADII), KERNEL))


def observed(scene, kernel, key):
    """The blurred and noisy picture of the scene without its outermost pixels."""
    blurred = image.blur(scene, kernel)
    return blurred + NOISE * jr.normal(key, blurred.shape, blurred.dtype)


def inner(scene, kernel):
    """The part of a scene that its blurred picture shows."""
    reach = kernel.shape[0] // 2
    return scene[:, reach:-reach, reach:-reach]


def error(prior, scene, kernel, key):
    """The squared error of a scene that is blurred and solved for, in decibels."""
    difference = prior(observed(scene, kernel, key), kernel, NOISE) - inner(scene, kernel)
    return 10.0 * jnp.log10(jnp.mean(difference**2) + CLEAN)


def loss(model, keys):
    """The mean error over random patches and kernels; the patches are a part of the model."""
    prior, squares = model

    def one(scene, key):
        for_kernel, for_noise = jr.split(key)
        return error(prior, scene, random_kernel(for_kernel), for_noise)

    return patches.mean_over(one, squares, keys)


def trained(steps: int, key):
    """The solver with its prior trained on the photographs of `train_chain`, and the history."""
    squares = train_chain.squares(size=PATCH, stride=PATCH // 2)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(RATE, steps)))
    model = (image.Deconvolution(), squares)
    (prior, _), history = train_chain.fit_patches(loss, model, optimizer, steps=steps, key=key)
    return prior, history


def best_wiener(judge: Callable, blurred, kernel) -> tuple[np.ndarray, float]:
    """The picture by Wiener's filter with the constant that is best for it, as `judge` knows, and its quality."""
    filtered = jax.jit(lambda constants: jax.lax.map(lambda r: image.wiener(blurred, kernel, r), constants))
    candidates = np.asarray(filtered(jnp.asarray(CONSTANTS, blurred.dtype)))
    qualities = [judge(picture) for picture in candidates]
    best = int(np.argmax(qualities))
    return candidates[best], qualities[best]


def evidence(prior) -> tuple[float, ds.gradcheck.GradientCheck]:
    """The difference of the two adjoints relative to the greatest gradient, and the certificate of the implicit one.

    Both are of the error of a small patch, in double precision, with the linear systems solved tightly.
    """
    with jax.enable_x64(True):
        prior = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), replace(prior, **TIGHT))
        scene = jnp.asarray(train_chain.photographs()[0][:, 100:120, 100:120], jnp.float64) / 255
        of_patch = lambda prior: error(prior, scene, image.motion_kernel(3.0, 0.5), jr.key(0))
        gradient = jax.jit(jax.grad(of_patch))
        implicit, unrolled = (jax.tree.leaves(gradient(replace(prior, adjoint=x))) for x in ("implicit", "unrolled"))
        scaled = lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        difference = max(scaled(a, b) for a, b in zip(implicit, unrolled, strict=True))
        return difference, ds.check_gradients(of_patch, (prior,), rtol=1e-5, max_coordinates=1)


def train(
    *,
    steps: Annotated[int, cli.Within(1, 10_000)] = 40,
    seed: cli.Seed = 0,
    photographs: Annotated[Path, cli.ExistingFolder()] | None = None,
    run: cli.Run,
) -> dict:
    """Train the prior through the solver, and compare on photographs that no training has seen.

    Args:
        steps: of training, each on 8 patches.
        seed: of patches, kernels and noise.
        photographs: a folder of other photographs to compare on, of at least 200 x 300 pixels.
    """
    scenes = train_chain.held_out() if photographs is None else pictures.read_folder(photographs, SIZE)
    prior, history = trained(steps, jr.key(seed))
    solve = jax.jit(lambda prior, blurred, kernel: prior(blurred, kernel, NOISE))
    rows, drawn = [], []
    for name, photograph in scenes.items():
        scene = jnp.asarray(photograph)[:, : SIZE[0], : SIZE[1]]
        for number, (blur, kernel) in enumerate(KERNELS.items()):
            true = np.asarray(inner(scene, kernel))
            judge = lambda picture, true=true: image.psnr(np.asarray(picture), true, border=BORDER)
            blurred = observed(scene, kernel, jr.key(number))
            sharp, start = solve(prior, blurred, kernel), solve(image.Deconvolution(), blurred, kernel)
            wiener, by_wiener = best_wiener(judge, blurred, kernel)
            rows.append((name, blur, judge(blurred), by_wiener, judge(start), judge(sharp)))
            run.say(f"{name}, {blur}: Wiener {by_wiener:.2f} dB, ours {rows[-1][-1]:.2f} dB")
            if blur in SHOWN and name == next(iter(scenes)):
                shown = {blur: blurred, "Wiener's filter": wiener, "trained prior": sharp, "scene": true}
                drawn.append({what: views.colors_last(x)[DETAIL] for what, x in shown.items()})
    run.say("comparing the gradients")
    difference, certificate = evidence(prior)
    blurred_db, wiener_db, start_db, our_db = np.mean([row[2:] for row in rows], axis=0)
    gains = [row[5] - row[3] for row in rows]
    result = {
        "blurred_db": float(blurred_db),
        "wiener_db": float(wiener_db),
        "start_db": float(start_db),
        "our_db": float(our_db),
        "gain_db": float(np.mean(gains)),
        "least_gain_db": float(np.min(gains)),
        "adjoints_differ": difference,
        "gradients_agree": certificate.ok,
        "training_seconds": history.seconds + history.compile_seconds,
    }
    write_report(run, result, history, rows, drawn, certificate)
    return result


def apply(
    source: cli.InFile,
    out: Annotated[Path, cli.WritableFile((".png", ".tif", ".tiff", ".jpg", ".jpeg"))],
    *,
    kernel: Literal["motion", "disc"],
    length: Annotated[float, cli.Within(0.0, 200.0)] = 9.0,
    angle: cli.Finite = 0.0,
    radius: Annotated[float, cli.Within(0.0, 100.0)] = 3.0,
    noise: Annotated[float, cli.Within(0.0, 1.0, above=True)] = NOISE,
) -> dict:
    """Sharpen a picture whose blur is known, by the prior before training.

    Args:
        source: PNG, TIFF or JPEG picture in colour.
        out: PNG, TIFF or JPEG to write.
        kernel: motion for a camera that moved, disc for a lens out of focus.
        length: of the motion in pixels.
        angle: of the motion in degrees, from the direction of a row down to that of a column.
        radius: of the disc in pixels.
        noise: its standard deviation, where white is 1; more makes the picture smoother.
    """
    blurred = jnp.asarray(image.read_picture(source))
    spread = image.motion_kernel(length, np.radians(angle)) if kernel == "motion" else image.disc_kernel(radius)
    sharp = jax.jit(lambda picture: image.Deconvolution()(picture, spread, noise))(blurred)
    image.write_picture(out, np.asarray(sharp))
    return {"file": str(out), "size": f"{blurred.shape[2]} x {blurred.shape[1]}", "kernel_size": spread.shape[0]}


def write_report(run, result: dict, history, rows, drawn: list[dict[str, np.ndarray]], certificate) -> None:
    """The page of a run: result, learning curve, pictures, certificate."""
    page = report.Report("Deblurring", "A prior trained through the linear systems that it makes")
    page.settings(run.settings)
    page.result(result)
    columns = ["photograph", "blur", "blurred", "Wiener", "before training", "ours"]
    page.table("PSNR in dB", columns, [(*row[:2], *(round(value, 2) for value in row[2:])) for row in rows])
    curve = plot.learning_curve(history.loss, ylabel="squared error (dB)")
    page.figure(curve, "Learning curve: the loss of each batch of patches.")
    run.figure("learning_curve", curve)
    page.section("Pictures")
    for name, pair in zip(("motion", "focus"), drawn, strict=True):
        figure = plot.pictures(pair, 2)
        page.figure(figure, "Wiener's filter has the constant that is best for this picture.")
        run.figure(name, figure)
    page.certificate(certificate, "Certificate: the squared error of a patch by the prior, through the solver")
    page.write(run.folder / "report.html")


if __name__ == "__main__":
    cli.main(train, apply)
