"""Splitting of documents into passages, which begin and end at sentences and know their position."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from groundup.corpus.quality.sentences import MARKS, sentence_spans
from groundup.corpus.quality.words import n_unspaced

PASSAGES_VERSION = 1  # increased when the passages of a text change, so that an older index is refused

_UNSPACED_WEIGHT = 3  # a Chinese or Thai character has about as much information as three Latin letters
_MAX_HEADING = 100  # maximum number of characters of a heading
_MAX_OVERLAP = 0.2  # maximum overlap of consecutive passages, as a fraction of a passage
_MIN_FILL = 0.6  # a passage ends at a heading or a paragraph if it is filled to this fraction
_BLANK_LINES = re.compile(r"\n\s*\n")
_MIN_WRAPPED = 60  # minimum number of characters of a line that was broken at a maximum width
_ITEM = re.compile(r"\s*(?:[-*•–|#>]|\d+[.)]|[a-zA-Z][.)]) ?")
_LINE = re.compile(r"[^\n]+")
_HEADING = re.compile(r"#{1,6} ")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a text, or a part of a long one.

    Attributes:
        start: Offset of the first character.
        end: Offset after the last character.
        starts_paragraph: Whether a paragraph starts here.
        is_heading: whether it is a heading.
    """

    start: int
    end: int
    starts_paragraph: bool = False
    is_heading: bool = False


def sentences_of(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a text in order. A line break ends a sentence, unless the text was broken there to fit.

    Args:
        text: The text.
    """
    breaks = [(0, 0), *(match.span() for match in _BLANK_LINES.finditer(text)), (len(text), len(text))]
    for (_, begin), (end, _) in pairwise(breaks):
        first, whole = True, text[begin:end].strip()
        heading = "\n" not in whole and len(whole) <= _MAX_HEADING and whole[-1:] not in MARKS
        heading = heading or bool(_HEADING.match(whole))
        for at, line_end in _logical_lines(text, begin, end):
            for start, stop in sentence_spans(text[at:line_end]):
                yield Sentence(at + start, at + stop, first, heading and first)
                first = False


def _logical_lines(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the offsets of the lines of a paragraph. Lines that were broken at a maximum width are joined."""
    start = last = -1
    for line in _LINE.finditer(text, begin, end):
        if start >= 0 and not _is_soft_break(text[start:last].rpartition("\n")[2], line[0]):
            yield start, last
            start = -1
        start, last = (line.start() if start < 0 else start), line.end()
    if start >= 0:
        yield start, last


def _is_soft_break(line: str, following: str) -> bool:
    if line.rstrip()[-1:] in MARKS or "\t" in line or "|" in line or _ITEM.match(following):
        return False
    return following.lstrip()[:1].islower() or len(line) >= _MIN_WRAPPED


def split_passages(text: str, max_characters: int) -> list[tuple[int, int]]:
    """Split a text into passages of whole sentences.

    A passage preferably starts at a heading or a paragraph. It repeats the last sentence of the passage before it if
    that sentence is short and in the same paragraph.

    Args:
        text: The text.
        max_characters: Maximum size in characters. Characters of scripts without spaces count three times.

    Returns:
        Offsets of the first character of each passage, and after its last character.
    """
    passages: list[tuple[int, int]] = []
    pending: list[Sentence] = []
    size = 0.0
    for sentence in _short_enough(text, max_characters):
        weight = _weight(text, sentence)
        boundary = sentence.starts_paragraph and size >= _MIN_FILL * max_characters
        heading = sentence.is_heading and size >= max_characters / 4
        if pending and (size + weight > max_characters or boundary or heading):
            headings = _trailing_headings(pending)
            kept = pending[-headings:] if headings else []
            last = pending.pop() if not kept and not sentence.starts_paragraph and len(pending) > 1 else None
            end = last.end if last else pending[len(pending) - headings - 1].end
            passages.append((pending[0].start, end))
            overlaps = last is not None and _weight(text, last) <= _MAX_OVERLAP * max_characters
            pending = kept or ([last] if overlaps and last is not None else [])
            size = sum(_weight(text, each) for each in pending)
        pending.append(sentence)
        size += weight
    if pending:
        passages.append((pending[0].start, pending[-1].end))
    return passages


def _trailing_headings(spans: list[Sentence]) -> int:
    """Return the number of headings at the end, which belong to the next passage. The first span is not counted."""
    count = 0
    while count < len(spans) - 1 and spans[-1 - count].is_heading:
        count += 1
    return count


def _weight(text: str, span: Sentence) -> int:
    return span.end - span.start + (_UNSPACED_WEIGHT - 1) * n_unspaced(text[span.start : span.end])


def _short_enough(text: str, max_characters: int) -> Iterator[Sentence]:
    """Yield the sentences, and split those that are longer than a passage at white space if there is some."""
    for span in sentences_of(text):
        limit = max_characters // (_UNSPACED_WEIGHT if n_unspaced(text[span.start : span.end]) else 1)
        start, first = span.start, span.starts_paragraph
        while span.end - start > limit:
            cut = text.rfind(" ", start + limit // 2, start + limit)
            cut = cut if cut > 0 else start + limit
            yield Sentence(start, cut, first)
            first = False
            start = cut + 1 if text[cut : cut + 1] == " " else cut
        if start < span.end:
            yield Sentence(start, span.end, first, span.is_heading and start == span.start)


def title_of(text: str) -> str:
    """Return the first line of a text if it is a heading, otherwise ""."""
    first = next(sentences_of(text), None)
    return text[first.start : first.end].lstrip("# ") if first is not None and first.is_heading else ""
