"""Evidence: the sentence of a passage that answers a question, and the check that a passage supports an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.retrieval.chunks import Sentence, sentences_of
from groundup.retrieval.embedded_instructions import without_instructions
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.terms import numbers, stop_words, terms

_MIN_WORDS = 0.8  # minimum fraction of the content words of an answer that its passage contains
_NEAR = 1  # number of sentences before and after the evidence in which words of the question count


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence of a passage.

    Attributes:
        passage: The passage.
        start: Offset of the sentence in the text of the document.
        end: Offset after the sentence.
        text: The sentence.
        coverage: Fraction of the question's words in the sentence and the sentences next to it, weighted by their
            inverse document frequency.
        page: Page on which the sentence starts, or None if the format has no pages.
    """

    passage: Passage
    start: int
    end: int
    text: str
    coverage: float
    page: int | None = None


def readable(passage: Passage) -> str:
    """Return the text of a passage for a model: one line, without instructions to a language model.

    A passage without line breaks cannot end the block that contains it in a prompt.
    """
    kept = without_instructions(passage.text, list(sentences_of(passage.text)))
    return " ".join(" ".join(passage.text[each.start : each.end].split()) for each in kept)


def best_sentence(index: Index, question: str, passage: Passage) -> Evidence | None:
    """Return the sentence of a passage that contains most of the question, or None if there is no sentence."""
    kept = _kept(passage)
    found = [_evidence(index, question, passage, kept, at) for at, each in enumerate(kept) if not each.is_heading]
    return max(found, key=lambda each: (_own(index, question, each), each.coverage), default=None)


def evidence_for(index: Index, question: str, answer: str, passage: Passage) -> Evidence | None:
    """Return the sentence of a passage that supports an answer, or None if the passage does not support it.

    The passage supports the answer if it contains all of its numbers and at least 80 % of its content words, and if the
    answer has a content word that the question does not have.

    Args:
        index: Index of the passage.
        question: The question.
        answer: The answer.
        passage: The passage.
    """
    kept = _kept(passage)
    stop = stop_words(passage.language)
    said = {word for word in terms(answer, passage.language) if word not in stop} or set(
        terms(answer, passage.language)
    )
    asked = set(terms(question, passage.language))
    texts = [passage.text[each.start : each.end] for each in kept]
    held = set(terms(" ".join(texts), passage.language))
    if not said - asked or not numbers(answer) <= numbers(" ".join(texts)):
        return None
    if len(said & held) < _MIN_WORDS * len(said):
        return None
    verbatim = " ".join(answer.casefold().split()).rstrip(".")

    def fit(at: int) -> tuple[bool, int, float]:
        inside = verbatim in " ".join(texts[at].casefold().split())
        own = said & set(terms(texts[at], passage.language))
        return inside, len(own), _evidence(index, question, passage, kept, at).coverage

    return _evidence(index, question, passage, kept, max(range(len(kept)), key=fit))


def _kept(passage: Passage) -> list[Sentence]:
    return list(without_instructions(passage.text, list(sentences_of(passage.text))))


def _evidence(index: Index, question: str, passage: Passage, kept: Sequence[Sentence], at: int) -> Evidence:
    near = kept[max(at - _NEAR, 0) : at + _NEAR + 1]
    window = "\n".join([passage.title, *(passage.text[each.start : each.end] for each in near)])
    start, end = kept[at].start, kept[at].end
    coverage = round(index.coverage(question, window, passage.language), 4)
    page = index.documents[passage.document].page(passage.start + start)
    return Evidence(passage, passage.start + start, passage.start + end, passage.text[start:end], coverage, page)


def _own(index: Index, question: str, evidence: Evidence) -> float:
    return index.coverage(question, evidence.text, evidence.passage.language)
