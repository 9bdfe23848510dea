"""ROUGE, which measures the n-gram overlap between a summary and its reference (Lin 2004)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial

from groundup.evaluation.measure import Measure, mean

_WORD = re.compile(r"[^\W_]+")


def rouge(written: Sequence[str], references: Sequence[str]) -> list[Measure]:
    """Return ROUGE-L, ROUGE-1 and ROUGE-2 of generated texts.

    These metrics are the F1 scores of the longest common subsequence, of unigrams and of bigrams. For ASCII texts, this
    function gives the same scores as the package rouge-score without stemming. For other texts the scores differ,
    because rouge-score splits words at accented letters and this function does not.

    Args:
        written: generated texts.
        references: reference texts.

    Returns:
        The three metrics on a scale from 0 to 100.
    """
    pairs = [(_words(text), _words(reference)) for text, reference in zip(written, references, strict=True)]
    named = (("ROUGE-L", _subsequence), ("ROUGE-1", partial(_common, size=1)), ("ROUGE-2", partial(_common, size=2)))
    return [mean(name, [100 * score(*pair) for pair in pairs]) for name, score in named]


def overlap_f1(written: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 score (0 to 1) between two texts, each of which is treated as a bag of words."""
    return _f1((Counter(written) & Counter(reference)).total(), len(written), len(reference))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f1(common: int, written: int, reference: int) -> float:
    return 2 * common / (written + reference) if common else 0.0


def _common(written: Sequence[str], reference: Sequence[str], *, size: int) -> float:
    hypothesis, theirs = (
        [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]
        for words in (written, reference)
    )
    return overlap_f1(hypothesis, theirs)


def _subsequence(written: Sequence[str], reference: Sequence[str]) -> float:
    above = [0] * (len(reference) + 1)
    for word in written:
        row = [0]
        for place, theirs in enumerate(reference):
            row.append(above[place] + 1 if word == theirs else max(above[place + 1], row[place]))
        above = row
    return _f1(above[-1], len(written), len(reference))
