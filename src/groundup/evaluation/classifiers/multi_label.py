"""Scores of a multi-label classifier, and baselines on the same split.

Shape letters: E: number of examples, C: number of labels, R: number of bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.data.labels.tfidf import Tfidf
from groundup.evaluation.classifiers.single_label import BaselineComparison, Floats, f1_over_labels
from groundup.evaluation.stats import Interval, bootstrap, ratio_interval

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SetResult:
    """Scores of predicted label sets.

    Attributes:
        correct: for each text, 1 if the predicted label set equals the true label set, otherwise 0; shape (E,).
        exact: share of texts whose predicted label set equals the true label set.
        micro_f1: F1 over all (text, label) pairs.
        macro_f1: unweighted mean F1 of the labels that occur in the true labels or the predictions.
    """

    correct: Floats
    exact: Interval
    micro_f1: Interval
    macro_f1: Interval

    @property
    def metrics(self) -> dict[str, Interval]:
        """Metrics, keyed by name, starting with the share of correctly predicted texts."""
        return {"exact": self.exact, "micro_f1": self.micro_f1, "macro_f1": self.macro_f1}

    def to_json(self) -> dict[str, Any]:
        """Return the metrics and their confidence intervals as JSON values."""
        return {name: interval.to_json() for name, interval in self.metrics.items()}


def score_sets(true_EC: Flags, predicted_EC: Flags, *, seed: int) -> SetResult:
    """Score predicted label sets. The 95 % percentile bootstrap intervals resample examples."""
    hits_EC = true_EC & predicted_EC
    right = (true_EC == predicted_EC).all(1).astype(np.float64)
    totals_E = true_EC.sum(1) + predicted_EC.sum(1)
    exact = ratio_interval(right, np.ones_like(right), seed=seed)
    micro = ratio_interval(2 * hits_EC.sum(1), totals_E, seed=seed)
    macro = _macro_interval(hits_EC, true_EC, predicted_EC, seed=seed)
    return SetResult(right, *(interval.clamped(0, 1) for interval in (exact, micro, macro)))


def macro_f1_of_sets(true_EC: Flags, predicted_EC: Flags) -> float:
    """Return the unweighted mean F1 of the labels that occur in the true labels or the predictions."""
    return float(f1_over_labels((true_EC & predicted_EC).sum(0), true_EC.sum(0), predicted_EC.sum(0)))


def _macro_interval(hits_EC: Flags, true_EC: Flags, predicted_EC: Flags, *, seed: int) -> Interval:
    columns = [each.astype(np.float64) for each in (hits_EC, true_EC, predicted_EC)]
    return bootstrap(
        macro_f1_of_sets(true_EC, predicted_EC),
        lambda counts_RE: f1_over_labels(*(counts_RE @ column for column in columns)),
        np.ones(len(true_EC)),
        seed=seed,
    )


def compare_sets(
    train_texts: Sequence[str],
    learned_EC: Flags,
    test_texts: Sequence[str],
    true_EC: Flags,
    labels: Sequence[str],
    result: SetResult,
    *,
    tfidf: bool,
    seed: int,
) -> BaselineComparison:
    """Train the baselines on the training set and score them on the test set.

    Args:
        train_texts: training texts.
        learned_EC: labels of the training texts as a Boolean matrix.
        test_texts: test texts.
        true_EC: labels of the test texts as a Boolean matrix.
        labels: name of each label, by index.
        result: scores of the classifier on the test set.
        tfidf: whether to train the TF-IDF baseline, which takes additional time.
        seed: seed of the bootstrap.

    Returns:
        The comparison.
    """
    usual_C = majority_labels(learned_EC)
    floor = score_sets(true_EC, np.broadcast_to(usual_C, true_EC.shape), seed=seed)
    predicted = predict_tfidf_sets(train_texts, learned_EC, test_texts) if tfidf else None
    by_tfidf = None if predicted is None else score_sets(true_EC, predicted, seed=seed)
    majority = ", ".join(label for label, majority_labels in zip(labels, usual_C, strict=True) if majority_labels)
    return BaselineComparison(result, majority, floor, by_tfidf, seed, "exactly their labels")


def majority_labels(learned_EC: Flags) -> Flags:
    """Return flags (C,) of the labels that at least half of the training texts have.

    If all labels are rarer, the most frequent label is flagged, or several labels that are equally frequent.
    """
    share_C = learned_EC.mean(0)
    found: Flags = share_C >= min(0.5, share_C.max())
    return found


def predict_tfidf_sets(train_texts: Sequence[str], learned_EC: Flags, test_texts: Sequence[str]) -> Flags | None:
    """Predict each label with logistic regression on TF-IDF features.

    The function returns None if the training texts have no words.
    """
    from sklearn.linear_model import LogisticRegression

    found = Tfidf.fit(train_texts)
    if found is None:
        return None
    train, test = found[1], found[0].features(test_texts)
    predicted = np.zeros((len(test_texts), learned_EC.shape[1]), dtype=bool)
    for place, has_E in enumerate(learned_EC.T):
        if has_E.all() or not has_E.any():
            predicted[:, place] = has_E.all()
        else:
            predicted[:, place] = LogisticRegression(C=10.0, max_iter=300).fit(train, has_E).predict(test)
    return predicted
