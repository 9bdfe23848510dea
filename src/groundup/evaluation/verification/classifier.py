"""The gate for classifiers: whether two of them give the same texts the same labels, as likely.

Shape letters: E texts, C labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.console import Console
from groundup.evaluation.verification.round_trip import LIMITS, pages
from groundup.inference.classification import above_threshold, encode, predict
from groundup.model import SequenceClassifier
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.torture import TORTURE

_PARAGRAPHS = 10  # of a page

_TINY = 1e-12  # probabilities are not less, so that they have a logarithm


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """What a classifier says, beside the reference.

    Attributes:
        texts, agreed: texts read; those that get the same labels.
        worst_gap: where they do not, how clear the reference was at most: nats between its two likeliest labels; where
            a text may have several, between the likelier answer of a label, yes or no, and the other.
        max_difference: the largest difference of two probabilities.
        kl: mean Kullback-Leibler divergence from the reference, in nats a text.
    """

    texts: int
    agreed: int
    worst_gap: float
    max_difference: float
    kl: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def problems(self, limits: str) -> list[str]:
        """Return what exceeds the named limits of `round_trip.LIMITS`; empty if passed."""
        most = LIMITS[limits]
        broken = {
            f"{self.agreed:,} of {self.texts:,} texts get the same labels, at least {most.top1:.1%}": (
                self.agreed >= most.top1 * self.texts
            ),
            f"labels differ at a gap of {self.worst_gap:.3f} nats, at most {most.gap:g}": self.worst_gap <= most.gap,
            f"KL {self.kl:.2e} nats, at most {most.kl:g}": self.kl <= most.kl,
        }
        return [problem for problem, fine in broken.items() if not fine]  # NaN is never fine


def compare_classifiers(
    reference: SequenceClassifier,
    other: SequenceClassifier,
    tokenizer: Tokenizer,
    longest: int,
    *,
    console: Console,
    label: str,
) -> LabelAgreement:
    """Have both read paragraphs of Python's own reference and texts that are hard to tokenize.

    Args:
        longest: tokens of a text, at most.
        label: of the progress bar.
    """
    paragraphs = [part for page in pages() for part in page.split("\n\n")[:_PARAGRAPHS]]
    ids, _ = encode(tokenizer, [text for text in (*paragraphs, *TORTURE.values()) if text.strip()], longest)
    with console.progress(label, 2 * len(ids), "texts") as bar:
        first, second = (
            predict(model, ids, pad_id=tokenizer.pad_id, advance=bar.advance) for model in (reference, other)
        )
    return agreement(first, second, multi_label=reference.multi_label)


def agreement(reference_EC: NDArray[np.float64], other_EC: NDArray[np.float64], *, multi_label: bool) -> LabelAgreement:
    """How far two classifiers' probabilities agree."""
    if multi_label:  # each label is a question with two answers
        answers = [np.stack((p_EC, 1 - p_EC), -1) for p_EC in (reference_EC, other_EC)]
        same = above_threshold(reference_EC) == above_threshold(other_EC)
    else:
        answers = [p_EC[:, None] for p_EC in (reference_EC, other_EC)]
        same = (reference_EC.argmax(-1) == other_EC.argmax(-1))[:, None]
    p, q = (np.log(np.maximum(each, _TINY)) for each in answers)
    second, best = np.moveaxis(np.sort(p, -1)[..., -2:], -1, 0)
    return LabelAgreement(
        texts=len(reference_EC),
        agreed=int(same.all(-1).sum()),
        worst_gap=float((best - second)[~same].max(initial=0.0)),
        max_difference=float(np.abs(reference_EC - other_EC).max()),
        kl=float((np.exp(p) * (p - q)).sum((-2, -1)).mean()),
    )
