"""Scores of multi-label predictions, compared with scikit-learn, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from groundup.evaluation.classifiers.multi_label import compare_sets, macro_f1_of_sets, score_sets


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    true = generator.random((count, 4)) < [0.5, 0.3, 0.1, 0.0]
    flipped = generator.random(true.shape) < 0.15
    return true, true ^ flipped


def test_scores_equal_scikit_learn() -> None:
    true, predicted = drawn(500)
    result = score_sets(true, predicted, seed=0)
    assert result.exact.estimate == pytest.approx(accuracy_score(true, predicted))
    assert result.micro_f1.estimate == pytest.approx(f1_score(true, predicted, average="micro"))
    assert result.macro_f1.estimate == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0))
    for interval in (result.exact, result.micro_f1, result.macro_f1):
        assert 0 <= interval.low < interval.estimate < interval.high <= 1


def test_an_unused_label_is_ignored() -> None:
    true = np.array([[1, 0], [1, 0]], dtype=bool)
    assert score_sets(true, true, seed=0).macro_f1.estimate == 1


def test_one_text_has_an_infinite_interval() -> None:
    """Resampling a single text would give an interval of width zero."""
    true = np.array([[1, 0]], dtype=bool)
    macro = score_sets(true, true, seed=0).macro_f1
    assert (macro.low, macro.high) == (0, 1)


def test_empty_label_sets_score_zero() -> None:
    none = np.zeros((3, 2), dtype=bool)
    assert macro_f1_of_sets(none, none) == 0


def test_the_majority_baseline_has_the_labels_of_most_texts() -> None:
    """An uninformative baseline would make any model look good."""
    true, predicted = drawn(300)
    result = score_sets(true, predicted, seed=0)
    names = ["a", "b", "c", "d"]
    words = [" ".join(name for name, has in zip(names, row, strict=True) if has) or "none" for row in true]
    compared = compare_sets(words, true, words, true, names, result, tfidf=True, seed=0)
    assert compared.majority == "a"
    assert compared.by_majority.metrics["exact"].estimate == pytest.approx((true == [1, 0, 0, 0]).all(1).mean())
    assert compared.by_tfidf is not None and compared.by_tfidf.metrics["exact"].estimate > 0.9
    assert "worse than TF-IDF" in compared.verdict()
    assert len(compared.rows()) == 3 and len(compared.rows()[0]) == 4
