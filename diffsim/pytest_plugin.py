"""A plugin of pytest: the fixture `gradcheck`, which asserts that a gradient is right, and the marker of that name.

pytest loads it wherever diffsim is installed. Nothing of JAX is imported until a test asks for the fixture.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

MARKER = (
    "gradcheck(**options): checks a gradient; the options are those of diffsim.testing.assert_gradients, and hold for "
    "every use of the fixture gradcheck in the test"
)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", MARKER)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks the tests that use the fixture, so that `pytest -m gradcheck` selects them."""
    if "gradcheck" in getattr(item, "fixturenames", ()) and item.get_closest_marker("gradcheck") is None:
        item.add_marker("gradcheck")


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`gradcheck(f, args)` fails the test, with a table, unless the derivatives of `f(*args)` are right.

    Options are those of `diffsim.testing.assert_gradients`: of the call, or else of the test's marker, or else of its
    class's or module's.
    """
    from .testing import assert_gradients

    known = set(inspect.signature(assert_gradients).parameters) - {"f", "args"}
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("gradcheck"))):
        unknown = [*map(repr, marker.args), *(set(marker.kwargs) - known)]
        if unknown:
            pytest.fail(f"the marker gradcheck has no option {unknown[0]}: choose from {sorted(known)}", pytrace=False)
        options |= marker.kwargs

    def check(f: Callable[..., Any], args: tuple[Any, ...], **own: Any) -> None:
        __tracebackhide__ = True
        assert_gradients(f, args, **options | own)

    return check
