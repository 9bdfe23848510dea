"""Scores of classifiers, compared with scikit-learn and with chance."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score

from groundup.data.labels.reading import Labeled
from groundup.evaluation.classifiers.single_label import compare_with_baselines, macro_f1, predict_tfidf, score
from groundup.inference.classification import predict
from groundup.model import SequenceClassifier, Transformer


@pytest.mark.parametrize(("n_labels", "used"), [(2, 2), (7, 7), (7, 3)])
def test_confusion_and_macro_f1_equal_scikit_learn(n_labels: int, used: int) -> None:
    """Labels that neither occur nor are predicted are ignored in both."""
    generator = np.random.default_rng(n_labels + used)
    true, predicted = generator.integers(used, size=(2, 200))
    result = score(true, predicted, n_labels, seed=0)
    assert result.confusion.tolist() == confusion_matrix(true, predicted, labels=range(n_labels)).tolist()
    assert result.macro_f1.estimate == pytest.approx(f1_score(true, predicted, average="macro"))
    assert macro_f1(result.confusion) == result.macro_f1.estimate
    assert result.accuracy.estimate == pytest.approx((true == predicted).mean())


def test_intervals_have_the_nominal_coverage() -> None:
    """Over many samples of a known classifier, about 95 % of the intervals contain the true accuracy and macro-F1."""
    true_confusion = np.array([[0.5, 0.1], [0.1, 0.3]])
    f1 = [2 * 0.5 / 1.2, 2 * 0.3 / 0.8]
    held = np.zeros(2)
    rounds = 150
    for seed in range(rounds):
        cells = np.random.default_rng(seed).choice(4, size=200, p=true_confusion.ravel())
        result = score(cells // 2, cells % 2, 2, seed=seed)
        for i, (interval, truth) in enumerate([(result.accuracy, 0.8), (result.macro_f1, np.mean(f1))]):
            held[i] += interval.low <= truth <= interval.high
    assert np.all(held / rounds > 0.88), held / rounds


def test_one_test_text_gives_finite_bounds() -> None:
    result = score([0], [0], 2, seed=0)
    assert (result.accuracy.low, result.accuracy.high) == (0, 1)
    assert (result.macro_f1.low, result.macro_f1.high) == (0, 1)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["accuracy"]["value"] == 1


def test_predictions_keep_the_order_of_the_texts(tiny_model: Callable[..., Transformer]) -> None:
    """Texts are batched by length, and a wrong order would give random scores."""
    model = SequenceClassifier.from_language_model(tiny_model(300), 4, seed=0)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(1))
    generator = np.random.default_rng(0)
    texts = [generator.integers(2, 300, size=n).tolist() for n in generator.integers(1, 60, size=700)]
    seen: list[int] = []
    together = predict(model, texts, pad_id=1, advance=seen.append)
    assert len(seen) > 1
    assert sum(seen) == len(texts)
    alone = np.concatenate([predict(model, [text], pad_id=1) for text in texts[:30]])
    np.testing.assert_allclose(together[:30], alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(1), 1)


@pytest.fixture(scope="module")
def two_topics(real_documents: list[str]) -> tuple[Labeled, Labeled]:
    """Paragraphs of the two longest documents, labeled by document."""
    longest = sorted(real_documents, key=len)[-2:]
    paragraphs = [(p, str(i)) for i, text in enumerate(longest) for p in text.split("\n\n") if len(p) > 60]
    order = np.random.default_rng(0).permutation(len(paragraphs))
    parts = [[paragraphs[i] for i in chosen] for chosen in np.split(order, [int(0.7 * len(order))])]
    train, test = (Labeled([p for p, _ in part], [label for _, label in part]) for part in parts)
    return train, test


def test_the_tfidf_baseline_separates_two_topics(two_topics: tuple[Labeled, Labeled]) -> None:
    """A weak baseline would make any classifier look good."""
    train, test = two_topics
    predicted = predict_tfidf(train.texts, [int(label) for label in train.labels], test.texts)
    assert predicted is not None
    right = [str(p) == label for p, label in zip(predicted, test.labels, strict=True)]
    assert np.mean(right) > 0.8


def test_texts_without_characters_have_no_baseline() -> None:
    assert predict_tfidf(["", " "], [0, 1], ["..."]) is None


def test_the_verdict_is_worse_better_or_not_significant(two_topics: tuple[Labeled, Labeled]) -> None:
    train, test = two_topics
    labels = list(train.counts())
    true = [labels.index(label) for label in test.labels]
    right = compare_with_baselines(train, test, labels, score(true, true, 2, seed=0), tfidf=True, seed=0)
    wrong = compare_with_baselines(
        train, test, labels, score(true, [1 - label for label in true], 2, seed=0), tfidf=True, seed=0
    )
    assert "; better than TF-IDF" in right.verdict()
    assert "; worse than TF-IDF" in wrong.verdict()
    same = predict_tfidf(train.texts, [labels.index(label) for label in train.labels], test.texts)
    neither = compare_with_baselines(train, test, labels, score(true, same, 2, seed=0), tfidf=True, seed=0)
    assert "not distinguishable" in neither.verdict()
    assert neither.to_json()["tfidf"]["difference"] == {"accuracy": 0.0, "interval": [0.0, 0.0]}


def test_the_majority_label_comes_from_the_training_texts() -> None:
    """The majority label of the test texts would leak the answers."""
    train = Labeled(["a", "b", "c"], ["x", "x", "y"])
    test = Labeled(["d", "e", "f", "g"], ["y", "y", "y", "x"])
    found = compare_with_baselines(
        train, test, ["x", "y"], score([1, 1, 1, 0], [1, 1, 1, 0], 2, seed=0), tfidf=False, seed=0
    )
    assert found.to_json() == {"majority": {"label": "x", "accuracy": 0.25, "macro_f1": pytest.approx(0.2)}}
    assert len(found.rows()) == 2
