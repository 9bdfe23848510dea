"""A model beside the one that it was trained on from, on the same documents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.evaluation.bpb import FEW_DOCUMENTS, BitsPerByte
from groundup.evaluation.stats import Interval, paired_difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """Bits per byte before and after, and what lies between.

    Attributes:
        difference: after - before, with its interval over documents.
    """

    after: float
    before: float
    difference: Interval

    @property
    def verdict(self) -> str:
        """Whether it is more than noise."""
        if not self.difference.excludes_zero:
            return "no difference that is more than noise"
        return "better" if self.difference.estimate < 0 else "worse"

    @property
    def sentence(self) -> str:
        """The finding, for people."""
        low, high = (f"{bound:+.3f}" if math.isfinite(bound) else "?" for bound in self._bounds)
        return (
            f"{self.after:.3f} bits per byte, {self.before:.3f} before; "
            f"difference {self.difference.estimate:+.3f} [{low}, {high}]: {self.verdict}."
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; a bound that is infinite (a single document) is null."""
        bounds = [bound if math.isfinite(bound) else None for bound in self._bounds]
        return {
            "after": self.after,
            "before": self.before,
            "difference": self.difference.estimate,
            "difference_interval": bounds,
            "verdict": self.verdict,
        }

    @property
    def _bounds(self) -> tuple[float, float]:
        return self.difference.low, self.difference.high


def compare(after: BitsPerByte, before: BitsPerByte, *, seed: int = 0) -> Comparison:
    """Two scores of the same documents; the models may have different tokenizers.

    Documents are resampled in pairs. Where they are few and both cut them into the same windows, those are.
    """
    after_bits, before_bits, sizes = paired_bits(after, before)
    return Comparison(after.bpb, before.bpb, paired_difference(after_bits, before_bits, sizes, seed=seed))


def paired_bits(
    after: BitsPerByte, before: BitsPerByte
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What is drawn anew in pairs: the bits that each model needs for it, and its bytes."""
    assert np.array_equal(after.document_bytes, before.document_bytes)
    sizes, nll = after.document_bytes.astype(np.float64), (after.document_nll, before.document_nll)
    if after.documents < FEW_DOCUMENTS and np.array_equal(after.window_tokens, before.window_tokens):
        sizes, nll = after.window_bytes, (after.window_nll, before.window_nll)
    return nll[0] / math.log(2), nll[1] / math.log(2), sizes
