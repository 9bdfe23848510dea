"""Evidence: the sentence of a passage that answers a question, and the check that a passage supports an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.retrieval.chunks import Sentence, sentences_of
from groundup.retrieval.embedded_instructions import without_instructions
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.terms import content_terms, numbers, terms

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

    def fit(at: int) -> tuple[float, float]:
        own = passage.text[kept[at].start : kept[at].end]
        return index.coverage(question, own, passage.language), _coverage(index, question, passage, kept, at)

    best = max((at for at, each in enumerate(kept) if not each.is_heading), key=fit, default=None)
    return None if best is None else _evidence(index, question, passage, kept, best)


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
    said = set(content_terms(answer, passage.language))
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
        return inside, len(own), _coverage(index, question, passage, kept, at)

    return _evidence(index, question, passage, kept, max(range(len(kept)), key=fit))


def _kept(passage: Passage) -> list[Sentence]:
    return list(without_instructions(passage.text, list(sentences_of(passage.text))))


def _coverage(index: Index, question: str, passage: Passage, kept: Sequence[Sentence], at: int) -> float:
    """Return the fraction of the question's words in a sentence, its neighbors, and the title."""
    near = kept[max(at - _NEAR, 0) : at + _NEAR + 1]
    window = "\n".join([passage.title, *(passage.text[each.start : each.end] for each in near)])
    return round(index.coverage(question, window, passage.language), 4)


def _evidence(index: Index, question: str, passage: Passage, kept: Sequence[Sentence], at: int) -> Evidence:
    start, end = kept[at].start, kept[at].end
    coverage = _coverage(index, question, passage, kept, at)
    page = index.documents[passage.document].page(passage.start + start)
    return Evidence(passage, passage.start + start, passage.start + end, passage.text[start:end], coverage, page)
