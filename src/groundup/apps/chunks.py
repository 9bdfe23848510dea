"""A long text in parts that a model can read: all of it, each part ending where a paragraph or a sentence ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from groundup.corpus.quality.sentences import split_sentences

# From the best place to cut at to the worst; where none of these is, a piece is halved.
_PARAGRAPH, _LINE, _WORD = (re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"\s+"))
_FULL = 0.9  # of its room a part takes, so that parts can be of like size rather than full ones and a rest


def split_into_chunks(text: str, count: Callable[[Sequence[str]], Sequence[int]], room: int) -> list[str]:
    """The text in parts of at most `room` tokens; joined, they are the text again.

    Args:
        count: the tokens of each of several texts.
    """
    (total,) = count([text])
    if total <= room:
        return [text]
    if len(text) < 2:  # one character of more tokens than there is room for
        return [text]
    even = total / -(-total // max(1, int(_FULL * room)))
    parts: list[str] = []
    filled = seen = 0
    pieces = _pieces(text)
    for piece, size in zip(pieces, count(pieces), strict=True):
        # The piece belongs to the part in which most of it would lie if all were of one size.
        if parts and filled + size <= room and seen + size / 2 <= len(parts) * even:
            parts[-1] += piece
            filled += size
        else:
            parts.append(piece)
            filled = size
        seen += size
    # What two pieces need apart is nearly always enough for both together; where it is not, and for long pieces:
    return [
        part
        for whole in parts
        for part in ([whole] if count([whole])[0] <= room else split_into_chunks(whole, count, room))
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
