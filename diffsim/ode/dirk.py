"""Implicit Runge-Kutta methods: stages by diffrax's root finder, differentiated by the implicit function theorem."""

from typing import Any, NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from .._jax.custom_rule import custom_jvp
from .._jax.dynamic_rows import put, row
from .._jax.linear_map import linear_map
from .._jax.tangents import freeze
from .._types import Args, Scalar, Vector

Slopes = Float[Array, "stages n"]


class Tableau(NamedTuple):
    """A diagonally implicit method: f_i = f(t + c_i h, y + h sum over j <= i of a_ij f_j), y1 = y + h sum b_i f_i."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    carries_slope: bool  # the last stage's slope is that of the next step's first

    @classmethod
    def of(cls, solver) -> "Tableau | None":
        """That of one of diffrax's solvers, if it is such a method."""
        if isinstance(solver, dfx.ImplicitEuler):
            return cls(np.ones((1, 1)), np.ones(1), np.ones(1), False)
        if not isinstance(solver, dfx.AbstractDIRK) or not isinstance(solver.tableau, dfx.ButcherTableau):
            return None
        tableau: Any = solver.tableau
        a = np.diag(tableau.a_diagonal)
        for i, lower in enumerate(tableau.a_lower):
            a[i + 1, : i + 1] = lower
        return cls(a, tableau.b_sol, np.array([tableau.c1 or 0.0, *tableau.c]), tableau.fsal)


class Stages(NamedTuple):
    """The stages of a step: their slopes, and (if the step was not taken before) the estimate of its error."""

    slopes: Slopes
    error: Vector | None = None


def solve_stages(tableau: Tableau, solver, term: dfx.ODETerm, args: Args, start: tuple, h: Scalar) -> Stages:
    """Returns the stages of a step `h` from time, state and slope, solved for by diffrax, without derivatives."""
    term, args, (t, y, slope), h = freeze((term, args, start, h))
    # A step must be good to shorten and to repeat, so nothing is carried but the slope. That of a stiff problem is
    # the implicit stage's own: the field's would magnify what the root finder left.
    state: Any = (False, slope) if tableau.carries_slope else solver.init(term, t, t + h, y, args)
    _, error, info, _, result = solver.step(term, t, t + h, y, args, state, made_jump=False)
    rises = info["k"] if "k" in info else (info["y1"] - y)[None]
    slopes = jnp.where(h == 0, slope[None], rises / jnp.where(h == 0, 1.0, h))
    return freeze(Stages(slopes, jnp.where(result == dfx.RESULTS.successful, error, jnp.inf)))


def differentiable(
    tableau: Tableau, term: dfx.ODETerm, args: Args, t: Scalar, y: Vector, h: Scalar, slopes: Slopes
) -> Slopes:
    """Returns the `slopes` of the stages of a step `h` from (t, y), with their derivatives as roots.

    By the implicit function theorem: those of f_i = f(t + c_i h, y + h sum a_ij f_j), whatever iterations led there.
    """
    arrays, rest = eqx.partition((term, args, t, y, h), eqx.is_inexact_array)
    fixed, static = eqx.partition(rest, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)
    a, c = (np.asarray(x, y.dtype) for x in (tableau.a, tableau.c))

    @custom_jvp
    def roots(leaves, fixed, slopes):
        return slopes

    def rule(primals, tangents):
        leaves, fixed, _ = primals
        # For derivatives of derivatives the slopes have derivatives too.
        slopes = roots(*primals)
        live = [i for i, x in enumerate(tangents[0]) if not isinstance(x, SymbolicZero)]

        def fields(changed, rises):
            given = dict(zip(live, changed, strict=True))
            arrays = jax.tree.unflatten(tree, [given.get(i, x) for i, x in enumerate(leaves)])
            term, args, t, y, h = eqx.combine(arrays, fixed, static)
            return jax.vmap(lambda c, rise: term.vf(t + c * h, y + h * rise, args))(c, rises)

        rises = a @ slopes
        along = lambda *changed: fields(changed, rises)
        _, forcing = jax.jvp(along, tuple(leaves[i] for i in live), tuple(tangents[0][i] for i in live))
        columns = jax.vmap(lambda e: jax.jvp(lambda r: fields([leaves[i] for i in live], r), (rises,), (e,))[1])
        basis = jnp.eye(y.size, dtype=y.dtype)
        jacobians = jnp.moveaxis(columns(jnp.broadcast_to(basis[:, None], (y.size, *rises.shape))), 0, -1)
        return slopes, _substituted(a, jacobians, forcing)

    roots.defjvp(rule)
    return roots(leaves, fixed, slopes)


def _substituted(a: np.ndarray, jacobians: Float[Array, "stages n n"], forcing: Slopes) -> Slopes:
    """The solution d of d_i = forcing_i + jacobians_i (sum over j <= i of a_ij d_j), stage by stage."""
    # Orthogonal factors need no pivots, which are a loop to compile.
    q, r = jnp.linalg.qr(np.eye(forcing.shape[1], dtype=a.dtype)[None] - np.diag(a)[:, None, None] * jacobians)
    places, lower = np.arange(len(a)), np.tril(a, -1)

    def forward(residuals, inputs):
        def stage(solved, rows):
            i, lower, jacobian, q, r, forcing = rows
            one = _solved(r, (forcing + jacobian @ (lower @ solved)) @ q, transpose=False)
            return put(solved, i, one), None

        return [lax.scan(stage, jnp.zeros_like(inputs[0]), (places, lower, *residuals, *inputs))[0]]

    def backward(residuals, cotangents):
        def stage(cotangents, rows):
            i, lower, jacobian, q, r = rows
            one = q @ _solved(r, row(cotangents, i), transpose=True)
            return cotangents + lower[:, None] * (one @ jacobian)[None], one

        return [lax.scan(stage, cotangents[0], (places, lower, *residuals), reverse=True)[1]]

    return linear_map(forward, backward, [jacobians, q, r], [forcing])[0]


def _solved(r, right: Vector, *, transpose: bool) -> Vector:
    """The solution x of r x = right, or of its transpose, for an upper triangle r."""
    return lax.linalg.triangular_solve(r, right[:, None], left_side=True, transpose_a=transpose)[:, 0]
