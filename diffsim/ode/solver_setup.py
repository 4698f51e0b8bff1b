"""Making a solver, a vector field and a step size controller ready for steps that every mode accepts."""

import dataclasses
from collections.abc import Callable

import diffrax as dfx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._jax.barrier import barrier
from .._jax.scalarize import entries
from .._jax.traced_function import Traced
from .._types import Args, Scalar, State, Vector
from .runge_kutta import Stepper

_MANY = 1024  # numbers of a state
_FEW = 16  # numbers of a state whose squares are added one by one


def stepper(field: Callable, solver: dfx.AbstractSolver, controller, args: Args) -> Stepper:
    """`solver` for `field(t, y, args)`, set up so that `grad`, `jvp` and `vmap` go through its steps."""
    if isinstance(solver, dfx.AbstractImplicitSolver):
        solver = _with_tolerances(solver, controller)
    if isinstance(solver, dfx.AbstractRungeKutta):
        # Stages are differentiated by rules of our own: an ordinary loop over them is the fastest.
        solver = dataclasses.replace(solver, scan_kind="lax")
    return Stepper(solver, dfx.ODETerm(field), args)


def on_vectors(field: Callable, t0: Scalar, y0: Vector, unravel: Callable, args: Args) -> Callable:
    """`field(t, y, args)` of a tree as one of vectors like `y0`, with what it closes over as arguments."""
    # Arrays of many dimensions are best computed as such: fused with the vector, they lose their shape.
    shaped = _barrier_tree if y0.size > _MANY else lambda y: y
    flat = lambda t, y, args: as_vector(shaped(field(t, shaped(unravel(y)), args)))[0]
    return Traced.of(flat, t0, y0, args)


def as_vector(tree: State) -> tuple[Vector, Callable]:
    """The numbers of a tree and the way back, as `ravel_pytree` has it; single numbers in one operation."""
    leaves, structure = jax.tree.flatten(tree)
    if any(jnp.ndim(x) for x in leaves):
        return ravel_pytree(tree)
    return jnp.stack(leaves), lambda vector: jax.tree.unflatten(structure, jnp.unstack(vector))


def _barrier_tree(tree):
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, barrier(*leaves))


def with_plain_norm(controller):
    """The controller with a norm of plain arithmetic in place of diffrax's default.

    Over a batch, products and sums are handed to a library on a CPU, which is impossible within `compile_whole`.
    """
    default = getattr(controller, "norm", None) is optx.rms_norm
    return dataclasses.replace(controller, norm=_root_mean_square) if default else controller


def _root_mean_square(y: Vector) -> Scalar:
    squares = y**2
    return jnp.sqrt(sum(entries(squares)) / y.size if y.size <= _FEW else jnp.mean(squares))


def _with_tolerances(solver, controller):
    """The implicit solver with a root finder of known tolerance: the controller's, unless it has its own."""
    # diffrax marks "as the controller" by an object in place of the number.
    if isinstance(getattr(solver.root_finder, "rtol", None), float | int | jax.Array):
        return solver
    if not hasattr(controller, "rtol"):
        name = type(solver).__name__
        raise InputError(
            f"{name} with {type(controller).__name__} has no tolerance for its root finder; "
            f"pass {name}(root_finder=optimistix.Newton(rtol=1e-8, atol=1e-10)) or a PIDController"
        )
    # diffrax's own choice takes one Jacobian for a whole step. On stiff problems it then fails so often that there are
    # five to thirteen times as many steps.
    finder = optx.Newton(rtol=controller.rtol, atol=controller.atol, norm=controller.norm)
    return dataclasses.replace(solver, root_finder=finder)
