"""Temperature scaling recovers a known temperature, and the calibration error follows its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groundup.evaluation.classifiers.calibration import (
    Calibration,
    expected_calibration_error,
    fit_temperature,
    with_temperature,
)
from groundup.evaluation.classifiers.evaluation import label_evaluator


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(-1).numpy()


@pytest.mark.parametrize("overdone", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(overdone: float) -> None:
    """Labels are drawn from the true probabilities; the model's logits are multiplied by `overdone`."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 4)) * 2
    honest = softmax(logits)
    true = (honest.cumsum(1) < generator.random((len(honest), 1))).sum(1)
    said = softmax(logits * overdone)
    temperature = fit_temperature(said, true)
    assert temperature == pytest.approx(overdone, rel=0.05)
    mended = with_temperature(said, temperature)
    assert np.allclose(mended, softmax(logits * overdone / temperature), atol=1e-9)
    assert expected_calibration_error(mended, true) < 0.02
    assert (mended.argmax(1) == said.argmax(1)).all()
    if overdone != 1.0:
        assert expected_calibration_error(said, true) > 0.05


def test_expected_calibration_error_of_four_predictions() -> None:
    """Two predictions of 0.9, one of them correct (off by 0.4), and two of 0.6, both correct (off by 0.4)."""
    said = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert expected_calibration_error(said, np.array([0, 1, 1, 1])) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_the_temperature_is_bounded_if_all_predictions_are_wrong() -> None:
    """The best temperature would be unbounded."""
    said = softmax(np.random.default_rng(0).normal(size=(50, 3)))
    assert fit_temperature(said, said.argmin(1)) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize(("count", "labels", "sure"), [(60, 2, 0.9), (60, 5, 0.9), (20, 2, 0.6), (60, 2, 1 - 1e-15)])
def test_confidence_is_limited_by_the_number_of_texts(count: int, labels: int, sure: float) -> None:
    """60 correct predictions of 60 do not justify a probability of 1.000 for the next."""
    said = np.full((count, labels), (1 - sure) / (labels - 1))
    true = np.arange(count) % labels
    said[np.arange(count), true] = sure
    fitted = with_temperature(said, fit_temperature(said, true))
    assert fitted.max(1) == pytest.approx((count + 1 / labels) / (count + 1), abs=1e-6)
    assert fitted.max() < (count + 0.6) / (count + 1) < 0.994


def test_the_added_text_has_little_weight_among_hundreds() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(400, 4)) * 2
    honest = softmax(logits)
    true = (honest.cumsum(1) < generator.random((len(honest), 1))).sum(1)
    said = softmax(3 * logits)
    ours, likeliest = fit_temperature(said, true), fit_temperature(said, true, prior=0)
    assert likeliest < ours < 1.02 * likeliest


def test_multi_label_confidence_is_limited_by_the_number_of_texts() -> None:
    """The labels of one text are not independent: five labels are not five texts."""
    evaluator = label_evaluator(True, list("abcde"), seed=0)
    targets = np.random.default_rng(0).integers(0, 2, size=(60, 5))
    said = np.where(targets > 0, 0.9, 0.1)
    fitted = 1 / (1 + (1 / 9) ** (1 / evaluator.temperature(said, targets.tolist())))
    assert fitted == pytest.approx(60.5 / 61, abs=1e-6)


def test_the_error_before_scaling_uses_the_original_probabilities() -> None:
    generator = np.random.default_rng(1)
    said = softmax(generator.normal(size=(500, 3)) * 3)
    true = generator.integers(0, 3, 500)
    found = Calibration.of(with_temperature(said, 2.5), true, 2.5, 60)
    assert found.before == pytest.approx(expected_calibration_error(said, true))
    assert found.after < found.before
