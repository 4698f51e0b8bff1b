"""Fits without progress report the cause: wrong derivatives by parameter, and data that are not finite."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim.train.data import non_finite_in

X = jnp.linspace(-1.0, 2.0, 20)
SEEN = 2.0 * X + 0.5 + 0.3 * jnp.sin(9 * X)
MODEL = {"slope": jnp.array(1.0), "offset": jnp.array(0.1)}
QUIET = {"progress": False}


def line(model, seen):
    return model["slope"] * X + model["offset"] - seen


@jax.custom_jvp
def wild(x):
    return x


wild.defjvp(lambda primals, tangents: (primals[0], 1e26 * tangents[0]))


def wild_slope(model, seen):
    return line({**model, "slope": wild(model["slope"])}, seen)


def constant(model, seen):
    return line(jax.lax.stop_gradient(model), seen)


def turned(model, seen):
    return line({**model, "slope": 2 * jax.lax.stop_gradient(model["slope"]) - model["slope"]}, seen)


def nothing(model, seen):
    return X - seen + 0.0 * (model["slope"] + model["offset"])


CAUSES = {
    wild_slope: r"is .*e\+2\d for a relative change of slope, finite differences give \d",
    constant: r"is 0 for a relative change of \w+, finite differences give \d",
    turned: r"for a relative change of slope, finite differences give .* and differ by",
    nothing: r"not depend on offset, slope",
}


def run(verb, function, model=MODEL, seen=SEEN):
    if verb == "squares":
        return ds.fit_least_squares(function, model, seen, **QUIET)
    loss = lambda model, seen: jnp.mean(function(model, seen) ** 2)
    if verb == "loss":
        return ds.minimize(loss, model, seen, **QUIET)
    return ds.fit(loss, model, optax.sgd(0.01), jnp.broadcast_to(seen, (12, 20)), **QUIET)


@pytest.mark.parametrize("verb", ["squares", "loss", "fit"])
@pytest.mark.parametrize("function", CAUSES, ids=lambda function: function.__name__)
def test_the_cause_is_named(verb, function):
    # From this start a step along the slope increases the loss.
    model = {**MODEL, "offset": jnp.array(0.5)} if function is turned and verb == "fit" else MODEL
    if (verb, function) == ("fit", wild_slope):
        with pytest.raises(ds.FitError, match=CAUSES[function]):
            run(verb, function, model)
        return
    fitted, history = run(verb, function, model)
    assert history.status == "no_progress"
    assert history.message.startswith("no progress")
    assert re.search(CAUSES[function], history.message)
    if verb != "fit":
        assert fitted["slope"] == 1.0


def test_the_cause_is_named_in_float32():
    with jax.enable_x64(False):
        x, seen = X.astype(np.float32), SEEN.astype(np.float32)
        model = jax.tree.map(lambda leaf: leaf.astype(np.float32), MODEL)
        residuals = lambda model, seen: wild(model["slope"]) * x + model["offset"] - seen
        fitted, history = ds.fit_least_squares(residuals, model, seen, rtol=1e-5, **QUIET)
        assert history.status == "no_progress"
        assert re.search(CAUSES[wild_slope], history.message)
        assert fitted["slope"] == 1.0
        residuals = lambda model, seen: model["slope"] * x + model["offset"] - seen
        fitted, history = ds.fit_least_squares(residuals, model, seen, rtol=1e-5, **QUIET)
        assert history.status == "converged"
        assert ds.fit_least_squares(residuals, fitted, seen, rtol=1e-5, **QUIET)[1].status == "converged"


@pytest.mark.parametrize("verb", ["squares", "loss"])
def test_a_start_at_the_minimum_has_converged(verb):
    fitted, history = run(verb, line)
    assert history.status == "converged"
    assert history.message.startswith("converged after ")
    for start, seen in ((fitted, SEEN), ({"slope": jnp.array(2.0), "offset": jnp.array(0.5)}, 2.0 * X + 0.5)):
        assert run(verb, line, start, seen)[1].status == "converged"


def test_many_fits_say_which_did_not_move():
    starts = {"slope": jnp.array([1.0, 3.0]), "offset": jnp.zeros(2)}
    assert ds.optimize.fit_many(constant, starts, SEEN).counts()["no_progress"] == 2
    assert ds.optimize.fit_many(line, starts, SEEN).counts()["converged"] == 2


def test_a_learning_rate_that_is_too_large_is_named():
    loss = lambda model, seen: jnp.mean(line(model, seen) ** 2)
    _, history = ds.fit(loss, MODEL, optax.sgd(2.0), jnp.broadcast_to(SEEN, (12, 20)), **QUIET)
    assert history.status == "no_progress"
    assert "the learning rate may be too large" in history.message


def test_data_that_are_not_finite_are_named_before_all_else():
    seen = SEEN.at[3].set(jnp.nan)
    named = lambda model, data: line(model, data["seen"])
    message = r"starting model are not finite: data\['seen'\] holds NaN in row 3 \(1 of 20 numbers\): leave them out"
    with pytest.raises(ds.FitError, match=message):
        ds.fit_least_squares(named, MODEL, {"seen": seen}, **QUIET)
    loss = lambda model, seen: jnp.mean(line(model, seen) ** 2)
    batches = jnp.broadcast_to(SEEN, (4, 20)).at[2, 5].set(jnp.nan)
    with pytest.raises(ds.FitError, match=r"loss nan at step 2 of 4.*; the batch holds NaN in row 5") as failure:
        ds.fit(loss, MODEL, optax.sgd(0.01), batches, **QUIET)
    assert "learning rate" not in str(failure.value)


def test_data_are_not_blamed_for_what_a_model_does():
    masked = lambda model, seen: jnp.where(jnp.isnan(seen), 0.0, line(model, jnp.nan_to_num(seen))) / 0.0
    with pytest.raises(ds.FitError, match="of the starting model are not finite: start elsewhere"):
        ds.fit_least_squares(masked, MODEL, SEEN.at[3].set(jnp.nan), **QUIET)


def test_numbers_that_are_not_finite_are_found_by_row():
    data = (np.array([[0.0, np.inf], [1.0, 2.0]]), {"t": np.arange(3)}, jnp.array(jnp.nan))
    assert non_finite_in(data, "data") == ["data[0] holds infinity in row 0 (1 of 4 numbers)", "data[2] holds NaN"]


def test_a_loss_that_no_longer_changes_ends_the_fit_and_the_progress(capfd):
    _, history = ds.fit_least_squares(line, MODEL, SEEN)
    done = int(np.isfinite(history.loss).sum())
    assert done < 12
    err = capfd.readouterr().err
    assert f"step {done}/100  loss " in err
    assert f"converged after {done} of 100 iterations" in err


def test_a_tolerance_ends_a_fit_earlier():
    curved = lambda model, seen: jnp.exp(model["slope"] * X) + model["offset"] - seen
    counts = []
    loss = lambda model, seen: jnp.sum(curved(model, seen) ** 2)
    for rtol in (1e-2, None):
        for verb, function in ((ds.fit_least_squares, curved), (ds.minimize, loss)):
            _, history = verb(function, MODEL, SEEN, rtol=rtol, **QUIET)
            assert history.status == "converged"
            counts.append(int(np.isfinite(history.loss).sum()))
    assert counts[0] < counts[2]
    assert counts[1] < counts[3]
    with pytest.raises(ds.InputError, match="rtol=2: give a relative tolerance between 0 and 1"):
        ds.fit_least_squares(curved, MODEL, SEEN, rtol=2.0)
