"""Short answers and labels: exact match and F1 of words (nearly as SQuAD counts them), macro-F1, and refusals.

Shape letters: E examples, C labels, K sums.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

import numpy as np

from groundup.data.tables import casefolded
from groundup.evaluation.classification import f1_over_labels
from groundup.evaluation.measure import Floats, Measure, mean
from groundup.evaluation.metrics.overlap import overlap_f1

# The letter of "A+" is no article.
_ARTICLES = re.compile(r"\b(a|an|the)\b(?![+#])")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")
_MARKS = re.compile(
    r"((?<!\w)-(?=[$€£]?\.?\d)"  # the sign of a number
    r"|(?<=\d)[.,](?=\d)|(?<![\w.])\.(?=\d)"  # what stands in one, or before its digits
    r"|(?<=[^\W\d_])[+#]+)"  # C++, C#
    rf"|[{re.escape(string.punctuation)}]"
)


def normalized(text: str) -> str:
    """Small letters, without punctuation, articles and more than single spaces (Rajpurkar et al. 2016).

    SQuAD's own deletes every mark: there, "-5" is "5", "3.5" is "35", and "C++" is "C#". Here the minus of a number,
    points and commas between digits, a point before them, and + and # right after a letter stay; commas between
    thousands, as in "1,000", go as they do there. What is nothing but marks and articles ("A" as the letter of a
    choice) stays, too.
    """
    plain = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text.lower().replace("\N{MINUS SIGN}", "-"))
    plain = _MARKS.sub(lambda found: found[1] or "", plain)
    return " ".join(_ARTICLES.sub(" ", plain).split()) or " ".join(text.lower().split())


def label_reader(labels: Iterable[str]) -> Callable[[str], str]:
    """What finds the label that a text is, as it stands in `labels`; a text that is none comes back as it is.

    Small letters and spaces apart, a text must be the label: "-1" is not "1", nor "A-" "A". Where no label is that, it
    may be one with other marks ("Positive." for "positive"), if it is so of one label alone.
    """
    named = {casefolded(label): label for label in reversed(list(labels))}
    alike = Counter(map(normalized, named))
    loosely = {normalized(key): label for key, label in named.items() if alike[normalized(key)] == 1}
    return lambda text: named.get(casefolded(text)) or loosely.get(normalized(text)) or text


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
    right = [100.0 * (a == b) for a, b in zip(predicted, true, strict=True)]
    _, _, macro = label_sets([(label,) for label in predicted], [(label,) for label in true])
    return [mean("accuracy", right), macro]


def label_sets(predicted: Sequence[Collection[str]], true: Sequence[Collection[str]]) -> list[Measure]:
    """Exact sets, micro-F1 of all pairs of a text and a label, and macro-F1 as in `labels`, 0 to 100: of texts that may
    have several labels."""
    pairs = [(set(said), set(labels)) for said, labels in zip(predicted, true, strict=True)]
    names = {label: place for place, label in enumerate(dict.fromkeys(chain.from_iterable(true)))}
    counts_E3C = np.zeros((len(pairs), 3, len(names)))
    for counts_3C, (said, labels) in zip(counts_E3C, pairs, strict=True):
        for counts_C, counted in zip(counts_3C, (said & labels, labels, said), strict=True):
            counts_C[[names[label] for label in counted if label in names]] = 1

    def macro(sums_K: Floats) -> Floats:
        hits, true_C, predicted_C = (sums_K.reshape(*sums_K.shape[:-1], 3, -1)[..., part, :] for part in range(3))
        return 100 * f1_over_labels(hits, true_C, predicted_C)

    return [
        mean("exact sets", [100.0 * (said == labels) for said, labels in pairs]),
        mean(
            "micro-F1",
            [200.0 * len(said & labels) for said, labels in pairs],
            [len(said) + len(labels) for said, labels in pairs],
        ),
        Measure("macro-F1", counts_E3C.reshape(len(pairs), -1), macro),
    ]


def refusals(written: Sequence[str], references: Sequence[str], refusal: str) -> list[Measure]:
    """Answers that say that there is none: how many of those that should, and how many of those that should not.

    Args:
        refusal: the words of such an answer; an answer that begins with them, as whole words, is one.
    """
    words = normalized(refusal).split()
    said, due = (
        np.array([normalized(text).split()[: len(words)] == words for text in texts]) for texts in (written, references)
    )
    return [
        mean("refuses when not there", 100.0 * (said & due), due),
        mean("refuses although it is there", 100.0 * (said & ~due), ~due, less=True),
    ]
