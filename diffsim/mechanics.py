"""Equations of motion: accelerations from a Lagrangian, the energy that they conserve, and arrow-shaped masses."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._errors import InputError
from ._jax.barrier import barrier
from ._types import Scalar

Coordinates = PyTree[Float[Array, "..."]]


def acceleration(
    lagrangian: Callable[..., Scalar],
    q: Coordinates,
    v: Coordinates,
    force: Coordinates | None = None,
    *,
    args: tuple = (),
) -> Coordinates:
    """The accelerations d2q/dt2 of a system with the given Lagrangian, a tree like `q`.

    They solve the Euler-Lagrange equations d/dt(dL/dv) = dL/dq + Q for a = dv/dt:

        M a = dL/dq + Q - (d2L/dv dq) v,    M = d2L/dv2.

    Good values: a few to some tens of coordinates, since M is a dense matrix. Breaks when: M is singular, as for a
    coordinate without inertia. The result is then not finite, and no error is raised.

    Args:
        lagrangian: `lagrangian(q, v, *args)`, kinetic minus potential energy in J, which does not depend on time.
        q: The coordinates (m, rad, ...), a tree of arrays.
        v: Their rates per second, a tree like `q`.
        force: The generalised forces Q (N for metres, N m for radians), a tree like `q`; by default none.
        args: Further arguments of the Lagrangian.

    Raises:
        InputError: If `q`, `v` and `force` differ in structure or shape, and if `args` is not a tuple.

    Examples:
        A pendulum of 1 kg and 0.4 m that a motor drives with a torque of 0.5 N m:

        >>> lagrangian = lambda q, v, mass, length: 0.5 * mass * (length * v) ** 2 + 9.81 * mass * length * jnp.cos(q)
        >>> a = ds.acceleration(lagrangian, jnp.array(0.3), jnp.array(1.0), force=jnp.array(0.5), args=(1.0, 0.4))
        >>> print(f"{a:.4f} {-9.81 / 0.4 * jnp.sin(0.3) + 0.5 / 0.4**2:.4f}")
        -4.1226 -4.1226
    """
    flat_q, flat_v, unravel = _flatten(q, v)
    _check_args(args)
    flat = lambda q, v: lagrangian(unravel(q), unravel(v), *args)
    momentum = jax.grad(flat, argnums=1)
    mass = jax.jacfwd(momentum, argnums=1)(flat_q, flat_v)
    momentum_rate = jax.jvp(lambda q: momentum(q, flat_v), (flat_q,), (flat_v,))[1]
    total_force = jax.grad(flat)(flat_q, flat_v) - momentum_rate
    if force is not None:
        total_force = total_force + _flatten(q, force, "force")[1]
    return unravel(jnp.linalg.solve(mass, total_force))


def energy(lagrangian: Callable[..., Scalar], q: Coordinates, v: Coordinates, *, args: tuple = ()) -> Scalar:
    """The energy v . dL/dv - L in J, which the motion conserves if there is no force.

    It is the sum of kinetic and potential energy if the kinetic energy is quadratic in `v`. Arguments and errors are
    those of `acceleration`.
    """
    flat_q, flat_v, unravel = _flatten(q, v)
    _check_args(args)
    flat = lambda v: lagrangian(unravel(flat_q), unravel(v), *args)
    value, momentum_times_rate = jax.jvp(flat, (flat_v,), (flat_v,))
    return momentum_times_rate - value


def solve_arrow(
    corner: Scalar, border: Sequence[Scalar], diagonal: Sequence[Scalar], right: Sequence[Scalar]
) -> list[Scalar]:
    """The solution of M a = b for a mass matrix that is an arrow: bodies that are coupled to the first alone.

        M = [[c, u1, u2, ...], [u1, d1, 0, ...], [u2, 0, d2, ...], ...]

        a0 = (b0 - sum u_i b_i / d_i) / (c - sum u_i^2 / d_i),    a_i = (b_i - u_i a0) / d_i

    Args:
        corner: c.
        border: u1, u2, ...
        diagonal: d1, d2, ..., none of them zero.
        right: b0, b1, b2, ...

    Examples:
        >>> from diffsim.mechanics import solve_arrow
        >>> print([round(float(a), 6) for a in solve_arrow(4.0, [1.0, 2.0], [1.0, 2.0], [9.0, 2.0, 6.0])])
        [1.0, 1.0, 2.0]
    """
    count = len(border)
    # Without the barriers all of these are computed again for each acceleration, and the first for the others.
    numbers = barrier(*map(jnp.asarray, (corner, *border, *diagonal, *right)))
    corner, border, diagonal = numbers[0], numbers[1 : count + 1], numbers[count + 1 : 2 * count + 1]
    top, *rest = numbers[2 * count + 1 :]
    for u, d, b in zip(border, diagonal, rest, strict=True):
        top, corner = top - u * b / d, corner - u**2 / d
    (first,) = barrier(top / corner)
    return [first, *((b - u * first) / d for u, d, b in zip(border, diagonal, rest, strict=True))]


def _check_args(args: Any) -> None:
    """Raises InputError unless `args` is a tuple."""
    if not isinstance(args, tuple):
        raise InputError(f"args={args!r}: give a tuple of the Lagrangian's further arguments, args=(...,)")


def _flatten(q: Coordinates, other: Coordinates, name: str = "v") -> tuple[Array, Array, Callable[[Array], Any]]:
    """`q` and another tree of its shape as vectors, and the function from a vector back to a tree."""
    structure, other_structure = jax.tree.structure(q), jax.tree.structure(other)
    if structure != other_structure:
        raise InputError(f"{name} is {other_structure} but q is {structure}: give them the same structure")
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (q, other)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{name} has shapes {shapes[1]} but q has {shapes[0]}: give them the same shapes")
    flat, unravel = ravel_pytree(q)
    return flat, ravel_pytree(other)[0], unravel
