"""The two ways in which a request can fail, told apart so that a command line can answer each."""


class InputError(ValueError):
    """The caller's input cannot be used; the message names it, its value and the remedy."""


class WorkFailed(RuntimeError):
    """The input was good but the work did not succeed; the message says how far it came and what to try."""
