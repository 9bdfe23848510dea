"""Splitting of long texts into chunks that end at paragraph, line or sentence boundaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from groundup.corpus.quality.sentences import split_sentences

# Boundaries in order of preference. A text without any of these boundaries is cut in the middle.
_PARAGRAPH, _LINE, _WORD = (re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"\s+"))
_FILL = 0.9  # fraction of max_tokens that a chunk should have on average


def split_into_chunks(text: str, count: Callable[[Sequence[str]], Sequence[int]], max_tokens: int) -> list[str]:
    """Split a text into chunks. The concatenation of the chunks is the text.

    Args:
        text: Text to split.
        count: Function that returns the number of tokens of each text in a list.
        max_tokens: Maximum number of tokens per chunk.

    Returns:
        The chunks in order. A chunk exceeds `max_tokens` only if it is a single character.
    """
    (total,) = count([text])
    if total <= max_tokens:
        return [text]
    if len(text) < 2:
        return [text]
    even = total / -(-total // max(1, int(_FILL * max_tokens)))
    chunks: list[str] = []
    filled = seen = 0
    pieces = _pieces(text)
    for piece, size in zip(pieces, count(pieces), strict=True):
        # Assign the piece to the chunk that would contain most of the piece if all chunks had the same size.
        if chunks and filled + size <= max_tokens and seen + size / 2 <= len(chunks) * even:
            chunks[-1] += piece
            filled += size
        else:
            chunks.append(piece)
            filled = size
        seen += size
    # A chunk can still be too long: joined pieces may have more tokens than separate pieces, and a piece may itself
    # be too long. Such a chunk is split again.
    return [
        chunk
        for long in chunks
        for chunk in ([long] if count([long])[0] <= max_tokens else split_into_chunks(long, count, max_tokens))
    ]


def _pieces(text: str) -> list[str]:
    for cut in (_PARAGRAPH, _LINE):
        pieces = _cut_after(text, (found.end() for found in cut.finditer(text)))
        if len(pieces) > 1:
            return pieces
    for edges in (_sentence_ends(text), (found.end() for found in _WORD.finditer(text))):
        pieces = _cut_after(text, edges)
        if len(pieces) > 1:
            return pieces
    return _cut_after(text, [len(text) // 2])


def _sentence_ends(text: str) -> Iterator[int]:
    place = 0
    for sentence in split_sentences(text):
        place = text.index(sentence, place) + len(sentence)
        while place < len(text) and text[place].isspace():
            place += 1
        yield place


def _cut_after(text: str, places: Iterator[int] | Sequence[int]) -> list[str]:
    edges = sorted({0, *places, len(text)})
    return [text[start:end] for start, end in pairwise(edges)]
