"""The evaluation data path: each document once, from BOS, in windows that do not overlap."""

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
    """Windows of documents, one a row, filled up on the right to the longest.

    Attributes:
        input_ids: (B, T) int64; BOS where filled up.
        labels: (B, T) int64; `IGNORE_INDEX` where filled up.
        document_index: (B,) int64, the document that each row is part of.
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
    """Cut documents into windows such that every token of every document is a label exactly once.

    With T = context_length, window j of the row [BOS, t0, t1, ...] reads places j·T .. j·T+T-1 and predicts
    j·T+1 .. j·T+T. So the first window begins with BOS, and a later one with the last label of the window
    before, and sees nothing else of it. BOS and EOS are never labels: a scorer that divides by bytes must not
    sum tokens that have none.

    Windows come sorted by length, longest first, so that little is filled up; short ones are put together to
    batches of more rows.

    Args:
        documents: what to cut; `documents.byte_lengths` has the bytes that a row's `document_index`
            stands for.
        context_length: T, the most tokens that the model reads at once.
        batch_size: a batch holds at most batch_size × T tokens, filled-up ones included.
        bos_id: the token in front of each document.
        subset: documents to take; None takes all.
    """
    T = context_length
    chosen = np.arange(len(documents.lengths)) if subset is None else np.asarray(subset, dtype=np.int64)
    lengths = documents.lengths[chosen]
    windows = -(-lengths // T)  # an empty document has none
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
