"""Metrics of short answers and labels: exact match and token F1 similar to SQuAD, macro-F1, and refusal rates.

Shape letters: E: number of examples, C: number of labels, K: number of statistics per example (see `Measure`).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from itertools import chain

import numpy as np

from groundup.data.tables import casefolded
from groundup.evaluation.classifiers.single_label import f1_over_labels
from groundup.evaluation.measure import Floats, Measure, mean
from groundup.evaluation.metrics.overlap import overlap_f1

# The negative lookahead keeps the "A" in the grade "A+", because it is not an article.
_ARTICLES = re.compile(r"\b(a|an|the)\b(?![+#])")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")
# A minus sign after a digit is an operator, as in "5-3".
_NUMBER = re.compile(r"(?:(?<![\w.])-)?\$?(?:[0-9]+(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|(?:(?<![\w.])-)?\.[0-9]+")
_PUNCTUATION = re.compile(
    r"((?<!\w)-(?=[$€£]?\.?\d)"  # The minus sign of a number.
    r"|(?<=\d)[.,](?=\d)|(?<![\w.])\.(?=\d)"  # A separator between digits, or the point of a number such as ".5".
    r"|(?<=[^\W\d_])[+#]+)"  # "+" and "#" after a letter, as in "C++" and "C#".
    rf"|[{re.escape(string.punctuation)}]"
)


def normalized(text: str) -> str:
    """Lowercase a text and remove its punctuation, articles and extra spaces, similar to SQuAD (Rajpurkar et al. 2016).

    SQuAD removes all punctuation, so "-5" becomes "5", "3.5" becomes "35", and "C++" becomes "C". This function keeps
    the minus sign of a number, points and commas between digits, and "+" and "#" after a letter. Thousands separators,
    as in "1,000", are removed. If a text consists only of punctuation and articles, such as the choice "A", only case
    and spaces are normalized.

    Args:
        text: text to normalize.

    Returns:
        The normalized text.
    """
    plain = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text.lower().replace("\N{MINUS SIGN}", "-"))
    plain = _PUNCTUATION.sub(lambda found: found[1] or "", plain)
    return " ".join(_ARTICLES.sub(" ", plain).split()) or " ".join(text.lower().split())


def label_parser(labels: Iterable[str]) -> Callable[[str], str]:
    """Return a function that maps a text to the matching label, in the spelling that the label has in `labels`.

    The first comparison of a text with the labels ignores only case and white space, so "-1" does not match "1". If no
    label matches, the text and the labels are normalized with `normalized` and compared again, so "Positive." matches
    "positive". A label that matches after normalization is used only if no other label matches.

    Args:
        labels: all labels.

    Returns:
        A function that returns the matching label, or the text unchanged if it does not match any label.
    """
    named = {casefolded(label): label for label in reversed(list(labels))}
    alike = Counter(map(normalized, named))
    loosely = {normalized(key): label for key, label in named.items() if alike[normalized(key)] == 1}
    return lambda text: named.get(casefolded(text)) or loosely.get(normalized(text)) or text


def exact(written: Sequence[str], references: Sequence[str]) -> Measure:
    """Return the percentage of answers that equal their reference after normalization."""
    pairs = zip(written, references, strict=True)
    return mean("exact match", [100.0 * (normalized(text) == normalized(reference)) for text, reference in pairs])


def token_f1(written: Sequence[str], references: Sequence[str]) -> Measure:
    """Return the mean token F1 between answers and references after normalization, on a scale from 0 to 100."""
    pairs = zip(written, references, strict=True)
    return mean("token F1", [100 * overlap_f1(normalized(a).split(), normalized(b).split()) for a, b in pairs])


def same_number(written: Sequence[str], references: Sequence[str]) -> Measure:
    """Return the percentage of answers whose last number equals the last number of the reference.

    Thousands separators, currency signs and zeros at the end of decimals are ignored, so "$1,000.50" equals "1000.5".
    An answer without a number is wrong. lm-evaluation-harness extracts numbers in the same way (flexible-extract).
    """
    numbers = [
        (_last_number(text), _last_number(reference)) for text, reference in zip(written, references, strict=True)
    ]
    return mean("exact number", [100.0 * (number is not None and number == right) for number, right in numbers])


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return Decimal(found[-1].replace(",", "").replace("$", "")) if found else None


def labels(predicted: Sequence[str], true: Sequence[str]) -> list[Measure]:
    """Return accuracy and macro-F1 on a scale from 0 to 100. Macro-F1 averages over the labels that occur in `true`."""
    right = [100.0 * (a == b) for a, b in zip(predicted, true, strict=True)]
    _, _, macro = label_sets([(label,) for label in predicted], [(label,) for label in true])
    return [mean("accuracy", right), macro]


def label_sets(predicted: Sequence[Collection[str]], true: Sequence[Collection[str]]) -> list[Measure]:
    """Return exact-set accuracy, micro-F1 and macro-F1 of label sets on a scale from 0 to 100.

    Macro-F1 averages over the labels that occur in `true`.
    """
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
    """Return the percentage of correct refusals and the percentage of false refusals.

    Args:
        written: generated answers.
        references: reference answers.
        refusal: text with which an answer begins if it is a refusal. Whole words are compared after normalization.

    Returns:
        Two metrics: the percentage of refusals among the examples whose reference is a refusal, and the percentage of
        refusals among all other examples.
    """
    words = normalized(refusal).split()
    said, due = (
        np.array([normalized(text).split()[: len(words)] == words for text in texts]) for texts in (written, references)
    )
    return [
        mean("correct refusals", 100.0 * (said & due), due),
        mean("false refusals", 100.0 * (said & ~due), ~due, lower_is_better=True),
    ]
