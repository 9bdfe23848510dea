"""Chunks of a long text contain the whole text, do not exceed the token limit, and end at sentence boundaries."""

from __future__ import annotations

import re

import hypothesis
import hypothesis.strategies as st
import pytest

from groundup.apps.chunks import split_into_chunks
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def book(real_documents: list[str]) -> str:
    """Return a text of about fifty pages."""
    return "\n\n".join(real_documents)[:150_000]


@pytest.mark.parametrize("limit", [40, 300, 2_000])
def test_chunks_are_complete_and_within_the_limit(tokenizer: Tokenizer, book: str, limit: int) -> None:
    chunks = split_into_chunks(book, lambda texts: [len(ids) for ids in tokenizer.encode_batch(texts)], limit)
    assert "".join(chunks) == book
    assert max(len(tokenizer.encode(chunk)) for chunk in chunks) <= limit


def test_chunks_have_similar_sizes(tokenizer: Tokenizer, book: str) -> None:
    """If the last chunk had only one sentence, its summary would have the same weight as the summary of a page."""
    sizes = [len(chunk) for chunk in split_into_chunks(book, lambda texts: [len(text) for text in texts], 10_000)]
    assert min(sizes) > max(sizes) / 2


def test_chunks_end_at_paragraphs_or_sentences() -> None:
    prose = " ".join(f"This is sentence number {n}, which says little." for n in range(200))
    for text, end in (("\n\n".join([prose[:900]] * 9), r"\n\n$|e\.$|\.$|[^.]$"), (prose, r"\. ?$")):
        chunks = split_into_chunks(text, lambda texts: [len(text) for text in texts], 1_000)
        assert len(chunks) > 5
        assert all(re.search(end, chunk) for chunk in chunks)


@hypothesis.given(st.text(max_size=400), st.integers(1, 50))
def test_chunks_of_any_text_are_complete(text: str, limit: int) -> None:
    """The text may contain any whitespace, only punctuation, or no punctuation."""
    chunks = split_into_chunks(text, lambda texts: [len(text) for text in texts], limit)
    assert "".join(chunks) == text
    assert all(len(chunk) <= limit for chunk in chunks)
