"""Text of passages for a model, and the check that a passage supports an answer."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.retrieval.embedded_instructions import without_instructions
from groundup.retrieval.evidence_model import ScoredSentence, scored_sentences
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.passages import sentences_of
from groundup.retrieval.terms import content_terms, numbers, terms

_MIN_WORDS = 0.8  # minimum fraction of the content words of an answer that its passage contains


def readable(passage: Passage) -> str:
    """Return the text of a passage for a model: one line, without instructions to a language model.

    A passage without line breaks cannot end the block that contains it in a prompt.
    """
    kept = without_instructions(passage.text, list(sentences_of(passage.text)))
    return " ".join(" ".join(passage.text[each.start : each.end].split()) for each in kept)


def evidence_for(index: Index, question: str, answer: str, passage: Passage) -> ScoredSentence | None:
    """Return the sentence of a passage that supports an answer, or None if the passage does not support it.

    Args:
        index: Index of the passage.
        question: The question.
        answer: The answer.
        passage: The passage.
    """
    return supporting_sentence(question, answer, list(scored_sentences(index, question, [passage])))


def supporting_sentence(question: str, answer: str, sentences: Sequence[ScoredSentence]) -> ScoredSentence | None:
    """Return the sentence of a passage that supports an answer, or None if the passage does not support it.

    The passage supports the answer if it contains all of its numbers and at least 80 % of its content words, and if the
    answer has a content word that the question does not have.

    Args:
        question: The question.
        answer: The answer.
        sentences: Sentences of the passage, without instructions to a language model.
    """
    if not sentences:
        return None
    language = sentences[0].passage.language
    said = set(content_terms(answer, language))
    asked = set(terms(question, language))
    texts = " ".join(each.text for each in sentences)
    held = set(terms(texts, language))
    if not said - asked or not numbers(answer) <= numbers(texts):
        return None
    if len(said & held) < _MIN_WORDS * len(said):
        return None
    verbatim = " ".join(answer.casefold().split()).rstrip(".")

    def fit(each: ScoredSentence) -> tuple[bool, int, float]:
        inside = verbatim in " ".join(each.text.casefold().split())
        own = said & set(terms(each.text, language))
        return inside, len(own), each.near_coverage

    return max(sentences, key=fit)
