"""Round-trip check for classifiers: agreement of predicted labels and probabilities.

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
from groundup.tokenizer.edge_cases import EDGE_CASES

_MAX_PARAGRAPHS = 10  # Per page.

_MIN_PROBABILITY = 1e-12  # Lower bound of probabilities before the logarithm.


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """Agreement of a classifier with the reference.

    Attributes:
        texts: number of texts.
        agreed: number of texts with the same labels.
        worst_gap: largest gap in nats between the reference's two most likely labels on texts that differ. For
            multi-label classifiers, the gap between "yes" and "no" of a label.
        max_difference: largest difference of two probabilities.
        kl: mean Kullback-Leibler divergence from the reference, in nats per text.
    """

    texts: int
    agreed: int
    worst_gap: float
    max_difference: float
    kl: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def problems(self, limits: str) -> list[str]:
        """Return the values that exceed the named limits of `round_trip.LIMITS`; empty if the check passed."""
        limit = LIMITS[limits]
        broken = {
            f"{self.agreed:,} of {self.texts:,} texts get the same labels, at least {limit.top1:.1%}": (
                self.agreed >= limit.top1 * self.texts
            ),
            f"labels differ at a gap of {self.worst_gap:.3f} nats, at most {limit.gap:g}": self.worst_gap <= limit.gap,
            f"KL {self.kl:.2e} nats, at most {limit.kl:g}": self.kl <= limit.kl,
        }
        return [problem for problem, fine in broken.items() if not fine]  # A comparison with NaN is False.


def compare_classifiers(
    reference: SequenceClassifier,
    other: SequenceClassifier,
    tokenizer: Tokenizer,
    longest: int,
    *,
    console: Console,
    label: str,
) -> LabelAgreement:
    """Compare two classifiers on paragraphs of Python's reference and on texts with tokenization edge cases.

    Args:
        reference: reference classifier.
        other: classifier to check.
        tokenizer: tokenizer of both.
        longest: maximum number of tokens per text.
        console: output for progress.
        label: label of the progress bar.

    Returns:
        The agreement.
    """
    paragraphs = [part for page in pages() for part in page.split("\n\n")[:_MAX_PARAGRAPHS]]
    ids, _ = encode(tokenizer, [text for text in (*paragraphs, *EDGE_CASES.values()) if text.strip()], longest)
    with console.progress(label, 2 * len(ids), "texts") as bar:
        first, second = (
            predict(model, ids, pad_id=tokenizer.pad_id, advance=bar.advance) for model in (reference, other)
        )
    return agreement(first, second, multi_label=reference.multi_label)


def agreement(reference_EC: NDArray[np.float64], other_EC: NDArray[np.float64], *, multi_label: bool) -> LabelAgreement:
    """Return the agreement of two classifiers' probabilities."""
    if multi_label:  # Each label is a binary decision.
        answers = [np.stack((p_EC, 1 - p_EC), -1) for p_EC in (reference_EC, other_EC)]
        same = above_threshold(reference_EC) == above_threshold(other_EC)
    else:
        answers = [p_EC[:, None] for p_EC in (reference_EC, other_EC)]
        same = (reference_EC.argmax(-1) == other_EC.argmax(-1))[:, None]
    p, q = (np.log(np.maximum(each, _MIN_PROBABILITY)) for each in answers)
    second, best = np.moveaxis(np.sort(p, -1)[..., -2:], -1, 0)
    return LabelAgreement(
        texts=len(reference_EC),
        agreed=int(same.all(-1).sum()),
        worst_gap=float((best - second)[~same].max(initial=0.0)),
        max_difference=float(np.abs(reference_EC - other_EC).max()),
        kl=float((np.exp(p) * (p - q)).sum((-2, -1)).mean()),
    )
