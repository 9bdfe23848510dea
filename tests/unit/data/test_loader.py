"""Packing: every token once, separate documents, and the same windows for any number of ranks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.core.errors import ConfigError, DataError
from groundup.data import Loader, PackedWindows, TokenShards, write_shards
from groundup.data.tokens.loader import BatchPlacement


@pytest.fixture
def shards(directory: Path) -> TokenShards:
    return TokenShards(directory, "train")


def loader(shards: TokenShards, **changes: int) -> Loader:
    settings = {"context_length": 64, "batch_size": 4, "bos_id": 0, "seed": 7} | changes
    return Loader(shards, **settings)


def rows(batches: list[PackedWindows]) -> list[tuple[torch.Tensor, ...]]:
    return [row for b in batches for row in zip(b.input_ids, b.labels, b.positions, b.document_ids, strict=True)]


def same(left: list[tuple[torch.Tensor, ...]], right: list[tuple[torch.Tensor, ...]]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(x, y) for a, b in zip(left, right, strict=True) for x, y in zip(a, b, strict=True)
    )


def test_windows_of_an_epoch_are_every_document_after_bos(shards: TokenShards) -> None:
    """Each label is the first token of another window, so sorted by this chain, the windows are the documents."""
    packed = loader(shards, context_length=8, batch_size=1)
    windows = 3 * packed.n_tokens_per_epoch // 8
    assert packed.n_tokens_per_epoch == shards.n_tokens + shards.n_documents
    batches = [packed.batch(i) for i in range(windows)]
    order = np.concatenate([8 * packed._shuffled(np.array([i])) for i in range(windows)])
    assert sorted(order.tolist()) == list(range(0, 8 * windows, 8))
    assert order.tolist() != sorted(order.tolist())
    in_order = [batches[i] for i in np.argsort(order)]
    stream = torch.cat([batch.input_ids[0] for batch in in_order]).tolist()
    labels = torch.cat([batch.labels[0] for batch in in_order]).tolist()
    assert labels[:-1] == stream[1:]  # without an overlap of one token, each window would lose a label
    epoch = stream[: packed.n_tokens_per_epoch]
    starts = [place for place, token in enumerate(epoch) if token == 0] + [len(epoch)]
    documents = [tuple(epoch[a + 1 : b]) for a, b in pairwise(starts)]
    written = [tuple(shards.document(i).tolist()) for i in range(shards.n_documents)]
    assert sorted(documents) == sorted(written)
    assert documents != written  # shuffled
    assert stream[packed.n_tokens_per_epoch] == 0  # no gap before the next epoch


def test_windows_of_a_long_document_are_in_different_batches(tmp_path: Path) -> None:
    """A batch of windows of a single book has a gradient that depends on this book only."""
    books = [np.full(640, book, dtype=np.uint32) for book in range(1, 9)]
    write_shards(tmp_path, {"train": ["x" * 640] * 8}, lambda _: books, vocab_size=64, bos_id=0)
    batch = loader(TokenShards(tmp_path, "train"), context_length=64, batch_size=16).batch(0)
    assert len(batch.input_ids.unique()) > 5


def test_short_windows_have_the_same_tokens_as_full_ones(shards: TokenShards) -> None:
    """Positions and documents restart in each short window. Later batches must not depend on the first ones."""
    full, short = loader(shards), loader(shards, short_batches=4)
    assert [tuple(short.batch(i).labels.shape) for i in range(6)] == [(16, 16)] * 2 + [(8, 32)] * 2 + [(4, 64)] * 2
    assert same(rows([short.batch(4)]), rows([full.batch(4)]))
    for index in range(4):
        ours, whole = short.batch(index), full.batch(index)
        assert torch.equal(ours.input_ids.view(4, 64), whole.input_ids)
        assert torch.equal(ours.labels.view(4, 64), whole.labels)
        assert (ours.positions[:, 0] == 0).all() and (ours.document_ids[:, 0] == 0).all()
    with pytest.raises(ConfigError, match="multiple of 4"):
        loader(shards, context_length=62, short_batches=4)


def test_positions_and_document_ids_restart_at_each_document(shards: TokenShards) -> None:
    for batch in (loader(shards).batch(i) for i in range(20)):
        for tokens, _, positions, documents in rows([batch]):
            position, document = -1, -1
            for place in range(64):
                if tokens[place] == 0 or place == 0:
                    position, document = 0, document + 1
                else:
                    position += 1
                assert (positions[place], documents[place]) == (position, document)


def test_ranks_share_the_same_global_batch(shards: TokenShards) -> None:
    """A run that resumes on another number of devices must have the same data at the same step."""
    alone = rows([loader(shards, batch_size=12).batch(3)])
    for world_size in (2, 3):
        ranks = [
            loader(shards, batch_size=12 // world_size, place=BatchPlacement(rank, world_size)).batch(3)
            for rank in range(world_size)
        ]
        assert same(rows(ranks), alone)
    assert same(rows([loader(shards).batch(i) for i in (9, 10, 11)]), alone)  # gradient accumulation


def test_any_batch_can_be_loaded_first(shards: TokenShards) -> None:
    """If state were carried from batch to batch, a resumed run would have other data."""
    packed = loader(shards)
    in_order = [packed.batch(i) for i in range(40)]
    for index in (39, 0, 17):
        assert same(rows([loader(shards).batch(index)]), rows([in_order[index]]))


def test_each_epoch_and_seed_has_another_order(directory: Path) -> None:
    shards = TokenShards(directory, "validation")
    per_epoch = shards.n_tokens + shards.n_documents
    packed = loader(shards, context_length=per_epoch, batch_size=1)
    epochs = [tuple(packed.batch(epoch).input_ids[0].tolist()) for epoch in range(12)]
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len(set(epochs)) > 6  # of 24 orders
    other = loader(shards, context_length=per_epoch, batch_size=1, seed=8)
    assert epochs != [tuple(other.batch(epoch).input_ids[0].tolist()) for epoch in range(12)]


def test_a_window_may_contain_several_epochs(tmp_path: Path) -> None:
    """With a tiny corpus and a long context, the stream repeats within a window."""
    ids = [np.array([5, 6], dtype=np.uint32), np.array([7], dtype=np.uint32)]
    write_shards(tmp_path, {"train": ["ab", "c"]}, lambda _: ids, vocab_size=64, bos_id=0)
    batch = Loader(TokenShards(tmp_path, "train"), context_length=25, batch_size=2, bos_id=0, seed=0).batch(0)
    stream = batch.input_ids.flatten().tolist()
    for epoch in range(10):
        assert stream[epoch * 5 : epoch * 5 + 5] in ([0, 5, 6, 0, 7], [0, 7, 0, 5, 6])


def test_invalid_sizes_are_rejected(shards: TokenShards, tmp_path: Path) -> None:
    for changes in ({"context_length": 0}, {"batch_size": 0}, {"place": BatchPlacement(2, 2)}):
        with pytest.raises(ConfigError, match="rank"):
            loader(shards, **changes)
    write_shards(tmp_path, {"train": [""]}, lambda _: [np.array([], dtype=np.uint32)], vocab_size=64, bos_id=0)
    with pytest.raises(DataError, match="no tokens"):
        loader(TokenShards(tmp_path, "train"))
