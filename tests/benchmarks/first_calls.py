"""The first call of three simulations as a new user would write them, for `bench_compile.py`:

    python tests/benchmarks/bench_compile.py tests/benchmarks/first_calls.py CASE

`cart` trains the README's example. `value`, `gradient` and `fit` are of a buck converter with a pulse-width modulator,
a hybrid system of three phases: its output voltage, the derivative by the load, and the load fitted to measurements.
"""

import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import optax

import diffsim as ds
from diffsim import Event, Phase, integrate_hybrid


class Buck(eqx.Module):
    source: ds.Scalar = ds.param(12.0, "V")
    inductance: ds.Scalar = ds.param(30e-6, "H")
    capacitance: ds.Scalar = ds.param(47e-6, "F")
    load: ds.Scalar = ds.param(20.0, "ohm")
    period: ds.Scalar = ds.param(1e-5, "s")
    duty: ds.Scalar = ds.param(0.3, "")


def field(conducting, switched):
    """Currents and the modulator's ramp, with the switch on or off and the diode conducting or not."""

    def slope(t, y, p):
        current, voltage, _ = y
        across = p.source * switched - voltage
        return across / p.inductance * conducting, (current - voltage / p.load) / p.capacitance, 1 / p.period

    return slope


turn_off = Event(lambda t, y, p: y[2] - p.duty, "rising", to=1)
run_dry = Event(lambda t, y, p: y[0], "falling", lambda t, y, p: (jnp.zeros_like(y[0]), y[1], y[2]), to=2)
turn_on = Event(lambda t, y, p: y[2] - 1, "rising", lambda t, y, p: (y[0], y[1], jnp.zeros_like(y[2])), to=0)
PHASES = (Phase(field(1, 1), (turn_off,)), Phase(field(1, 0), (run_dry, turn_on)), Phase(field(0, 0), (turn_on,)))
TIMES = jnp.linspace(0.0, 2e-4, 41)


def voltages(p):
    start = (jnp.array(0.0), jnp.array(0.0), jnp.array(0.0))
    return integrate_hybrid(PHASES, start, p, t1=TIMES[-1], max_events=64, ts=TIMES).ys[1]


def value():
    print(voltages(Buck())[-1])


def gradient():
    print(jax.grad(lambda load: voltages(ds.replace(Buck(), {"load": load}))[-1])(jnp.array(20.0)))


def fit():
    measured = voltages(Buck())
    model = ds.replace(Buck(), {"load": 12.0})
    chosen = ds.trainable(model, "load")
    residuals = lambda p, data: voltages(p) - data
    print(ds.fit_least_squares(residuals, model, measured, filter_spec=chosen, steps=20)[0].load)


class Cart(eqx.Module):
    mass: ds.Scalar = ds.param(2.0, "kg")
    drag: ds.Scalar = ds.param(0.5, "N s/m")


def move(p, state, force):
    _, v = state
    return v, (force - p.drag * v) / p.mass


def loss(policy, key):
    field = lambda t, y, policy: move(Cart(), y, policy(jnp.stack(y)))
    x, v = ds.integrate(field, (jr.normal(key), jnp.array(0.0)), jnp.linspace(0.0, 5.0, 50), policy)
    return jnp.mean(x**2 + 0.1 * v**2)


def cart():
    policy = ds.BoundedMLP(2, -3.0, 3.0, key=jr.key(0))
    _, history = ds.fit(loss, policy, optax.adam(1e-2), jr.split(jr.key(1), 300))
    print(history.loss[-1])


if __name__ == "__main__":
    began = time.perf_counter()
    {"cart": cart, "value": value, "gradient": gradient, "fit": fit}[sys.argv[1]]()
    print(f"{sys.argv[1]}: {time.perf_counter() - began:.1f} s")
