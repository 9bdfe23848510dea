"""The quality classifier separates examples, is deterministic, and loads without pickle."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from groundup.core.config import load
from groundup.core.errors import DataError, FormatError
from groundup.core.types import Document
from groundup.corpus.quality.classifier import (
    PerplexityFilter,
    QualityClassifier,
    QualitySettings,
    QualityStep,
    train_from_files,
    train_quality_classifier,
)
from groundup.corpus.steps import Drop

NOUNS = ["river", "market", "teacher", "winter", "engine", "garden", "letter", "bridge", "village", "museum"]
VERBS = ["crossed", "described", "repaired", "remembered", "followed", "measured", "painted", "visited"]
LINKS = ["Home", "About", "Contact", "Login", "Register", "Cart", "Checkout", "Sitemap", "Privacy", "Help", "Blog"]


def _stories(seed: int, count: int) -> list[str]:
    pick = random.Random(seed).choice
    sentence = "The {} {} the {} before anybody had {} the {}."
    return [
        " ".join(sentence.format(pick(NOUNS), pick(VERBS), pick(NOUNS), pick(VERBS), pick(NOUNS)) for _ in range(6))
        for _ in range(count)
    ]


def _menus(seed: int, count: int) -> list[str]:
    shuffled = random.Random(seed).sample
    return [" | ".join(shuffled(LINKS, 8)) + f"\n© {2000 + n % 25} Shop {n}" for n in range(count)]


@pytest.fixture(scope="module")
def classifier() -> QualityClassifier:
    return train_quality_classifier(_stories(1, 60), _menus(2, 60))


def test_unseen_texts_are_classified(classifier: QualityClassifier) -> None:
    assert min(map(classifier.score, _stories(3, 20))) > 0.5 > max(map(classifier.score, _menus(4, 20)))
    assert classifier.report["good"] == classifier.report["bad"] == 60
    assert classifier.report["auc"] > 0.95


def test_classes_are_balanced() -> None:
    """Without class weights, a classifier with many negative examples drops everything."""
    lopsided = train_quality_classifier(_stories(1, 25), _menus(2, 300))
    assert min(map(lopsided.score, _stories(3, 20))) > 0.5


def test_training_depends_only_on_the_texts(classifier: QualityClassifier) -> None:
    again = train_quality_classifier(reversed(_stories(1, 60) * 2), reversed(_menus(2, 60)))
    assert np.array_equal(again.weights, classifier.weights)
    assert again.bias == classifier.bias


def test_a_file_gives_the_same_scores_and_the_step_is_small(classifier: QualityClassifier, tmp_path: Path) -> None:
    path = tmp_path / "quality.safetensors"
    classifier.save(path)
    loaded = QualityClassifier.load(path)
    text = _stories(5, 1)[0]
    assert loaded.score(text) == classifier.score(text)
    assert loaded.report == classifier.report
    step = pickle.loads(pickle.dumps(QualityStep(path, 0.5)))
    good, bad = (Document(text=texts[0], source="s", origin="o") for texts in (_stories(6, 1), _menus(7, 1)))
    assert step(good) is good
    outcome = step(bad)
    assert isinstance(outcome, Drop)
    assert outcome.reason == "score too low"
    assert outcome.detail.endswith("at least 0.5")
    for empty in ("", "\ud800", "\0"):
        step(Document(text=empty, source="s", origin="o"))


def test_files_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("\n\n".join(_stories(1, 200)))  # one text, split like documents
    (tmp_path / "bad").mkdir()
    for number, menu in enumerate(_menus(2, 40)):
        (tmp_path / "bad" / f"{number}.html").write_text(f"<body><p>{menu}</p></body>")
    settings = load(QualitySettings, {"good": [str(tmp_path / "good.txt")], "bad": [str(tmp_path / "bad")]})
    assert train_from_files(settings, 1024).score(_stories(3, 1)[0]) > 0.5
    with pytest.raises(DataError, match="good examples: "):
        train_from_files(settings, 1 << 20)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(DataError, match="bad examples: 1:"):
        train_quality_classifier(_stories(1, 60), ["Home | About"] * 60)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "quality.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(FormatError):
        QualityClassifier.load(path)
    with pytest.raises(FormatError):
        QualityClassifier.load(tmp_path / "none")


def _length(text: str) -> float:
    return float(len(text))


def test_bits_per_byte_of_a_model() -> None:
    step = pickle.loads(pickle.dumps(PerplexityFilter(_length, max_bits_per_byte=5, min_bits_per_byte=2)))
    document = Document(text="abc", source="s", origin="o")
    assert step(document) is document
    assert step(Document(text="abcdef", source="s", origin="o")) == Drop("too many bits per byte", "6.000, at most 5")
    assert step(Document(text="a", source="s", origin="o")) == Drop("too few bits per byte", "1.000, at least 2")
