"""The lexical head of a classifier gives the same probabilities after saving, for any text."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from groundup.core.errors import FormatError
from groundup.data.labels.tfidf import Tfidf
from groundup.hub.lexical import LEXICAL_FILE, LexicalHead
from groundup.train.classifier.lexical_head import fit_lexical_head
from groundup.train.objectives.classification import Classification

DIM, LABELS = 8, 3
UNSEEN = ["", "  ", "zzzz qqqq", "中文", "\ud800 a lone surrogate", "word " * 5_000]


@pytest.fixture(scope="module")
def texts(real_documents: list[str]) -> list[str]:
    found = [s for text in real_documents[:60] for s in text.replace("\n", " ").split(". ") if 40 < len(s) < 160]
    return random.Random(0).sample(sorted(set(found)), 60)


def states(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, (count, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def head(texts: list[str]) -> LexicalHead:
    found = fit_lexical_head(states(60), texts, [n % LABELS for n in range(60)], Classification(), LABELS)
    assert found is not None
    return found


def test_saved_and_loaded_it_gives_the_same_probabilities(head: LexicalHead, texts: list[str], tmp_path: Path) -> None:
    assert head.save(tmp_path) == tmp_path / LEXICAL_FILE
    loaded = LexicalHead.load(tmp_path, DIM, LABELS)
    assert loaded is not None
    given = [*texts, *UNSEEN]
    before, after = (each.probabilities(states(len(given), 1), given) for each in (head, loaded))
    assert after == pytest.approx(before, abs=1e-6)
    assert after.sum(1) == pytest.approx(np.ones(len(given)))
    assert np.isfinite(after).all()
    assert loaded.probabilities(states(0), []).shape == (0, LABELS)
    assert LexicalHead.load(tmp_path / "none", DIM, LABELS) is None


def test_a_text_without_known_words_is_labeled_by_its_state(head: LexicalHead) -> None:
    few = states(2, 1)
    empty, unknown = (head.probabilities(few, [text] * 2) for text in ("", "中文"))
    assert empty == pytest.approx(unknown)
    assert abs(empty[0] - empty[1]).max() > 1e-6


def test_a_temperature_divides_the_logits(head: LexicalHead, texts: list[str]) -> None:
    sharp, soft = (each.probabilities(states(60), texts) for each in (head, head.softened(2.0)))
    again = soft**2 / (soft**2).sum(1, keepdims=True)
    assert again == pytest.approx(sharp)


def test_the_head_equals_a_ridge_regression(head: LexicalHead, texts: list[str]) -> None:
    """Solved with the Gram matrix of rows; here with the normal equations of standardized columns."""
    from torch import from_numpy, tensor

    from groundup.train.classifier.initial_head import ridge

    h = states(60).astype(np.float64)
    h = (h - h.mean(0)) / h.std(0)
    f = Tfidf.fit(texts)[1].toarray()  # type: ignore[index]
    f = f - f.mean(0)
    blocks = [each / np.sqrt((each**2).sum(1).mean()) for each in (h, f)]
    columns = np.hstack([*blocks, np.ones((60, 1))])
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    kept = values > 1e-4 * values.max()
    rows = from_numpy(left[:, kept] * values[kept])
    weight, *_ = ridge(rows, tensor([n % LABELS for n in range(60)]), Classification(), LABELS)
    logits = (rows @ weight.T).softmax(1).numpy()
    assert head.probabilities(states(60), texts) == pytest.approx(logits, abs=1e-6)


def test_texts_without_words_have_no_lexical_head() -> None:
    assert fit_lexical_head(states(4), ["", " ", "", ""], [0, 1, 0, 1], Classification(), 2) is None


def test_stored_features_equal_the_training_features(texts: list[str]) -> None:
    found = Tfidf.fit(texts)
    assert found is not None
    fitted, features = found
    stored = Tfidf.stored(fitted.vocabularies, fitted.idf)
    assert abs(features - fitted.features(texts)).max() < 1e-12
    assert abs(features - stored.features(texts)).max() < 1e-12
    with pytest.raises(ValueError, match="size"):
        Tfidf.stored(fitted.vocabularies, fitted.idf[1:])


def test_a_damaged_file_is_rejected(head: LexicalHead, tmp_path: Path) -> None:
    path = head.save(tmp_path)
    whole = path.read_bytes()
    for labels, dim in ((LABELS + 1, DIM), (LABELS, DIM + 1)):
        with pytest.raises(FormatError, match="shapes"):
            LexicalHead.load(tmp_path, dim, labels)
    path.write_bytes(whole[:-9])
    with pytest.raises(FormatError, match="does not match the classifier"):
        LexicalHead.load(tmp_path, DIM, LABELS)
    path.write_bytes(whole)
    save_file(load_file(path), path, {"format_version": "2", "vocabularies": "{}"})
    with pytest.raises(FormatError, match="format_version"):
        LexicalHead.load(tmp_path, DIM, LABELS)
