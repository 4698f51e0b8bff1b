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
_MAX_THROWS = 40


class Aim(NamedTuple):
    """The result of aiming.

    Attributes:
        mass: The counterweight in kg.
        miss: The relative distance of the last throw from the target.
        throws: The number of throws.
    """

    mass: Scalar
    miss: Scalar
    throws: Count


def aim(p: Trebuchet, target: Scalar, lightest: float, heaviest: float) -> Aim:
    """The counterweight between two limits with which the machine throws `target` metres.

    The method is Newton's in the logarithms of mass and range, between which the relation is nearly linear. A step that
    leaves the bracket of the root is replaced by bisection. The range is right to a relative 1e-7; for a target that no
    counterweight between the limits reaches, the miss is larger.

        aim(ds.systems.trebuchet.Trebuchet(), 50.0, 10.0, 100.0).mass

    Args:
        p: The machine, whose other parameters stay as they are.
        target: The range in m.
        lightest: The lower limit in kg.
        heaviest: The upper limit in kg.
    """

    def simulate(log_mass):
        machine = replace(p, {"m_weight": jnp.exp(log_mass)})
        controller = dfx.PIDController(rtol=1e-8, atol=1e-10)
        return throw(machine, check=False, stepsize_controller=controller, solver=dfx.Dopri5(), mode="forward").range

    def unfinished(state):
        _, miss, _, _, count = state
        return (jnp.abs(miss) > _TOLERANCE) & (count < _MAX_THROWS)

    def newton(state):
        log_mass, _, low, high, count = state
        value, slope = jax.jvp(simulate, (log_mass,), (jnp.ones_like(log_mass),))
        miss = value / target - 1
        low, high = jnp.where(miss < 0, log_mass, low), jnp.where(miss < 0, high, log_mass)
        next_log_mass = log_mass - value / slope * jnp.log(jnp.maximum(value / target, 1e-3))
        in_bracket = (next_log_mass > low) & (next_log_mass < high)
        next_log_mass = jnp.where(in_bracket, next_log_mass, 0.5 * (low + high))
        return jnp.where(jnp.abs(miss) <= _TOLERANCE, log_mass, next_log_mass), miss, low, high, count + 1

    low, high = jnp.log(lightest), jnp.log(heaviest)
    start = (0.5 * (low + high), jnp.asarray(jnp.inf, low.dtype), low, high, jnp.array(0))
    log_mass, miss, _, _, count = jax.lax.while_loop(unfinished, newton, start)
    return Aim(jnp.exp(log_mass), miss, count)
