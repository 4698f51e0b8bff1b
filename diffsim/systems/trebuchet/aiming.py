"""Aiming: the counterweight that hits a target, by Newton's method through the simulator."""

from typing import NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp

from ..._types import Count, Scalar
from ...parameters import replace
from .machine import Trebuchet
from .shot import throw

_TOLERANCE = 1e-7
_MOST_THROWS = 40


class Aim(NamedTuple):
    """The counterweight (kg), the relative miss of the last throw made with it, and the number of throws."""

    mass: Scalar
    miss: Scalar
    throws: Count


def aim(p: Trebuchet, target: Scalar, lightest: float, heaviest: float) -> Aim:
    """The counterweight between two limits with which the machine, as it is otherwise set, throws `target` metres.

    Newton's method in logarithms, on which the range is nearly straight, with bisection to event its ends; good to
    a relative 1e-7 of the model. A target outside what the limits reach leaves a miss larger than that.
    """

    def simulate(log_mass):
        machine = replace(p, {"m_weight": jnp.exp(log_mass)})
        controller = dfx.PIDController(rtol=1e-8, atol=1e-10)
        return throw(machine, check=False, stepsize_controller=controller, solver=dfx.Dopri5(), mode="forward").range

    def unfinished(state):
        _, miss, _, _, count = state
        return (jnp.abs(miss) > _TOLERANCE) & (count < _MOST_THROWS)

    def newton(state):
        log_mass, _, low, high, count = state
        value, slope = jax.jvp(simulate, (log_mass,), (jnp.ones_like(log_mass),))
        miss = value / target - 1
        low, high = jnp.where(miss < 0, log_mass, low), jnp.where(miss < 0, high, log_mass)
        better = log_mass - value / slope * jnp.log(jnp.maximum(value / target, 1e-3))
        better = jnp.where((better > low) & (better < high), better, 0.5 * (low + high))
        return jnp.where(jnp.abs(miss) <= _TOLERANCE, log_mass, better), miss, low, high, count + 1

    low, high = jnp.log(lightest), jnp.log(heaviest)
    start = (0.5 * (low + high), jnp.asarray(jnp.inf, low.dtype), low, high, jnp.array(0))
    log_mass, miss, _, _, count = jax.lax.while_loop(unfinished, newton, start)
    return Aim(jnp.exp(log_mass), miss, count)
