"""A figure about texts, kept as sums over examples, so that examples can be drawn anew for any of them alike.

Shape letters: E examples, K sums, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from groundup.evals.stats import Interval

Floats = npt.NDArray[np.float64]
_CELLS = 4_000_000  # of the (R, E) matrix made at a time: 32 MB


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
        return _interval(self.estimate, len(self.sums_EK), lambda drawn_RE: self.value(drawn_RE @ self.sums_EK), seed)

    def minus(self, other: Measure, *, seed: int = 0) -> Interval:
        """This figure less that of another model on the same examples, which are drawn in pairs."""
        assert len(self.sums_EK) == len(other.sums_EK)

        def between(drawn_RE: Floats) -> Floats:
            return self.value(drawn_RE @ self.sums_EK) - other.value(drawn_RE @ other.sums_EK)

        return _interval(self.estimate - other.estimate, len(self.sums_EK), between, seed)


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


def _interval(
    estimate: float, examples: int, value: Callable[[Floats], Floats], seed: int, *, resamples: int = 2000
) -> Interval:
    if examples < 2:  # one alone gives no idea of the spread
        return Interval(estimate, float("-inf"), float("inf"), 0.95)
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // examples)
    even = np.full(examples, 1 / examples)
    drawn = (generator.multinomial(examples, even, min(rows, resamples - start)) for start in range(0, resamples, rows))
    values_R = np.concatenate([value(part.astype(np.float64)) for part in drawn])
    low, high = np.quantile(values_R, [0.025, 0.975])
    return Interval(estimate, float(low), float(high), 0.95)
