"""The dtype that a model is scored in: the one that is faster on this machine, if the score stays the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.data import TokenDocuments, TokenLists
from groundup.evaluation.bpb import bits_per_byte, model_nll
from groundup.kernels import ComputeDtype, computing_in, fastest_dtype
from groundup.model import Transformer

MAX_DIFFERENCE = 1e-3  # of the bits per byte, relative to those of float32
_PIECES, _PIECE_TOKENS = 8, 512  # the sample on which both dtypes are compared
_WORTHWHILE = 8  # texts of fewer such samples are scored in float32: the comparison would cost more than it saves


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of a score and how it was chosen.

    Attributes:
        difference: of bfloat16's bits per byte from float32's, relative to the latter; None where they were not
            compared.
        tokens: on how many tokens they were compared.
        chosen: whether the user chose the dtype.
    """

    dtype: ComputeDtype
    difference: float | None = None
    tokens: int = 0
    chosen: bool = False

    @property
    def sentence(self) -> str:
        """What to print about it; empty where there is nothing to say."""
        if self.difference is None:
            return ""
        found = (
            f"on {self.tokens:,} tokens of this text its bits per byte differ by {self.difference:+.4%} from float32's"
        )
        if self.dtype == "bfloat16":
            return f"Scored in bfloat16, which is faster here: {found}. In full precision: --set dtype=float32."
        return f"Scored in float32, although bfloat16 is faster here: {found}, more than {MAX_DIFFERENCE:.1%}."

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        checked = {"bfloat16_difference": self.difference, "checked_tokens": self.tokens}
        return {"dtype": self.dtype, **(checked if self.difference is not None else {})}


def choose_precision(
    model: Transformer, documents: TokenDocuments, *, bos_id: int, chosen: ComputeDtype | None = None
) -> Precision:
    """The dtype to score these documents in.

    bfloat16 is taken where its matrix products are faster and its score of a sample, from everywhere in the text, is
    within `MAX_DIFFERENCE` of float32's.

    Args:
        chosen: by the user; then nothing is compared.
    """
    if chosen is not None:
        return Precision(chosen, chosen=True)
    device = model.lm_head.weight.device
    sample = _sample(documents)
    small = documents.lengths.sum() < _WORTHWHILE * _PIECES * _PIECE_TOKENS
    if small or not len(sample.lengths) or fastest_dtype(device.type)[0] == "float32":
        return Precision("float32")

    def nll(dtype: ComputeDtype) -> float:
        with computing_in(model, dtype):
            context = model.config.context_length
            return bits_per_byte(model_nll(model), sample, context_length=context, bos_id=bos_id, device=device).nll

    full = nll("float32")
    difference = nll("bfloat16") / full - 1
    same = abs(difference) <= MAX_DIFFERENCE  # False for NaN
    return Precision("bfloat16" if same else "float32", difference, int(sample.lengths.sum()))


def _sample(documents: TokenDocuments) -> TokenLists:
    """Pieces of equally many tokens from places at equal distances in the text; shorter where a document ends."""
    ends = np.cumsum(documents.lengths)
    total = int(ends[-1]) if len(ends) else 0
    pieces = []
    for number in range(_PIECES if total else 0):
        place = number * total // _PIECES
        index = int(np.searchsorted(ends, place, side="right"))
        start = place - int(ends[index] - documents.lengths[index])
        pieces.append(documents.document(index)[start : start + _PIECE_TOKENS].tolist())
    return TokenLists(pieces, np.ones(len(pieces), dtype=np.int64))
