"""Bits per byte of a model on text, a metric that can be compared between models with different tokenizers.

Shape letters: B: batch size, T: sequence length, V: vocabulary size.
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
from groundup.evaluation.comparisons.examples import Comparison
from groundup.evaluation.measure import mean
from groundup.evaluation.stats import Interval, ratio_interval
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

MIN_DOCUMENTS = 20

NllFunction = Callable[[Tensor, Tensor], Tensor]
"""Function from input_ids (B, T) and labels (B, T) to the negative log-likelihood of each label in nats (B, T).

The negative log-likelihood of an ignored label is 0.
"""


@dataclass(frozen=True, slots=True, eq=False)
class BitsPerByte:
    """Negative log-likelihoods of scored documents, and the bits per byte over all documents.

    Attributes:
        document_bytes: number of UTF-8 bytes of each document.
        document_tokens: number of tokens of each document.
        window_document: for each window, the index of its document in `document_bytes` and `document_tokens`.
        window_nll: negative log-likelihood of each window, in nats.
        window_tokens: number of tokens of each window.
    """

    document_bytes: npt.NDArray[np.int64]
    document_tokens: npt.NDArray[np.int64]
    window_document: npt.NDArray[np.int64]
    window_nll: npt.NDArray[np.float64]
    window_tokens: npt.NDArray[np.int64]

    @property
    def document_nll(self) -> npt.NDArray[np.float64]:
        """Negative log-likelihood of each document in nats. BOS and EOS are not scored."""
        sums = np.zeros(self.documents)
        np.add.at(sums, self.window_document, self.window_nll)
        return sums

    @property
    def nll(self) -> float:
        """Negative log-likelihood in nats, summed over all documents."""
        return float(self.window_nll.sum())

    @property
    def bytes(self) -> int:
        """Total number of UTF-8 bytes in all documents."""
        return int(self.document_bytes.sum())

    @property
    def tokens(self) -> int:
        """Total number of tokens in all documents."""
        return int(self.document_tokens.sum())

    @property
    def documents(self) -> int:
        """Number of scored documents."""
        return len(self.document_bytes)

    @property
    def window_bytes(self) -> npt.NDArray[np.float64]:
        """Estimated bytes of each window: the bytes of its document, multiplied by the window's share of its tokens."""
        per_token = self.document_bytes / np.maximum(self.document_tokens, 1)
        return self.window_tokens * per_token[self.window_document]

    @property
    def bpb(self) -> float:
        """Bits per byte: the total negative log-likelihood in nats, divided by (ln 2 × number of UTF-8 bytes)."""
        return self.nll / (math.log(2) * self.bytes)

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Return the bits per byte with a bootstrap interval.

        The bootstrap resamples documents. If there are fewer than `MIN_DOCUMENTS` documents, windows are resampled
        instead, as in a block bootstrap (Künsch 1989).
        """
        nll, sizes = self.document_nll, self.document_bytes.astype(np.float64)
        if self.documents < MIN_DOCUMENTS:
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
    """Compare the bits per byte of two models on the same documents. The models may have different tokenizers.

    The paired bootstrap resamples documents. If there are fewer than `MIN_DOCUMENTS` documents and both models split
    them into the same windows, windows are resampled instead.
    """
    assert np.array_equal(after.document_bytes, before.document_bytes)
    sizes, nll = after.document_bytes.astype(np.float64), (before.document_nll, after.document_nll)
    if after.documents < MIN_DOCUMENTS and np.array_equal(after.window_tokens, before.window_tokens):
        sizes, nll = after.window_bytes, (before.window_nll, after.window_nll)
    old, new = (mean(name, each / math.log(2), sizes, unit="bits per byte", lower_is_better=True) for each in nll)
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
    """Compute the bits per byte of documents, which are split into non-overlapping windows.

    Each document begins with BOS, and each of its tokens is scored exactly once.

    Args:
        nll: scoring function of a model; see `model_nll` and `logits_nll`.
        documents: `TokenShards`, or texts encoded with `encode_texts`.
        context_length: maximum number of tokens per window.
        bos_id: id of the BOS token.
        batch_size: number of full-length windows per batch, which does not affect the score.
        subset: indices of the documents to score; default: all documents.
        device: device to which the arguments of `nll` are moved.
        advance: callback for progress, called with the number of tokens scored since the last call.

    Raises:
        DataError: the documents are empty.
        FormatError: the negative log-likelihood is not finite.
    """
    chosen = np.arange(len(documents.lengths)) if subset is None else np.asarray(subset, dtype=np.int64)
    if not documents.byte_lengths[chosen].sum():
        raise DataError(f"{len(chosen)} documents: 0 bytes", fix="Give text that is not empty.")
    place = np.zeros(len(documents.lengths), dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    rows: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]] = []
    # In inference mode, the weights that FSDP gathers would become inference tensors, which cannot be trained.
    with torch.no_grad():
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
            rule="an intact model gives each token a finite log-probability",
            fix="The weights are damaged or training diverged: copy or train the model again.",
        )
    return score


def model_nll(model: Transformer) -> NllFunction:
    """Return a function that scores tokens with a groundup model."""
    return lambda input_ids_BT, labels_BT: model(input_ids_BT, labels_BT=labels_BT, reduction="none")


def logits_nll(logits: Callable[[Tensor], Tensor]) -> NllFunction:
    """Return a function that scores tokens with any model that maps input_ids (B, T) to logits (B, T, V)."""

    def nll(input_ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        logits_BVT = logits(input_ids_BT).float().transpose(1, 2)
        return F.cross_entropy(logits_BVT, labels_BT, ignore_index=IGNORE_INDEX, reduction="none")

    return nll


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer) -> TokenLists:
    """Tokenize texts for scoring. Bytes are counted in the original texts, not in the decoded tokens."""
    gathered = [well_formed(text) for text in texts]
    sizes = [len(text.encode("utf-8")) for text in gathered]
    return TokenLists(tokenizer.encode_batch(gathered), np.array(sizes, dtype=np.int64))
