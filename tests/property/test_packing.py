"""Packing keeps all tokens. This holds for any documents and any context length."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.core.types import IGNORE_INDEX
from groundup.data import Loader, TokenLists, TokenShards, document_windows, write_shards

documents_of_ids = st.lists(st.lists(st.integers(1, 63), max_size=12), min_size=1, max_size=12).filter(any)


def written(documents: list[list[int]], directory: Path) -> TokenShards:
    texts = ["x" * len(ids) for ids in documents]
    remaining = iter(documents)
    write_shards(
        directory,
        {"train": texts},
        lambda group: [np.array(next(remaining), dtype=np.uint32) for _ in group],
        vocab_size=64,
        bos_id=0,
        shard_bytes=15,  # creates several shards, and some of them contain no tokens
    )
    return TokenShards(directory, "train")


@settings(max_examples=40, deadline=None)
@given(documents_of_ids, st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32))
def test_every_token_is_a_label_once_an_epoch(
    documents: list[list[int]], context_length: int, batch_size: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        loader = Loader(
            written(documents, Path(directory)),
            context_length=context_length,
            batch_size=batch_size,
            bos_id=0,
            seed=seed,
        )
        # Windows are shuffled within groups of whole windows of at most an epoch.
        windows = 3 * max(1, loader.n_tokens_per_epoch // context_length)
        batches = [loader.batch(i).labels.numpy() for i in range(-(-windows // batch_size))]
    labels = Counter(np.concatenate(batches)[:windows].ravel().tolist())
    epochs = windows * context_length // loader.n_tokens_per_epoch
    for token, count in Counter(token for ids in documents for token in [0, *ids]).items():
        # The first BOS of the stream is not a label.
        assert epochs * count - (token == 0) <= labels[token] <= (epochs + 1) * count


@settings(max_examples=100, deadline=None)
@given(documents_of_ids, st.integers(1, 20), st.integers(1, 4))
def test_every_document_token_is_scored_once(documents: list[list[int]], context_length: int, batch_size: int) -> None:
    lists = TokenLists(documents, np.array([len(ids) for ids in documents]))
    scored: list[Counter[int]] = [Counter() for _ in documents]
    for batch in document_windows(lists, context_length=context_length, batch_size=batch_size, bos_id=0):
        for document, labels in zip(batch.document_index.tolist(), batch.labels.tolist(), strict=True):
            scored[document].update(label for label in labels if label != IGNORE_INDEX)
    assert scored == [Counter(ids) for ids in documents]
