"""Splitting of a long text into chunks at the ends of paragraphs, lines or sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from groundup.corpus.quality.sentences import split_sentences

# Boundaries from best to worst. A piece without any is cut in half.
_PARAGRAPH, _LINE, _WORD = (re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"\s+"))
_FILL = 0.9  # target fraction of the limit, so that chunks have similar sizes


def split_into_chunks(text: str, count: Callable[[Sequence[str]], Sequence[int]], max_tokens: int) -> list[str]:
    """Split a text into chunks. Joined, the chunks are the text.

    Args:
        text: The text.
        count: Returns the number of tokens of each of several texts.
        max_tokens: Maximum number of tokens of a chunk.

    Returns:
        The chunks. A single character may have more tokens than `max_tokens`.
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
        # Assign the piece to the chunk that would contain most of it if all chunks had the same size.
        if chunks and filled + size <= max_tokens and seen + size / 2 <= len(chunks) * even:
            chunks[-1] += piece
            filled += size
        else:
            chunks.append(piece)
            filled = size
        seen += size
    # Split a chunk again if it is too long: pieces may need more tokens when joined, and a piece may be long.
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
