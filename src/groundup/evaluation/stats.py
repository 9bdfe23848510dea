"""Bootstrap confidence intervals.

The bootstrap resamples documents instead of tokens, because the tokens of a document are not independent.

Shape letters: D: number of documents or examples, U: number of distinct documents, R: number of resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NUM_RESAMPLES = 2000
_NORMAL_QUANTILE = 1.959964  # 97.5 % quantile of the standard normal distribution.
_MAX_CELLS = 4_000_000  # Maximum size of the matrix (R, D) of one iteration, which takes 32 MB.


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does not contain 0, so that a difference is statistically significant at this level."""
        return self.low > 0 or self.high < 0

    @property
    def bounds(self) -> list[float | None]:
        """Lower and upper bound as JSON values. An infinite bound, which a single document has, is None."""
        return [bound if math.isfinite(bound) else None for bound in (self.low, self.high)]

    def to_json(self, key: str = "value") -> dict[str, Any]:
        """Return a dictionary with the estimate under the key `key` and the bounds under the key "interval"."""
        return {key: self.estimate, "interval": self.bounds}

    def clamped(self, low: float, high: float) -> Interval:
        """Return the interval with its bounds clamped to the range of the metric."""
        return replace(self, low=max(low, self.low), high=min(high, self.high))

    def scaled(self, factor: float) -> Interval:
        """Return the interval of the estimate multiplied by a positive factor."""
        return replace(self, estimate=factor * self.estimate, low=factor * self.low, high=factor * self.high)


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
        estimate: value of the statistic on the original data.
        value: function that maps the number of times that each distinct document is drawn (R, U) to the statistic of
            each resample (R,).
        counts_U: number of copies of each distinct document. Documents count as copies if they contribute equally to
            the statistic. Counting them together saves time.
        level: confidence level.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The estimate and its interval. The bounds are infinite if there is only one document.
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
        # Each row gets its own range of indices, so that a single bincount counts all rows.
        drawn_RD += different * np.arange(size)[:, None]
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
        numerator_D: numerators, one per document, such as the loss in nats.
        denominator_D: denominators, one per document, such as the number of bytes.
        level: confidence level.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The ratio of the sums and its interval. The bounds are infinite if there is only one document.
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
    """Return the paired bootstrap interval of sum(a - b) / sum(denominator) for two systems on the same documents.

    Pairing removes the variance between documents, so a paired interval detects smaller differences than a comparison
    of two separate intervals.

    Args:
        a_D: values of the first system, one per document.
        b_D: values of the second system, one per document.
        denominator_D: denominators, one per document, such as the number of bytes.
        level: confidence level.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The difference and its interval.
    """
    difference_D = np.asarray(a_D, dtype=np.float64) - np.asarray(b_D, dtype=np.float64)
    return ratio_interval(difference_D, denominator_D, level=level, resamples=resamples, seed=seed)


def proportion_interval(successes: float, total: int) -> Interval:
    """Return the 95 % score interval of a proportion (Wilson 1927), which is not empty if there are no successes.

    Args:
        successes: number of successes.
        total: number of trials, at least 1.
    """
    share, square = successes / total, _NORMAL_QUANTILE**2 / total
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), 0.95)


def welch_difference(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the difference of the means of two independent samples, b - a, with Welch's t interval (Welch 1947).

    The variances of the samples may differ. If no value of either sample varies, the interval has no width.

    Args:
        a: first sample, with at least 2 values.
        b: second sample, with at least 2 values.
        level: confidence level.
    """
    means, errors = (np.array([function(sample) for sample in (a, b)]) for function in (np.mean, _squared_error))
    estimate, error = float(means[1] - means[0]), float(errors.sum())
    if error == 0:
        return Interval(estimate, estimate, estimate, level)
    freedom = error**2 / float((errors**2 / np.array([len(a) - 1, len(b) - 1])).sum())
    half = t_quantile((1 + level) / 2, freedom) * math.sqrt(error)
    return Interval(estimate, estimate - half, estimate + half, level)


def mean_interval(sample: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the mean of a sample with Student's t interval.

    Args:
        sample: at least 2 values.
        level: confidence level.
    """
    estimate = float(np.mean(sample))
    half = t_quantile((1 + level) / 2, len(sample) - 1) * math.sqrt(_squared_error(sample))
    return Interval(estimate, estimate - half, estimate + half, level)


def t_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution.

    With t = sqrt(freedom) tan(x), the density is proportional to cos(x) ** (freedom - 1), which is integrated
    numerically.

    Args:
        probability: probability, from 0.5 to 1.
        freedom: degrees of freedom, at least 1.
    """
    edges = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1)
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * probability - 1, cumulative / cumulative[-1], edges)))


def _squared_error(sample: Sequence[float]) -> float:
    return float(np.var(sample, ddof=1)) / len(sample)
