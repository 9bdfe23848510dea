"""Translation metrics that give the same results as sacrebleu: chrF (Popović 2015) and BLEU (Papineni et al. 2002).

Both are corpus-level metrics, so n-gram counts are summed over all sentences before the scores are computed.

Shape letters: K: number of statistics per example (see `Measure`), N: number of n-gram orders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from groundup.evaluation.measure import Floats, Measure, divided

_MAX_CHARACTERS = 6  # Maximum n-gram size of chrF2.
_BETA = 2.0  # Parameter beta of the F-score. Recall counts beta times as much as precision.
_MAX_WORDS = 4  # Maximum n-gram size of BLEU.

# The tokenizer of the WMT scoring script mteval-v13a, which sacrebleu calls "13a".
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
_SPLITS = (
    (re.compile(r"([ -&(-+:-@\[-`{-~/])"), r" \1 "),  # All ASCII punctuation except "'", ",", "-" and ".".
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def chrf(written: Sequence[str], references: Sequence[str]) -> Measure:
    """Return chrF2 on a scale from 0 to 100: the F2-score of character 1-grams to 6-grams, ignoring white space."""
    pairs = zip(
        ("".join(text.split()) for text in written), ("".join(text.split()) for text in references), strict=True
    )
    rows = [[counted for size in range(1, _MAX_CHARACTERS + 1) for counted in _matches(*pair, size)] for pair in pairs]
    return Measure("chrF", np.array(rows, dtype=np.float64), _chrf)


def bleu(written: Sequence[str], references: Sequence[str]) -> Measure:
    """Return BLEU-4 with exponential smoothing and brevity penalty, on a scale from 0 to 100."""
    rows = []
    for pair in zip(written, references, strict=True):
        hypothesis, reference = map(_tokens, pair)
        matched = [_matches(hypothesis, reference, size)[:2] for size in range(1, _MAX_WORDS + 1)]
        rows.append([*(hits for hits, _ in matched), *(total for _, total in matched), len(hypothesis), len(reference)])
    return Measure("BLEU", np.array(rows, dtype=np.float64), _bleu)


def _matches(hypothesis: Sequence[str], reference: Sequence[str], size: int) -> tuple[int, int, int]:
    """Return the number of n-grams that both texts share, and the number of n-grams in each text."""
    counts = [
        Counter(tuple(text[start : start + size]) for start in range(len(text) - size + 1))
        for text in (hypothesis, reference)
    ]
    return (counts[0] & counts[1]).total(), counts[0].total(), counts[1].total()


def _chrf(sums_K: Floats) -> Floats:
    hits_N, hypothesis_N, reference_N = (sums_K[..., start::3] for start in range(3))
    counted_N = (hypothesis_N > 0) & (reference_N > 0)  # n-grams longer than the texts do not count.
    orders = np.maximum(counted_N.sum(-1), 1)
    precision = np.where(counted_N, divided(hits_N, hypothesis_N), 0).sum(-1) / orders
    recall = np.where(counted_N, divided(hits_N, reference_N), 0).sum(-1) / orders
    return 100 * divided((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall)


def _bleu(sums_K: Floats) -> Floats:
    hits_N, totals_N = sums_K[..., :_MAX_WORDS], sums_K[..., _MAX_WORDS : 2 * _MAX_WORDS]
    hypothesis, reference = sums_K[..., -2], sums_K[..., -1]
    # Exponential smoothing: the first n-gram order without a match counts as 1/2 match, the second one as 1/4, etc.
    halvings_N = np.cumsum((hits_N == 0) & (totals_N > 0), -1)
    precision_N = divided(np.where(hits_N > 0, hits_N, 0.5**halvings_N), totals_N)
    logs = np.log(precision_N, out=np.full(precision_N.shape, -np.inf), where=precision_N > 0).mean(-1)
    brevity = np.where(hypothesis < reference, 1 - divided(reference, hypothesis), 0)
    found: Floats = np.where((hits_N.sum(-1) > 0) & (hypothesis > 0), 100 * np.exp(logs + brevity), 0)
    return found


def _tokens(text: str) -> list[str]:
    line = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for name, mark in _ENTITIES.items():
        line = line.replace(name, mark)
    line = f" {line} "
    for pattern, spaced in _SPLITS:
        line = pattern.sub(spaced, line)
    return line.split()
