"""How a fit ended."""

import enum


class FitStatus(enum.IntEnum):
    """How a fit ended. Up to AT_BOUND it is a minimum within the solver's tolerances.

    Attributes:
        CONVERGED: The solver's tolerances are met, within the bounds.
        AT_BOUND: They are met with a parameter on its bound, beyond which the loss would fall further.
        STEP_LIMIT: The steps were used up before the tolerances were met.
        NON_FINITE: The loss at the start, or after a step, is not finite.
        NO_PROGRESS: No step lowered the loss.

    Examples:
        >>> x, history = ds.minimize(lambda x, _: jnp.cosh(x), jnp.array(1.0))
        >>> status = ds.optimize.FitStatus[history.status.upper()]
        >>> print(status.name, "-", status.explanation)
        CONVERGED - converged to the solver's tolerances, within the bounds
    """

    CONVERGED = 0
    AT_BOUND = 1
    STEP_LIMIT = 2
    NON_FINITE = 3
    NO_PROGRESS = 4

    @property
    def explanation(self) -> str:
        """What the status means and what to do about it."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = (
    "converged to the solver's tolerances, within the bounds",
    "converged, with a parameter on its bound, beyond which the loss would fall further",
    "step limit: the solver did not reach its tolerances; raise steps, or scale the residuals",
    "non-finite: the loss of the starting model, or of a step that the solver took, is not finite; start elsewhere",
    "no progress: no step lowered the loss; the start is a minimum, or the derivatives there are wrong",
)
