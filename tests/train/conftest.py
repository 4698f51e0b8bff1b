"""What several tests of training share."""

import pytest


class _Stop(Exception): ...


@pytest.fixture(scope="session")
def interrupted():
    """A function that runs a fit and interrupts it after a step, before that is saved."""

    def run(fit, *args, step, **options):
        def callback(progress):
            if progress.step >= step:
                raise _Stop

        with pytest.raises(_Stop):
            fit(*args, callback=callback, **options)

    return run
