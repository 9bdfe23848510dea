"""What costs nothing, on the same examples: the commonest label, counted words, first sentences, the text itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from groundup.core.types import MetricName
from groundup.corpus.quality.sentences import split_sentences
from groundup.evaluation.classification import predict_tfidf
from groundup.evaluation.label_sets import Flags, predict_tfidf_sets, usual
from groundup.evaluation.metrics import measures

_MOST_SENTENCES = 5
_SAMPLE = 300  # training examples that say how many sentences


def baselines(
    metric: MetricName, learned: Sequence[tuple[str, str]], prompts: Sequence[str], *, labels: Sequence[str] = ()
) -> dict[str, list[str]]:
    """What simple ways answer to the prompts, by the name of each.

    Args:
        metric: that of the answers, which says what they are.
        learned: (prompt, answer) of the training examples.
        prompts: of the examples that are tested.
        labels: as for `measures`.
    """
    if not learned:
        return {}
    answers = [answer for _, answer in learned]
    if metric == "exact" and labels:
        return label_baselines([prompt for prompt, _ in learned], answers, prompts)
    bare = without_shared_words([*prompts, *(prompt for prompt, _ in learned[:_SAMPLE])])
    asked, known = bare[: len(prompts)], bare[len(prompts) :]
    if metric == "rouge":
        count = _best_count(known, answers[:_SAMPLE])
        name = "the first sentence" if count == 1 else f"the first {count} sentences"
        return {name: [lead(text, count) for text in asked]}
    if metric in ("chrf", "bleu"):
        return {"the text, untranslated": asked}
    if metric == "exact":
        return {"the commonest answer": [_commonest(answers)] * len(prompts)}
    return {}


def label_baselines(texts: Sequence[str], labels: Sequence[str], tested: Sequence[str]) -> dict[str, list[str]]:
    """The commonest label, and TF-IDF with logistic regression where there are words to count.

    Args:
        texts, labels: of the training examples.
    """
    names = list(dict.fromkeys(labels))
    found = {f"always {_commonest(labels)!r}": [_commonest(labels)] * len(tested)}
    places = [names.index(label) for label in labels]
    predicted = predict_tfidf(texts, places, tested) if len(names) > 1 else None
    if predicted is not None:
        found["TF-IDF + logistic regression"] = [names[place] for place in predicted]
    return found


def label_set_baselines(
    texts: Sequence[str], sets: Sequence[Sequence[str]], tested: Sequence[str]
) -> dict[str, list[tuple[str, ...]]]:
    """`label_baselines` where a text may have several: what half of the texts have, and TF-IDF for each label."""
    names = sorted({label for labels in sets for label in labels})
    learned_EC = np.array([[name in labels for name in names] for labels in sets])

    def named(flags_C: Flags) -> tuple[str, ...]:
        return tuple(name for name, has in zip(names, flags_C, strict=True) if has)

    always = named(usual(learned_EC))
    found = {f"always {', '.join(always)!r}": [always] * len(tested)}
    predicted_EC = predict_tfidf_sets(texts, learned_EC, tested)
    if predicted_EC is not None:
        found["TF-IDF + logistic regression"] = [named(flags_C) for flags_C in predicted_EC]
    return found


def without_shared_words(prompts: Sequence[str]) -> list[str]:
    """Prompts without the words that all of them begin or end with: the template that they were laid out in."""
    if len(set(prompts)) < 2:
        return list(prompts)
    start, end = _shared_start(prompts), _shared_start([prompt[::-1] for prompt in prompts])[::-1]
    # Whole lines, or else whole words: two texts that happen to begin with "An" and "And" share nothing.
    before = 1 + max(start.rfind("\n"), start.rfind(" ") if "\n" not in start else -1)
    mark = "\n" if "\n" in end else " "
    after = len(end) - end.index(mark) if mark in end else 0
    return [prompt[before : max(before, len(prompt) - after)].strip() for prompt in prompts]


def _shared_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # in order, all others lie between
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def lead(text: str, sentences: int) -> str:
    """The first sentences of a text; a line that ends without a mark ends a sentence, too."""
    return " ".join([part for line in text.splitlines() for part in split_sentences(line) if part][:sentences])


def _best_count(texts: Sequence[str], answers: Sequence[str]) -> int:
    def quality(count: int) -> float:
        return measures("rouge", [lead(text, count) for text in texts], answers)[0].estimate

    return max(range(1, _MOST_SENTENCES + 1), key=quality)


def _commonest(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]
