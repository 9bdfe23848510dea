"""Whether a classifier is as often right as it says: measured, and mended by one number.

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
_LEAST = 1e-300  # of a probability, before its logarithm is taken
_MOST_TEMPERATURE = 20.0
_SPLITS = 80  # of the interval in which the best temperature lies: 0.618^80 of it is left


def with_temperature(probabilities_EC: Floats, temperature: float) -> Floats:
    """Probabilities as if the logits that they come from were divided by a temperature."""
    scaled = np.log(np.maximum(probabilities_EC, _LEAST)) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    flattened: Floats = scaled / scaled.sum(1, keepdims=True)
    return flattened


def fit_temperature(probabilities_EC: Floats, true_E: Indices) -> float:
    """The temperature by which the true labels of held-out texts become likeliest (Guo et al. 2017, arXiv:1706.04599).

    The loss is convex in 1 / temperature, so that a golden-section search finds the one minimum. Where every label is
    predicted right, none is best: the lowest one that is allowed comes back, 1 / 20.
    """

    def loss(inverse: float) -> float:
        scaled = with_temperature(probabilities_EC, 1 / inverse)
        return float(-np.log(np.maximum(scaled[np.arange(len(true_E)), true_E], _LEAST)).mean())

    low, high = 1 / _MOST_TEMPERATURE, _MOST_TEMPERATURE
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
    """How far the probability of the predicted label is from how often it is right, on average (Naeini et al. 2015).

    Predictions are put into 15 bins of equal width by their probability; each bin counts by its examples.
    """
    confidence = probabilities_EC.max(1)
    right = probabilities_EC.argmax(1) == true_E
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    count, said, was = (np.bincount(bins, weights, _BINS) for weights in (None, confidence, right.astype(np.float64)))
    return float(np.abs(said - was).sum() / count.sum())


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one temperature, fitted on other texts, did to the probabilities on the test texts.

    Attributes:
        fitted_on: texts that it was fitted on.
        before, after: expected calibration error on the test texts.
    """

    temperature: float
    fitted_on: int
    before: float
    after: float

    @classmethod
    def of(cls, probabilities_EC: Floats, true_E: Indices, temperature: float, fitted_on: int) -> Calibration:
        """
        Args:
            probabilities_EC: of the test texts, by the model with the temperature in it.
        """
        original = with_temperature(probabilities_EC, 1 / temperature)
        before, after = (expected_calibration_error(each, true_E) for each in (original, probabilities_EC))
        return cls(temperature, fitted_on, before, after)

    @property
    def sentence(self) -> str:
        """For a person."""
        if not self.fitted_on:
            return f"Probabilities are off by {self.after:.1%} on average; too few texts to fit them on others."
        return (
            f"Probabilities are off by {self.after:.1%} on average ({self.before:.1%} before a temperature of "
            f"{self.temperature:.2f}, fitted on {self.fitted_on:,} other texts, was put into the head)."
        )

    def to_json(self) -> dict[str, Any]:
        """For the artifact."""
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "expected_calibration_error": {"before": self.before, "after": self.after},
        }
