"""Shards of real documents, several per split."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.data import write_shards
from groundup.tokenizer import CorpusEncoder, Tokenizer


@pytest.fixture(scope="session")
def texts(real_documents: list[str]) -> list[str]:
    """Documents of 0 to some thousand characters."""
    return [
        "",
        *(text[:size] for text, size in zip(real_documents, range(1, 4000, 97), strict=False)),
        "",
        "a",
    ]


@pytest.fixture(scope="session")
def directory(tokenizer: Tokenizer, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of about 16 kB of text; tests must not change them."""
    path = tmp_path_factory.mktemp("tokens")
    write_shards(
        path,
        {"train": texts, "validation": texts[5:9]},
        CorpusEncoder(tokenizer, []).encode,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        shard_bytes=16_000,
    )
    return path
