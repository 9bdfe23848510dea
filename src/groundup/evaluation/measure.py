"""A figure about texts, kept as sums over examples, so that examples can be drawn anew for any of them alike.

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
    """One figure for one model on examples.

    Attributes:
        name: "ROUGE-L", as people call it.
        sums_EK: what each example adds.
        value: the figure, from sums (..., K) to (...); more of it is better, unless `less` says otherwise.
        unit: "points" (0 to 100) or what else it is counted in.
        less: less of it is better.
    """

    name: str
    sums_EK: Floats
    value: Callable[[Floats], Floats]
    unit: str = "points"
    less: bool = False

    @property
    def estimate(self) -> float:
        """The figure over all examples."""
        return float(self.value(self.sums_EK.sum(0)))

    def interval(self, *, seed: int = 0) -> Interval:
        """The figure with its percentile bootstrap (Efron 1979) over examples, at 95 %."""
        ones = np.ones(len(self.sums_EK))
        return bootstrap(self.estimate, lambda often_RE: self.value(often_RE @ self.sums_EK), ones, seed=seed)

    def minus(self, other: Measure, *, seed: int = 0) -> Interval:
        """This figure less that of another model on the same examples, which are drawn in pairs."""
        assert len(self.sums_EK) == len(other.sums_EK)

        def between(often_RE: Floats) -> Floats:
            return self.value(often_RE @ self.sums_EK) - other.value(often_RE @ other.sums_EK)

        return bootstrap(self.estimate - other.estimate, between, np.ones(len(self.sums_EK)), seed=seed)


def mean(name: str, values_E: npt.ArrayLike, weights_E: npt.ArrayLike | None = None, **kept: object) -> Measure:
    """A mean over examples, or a ratio of sums; for `kept` see `Measure`."""
    values = np.asarray(values_E, dtype=np.float64)
    weights = np.ones_like(values) if weights_E is None else np.asarray(weights_E, dtype=np.float64)
    return Measure(name, np.stack([values, weights], 1), ratio, **kept)  # type: ignore[arg-type]


def ratio(sums_K: Floats) -> Floats:
    """The first sum over the second; 0 where that is 0."""
    return divided(sums_K[..., 0], sums_K[..., 1])


def divided(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where nothing is below."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    found: Floats = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    return found
