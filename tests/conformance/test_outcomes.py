"""The rules by which answers are judged, with planted mistakes."""

import math

import pytest

from conformance import outcomes, references, runner, table, worker
from conformance.adapters.answers import Answer, NotExpressible, Refused
from conformance.problems import by_name

BOUNCE = by_name("one_bounce")
RIGHT = references.read()["one_bounce"]


class Planted:
    """A library that knows the references, but for what is planted."""

    def __init__(self, **planted):
        self.planted = planted

    def _say(self, name, right):
        planted = self.planted.get(name, right)
        if isinstance(planted, Exception):
            raise planted
        return planted

    def value(self, p):
        return Answer(self._say("value", RIGHT[0][0]["value"]), self._say("event_times", RIGHT[0][0]["event_times"]))

    def gradient(self, p):
        return self._say("gradient", RIGHT[0][0]["gradient"])

    def hvp(self, p, v):
        return self._say("hvp", RIGHT[0][0]["hvp"])


def verdict(**planted):
    reports = worker._single(Planted(**planted), BOUNCE, True)
    found = runner.judged(BOUNCE, reports, RIGHT)
    return {quantity: entry["outcome"] for quantity, entry in found.items()}


def scaled(name, factor):
    return [factor * x for x in RIGHT[0][0][name]]


def test_references_themselves_are_right():
    assert set(verdict().values()) == {outcomes.RIGHT}


@pytest.mark.parametrize(
    ("planted", "quantity", "outcome"),
    [
        ({"gradient": [0.0, 0.0, 0.0]}, "gradient", outcomes.SILENT),
        ({"gradient": scaled("gradient", 1.02)}, "gradient", outcomes.SILENT),
        ({"gradient": scaled("gradient", 1 + 1e-4)}, "gradient", outcomes.INACCURATE),
        ({"gradient": scaled("gradient", 1 + 9e-6)}, "gradient", outcomes.RIGHT),
        ({"hvp": scaled("hvp", 1 + 9e-5)}, "hvp", outcomes.RIGHT),
        ({"gradient": [math.nan, 0.0, 0.0]}, "gradient", outcomes.LOUD),
        ({"gradient": ValueError("no rule")}, "gradient", outcomes.LOUD),
        ({"gradient": Refused("status")}, "gradient", outcomes.LOUD),
        ({"hvp": NotExpressible("no second derivatives")}, "hvp", outcomes.MISSING),
        ({"event_times": []}, "event_times", outcomes.SILENT),
        ({"event_times": [1.0, 1.2]}, "event_times", outcomes.SILENT),
        ({"value": 2.7}, "value", outcomes.INACCURATE),
        ({"value": -2.7}, "value", outcomes.SILENT),
    ],
)
def test_planted_mistakes(planted, quantity, outcome):
    found = verdict(**planted)
    assert found.pop(quantity) == outcome
    assert set(found.values()) == {outcomes.RIGHT}


def test_a_failure_of_the_value_is_one_of_the_event_times_too():
    found = verdict(value=RuntimeError("max_steps"))
    assert found == {
        "value": outcomes.LOUD,
        "gradient": outcomes.RIGHT,
        "hvp": outcomes.RIGHT,
        "event_times": outcomes.LOUD,
    }


def test_where_a_refusal_is_right():
    graze = by_name("graze")
    accepted = references.read()["graze"][0]
    for answer in (None, [math.nan] * 3, accepted[0]["gradient"]):
        assert outcomes.judge(graze, "gradient", answer, accepted)[0] == outcomes.RIGHT
    assert outcomes.judge(graze, "gradient", [0.0, 0.0, 0.0], accepted)[0] == outcomes.SILENT


def test_either_of_two_derivatives():
    problem = by_name("saved_on_a_bounce")
    accepted = references.read()["saved_on_a_bounce"][0]
    assert len(accepted) == 2
    mean = [(a + b) / 2 for a, b in zip(accepted[0]["gradient"], accepted[1]["gradient"], strict=True)]
    judge = lambda gradient: outcomes.judge(problem, "gradient", gradient, accepted)[0]
    assert [judge(one["gradient"]) for one in accepted] == [outcomes.RIGHT] * 2
    assert judge(mean) == outcomes.SILENT


def test_the_member_that_fails_has_to_say_so():
    problem = by_name("batch_with_a_blow_up")
    right = references.read()[problem.name]
    rows = [accepted[0] if accepted else None for accepted in right]
    member = lambda row, key: None if row is None else row[key]
    for failing, outcome in ((None, outcomes.RIGHT), (-2.0, outcomes.SILENT), (math.inf, outcomes.RIGHT)):
        values = [failing if row is None else row["value"] for row in rows]
        gradients = {"answer": [member(row, "gradient") for row in rows]}
        found = runner.judged(problem, {"value": {"answer": values}, "gradient": gradients}, right)
        assert found["value"]["outcome"] == outcome
        assert found["gradient"]["outcome"] == outcomes.RIGHT
    lost = {"answer": None, "failure": "the batch failed"}
    found = runner.judged(problem, {"value": lost, "gradient": lost}, right)
    assert {entry["outcome"] for entry in found.values()} == {outcomes.LOUD}


def test_the_worst_outcome_of_a_problem_is_counted():
    words = lambda **found: {"quantities": {key: {"outcome": value} for key, value in found.items()}}
    silent = words(value=outcomes.RIGHT, gradient=outcomes.SILENT, event_times=outcomes.LOUD)
    assert table.overall(silent) == outcomes.SILENT
    assert table.overall(words(value=outcomes.RIGHT, gradient=outcomes.RIGHT, hvp=outcomes.LOUD)) == outcomes.RIGHT


def test_memory_and_times_are_measured():
    assert worker._peak() > 10
    assert worker._timed(lambda: sum(range(100000)))["seconds"] > 0
