"""Calibration of a classifier: expected calibration error, and temperature scaling.

Shape letters: E: number of examples, C: number of labels.
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
_MIN_PROBABILITY = 1e-300  # Smaller probabilities are replaced by this value before the logarithm is taken.
_MAX_TEMPERATURE = 20.0
_NUM_ITERATIONS = 80  # Iterations of the golden-section search; each one shrinks the interval to 0.618 of its length.


def safe_log(probabilities: Floats) -> Floats:
    """Return the natural logarithms of probabilities, which are finite even for a probability of 0."""
    found: Floats = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
    return found


def with_temperature(probabilities_EC: Floats, temperature: float) -> Floats:
    """Divide the logits of the probabilities by a temperature and return the new probabilities."""
    scaled = safe_log(probabilities_EC) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    flattened: Floats = scaled / scaled.sum(1, keepdims=True)
    return flattened


def fit_temperature(probabilities_EC: Floats, true_E: Indices, *, prior: int = 1) -> float:
    """Return the temperature with the lowest loss on held-out texts (Guo et al. 2017, arXiv:1706.04599).

    If all predictions are correct, the loss has no minimum, because it keeps decreasing as the temperature decreases.
    Therefore, one pseudo-text with equally probable labels is added. The loss on the pseudo-text is computed from the
    mean log-probabilities of the E texts. If all predictions are correct with the same probability, temperature scaling
    changes this probability to (E + 1/C) / (E + 1), which is 99.2 % for 60 texts with two labels. Laplace's rule of
    succession, which adds one text per label, gives 98.4 %. If there are hundreds of texts with some errors, the
    pseudo-text has little effect.

    The loss is convex in 1 / temperature, so a golden-section search finds its minimum.

    Args:
        probabilities_EC: predicted probabilities of held-out texts.
        true_E: index of the true label of each text.
        prior: weight of the pseudo-text, in rows of `probabilities_EC`. Give the number of rows that one text has.

    Returns:
        The temperature.
    """
    logits_EC, each = safe_log(probabilities_EC), np.arange(len(true_E))

    def loss(inverse: float) -> float:
        scaled = inverse * (logits_EC - logits_EC.max(1, keepdims=True))
        # The log-probabilities are not clamped, because the loss would become constant at the lower bound.
        scaled -= np.log(np.exp(scaled).sum(1, keepdims=True))
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

    The error is the absolute difference between mean confidence and accuracy in each bin, averaged over bins and
    weighted by the number of examples in each bin.
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
        fitted_on: number of texts to which the temperature was fitted.
        before: expected calibration error on the test texts before temperature scaling.
        after: expected calibration error on the test texts after temperature scaling.
    """

    temperature: float
    fitted_on: int
    before: float
    after: float

    @classmethod
    def of(cls, probabilities_EC: Floats, true_E: Indices, temperature: float, fitted_on: int) -> Calibration:
        """Measure the calibration error on test texts before and after temperature scaling.

        Args:
            probabilities_EC: probabilities of the test texts after temperature scaling.
            true_E: index of the true label of each text.
            temperature: the fitted temperature.
            fitted_on: number of texts to which the temperature was fitted.

        Returns:
            The calibration error before and after scaling.
        """
        original = with_temperature(probabilities_EC, 1 / temperature)
        before, after = (expected_calibration_error(each, true_E) for each in (original, probabilities_EC))
        return cls(temperature, fitted_on, before, after)

    @property
    def sentence(self) -> str:
        """Sentence that reports the calibration error."""
        if not self.fitted_on:
            return f"Expected calibration error: {self.after:.1%}; too few texts to fit a temperature."
        return (
            f"Expected calibration error: {self.after:.1%} ({self.before:.1%} before temperature scaling by "
            f"{self.temperature:.2f}, fitted on {self.fitted_on:,} validation texts)."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the temperature and the calibration error as JSON values for the artifact."""
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "expected_calibration_error": {"before": self.before, "after": self.after},
        }
