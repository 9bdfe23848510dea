"""Batches for pretraining: documents packed into windows, as a pure function of (seed, index).

No state is carried from batch to batch. A run resumes at step n by loading batch n, and two runs with the same seed
have the same global batches for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.errors import ConfigError, DataError
from groundup.data.shards import TokenShards


@dataclass(frozen=True, slots=True)
class PackedWindows:
    """Windows of a stream of documents; int64 tensors of shape (B, T).

    Attributes:
        input_ids: Tokens.
        labels: The next token of each; `IGNORE_INDEX` if it is not predicted.
        positions: Position in the document, or in its part in this window; starts at 0 at each document and each
            window.
        document_ids: Index of the document within its row, from 0; attention is restricted to a document.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    document_ids: torch.Tensor


@dataclass(frozen=True, slots=True)
class BatchPlacement:
    """Part of each global batch that a process loads, and device of its batches.

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


class Loader:
    """Pack the documents of a split into full windows, in a new order each epoch.

    The documents of an epoch are shuffled by (seed, epoch) and concatenated, each with BOS before it; epochs follow
    each other without a gap. Window i of this endless stream contains the tokens i·T .. i·T+T-1 and predicts i·T+1 ..
    i·T+T. Windows overlap by one token, so every token is a label once per epoch, except for the very first BOS. The
    label of a document's last token is the BOS of the next document, which is also EOS: this trains the model to stop.
    A document that crosses the end of a window continues in the next one with positions from 0, without attention to
    its earlier part.

    Batch i of rank r contains the windows (i·world_size + r)·B and following, so a global batch is the same for any
    number of ranks.

    Attributes:
        n_tokens_per_epoch: Tokens of the split, with a BOS per document.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        context_length: int,
        batch_size: int,
        bos_id: int,
        seed: int,
        place: BatchPlacement = SINGLE_PROCESS,
    ) -> None:
        """Prepare to load; reads no tokens.

        Args:
            shards: Training split.
            context_length: T, tokens per window.
            batch_size: B, windows per batch and rank.
            bos_id: Token before each document.
            seed: Random seed of the order of documents.
            place: Part of each global batch to load, and device of the batches.

        Raises:
            ConfigError: A size is not positive.
            DataError: The split has no tokens.
        """
        place.require_valid(context_length, batch_size)
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
        self._place = place
        # Two epochs, because a batch may cross the end of an epoch.
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)

    def batch(self, index: int) -> PackedWindows:
        """Return this rank's batch with this index, counted across epochs."""
        B, T = self.batch_size, self.context_length
        start = (index * self._place.world_size + self._place.rank) * B * T
        ids, begins = self._stream(start, B * T + 1)
        begins_BT = begins[:-1].reshape(B, T)
        # Positions: distance from the start of the document, or from the start of the window.
        place_T = np.arange(T)
        last_begin_BT = np.maximum.accumulate(np.where(begins_BT, place_T, 0), axis=1)
        document_BT = np.cumsum(begins_BT, axis=1)
        input_ids, labels = ids[:-1].reshape(B, T), ids[1:].reshape(B, T)
        columns = (input_ids, labels, place_T - last_begin_BT, document_BT - document_BT[:, :1])
        return PackedWindows(*(torch.from_numpy(column).to(self._place.device) for column in columns))

    def _stream(self, start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return `length` tokens of the endless stream from `start` on, and which of them are BOS."""
        ids: list[NDArray[np.int64]] = []
        begins: list[NDArray[np.bool_]] = []
        while length:
            epoch, offset = divmod(start, self.n_tokens_per_epoch)
            taken = min(length, self.n_tokens_per_epoch - offset)
            part_ids, part_begins = self._read_epoch(epoch, offset, taken)
            ids.append(part_ids)
            begins.append(part_begins)
            start += taken
            length -= taken
        return np.concatenate(ids), np.concatenate(begins)

    def _read_epoch(self, epoch: int, start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        order, edges = self._epoch_order(epoch)
        first = int(np.searchsorted(edges, start, side="right")) - 1
        last = int(np.searchsorted(edges, start + length - 1, side="right")) - 1
        # Part of each document that is in the range; its BOS is at offset 0.
        low = np.maximum(edges[first : last + 1], start)
        high = np.minimum(edges[first + 1 : last + 2], start + length)
        ranks = np.repeat(np.arange(first, last + 1), high - low)
        offsets = np.arange(start, start + length) - edges[ranks]
        begins = offsets == 0
        ids = np.full(length, self._bos_id, dtype=np.int64)
        inside = ~begins
        ids[inside] = self._shards.gather(order[ranks[inside]], offsets[inside] - 1)
        return ids, begins

    def _make_epoch_order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of documents in an epoch, and the offsets of their starts in the stream, with the end."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch])))
        order = generator.permutation(self._shards.n_documents)
        edges = np.zeros(len(order) + 1, dtype=np.int64)
        np.cumsum(self._shards.lengths[order] + 1, out=edges[1:])
        return order, edges
