"""Vectors of passages: search, update, and the check that the model is the one that computed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.commands import index
from groundup.core.console import Console
from groundup.core.errors import DataError, FormatError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.retrieval import Index, answer_question
from groundup.retrieval.vectors import MEAN, VECTORS, Encoder, fused
from groundup.tokenizer import Tokenizer

TEXTS = {
    "returns.md": "# Returns\n\nYou can return an item within 30 days of delivery.\n",
    "shipping.md": "# Shipping\n\nA parcel to Norway takes five working days.\n",
    "office.md": "# Office\n\nThe office is closed on Sundays.\n",
}


@pytest.fixture
def model(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return saved(tiny_model, tokenizer, tmp_path / "model")


def saved(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, out: Path, **changes: Any) -> Path:
    made = tiny_model(tokenizer.vocab_size, **changes)
    save_model(out, made, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(out)
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "documents"
    path.mkdir()
    for name, text in TEXTS.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def build(source: Path, out: Path, vectors: Path | None) -> Index:
    index.run(index.IndexConfig(source=source, out=out, vectors=vectors), console=Console(quiet=True))
    return Index.open(out)


def test_a_passage_without_words_of_the_question_is_found(folder: Path, tmp_path: Path, model: Path) -> None:
    words = build(folder, tmp_path / "words", None)
    assert [each.origin for each in words.search("parcel")] == ["shipping.md"]
    both = build(folder, tmp_path / "both", model)
    found = both.search("parcel")
    assert found[0].origin == "shipping.md"
    assert {each.origin for each in found} == set(TEXTS)
    assert answer_question(both, "How long does a parcel to Norway take?").citations
    assert answer_question(both, "Which wines are red?").kind == "refusal"


def test_a_passage_has_the_vector_of_its_text_and_title(folder: Path, tmp_path: Path, model: Path) -> None:
    (folder / "long.md").write_text("# Rules\n\n" + "Books are returned on time. " * 60, encoding="utf-8")
    built = build(folder, tmp_path / "index", model)
    assert built._vectors is not None
    encoder = Encoder(built._vectors.record)
    passages = [built.passage(number) for number in range(len(built))]
    assert len(passages) > len(built.documents)
    expected = encoder.encode([f"{each.title}\n{each.text}" if each.start else each.text for each in passages])
    encoder.close()
    stored = np.load(tmp_path / "index" / VECTORS)
    np.testing.assert_allclose(stored, expected, atol=1e-3)
    np.testing.assert_allclose(np.load(tmp_path / "index" / MEAN), stored.mean(0), atol=1e-3)


def test_an_update_encodes_new_texts_only(folder: Path, tmp_path: Path, model: Path) -> None:
    """The vector of a deleted document must not remain, because its text can be estimated from it."""
    out = tmp_path / "index"
    deleted = build(folder, out, model)
    gone = np.load(out / VECTORS)[[document.origin for document in deleted.documents].index("office.md")].copy()
    (folder / "office.md").unlink()
    (folder / "returns.md").write_text(TEXTS["returns.md"] + "\nKeep the receipt.\n", encoding="utf-8")
    updated = build(folder, out, model)
    assert updated.artifact.facts["encoded_passages"] == 1
    vectors = np.load(out / VECTORS)
    assert len(vectors) == len(updated) == 2
    assert not any(np.array_equal(row, gone) for row in vectors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "index", "model"]


def test_another_model_is_refused(
    folder: Path, tmp_path: Path, model: Path, tiny_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    """Vectors of another model have the same shape, and their similarities mean nothing."""
    out = tmp_path / "index"
    build(folder, out, model)
    saved(tiny_model, tokenizer, model, rope_theta=500.0)
    with pytest.raises(FormatError, match=r"weights of .* changed"):
        Index.open(out)
    for path in model.iterdir():
        path.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        Index.open(out)
    with pytest.raises(DataError):
        build(folder, out, model)
    assert build(folder, out, None).search("parcel")


def test_another_tokenizer_is_refused(folder: Path, tmp_path: Path, model: Path) -> None:
    build(folder, tmp_path / "index", model)
    file = model / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"tokenizer of .* changed"):
        Index.open(tmp_path / "index")


def test_a_moved_model_is_recorded_without_new_vectors(folder: Path, tmp_path: Path, model: Path) -> None:
    """The index was refused, and the command that should correct it reported that the index is up to date."""
    out, moved = tmp_path / "index", tmp_path / "moved"
    build(folder, out, model)
    model.rename(moved)
    with pytest.raises(FormatError, match="cannot be read"):
        Index.open(out)
    assert build(folder, out, moved).artifact.facts["encoded_passages"] == 0


def test_passages_without_a_word_of_the_question_are_ranked_by_vectors() -> None:
    scores = fused(np.array([0.0, 0.0, 0.0]), np.array([0.1, 0.2, 0.9]))
    assert np.argsort(-scores).tolist() == [2, 1, 0]


def test_the_rank_by_words_counts_more() -> None:
    words, dense = np.array([3.0, 2.0, 0.0]), np.array([0.1, 0.2, 0.9])
    scores = fused(words, dense)
    assert scores[0] == pytest.approx(1 / 61 + 0.25 / 63)
    assert np.argmax(scores) == 0
