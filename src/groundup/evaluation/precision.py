"""Choice of the dtype for scoring: bfloat16 if it is faster on this machine and the score stays the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.data import TokenDocuments, TokenLists
from groundup.evaluation.bpb import bits_per_byte, model_nll
from groundup.kernels import ComputeDtype, fastest_dtype, use_compute_dtype
from groundup.model import Transformer

MAX_DIFFERENCE = 1e-3  # Of the bits per byte, relative to float32.
_NUM_PIECES, _PIECE_TOKENS = 8, 512  # Sample on which both dtypes are compared.
_MIN_SAMPLES = (
    8  # Texts of fewer than this many samples are scored in float32: the comparison would take longer than it saves.
)


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of a score and how it was chosen.

    Attributes:
        dtype: data type to compute in.
        difference: bits per byte in bfloat16 relative to float32, minus 1; None: not compared.
        tokens: number of tokens of the comparison.
        chosen: whether the user set the dtype.
    """

    dtype: ComputeDtype
    difference: float | None = None
    tokens: int = 0
    chosen: bool = False

    @property
    def sentence(self) -> str:
        """Message about the choice; empty if the dtypes were not compared."""
        if self.difference is None:
            return ""
        found = (
            f"on {self.tokens:,} tokens of this text, its bits per byte differ by {self.difference:+.4%} from float32"
        )
        if self.dtype == "bfloat16":
            return f"Scored in bfloat16, which is faster here: {found}. For full precision: --set dtype=float32."
        return f"Scored in float32, although bfloat16 is faster here: {found}, more than {MAX_DIFFERENCE:.1%}."

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        checked = {"bfloat16_difference": self.difference, "checked_tokens": self.tokens}
        return {"dtype": self.dtype, **(checked if self.difference is not None else {})}


def choose_precision(
    model: Transformer, documents: TokenDocuments, *, bos_id: int, chosen: ComputeDtype | None = None
) -> Precision:
    """Return the dtype to score these documents in.

    It is bfloat16 if bfloat16 matmuls are faster and the score of an evenly spaced sample is within `MAX_DIFFERENCE` of
    float32.

    Args:
        model: model to score with.
        documents: documents to score.
        bos_id: id of the BOS token.
        chosen: dtype that the user set; None: compare both.

    Returns:
        The dtype and the comparison.
    """
    if chosen is not None:
        return Precision(chosen, chosen=True)
    device = model.lm_head.weight.device
    sample = _sample(documents)
    small = documents.lengths.sum() < _MIN_SAMPLES * _NUM_PIECES * _PIECE_TOKENS
    if small or not len(sample.lengths) or fastest_dtype(device.type)[0] == "float32":
        return Precision("float32")

    def nll(dtype: ComputeDtype) -> float:
        with use_compute_dtype(model, dtype):
            context = model.config.context_length
            return bits_per_byte(model_nll(model), sample, context_length=context, bos_id=bos_id, device=device).nll

    full = nll("float32")
    difference = nll("bfloat16") / full - 1
    same = abs(difference) <= MAX_DIFFERENCE  # False for NaN.
    return Precision("bfloat16" if same else "float32", difference, int(sample.lengths.sum()))


def _sample(documents: TokenDocuments) -> TokenLists:
    """Return evenly spaced pieces of equal length; a document end makes a piece shorter."""
    ends = np.cumsum(documents.lengths)
    total = int(ends[-1]) if len(ends) else 0
    pieces = []
    for number in range(_NUM_PIECES if total else 0):
        place = number * total // _NUM_PIECES
        index = int(np.searchsorted(ends, place, side="right"))
        start = place - int(ends[index] - documents.lengths[index])
        pieces.append(documents.document(index)[start : start + _PIECE_TOKENS].tolist())
    return TokenLists(pieces, np.ones(len(pieces), dtype=np.int64))
