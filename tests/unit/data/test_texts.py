"""Texts to score from all kinds of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.data import write_shards
from groundup.data.texts import read_texts, split_texts, texts_identity
from groundup.tokenizer import CorpusEncoder, Tokenizer


def test_a_text_file_is_one_document(tmp_path: Path):
    """Split into lines, each line would start from BOS, which worsens the score."""
    path = tmp_path / "book.txt"
    path.write_text("One.\n\nTwo.\n", encoding="utf-8")
    assert [text.strip() for text in read_texts(path)] == ["One.\n\nTwo."]


def test_json_lines_are_one_document_each(tmp_path: Path):
    """JSON may contain a lone surrogate, which cannot be encoded and must not end an evaluation."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("first", "broken \ud83d here", "  ")))
    texts = list(read_texts(path))
    assert texts == ["first", "broken � here"]


def test_a_folder_contains_all_of_its_files(tmp_path: Path):
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text(name)
    assert len(list(read_texts(tmp_path))) == 2


def test_a_table_with_several_text_columns_is_rejected(tmp_path: Path):
    """`compare --general` and `export gguf --texts` once used the longest column, e.g. of minimal pairs."""
    rows = [{"id": str(n), "good": "The cats sleep here.", "bad": "The cats sleeps here."} for n in range(3)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for given in (path, tmp_path):
        with pytest.raises(DataError, match="good, bad"):
            read_texts(given)
    path.write_text("\n".join(json.dumps(row | {"text": row.pop("good")}) for row in rows))
    assert list(read_texts(path)) == ["The cats sleep here."] * 3


def test_a_table_with_one_text_column_is_read(tmp_path: Path):
    path = tmp_path / "reviews.csv"
    path.write_text("id,label,review\n1,good,A fine film\n2,bad,Not a good one\n")
    assert list(read_texts(path)) == ["A fine film", "Not a good one"]


@pytest.mark.parametrize(("name", "content"), [("empty.txt", b""), ("noise.txt", bytes(range(256)) * 8)])
def test_a_file_without_text_is_named(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        list(read_texts(path))


def test_a_changed_file_has_another_identity(tmp_path: Path):
    """Otherwise an evaluation of the new text would be skipped."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    before = texts_identity(path)
    path.write_text("after, and longer")
    assert texts_identity(path) != before


def test_token_shards_are_decoded(tmp_path: Path, tokenizer: Tokenizer, real_documents: list[str]):
    """If the corpus no longer exists, its shards still contain the text; a limit samples from all of it."""
    texts = real_documents[:40]
    write_shards(
        tmp_path,
        {"train": texts, "validation": texts[:1]},
        CorpusEncoder(tokenizer, texts[:3]).encode,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
    )
    tokenizer.save(tmp_path / "tokenizer")
    assert list(split_texts(tmp_path, "train", 10**9)) == texts
    a_third = sum(len(text.encode()) for text in texts) // 3 + 1
    assert list(split_texts(tmp_path, "train", a_third)) == texts[::3]
