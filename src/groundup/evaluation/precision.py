"""Choice of the dtype for scoring.

bfloat16 is chosen if it is faster on this machine and barely changes the score, otherwise float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.data import TokenDocuments, TokenLists
from groundup.evaluation.bpb import bits_per_byte, model_nll
from groundup.kernels import ComputeDtype, fastest_dtype, use_compute_dtype
from groundup.model import Transformer

MAX_DIFFERENCE = 1e-3  # Maximum relative difference of the bits per byte from float32.
_NUM_PIECES, _PIECE_TOKENS = 8, 512  # Number and length of the pieces on which both dtypes are compared.
# A text that is shorter than this multiple of the sample is scored in float32, because comparing the dtypes would take
# longer than bfloat16 saves.
_MIN_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of a score and how it was chosen.

    Attributes:
        dtype: data type to compute in.
        difference: relative difference of the bits per byte in bfloat16 from float32, or None if the dtypes were not
            compared.
        tokens: number of tokens on which the dtypes were compared.
        chosen: whether the user set the dtype.
    """

    dtype: ComputeDtype
    difference: float | None = None
    tokens: int = 0
    chosen: bool = False

    @property
    def sentence(self) -> str:
        """Message about the choice of the dtype; empty if the dtypes were not compared."""
        if self.difference is None:
            return ""
        found = (
            f"on {self.tokens:,} tokens of this text, the bits per byte differ by {self.difference:+.4%} from float32"
        )
        if self.dtype == "bfloat16":
            return f"Scored in bfloat16, which is faster here: {found}. For full precision: --set dtype=float32."
        return f"Scored in float32, although bfloat16 is faster here: {found}, more than {MAX_DIFFERENCE:.1%}."

    def to_json(self) -> dict[str, Any]:
        """Return the dtype and the comparison as JSON values."""
        checked = {"bfloat16_difference": self.difference, "checked_tokens": self.tokens}
        return {"dtype": self.dtype, **(checked if self.difference is not None else {})}


def choose_precision(
    model: Transformer, documents: TokenDocuments, *, bos_id: int, chosen: ComputeDtype | None = None
) -> Precision:
    """Choose the dtype for scoring documents.

    bfloat16 is chosen if bfloat16 matmuls are faster on this machine and if the score of a sample differs from float32
    by at most `MAX_DIFFERENCE`. The sample is evenly spaced over the documents.

    Args:
        model: model that scores the documents.
        documents: documents to score.
        bos_id: id of the BOS token.
        chosen: dtype that the user set; default: the dtypes are compared.

    Returns:
        The chosen dtype and the result of the comparison.
    """
    if chosen is not None:
        return Precision(chosen, chosen=True)
    device = model.device
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
    same = abs(difference) <= MAX_DIFFERENCE  # False if the difference is NaN.
    return Precision("bfloat16" if same else "float32", difference, int(sample.lengths.sum()))


def _sample(documents: TokenDocuments) -> TokenLists:
    """Return pieces of equal length that are evenly spaced over the documents.

    A piece ends at the end of its document, so it may be shorter.
    """
    ends = np.cumsum(documents.lengths)
    total = int(ends[-1]) if len(ends) else 0
    pieces = []
    for number in range(_NUM_PIECES if total else 0):
        place = number * total // _NUM_PIECES
        index = int(np.searchsorted(ends, place, side="right"))
        start = place - int(ends[index] - documents.lengths[index])
        pieces.append(documents.document(index)[start : start + _PIECE_TOKENS].tolist())
    return TokenLists(pieces, np.ones(len(pieces), dtype=np.int64))
