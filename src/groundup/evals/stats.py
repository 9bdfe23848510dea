"""Confidence intervals. A document is the unit that is drawn anew: its tokens are not independent of each
other.

Shape letters: D documents, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
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


def ratio_interval(
    numerator_D: npt.ArrayLike,
    denominator_D: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
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
    if len(numerator) < 2:
        return Interval(estimate, float("-inf"), float("inf"), level)
    ratios_R = _resampled_ratios(numerator, denominator, resamples, seed)
    low, high = np.quantile(ratios_R, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def paired_difference(
    a_D: npt.ArrayLike,
    b_D: npt.ArrayLike,
    denominator_D: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of sum(a - b) / sum(denominator) for two systems scored on the same documents.

    The pairing takes out how hard the documents are, so that it finds differences which two separate
    intervals would overlap on.
    """
    difference_D = np.asarray(a_D, dtype=np.float64) - np.asarray(b_D, dtype=np.float64)
    return ratio_interval(difference_D, denominator_D, level=level, resamples=resamples, seed=seed)


def _resampled_ratios(numerator: Array, denominator: Array, resamples: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    count = len(numerator)
    rows = max(1, _CELLS // count)
    ratios: list[Array] = []
    for start in range(0, resamples, rows):
        drawn_RD = generator.integers(count, size=(min(rows, resamples - start), count))
        ratios.append(numerator[drawn_RD].sum(axis=1) / denominator[drawn_RD].sum(axis=1))
    return np.concatenate(ratios)
