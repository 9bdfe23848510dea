"""The training data path: documents to packed windows, as a pure function of (seed, index).

Nothing is carried from batch to batch. Resuming at step n is asking for batch n; two runs with one seed see
the same windows whatever the number of ranks.
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
        input_ids: the tokens.
        labels: the token after each; `IGNORE_INDEX` where there is nothing to predict.
        positions: place in the document, or in the part of it that lies in this window; restarts at 0 where a
            document begins and at the window's first token.
        document_ids: number of the document within its row, from 0; attention stays within one document.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    document_ids: torch.Tensor


@dataclass(frozen=True, slots=True)
class BatchPlacement:
    """The part of each global batch that a process loads, and the device of its batches."""

    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"

    def require_valid(self, context_length: int, batch_size: int) -> None:
        """Raise `ConfigError` if a size is not positive or the rank is not below `world_size`."""
        if context_length < 1 or batch_size < 1 or not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"context_length {context_length}, batch_size {batch_size}, rank {self.rank} of {self.world_size}",
                rule="a window holds 1 token or more, a batch 1 window or more, and rank is below world_size",
                fix="Give positive sizes.",
            )


FIRST_OF_ONE = BatchPlacement()


class Loader:
    """Packs the documents of a split into full windows, in a new order each epoch.

    The documents of an epoch, in an order drawn from (seed, epoch), are laid end to end, each with BOS in
    front, and epoch follows epoch without a gap. Window i of this endless stream reads the tokens i·T ..
    i·T+T-1 and predicts i·T+1 .. i·T+T: windows overlap by one token, so every token is a target exactly once
    an epoch (the very first BOS never is). The label of a document's last token is the next document's BOS,
    which is also EOS: so a model learns to stop. A document that crosses the edge of a window goes on in the
    next one with positions from 0, and does not see its earlier part.

    Batch i of rank r holds the windows (i·world_size + r)·B and following: a global batch is the same set of
    windows for every way to divide it among ranks.

    Attributes:
        n_tokens_per_epoch: tokens of the split, with a BOS for each document.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        context_length: int,
        batch_size: int,
        bos_id: int,
        seed: int,
        place: BatchPlacement = FIRST_OF_ONE,
    ) -> None:
        """Prepare to load; reads no tokens yet.

        Args:
            shards: the training split.
            context_length: T, tokens in a window.
            batch_size: B, windows in a batch of one rank.
            bos_id: the token in front of each document.
            seed: of the order of documents.
            place: part of each global batch to load, and device of the batches.

        Raises:
            ConfigError: sizes that cannot be.
            DataError: no tokens at all.
        """
        place.require_valid(context_length, batch_size)
        if shards.n_tokens == 0:
            raise DataError(
                f"{shards.directory}: no tokens",
                rule="training needs documents that are not empty",
                fix="Collect some text and run groundup tokenize again.",
            )
        self.context_length = context_length
        self.batch_size = batch_size
        self.n_tokens_per_epoch = shards.n_tokens + shards.n_documents
        self._shards = shards
        self._bos_id = bos_id
        self._seed = seed
        self._place = place
        # Two, because a batch may lie on both sides of an epoch's end.
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)

    def batch(self, index: int) -> PackedWindows:
        """The index-th batch of this rank since step 0, counted on across epochs."""
        B, T = self.batch_size, self.context_length
        start = (index * self._place.world_size + self._place.rank) * B * T
        ids, begins = self._stream(start, B * T + 1)
        begins_BT = begins[:-1].reshape(B, T)
        # Positions: distance from the last place at which a document began, or from the window's edge.
        place_T = np.arange(T)
        last_begin_BT = np.maximum.accumulate(np.where(begins_BT, place_T, 0), axis=1)
        document_BT = np.cumsum(begins_BT, axis=1)
        input_ids, labels = ids[:-1].reshape(B, T), ids[1:].reshape(B, T)
        columns = (input_ids, labels, place_T - last_begin_BT, document_BT - document_BT[:, :1])
        return PackedWindows(*(torch.from_numpy(column).to(self._place.device) for column in columns))

    def _stream(self, start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """`length` tokens of the endless stream from `start` on, and which of them are a document's BOS."""
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
        # The part of each touched document (its BOS is its place 0) that lies within the range asked for.
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
        """The order of documents in an epoch, and where in the epoch's stream each begins, with the end."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch])))
        order = generator.permutation(self._shards.n_documents)
        edges = np.zeros(len(order) + 1, dtype=np.int64)
        np.cumsum(self._shards.lengths[order] + 1, out=edges[1:])
        return order, edges
