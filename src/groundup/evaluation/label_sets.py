"""How well several labels of a text are predicted, beside baselines on the same split.

Shape letters: E examples, C labels, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.data.tfidf import Tfidf
from groundup.evaluation.classification import BaselineComparison, Floats, f1_over_labels
from groundup.evaluation.stats import Interval, bootstrap, ratio_interval

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SetResult:
    """Predicted sets of labels, scored.

    Attributes:
        correct: (E,), 1 if a text has exactly the labels that were predicted.
        exact: their share.
        micro_f1: of all (text, label) pairs together.
        macro_f1: mean F1 of the labels that are true or predicted somewhere.
    """

    correct: Floats
    exact: Interval
    micro_f1: Interval
    macro_f1: Interval

    @property
    def metrics(self) -> dict[str, Interval]:
        """Name -> metric, the share of right texts first."""
        return {"exact": self.exact, "micro_f1": self.micro_f1, "macro_f1": self.macro_f1}

    def to_json(self) -> dict[str, Any]:
        """Return the metrics with their intervals."""
        return {name: interval.to_json() for name, interval in self.metrics.items()}


def score_sets(true_EC: Flags, predicted_EC: Flags, *, seed: int) -> SetResult:
    """Score predictions; intervals are percentile bootstraps over examples, at 95 %."""
    hits_EC = true_EC & predicted_EC
    right = (true_EC == predicted_EC).all(1).astype(np.float64)
    said_E = true_EC.sum(1) + predicted_EC.sum(1)
    exact = ratio_interval(right, np.ones_like(right), seed=seed)
    micro = ratio_interval(2 * hits_EC.sum(1), said_E, seed=seed)
    macro = _macro_interval(hits_EC, true_EC, predicted_EC, seed=seed)
    return SetResult(right, *(interval.clamped(0, 1) for interval in (exact, micro, macro)))


def macro_f1_of_sets(true_EC: Flags, predicted_EC: Flags) -> float:
    """Mean F1 of the labels that are true or predicted somewhere, each counting alike."""
    return float(f1_over_labels((true_EC & predicted_EC).sum(0), true_EC.sum(0), predicted_EC.sum(0)))


def _macro_interval(hits_EC: Flags, true_EC: Flags, predicted_EC: Flags, *, seed: int) -> Interval:
    columns = [each.astype(np.float64) for each in (hits_EC, true_EC, predicted_EC)]
    return bootstrap(
        macro_f1_of_sets(true_EC, predicted_EC),
        lambda often_RE: f1_over_labels(*(often_RE @ column for column in columns)),
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
        labels: the name of each label, by its index.
        result: of the classifier on the test set.
        tfidf: False leaves out the baseline that takes time.
    """
    usual_C = usual(learned_EC)
    floor = score_sets(true_EC, np.broadcast_to(usual_C, true_EC.shape), seed=seed)
    predicted = predict_tfidf_sets(train_texts, learned_EC, test_texts) if tfidf else None
    by_tfidf = None if predicted is None else score_sets(true_EC, predicted, seed=seed)
    majority = ", ".join(label for label, usual in zip(labels, usual_C, strict=True) if usual)
    return BaselineComparison(result, majority, floor, by_tfidf, seed, "exactly their labels")


def usual(learned_EC: Flags) -> Flags:
    """Which labels always the same answer has, (C,): those of half of the texts or more, else the most frequent."""
    share_C = learned_EC.mean(0)
    found: Flags = share_C >= min(0.5, share_C.max())
    return found


def predict_tfidf_sets(train_texts: Sequence[str], learned_EC: Flags, test_texts: Sequence[str]) -> Flags | None:
    """By a logistic regression for each label; None where the texts have no words to count."""
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
