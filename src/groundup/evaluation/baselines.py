"""Baselines without a language model: the most frequent label, TF-IDF, the lead sentences, and the unchanged input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from groundup.core.types import MetricName
from groundup.corpus.quality.sentences import split_sentences
from groundup.evaluation.classifiers.multi_label import Flags, majority_labels, predict_tfidf_sets
from groundup.evaluation.classifiers.single_label import predict_tfidf
from groundup.evaluation.metrics import measures

_MAX_SENTENCES = 5
_NUM_SAMPLED = 300  # Number of training examples that determine the number of lead sentences.


def baselines(
    metric: MetricName, train: Sequence[tuple[str, str]], prompts: Sequence[str], *, labels: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the answers of each baseline to the test prompts.

    Args:
        metric: metric of the answers, which determines which baselines are computed.
        train: (prompt, answer) pairs of the training examples.
        prompts: prompts of the test examples.
        labels: all labels if the answers are labels, otherwise empty; see `measures`.

    Returns:
        A dictionary from the name of each baseline to its answers, one per prompt.
    """
    if not train:
        return {}
    answers = [answer for _, answer in train]
    if metric == "exact" and labels:
        return label_baselines([prompt for prompt, _ in train], answers, prompts)
    bare = without_shared_words([*prompts, *(prompt for prompt, _ in train[:_NUM_SAMPLED])])
    asked, known = bare[: len(prompts)], bare[len(prompts) :]
    if metric == "rouge":
        count = _best_count(known, answers[:_NUM_SAMPLED])
        name = "the first sentence" if count == 1 else f"the first {count} sentences"
        return {name: [lead(text, count) for text in asked]}
    if metric in ("chrf", "bleu"):
        return {"the untranslated input": asked}
    if metric == "exact":
        return {"the most frequent answer": [_most_frequent(answers)] * len(prompts)}
    return {}


def label_baselines(texts: Sequence[str], labels: Sequence[str], test_texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the predictions of two baselines: the most frequent label, and logistic regression on TF-IDF features.

    The TF-IDF baseline is omitted if there is only one label or if the training texts have no words.

    Args:
        texts: training texts.
        labels: one label per training text.
        test_texts: test texts.

    Returns:
        A dictionary from the name of each baseline to its predictions, one label per test text.
    """
    names = list(dict.fromkeys(labels))
    found = {f"always {_most_frequent(labels)!r}": [_most_frequent(labels)] * len(test_texts)}
    places = [names.index(label) for label in labels]
    predicted = predict_tfidf(texts, places, test_texts) if len(names) > 1 else None
    if predicted is not None:
        found["TF-IDF + logistic regression"] = [names[place] for place in predicted]
    return found


def label_set_baselines(
    texts: Sequence[str], sets: Sequence[Sequence[str]], test_texts: Sequence[str]
) -> dict[str, list[tuple[str, ...]]]:
    """Return the predictions of two baselines for multi-label data, keyed by the name of the baseline.

    The majority baseline always predicts the labels that at least half of the training texts have. The TF-IDF baseline
    predicts each label with logistic regression on TF-IDF features.
    """
    names = sorted({label for labels in sets for label in labels})
    learned_EC = np.array([[name in labels for name in names] for labels in sets])

    def named(flags_C: Flags) -> tuple[str, ...]:
        return tuple(name for name, has in zip(names, flags_C, strict=True) if has)

    always = named(majority_labels(learned_EC))
    found = {f"always {', '.join(always)!r}": [always] * len(test_texts)}
    predicted_EC = predict_tfidf_sets(texts, learned_EC, test_texts)
    if predicted_EC is not None:
        found["TF-IDF + logistic regression"] = [named(flags_C) for flags_C in predicted_EC]
    return found


def without_shared_words(prompts: Sequence[str]) -> list[str]:
    """Remove the words that all prompts begin or end with, because these words belong to a prompt template."""
    if len(set(prompts)) < 2:
        return list(prompts)
    start, end = _shared_start(prompts), _shared_start([prompt[::-1] for prompt in prompts])[::-1]
    # Only whole lines or whole words are removed: "An" and "And" begin with the same letters but are different words.
    before = 1 + max(start.rfind("\n"), start.rfind(" ") if "\n" not in start else -1)
    mark = "\n" if "\n" in end else " "
    after = len(end) - end.index(mark) if mark in end else 0
    return [prompt[before : max(before, len(prompt) - after)].strip() for prompt in prompts]


def _shared_start(texts: Sequence[str]) -> str:
    # In sorted order, all other texts are between these two, so they share the same prefix.
    first, last = min(texts), max(texts)
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def lead(text: str, sentences: int) -> str:
    """Return the first `sentences` sentences of a text. A line break also ends a sentence."""
    return " ".join([part for line in text.splitlines() for part in split_sentences(line) if part][:sentences])


def _best_count(texts: Sequence[str], answers: Sequence[str]) -> int:
    def quality(count: int) -> float:
        return measures("rouge", [lead(text, count) for text in texts], answers)[0].estimate

    return max(range(1, _MAX_SENTENCES + 1), key=quality)


def _most_frequent(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]
