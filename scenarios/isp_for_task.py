"""Does a camera's image chain that is trained for a classifier serve it better than one trained for good pictures?

Coloured digits on coloured ground are photographed in low light, as raws of a simulated camera. A chain develops each
raw, and a small classifier reads the picture. Three chains are compared, each with a classifier of its own:

- fixed: the known constants of the camera and Malvar's filters, without a denoiser;
- for pictures: a network demosaicks and denoises; it is trained for the squared error of the picture, then frozen;
- for the task: the first half of that training, then as many steps through the classifier, together with it.

All classifiers start from the same weights and see the same raws in the same order, and both networks make the same
number of steps on as many raws. The chain for the task has one advantage, which is the question: more of what stands
before its scores learns from the labels.

    python scenarios/isp_for_task.py                five seeds, about ten minutes
    python scenarios/isp_for_task.py --light 0.25   with four times as much light

Expected: both trained chains read about nine of ten digits right, the fixed one fewer than eight. The chain for
pictures makes much the better pictures. Whether the task's gain over it exceeds its spread over seeds, the result says.
"""

from diffsim.app import cli

if __name__ == "__main__":
    cli.check_arguments(__file__)  # before JAX is imported, which takes a second

from collections.abc import Callable
from functools import cache
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from sklearn.datasets import load_digits

import diffsim as ds
from diffsim import image
from diffsim.image import pretrained, sensor
from diffsim.image.training import views
from diffsim.viz import plot, report

SIZE, DIGIT = 24, 20  # pixels
BATCH = 32
RATE = 3e-3
TEST = 600  # digits that no training sees
SCENES = 1200  # of random ones of them, the same for all chains and seeds
CAMERA = sensor.CAMERA._replace(tone=False)
WIDTHS = (8, 16)  # of the network of a chain
CHAINS = ("fixed", "for pictures", "for the task")
LEARNED = ("demosaic", "gamma", "tone", "saturation", "sharpen")  # stages; the others have the camera's constants
LAYERS = "stages.demosaic.*.*"  # without stages.demosaic.noise, which is an input of the network


class Digits(NamedTuple):
    """Pictures of digits, 8 x 8 in whole numbers up to 16, and what they show."""

    pictures: jax.Array
    labels: jax.Array


def scene(digit, key):
    """A digit of a random colour and place, on ground that changes from one random colour to another."""
    place, colors, direction = jr.split(key, 3)
    mask = jax.image.resize(digit.astype(float) / 16, (DIGIT, DIGIT), "linear")
    top, left = jr.randint(place, (2,), 0, SIZE - DIGIT + 1)
    mask = jax.lax.dynamic_update_slice(jnp.zeros((SIZE, SIZE)), mask, (top, left))[None]
    first, second, ink = jr.uniform(colors, (3, 3), minval=0.1, maxval=0.5)[:, :, None, None]
    ink = ink + 0.4  # brighter than the ground in all colours
    angle = jr.uniform(direction, maxval=2 * jnp.pi)
    rows, columns = image.pixel_places(SIZE, SIZE) / (SIZE - 1) - 0.5
    share = jnp.clip(0.5 + jnp.cos(angle) * rows + jnp.sin(angle) * columns, 0.0, 1.0)[None]
    ground = first + share * (second - first)
    return ground + mask * (ink - ground)


def noise_in(light: float) -> image.Noise:
    """The noise of raws with a share of the light of middle noise, relative to the signal."""
    return image.Noise(sensor.LEVELS["middle"].shot / light, sensor.LEVELS["middle"].read / light)


def untrained(noise: image.Noise, key) -> image.Chain:
    """The chain before training, with the constants of the camera, for raws of this noise."""
    chain = pretrained.untrained("noisy", WIDTHS, key=key)
    mixing = np.array(CAMERA.matrix)[~np.eye(3, dtype=bool)]
    constants = {"balance.black": CAMERA.black, "balance.red": CAMERA.red, "balance.blue": CAMERA.blue}
    constants |= {"color.mixing": mixing}
    chain = ds.replace(chain, {f"stages.{path}": value for path, value in constants.items()})
    return pretrained.with_noise_level(chain, noise)


class Classifier(eqx.Module):
    """Ten scores of a picture, made of mean 0 and deviation 1, by three convolutions of stride 2 and a matrix."""

    layers: tuple[eqx.nn.Conv2d, ...]
    last: eqx.nn.Linear

    def __init__(self, width: int = 16, *, key):
        keys = jr.split(key, 4)
        self.layers = (
            eqx.nn.Conv2d(3, width, 3, stride=2, padding=1, key=keys[0]),
            eqx.nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, key=keys[1]),
            eqx.nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1, key=keys[2]),
        )
        self.last = eqx.nn.Linear(2 * width * (SIZE // 8) ** 2, 10, key=keys[3])

    def __call__(self, picture):
        x = picture - jnp.mean(picture)
        x = x / jnp.sqrt(jnp.mean(x**2) + 1e-4)
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return self.last(x.ravel())


def photographed(digits: Digits, noise: image.Noise, key):
    """A random digit: its scene, its raw and what it shows."""
    which, for_scene, for_noise = jr.split(key, 3)
    number = jr.randint(which, (), 0, len(digits.labels))
    true = scene(digits.pictures[number], for_scene)
    return true, image.unprocess(true, noise, CAMERA, key=for_noise), digits.labels[number]


def picture_loss(model, keys):
    """The mean squared error of the pictures of a batch; the digits and their noise are frozen parts of the model."""
    chain, digits, noise = model

    def one(key):
        true, raw, _ = photographed(digits, image.Noise(*noise), key)
        return jnp.mean((chain(raw) - true) ** 2)

    return jnp.mean(jax.lax.map(one, keys))


def task_loss(model, keys):
    """The mean cross-entropy of the classifier on the pictures of a batch."""
    (chain, classifier), digits, noise = model

    def one(key):
        _, raw, label = photographed(digits, image.Noise(*noise), key)
        return optax.softmax_cross_entropy_with_integer_labels(classifier(chain(raw)), label)

    return jnp.mean(jax.lax.map(one, keys))


@cache
def optimizer_of(steps: int) -> optax.GradientTransformation:
    """The optimizer of a training; always the same object, so that a program is compiled for the first seed only."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_onecycle_schedule(steps, RATE)))


def fitted(loss: Callable, model, parts: list[str], digits: Digits, noise: image.Noise, steps: int, key):
    """The model with these parts of it trained on random scenes of the digits."""
    everything = (model, digits, jnp.array(noise))
    keys = jax.vmap(lambda key: jr.split(key, BATCH))(jr.split(key, steps))
    chosen = ds.trainable(everything, *(f"0.{part}" for part in parts))
    (model, *_), _ = ds.fit(loss, everything, optimizer_of(steps), keys, filter_spec=chosen, progress=False)
    return model


def compared(digits: Digits, noise: image.Noise, steps: int, key) -> tuple[image.Chain, dict[str, tuple]]:
    """The chain from which the task's training starts, and the three trained pairs of a chain and its classifier."""
    for_network, for_classifier, first, second, for_task = jr.split(key, 5)
    start, classifier = untrained(noise, for_network), Classifier(key=for_classifier)
    stages = [LAYERS, *(f"stages.{name}" for name in LEARNED[1:])]
    half = fitted(picture_loss, start, stages, digits, noise, steps, first)
    good = fitted(picture_loss, half, stages, digits, noise, steps, second)
    learn = lambda chain, *parts: fitted(task_loss, (chain, classifier), ["1", *parts], digits, noise, steps, for_task)
    return half, {
        "fixed": learn(start.replace(demosaic=image.malvar)),
        "for pictures": learn(good),
        "for the task": learn(half, *(f"0.{stage}" for stage in stages)),
    }


@eqx.filter_jit
def judged(chain: image.Chain, classifier: Classifier, digits: Digits, noise: image.Noise):
    """The share of test scenes whose digit is read right, and the PSNR of their pictures."""

    def one(key):
        true, raw, label = photographed(digits, noise, key)
        picture = chain(raw)
        return jnp.argmax(classifier(picture)) == label, jnp.mean((picture - true) ** 2)

    right, errors = jax.lax.map(one, jr.split(jr.key(2**31 - 1), SCENES))
    return jnp.mean(right), -10 * jnp.log10(jnp.mean(errors))


@eqx.filter_jit
def differences(before: image.Chain, after: image.Chain, digits: Digits, noise: image.Noise) -> dict[str, jax.Array]:
    """The RMS difference of each stage's picture from that of the same stage before, both given the picture before."""

    def one(key):
        _, given, _ = photographed(digits, noise, key)
        squares = {}
        for name in before.stages:
            own = before.stages[name](given)
            squares[name] = jnp.mean((after.stages[name](given) - own) ** 2)
            given = own
        return squares

    squares = jax.lax.map(one, jr.split(jr.key(2**31 - 2), 32))
    return {name: jnp.sqrt(jnp.mean(squares[name])) for name in LEARNED}


def what_changed(before: image.Chain, both: tuple, digits: Digits, noise: image.Noise, right: float) -> dict:
    """For each stage the difference that the task made, and the accuracy lost if the stage is put back."""
    chain, classifier = both
    result = {f"{name}_change": float(x) for name, x in differences(before, chain, digits, noise).items()}
    for name in LEARNED:
        put_back = chain.replace(**{name: before.stages[name]})
        result[f"{name}_lost"] = right - float(judged(put_back, classifier, digits, noise)[0])
    return result


def spread(values) -> float | None:
    """The standard deviation over seeds; None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def summary(scores: dict[str, list[tuple[float, float]]], changed: list[dict]) -> dict:
    """Means and standard deviations over seeds; the gain is that of each seed's pair of classifiers."""
    result: dict = {}
    for name, rows in scores.items():
        right, psnr = np.array(rows).T
        key = name.replace(" ", "_")
        result |= {f"{key}_right": float(right.mean()), f"{key}_right_std": spread(right)}
        result[f"{key}_psnr_db"] = float(psnr.mean())
    good, task = (np.array(scores[name])[:, 0] for name in ("for pictures", "for the task"))
    gains = task - good
    deviation = spread(gains)
    result |= {"task_gain": float(gains.mean()), "task_gain_std": deviation, "task_wins": int(np.sum(gains > 0))}
    result["gain_exceeds_spread"] = None if deviation is None else bool(gains.mean() > deviation)
    return result | {name: float(np.mean([row[name] for row in changed])) for name in changed[0]}


def train(
    *,
    seeds: Annotated[int, cli.Within(1, 100)] = 5,
    steps: Annotated[int, cli.Within(10, 100_000)] = 300,
    light: Annotated[float, cli.Within(1e-4, 10.0)] = 0.0625,
    run: cli.Run,
) -> dict:
    """Train the three chains and their classifiers, and judge them on digits that no training has seen.

    Args:
        seeds: how many trainings, which differ in weights and scenes.
        steps: of each training, of 32 scenes.
        light: the share of the light of middle noise.
    """
    dataset = load_digits()
    pictures, labels = dataset.images, dataset.target  # pyright: ignore[reportAttributeAccessIssue]
    order = np.random.default_rng(0).permutation(len(labels))
    split = lambda rows: Digits(jnp.asarray(pictures[rows], jnp.uint8), jnp.asarray(labels[rows], jnp.int32))
    training, test = split(order[TEST:]), split(order[:TEST])
    noise = noise_in(light)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in CHAINS}
    changed, models = [], {}
    for seed in range(seeds):
        before, models = compared(training, noise, steps, jr.key(seed))
        for name, (chain, classifier) in models.items():
            right, psnr = judged(chain, classifier, test, noise)
            scores[name].append((float(right), float(psnr)))
        changed.append(what_changed(before, models[CHAINS[-1]], test, noise, scores[CHAINS[-1]][-1][0]))
        run.say(f"seed {seed}: " + ", ".join(f"{name} {100 * scores[name][-1][0]:.1f}% right" for name in CHAINS))
    result = {"seeds": seeds, "light": light, "test_scenes": SCENES} | summary(scores, changed)
    write_report(run, result, scores, models, test, noise)
    return result


def certificate(chain: image.Chain, classifier: Classifier, digits: Digits, noise: image.Noise):
    """The certificate of the classifier's loss by the tone curve, in double precision."""
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(x, float) if eqx.is_inexact_array(x) else x
        chain, classifier = jax.tree.map(double, (chain, classifier))
        keys = jr.split(jr.key(0), 2)
        loss = lambda tone: task_loss(((chain.replace(tone=tone), classifier), digits, jnp.array(noise)), keys)
        return ds.check_gradients(loss, (chain.stages["tone"],), max_coordinates=3)


def write_report(run, result: dict, scores: dict, models: dict, test: Digits, noise: image.Noise) -> None:
    """The page: accuracies by seed, pictures by each chain, what the task changed, certificate."""
    page = report.Report("A camera for a task", "An image chain trained through a classifier")
    page.settings(run.settings)
    page.result(result)
    rows = [
        (name, *(f"{100 * right:.1f}% / {psnr:.1f} dB" for right, psnr in values)) for name, values in scores.items()
    ]
    page.table("Right digits and PSNR of pictures", ["chain", *(f"seed {n}" for n in range(result["seeds"]))], rows)
    drawn, develop = {}, eqx.filter_jit(lambda chain, raw: chain(raw))
    for number in range(3):
        true, raw, _ = photographed(test, noise, jr.key(number))
        shown = {"scene": true} | {name: develop(chain, raw) for name, (chain, _) in models.items()}
        drawn |= {f"{name} ({number + 1})": views.colors_last(picture) for name, picture in shown.items()}
    figure = plot.pictures(drawn, 4)
    page.section("Pictures")
    page.figure(figure, "Three test scenes, and what the chains of the last seed make of their raws.")
    run.figure("pictures", figure)
    rows = [(name, f"{result[f'{name}_change']:.3f}", f"{100 * result[f'{name}_lost']:.1f}%") for name in LEARNED]
    page.table("What the task changed", ["stage", "RMS difference", "right digits lost if it is put back"], rows)
    chain, classifier = models["for the task"]
    page.certificate(
        certificate(chain, classifier, test, noise), "Certificate: the classifier's loss by the tone curve"
    )
    page.write(run.folder / "report.html")


if __name__ == "__main__":
    cli.main(train)
