"""The evidence model: which sentence of the passages answers a question, and how certain this is.

Two logistic regressions with few features. `benchmarks.applications.fit_evidence` fits them, and docs/documents.md has
the question sets and the results on others. Neither depends on a language model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from groundup.retrieval.embedded_instructions import without_instructions
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.passages import sentences_of
from groundup.retrieval.terms import stop_words, terms

_NEAR = 1  # number of sentences before and after a sentence in which words of the question count

SENTENCE_WEIGHTS = (0.69, 3.14, 1.04, 4.1, 0.25)
"""Weights of `ScoredSentence.sentence_features`. There is no intercept, because sentences are only compared."""
ANSWER_WEIGHTS = (3.19, 2.17, 1.33, 0.83, 1.2, -0.98)
ANSWER_INTERCEPT = -5.95
"""Weights of `ScoredSentence.answer_features`, and the intercept."""


@dataclass(frozen=True, slots=True)
class ScoredSentence:
    """A sentence that may answer a question. Fractions of words are weighted by inverse document frequency.

    Attributes:
        passage: Passage of the sentence.
        start: Offset of the sentence in the text of the document.
        end: Offset after the sentence.
        is_heading: Whether it is a heading.
        rank: Rank of the passage, from 0.
        near_coverage: Fraction of the question's words in the sentence, the sentences next to it, and the title.
        own_coverage: Fraction of the question's words in the sentence.
        passage_coverage: Fraction of the question's words in the passage and the title.
        missing: Weight of the rarest word that the passage lacks, divided by that of the rarest word.
        frequency: Fraction of the question's words in the passage and the title, each multiplied by f / (f + 1.2), as
            in BM25, where f is its number of occurrences.
        runner_up: Second-highest BM25 score of the passages, divided by the highest.
        num_asked: Number of words of the question.
        num_new: Number of distinct content words of the sentence that the question lacks.
    """

    passage: Passage
    start: int
    end: int
    is_heading: bool
    rank: int
    near_coverage: float
    own_coverage: float
    passage_coverage: float
    missing: float
    frequency: float
    runner_up: float
    num_asked: int
    num_new: int

    @property
    def text(self) -> str:
        """The sentence."""
        return self.passage.text[self.start - self.passage.start : self.end - self.passage.start]

    @property
    def sentence_features(self) -> tuple[float, ...]:
        """Features that compare the sentences of all passages."""
        coverages = (self.near_coverage, self.own_coverage, self.passage_coverage)
        return (*coverages, 1 / (1 + self.rank), math.log1p(self.num_new))

    @property
    def answer_features(self) -> tuple[float, ...]:
        """Features that show whether the documents answer the question at all."""
        coverages = (self.near_coverage, self.own_coverage)
        return (*coverages, self.frequency, self.missing, math.log(max(self.num_asked, 1)), self.runner_up)

    @property
    def sentence_score(self) -> float:
        """Score of the sentence relative to other sentences for the same question."""
        return _dot(SENTENCE_WEIGHTS, self.sentence_features)

    @property
    def probability(self) -> float:
        """Probability that the sentence and the sentences next to it answer the question."""
        return 1 / (1 + math.exp(-_dot(ANSWER_WEIGHTS, self.answer_features) - ANSWER_INTERCEPT))


def scored_sentences(index: Index, question: str, passages: Sequence[Passage]) -> Iterator[ScoredSentence]:
    """Yield the sentences of passages, except instructions to a language model.

    Args:
        index: Index of the passages.
        question: The question.
        passages: All passages that were found, with the best passage first.
    """
    query = index.query(question)
    first, second, *_ = (*sorted((passage.score for passage in passages), reverse=True), 0.0, 0.0)
    runner_up = second / first if first else 0.0  # a passage that was found by its vector may have the score 0
    for rank, passage in enumerate(passages):
        kept = list(without_instructions(passage.text, list(sentences_of(passage.text))))
        title = terms(passage.title, passage.language)
        found = [terms(passage.text[each.start : each.end], passage.language) for each in kept]
        counts = Counter(chain(title, *found))
        stop = frozenset(terms(" ".join(stop_words(passage.language)), passage.language))
        for at, each in enumerate(kept):
            near = set(title).union(*found[max(at - _NEAR, 0) : at + _NEAR + 1])
            own = set(found[at])
            yield ScoredSentence(
                passage=passage,
                start=passage.start + each.start,
                end=passage.start + each.end,
                is_heading=each.is_heading,
                rank=rank,
                near_coverage=query.coverage(near, passage.language),
                own_coverage=query.coverage(own, passage.language),
                passage_coverage=query.coverage(counts.keys(), passage.language),
                missing=query.missing(counts.keys()),
                frequency=query.frequency(counts),
                runner_up=runner_up,
                num_asked=len(query.weights),
                num_new=len(own - query.terms - stop),
            )


def _dot(weights: Sequence[float], features: Sequence[float]) -> float:
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))
