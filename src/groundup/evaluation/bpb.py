"""Bits per byte: one scorer for our models and for any other, comparable across tokenizers.

Shape letters: B batch, T sequence, V vocab, D documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import DataError, FormatError
from groundup.core.types import IGNORE_INDEX, well_formed
from groundup.data import TokenDocuments, TokenLists, document_windows
from groundup.evaluation.comparison import Comparison
from groundup.evaluation.measure import mean
from groundup.evaluation.stats import Interval, ratio_interval
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

FEW_DOCUMENTS = 20

NllFunction = Callable[[Tensor, Tensor], Tensor]
"""input_ids (B, T), labels (B, T) -> nats of each label (B, T), 0 where it is ignored."""


@dataclass(frozen=True, slots=True, eq=False)
class BitsPerByte:
    """The score of each document, and of all together.

    Attributes:
        document_bytes: UTF-8 bytes of each document.
        document_tokens: tokens of each document.
        window_document, window_nll, window_tokens: of each window, the place of its document in the arrays
            above, its nats and its tokens.
    """

    document_bytes: npt.NDArray[np.int64]
    document_tokens: npt.NDArray[np.int64]
    window_document: npt.NDArray[np.int64]
    window_nll: npt.NDArray[np.float64]
    window_tokens: npt.NDArray[np.int64]

    @property
    def document_nll(self) -> npt.NDArray[np.float64]:
        """Nats of each document's own tokens; BOS and EOS are in nobody's sum."""
        sums = np.zeros(self.documents)
        np.add.at(sums, self.window_document, self.window_nll)
        return sums

    @property
    def nll(self) -> float:
        """Nats of all documents."""
        return float(self.window_nll.sum())

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return int(self.document_bytes.sum())

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.document_tokens.sum())

    @property
    def documents(self) -> int:
        """How many documents were scored."""
        return len(self.document_bytes)

    @property
    def window_bytes(self) -> npt.NDArray[np.float64]:
        """Each window's share, by tokens, of the bytes of its document."""
        per_token = self.document_bytes / np.maximum(self.document_tokens, 1)
        return self.window_tokens * per_token[self.window_document]

    @property
    def bpb(self) -> float:
        """Sum of negative log-likelihood / (ln 2 × UTF-8 bytes)."""
        return self.nll / (math.log(2) * self.bytes)

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """The bits per byte with its bootstrap interval.

        Documents are resampled. Where there are too few to tell how they vary (a single book), their windows
        are, as in a block bootstrap (Künsch 1989).
        """
        nll, sizes = self.document_nll, self.document_bytes.astype(np.float64)
        if self.documents < FEW_DOCUMENTS:
            nll, sizes = self.window_nll, self.window_bytes
        return ratio_interval(nll / math.log(2), sizes, level=level, seed=seed)


def compare_bits_per_byte(
    after: BitsPerByte,
    before: BitsPerByte,
    *,
    name: str = "bits per byte",
    seed: int = 0,
    about: Literal["task", "general"] = "task",
    what: str = "",
) -> Comparison:
    """Compare two scores of the same documents; the models may have different tokenizers.

    Documents are resampled in pairs; if they are few and both models split them into the same windows, windows are.
    """
    assert np.array_equal(after.document_bytes, before.document_bytes)
    sizes, nll = after.document_bytes.astype(np.float64), (before.document_nll, after.document_nll)
    if after.documents < FEW_DOCUMENTS and np.array_equal(after.window_tokens, before.window_tokens):
        sizes, nll = after.window_bytes, (before.window_nll, after.window_nll)
    old, new = (mean(name, each / math.log(2), sizes, unit="bits per byte", less=True) for each in nll)
    return Comparison(old, new, seed, about, what)


def bits_per_byte(
    nll: NllFunction,
    documents: TokenDocuments,
    *,
    context_length: int,
    bos_id: int,
    batch_size: int = 16,
    subset: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    advance: Callable[[float], object] = lambda _: None,
) -> BitsPerByte:
    """Score each document once, from BOS, in windows that do not overlap.

    Args:
        nll: the model. `model_nll` makes it of ours, `logits_nll` of anything that gives logits.
        documents: `TokenShards`, or texts through `encode_texts`.
        context_length: the most tokens that the model reads at once.
        batch_size: windows of full length at a time; it changes the speed, not the score.
        subset: indices of the documents to score; None scores all.
        device: where `nll` wants its arguments.
        advance: called with the number of tokens scored since the last call.

    Raises:
        DataError: no bytes to score.
        FormatError: the model's likelihoods are not numbers.
    """
    chosen = np.arange(len(documents.lengths)) if subset is None else np.asarray(subset, dtype=np.int64)
    if not documents.byte_lengths[chosen].sum():
        raise DataError(
            f"{len(chosen)} documents: 0 bytes",
            rule="bits per byte need at least one byte to score",
            fix="Give text that is not empty.",
        )
    place = np.zeros(len(documents.lengths), dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    rows: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]] = []
    with torch.no_grad():  # inference mode would mark the weights that FSDP gathers here as none to train with
        for windows in document_windows(
            documents, context_length=context_length, batch_size=batch_size, bos_id=bos_id, subset=subset
        ):
            nll_BT = nll(windows.input_ids.to(device), windows.labels.to(device))
            tokens_B = (windows.labels != IGNORE_INDEX).sum(dim=1).numpy()
            nll_B = nll_BT.double().sum(dim=1).cpu().numpy()
            rows.append((place[windows.document_index.numpy()], nll_B, tokens_B))
            advance(int(tokens_B.sum()))
    window_document, window_nll, window_tokens = (np.concatenate(column) for column in zip(*rows, strict=True))
    score = BitsPerByte(
        document_bytes=documents.byte_lengths[chosen],
        document_tokens=documents.lengths[chosen],
        window_document=window_document,
        window_nll=window_nll,
        window_tokens=window_tokens,
    )
    if not math.isfinite(score.nll):
        raise FormatError(
            f"negative log-likelihood: {score.nll}",
            rule="a sound model gives every token a finite one",
            fix="Its weights are damaged or its training diverged: copy or train it again.",
        )
    return score


def model_nll(model: Transformer) -> NllFunction:
    """The scorer's view of one of our models."""
    return lambda input_ids_BT, labels_BT: model(input_ids_BT, labels_BT=labels_BT, reduction="none")


def logits_nll(logits: Callable[[Tensor], Tensor]) -> NllFunction:
    """The scorer's view of any model: `logits` maps input_ids (B, T) to logits (B, T, V)."""

    def nll(input_ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        logits_BVT = logits(input_ids_BT).float().transpose(1, 2)
        return F.cross_entropy(logits_BVT, labels_BT, ignore_index=IGNORE_INDEX, reduction="none")

    return nll


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer) -> TokenLists:
    """Texts as documents that can be scored; their bytes are counted, not taken from the tokenizer."""
    gathered = [well_formed(text) for text in texts]
    sizes = [len(text.encode("utf-8")) for text in gathered]
    return TokenLists(tokenizer.encode_batch(gathered), np.array(sizes, dtype=np.int64))
