"""Comparison of measured values with targets. A value is a median over rounds and has a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A measured value and its target.

    Attributes:
        estimate: Median of the measured values over rounds.
        low: Lower bound of the 95 % interval.
        high: Upper bound of the 95 % interval.
        target: The target value.
        at_least: Whether the target is a minimum (true) or a maximum (false).
    """

    estimate: float
    low: float
    high: float
    target: float
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """The verdict "met" or "missed", or "not decided" if the interval contains the target."""
        if self.low <= self.target <= self.high and self.low != self.high:
            return "not decided"
        reached = self.low >= self.target if self.at_least else self.high <= self.target
        return "met" if reached else "missed"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "estimate": self.estimate,
            "interval_95": [self.low, self.high],
            "target": self.target,
            "must_be": "at least" if self.at_least else "at most",
            "verdict": self.verdict,
        }


def median_over_rounds(values: Sequence[float], target: float, *, at_least: bool = True) -> TargetResult:
    """Return the median over rounds, with a percentile bootstrap interval (Efron 1979).

    If there is only one round, the interval is infinite.
    """
    data = np.asarray(values, dtype=np.float64)
    estimate = float(np.median(data))
    if len(data) < 2:
        return TargetResult(estimate, float("-inf"), float("inf"), target, at_least)
    indices = np.random.default_rng(0).integers(len(data), size=(_RESAMPLES, len(data)))
    low, high = np.quantile(np.median(data[indices], axis=1), [0.025, 0.975])
    return TargetResult(estimate, float(low), float(high), target, at_least)
