"""Batches for evaluation: each document once, from BOS, in windows that do not overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.types import IGNORE_INDEX
from groundup.data.documents import TokenDocuments


@dataclass(frozen=True, slots=True)
class DocumentWindows:
    """Windows of documents, one per row, right-padded to the longest.

    Attributes:
        input_ids: (B, T) int64; padding is BOS.
        labels: (B, T) int64; padding is `IGNORE_INDEX`.
        document_index: (B,) int64, index of the document of each row.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    document_index: torch.Tensor


def document_windows(
    documents: TokenDocuments,
    *,
    context_length: int,
    batch_size: int,
    bos_id: int,
    subset: Sequence[int] | None = None,
) -> Iterator[DocumentWindows]:
    """Split documents into windows such that every token is a label exactly once.

    With T = context_length, window j of [BOS, t0, t1, ...] contains the tokens j·T .. j·T+T-1 and predicts j·T+1 ..
    j·T+T. The first window starts with BOS; a later window starts with the last label of the previous one and does not
    attend to earlier tokens. BOS and EOS are never labels, because a score per byte must not include tokens without
    bytes.

    Windows are sorted by length, longest first, to minimize padding; batches of short windows have more rows.

    Args:
        documents: Documents to split; `documents.byte_lengths` has the bytes of each `document_index`.
        context_length: T, the maximum number of tokens per window.
        batch_size: A batch has at most batch_size × T tokens, padding included.
        bos_id: Token before each document.
        subset: Indices of the documents to use; None: all.

    Yields:
        Batches of windows.
    """
    T = context_length
    chosen = np.arange(len(documents.lengths)) if subset is None else np.asarray(subset, dtype=np.int64)
    lengths = documents.lengths[chosen]
    windows = -(-lengths // T)  # 0 for an empty document
    document_index = np.repeat(chosen, windows)
    first_window = np.repeat(np.cumsum(windows) - windows, windows)
    start = (np.arange(len(document_index)) - first_window) * T
    width = np.minimum(documents.lengths[document_index] - start, T)
    order = np.argsort(-width, kind="stable")
    row = 0
    while row < len(order):
        longest = int(width[order[row]])
        rows = order[row : row + max(1, batch_size * T // longest)]
        yield _batch(documents, document_index[rows], start[rows], width[rows], bos_id)
        row += len(rows)


def _batch(
    documents: TokenDocuments,
    document_index: NDArray[np.int64],
    start: NDArray[np.int64],
    width: NDArray[np.int64],
    bos_id: int,
) -> DocumentWindows:
    shape = (len(width), int(width[0]))
    input_ids = np.full(shape, bos_id, dtype=np.int64)
    labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    for row, (document, begin, length) in enumerate(zip(document_index, start, width, strict=True)):
        ids = documents.document(int(document))
        labels[row, :length] = ids[begin : begin + length]
        input_ids[row, 1:length] = labels[row, : length - 1]
        if begin:
            input_ids[row, 0] = ids[begin - 1]
    return DocumentWindows(torch.from_numpy(input_ids), torch.from_numpy(labels), torch.from_numpy(document_index))
