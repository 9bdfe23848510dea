"""Filters: each looks at one document and answers None (keep it) or the reason why it is dropped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from groundup.types import Document

Filter = Callable[[Document], str | None]

# Gopher's repetition thresholds (Rae et al. 2021, arXiv 2112.11446, table A1).
DUPLICATE_LINES = 0.30
DUPLICATE_LINE_CHARACTERS = 0.20
DUPLICATE_PARAGRAPHS = 0.30
DUPLICATE_PARAGRAPH_CHARACTERS = 0.20
TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_NGRAM = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_PARAGRAPH = re.compile(r"\n{2,}")


def min_length(min_bytes: int) -> Filter:
    """Drop documents of fewer UTF-8 bytes."""

    def too_short(document: Document) -> str | None:
        return "too short" if len(document.text.encode()) < min_bytes else None

    return too_short


def repetition(document: Document) -> str | None:
    """Gopher's repetition filter: repeated lines, paragraphs and word n-grams.

    A fraction counts the characters covered by second and later occurrences, overlaps once. An n-gram that
    occurs once is not repeated, however large its share of a short text.
    """
    text = document.text
    lines = [line for line in text.split("\n") if line.strip()]
    if reason := _repeated(lines, "line", DUPLICATE_LINES, DUPLICATE_LINE_CHARACTERS):
        return reason
    paragraphs = [part for part in _PARAGRAPH.split(text) if part.strip()]
    if reason := _repeated(paragraphs, "paragraph", DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARACTERS):
        return reason
    return _repeated_ngrams(text.split())


def _repeated(parts: Sequence[str], what: str, most: float, most_characters: float) -> str | None:
    unique = set(parts)
    if len(unique) == len(parts):
        return None
    if 1 - len(unique) / len(parts) > most:
        return f"duplicate {what}s"
    if 1 - sum(map(len, unique)) / sum(map(len, parts)) > most_characters:
        return f"characters in duplicate {what}s"
    return None


def _repeated_ngrams(words: Sequence[str]) -> str | None:
    characters = sum(map(len, words))
    for n, most in TOP_NGRAM.items():
        counts = Counter(_ngrams(words, n))
        count = max(counts.values(), default=1)
        if count == 1:  # then nothing longer is repeated either
            return None
        ngram = next(found for found, times in counts.items() if times == count)
        if count * sum(map(len, ngram)) > most * characters:
            return f"top {n}-gram"
    for n, most in DUPLICATE_NGRAM.items():
        share = _duplicate_share(words, n, characters)
        if share > most:
            return f"duplicate {n}-grams"
        # What longer n-grams cover is part of what these cover, so no later threshold can be passed.
        if share <= min(DUPLICATE_NGRAM.values()):
            return None
    return None


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _duplicate_share(words: Sequence[str], n: int, characters: int) -> float:
    ngrams = _ngrams(words, n)
    if len(set(ngrams)) == len(ngrams):
        return 0.0
    seen: set[tuple[str, ...]] = set()
    covered = 0  # characters
    covered_to = 0  # index of the first word not yet covered
    for at, ngram in enumerate(ngrams):
        if ngram in seen:
            start = max(at, covered_to)
            covered += sum(map(len, words[start : at + n]))
            covered_to = at + n
        else:
            seen.add(ngram)
    return covered / characters
