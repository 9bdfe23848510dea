"""Bootstrap confidence intervals. Documents are resampled, because tokens of a document are not independent.

Shape letters: D documents or examples, U distinct ones, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NUM_RESAMPLES = 2000
_MAX_CELLS = 4_000_000  # Of the (R, D) matrix per iteration: 32 MB.


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is significant at this level."""
        return self.low > 0 or self.high < 0

    @property
    def bounds(self) -> list[float | None]:
        """Low and high as JSON values; None for the infinite bounds of a single document."""
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
    resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic (Efron 1979).

    Args:
        estimate: the statistic on the data.
        value: maps the number of draws of each distinct document (R, U) to the statistic of each resample (R,).
        counts_U: number of documents of each kind; documents with the same effect on the statistic are best counted as
            one kind.
        level: confidence level.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The estimate and its interval, which is infinite for a single document.
    """
    counts = np.asarray(counts_U, dtype=np.int64)
    total, different = int(counts.sum()), len(counts)
    if total < 2:
        return Interval(estimate, float("-inf"), float("inf"), level)
    unit_D = np.repeat(np.arange(different), counts)
    generator = np.random.default_rng(seed)
    rows = max(1, _MAX_CELLS // total)
    values: list[Array] = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn_RD = unit_D[generator.integers(total, size=(size, total))]
        drawn_RD += different * np.arange(size)[:, None]  # An offset per row, so that one bincount counts all rows.
        counts_RU = np.bincount(drawn_RD.ravel(), minlength=size * different).reshape(size, different)
        values.append(value(counts_RU.astype(np.float64)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def ratio_interval(
    numerator_D: npt.ArrayLike,
    denominator_D: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of sum(numerator) / sum(denominator) over documents (Efron 1979).

    Args:
        numerator_D: one value per document, such as nats.
        denominator_D: one value per document, such as bytes.
        level: confidence level.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The ratio of the sums and its interval, which is infinite for a single document.
    """
    numerator = np.asarray(numerator_D, dtype=np.float64)
    denominator = np.asarray(denominator_D, dtype=np.float64)
    estimate = float(numerator.sum() / denominator.sum())
    sums_D2 = np.stack([numerator, denominator], axis=1)

    def ratio(counts_RD: Array) -> Array:
        sums_R2 = counts_RD @ sums_D2
        found: Array = sums_R2[:, 0] / sums_R2[:, 1]
        return found

    return bootstrap(estimate, ratio, np.ones(len(numerator)), level=level, resamples=resamples, seed=seed)


def paired_difference(
    a_D: npt.ArrayLike,
    b_D: npt.ArrayLike,
    denominator_D: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of sum(a - b) / sum(denominator) for two systems on the same documents.

    Pairing removes the variance between documents, so it detects differences that two separate intervals do not show.

    Args:
        a_D: one value per document of the first system.
        b_D: one value per document of the second system.
        denominator_D: one value per document, such as bytes.
        level: confidence level.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The difference and its interval.
    """
    difference_D = np.asarray(a_D, dtype=np.float64) - np.asarray(b_D, dtype=np.float64)
    return ratio_interval(difference_D, denominator_D, level=level, resamples=resamples, seed=seed)
