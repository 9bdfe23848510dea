"""Comparisons: verdict, intervals, and the JSON format."""

from __future__ import annotations

import json

import numpy as np
import pytest

from groundup.evaluation.comparisons.examples import Comparison, ComparisonReport
from groundup.evaluation.measure import mean
from groundup.evaluation.stats import Interval, paired_difference

RANDOM = np.random.default_rng(0)
HARDNESS = RANDOM.uniform(0, 50, 200)


@pytest.mark.parametrize(("lower_is_better", "verdict"), [(False, "better"), (True, "worse")])
def test_the_verdict_follows_the_direction_of_the_metric(lower_is_better: bool, verdict: str) -> None:
    """The gain of 1 is a fiftieth of the spread of the examples and shows only in a paired comparison."""
    old, new = (mean("x", HARDNESS + gain, lower_is_better=lower_is_better) for gain in (0, 1))
    found = Comparison(old, new)
    assert found.verdict == verdict
    assert found.difference.estimate == pytest.approx(1)
    assert Comparison(old, old).verdict == "not distinguishable"
    assert Comparison(old, old).difference.bounds == [0, 0]


def test_the_interval_of_a_difference_is_paired() -> None:
    noise = RANDOM.normal(0, 3, 200)
    found = Comparison(mean("x", HARDNESS), mean("x", HARDNESS + noise), seed=4).difference
    known = paired_difference(HARDNESS + noise, HARDNESS, np.ones(200), seed=4)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_one_example_gives_null_bounds_in_json() -> None:
    """`Infinity` is not valid JSON outside of Python."""
    one = Comparison(mean("x", [1.0]), mean("x", [2.0]), about="general", baselines={"guessing": mean("x", [0.0])})
    report = ComparisonReport([one], ["a note"]) | ComparisonReport([], ["another"])
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert found["lines"][0]["difference"] == {"value": 1.0, "interval": [None, None]}
    assert found["lines"][0]["baselines"]["guessing"]["verdict"] == "not distinguishable"
    assert found["notes"] == ["a note", "another"]
    assert one.row()[3] == "+1.0 [?, ?]"
    assert found["summary"] == "In general, x 1.0 before, 2.0 after (not distinguishable)."


def test_the_json_keys() -> None:
    found = Comparison(mean("x", HARDNESS), mean("x", HARDNESS))
    expected = "about name what unit less_is_better before after difference verdict baselines"
    assert list(found.to_json()) == expected.split()
    assert list(found.facts()) == ["after", "before", "difference", "difference_interval", "verdict"]
    assert Interval(0.5, -1, 2, 0.95).clamped(0, 1).to_json("accuracy") == {"accuracy": 0.5, "interval": [0, 1]}
