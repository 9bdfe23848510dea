"""Real text and a real tokenizer for every room's tests."""

from __future__ import annotations

from pydoc_data.topics import topics

import pytest

from groundup.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def real_documents() -> list[str]:
    """The language reference that `help()` shows: 0.7 MB of prose and code by people, in every CPython."""
    return [text for _, text in sorted(topics.items())]


@pytest.fixture(scope="session")
def tokenizer(real_documents: list[str]) -> Tokenizer:
    """1,024 ids, trained on the real documents."""
    return train_tokenizer(real_documents, 1024)
