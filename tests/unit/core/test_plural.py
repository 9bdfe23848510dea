"""A count is printed with the singular or plural form of its noun."""

from __future__ import annotations

import pytest

from groundup.core.console import format_count
from groundup.core.plural import pluralize, singular_of


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "row", "1 row"),
        (0, "row", "0 rows"),
        (2000, "training example", "2,000 training examples"),
        (2, "match", "2 matches"),
        (2, "copy", "2 copies"),
        (2, "day", "2 days"),
        (2, "loss", "2 losses"),
    ],
)
def test_plural(count: int, noun: str, text: str) -> None:
    assert pluralize(count, noun) == text
    assert singular_of(text.partition(" ")[2]) == noun


def test_an_irregular_plural_is_given() -> None:
    assert (pluralize(1, "corpus", "corpora"), pluralize(2, "corpus", "corpora")) == ("1 corpus", "2 corpora")


def test_format_count_uses_the_singular_for_one() -> None:
    assert [format_count(value, "tokens") for value in (0, 1, 1.5, 1000)] == [
        "0 tokens",
        "1 token",
        "1.50 tokens",
        "1.00k tokens",
    ]
    assert format_count(1, "FLOP/s") == "1 FLOP/s"
