"""The round-trip check of classifiers accepts equal labels, and rejects different or invalid ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from groundup.evaluation.verification.classifier import agreement

_LOGITS_EC = 3 * np.random.default_rng(0).standard_normal((400, 12))


def _one(logits_EC: NDArray[np.float64]) -> NDArray[np.float64]:
    powers_EC = np.exp(logits_EC)
    return powers_EC / powers_EC.sum(-1, keepdims=True)


def _several(logits_EC: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits_EC))


@pytest.mark.parametrize("several", [False, True])
def test_equal_classifiers_pass_and_rounded_ones_pass_their_limits(several: bool) -> None:
    probabilities = _several if several else _one
    same = agreement(probabilities(_LOGITS_EC), probabilities(_LOGITS_EC + 1e-6), multi_label=several)
    assert (same.agreed, same.texts, same.problems("exact")) == (400, 400, [])
    noise_EC = 0.05 * np.random.default_rng(1).standard_normal(_LOGITS_EC.shape)
    rounded = agreement(probabilities(_LOGITS_EC), probabilities(_LOGITS_EC + noise_EC), multi_label=several)
    assert rounded.problems("bf16") == [] and rounded.max_difference < 0.1
    assert rounded.problems("exact")


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "damage", [lambda x_EC: np.roll(x_EC, 1, -1), lambda x_EC: 0.3 * x_EC, lambda x_EC: np.nan * x_EC]
)
def test_damaged_classifiers_fail(damage: Callable[[NDArray[np.float64]], NDArray[np.float64]], several: bool) -> None:
    """Permuted labels, a lost temperature, NaN weights."""
    probabilities = _several if several else _one
    found = agreement(probabilities(_LOGITS_EC), probabilities(damage(_LOGITS_EC)), multi_label=several)
    assert found.problems("bf16")


def test_a_changed_label_counts_by_its_gap() -> None:
    """At 50.1 and 49.9 %, either label may be first; at 90 and 10 % not."""
    close, clear = np.array([[0.501, 0.499]]), np.array([[0.9, 0.1]])
    swapped = agreement(close, close[:, ::-1], multi_label=False)
    assert (swapped.agreed, round(swapped.worst_gap, 3)) == (0, 0.004)
    assert agreement(clear, clear[:, ::-1], multi_label=False).worst_gap == pytest.approx(np.log(9))
