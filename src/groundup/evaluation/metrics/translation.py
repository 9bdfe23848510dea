"""Translations beside a reference: chrF (Popović 2015) and BLEU (Papineni et al. 2002), as sacrebleu counts them.

Both are figures of a whole corpus: the counts of all sentences are summed before anything is divided.

Shape letters: K sums, N orders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from groundup.evaluation.measure import Floats, Measure, divided

_CHARACTERS = 6  # chrF2: sequences of up to so many characters,
_BETA = 2.0  # with recall weighed so many times as much as precision
_WORDS = 4  # BLEU

# mteval-v13a, the tokenizer of WMT's own scorer, which sacrebleu calls "13a".
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
_APART = (
    (re.compile(r"([ -&(-+:-@\[-`{-~/])"), r" \1 "),  # ASCII's marks, but for ' , - and .
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def chrf(written: Sequence[str], references: Sequence[str]) -> Measure:
    """chrF2: F-score of sequences of one to six characters, white space apart; 0 to 100."""
    pairs = zip(
        ("".join(text.split()) for text in written), ("".join(text.split()) for text in references), strict=True
    )
    rows = [[counted for size in range(1, _CHARACTERS + 1) for counted in _matches(*pair, size)] for pair in pairs]
    return Measure("chrF", np.array(rows, dtype=np.float64), _chrf)


def bleu(written: Sequence[str], references: Sequence[str]) -> Measure:
    """BLEU-4 with exponential smoothing and the brevity penalty; 0 to 100."""
    rows = []
    for text, reference in zip(written, references, strict=True):
        ours, theirs = _tokens(text), _tokens(reference)
        matched = [_matches(ours, theirs, size)[:2] for size in range(1, _WORDS + 1)]
        rows.append([*(hits for hits, _ in matched), *(total for _, total in matched), len(ours), len(theirs)])
    return Measure("BLEU", np.array(rows, dtype=np.float64), _bleu)


def _matches(ours: Sequence[str], theirs: Sequence[str], size: int) -> tuple[int, int, int]:
    """Sequences of a size that both have; of ours, of theirs."""
    counts = [
        Counter(tuple(text[start : start + size]) for start in range(len(text) - size + 1)) for text in (ours, theirs)
    ]
    return (counts[0] & counts[1]).total(), counts[0].total(), counts[1].total()


def _chrf(sums_K: Floats) -> Floats:
    hits_N, ours_N, theirs_N = (sums_K[..., start::3] for start in range(3))
    counted_N = (ours_N > 0) & (theirs_N > 0)  # orders longer than any of the texts say nothing
    orders = np.maximum(counted_N.sum(-1), 1)
    precision = np.where(counted_N, divided(hits_N, ours_N), 0).sum(-1) / orders
    recall = np.where(counted_N, divided(hits_N, theirs_N), 0).sum(-1) / orders
    return 100 * divided((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall)


def _bleu(sums_K: Floats) -> Floats:
    hits_N, totals_N = sums_K[..., :_WORDS], sums_K[..., _WORDS : 2 * _WORDS]
    ours, theirs = sums_K[..., -2], sums_K[..., -1]
    # Each order without a hit counts as half as many hits as the one before it.
    halvings_N = np.cumsum((hits_N == 0) & (totals_N > 0), -1)
    precision_N = divided(np.where(hits_N > 0, hits_N, 0.5**halvings_N), totals_N)
    logs = np.log(precision_N, out=np.full(precision_N.shape, -np.inf), where=precision_N > 0).mean(-1)
    brevity = np.where(ours < theirs, 1 - divided(theirs, ours), 0)
    found: Floats = np.where((hits_N.sum(-1) > 0) & (ours > 0), 100 * np.exp(logs + brevity), 0)
    return found


def _tokens(text: str) -> list[str]:
    line = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for name, mark in _ENTITIES.items():
        line = line.replace(name, mark)
    line = f" {line} "
    for pattern, spaced in _APART:
        line = pattern.sub(spaced, line)
    return line.split()
