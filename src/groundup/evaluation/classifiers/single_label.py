"""Scores of a single-label classifier: accuracy, macro-F1, confusion matrix, and baselines on the same split.

Shape letters: E: number of examples, C: number of labels, K: number of nonzero cells in the confusion matrix,
R: number of bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from groundup.data.labels.reading import Labeled
from groundup.data.labels.tfidf import Tfidf
from groundup.evaluation.comparisons.examples import Comparison
from groundup.evaluation.measure import mean
from groundup.evaluation.stats import Interval, bootstrap, ratio_interval

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SingleLabelResult:
    """Scores of predictions on a test set.

    Attributes:
        correct: for each example, 1 if the prediction is correct, otherwise 0; shape (E,).
        confusion: confusion matrix of shape (C, C). Rows are true labels and columns are predicted labels.
        accuracy: share of correct predictions.
        macro_f1: unweighted mean of the F1 scores of the labels.
    """

    correct: Floats
    confusion: Indices
    accuracy: Interval
    macro_f1: Interval

    @property
    def metrics(self) -> dict[str, Interval]:
        """Metrics, keyed by name, starting with the share of correctly predicted texts."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1}

    def to_json(self) -> dict[str, Any]:
        """Return the metrics and their confidence intervals as JSON values."""
        return {name: interval.to_json() for name, interval in self.metrics.items()}


def score(
    true_E: Sequence[int] | Indices, predicted_E: Sequence[int] | Indices, n_labels: int, *, seed: int
) -> SingleLabelResult:
    """Score predicted labels. The 95 % percentile bootstrap intervals resample examples."""
    true, predicted = np.asarray(true_E), np.asarray(predicted_E)
    confusion = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    correct = (true == predicted).astype(np.float64)
    accuracy = ratio_interval(correct, np.ones_like(correct), seed=seed).clamped(0, 1)
    return SingleLabelResult(correct, confusion, accuracy, _macro_f1_interval(confusion, seed=seed).clamped(0, 1))


def macro_f1(confusion_CC: Indices) -> float:
    """Return the unweighted mean F1 of the labels that occur in the true labels or the predictions."""
    return float(f1_over_labels(np.diag(confusion_CC), confusion_CC.sum(1), confusion_CC.sum(0)))


def f1_over_labels(hits: Indices | Floats, true: Indices | Floats, predicted: Indices | Floats) -> Floats:
    """Return the mean F1 of the labels that occur in the true labels or the predictions.

    Args:
        hits: number of true positives of each label, (..., C).
        true: number of examples with each label, (..., C).
        predicted: number of predictions of each label, (..., C).

    Returns:
        The mean F1, or 0 if none of the labels occurs, (...).
    """
    occurs = true + predicted
    f1 = np.divide(2 * hits, occurs, out=np.zeros(occurs.shape), where=occurs > 0)
    mean: Floats = f1.sum(-1) / np.maximum((occurs > 0).sum(-1), 1)
    return mean


def _macro_f1_interval(confusion_CC: Indices, *, seed: int) -> Interval:
    """Return macro-F1 with its interval.

    The bootstrap resamples the cells of the confusion matrix, which is equivalent to resampling examples.
    """
    rows, columns = np.nonzero(confusion_CC)
    # For each nonzero cell, the true label and the predicted label as one-hot rows.
    true_KC, predicted_KC = (np.eye(len(confusion_CC))[places] for places in (rows, columns))
    sums = (true_KC * predicted_KC, true_KC, predicted_KC)
    return bootstrap(
        macro_f1(confusion_CC),
        lambda counts_RK: f1_over_labels(*(counts_RK @ each_KC for each_KC in sums)),
        confusion_CC[rows, columns],
        seed=seed,
    )


class LabelResult(Protocol):
    """Scores of predicted labels. `SingleLabelResult` and `label_sets.SetResult` implement this protocol."""

    @property
    def correct(self) -> Floats:
        """Array (E,) that is 1 for each example with a correct prediction, otherwise 0."""
        ...

    @property
    def metrics(self) -> dict[str, Interval]:
        """Metrics, keyed by name, starting with the share of correctly predicted texts."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the metrics and their confidence intervals as JSON values."""
        ...


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """Comparison of a classifier with baselines that were trained on the same texts.

    Attributes:
        result: scores of the classifier.
        majority: the constant prediction of the majority baseline.
        by_majority: scores of the majority baseline.
        by_tfidf: scores of logistic regression on TF-IDF features, or None if this baseline was not requested or if the
            texts have no words.
        seed: seed of the bootstrap.
        right: words for a correct prediction in the sentence of `verdict`: "… % of the test texts get {right}".
    """

    result: LabelResult
    majority: str
    by_majority: LabelResult
    by_tfidf: LabelResult | None
    seed: int
    right: str = "their label"

    @property
    def over_tfidf(self) -> Comparison | None:
        """Comparison with the TF-IDF baseline by the share of correctly predicted texts."""
        if self.by_tfidf is None:
            return None
        name = next(iter(self.result.metrics))
        before, after = (mean(name, each.correct) for each in (self.by_tfidf, self.result))
        return Comparison(before, after, self.seed)

    def rows(self) -> list[tuple[str, ...]]:
        """Return table rows for this classifier and each baseline: its name, then each metric with its interval."""
        named = [("this classifier", self.result), ("TF-IDF + logistic regression", self.by_tfidf)]
        named.append((f"always {self.majority!r}", self.by_majority))
        return [(who, *map(_percentages, each.metrics.values())) for who, each in named if each is not None]

    def verdict(self) -> str:
        """Return a sentence that compares the classifier with the baselines."""
        share, floor = (next(iter(each.metrics.values())).estimate for each in (self.result, self.by_majority))
        first = f"{share:.1%} of the test texts get {self.right} (majority baseline: {floor:.1%})"
        compared = self.over_tfidf
        if compared is None:
            return f"{first}."
        if compared.verdict == "not distinguishable":
            return f"{first}; not distinguishable from TF-IDF + logistic regression."
        gain = abs(compared.difference.estimate)
        return f"{first}; {compared.verdict} than TF-IDF + logistic regression, by {gain:.1%}."

    def to_json(self) -> dict[str, Any]:
        """Return the scores of the majority baseline and, if available, of the TF-IDF baseline as JSON values."""
        values = {name: interval.estimate for name, interval in self.by_majority.metrics.items()}
        facts: dict[str, Any] = {"majority": {"label": self.majority, **values}}
        if self.by_tfidf is not None and (compared := self.over_tfidf) is not None:
            gain = compared.difference.clamped(-1, 1).to_json(compared.after.name)
            facts["tfidf"] = {**self.by_tfidf.to_json(), "difference": gain}
        return facts


def compare_with_baselines(
    train: Labeled, test: Labeled, labels: Sequence[str], result: SingleLabelResult, *, tfidf: bool, seed: int
) -> BaselineComparison:
    """Train the baselines on the training set and score them on the test set.

    Args:
        train: training set.
        test: test set.
        labels: name of each label, by index.
        result: scores of the classifier on the test set.
        tfidf: whether to train the TF-IDF baseline, which takes additional time.
        seed: seed of the bootstrap.

    Returns:
        The comparison.
    """
    index = {label: number for number, label in enumerate(labels)}
    learned, true = ([index[label] for label in part.labels] for part in (train, test))
    majority = max(train.counts().items(), key=lambda item: item[1])[0]
    floor = score(true, [index[majority]] * len(true), len(labels), seed=seed)
    predicted = predict_tfidf(train.texts, learned, test.texts) if tfidf else None
    by_tfidf = None if predicted is None else score(true, predicted, len(labels), seed=seed)
    return BaselineComparison(result, majority, floor, by_tfidf, seed)


def _percentages(interval: Interval) -> str:
    """Format a share and its interval as percentages."""
    return f"{interval.estimate:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def predict_tfidf(train_texts: Sequence[str], train_labels: Sequence[int], test_texts: Sequence[str]) -> Indices | None:
    """Predict labels with logistic regression on TF-IDF features, a strong baseline for small data sets.

    Args:
        train_texts: training texts.
        train_labels: index of the label of each training text.
        test_texts: test texts.

    Returns:
        One label index per test text, or None if the training texts have no words.
    """
    from sklearn.linear_model import LogisticRegression

    found = Tfidf.fit(train_texts)
    if found is None:
        return None
    tfidf, train = found
    regression = LogisticRegression(C=10.0, max_iter=300).fit(train, train_labels)
    predicted: Indices = np.asarray(regression.predict(tfidf.features(test_texts)), dtype=np.int64)
    return predicted
