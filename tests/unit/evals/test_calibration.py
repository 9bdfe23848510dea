"""Probabilities that are meant: a temperature that is known is found, and the error is that of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groundup.evals.calibration import (
    Calibration,
    expected_calibration_error,
    fit_temperature,
    with_temperature,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(-1).numpy()


@pytest.mark.parametrize("overdone", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(overdone: float) -> None:
    """Labels are drawn from the honest probabilities; the model says these logits times `overdone`."""
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


def test_the_error_by_hand() -> None:
    """Two predictions of 0.9 of which one is right (off by 0.4), two of 0.6 of which both are (off by 0.4)."""
    said = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert expected_calibration_error(said, np.array([0, 1, 1, 1])) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_all_right_and_all_wrong_have_an_end() -> None:
    """The likeliest temperature would be 0, or without bound."""
    said = softmax(np.random.default_rng(0).normal(size=(50, 3)))
    assert fit_temperature(said, said.argmax(1)) == pytest.approx(1 / 20, rel=1e-3)
    assert fit_temperature(said, said.argmin(1)) == pytest.approx(20, rel=1e-3)


def test_before_is_what_the_model_said_without_it() -> None:
    generator = np.random.default_rng(1)
    said = softmax(generator.normal(size=(500, 3)) * 3)
    true = generator.integers(0, 3, 500)
    found = Calibration.of(with_temperature(said, 2.5), true, 2.5, 60)
    assert found.before == pytest.approx(expected_calibration_error(said, true))
    assert found.after < found.before
