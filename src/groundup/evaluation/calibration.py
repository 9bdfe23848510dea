"""Calibration of a classifier: expected calibration error, and temperature scaling.

Shape letters: E examples, C labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_BINS = 15
_MIN_PROBABILITY = 1e-300  # before its logarithm is taken
_MAX_TEMPERATURE = 20.0
_SPLITS = 80  # of the interval with the best temperature: 0.618^80 of it is left


def logarithms(probabilities: Floats) -> Floats:
    """Return natural logarithms; finite for a probability of 0."""
    found: Floats = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
    return found


def with_temperature(probabilities_EC: Floats, temperature: float) -> Floats:
    """Return the probabilities after their logits are divided by a temperature."""
    scaled = logarithms(probabilities_EC) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    flattened: Floats = scaled / scaled.sum(1, keepdims=True)
    return flattened


def fit_temperature(probabilities_EC: Floats, true_E: Indices, *, prior: int = 1) -> float:
    """Return the temperature with the lowest loss on held-out texts (Guo et al. 2017, arXiv:1706.04599).

    If all predictions are right, there is no minimum: the lower the temperature, the lower the loss. So the loss counts
    one more text, whose labels are equally probable: 1/E of it is added to each of the E texts. If all predictions are
    right with the same probability, that becomes (E + 1/C) / (E + 1): 99.2 % for 60 texts with two labels. Laplace's
    rule of succession, with one more text per label, gives 98.4 %. Among hundreds of texts with some errors, the
    added text has little weight.

    The loss is convex in 1 / temperature, so a golden-section search finds its minimum.

    Args:
        prior: number of rows of the added text: as many as each text has.
    """
    logits_EC, each = logarithms(probabilities_EC), np.arange(len(true_E))

    def loss(inverse: float) -> float:
        scaled = inverse * (logits_EC - logits_EC.max(1, keepdims=True))
        scaled -= np.log(np.exp(scaled).sum(1, keepdims=True))  # no lower limit: it would make the loss flat
        return -float(scaled[each, true_E].sum() + prior * scaled.mean())

    low, high = 1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_SPLITS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return 2 / (low + high)


def expected_calibration_error(probabilities_EC: Floats, true_E: Indices) -> float:
    """Return the mean absolute difference between confidence and accuracy in 15 bins of equal width, weighted by their
    number of examples (Naeini et al. 2015).
    """
    confidence = probabilities_EC.max(1)
    right = probabilities_EC.argmax(1) == true_E
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    count, said, was = (np.bincount(bins, weights, _BINS) for weights in (None, confidence, right.astype(np.float64)))
    return float(np.abs(said - was).sum() / count.sum())


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration error on the test texts, before and after temperature scaling.

    Attributes:
        fitted_on: number of texts that the temperature was fitted on.
        before, after: expected calibration error on the test texts.
    """

    temperature: float
    fitted_on: int
    before: float
    after: float

    @classmethod
    def of(cls, probabilities_EC: Floats, true_E: Indices, temperature: float, fitted_on: int) -> Calibration:
        """Measure the calibration error.

        Args:
            probabilities_EC: of the test texts, after temperature scaling.
        """
        original = with_temperature(probabilities_EC, 1 / temperature)
        before, after = (expected_calibration_error(each, true_E) for each in (original, probabilities_EC))
        return cls(temperature, fitted_on, before, after)

    @property
    def sentence(self) -> str:
        """The calibration error, as a sentence for the user."""
        if not self.fitted_on:
            return f"Probabilities are off by {self.after:.1%} on average; too few texts to fit them on others."
        return (
            f"Probabilities are off by {self.after:.1%} on average ({self.before:.1%} before a temperature of "
            f"{self.temperature:.2f}, fitted on {self.fitted_on:,} other texts, was put into the head)."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the facts for the artifact."""
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "expected_calibration_error": {"before": self.before, "after": self.after},
        }
