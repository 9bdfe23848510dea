"""Evaluation windows: each document once, from BOS, for any batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundup.core.types import IGNORE_INDEX
from groundup.data import TokenLists, TokenShards, document_windows


def test_windows_computed_by_hand() -> None:
    """The definition of bits per byte, for a short and a long document."""
    documents = TokenLists([[11, 12, 13, 14, 15], [21], []], np.array([5, 1, 0]))
    [batch] = document_windows(documents, context_length=2, batch_size=8, bos_id=0)
    seen = {
        (document, tuple(inputs), tuple(labels))
        for document, inputs, labels in zip(
            batch.document_index.tolist(), batch.input_ids.tolist(), batch.labels.tolist(), strict=True
        )
    }
    assert seen == {
        (0, (0, 11), (11, 12)),
        (0, (12, 13), (13, 14)),
        (0, (14, 0), (15, IGNORE_INDEX)),
        (1, (0, 0), (21, IGNORE_INDEX)),
    }


def test_bos_and_padding_are_not_labels(directory: Path) -> None:
    """Special tokens have no bytes; if they were scored, bits per byte would depend on the document length."""
    shards = TokenShards(directory, "train")
    labels = np.concatenate(
        [
            batch.labels[batch.labels != IGNORE_INDEX].numpy()
            for batch in document_windows(shards, context_length=64, batch_size=4, bos_id=0)
        ]
    )
    assert len(labels) == shards.n_tokens
    assert 0 not in labels


def test_a_batch_has_a_limited_number_of_tokens(directory: Path) -> None:
    """Rows times width limits the memory of the logits, so batches of short windows have more rows."""
    shards = TokenShards(directory, "train")
    batches = list(document_windows(shards, context_length=64, batch_size=4, bos_id=0))
    assert all(batch.input_ids.numel() <= 4 * 64 for batch in batches)
    assert max(len(batch.input_ids) for batch in batches) > 4
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)


def test_a_subset_keeps_its_document_indices(directory: Path) -> None:
    shards = TokenShards(directory, "train")
    batches = list(document_windows(shards, context_length=64, batch_size=4, bos_id=0, subset=[9, 3]))
    scored = dict.fromkeys((3, 9), 0)
    for batch in batches:
        for document, row in zip(batch.document_index.tolist(), batch.labels, strict=True):
            scored[document] += int((row != IGNORE_INDEX).sum())
    assert scored == {3: shards.lengths[3], 9: shards.lengths[9]}
