"""Batches for pretraining, in which documents are packed into windows.

A batch depends only on the seed and its index, and the loader does not have any other state. Therefore, a run resumes
at step n by loading batch n, and two runs with the same seed get the same global batches for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.errors import ConfigError, DataError
from groundup.data.tokens.shards import TokenShards


@dataclass(frozen=True, slots=True)
class PackedWindows:
    """A batch of windows into which documents are packed. All attributes are int64 tensors of shape (B, T).

    Attributes:
        input_ids: Input token ids.
        labels: The token that follows each input token, or `IGNORE_INDEX` if it does not contribute to the loss.
        positions: Position of each token in its document. Positions restart at 0 at the start of each document and of
            each window. In documents with a shared prefix, they restart at the position after the prefix.
        document_ids: Index of the document to which each token belongs, counted from 0 within its row, or
            `SHARED_PREFIX` for a prefix that is shared by the documents after it, up to the next shared prefix. A token
            attends only to tokens of the same document and of its shared prefix.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    document_ids: torch.Tensor


@dataclass(frozen=True, slots=True)
class BatchPlacement:
    """The part of each global batch that a process loads, and the device of its batches.

    Attributes:
        rank: Rank of this process.
        world_size: Number of processes.
        device: Device of the batches.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"

    def require_valid(self, context_length: int, batch_size: int) -> None:
        """Raise `ConfigError` if a size is not positive or the rank is not below `world_size`."""
        if context_length < 1 or batch_size < 1 or not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"context_length {context_length}, batch_size {batch_size}, rank {self.rank} of {self.world_size}",
                rule="sizes must be positive, and rank below world_size",
                fix="Correct these values.",
            )


SINGLE_PROCESS = BatchPlacement()
GROUP_WINDOWS = 1 << 16  # maximum number of windows that are shuffled together
SHORTEST = 4  # number of short windows per window in the first batches


class Loader:
    """Loader that packs the documents of a split into full windows, in a new random order for each epoch.

    The documents of an epoch are shuffled, and BOS is added before each document. All documents of all epochs are
    concatenated to an endless stream of tokens. The inputs of window i are the tokens i·T to i·T+T-1 of this stream,
    and its labels are the tokens i·T+1 to i·T+T. Therefore, every token is a label once per epoch, except for the first
    BOS of the stream. The label of a document's last token is the BOS of the next document. As BOS also serves as EOS,
    the model learns to end a text. A document that does not fit into a window continues in the next window. The
    positions in the next window restart at 0, and its tokens do not attend to the previous window.

    The windows are shuffled, too, so that the windows of a long document are in different batches. They are shuffled in
    groups of at most an epoch and at most `GROUP_WINDOWS` windows, which limits the memory.

    The first half of the first `short_batches` batches has windows of a quarter of the context length, and the second
    half has windows of half of it. Each window is then split into rows, so the number of tokens per batch is the same.
    Attention takes less time in short windows, and models that begin with them learn more from small texts
    (Charpentier and Samuel 2024, arXiv:2410.24159).

    Batch i of rank r consists of B windows, starting at shuffled window (i·world_size + r)·B. Therefore, a global batch
    contains the same windows for any number of ranks.

    Attributes:
        n_tokens_per_epoch: Number of tokens in the split, including one BOS per document.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        context_length: int,
        batch_size: int,
        bos_id: int,
        seed: int,
        short_batches: int = 0,
        place: BatchPlacement = SINGLE_PROCESS,
    ) -> None:
        """Create a loader. Tokens are read only when a batch is loaded.

        Args:
            shards: Training split.
            context_length: T, the number of tokens per window.
            batch_size: B, the number of windows per batch and rank.
            bos_id: Id of the BOS token, which is added before each document.
            seed: Random seed of the order of documents.
            short_batches: Number of batches with windows that are shorter than `context_length`.
            place: The part of each global batch that this process loads, and the device of the batches.

        Raises:
            ConfigError: A size is not positive, or it cannot be split into short windows.
            DataError: The split does not have any tokens.
        """
        place.require_valid(context_length, batch_size)
        if short_batches and context_length % SHORTEST:
            raise ConfigError(
                f"a context of {context_length} tokens cannot be split into {SHORTEST} equal windows",
                fix=f"Set shape.context_length to a multiple of {SHORTEST}, or short_context_ratio to 0.",
            )
        if shards.n_tokens == 0:
            raise DataError(
                f"{shards.directory}: no tokens",
                rule="training needs documents that are not empty",
                fix="Collect text and run groundup tokenize again.",
            )
        self.context_length = context_length
        self.batch_size = batch_size
        self.n_tokens_per_epoch = shards.n_tokens + shards.n_documents
        self._shards = shards
        self._bos_id = bos_id
        self._seed = seed
        self._short_batches = short_batches
        self._place = place
        self._group_windows = max(1, min(GROUP_WINDOWS, self.n_tokens_per_epoch // context_length))
        # A batch may extend over the end of an epoch and of a group.
        self._epoch_order = lru_cache(maxsize=3)(self._make_epoch_order)
        self._group_order = lru_cache(maxsize=2)(self._make_group_order)

    def batch(self, index: int) -> PackedWindows:
        """Return this rank's part of the global batch `index`. Batches are numbered across epochs.

        Returns:
            A batch of shape (B, T), or of shape (2B, T/2) or (4B, T/4) if it has short windows.
        """
        B, T = self.batch_size, self.context_length
        first = (index * self._place.world_size + self._place.rank) * B
        starts_B = T * self._shuffled(np.arange(first, first + B))
        parts = 1 if index >= self._short_batches else 2 if index >= self._short_batches / 2 else SHORTEST
        B, T = B * parts, T // parts
        starts_B = (starts_B[:, None] + T * np.arange(parts)).reshape(B)
        ids, begins = self._read(starts_B[:, None] + np.arange(T + 1))
        begins_BT = begins[:, :-1]
        # The position of a token is its distance from the start of its document or of the window.
        place_T = np.arange(T)
        last_begin_BT = np.maximum.accumulate(np.where(begins_BT, place_T, 0), axis=1)
        document_BT = np.cumsum(begins_BT, axis=1)
        columns = (ids[:, :-1], ids[:, 1:], place_T - last_begin_BT, document_BT - document_BT[:, :1])
        return PackedWindows(
            *(torch.from_numpy(np.ascontiguousarray(column)).to(self._place.device) for column in columns)
        )

    def _shuffled(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the windows at places in the shuffled order."""
        groups, within = np.divmod(places, self._group_windows)
        windows = np.empty_like(places)
        for group in np.unique(groups):
            here = groups == group
            windows[here] = group * self._group_windows + self._group_order(int(group))[within[here]]
        return windows

    def _read(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the tokens at places of the endless stream, and a mask of the BOS tokens, both with the same shape."""
        epochs, offsets = np.divmod(places, self.n_tokens_per_epoch)
        ids = np.full(places.shape, self._bos_id, dtype=np.int64)
        begins = np.zeros(places.shape, dtype=np.bool_)
        for epoch in np.unique(epochs):
            order, edges = self._epoch_order(int(epoch))
            here = epochs == epoch
            documents = np.searchsorted(edges, offsets[here], side="right") - 1
            within = offsets[here] - edges[documents]  # Offset 0 of a document is its BOS.
            begins[here] = within == 0
            inside = within > 0
            ids[here & ~begins] = self._shards.gather(order[documents[inside]], within[inside] - 1)
        return ids, begins

    def _make_group_order(self, group: int) -> NDArray[np.int64]:
        """Return the order of the windows in a group."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, group, 1])))
        return generator.permutation(self._group_windows)

    def _make_epoch_order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of documents in an epoch, and the offset of each document from the start of the epoch.

        The list of offsets ends with the total number of tokens in the epoch.
        """
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch])))
        order = generator.permutation(self._shards.n_documents)
        edges = np.zeros(len(order) + 1, dtype=np.int64)
        np.cumsum(self._shards.lengths[order] + 1, out=edges[1:])
        return order, edges
