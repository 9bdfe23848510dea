"""Spans of a passage that can be the answer to a question: names, numbers and dates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundup.data.tables import evenly_spaced
from groundup.retrieval.passages import sentences_of
from groundup.retrieval.terms import stop_words

MAX_WORDS = 8  # maximum number of words of an answer
_WORD = re.compile(r"[^\W_](?:[\w'’.,%-]*[\w%])?")
_CURRENCY = ("$", "€", "£", "¥")
# Function words inside names, such as "University of Chicago".
_PARTICLES = frozenset(
    ("of", "the", "de", "du", "des", "del", "della", "di", "da", "do", "la", "le", "von", "van", "der", "den", "zu")
)


@dataclass(frozen=True, slots=True)
class AnswerCandidate:
    """A span that can be the answer to a question.

    Attributes:
        answer: The span.
        context: The sentence that contains it, and the sentence before.
    """

    answer: str
    context: str


def answer_candidates(text: str, language: str, limit: int) -> list[AnswerCandidate]:
    """Return names, numbers with their units, and dates of a text, evenly spaced over the text.

    Args:
        text: Text of a passage, in one line.
        language: ISO 639-1 code of its language.
        limit: Maximum number of candidates.
    """
    found: dict[str, AnswerCandidate] = {}
    before = 0
    for sentence in sentences_of(text):
        for span in _spans(text[sentence.start : sentence.end], stop_words(language)):
            found.setdefault(span.casefold(), AnswerCandidate(span, text[before : sentence.end].strip()))
        before = sentence.start
    return list(evenly_spaced(list(found.values()), limit))


def _spans(sentence: str, stop: frozenset[str]) -> Iterator[str]:
    words = list(_WORD.finditer(sentence))
    at = 0
    while at < len(words):
        end = _end_of_span(sentence, words, at, stop)
        if at < end <= at + MAX_WORDS and not (at == 0 and end == 1 and words[0][0].isalpha()):
            # The first word of a sentence is upper case even if it is no name.
            start = words[at].start()
            if sentence[start - 1 : start] in _CURRENCY:
                start -= 1
            if words[end - 1].end() - start > 1:
                yield sentence[start : words[end - 1].end()]
        at = max(end, at + 1)


def _end_of_span(sentence: str, words: Sequence[re.Match[str]], at: int, stop: frozenset[str]) -> int:
    """Return the index after the last word of a span that starts at a word, or `at` if none starts there."""
    end = at
    while end < len(words) and _is_part(words[end][0], stop) and (end == at or _adjacent(sentence, words, end)):
        end += 1
        joins = _is_name(words[end - 1][0], stop) and [word[0] for word in words[end : end + 1]]
        if joins and joins[0] in _PARTICLES and end + 1 < len(words) and _is_name(words[end + 1][0], stop):
            end += _adjacent(sentence, words, end) and _adjacent(sentence, words, end + 1)
    if at < end < len(words) and words[end - 1][0][0].isdigit() and _adjacent(sentence, words, end):
        unit = words[end][0]
        end += unit.isalpha() and unit.casefold() not in stop and not _is_year(words[end - 1][0])
    return end


def _adjacent(sentence: str, words: Sequence[re.Match[str]], at: int) -> bool:
    """Return whether a word belongs to the word before it, as in "John Smith" and "May 27, 1937"."""
    gap = sentence[words[at - 1].end() : words[at].start()]
    return gap == " " or (gap == ", " and words[at][0].isdigit())


def _is_part(word: str, stop: frozenset[str]) -> bool:
    return word[0].isdigit() or _is_name(word, stop)


def _is_name(word: str, stop: frozenset[str]) -> bool:
    return word[0].isupper() and word.casefold() not in stop


def _is_year(word: str) -> bool:
    return len(word) == 4 and word.isdigit()
