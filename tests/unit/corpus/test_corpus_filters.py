"""Filters drop boilerplate and keep prose; each answer is a reason."""

from __future__ import annotations

import pytest

from groundup.corpus.filters import min_length, repetition
from groundup.types import Document

PROSE = (
    "When in the Course of human events, it becomes necessary for one people to dissolve the political bands "
    "which have connected them with another, and to assume among the powers of the earth, the separate and "
    "equal station to which the Laws of Nature and of Nature's God entitle them, a decent respect to the "
    "opinions of mankind requires that they should declare the causes which impel them to the separation."
)


def _document(text: str) -> Document:
    return Document(text=text, source="s", origin="o")


def test_prose_stays() -> None:
    assert repetition(_document(PROSE)) is None


def test_short_text_in_which_nothing_repeats_stays() -> None:
    """A 2-gram of a ten-word text is more than 20 % of it; counted once it is no repetition."""
    assert repetition(_document("Extraordinary circumstances demand unconventional solutions.")) is None


def test_real_pages_stay(real_documents: list[str]) -> None:
    """Thresholds off by a definition (overlaps counted twice) would drop most of any manual."""
    dropped = [text for text in real_documents if len(text) > 500 and repetition(_document(text))]
    assert len(dropped) < 0.15 * len(real_documents)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(["Home | About | Contact"] * 3 + ["A page of its own."]), "duplicate lines"),
        ("\n".join(["x" * 400, "x" * 400, *"abcdefgh"]), "characters in duplicate lines"),
        (PROSE + "\n\n" + "\n\n".join(["Sign up\nfor news", "Sign up\nfor offers"] * 4), "duplicate lines"),
        ("buy now " * 40, "top 2-gram"),
        (f"{PROSE} And again: {PROSE}", "duplicate 5-grams"),
    ],
)
def test_repetition_is_named(text: str, reason: str) -> None:
    assert repetition(_document(text)) == reason


def test_length_counts_bytes() -> None:
    keep = min_length(10)
    assert keep(_document("äöüäö")) is None
    assert keep(_document("short")) == "too short"


def test_words_of_no_length_are_no_division_by_zero() -> None:
    assert repetition(_document("")) is None
    assert repetition(_document(" \n \n ")) is None
