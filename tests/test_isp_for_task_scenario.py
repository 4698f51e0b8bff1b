"""The scenario of a camera for a task: the fixed chain, derivatives, what trains and what is frozen, bad input."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import diffsim as ds
from diffsim import image

STEPS = 10


@pytest.fixture(scope="module")
def s(module_of):
    return module_of("isp_for_task")


@pytest.fixture(scope="module")
def digits(s):
    pictures = np.random.default_rng(0).integers(0, 17, (6, 8, 8))
    return s.Digits(jnp.asarray(pictures, jnp.uint8), jnp.arange(6, dtype=jnp.int32))


class Gray(eqx.Module):
    """Three equal colours of a raw, by a layer of one weight, with the noise level as an input."""

    layer: dict[str, jax.Array]
    noise: jax.Array

    def __call__(self, raw):
        return self.layer["weight"] * jnp.stack([raw, raw, raw]) + 0.1 * self.noise


def factors(noise, key):
    """A chain with the stages of the real one, each of which is a factor: compiled quickly."""
    times = lambda: image.FunctionStage(lambda factor, x: factor * x, jnp.array(1.1))
    demosaic = Gray({"weight": jnp.array(1.0)}, jnp.array(4.0))
    after: dict[str, Any] = {name: times() for name in ("color", "gamma", "tone", "saturation", "sharpen")}
    return image.Chain(balance=times(), demosaic=demosaic, **after)


@pytest.fixture(scope="module", params=["factors", pytest.param("stages", marks=pytest.mark.slow)])
def trained(s, digits, request):
    """The untrained chain, that at the start of the training for the task, and the three pairs, after a few steps."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):  # as where the scenario runs
        patch.setattr(s, "BATCH", 2)
        if request.param == "factors":
            patch.setattr(s, "untrained", factors)
        fresh = s.untrained(s.noise_in(0.25), jr.split(jr.key(0), 5)[0])
        yield fresh, *s.compared(digits, s.noise_in(0.25), STEPS, jr.key(0))


def arrays(model):
    return {path: np.asarray(entry.value) for path, entry in ds.parameters(model).items()}


def changed(before, after):
    """The paths of the parameters that differ."""
    before, after = arrays(before), arrays(after)
    assert before.keys() == after.keys()
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_the_fixed_chain_inverts_the_camera(s):
    """On a scene of one colour, where no demosaicking errs; the gamma is within 1e-5 of the curve of sRGB."""
    chain = s.untrained(image.Noise(0.0, 0.0), jr.key(0)).replace(demosaic=image.malvar)
    scene = jnp.broadcast_to(jnp.array([0.7, 0.4, 0.2])[:, None, None], (3, 16, 16))
    raw = image.unprocess(scene, camera=s.CAMERA._replace(bits=None))
    np.testing.assert_allclose(eqx.filter_jit(chain)(raw), scene, atol=3e-5)
    constants = arrays(chain)
    assert constants["stages.balance.black"] == s.CAMERA.black
    assert constants["stages.balance.red"] == s.CAMERA.red
    assert constants["stages.balance.blue"] == s.CAMERA.blue
    np.testing.assert_allclose(chain.stages["color"].matrix, s.CAMERA.matrix, atol=1e-12)


def test_less_light_is_more_noise(s):
    """Relative to the signal, the variance of shot noise and the deviation of read noise go as one over the light."""
    middle, dark = s.noise_in(1.0), s.noise_in(0.25)
    np.testing.assert_allclose([dark.shot / middle.shot, dark.read / middle.read], 4.0)
    assert middle == image.sensor.LEVELS["middle"]


def test_the_task_loss_has_its_gradient_by_the_tone_curve(s, digits):
    noise, keys = s.noise_in(0.25), jr.split(jr.key(2), 2)
    chain, classifier = s.untrained(noise, jr.key(0)), s.Classifier(width=4, key=jr.key(1))
    chain = chain.replace(demosaic=image.malvar)
    rises = jnp.linspace(0.1, -0.1, 15)
    of_rises = lambda rises: s.task_loss(
        ((chain.replace(tone=image.ToneCurve(rises)), classifier), digits, jnp.array(noise)), keys
    )
    points = np.asarray(rises) + 1e-4 * np.array([-1.0, 1.0])[:, None] * np.eye(15)[:3, None]
    with jax.numpy_rank_promotion("allow"):
        program = jax.jit(lambda x, points: (jax.grad(of_rises)(x), jax.lax.map(of_rises, points.reshape(6, 15))))
        gradient, values = program(rises, points)
    slopes = (values[1::2] - values[::2]) / 2e-4
    assert np.abs(slopes).min() > 1e-5
    np.testing.assert_allclose(gradient[:3], slopes, rtol=1e-5, atol=1e-9)


def test_only_the_stages_that_learn_are_trained(s, trained):
    fresh, start, models = trained
    learned = {path for path in arrays(start) if path.split(".")[1] in s.LEARNED and not path.endswith("noise")}
    assert {path.split(".")[1] for path in learned} == set(s.LEARNED)
    for before, after in ((fresh, start), (start, models["for pictures"][0]), (start, models["for the task"][0])):
        different = changed(before, after)
        assert different <= learned
        assert {path.split(".")[1] for path in different} == set(s.LEARNED)
    assert not changed(fresh.replace(demosaic=image.malvar), models["fixed"][0])


def test_every_classifier_starts_from_the_same_weights_and_learns_them_all(s, trained):
    *_, models = trained
    start = s.Classifier(key=jr.split(jr.key(0), 5)[1])
    for _, classifier in models.values():
        assert changed(start, classifier) == set(arrays(start))
    of_pictures, of_task = (models[name][1] for name in ("for pictures", "for the task"))
    assert changed(of_pictures, of_task)


def test_a_chain_that_is_put_back_everywhere_has_the_accuracy_of_the_start(s, digits, trained, monkeypatch):
    monkeypatch.setattr(s, "SCENES", 4)
    _, start, models = trained
    noise, classifier = s.noise_in(0.25), models["for the task"][1]
    with jax.numpy_rank_promotion("allow"):
        unchanged = s.what_changed(start, (start, classifier), digits, noise, 0.5)
        right = float(s.judged(start, classifier, digits, noise)[0])
        changes = s.differences(start, models["for the task"][0], digits, noise)
    for name in s.LEARNED:
        assert unchanged[f"{name}_change"] < 1e-12
        assert unchanged[f"{name}_lost"] == 0.5 - right
        assert changes[name] > 0.0


def test_the_gain_is_claimed_only_where_it_exceeds_its_spread(s):
    scores = lambda *right: [(x, 20.0) for x in right]
    rows = {"fixed": scores(0.5, 0.6), "for pictures": scores(0.7, 0.8)}
    large = s.summary(rows | {"for the task": scores(0.8, 0.92)}, [{}, {}])
    np.testing.assert_allclose([large["task_gain"], large["task_gain_std"]], [0.11, 0.02 / np.sqrt(2)])
    assert large["task_wins"] == 2
    assert large["gain_exceeds_spread"] is True
    small = s.summary(rows | {"for the task": scores(0.6, 0.92)}, [{}, {}])
    assert small["gain_exceeds_spread"] is False
    one = s.summary({name: scores(0.7) for name in s.CHAINS}, [{}])
    assert one["task_gain_std"] is None
    assert one["gain_exceeds_spread"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--light", 0), "light=0.0: give a finite number, at least 0.0001"),
        (("--steps", 1), "steps=1: give a finite number, at least 10"),
        (("--seeds", 0), "seeds=0: give a finite number, at least 1"),
    ],
)
def test_bad_input_is_refused(command, words, message):
    code, _, err = command("isp_for_task", *words)
    assert code == 2
    assert message in err


@pytest.mark.slow
def test_the_certificate_of_the_page_is_good(s, digits):
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        chain = s.untrained(s.noise_in(0.25), jr.key(0)).replace(demosaic=image.malvar)
        assert s.certificate(chain, s.Classifier(width=4, key=jr.key(1)), digits, s.noise_in(0.25)).ok


@pytest.mark.slow
def test_the_command_trains_and_writes_its_page(scenario, tmp_path):
    done = scenario("isp_for_task", "--seeds", 1, "--steps", 20, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert 0.0 <= result["for_the_task_right"] <= 1.0
    assert (tmp_path / result["run"] / "report.html").exists()
    assert (tmp_path / result["run"] / "figures" / "pictures.png").exists()
