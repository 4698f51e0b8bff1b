"""Assertions for the tests of your own simulations."""

from collections.abc import Callable, Sequence
from typing import Any

from .gradcheck.check import check_gradients
from .gradcheck.outside import JVP, VJP
from .gradcheck.procedure import MODES
from .gradcheck.table import table
from .gradcheck.verdict import place


def assert_gradients(
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
    vjp: VJP | None = None,
    jvp: JVP | None = None,
) -> None:
    """Asserts that the derivatives of `f(*args)` are those of the numbers that it computes.

    Args:
        f, args, rtol, atol, modes, max_coordinates, seed, jit, thorough, vjp, jvp: As in `check_gradients`.

    Raises:
        AssertionError: Unless the verdict on every parameter is "agrees". The message names the worst disagreement and
            lists the parameters that fail.
        InputError: As `check_gradients` does.

    Examples:
        >>> ds.testing.assert_gradients(lambda x: jnp.sum(jnp.sin(x)), (jnp.arange(3.0),))
        >>> masked = lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0)
        >>> try:
        ...     ds.testing.assert_gradients(masked, (0.0,))
        ... except AssertionError as error:
        ...     print(str(error).splitlines()[0])
        1 of 1 parameters fail; worst is args[0], off by nan of the slope
    """
    __tracebackhide__ = True  # pytest then shows the test's own line and the message alone
    options = {"max_coordinates": max_coordinates, "seed": seed, "jit": jit, "thorough": thorough}
    options |= {"vjp": vjp, "jvp": jvp}
    check = check_gradients(f, args, rtol=rtol, atol=atol, modes=modes, **options)
    if check.ok:
        return
    failing = [row for row in check.rows if row.verdict != "agrees"]
    worst = check.worst
    at = f" at {place(worst.index)}" if worst.index else ""
    raise AssertionError(
        f"{len(failing)} of {len(check.rows)} parameters fail; worst is {worst.path}{at}, off by "
        + "\n".join([f"{worst.disagreement:.1e} of the slope", table(failing), *check.hints])
    )
