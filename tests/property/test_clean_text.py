"""For any text, cleaning produces clean Unicode, splitting does not lose text, and filters return a result."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from groundup.core.types import Document
from groundup.corpus.quality import GopherRepetition
from groundup.corpus.steps import Drop
from groundup.corpus.text import clean_text, split_text

any_text = st.text(alphabet=st.characters(), max_size=400)
layouts = st.lists(
    st.sampled_from(["word", "längeres", "字", ". ", " ", "\n", "\n\n", "CHAPTER I\n", "x" * 90]),
    max_size=300,
)


@given(any_text)
def test_clean_text_is_clean(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]|[ \t]\n|\n\n\n", cleaned)


@given(layouts, st.integers(60, 400))
def test_split_text_loses_nothing(pieces: list[str], max_bytes: int) -> None:
    text = "".join(pieces)
    parts = list(split_text(text, max_bytes))
    assert all(len(part.encode()) <= max_bytes for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


@given(layouts)
def test_filters_accept_any_text(pieces: list[str]) -> None:
    document = Document(text="".join(pieces), source="s", origin="o")
    outcome = GopherRepetition()(document)
    assert outcome is document or (isinstance(outcome, Drop) and outcome.reason)
