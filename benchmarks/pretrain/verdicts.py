"""Ratios over rounds with their bootstrap intervals, and what they say about a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value against a bar.

    Attributes:
        estimate, low, high: median over rounds and its 95 % interval.
        at_least: whether the value must reach the bar or stay below it.
    """

    estimate: float
    low: float
    high: float
    bar: float
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """ "met", "missed", or "not decided" where the interval touches the bar."""
        if self.low <= self.bar <= self.high and self.low != self.high:
            return "not decided"
        reached = self.low >= self.bar if self.at_least else self.high <= self.bar
        return "met" if reached else "missed"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "estimate": self.estimate,
            "interval_95": [self.low, self.high],
            "bar": self.bar,
            "must_be": "at least" if self.at_least else "at most",
            "verdict": self.verdict,
        }


def over_rounds(values: Sequence[float], bar: float, *, at_least: bool = True) -> Figure:
    """The median of one value a round, with a percentile bootstrap over rounds (Efron 1979).

    One round alone says nothing about its spread: its interval is infinitely wide.
    """
    data = np.asarray(values, dtype=np.float64)
    estimate = float(np.median(data))
    if len(data) < 2:
        return Figure(estimate, float("-inf"), float("inf"), bar, at_least)
    drawn = np.random.default_rng(0).integers(len(data), size=(_RESAMPLES, len(data)))
    low, high = np.quantile(np.median(data[drawn], axis=1), [0.025, 0.975])
    return Figure(estimate, float(low), float(high), bar, at_least)
