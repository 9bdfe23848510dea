"""Round-trip check for classifiers, which compares predicted labels and probabilities.

Shape letters: E: number of texts, C: number of labels.
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

_MAX_PARAGRAPHS = 10  # Maximum number of paragraphs per page.

_MIN_PROBABILITY = 1e-12  # Smaller probabilities are replaced by this value before the logarithm is taken.


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """Agreement of a classifier with a reference classifier.

    Attributes:
        texts: number of texts.
        agreed: number of texts for which both classifiers predict the same labels.
        worst_gap: largest difference in nats between the log-probabilities of the reference classifier's two most
            likely labels, over the texts with different predictions. For a multi-label classifier, it is the difference
            between the two outcomes of one label: the text has the label, or it does not have it.
        max_difference: largest absolute difference between the probabilities of the two classifiers.
        kl: mean Kullback-Leibler divergence from the reference classifier, in nats per text.
    """

    texts: int
    agreed: int
    worst_gap: float
    max_difference: float
    kl: float

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)

    def problems(self, limits: str) -> list[str]:
        """Return a message for each value that exceeds its limit; empty if the check passed.

        `limits` is a key of `round_trip.LIMITS`.
        """
        limit = LIMITS[limits]
        broken = {
            f"{self.agreed:,} of {self.texts:,} texts get the same labels, less than {limit.top1:.1%}": (
                self.agreed >= limit.top1 * self.texts
            ),
            f"labels differ at a gap of {self.worst_gap:.3f} nats, more than {limit.gap:g}": (
                self.worst_gap <= limit.gap
            ),
            f"KL divergence {self.kl:.2e} nats, more than {limit.kl:g}": self.kl <= limit.kl,
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
    """Compare two classifiers on paragraphs of the Python language reference and on tokenization edge cases.

    Args:
        reference: reference classifier.
        other: classifier to check.
        tokenizer: tokenizer of both classifiers.
        longest: maximum number of tokens per text.
        console: console that prints progress.
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
    """Compute the agreement of two classifiers from their predicted probabilities."""
    if multi_label:  # The prediction of each label is a separate binary decision.
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
