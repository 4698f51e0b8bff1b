"""Fits: closed forms, bounds, frozen parameters, compilation, and failures."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffsim import (
    BoundedMLP,
    FitError,
    InputError,
    Scalar,
    fit,
    fit_least_squares,
    frozen,
    param,
    parameters,
    trainable,
)
from diffsim.compilation import count_compilations


class Line(eqx.Module):
    slope: Scalar = param(1.0, "m/s", bounds=(-5.0, 5.0))
    offset: Scalar = param(0.0, "m")


X = jnp.linspace(-1.0, 2.0, 20)
Y = 2.0 * X + 0.5 + 0.3 * jnp.sin(7 * X)


def squares(line, batch):
    x, y = batch
    return jnp.mean((line.slope * x + line.offset - y) ** 2)


def repeated(steps):
    """The same data for each of so many steps."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (steps, *a.shape)), (X, Y))


QUIET = {"progress": False}


def test_the_time_of_a_fit_is_that_of_its_calls():
    def slow(line, batch):
        wait = lambda value: (time.sleep(0.01), value)[1]
        delayed = jax.pure_callback(wait, jax.ShapeDtypeStruct((), float), jax.lax.stop_gradient(line.slope))
        return squares(line, batch) + 0.0 * delayed

    _, history = fit(slow, Line(), optax.sgd(0.01), repeated(20), steps_per_call=20, **QUIET)
    assert history.seconds >= 0.2


def test_linear_regression_has_its_closed_form():
    line, history = fit(squares, Line(), optax.adam(optax.exponential_decay(0.1, 100, 0.3)), repeated(1000), **QUIET)
    slope, offset = np.polyfit(X, Y, 1)
    # The last learning rates are below 1e-6, and the problem is convex.
    np.testing.assert_allclose((line.slope, line.offset), (slope, offset), rtol=1e-6)
    assert history.loss.shape == (1000,)
    # The first loss is that of the model given.
    assert history.loss[0] == pytest.approx(float(squares(Line(), (X, Y))), rel=1e-12)
    assert history.loss[-1] == pytest.approx(float(np.mean((slope * X + offset - Y) ** 2)), rel=1e-9)
    assert history.seconds > 0


def test_one_step_is_the_optimizers_own():
    """A step of gradient descent of the parameter without bounds, and of the logit of the one with them."""
    line, _ = fit(squares, Line(), optax.sgd(0.1), repeated(1), **QUIET)
    slope, offset = jax.grad(lambda v: squares(Line(*v), (X, Y)))(jnp.array([1.0, 0.0]))
    assert line.offset == pytest.approx(float(-0.1 * offset), rel=1e-12)
    z = np.log(6 / 4) - 0.1 * slope * 6 * 4 / 10
    assert line.slope == pytest.approx(float(-5 + 10 / (1 + np.exp(-z))), rel=1e-12)


def test_bounds_are_kept():
    steep = lambda line, _: (line.slope - 100.0) ** 2 + (line.offset - 100.0) ** 2
    line, history = fit(steep, Line(), optax.adam(0.5), jnp.zeros(300), **QUIET)
    assert 4.9 < line.slope <= 5.0
    assert line.offset > 5.0
    assert np.all(np.diff(history.loss) < 0)


@pytest.mark.parametrize(
    "choose", [lambda m: trainable(m, "offset"), lambda m: frozen(m, "slope")], ids=["train", "freeze"]
)
def test_what_is_frozen_stays_to_the_bit(choose):
    start = Line(slope=5.0)
    line, _ = fit(squares, start, optax.adamw(0.1, weight_decay=0.1), repeated(5), filter_spec=choose(start), **QUIET)
    assert line.slope == 5.0
    assert line.offset != 0.0


def test_the_last_call_makes_only_the_steps_that_are_left():
    in_one_call, one = fit(squares, Line(), optax.adam(0.1), repeated(13), steps_per_call=13, **QUIET)
    in_several, many = fit(squares, Line(), optax.adam(0.1), repeated(13), steps_per_call=5, **QUIET)
    assert many.loss.shape == (13,)
    # The same steps in programs of other length.
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-12)
    np.testing.assert_allclose(jax.tree.leaves(in_several), jax.tree.leaves(in_one_call), rtol=1e-12)


def test_each_batch_is_used_once_and_in_order():
    _, history = fit(
        lambda line, b: b + 0 * line.slope, Line(), optax.sgd(0.1), jnp.arange(7.0), steps_per_call=3, **QUIET
    )
    assert np.array_equal(history.loss, np.arange(7.0))


def test_a_second_fit_does_not_compile_again():
    traced = []

    def loss(line, batch):
        traced.append(1)
        return squares(line, batch)

    optimizer = optax.adam(0.1)
    fit(loss, Line(), optimizer, repeated(4), **QUIET)
    before = len(traced)
    fit(loss, Line(slope=2), optimizer, repeated(4), **QUIET)
    fit(loss, Line(offset=-1.0), optimizer, jax.tree.map(lambda b: 2 * b, repeated(4)), **QUIET)
    assert len(traced) == before

    # Twice within one compilation: for the type of the loss, and for its gradient.
    limited = eqx.debug.assert_max_traces(squares, max_traces=2)
    for _ in range(2):
        fit(limited, Line(), optimizer, repeated(4), **QUIET)


def test_a_failure_names_the_parameter_whose_gradient_is_not_finite():
    def breaking(line, batch):
        # The root of a negative number makes the derivative NaN even in the branch that is not chosen.
        return squares(line, batch) + jnp.where(line.offset > 0, jnp.sqrt(line.offset), 0.0)

    message = r"loss \d\.\d+ at step 0 of 12; the gradient of offset is not finite there; .*before that step"
    with pytest.raises(FitError, match=message) as failure:
        fit(breaking, Line(offset=-1.0), optax.adam(0.1), repeated(12), **QUIET)
    assert failure.value.model.offset == -1.0


def test_a_failed_fit_keeps_the_model_before_the_failure():
    def breaking(line, batch):
        return squares(line, batch[0]) * jnp.where(batch[1], jnp.nan, 1.0)

    flags = jnp.arange(12) == 7
    with pytest.raises(FitError, match=r"loss nan at step 7 of 12") as failure:
        fit(breaking, Line(), optax.adam(0.1), (repeated(12), flags), steps_per_call=5, **QUIET)
    healthy, _ = fit(squares, Line(), optax.adam(0.1), repeated(7), **QUIET)
    # The same seven steps.
    np.testing.assert_allclose(jax.tree.leaves(failure.value.model), jax.tree.leaves(healthy), rtol=1e-12)
    assert np.all(np.isfinite(failure.value.history.loss[:7]))
    assert np.all(np.isnan(failure.value.history.loss[7:]))


@pytest.mark.parametrize("batches", [(jnp.zeros(3), jnp.zeros(4)), jnp.zeros(()), jnp.zeros((0, 2))], ids=str)
def test_batches_need_one_length(batches):
    with pytest.raises(InputError, match=r"batches have leading axes .*: give one common number of steps"):
        fit(lambda line, b: line.slope, Line(), optax.sgd(0.1), batches)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (
            lambda line, _: line.slope * X,
            {},
            r"the loss is ShapeDtypeStruct\(shape=\(20,\).*: it must be one real number",
        ),
        (lambda line, _: (line.slope, 1.0), {}, "the loss is .*: it must be one real number"),
        (lambda line, _: line.slope > 0, {}, "the loss is .*bool.*: it must be one real number"),
        (squares, {"filter_spec": frozen(Line(), "*")}, "nothing to train"),
        (squares, {"steps_per_call": 0}, "steps_per_call=0"),
    ],
)
def test_what_cannot_be_trained_is_named(loss, options, message):
    with pytest.raises(InputError, match=message):
        fit(loss, Line(), optax.sgd(0.1), repeated(3), **QUIET | options)


def test_progress_goes_to_stderr(capfd):
    fit(squares, Line(), optax.adam(0.1), repeated(4))
    out, err = capfd.readouterr()
    assert out == ""
    assert "step 4/4  loss " in err
    fit(squares, Line(), optax.adam(0.1), repeated(4), progress=False)
    assert capfd.readouterr() == ("", "")


class Oscillation(eqx.Module):
    amplitude: Scalar = param(1.5, "m", bounds=(0.0, 10.0))
    omega: Scalar = param(1.8, "rad/s", bounds=(0.5, 4.0))
    decay: Scalar = param(0.5, "1/s", bounds=(0.0, np.inf))
    phase: Scalar = param(0.0, "rad")

    def __call__(self, t):
        return self.amplitude * jnp.exp(-self.decay * t) * jnp.cos(self.omega * t + self.phase)


TRUE = Oscillation(amplitude=2.0, omega=2.0, decay=0.3, phase=0.4)
TS = jnp.linspace(0.0, 4.0, 40)


def deviation(model, seen):
    return jax.vmap(model)(TS) - seen


def test_least_squares_recover_an_oscillation():
    seen = jax.vmap(TRUE)(TS)
    fitted, history = fit_least_squares(deviation, Oscillation(), seen, **QUIET)
    # No noise: convergence is quadratic down to the solver's 1e-9 of a step, whose square is rounding.
    np.testing.assert_allclose(jax.tree.leaves(fitted), jax.tree.leaves(TRUE), rtol=1e-8)
    finite = np.isfinite(history.loss)
    assert 0 < finite.sum() < 100
    assert not np.any(finite[finite.sum() :])
    assert np.nanmin(history.loss) < 1e-16


def test_a_second_fit_of_least_squares_does_not_compile_again():
    seen = jax.vmap(TRUE)(TS)
    other, twice = Oscillation(omega=2), 1.1 * seen
    fit = count_compilations(
        lambda model, seen: fit_least_squares(lambda m, s: deviation(m, s), model, seen, steps=3, **QUIET)
    )
    first, _ = fit(Oscillation(), seen)
    assert fit.count == 1
    again, _ = fit(other, twice)
    assert fit.count == 1
    assert first.omega != again.omega


def test_least_squares_stay_within_bounds_and_leave_the_rest():
    seen = jax.vmap(Oscillation(amplitude=9.99, omega=2.0))(TS) * 1.2
    start = Oscillation()
    fitted, _ = fit_least_squares(deviation, start, seen, filter_spec=frozen(start, "phase"), steps=60, **QUIET)
    assert 0.0 <= fitted.amplitude <= 10.0
    assert 0.5 <= fitted.omega <= 4.0
    assert fitted.decay >= 0.0
    assert fitted.phase == 0.0


def test_least_squares_need_a_finite_start():
    with pytest.raises(FitError, match=r"the residuals of the starting model are not finite: start elsewhere"):
        fit_least_squares(lambda model, seen: deviation(model, seen) / 0.0, Oscillation(), jnp.zeros(40), **QUIET)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e300])
def test_a_bounded_network_stays_within_its_limits(size):
    low, high = np.array([[-1.0, 2.0]]), np.array([[1.0, 2.5]])
    network = BoundedMLP(3, low[0], high[0], key=jax.random.key(0))
    outputs = jax.vmap(network)(size * jax.random.normal(jax.random.key(1), (50, 3)))
    assert outputs.shape == (50, 2)
    assert np.all((outputs >= low) & (outputs <= high))
    wild = jax.tree.map(lambda x: 1e3 * x if eqx.is_array(x) else x, network.layers)
    wild = eqx.tree_at(lambda n: n.layers, network, wild)
    outputs = jax.vmap(wild)(size * jax.random.normal(jax.random.key(2), (50, 3)))
    assert np.all((outputs >= low) & (outputs <= high))


def test_the_shapes_and_limits_of_a_bounded_network():
    assert BoundedMLP(2, 0.0, 1.0, key=jax.random.key(0))(jnp.ones(2)).shape == ()
    assert BoundedMLP(2, 0.0, 1.0, outputs=4, key=jax.random.key(0))(jnp.ones(2)).shape == (4,)
    with pytest.raises(InputError, match=r"low=2\.0 and high=1\.0: each lower limit must be below"):
        BoundedMLP(2, 2.0, 1.0, key=jax.random.key(0))
    with pytest.raises(InputError, match=r"each lower limit must be below its upper limit"):
        BoundedMLP(2, [0.0, 1.0], [1.0, 1.0], key=jax.random.key(0))


def test_the_limits_of_a_network_are_not_learned():
    network = BoundedMLP(2, 0.0, 1.0, scale=3.0, key=jax.random.key(0))
    gradient = eqx.filter_grad(lambda n: n(jnp.ones(2)))(network)
    assert gradient.low == gradient.high == gradient.scale == 0.0
    assert any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(eqx.filter(gradient.layers, eqx.is_array)))
    assert all(path.startswith("layers.") for path in parameters(network))
    # Weight decay would shrink them if they trained.
    loss = lambda network, _: jnp.sum(network(jnp.ones(2)) ** 2)
    fitted, _ = fit(loss, network, optax.adamw(0.1, weight_decay=0.5), jnp.zeros(3), **QUIET)
    assert (fitted.low, fitted.high, fitted.scale) == (0.0, 1.0, 3.0)
    assert not np.array_equal(fitted.layers.layers[0].weight, network.layers.layers[0].weight)
    with pytest.raises(InputError, match="unknown parameter 'low'"):
        trainable(network, "low")
