"""The replay for solves by diffrax itself: an adjoint to give to `diffrax.diffeqsolve`."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._errors import InputError
from .._jax.bounded_loops import plain_while_loop, write_buffer
from .._jax.tangents import freeze
from .._types import Scalar, Vector
from .choose_execution import choose_execution
from .discrete_adjoint import with_slopes
from .events import choose
from .jump_times import unwrapped
from .replay import replay
from .saved_output import Path, as_dense, as_saved
from .solver_setup import on_vectors, stepper
from .tape import Memory, Record, blank


class ReplayAdjoint(dfx.AbstractAdjoint):
    """An adjoint for `diffrax.diffeqsolve(..., adjoint=ReplayAdjoint())` that differentiates the accepted steps.

    The solution is diffrax's own. Its steps are recorded, and what was saved is differentiated as if they had been
    prescribed. That is the derivative of `RecursiveCheckpointAdjoint` at a fraction of its cost: in `y0`, `args`, the
    arrays of the vector field, the times to save at, `t0` and `t1` (for these last two the sizes of all steps but the
    last are constants). `grad`, `jvp`, `jacfwd`, `hessian` and `vmap` all work, with explicit and implicit Runge-Kutta
    methods and every kind of `SaveAt`.

    Args:
        memory: As in `diffsim.integrate_phase`; "two_levels" is for solves that save at `t0` and `t1` alone.

    Raises:
        InputError: In the solve, for an event (use `diffsim.integrate_phase`), for terms other than one `ODETerm`, for
            solvers that may look back further than one step, for a controller with `jump_ts`, and without `max_steps`.

    Examples:
        >>> term, solver = diffrax.ODETerm(lambda t, y, rate: -rate * y), diffrax.Tsit5()
        >>> last = lambda rate: diffrax.diffeqsolve(
        ...     term, solver, 0.0, 1.0, 0.01, jnp.array(1.0), rate, adjoint=ds.ReplayAdjoint()
        ... ).ys[-1]
        >>> print(f"{jax.grad(last)(2.0):.6f}")  # -exp(-2)
        -0.135335
    """

    memory: Memory = eqx.field(static=True, default="auto")

    def loop(self, *, terms, solver, stepsize_controller, event, saveat, t0, t1, max_steps, init_state, args, **others):
        """diffrax's loop with a record of its steps; what it saved has the derivatives of a replay."""
        _check(terms, solver, event, max_steps)
        _, landings = unwrapped(stepsize_controller, t0, t1)
        if landings.jumps:
            raise InputError("ReplayAdjoint has no derivative in jump_ts: use diffsim.integrate with this controller")
        y0, unravel = ravel_pytree(init_state.y)
        terms = dfx.ODETerm(_explicit_field(terms, t0, init_state.y, args))
        saveat = _explicit_constants(saveat, t0, init_state.y, args)
        field = on_vectors(terms.vf, t0, y0, unravel, args)
        steps = stepper(field, solver, stepsize_controller, args)
        between = saveat.dense or any(sub.ts is not None or sub.steps for sub in _subs(saveat))
        options = {"attempts": max_steps, "memory": self.memory, "keep_path": between}
        execution = choose_execution(steps, t0, y0, stepsize_controller, **options)
        # The rows behind a member's last step are blank, and no steps to take.
        execution = execution._replace(fixed_steps=False)
        steps = steps._replace(written_out=execution.written_out)
        blank_record = _Accepted(blank(y0, max_steps, execution.stride), t0, jnp.zeros_like(t0), y0)
        arrays = {"terms": terms, "saveat": saveat, "init_state": init_state, "args": args, "t0": t0, "t1": t1}
        arrays |= {"stepsize_controller": stepsize_controller, **{k: others[k] for k in ("dt0", "progress_meter")}}
        options = {"solver": solver, "event": None, "max_steps": max_steps}
        (state, stats), accepted_steps = _recorded(self._loop, freeze(blank_record), **options, **freeze(arrays))
        record = with_slopes(freeze(steps), freeze(accepted_steps.record))
        # The last step is not in the record: it ends at `t1`, wherever that is.
        head = _without_last(record)
        end = replay(steps, t0, y0, head, accepted_steps.t, accepted_steps.y, keep_path=between, execution=execution)
        h = jnp.where(state.tprev == t1, t1 - end.t, accepted_steps.h)
        return _with_derivatives(Path(steps, record, end, h, unravel), saveat, state, args), stats


def _with_derivatives(path: Path, saveat: dfx.SaveAt, state, args):
    """The last state of diffrax's loop, with the path's derivatives in all that was saved."""
    saved = jax.tree.map(lambda sub, x: as_saved(path, sub, x, args), saveat.subs, state.save_state, is_leaf=_is_sub)
    dense_ts, dense_infos = state.dense_ts, state.dense_infos
    if saveat.dense:
        dense_ts, dense_infos = as_dense(path, dense_ts, dense_infos)
    return dataclasses.replace(state, save_state=saved, dense_ts=dense_ts, dense_infos=dense_infos)


def _without_last(record: Record) -> Record:
    count = jnp.maximum(record.attempts - 1, 0)
    return record._replace(attempts=count, h=jnp.where(jnp.arange(record.h.shape[0]) < count, record.h, 0.0))


class _Accepted(NamedTuple):
    """The record of accepted steps, and the last of them: its time, size and initial state."""

    record: Record
    t: Scalar
    h: Scalar
    y: Vector


def _recorded(loop: Callable, accepted_steps: _Accepted, **options):
    """What diffrax's loop returns, and the record of its steps."""
    at_end, stride = [], accepted_steps.record.stride

    def outer(cond_fun, body_fun, state, *, max_steps, buffers):
        def body(carry):
            state, accepted_steps = carry
            after = body_fun(state)
            return after, _with_step(accepted_steps, stride, state, after.num_accepted_steps > state.num_accepted_steps)

        lasting = lambda carry: [*buffers(carry[0]), *carry[1].record[:3]]
        options = {"max_steps": max_steps, "buffers": lasting}
        state, accepted_steps = plain_while_loop(lambda carry: cond_fun(carry[0]), body, (state, start), **options)
        at_end.append(accepted_steps)
        return state

    start = accepted_steps
    result = loop(inner_while_loop=plain_while_loop, outer_while_loop=outer, **options)
    return result, at_end[0]


def _with_step(accepted_steps: _Accepted, stride: int, state, accepted) -> _Accepted:
    """The record with the step that diffrax's loop made from `state`, if it was accepted."""
    record, row = accepted_steps.record, accepted_steps.record.attempts
    t, h, y = state.tprev, state.tnext - state.tprev, ravel_pytree(state.y)[0]
    rows = write_buffer(record.t, row, t, pred=accepted), write_buffer(record.h, row, h, pred=accepted)
    ys = write_buffer(record.y, row // stride, y, pred=accepted & (row % stride == 0))
    last = choose(accepted, (t, h, y), (accepted_steps.t, accepted_steps.h, accepted_steps.y))
    return _Accepted(Record(*rows, y=ys, attempts=row + accepted), *last)


def _check(terms, solver, event, max_steps) -> None:
    name = type(solver).__name__
    if event is not None:
        raise InputError(
            "ReplayAdjoint cannot stop at an event: use diffsim.integrate_phase, whose events have derivatives"
        )
    if max_steps is None:
        raise InputError("max_steps=None has no bound, and ReplayAdjoint keeps a record of max_steps steps: give one")
    if not isinstance(getattr(terms, "term", None), dfx.ODETerm):
        raise InputError("ReplayAdjoint replays one ODETerm: use diffrax.RecursiveCheckpointAdjoint() for other terms")
    if not isinstance(solver, dfx.AbstractRungeKutta | dfx.Euler | dfx.ImplicitEuler):
        raise InputError(f"{name} may look back further than one step, as no replay can: use a Runge-Kutta method")


def _is_sub(x) -> bool:
    return isinstance(x, dfx.SubSaveAt)


def _subs(saveat: dfx.SaveAt) -> list[dfx.SubSaveAt]:
    return jax.tree.leaves(saveat.subs, is_leaf=_is_sub)


def _explicit_field(terms, *like) -> Callable:
    """The derivative of the state in diffrax's time, which runs forward, with what it closes over as arguments."""
    unit = lambda t: terms.contr(jnp.zeros_like(t), jnp.ones_like(t))
    return eqx.filter_closure_convert(lambda t, y, args: terms.vf_prod(t, y, args, unit(t)), *like)


def _explicit_constants(saveat: dfx.SaveAt, *like) -> dfx.SaveAt:
    """The same, with what the functions of states to save close over as arguments."""
    convert = lambda sub: eqx.tree_at(lambda s: s.fn, sub, eqx.filter_closure_convert(sub.fn, *like))
    return eqx.tree_at(lambda s: s.subs, saveat, jax.tree.map(convert, saveat.subs, is_leaf=_is_sub))
