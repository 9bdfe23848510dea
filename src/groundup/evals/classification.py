"""How well labels are predicted: accuracy, macro-F1, the confusion matrix, and baselines on the same split.

Shape letters: E examples, C labels, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from groundup.evals.stats import Interval, paired_difference, ratio_interval
from groundup.model import SequenceClassifier
from groundup.objectives.classification import pad

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BATCH_TOKENS = 16_384  # padded tokens scored at a time
_FEATURES = 200_000  # of the TF-IDF baseline at most, the most frequent


@torch.no_grad()
def predict(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Floats:
    """Probabilities (E, C) of each text's labels.

    Args:
        texts: token ids, none empty, none longer than the context.
        advance: called with the number of texts after each batch.
    """
    device = model.score.weight.device
    probabilities = np.zeros((len(texts), len(model.score.weight)))
    for chosen in _batches_of_like_length([len(text) for text in texts]):
        ids_BT, last_B = pad([texts[i] for i in chosen], pad_id, model.config.context_length)
        logits_BC = model(ids_BT.to(device), last_B.to(device))
        probabilities[chosen] = logits_BC.double().softmax(-1).cpu().numpy()
        advance(len(chosen))
    return probabilities


def _batches_of_like_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[place] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Result:
    """Predictions on a test set, scored.

    Attributes:
        correct: (E,), 1 where the prediction is right.
        confusion: (C, C), examples of each true label (row) by predicted label (column).
    """

    correct: Floats
    confusion: Indices
    accuracy: Interval
    macro_f1: Interval

    def to_json(self) -> dict[str, Any]:
        """Accuracy and macro-F1 with their intervals."""
        return {
            name: {"value": interval.estimate, "interval": [interval.low, interval.high]}
            for name, interval in (("accuracy", self.accuracy), ("macro_f1", self.macro_f1))
        }


def score(true_E: Sequence[int] | Indices, predicted_E: Sequence[int] | Indices, n_labels: int, *, seed: int) -> Result:
    """Score predictions; intervals are percentile bootstraps over examples, at 95 %."""
    true, predicted = np.asarray(true_E), np.asarray(predicted_E)
    confusion = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    correct = (true == predicted).astype(np.float64)
    accuracy = ratio_interval(correct, np.ones_like(correct), seed=seed)
    return Result(correct, confusion, accuracy, _macro_f1_interval(confusion, seed=seed))


def macro_f1(confusion_CC: Indices) -> float:
    """Mean F1 of the labels that are true or predicted somewhere, each label counting alike."""
    return float(_macro_f1(np.diag(confusion_CC), confusion_CC.sum(1), confusion_CC.sum(0)))


def _macro_f1(hits: Indices, true: Indices, predicted: Indices) -> Floats:
    """Over the last axis, (..., C) each."""
    occurs = true + predicted
    f1 = np.divide(2 * hits, occurs, out=np.zeros(occurs.shape), where=occurs > 0)
    mean: Floats = f1.sum(-1) / (occurs > 0).sum(-1)
    return mean


def _macro_f1_interval(confusion_CC: Indices, *, seed: int, level: float = 0.95, resamples: int = 2000) -> Interval:
    """Drawing examples anew is drawing the counts of the confusion matrix from their multinomial distribution."""
    n_labels, count = len(confusion_CC), int(confusion_CC.sum())
    rows, columns = np.nonzero(confusion_CC)
    shares = confusion_CC[rows, columns] / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=resamples)
    hits, true, predicted = (np.zeros((resamples, n_labels), dtype=np.int64) for _ in range(3))
    for cell, (row, column) in enumerate(zip(rows, columns, strict=True)):
        true[:, row] += drawn[:, cell]
        predicted[:, column] += drawn[:, cell]
        if row == column:
            hits[:, row] += drawn[:, cell]
    low, high = np.quantile(_macro_f1(hits, true, predicted), [(1 - level) / 2, (1 + level) / 2])
    return Interval(macro_f1(confusion_CC), float(low), float(high), level)


def difference(a: Result, b: Result, *, seed: int) -> Interval:
    """Accuracy of `a` minus that of `b` on the same examples, paired."""
    return paired_difference(a.correct, b.correct, np.ones_like(a.correct), seed=seed)


def predict_majority(train_labels: Sequence[int], n_texts: int) -> Indices:
    """The most frequent training label, for every text."""
    label, _ = min(Counter(train_labels).items(), key=lambda item: (-item[1], item[0]))
    return np.full(n_texts, label)


def predict_tfidf(
    train_texts: Sequence[str], train_labels: Sequence[int], test_texts: Sequence[str], *, seed: int
) -> Indices | None:
    """Predictions of logistic regression on TF-IDF of words and word pairs, the baseline that small data respects.

    Returns:
        One label a test text; None where the texts have no words to count.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # One letter may be a word, and scripts without spaces are left to their punctuation.
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=_FEATURES, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        features = vectorizer.fit_transform(train_texts)
    except ValueError:  # an empty vocabulary
        return None
    regression = LogisticRegression(C=10.0, max_iter=300, random_state=seed).fit(features, train_labels)
    predicted: Indices = np.asarray(regression.predict(vectorizer.transform(test_texts)), dtype=np.int64)
    return predicted
