"""Fit the weights of `groundup.retrieval.evidence_model` on question sets, and print them.

The sets should have questions with and without an answer. The threshold is the lowest probability at which the share of
unanswerable questions that are refused, as the mean over sets and topics, is at least `--refusals`.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.applications.ask import PASSAGES, Question, holds, indexed, read_questions
from groundup.retrieval.evidence_model import ScoredSentence, scored_sentences

_REGULARIZATION = 1.0  # C of scikit-learn


def main() -> None:
    """Fit both models, and print weights and threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, help="directories of question sets")
    parser.add_argument("--refusals", type=float, default=0.8, help="share of questions to refuse [0.8]")
    options = parser.parse_args()
    asked = [(path.name, *each) for path in options.sets for each in _candidates(path)]
    rows = [(each.sentence_features, _is_answer(q, each)) for _, q, found in asked if q.answers for each in found]
    sentence_weights, _ = _fit(rows)
    chosen = [
        (name, q, max(found, key=lambda each: float(sentence_weights @ each.sentence_features)))
        for name, q, found in asked
        if found
    ]
    weights, intercept = _fit([(each.answer_features, _is_near_answer(q, each)) for _, q, each in chosen])
    refused = defaultdict(list)
    for name, q, each in chosen:
        if not q.answers:
            score = float(weights @ each.answer_features) + intercept
            refused[name, q.topic].append(1 / (1 + np.exp(-score)))
    thresholds = np.arange(0.05, 1, 0.01)
    shares = [statistics.fmean(np.mean(np.array(group) < at) for group in refused.values()) for at in thresholds]
    threshold = next(at for at, share in zip(thresholds, shares, strict=True) if share >= options.refusals)
    print("SENTENCE_WEIGHTS", tuple(sentence_weights.round(2).tolist()))
    print("ANSWER_WEIGHTS", tuple(weights.round(2).tolist()), "ANSWER_INTERCEPT", round(intercept, 2))
    print("MIN_QUOTE_PROBABILITY", round(float(threshold), 2))


def _candidates(directory: Path) -> list[tuple[Question, list[ScoredSentence]]]:
    with indexed(directory) as index:
        found = []
        for each in read_questions(directory):
            passages = index.search(each.question, PASSAGES)
            sentences = scored_sentences(index, each.question, passages) if passages else ()
            found.append((each, [sentence for sentence in sentences if not sentence.is_heading]))
        return found


def _is_answer(question: Question, sentence: ScoredSentence) -> bool:
    return holds(question, sentence.passage.origin, sentence.text)


def _is_near_answer(question: Question, sentence: ScoredSentence) -> bool:
    """Return whether the sentence, or the text of the same length around it, contains a reference answer."""
    passage = sentence.passage
    size = sentence.end - sentence.start
    begin = max(sentence.start - passage.start - size, 0)
    return holds(question, passage.origin, passage.text[begin : sentence.end - passage.start + size])


def _fit(rows: Sequence[tuple[tuple[float, ...], bool]]) -> tuple[Any, float]:
    """Return the weights and the intercept of a logistic regression with standardized features."""
    from sklearn.linear_model import LogisticRegression

    features = np.array([row for row, _ in rows])
    mean, deviation = features.mean(0), features.std(0)
    model = LogisticRegression(C=_REGULARIZATION, max_iter=1000)
    model.fit((features - mean) / deviation, np.array([label for _, label in rows]))
    weights = model.coef_[0] / deviation
    return weights, float(model.intercept_[0] - weights @ mean)


if __name__ == "__main__":
    main()
