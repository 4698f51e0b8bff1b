"""The adapters of other libraries, each where its library is installed, and the loop that they share."""

import importlib.util

import numpy as np
import pytest

from conformance import outcomes, references, runner, table, worker
from conformance.adapters import LIBRARIES, segments
from conformance.problems import PROBLEMS, by_name

REFERENCES = references.read()
RESULTS = runner.read()


def verdict(library, name):
    """The outcomes of a problem, Hessian-vector product included."""
    problem = by_name(name)
    found = runner.judged(problem, worker.answers(library, problem)["reports"], REFERENCES[name])
    return {quantity: entry["outcome"] for quantity, entry in found.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("torchode", "jump_at_trained_time"),
        ("torchode", "many_doses"),
        ("torchode", "single_decay"),
        ("torchdiffeq", "trained_threshold"),
        ("casadi", "woken_by_a_clock"),
        ("casadi", "one_bounce"),
        pytest.param("jaxonomy", "one_bounce", marks=pytest.mark.slow),
        pytest.param("jaxonomy", "jump_at_trained_time", marks=pytest.mark.slow),
        pytest.param("diffrax", "three_trained_jumps", marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients_of_other_libraries_are_right(library, name):
    pytest.importorskip(library)
    found = verdict(library, name)
    del found["hvp"]
    assert set(found.values()) == {outcomes.RIGHT}


@pytest.mark.parametrize(
    ("library", "name"),
    [("torchode", "one_bounce"), ("torchode", "stiff_reactions"), ("jaxonomy", "single_bounces")],
)
def test_what_a_library_cannot_state_is_not_counted_as_wrong(library, name):
    pytest.importorskip(library)
    assert set(verdict(library, name).values()) == {outcomes.MISSING}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_was_asked_every_quantity(library):
    """A problem may be left out as long as a library has not been given its time; a part of one may not."""
    asked = RESULTS[library]["problems"]
    assert len(asked) >= len(PROBLEMS) - 1
    for name, entry in asked.items():
        quantities = {"value", "gradient"} if by_name(name).batch else {"value", "gradient", "hvp"}
        assert quantities <= set(entry["quantities"]), name


def test_each_library_has_an_adapter_and_a_column():
    assert table.ordered(RESULTS) == list(LIBRARIES)
    for library in LIBRARIES:
        assert importlib.util.find_spec(f"conformance.adapters.{library}_adapter")


def test_times_that_a_parameter_changes_are_not_fixed():
    fixed = {problem.name for problem in PROBLEMS if segments.all_times_fixed(problem)}
    assert fixed == {"jump_at_fixed_time", "dose_at_the_start", "saved_on_jumps"}


def test_the_schedule_of_known_times():
    """The times are those of the closed form, and a second reading repeats the numbers of the first."""
    problem = by_name("pulse_width")
    reader = segments.Reader()
    times = [time for time, _ in segments.schedule(problem, problem.parameters, np, reader)]
    assert times == pytest.approx(REFERENCES["pulse_width"][0][0]["event_times"])
    again = segments.schedule(problem, problem.parameters, np, reader.again())
    assert [time for time, _ in again] == times
