"""The two ways in which a request can fail: bad input, and work that did not succeed."""


class InputError(ValueError):
    """The caller's input cannot be used; the message names it, its value and the remedy.

    Examples:
        >>> try:
        ...     ds.param(2.0, "kg", bounds=(3.0, 1.0))
        ... except ds.InputError as error:
        ...     print(error)
        bounds=(3.0, 1.0): the first must be smaller than the second
    """


class RunError(RuntimeError):
    """The input was good but the run did not succeed; the message says how far it came and what to try.

    Examples:
        >>> try:
        ...     ds.uncertainty.laplace_posterior(lambda x, _: jnp.cos(x), jnp.array(0.0))
        ... except ds.RunError as error:
        ...     print(error)
        the loss curves downwards at this model: it is no minimum; fit it first, to tight tolerances
    """
