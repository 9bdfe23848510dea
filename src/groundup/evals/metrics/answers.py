"""Short answers and labels: exact match and F1 of words (as SQuAD counts them), macro-F1, and refusals.

Shape letters: E examples, C labels, K sums.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

from groundup.evals.classification import f1_over_labels
from groundup.evals.metrics.measure import Floats, Measure, mean
from groundup.evals.metrics.overlap import overlap_f1

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Small letters, without punctuation, articles and more than single spaces (Rajpurkar et al. 2016).

    What is nothing but those ("A" as the letter of a choice) stays.
    """
    plain = text.lower().translate(_MARKS)
    return " ".join(_ARTICLES.sub(" ", plain).split()) or " ".join(text.lower().split())


def exact(written: Sequence[str], references: Sequence[str]) -> Measure:
    """The share of answers that are the reference, once both are normalized; 0 to 100."""
    pairs = zip(written, references, strict=True)
    return mean("exact match", [100.0 * (normalized(text) == normalized(reference)) for text, reference in pairs])


def token_f1(written: Sequence[str], references: Sequence[str]) -> Measure:
    """The mean F1 of the words of both, once normalized; 0 to 100."""
    pairs = zip(written, references, strict=True)
    return mean("F1 of words", [100 * overlap_f1(normalized(a).split(), normalized(b).split()) for a, b in pairs])


def labels(predicted: Sequence[str], true: Sequence[str]) -> list[Measure]:
    """Accuracy and macro-F1, 0 to 100; a prediction that is no label of `true` is wrong, whatever it is.

    Macro-F1 is the mean over the labels that are true somewhere.
    """
    names = {label: place for place, label in enumerate(dict.fromkeys(true))}
    counts_E3C = np.zeros((len(true), 3, len(names)))
    for example, (said, label) in enumerate(zip(predicted, true, strict=True)):
        counts_E3C[example, 1, names[label]] = 1
        if said in names:
            counts_E3C[example, 2, names[said]] = 1
            counts_E3C[example, 0, names[said]] = said == label

    def macro(sums_K: Floats) -> Floats:
        hits, true_C, predicted_C = (sums_K.reshape(*sums_K.shape[:-1], 3, -1)[..., part, :] for part in range(3))
        return 100 * f1_over_labels(hits, true_C, predicted_C)

    right = [100.0 * (a == b) for a, b in zip(predicted, true, strict=True)]
    return [mean("accuracy", right), Measure("macro-F1", counts_E3C.reshape(len(true), -1), macro)]


def refusals(written: Sequence[str], references: Sequence[str], refusal: str) -> list[Measure]:
    """Answers that say that there is none: how many of those that should, and how many of those that should not.

    Args:
        refusal: the words of such an answer; an answer that begins with them is one.
    """
    words = normalized(refusal)
    said, due = (np.array([normalized(text).startswith(words) for text in texts]) for texts in (written, references))
    return [
        mean("refuses when not there", 100.0 * (said & due), due),
        mean("refuses although it is there", 100.0 * (said & ~due), ~due, less=True),
    ]
