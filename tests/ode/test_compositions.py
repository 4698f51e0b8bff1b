"""Random compositions of transformations of random solves: right or refused with a message, and no process ends."""

import compositions
import pytest


@pytest.mark.parametrize(
    "first", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.exhaustive)]
)
def test_some(first):
    verdicts = compositions.survey(first, first + 4)
    assert all(text.startswith(("right", "refused")) for text in verdicts.values()), verdicts
    assert len(verdicts) == 4


def test_the_cases_are_of_every_kind_and_most_are_to_be_right():
    """The random cases must cover all constructs."""
    cases = [compositions.case(seed) for seed in range(300)]
    assert {word for case in cases for word in case.words} == compositions.WORDS
    assert sum(case.may_be_refused() for case in cases) < 100
