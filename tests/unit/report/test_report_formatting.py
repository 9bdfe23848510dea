"""Formatting of numbers, smoothing of curves, and axis ticks."""

from __future__ import annotations

import itertools

import pytest

from groundup.core.facts import Estimate
from groundup.report.charts.lines import ticks
from groundup.report.curves import smooth, thin
from groundup.report.formatting import approximate, duration, interval, join_names, percent, percent_interval


@pytest.mark.parametrize(
    ("share", "digits", "words"),
    [(0.875, 1, "87.5 %"), (1.0, 1, "100.0 %"), (0.99996, 1, "> 99.9 %"), (0.0001, 0, "< 1 %"), (0.0, 0, "0 %")],
)
def test_percentages_are_not_rounded_to_0_or_100(share: float, digits: int, words: str) -> None:
    """An accuracy of 9,999 of 10,000 is not 100 %."""
    assert percent(share, digits) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0.4 seconds"),
        (59.6, "1 minute"),
        (61, "1 minute 1 second"),
        (428, "7 minutes 8 seconds"),
        (7_260, "2 hours 1 minute"),
        (7_205, "2 hours"),
        (273_600, "3 days 4 hours"),
    ],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (950, "950"),
        (4_105_920, "4.1 million"),
        (999_999, "1 million"),
        (134_500_000, "134 million"),
        (2.04e9, "2 billion"),
    ],
)
def test_large_counts(value: float, words: str) -> None:
    assert approximate(value) == words


def test_intervals_and_lists() -> None:
    assert interval(Estimate(1.7467, 1.6948, 1.7952)) == "1.747 (1.695–1.795)"
    assert interval(Estimate(-0.609, -0.661, -0.557)) == "−0.609 (−0.661 to −0.557)"
    assert interval(Estimate(2.0)) == "2.000"
    assert percent_interval(Estimate(0.9125, 0.885, 0.9375)) == "91.2 % (88.5–93.8)"
    assert join_names(["a"]) == "a"
    assert join_names(["a", "b", "c"]) == "a, b and c"
    assert join_names([*"abcdefghi"], max_names=3) == "a, b, c and 6 more"


@pytest.mark.parametrize(
    ("low", "high"), [(3.9, 8.9), (0.0, 1.0), (0.0, 8_896_512.0), (2.0, 2.0), (-3.0, 4.0), (1e-9, 3e-9)]
)
def test_ticks_are_round_numbers(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert 1 <= len(found) <= 8
    assert found == sorted(set(found))
    assert max(found) <= high + 1e-12
    steps = {round(b - a, 10) for a, b in itertools.pairwise(found)}
    assert len(steps) <= 1 or high < 1e-6


def test_smoothing_keeps_a_constant() -> None:
    flat = [(float(x), 3.0) for x in range(200)]
    assert [y for _, y in smooth(flat)] == pytest.approx([3.0] * 200)
    noisy = [(float(x), 3.0 + (-1) ** x) for x in range(400)]
    assert all(abs(y - 3.0) < 0.12 for _, y in smooth(noisy)[100:])


def test_thinning_keeps_the_mean_and_the_last_point() -> None:
    points = [(float(x), float(x % 10)) for x in range(10_001)]
    thinned = thin(points)
    assert len(thinned) <= 501
    assert thinned[-1] == points[-1]
    assert sum(y for _, y in thinned) / len(thinned) == pytest.approx(4.5, abs=0.1)
    assert thin(points[:300]) == points[:300]
