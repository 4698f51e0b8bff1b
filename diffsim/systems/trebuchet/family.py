"""A family of trebuchets: random machines of every size, and the numbers without dimension that describe one."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._errors import InputError
from ..._types import Scalar, ScalarLike
from ...parameters import replace
from .machine import Trebuchet

# The limits between which `random_machine` draws, of lengths in long arms and of masses in those of the ball.
LENGTHS = {"l_short": (0.2, 0.35), "l_sling": (0.8, 1.2), "l_weight": (0.15, 0.35), "h_pivot": (0.65, 0.85)}
M_ARM = (10.0, 60.0)
BEAM = {"d_cg": (0.8, 1.05), "I_arm": (0.7, 1.05)}  # relative to an arm of the same thickness everywhere
I_WEIGHT = (0.0, 0.15)  # relative to m_weight l_weight^2
RATIO = (3.0, 12.0)  # of the heaviest weight to the one that balances arm and ball
DRAG = (0.0, 0.06)  # rho Cd pi diameter^2 l_long / (8 m_proj)
LIGHTEST, HEAVIEST = 1.12, RATIO[1]  # the range of weights that a network answers with, relative to the same weight
SHORTEST = 0.5  # long arms: networks do not answer for nearer targets
WIND = 2.5  # the strongest, in sqrt(g l_long); its standard deviation is 1 of them
L_LONG = (0.5, 12.0)  # m
DENSITY = (0.005, 0.05)  # kg/m^3, of the ball's mass to l_long^3

GROUPS = (
    *(f"{name} / l_long" for name in LENGTHS),
    "log((m_arm d_cg^2 + I_arm) / (m_proj l_long^2))",
    "m_arm d_cg l_long / (m_arm d_cg^2 + I_arm)",
    "I_weight / (m_weight l_weight^2)",
    "rho Cd pi diameter^2 l_long / (8 m_proj)",
    "wind / sqrt(g l_long)",
)
# The middle of each group and half the width of its range: with them, each is between -1 and 1.
MIDDLE = np.array([0.275, 1.0, 0.25, 0.75, 1.75, 1.43, 0.075, 0.03, 0.0])
WIDTH = np.array([0.075, 0.2, 0.1, 0.1, 1.25, 0.29, 0.075, 0.03, 2.5])
_SLACK = 0.02  # by how much more of a range a machine may be outside


def random_machine(key: PRNGKeyArray) -> Trebuchet:
    """A random machine with its heaviest weight, in a random wind along the throw.

        random_machine(jax.random.key(0)).l_long

    The long arm measures 0.5 to 12 m, the other lengths are in proportion to it, the arm is a beam that may taper, and
    the heaviest weight is 3 to 12 times the one that balances arm and ball. About one machine in ten would let the
    sling go slack with its heaviest weight. The limits are constants of this module.
    """
    *keys, for_wind = jr.split(key, 13)
    uniform = lambda n, limits: jr.uniform(keys[n], minval=limits[0], maxval=limits[1])
    log_uniform = lambda n, limits: jnp.exp(uniform(n, np.log(limits)))
    l_long = log_uniform(0, L_LONG)
    m_proj = l_long**3 * log_uniform(1, DENSITY)
    lengths = {name: l_long * uniform(2 + n, limits) for n, (name, limits) in enumerate(LENGTHS.items())}
    m_arm = m_proj * log_uniform(6, M_ARM)
    d_cg = (l_long - lengths["l_short"]) / 2 * uniform(7, BEAM["d_cg"])
    machine = replace(
        Trebuchet(),
        lengths
        | {
            "l_long": l_long,
            "m_proj": m_proj,
            "m_arm": m_arm,
            "d_cg": d_cg,
            "I_arm": m_arm * (l_long + lengths["l_short"]) ** 2 / 12 * uniform(8, BEAM["I_arm"]),
            "diameter": jnp.sqrt(8 * m_proj / (np.pi * l_long) * uniform(9, DRAG)),
        },
    )
    wind = jnp.clip(jr.normal(for_wind), -WIND, WIND) * jnp.sqrt(machine.g * l_long)
    heaviest = balance(machine) * log_uniform(10, RATIO)
    I_weight = heaviest * lengths["l_weight"] ** 2 * uniform(11, I_WEIGHT)
    return replace(machine, {"m_weight": heaviest, "I_weight": I_weight, "wind": wind})


def balance(p: Trebuchet) -> Scalar:
    """The weight (kg) that balances arm and ball; the machine throws with a heavier one only."""
    return (p.m_arm * p.d_cg + p.m_proj * p.l_long) / p.l_short


def loaded(p: Trebuchet, mass: ScalarLike) -> Trebuchet:
    """The machine with another weight (kg) in the same box: its own inertia changes in proportion."""
    return replace(p, {"m_weight": mass, "I_weight": p.I_weight * mass / p.m_weight})


def groups(p: Trebuchet) -> Float[Array, " groups"]:
    """The numbers without dimension on which a throw depends, besides angle and weight; each is between -1 and 1.

    Measured in long arms, masses of the ball and sqrt(l_long / g), a throw of one machine is that of any other with
    the same groups: four lengths, the logarithm of the arm's inertia about the pivot, the arm's moment relative to that
    inertia, the weight's own inertia relative to m_weight l_weight^2, drag, and wind. Of the arm's mass, centre of
    gravity and inertia only two combinations matter, and of the ball's diameter and its drag only one.

    Args:
        p: The machine.
    """
    inertia = p.m_arm * p.d_cg**2 + p.I_arm
    values = jnp.stack(
        [
            *(getattr(p, name) / p.l_long for name in LENGTHS),
            jnp.log(inertia / (p.m_proj * p.l_long**2)),
            p.m_arm * p.d_cg * p.l_long / inertia,
            p.I_weight / (p.m_weight * p.l_weight**2),
            p.rho * p.Cd * jnp.pi * p.diameter**2 * p.l_long / (8 * p.m_proj),
            p.wind / jnp.sqrt(p.g * p.l_long),
        ]
    )
    return (values - jnp.asarray(MIDDLE, values.dtype)) / jnp.asarray(WIDTH, values.dtype)


def check_in_family(p: Trebuchet) -> None:
    """Raises InputError for a machine unlike those of `random_machine`, with the quantity, its value and its range.

    Args:
        p: The machine, with its heaviest weight; its numbers must be known, so not within `jit`.
    """
    scaled = np.asarray(groups(p))
    for name, value, middle, width in zip(GROUPS, scaled, MIDDLE, WIDTH, strict=True):
        if not abs(value) <= 1 + _SLACK:
            limits = f"{middle - width:.3g} to {middle + width:.3g}"
            raise InputError(f"{name} is {middle + width * value:.3g}: the networks know machines with {limits}")
    ratio = float(p.m_weight / balance(p))
    if not RATIO[0] / (1 + _SLACK) <= ratio <= RATIO[1] * (1 + _SLACK):
        raise InputError(
            f"m_weight is {float(p.m_weight):.4g} kg, {ratio:.3g} times the weight that balances arm and ball: "
            f"the networks know machines with {RATIO[0]:g} to {RATIO[1]:g} times"
        )
