"""Equations of motion from a Lagrangian: accelerations, and the energy that they keep."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._errors import InputError
from .._types import Scalar

Coordinates = PyTree[Float[Array, "..."]]


def acceleration(
    lagrangian: Callable[..., Scalar],
    q: Coordinates,
    v: Coordinates,
    *args: Any,
    force: Coordinates | None = None,
) -> Coordinates:
    """Returns the accelerations d2q/dt2 of a system with the given Lagrangian, a tree like `q`.

    They solve the Euler-Lagrange equations d/dt(dL/dv) = dL/dq + Q for a = dv/dt:

        M a = dL/dq + Q - (d2L/dv dq) v,    M = d2L/dv2.

    `lagrangian(q, v, *args)` is kinetic minus potential energy in J and does not depend on time; `q` are the
    coordinates (m, rad, ...), `v` their rates per second, both trees of the same shape. `force` holds the
    generalised forces Q (N for metres, N m for radians), a tree of that shape as well; None is no force.

    Good values: a few to some tens of coordinates; M is formed and solved densely.
    Breaks when M is singular (a coordinate without inertia): the result is not finite, and nothing is raised.
    Raises InputError where `q`, `v` and `force` differ in structure or shape.
    """
    flat_q, flat_v, unravel = _flatten(q, v)
    flat = lambda q, v: lagrangian(unravel(q), unravel(v), *args)
    momentum = jax.grad(flat, argnums=1)
    mass = jax.jacfwd(momentum, argnums=1)(flat_q, flat_v)
    drift = jax.jvp(lambda q: momentum(q, flat_v), (flat_q,), (flat_v,))[1]
    push = jax.grad(flat)(flat_q, flat_v) - drift
    if force is not None:
        push = push + _flatten(q, force, "force")[1]
    return unravel(jnp.linalg.solve(mass, push))


def energy(lagrangian: Callable[..., Scalar], q: Coordinates, v: Coordinates, *args: Any) -> Scalar:
    """Returns the energy v . dL/dv - L in J, which the motion keeps where no force acts.

    It is kinetic plus potential energy where the kinetic energy is quadratic in `v`. Arguments and errors are
    those of `acceleration`.
    """
    flat_q, flat_v, unravel = _flatten(q, v)
    flat = lambda v: lagrangian(unravel(flat_q), unravel(v), *args)
    value, slope = jax.jvp(flat, (flat_v,), (flat_v,))
    return slope - value


def _flatten(q: Coordinates, other: Coordinates, name: str = "v") -> tuple[Array, Array, Callable[[Array], Any]]:
    """`q` and another tree of its shape as vectors, and the way back."""
    structure, given = jax.tree.structure(q), jax.tree.structure(other)
    if structure != given:
        raise InputError(f"{name} is {given} but q is {structure}: give them the same structure")
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (q, other)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{name} has shapes {shapes[1]} but q has {shapes[0]}: give them the same shapes")
    flat, unravel = ravel_pytree(q)
    return flat, ravel_pytree(other)[0], unravel
