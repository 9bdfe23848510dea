"""Rates, remaining times and numbers are formatted correctly. Users may stop a run if these values are wrong."""

from __future__ import annotations

import time

import pytest

from groundup.core.console import format_count, format_duration
from groundup.core.console.meter import Meter


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "", "0"),
        (7, "steps", "7 steps"),
        (999, "", "999"),
        (1000, "", "1.00k"),
        (999_999, "tokens", "1.00M tokens"),  # the result must not be 1000k
        (8912.3, "tokens", "8.91k tokens"),
        (12_345, "", "12.3k"),
        (123_456, "", "123k"),
        (0.25, "steps", "0.250 steps"),
        (2.5, "steps", "2.50 steps"),
        (41_300_000, "bytes", "41.3 MB"),
        (512, "bytes", "512 B"),
        (3e14, "", "300T"),
        (float("inf"), "", "inf"),
    ],
)
def test_format_count(value: float, unit: str, expected: str) -> None:
    assert format_count(value, unit) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (124, "2:04"),
        (3599.9, "1:00:00"),
        (3723, "1:02:03"),
        (90_000, "25:00:00"),
    ],
)
def test_format_duration(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def at(meter: Meter, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the clock to a number of seconds after the start of the meter."""
    monkeypatch.setattr(time, "monotonic", lambda: meter.started + seconds)


def test_work_of_an_earlier_run_counts_as_done_but_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, a resumed run would show a rate that is too high and "0:00 left" for its first minutes."""
    meter = Meter("training", 1000, "tokens", 890)
    at(meter, monkeypatch, 0)
    meter.advance(10)
    at(meter, monkeypatch, 10)
    meter.advance(10)
    assert meter.rate == pytest.approx(1)
    assert meter.parts() == [" 91 %", "1:30 left", "1 token/s", "910 of 1.00k tokens"]


def test_remaining_time_ignores_a_slow_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step may include 30 seconds of compilation, which must not bias the estimate."""
    meter = Meter("training", 1000, "steps", 0)
    at(meter, monkeypatch, 60)
    meter.advance(1)
    for second in range(61, 121):
        at(meter, monkeypatch, second)
        meter.advance(5)
    assert meter.rate == pytest.approx(5, rel=0.05)


def test_the_first_step_gives_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step includes compilation. A run of a few minutes used to begin with "16.4 tokens/s, 3:22:14 left"."""
    meter = Meter("training", 100_000, "tokens", 0)
    at(meter, monkeypatch, 31)
    meter.advance(500)
    assert meter.parts() == ["  0 %", "500 of 100k tokens"]
    at(meter, monkeypatch, 31.5)
    meter.advance(500)
    assert meter.parts() == ["  1 %", "1:39 left", "1.00k tokens/s", "1.00k of 100k tokens"]


def test_no_estimate_before_the_first_step() -> None:
    assert Meter("reading", 100, "files", 0).parts() == ["  0 %", "starting", "0 of 100 files"]
    assert Meter("reading", None, "files", 0).parts() == ["starting", "0 files"]
    assert Meter("reading", 0, "files", 0).fraction is None


def test_sparkline_of_a_falling_loss_falls_evenly() -> None:
    """If only old values were removed from the history, the curve would be distorted."""
    meter = Meter("training", None, "steps", 0, "loss")
    assert meter.spark() == ""
    for step in range(5000):
        meter.show(loss=f"{5000 - step}", lr="0.02")
    curve = meter.spark(8)
    assert curve == "█▇▆▅▄▃▂▁"


def test_sparkline_accepts_nan() -> None:
    meter = Meter("training", None, "steps", 0, "loss")
    for value in ("3.0", "-", "nan", "inf", "2.0", "2.0"):
        meter.show(loss=value)
    assert set(meter.spark()) <= set("▁▂▃▄▅▆▇█")


def test_an_empty_value_is_removed() -> None:
    """For example, the time that a step waited for data is removed when it is no longer shown."""
    meter = Meter("pretraining", 4, "steps")
    meter.show(loss="2.5", waiting="35 %")
    meter.show(loss="2.4", waiting="")
    assert meter.fields == {"loss": "2.4"}
