"""A long text in parts: nothing of it lost, nothing too long, no sentence cut that need not be."""

from __future__ import annotations

import re

import hypothesis
import hypothesis.strategies as st
import pytest

from groundup.apps.chunks import split_into_chunks
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def book(real_documents: list[str]) -> str:
    """Some fifty pages."""
    return "\n\n".join(real_documents)[:150_000]


@pytest.mark.parametrize("room", [40, 300, 2_000])
def test_the_parts_are_the_text_and_each_fits(tokenizer: Tokenizer, book: str, room: int) -> None:
    parts = split_into_chunks(book, lambda texts: [len(ids) for ids in tokenizer.encode_batch(texts)], room)
    assert "".join(parts) == book
    assert max(len(tokenizer.encode(part)) for part in parts) <= room


def test_they_are_of_like_size(tokenizer: Tokenizer, book: str) -> None:
    """A last part of one sentence would weigh as much as a page."""
    sizes = [len(part) for part in split_into_chunks(book, lambda texts: [len(text) for text in texts], 10_000)]
    assert min(sizes) > max(sizes) / 2


def test_they_end_where_paragraphs_or_sentences_end() -> None:
    prose = " ".join(f"This is sentence number {n}, which says little." for n in range(200))
    for text, end in (("\n\n".join([prose[:900]] * 9), r"\n\n$|e\.$|\.$|[^.]$"), (prose, r"\. ?$")):
        parts = split_into_chunks(text, lambda texts: [len(text) for text in texts], 1_000)
        assert len(parts) > 5
        assert all(re.search(end, part) for part in parts)


@hypothesis.given(st.text(max_size=400), st.integers(1, 50))
def test_any_text_comes_back(text: str, room: int) -> None:
    """White space of all kinds, marks alone, no marks at all."""
    parts = split_into_chunks(text, lambda texts: [len(text) for text in texts], room)
    assert "".join(parts) == text
    assert all(len(part) <= room for part in parts)
