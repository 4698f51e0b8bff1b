"""The two ways in which a request can fail: bad input, and work that did not succeed."""


class InputError(ValueError):
    """The caller's input cannot be used; the message names it, its value and the remedy."""


class RunError(RuntimeError):
    """The input was good but the run did not succeed; the message says how far it came and what to try."""
