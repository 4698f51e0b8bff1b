"""A network that aims any trebuchet of the family: weight and release angle for a target."""

import math
from importlib import resources
from typing import NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._types import Scalar, ScalarLike
from ...io.checkpoint import load
from ...parameters import replace
from .family import GROUPS, HEAVIEST, LIGHTEST, MIDDLE, SHORTEST, WIDTH, balance, groups, loaded
from .machine import Trebuchet
from .shot import SOLVER, throw

ANGLES = (math.radians(5.0), math.radians(65.0))  # rad, release angles that the network may choose
# Middle and half width of the logarithms of m_weight / balance, and of a range in long arms.
_RATIO = (math.log(HEAVIEST * LIGHTEST) / 2, math.log(HEAVIEST / LIGHTEST) / 2)
_RANGE = (3.0, 1.5)
# What the networks' inputs and outputs are multiplied with and shifted by, for programs in other languages.
SCALING = {"middle": MIDDLE, "width": WIDTH, "ratio": _RATIO, "range": _RANGE, "angles": ANGLES}
SCALING |= {"lightest": math.log(LIGHTEST), "shortest": math.log(SHORTEST)}


class Network(eqx.Module):
    """A linear map plus a multilayer perceptron, in single precision, with one output."""

    layers: eqx.nn.MLP
    linear: eqx.nn.Linear

    def __init__(self, inputs: int, width: int, depth: int, *, key: PRNGKeyArray):
        options = {"dtype": jnp.float32, "key": key}
        self.layers = eqx.nn.MLP(inputs, "scalar", width, depth, activation=jax.nn.silu, **options)
        self.linear = eqx.nn.Linear(inputs, "scalar", **options)

    def __call__(self, x: Float[Array, " inputs"]) -> Scalar:
        """The output for one input vector, in its precision."""
        single = x.astype(jnp.float32)
        return (self.linear(single) + self.layers(single)).astype(x.dtype)


class Answer(NamedTuple):
    """How to hit a target.

    Attributes:
        angle: The release angle, in rad.
        mass: The weight, in kg; at most the machine's heaviest, which throws at what is out of reach. NaN for a target
            nearer than `nearest`.
        excess: The target's distance relative to the machine's reach, minus 1: above 0 it is out of reach.
        nearest: The distance (m) of the nearest target that the networks know, to which hardly more than the weight
            that balances the arm throws.
    """

    angle: Scalar
    mass: Scalar
    excess: Scalar
    nearest: Scalar


class Aimer(eqx.Module):
    """Networks that answer with the lightest weight that throws a machine's ball to a target, and its release angle.

    One gives the angle of the farthest throw for machine and weight, one the range of that throw, and one the weight
    for machine and range. Their inputs have no dimension, so that they serve machines of every size.

    Args:
        width, depth: The hidden layers of the networks of range and weight; the one of the angle is half as wide.
        key: The random key of the weights.
    """

    for_angle: Network
    for_range: Network
    for_mass: Network

    def __init__(self, width: int = 64, depth: int = 3, *, key: PRNGKeyArray):
        keys = jr.split(key, 3)
        inputs = len(GROUPS) + 1
        self.for_angle = Network(inputs, width // 2, 2, key=keys[0])
        self.for_range = Network(inputs, width, depth, key=keys[1])
        self.for_mass = Network(inputs, width, depth, key=keys[2])

    def angle(self, x: Float[Array, " groups"], log_ratio: Scalar) -> Scalar:
        """The angle (rad) of the farthest throw, for groups of a machine and the logarithm of m_weight / balance."""
        low, high = ANGLES
        return low + (high - low) * jax.nn.sigmoid(self.for_angle(_with(x, log_ratio, _RATIO)))

    def log_range(self, x: Float[Array, " groups"], log_ratio: Scalar) -> Scalar:
        """The logarithm of that throw's range in long arms."""
        return _RANGE[0] + _RANGE[1] * self.for_range(_with(x, log_ratio, _RATIO))

    def log_ratio(self, x: Float[Array, " groups"], log_range: Scalar) -> Scalar:
        """The logarithm of m_weight / balance for a range, given as its logarithm in long arms."""
        return _RATIO[0] + _RATIO[1] * self.for_mass(_with(x, log_range, _RANGE))

    def __call__(self, p: Trebuchet, target: ScalarLike) -> Answer:
        """The answer for a machine with its heaviest weight and a target (m); the farthest throw if out of reach."""
        x, least, distance = groups(p), balance(p), jnp.log(target / p.l_long)
        heaviest, lightest = jnp.log(p.m_weight / least), jnp.full_like(distance, math.log(LIGHTEST))
        excess = jnp.expm1(distance - self.log_range(x, heaviest))
        nearest = jnp.maximum(self.log_range(x, lightest), math.log(SHORTEST))
        # Far out of reach and very near, the weight's network was not trained.
        log_ratio = jnp.where(excess > 0, heaviest, jnp.minimum(self.log_ratio(x, distance), heaviest))
        log_ratio = jnp.where(distance < nearest, jnp.nan, log_ratio)
        return Answer(self.angle(x, log_ratio), least * jnp.exp(log_ratio), excess, p.l_long * jnp.exp(nearest))


def _with(x, value, scale: tuple[float, float]):
    """The groups, and one number more that is scaled as they are."""
    return jnp.append(x, (value - scale[0]) / scale[1])


def pretrained_aimer() -> Aimer:
    """The networks that ship trained, for machines as `random_machine` draws them.

    pretrained_aimer()(Trebuchet(), 60.0).mass
    """
    with resources.as_file(resources.files("diffsim.systems.trebuchet") / "aimer.npz") as path:
        return load(path, eqx.filter_eval_shape(Aimer, key=jr.key(0)))


def refine(p: Trebuchet, target: ScalarLike, answer: Answer, steps: int = 1) -> Answer:
    """An answer after steps of Newton's method through the simulator, in the logarithms of weight and range.

    The angle stays. A weight above the machine's heaviest is cut to it; a step without a finite range is not taken.

    Args:
        p: The machine, whose `m_weight` is its heaviest.
        target: The distance in m.
        answer: Where to start.
        steps: How many; each is one throw with its derivative and nearly squares the relative miss.
    """
    controller = dfx.PIDController(rtol=1e-8, atol=1e-10)

    def log_range(log_mass):
        machine = replace(loaded(p, jnp.exp(log_mass)), {"angle": answer.angle})
        value = throw(machine, check=False, stepsize_controller=controller, solver=SOLVER, mode="forward").range
        return jnp.log(value)

    def newton(_, log_mass):
        value, slope = jax.jvp(log_range, (log_mass,), (jnp.ones_like(log_mass),))
        step = (jnp.log(target) - value) / slope
        return jnp.minimum(log_mass + jnp.where(jnp.isfinite(step), step, 0.0), jnp.log(p.m_weight))

    return answer._replace(mass=jnp.exp(jax.lax.fori_loop(0, steps, newton, jnp.log(answer.mass))))
