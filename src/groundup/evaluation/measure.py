"""A metric that is computed from per-example statistics, so that the bootstrap can resample examples.

Each example contributes K statistics, such as its number of matches and its number of words. The metric is a function
of the statistics summed over examples.

Shape letters: E: number of examples, K: number of statistics per example, R: number of bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from groundup.evaluation.stats import Interval, bootstrap, proportion_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One metric of one model on examples.

    Attributes:
        name: name of the metric, such as "ROUGE-L".
        sums_EK: the K statistics of each example.
        value: function from summed statistics (..., K) to values of the metric (...).
        unit: unit of the metric; "points" is a scale from 0 to 100.
        lower_is_better: whether a lower value is better.
    """

    name: str
    sums_EK: Floats
    value: Callable[[Floats], Floats]
    unit: str = "points"
    lower_is_better: bool = False

    @property
    def estimate(self) -> float:
        """Value of the metric over all examples."""
        return float(self.value(self.sums_EK.sum(0)))

    def interval(self, *, seed: int = 0) -> Interval:
        """Return the metric with its 95 % percentile bootstrap interval, which resamples examples (Efron 1979).

        If all examples have 0 points, or all have 100, the bootstrap interval would have no width. In this case, it is
        the score interval of a proportion (Wilson 1927).
        """
        points = self.sums_EK[:, 0]
        is_share = self.unit == "points" and self.value is ratio and bool((self.sums_EK[:, 1] == 1).all())
        if is_share and points[0] in (0, 100) and (points == points[0]).all():
            return proportion_interval(points.sum() / 100, len(points)).scaled(100)
        ones = np.ones(len(self.sums_EK))
        return bootstrap(self.estimate, lambda counts_RE: self.value(counts_RE @ self.sums_EK), ones, seed=seed)

    def of(self, chosen_E: npt.NDArray[np.bool_]) -> Measure:
        """Return the metric over a part of the examples.

        Args:
            chosen_E: whether each example belongs to the part.
        """
        return replace(self, sums_EK=self.sums_EK[chosen_E])

    def per_example(self) -> Floats:
        """Return the value of the metric on each example alone, (E,)."""
        return self.value(self.sums_EK)

    def minus(self, other: Measure, *, seed: int = 0) -> Interval:
        """Return this metric minus the same metric of another model on the same examples.

        Args:
            other: metric of the other model.
            seed: seed of the bootstrap.

        Returns:
            The difference with its paired bootstrap interval.
        """
        assert len(self.sums_EK) == len(other.sums_EK)

        def between(counts_RE: Floats) -> Floats:
            return self.value(counts_RE @ self.sums_EK) - other.value(counts_RE @ other.sums_EK)

        return bootstrap(self.estimate - other.estimate, between, np.ones(len(self.sums_EK)), seed=seed)


def mean(name: str, values_E: npt.ArrayLike, weights_E: npt.ArrayLike | None = None, **kept: object) -> Measure:
    """Return a metric that is a weighted mean over examples.

    Args:
        name: name of the metric.
        values_E: value of each example, multiplied by its weight.
        weights_E: weight of each example; default: 1.
        **kept: other attributes of `Measure`.

    Returns:
        The metric: the sum of the values divided by the sum of the weights.
    """
    values = np.asarray(values_E, dtype=np.float64)
    weights = np.ones_like(values) if weights_E is None else np.asarray(weights_E, dtype=np.float64)
    return Measure(name, np.stack([values, weights], 1), ratio, **kept)  # type: ignore[arg-type]


def ratio(sums_K: Floats) -> Floats:
    """Return the first statistic divided by the second statistic, or 0 if the second statistic is 0."""
    return divided(sums_K[..., 0], sums_K[..., 1])


def divided(above: Floats, below: Floats) -> Floats:
    """Return above / below for each element, or 0 for elements of `below` that are not positive."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    found: Floats = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    return found
