"""Verification of written questions: a pair is kept if its passage answers the question and retrieval finds it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from groundup.corpus.quality.words import UNSPACED
from groundup.data.tables import normalized_id
from groundup.retrieval.answering import MIN_COVERAGE
from groundup.retrieval.examples.candidates import MAX_WORDS
from groundup.retrieval.examples.writers import Pair
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.support import evidence_for, readable
from groundup.retrieval.terms import content_terms, words

# Reasons for which a pair is dropped.
NO_QUESTION = "not a question"
REFERS_TO_TEXT = "the question refers to the text"
ANSWER_MISSING = "the answer is not in the passage"
ANSWER_IN_QUESTION = "the question contains the answer"
COPIED = "the question is copied from the passage"
DUPLICATE = "duplicate"
OTHER_TYPE = "the question asks for another type of answer"
NOT_FOUND = "the search does not find the passage"
NOT_SUPPORTED = "the passage does not support the answer"

_FOUND_AT = 5  # the passage must be among the passages that `groundup ask` reads by default
_SEARCHED = 20  # number of passages among which distractors are
_MIN_QUESTION, _MAX_QUESTION = 4, 40  # number of words
_MAX_COPIED = 0.75  # maximum share of a question's words that are one run of words of the passage
_MIN_EVIDENCE = 0.5  # minimum fraction of the question's words in the sentence with the answer
_UNSPACED = re.compile(f"[{UNSPACED}]")
_TEXT = re.compile(
    r"\b(?:the|this|that|these) (?:given |above |following )?"
    r"(?:text|passage|article|paragraph|document|excerpt|context|author|speaker|narrator|sentence|story)s?\b",
    re.IGNORECASE,
)
# English questions that require an answer with a number, and questions that require an answer without one.
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|heavy|often)\b|^when\b|\b(?:what|which) (?:year|date)\b"
    r"|\bthe (?:number|date|year) of\b",
    re.IGNORECASE,
)
_ASKS_NAME = re.compile(r"^(?:who|whom|whose|where)\b|\bthe names? of\b", re.IGNORECASE)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|million|half|once|twice|"
    r"(?:jan|febr)uary|march|april|may|june|july|august|(?:septem|octo|novem|decem)ber|spring|summer|autumn|winter|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class VerifiedPair:
    """A question with the passage that answers it.

    Attributes:
        question: The question.
        answer: The answer in the spelling of the passage.
        passage: The passage.
        distractors: Passages that fit the question and do not contain the answer, with the best passage first. Empty if
            another document contains the answer, so that it is not certain which passages answer the question.
    """

    question: str
    answer: str
    passage: Passage
    distractors: tuple[Passage, ...]


@dataclass(slots=True)
class Verifier:
    """Verification of pairs against the passages of an index.

    Attributes:
        index: The index.
        dropped: Number of dropped pairs for each reason.
    """

    index: Index
    dropped: Counter[str] = field(default_factory=Counter)
    _seen: set[object] = field(default_factory=set)

    def verify(self, pair: Pair, passage: Passage) -> VerifiedPair | None:
        """Return a pair with its distractors, or None if it is dropped. The reason is counted.

        Args:
            pair: The pair.
            passage: Passage to which the question was written.
        """
        found = self._verified(pair, passage)
        if isinstance(found, str):
            self.dropped[found] += 1
            return None
        return found

    def _verified(self, pair: Pair, passage: Passage) -> VerifiedPair | str:
        text, question = readable(passage), " ".join(pair.question.split())
        if reason := _problem_of_question(question, text):
            return reason
        answer = _span(pair.answer, text)
        if not answer or len(answer.split()) > MAX_WORDS:
            return ANSWER_MISSING
        if _contains(question, answer):
            return ANSWER_IN_QUESTION
        if (_ASKS_NAME if _NUMBER.search(answer) else _ASKS_NUMBER).search(question):
            return OTHER_TYPE
        keys = normalized_id(question), (frozenset(content_terms(question, passage.language)), answer.casefold())
        if not self._seen.isdisjoint(keys):
            return DUPLICATE
        found = self.index.search(question, _SEARCHED)
        own = next((each for each in found[:_FOUND_AT] if _is_same(each, passage)), None)
        if own is None or own.coverage < MIN_COVERAGE:
            return NOT_FOUND
        evidence = evidence_for(self.index, question, answer, own)
        # Words of other sentences do not count: a small model often asks about another fact of the passage.
        if evidence is None or evidence.own_coverage < _MIN_EVIDENCE:
            return NOT_SUPPORTED
        self._seen.update(keys)
        return VerifiedPair(question, answer, own, tuple(self._distractors(question, answer, own, found)))

    def _distractors(self, question: str, answer: str, own: Passage, found: list[Passage]) -> Iterator[Passage]:
        others = [each for each in found if not _is_same(each, own)]
        if any(_contains(each.text, answer) for each in others if each.document_id != own.document_id):
            return
        for each in others:
            fits = each.coverage >= MIN_COVERAGE and readable(each) and not _contains(each.text, answer)
            if fits and evidence_for(self.index, question, answer, each) is None:
                yield each


def _problem_of_question(question: str, text: str) -> str:
    asked = words(question)
    if not question.endswith(("?", "？", "؟")) or not _MIN_QUESTION <= len(asked) <= _MAX_QUESTION:
        return NO_QUESTION
    if _TEXT.search(question):
        return REFERS_TO_TEXT
    size = max(round(_MAX_COPIED * len(asked)), _MIN_QUESTION)
    if _runs(asked, size) & _runs(words(text), size):
        return COPIED
    return ""


def _runs(found: list[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(found[start : start + size]) for start in range(len(found) - size + 1)}


def _span(answer: str, text: str) -> str:
    """Return an answer as it is written in a text, or "" if the text does not contain it."""
    wanted = answer.strip().strip("\"'“”").rstrip(".").split()
    if not wanted:
        return ""
    spaced = r"\s+".join(map(re.escape, wanted))
    # A script without spaces has no word boundaries: an answer in it, or next to it, may start and end anywhere.
    before = "" if _UNSPACED.match(wanted[0][0]) else rf"(?<![^\W{UNSPACED}])"
    after = "" if _UNSPACED.match(wanted[-1][-1]) else rf"(?![^\W{UNSPACED}])"
    match = re.search(f"{before}{spaced}{after}", text, re.IGNORECASE)
    return match[0] if match else ""


def _contains(text: str, answer: str) -> bool:
    return f" {' '.join(words(answer))} " in f" {' '.join(words(text))} "


def _is_same(one: Passage, other: Passage) -> bool:
    return (one.document, one.start) == (other.document, other.start) or one.text == other.text
