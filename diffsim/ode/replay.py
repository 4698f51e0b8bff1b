"""The derivative of a solve's end: that of a fixed replay of the steps that were recorded.

The solve itself is not differentiated. Its accepted steps y_{n+1} = F(t_n, y_n, h_n, p) are on the tape; with their
sizes h_n constant they are a function of (t0, y0, p), whose derivative `discrete_adjoint` carries along the tape.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from .._jax.batch_reductions import largest_of_batch
from .._jax.compile_whole import compile_small
from .._jax.custom_rule import custom_jvp
from .._jax.linear_map import linear_map
from .._types import Scalar, Vector
from . import discrete_adjoint
from .choose_execution import Execution
from .discrete_adjoint import Steps
from .jump_times import Source
from .runge_kutta import Stepper
from .tape import Record


class End(NamedTuple):
    """The last time and state of a solve, and (or None) those before the attempts recorded."""

    t: Scalar
    y: Vector
    path_t: Float[Array, " rows"] | None = None
    path_y: Float[Array, "recorded n"] | None = None


def replay(
    stepper: Stepper,
    t0: Scalar,
    y0: Vector,
    record: Record,
    t: Scalar,
    y: Vector,
    *,
    keep_path: bool,
    execution: Execution,
    jumps: tuple[Source, ...] = (),
    direction: Scalar | float = 1.0,
) -> End:
    """The end (t, y) of the recorded steps from (t0, y0), with derivatives in t0, y0 and the field's arrays.

    The values are those recorded, at no further cost. The derivative is that of the discrete solution with the
    sizes of its accepted steps constant: one loop over them forward for tangents, or backward for cotangents, in
    which a step is taken again from its recorded state; or its Jacobian, for many steps at once. Refused steps are
    never differentiated. The derivative in the times of `jumps` is that of steps which end there, wherever they are.
    """
    moving, rest = eqx.partition((t0, y0, stepper, jumps), eqx.is_inexact_array)
    fixed, static = eqx.partition(rest, eqx.is_array)
    leaves, tree = jax.tree.flatten(moving)
    # One number for a whole batch, so that its members are stepped together.
    record = record._replace(attempts=largest_of_batch(record.attempts))
    constants, constants_tree = jax.tree.flatten((fixed, record, jnp.asarray(direction, t0.dtype)))
    size = y0.size * y0.dtype.itemsize
    compiled = (lambda loop: compile_small(loop, size)) if execution.single_program else (lambda loop: loop)

    def recorded_end(keep_path):
        """The function (leaves, constants, end) -> end, with the derivative of the replay in the leaves."""

        @custom_jvp
        def end_of(leaves, constants, end):
            return end

        def rule(primals, tangents):
            leaves, constants, end = primals
            live = [i for i, x in enumerate(tangents[0]) if not isinstance(x, SymbolicZero)]
            fixed, record, direction = jax.tree.unflatten(constants_tree, constants)
            # For derivatives of derivatives the end and the states on the tape have derivatives too.
            value = recorded_end(True)(leaves, constants, End(end.t, end.y, record.t, record.y))
            record = record._replace(t=value.path_t, y=value.path_y)
            constants = jax.tree.leaves((fixed, record, direction))

            def steps(residuals):
                fixed, record, direction = jax.tree.unflatten(constants_tree, residuals[len(leaves) :])
                restore = lambda leaves: eqx.combine(jax.tree.unflatten(tree, leaves), fixed, static)
                return Steps(residuals[: len(leaves)], live, restore, record, keep_path, execution, direction)

            inputs = [tangents[0][i] for i in live]
            tangent = _carried(steps, [*leaves, *constants], inputs, compiled, execution.jacobians)
            return value if keep_path else End(value.t, value.y), tangent

        end_of.defjvp(rule)
        return end_of

    path = (record.t, record.y) if keep_path else ()
    end = recorded_end(keep_path)(leaves, constants, End(t, y, *path))
    if jumps:
        return end
    # Steps of constant size begin as much later as the first. Where t0 is not differentiated this costs nothing.
    later = t0 - lax.stop_gradient(t0)
    return End(t + later, end.y, record.t + later if keep_path else None, end.path_y)


def _carried(steps: Callable[[list], Steps], residuals: list, inputs: list, compiled: Callable, jacobians: bool) -> End:
    """Tangents of the end from those of the live leaves, as a linear map with its transpose."""
    forward = lambda residuals, inputs: discrete_adjoint.tangents(steps(residuals), inputs)
    backward = lambda residuals, cotangents: discrete_adjoint.cotangents(steps(residuals), cotangents)
    return End(*linear_map(compiled(forward), backward if jacobians else compiled(backward), residuals, inputs))
