"""Batches for evaluation, in which documents are split into non-overlapping windows.

Each document begins with BOS, and each of its tokens is predicted exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.types import IGNORE_INDEX
from groundup.data.tokens.documents import TokenDocuments

_MULTIPLE = 16  # number of tokens of which padded lengths are multiples


@dataclass(frozen=True, slots=True)
class DocumentWindows:
    """A batch of document windows, one per row. All rows are right-padded to the same length.

    Attributes:
        input_ids: Input token ids, (B, T) int64. Padding positions contain BOS.
        labels: Token ids to predict, (B, T) int64. Padding positions contain `IGNORE_INDEX`.
        document_index: Index of the document of each row, (B,) int64.
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

    A document is the sequence [BOS, t0, t1, ...]. With T = context_length, the inputs of its window j are the tokens
    j·T to j·T+T-1, and the labels are the tokens j·T+1 to j·T+T. Therefore, the first window starts with BOS, and each
    later window starts with the last label of the previous window. A window does not attend to earlier windows. BOS and
    EOS are never labels, because these tokens do not correspond to bytes of the text.

    Windows are sorted by length in descending order, which minimizes padding. Batches of short windows have more rows.
    The padded length is a multiple of 16, because oneDNN compiles a kernel for each shape and keeps it.

    Args:
        documents: Documents to split.
        context_length: T, the maximum number of tokens per window.
        batch_size: Number of windows of length T per batch. A batch has at most batch_size × T tokens, including
            padding.
        bos_id: Id of the BOS token, which is added before each document.
        subset: Indices of the documents to use; default: all documents.

    Yields:
        Batches of windows.
    """
    T = context_length
    chosen = np.arange(len(documents.lengths)) if subset is None else np.asarray(subset, dtype=np.int64)
    lengths = documents.lengths[chosen]
    windows = -(-lengths // T)  # An empty document has 0 windows.
    document_index = np.repeat(chosen, windows)
    first_window = np.repeat(np.cumsum(windows) - windows, windows)
    start = (np.arange(len(document_index)) - first_window) * T
    width = np.minimum(documents.lengths[document_index] - start, T)
    order = np.argsort(-width, kind="stable")
    row = 0
    while row < len(order):
        longest = min(T, _MULTIPLE * math.ceil(width[order[row]] / _MULTIPLE))
        rows = order[row : row + max(1, batch_size * T // longest)]
        yield _batch(documents, document_index[rows], start[rows], width[rows], longest, bos_id)
        row += len(rows)


def _batch(
    documents: TokenDocuments,
    document_index: NDArray[np.int64],
    start: NDArray[np.int64],
    width: NDArray[np.int64],
    longest: int,
    bos_id: int,
) -> DocumentWindows:
    shape = (len(width), longest)
    input_ids = np.full(shape, bos_id, dtype=np.int64)
    labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    for row, (document, begin, length) in enumerate(zip(document_index, start, width, strict=True)):
        ids = documents.document(int(document))
        labels[row, :length] = ids[begin : begin + length]
        input_ids[row, 1:length] = labels[row, : length - 1]
        if begin:
            input_ids[row, 0] = ids[begin - 1]
    return DocumentWindows(torch.from_numpy(input_ids), torch.from_numpy(labels), torch.from_numpy(document_index))
