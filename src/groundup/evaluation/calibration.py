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


def logarithms(probabilities: Floats) -> Floats:
    """Natural logarithms; of a probability of 0, a finite one."""
    found: Floats = np.log(np.maximum(probabilities, _LEAST))
    return found


def with_temperature(probabilities_EC: Floats, temperature: float) -> Floats:
    """Probabilities as if the logits that they come from were divided by a temperature."""
    scaled = logarithms(probabilities_EC) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    flattened: Floats = scaled / scaled.sum(1, keepdims=True)
    return flattened


def fit_temperature(probabilities_EC: Floats, true_E: Indices, *, prior: int = 1) -> float:
    """The temperature by which the true labels of held-out texts become likeliest (Guo et al. 2017, arXiv:1706.04599).

    Where all of them are predicted right, none is best: the lower it is, the likelier they get, until all answers are
    certain. So one text more is counted, of which any label may be true: 1/E of it stands beside each of the E texts.
    Where all are right and alike sure, they become (E + 1/C) / (E + 1) likely: of 60 texts with two labels 99.2 %,
    where Laplace's rule of succession, with one text more for each label, says 98.4 %. Among hundreds of texts of
    which some are wrong, it is of little weight.

    The loss is convex in 1 / temperature, so that a golden-section search finds the one minimum.

    Args:
        prior: rows of the one text more: as many as each text has.
    """
    logits_EC, each = logarithms(probabilities_EC), np.arange(len(true_E))

    def loss(inverse: float) -> float:
        scaled = inverse * (logits_EC - logits_EC.max(1, keepdims=True))
        scaled -= np.log(np.exp(scaled).sum(1, keepdims=True))  # no floor here: it would make the loss flat
        return -float(scaled[each, true_E].sum() + prior * scaled.mean())

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
