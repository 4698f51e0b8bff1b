"""The check of a gradient: reverse mode, forward mode and differences, parameter by parameter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from .._errors import InputError
from ..autodiff.inputs import split
from .directional import derivatives_by_jax
from .event_conditioning import Crossing
from .outside import JVP, VJP, outside
from .procedure import MODES, Options, collect
from .report import GradientCheck


def check_gradients(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    rtol: float = 1e-6,
    atol: float = 0.0,
    modes: Sequence[str] = MODES,
    max_coordinates: int = 8,
    seed: int = 0,
    jit: bool = True,
    thorough: bool = False,
    events: Mapping[str, Crossing] | None = None,
    vjp: VJP | None = None,
    jvp: JVP | None = None,
) -> GradientCheck:
    """The evidence that the derivatives of `f(*args)` are those of the numbers that it computes.

    The derivatives are JAX's, or those of `vjp` and `jvp` if one of these is passed.

    A derivative a agrees with the difference d, whose error estimate is e, where

        |a - d| <= rtol max(|a|, |d|) + atol + 2 e.

    The verdict on each parameter is one of
    - "agrees";
    - "disagrees";
    - "non-finite", with the entry and the mode;
    - "zero?", where a derivative is exactly 0 although the function changes;
    - "inconclusive", where differences cannot decide, such as at a kink, where a number format with fewer digits is
      used on the way, or where JAX has no derivative by any of the `modes`.
    A parameter that does not agree has `suspects`, the operations that may be the cause.

    The derivative of an adaptive solve is taken along the steps that were made, while differences see the steps change.
    What does not agree is therefore tried again with a thousandth of the solves' tolerances (a tenth in float32). If
    derivatives and differences then come together, the verdict is "agrees", and a note says that the difference is
    within the solver's tolerance.

    About 40 values of `f` are computed for every entry that is tried. The check ends with its table whatever goes
    wrong inside it; what could not be tried is then named in a note.

    Args:
        f: A function of `args` that returns one floating-point number. With `vjp` or `jvp`, it is a function of NumPy
            arrays, called from Python, and may return arrays: these are checked in one random combination.
        args: The arguments. Every floating-point array in them (trees and modules too) is a parameter; static values,
            keys, counters and what `ds.parameters` leaves out, such as the limits of a `BoundedMLP`, are left alone.
        rtol: The tolerance relative to the slope; at least 100 roundings of the number format are allowed. The default
            is far above the rounding of float64 and far below the effect of a wrong derivative.
        atol: The absolute tolerance, in the units of the derivative.
        modes: The modes to check, of "reverse" and "forward".
        max_coordinates: The most entries of each parameter that are tried. One direction over all entries is tried in
            addition.
        seed: The seed of the random choice of entries and directions.
        jit: Whether to compile `f`. Without, it is called from Python, for functions that cannot be compiled.
        thorough: Whether to add complex steps, the dot-product test and the other number format, at the price of one
            compilation each.
        events: Event crossings on which the result depends, as `crossing` returns them, by name. A hint says how well
            conditioned each is.
        vjp: A function's own derivative in reverse mode, from outside JAX: `vjp(args, cotangent)` returns a tuple with
            a gradient for each argument. The cotangent has the structure of the output, or is 1 for one number.
        jvp: A function's own derivative in forward mode: `jvp(args, tangents)` returns the tangent of the output.

    Raises:
        InputError: If `f` does not return one floating-point number, if `args` has nothing to differentiate or an
            integer array as an argument, and if `vjp` or `jvp` return a wrong structure or shape.

    Examples:
        >>> ds.check_gradients(lambda x: jnp.sum(jnp.sin(x)), (jnp.arange(3.0),)).ok
        True
        >>> masked = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
        >>> check = ds.check_gradients(masked, (jnp.array([0.0, 1.0]),))
        >>> check.ok, check.rows[0].verdict  # print(check) shows the evidence
        (False, 'non-finite')
        >>> cube = lambda x: float(np.sum(x**3))  # such as a function of PyTorch
        >>> wrong = lambda args, cotangent: (cotangent * 3 * args[0],)
        >>> ds.check_gradients(cube, (np.array([2.0, 3.0]),), vjp=wrong).rows[0].verdict
        'disagrees'
    """
    for mode in modes:
        if mode not in MODES:
            raise InputError(f"modes has {mode!r}: choose from {MODES}")
    options = Options(rtol, atol, tuple(modes), max_coordinates, seed, jit and not (vjp or jvp), thorough)
    remarks = tuple(f"event {name}: {event}" for name, event in (events or {}).items())
    if vjp or jvp:
        with jax.enable_x64(True):  # NumPy's numbers have 64 bits
            own = outside(f, args, vjp, jvp, seed)
            modes = tuple(mode for mode, product in zip(MODES, (vjp, jvp), strict=True) if product)
            check = collect(own.inputs, own.derivatives(), options._replace(modes=modes))
    else:
        inputs = split(f, args)
        check = collect(inputs, derivatives_by_jax(inputs, jit=jit), options, f, args)
    return replace(check, hints=check.hints + remarks)
