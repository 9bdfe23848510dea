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

_NUM_BINS = 15
_MIN_PROBABILITY = 1e-300  # Lower bound before the logarithm.
_MAX_TEMPERATURE = 20.0
_NUM_ITERATIONS = 80  # Iterations of the golden-section search; each keeps 0.618 of the interval.


def safe_log(probabilities: Floats) -> Floats:
    """Return natural logarithms; finite for a probability of 0."""
    found: Floats = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
    return found


def with_temperature(probabilities_EC: Floats, temperature: float) -> Floats:
    """Return the probabilities after division of their logits by a temperature."""
    scaled = safe_log(probabilities_EC) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    flattened: Floats = scaled / scaled.sum(1, keepdims=True)
    return flattened


def fit_temperature(probabilities_EC: Floats, true_E: Indices, *, prior: int = 1) -> float:
    """Return the temperature with the lowest loss on held-out texts (Guo et al. 2017, arXiv:1706.04599).

    If all predictions are correct, the loss has no minimum: it falls with the temperature. The loss therefore includes
    one additional text with equally probable labels; each of the E texts gets 1/E of it. If all predictions are correct
    with the same probability, that probability becomes (E + 1/C) / (E + 1): 99.2 % for 60 texts with two labels.
    Laplace's rule of succession, which adds one text per label, gives 98.4 %. Among hundreds of texts with some errors,
    the added text has little weight.

    The loss is convex in 1 / temperature, so a golden-section search finds its minimum.

    Args:
        probabilities_EC: predicted probabilities of held-out texts.
        true_E: index of the true label of each text.
        prior: number of rows of the additional text, equal to the number of rows per text.

    Returns:
        The temperature.
    """
    logits_EC, each = safe_log(probabilities_EC), np.arange(len(true_E))

    def loss(inverse: float) -> float:
        scaled = inverse * (logits_EC - logits_EC.max(1, keepdims=True))
        scaled -= np.log(np.exp(scaled).sum(1, keepdims=True))  # No lower bound, which would make the loss flat.
        return -float(scaled[each, true_E].sum() + prior * scaled.mean())

    low, high = 1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_NUM_ITERATIONS):
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
    """Return the expected calibration error with 15 bins of equal width (Naeini et al. 2015).

    It is the mean absolute difference between confidence and accuracy, weighted by the number of examples per bin.
    """
    confidence = probabilities_EC.max(1)
    right = probabilities_EC.argmax(1) == true_E
    bins = np.minimum((confidence * _NUM_BINS).astype(np.int64), _NUM_BINS - 1)
    count, said, was = (
        np.bincount(bins, weights, _NUM_BINS) for weights in (None, confidence, right.astype(np.float64))
    )
    return float(np.abs(said - was).sum() / count.sum())


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration error on the test texts, before and after temperature scaling.

    Attributes:
        temperature: the fitted temperature.
        fitted_on: number of texts that the temperature was fitted on.
        before: expected calibration error on the test texts before temperature scaling.
        after: expected calibration error on the test texts after temperature scaling.
    """

    temperature: float
    fitted_on: int
    before: float
    after: float

    @classmethod
    def of(cls, probabilities_EC: Floats, true_E: Indices, temperature: float, fitted_on: int) -> Calibration:
        """Measure the calibration error.

        Args:
            probabilities_EC: probabilities of the test texts after temperature scaling.
            true_E: index of the true label of each text.
            temperature: the fitted temperature.
            fitted_on: number of texts that the temperature was fitted on.

        Returns:
            The calibration error before and after scaling.
        """
        original = with_temperature(probabilities_EC, 1 / temperature)
        before, after = (expected_calibration_error(each, true_E) for each in (original, probabilities_EC))
        return cls(temperature, fitted_on, before, after)

    @property
    def sentence(self) -> str:
        """The calibration error in one sentence."""
        if not self.fitted_on:
            return f"Expected calibration error: {self.after:.1%}; too few texts to fit a temperature."
        return (
            f"Expected calibration error: {self.after:.1%} ({self.before:.1%} before temperature scaling by "
            f"{self.temperature:.2f}, fitted on {self.fitted_on:,} validation texts)."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the calibration error for the artifact."""
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "expected_calibration_error": {"before": self.before, "after": self.after},
        }
