"""Confidence intervals. A document is the unit that is drawn anew: its tokens are not independent of each
other.

Shape letters: D documents or examples, U different ones, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
RESAMPLES = 2000
_CELLS = 4_000_000  # of the (R, D) matrix made at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds between which it lies at a level of confidence."""

    estimate: float
    low: float
    high: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """For a difference: whether it is more than noise at this level."""
        return self.low > 0 or self.high < 0

    @property
    def bounds(self) -> list[float | None]:
        """Low and high as JSON values: None for an infinite bound, which a single document gives."""
        return [bound if math.isfinite(bound) else None for bound in (self.low, self.high)]

    def to_json(self, key: str = "value") -> dict[str, Any]:
        """Return the estimate under `key`, and the `interval`."""
        return {key: self.estimate, "interval": self.bounds}

    def clamped(self, low: float, high: float) -> Interval:
        """Return the interval with its bounds limited to the range of the metric."""
        return replace(self, low=max(low, self.low), high=min(high, self.high))


def bootstrap(
    estimate: float,
    value: Callable[[Array], Array],
    counts_U: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of any figure.

    Args:
        value: the figure of each resample, (R,), from how often each different document was drawn in it, (R, U).
        counts_U: how often each is there; those that a figure cannot tell apart are best counted together.

    Returns:
        The estimate and its interval. A single document gives no idea of the spread: its interval is infinitely wide.
    """
    counts = np.asarray(counts_U, dtype=np.int64)
    total, different = int(counts.sum()), len(counts)
    if total < 2:
        return Interval(estimate, float("-inf"), float("inf"), level)
    unit_D = np.repeat(np.arange(different), counts)
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // total)
    values: list[Array] = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn_RD = unit_D[generator.integers(total, size=(size, total))]
        drawn_RD += different * np.arange(size)[:, None]  # so that one count of all rows counts each
        often_RU = np.bincount(drawn_RD.ravel(), minlength=size * different).reshape(size, different)
        values.append(value(often_RU.astype(np.float64)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def ratio_interval(
    numerator_D: npt.ArrayLike,
    denominator_D: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of sum(numerator) / sum(denominator) over documents.

    Args:
        numerator_D, denominator_D: one value a document, e.g. nats and bytes.

    Returns:
        The ratio of the sums and its interval. A single one gives no idea of the spread: its interval is
        infinitely wide.
    """
    numerator = np.asarray(numerator_D, dtype=np.float64)
    denominator = np.asarray(denominator_D, dtype=np.float64)
    estimate = float(numerator.sum() / denominator.sum())
    sums_D2 = np.stack([numerator, denominator], axis=1)

    def ratio(often_RD: Array) -> Array:
        sums_R2 = often_RD @ sums_D2
        found: Array = sums_R2[:, 0] / sums_R2[:, 1]
        return found

    return bootstrap(estimate, ratio, np.ones(len(numerator)), level=level, resamples=resamples, seed=seed)


def paired_difference(
    a_D: npt.ArrayLike,
    b_D: npt.ArrayLike,
    denominator_D: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of sum(a - b) / sum(denominator) for two systems scored on the same documents.

    The pairing takes out how hard the documents are, so that it finds differences which two separate
    intervals would overlap on.
    """
    difference_D = np.asarray(a_D, dtype=np.float64) - np.asarray(b_D, dtype=np.float64)
    return ratio_interval(difference_D, denominator_D, level=level, resamples=resamples, seed=seed)
