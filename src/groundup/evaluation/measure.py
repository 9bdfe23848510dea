"""A metric over examples, stored as one row of sums per example, so that the bootstrap can resample examples.

Shape letters: E examples, K sums, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from groundup.evaluation.stats import Interval, bootstrap

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One metric of one model on examples.

    Attributes:
        name: name of the metric, such as "ROUGE-L".
        sums_EK: contribution of each example.
        value: maps summed contributions (..., K) to the metric (...).
        unit: unit of the metric; "points" are 0 to 100.
        less: whether a lower value is better.
    """

    name: str
    sums_EK: Floats
    value: Callable[[Floats], Floats]
    unit: str = "points"
    lower_is_better: bool = False

    @property
    def estimate(self) -> float:
        """The metric over all examples."""
        return float(self.value(self.sums_EK.sum(0)))

    def interval(self, *, seed: int = 0) -> Interval:
        """Return the metric with its 95 % percentile bootstrap interval over examples (Efron 1979)."""
        ones = np.ones(len(self.sums_EK))
        return bootstrap(self.estimate, lambda counts_RE: self.value(counts_RE @ self.sums_EK), ones, seed=seed)

    def minus(self, other: Measure, *, seed: int = 0) -> Interval:
        """Return the difference from another model on the same examples, with a paired bootstrap interval.

        Args:
            other: the same metric of the other model.
            seed: seed of the bootstrap.

        Returns:
            The difference with its interval.
        """
        assert len(self.sums_EK) == len(other.sums_EK)

        def between(counts_RE: Floats) -> Floats:
            return self.value(counts_RE @ self.sums_EK) - other.value(counts_RE @ other.sums_EK)

        return bootstrap(self.estimate - other.estimate, between, np.ones(len(self.sums_EK)), seed=seed)


def mean(name: str, values_E: npt.ArrayLike, weights_E: npt.ArrayLike | None = None, **kept: object) -> Measure:
    """Return a metric that is a mean over examples, or a ratio of sums; `kept` are attributes of `Measure`."""
    values = np.asarray(values_E, dtype=np.float64)
    weights = np.ones_like(values) if weights_E is None else np.asarray(weights_E, dtype=np.float64)
    return Measure(name, np.stack([values, weights], 1), ratio, **kept)  # type: ignore[arg-type]


def ratio(sums_K: Floats) -> Floats:
    """Return the first sum divided by the second; 0 if the second is 0."""
    return divided(sums_K[..., 0], sums_K[..., 1])


def divided(above: Floats, below: Floats) -> Floats:
    """Return above / below; 0 where `below` is not positive."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    found: Floats = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    return found
