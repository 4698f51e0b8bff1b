"""Common mistakes: a number for an optimizer, Python numbers in a model, a fit under jit; and how results print."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim import InputError, Scalar, param

X = jnp.linspace(-1.0, 2.0, 20)
SEEN = 2.0 * X + 0.5 + 0.3 * jnp.sin(9 * X)
MODEL = {"slope": jnp.array(1.0), "offset": jnp.array(0.1)}
BATCHES = jnp.broadcast_to(SEEN, (12, 20))
QUIET = {"progress": False}


def line(model, seen):
    return model["slope"] * X + model["offset"] - seen


def loss(model, seen):
    return jnp.mean(line(model, seen) ** 2)


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (0.01, r"optimizer=0.01 is a number: give an optimizer, such as optax.adam\(0.01\)"),
        (np.array(0.01), "is a number: give an optimizer"),
        (optax.adam, r"optimizer=adam is no optimizer: give one of optax with its learning rate"),
        (optax.constant_schedule(0.1), r"is no optimizer: give one of optax with its learning rate"),
    ],
    ids=["number", "array", "not called", "schedule"],
)
def test_what_is_no_optimizer_is_refused(optimizer, message):
    with pytest.raises(InputError, match=message):
        ds.fit(loss, MODEL, optimizer, BATCHES)


FITS = {
    "fit": lambda model: ds.fit(loss, model, optax.adam(0.1), BATCHES, **QUIET),
    "fit_least_squares": lambda model: ds.fit_least_squares(line, model, SEEN, **QUIET),
    "minimize": lambda model: ds.minimize(loss, model, SEEN, **QUIET),
    "profile_likelihood": lambda model: ds.profile_likelihood(line, model, SEEN, path="slope"),
    "posterior": lambda model: ds.posterior(line, model, SEEN),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("model", [{"slope": 1.0, "offset": 0.1}, MODEL | {"offset": 0.1}], ids=["all", "one"])
def test_python_numbers_are_refused_with_the_remedy(name, model):
    message = r"offset=0.1 is a Python number, which does not train: make it an array, as jnp.array\(0.1\)"
    with pytest.raises(InputError, match=message):
        FITS[name](model)


def test_python_numbers_may_stay_where_what_trains_is_chosen():
    model = MODEL | {"offset": 0.1}
    fitted, _ = ds.fit_least_squares(line, model, SEEN, filter_spec=ds.trainable(model, "slope"), **QUIET)
    assert fitted["offset"] == 0.1
    assert float(fitted["slope"]) == pytest.approx(float(X @ (SEEN - 0.1) / (X @ X)), rel=1e-7)
    for choose in (lambda: ds.trainable(model, "offset"), lambda: ds.replace(model, {"offset": 1.0})):
        with pytest.raises(
            InputError, match=r"unknown parameter 'offset': it is the Python number 0.1; make it an arr"
        ):
            choose()


@pytest.mark.parametrize("name", ["fit", "fit_least_squares", "minimize", "profile_likelihood"])
def test_a_fit_under_jit_says_where_fits_run(name):
    message = "was called within jit, vmap or grad: fits run on the host. Call it outside; fit_many runs"
    with pytest.raises(InputError, match=message):
        jax.jit(FITS[name])(MODEL)
    # No argument is traced here.
    with pytest.raises(InputError, match=message):
        jax.jit(lambda: FITS[name](MODEL))()


def test_paths_may_be_strings(tmp_path):
    path, lines = str(tmp_path / "fit.state"), str(tmp_path / "lines.jsonl")
    once, _ = ds.fit(
        loss, MODEL, optax.adam(0.1), BATCHES, checkpoint=path, callback=ds.train.MetricsFile(lines), **QUIET
    )
    again, _ = ds.fit(loss, MODEL, optax.adam(0.1), BATCHES, checkpoint=ds.Checkpoint(path), **QUIET)
    assert once == again
    ds.save(str(tmp_path / "model"), once)
    assert ds.load(str(tmp_path / "model"), MODEL) == once


class Line(eqx.Module):
    slope: Scalar = param(2.0, "m/s", bounds=(-5.0, 5.0))
    offset: Scalar = param(0.5, "m")


def test_a_posterior_prints_values_with_deviations():
    residuals = lambda model, seen: model.slope * X + model.offset - seen
    model, history = ds.fit_least_squares(residuals, Line(), SEEN, **QUIET)
    posterior = ds.posterior(residuals, model, SEEN)
    slope, offset = posterior.summary()
    shown = str(posterior).splitlines()
    assert shown == [
        f"slope  = {slope.value:.3f} +- {slope.std:.3f} m/s",
        f"offset = {offset.value:.3f} +- {offset.std:.3f} m",
        f"noise = {float(posterior.noise):.3g} (18 degrees of freedom); +- is one standard deviation",
    ]
    assert str(ds.posterior(residuals, model, SEEN, noise=0.5)).endswith(
        "noise = 0.5 (given); +- is one standard deviation"
    )
    on, _ = ds.fit_least_squares(residuals, Line(), 7 * X, **QUIET)
    assert "slope  = 5 m/s  (at its bound)" in str(ds.posterior(residuals, on, 7 * X))
    shapes = []
    jax.jit(lambda seen: (shapes.append(repr(ds.posterior(residuals, model, seen))), seen)[1])(SEEN)
    assert "Posterior(" in shapes[0]
    count, last = int(np.isfinite(history.loss).sum()), history.last_loss
    assert repr(history).startswith(f"History(loss {history.loss[0]:.4g} -> {last:.4g} in {count} of 100 steps; ")
    assert repr(history).endswith(f"converged after {count} of 100 iterations)")
    assert "nan" not in repr(history)


def test_a_profile_and_many_fits_print_their_results():
    profile = ds.uncertainty.ProfileLikelihood("rate", 2.0, 1.5, np.inf, (False, True), np.zeros((3, 2)))
    assert str(profile) == "ProfileLikelihood(rate = 2, from 1.5 to inf (open))"
    starts = {"slope": jnp.array([1.0, 3.0]), "offset": jnp.zeros(2)}
    fits = ds.optimize.fit_many(line, starts, SEEN)
    assert str(fits) == f"Fits(2 converged; least loss {float(np.min(fits.loss)):.4g})"


def test_results_print_whatever_they_contain():
    fits = ds.optimize.fit_many(line, {"slope": jnp.ones(2), "offset": jnp.zeros(2)}, SEEN, steps=20)
    posterior = ds.posterior(line, fits.best(), SEEN)
    many = jax.vmap(lambda model: ds.posterior(line, model, SEEN))(fits.models)
    history = ds.train.History(np.zeros(3), 0.1, 0.2)
    assert repr(history) == "History(loss 0 -> 0 in 3 of 3 steps; 0.1 s (and 0.2 s of compiling))"
    for tree in (many, *(jax.tree.map(lambda leaf: None, each) for each in (posterior, fits, history))):
        assert repr(tree)


def test_a_second_fit_sees_what_its_function_closes_over_now():
    """A target that changes between two fits by the same function, for every fit that is compiled once."""
    closed_over = {"target": 1.0}
    residuals = lambda model, data: model["a"] - closed_over["target"] + 0 * data
    loss = lambda model, data: (model["a"] - closed_over["target"]) ** 2
    start, data = {"a": jnp.array(0.5)}, jnp.zeros(3)
    for target in (1.0, 4.0):
        closed_over["target"] = target
        ends = [
            ds.fit_least_squares(residuals, start, data, progress=False)[0]["a"],
            ds.minimize(loss, start, None, progress=False)[0]["a"],
            ds.optimize.fit_many(residuals, {"a": jnp.array([0.5, 2.0])}, data).models["a"][1],
            ds.fit(loss, start, optax.sgd(0.3), jnp.zeros((60, 4)), progress=False)[0]["a"],
        ]
        np.testing.assert_allclose(ends, target, rtol=1e-6)
        interval = ds.profile_likelihood(residuals, {"a": jnp.array(target)}, data, path="a", noise=1.0)
        np.testing.assert_allclose(interval.value, target)
        assert interval.low < target < interval.high
