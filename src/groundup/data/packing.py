"""The tuning data path: whole examples packed into windows, as a pure function of (seed, index).

Shape letters: B batch, T sequence, R rows of an epoch, E examples.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.core.types import IGNORE_INDEX
from groundup.data.loader import FIRST_OF_ONE, BatchPlacement, PackedWindows


class ExampleLoader:
    """Packs examples, none of them split, into windows; the windows come in a new order each epoch.

    An example's tokens are read up to its last trained one. Its positions count from 0, attention stays inside of it,
    and only tokens that are to be trained are labels. Which examples share a window is decided once: longest first,
    each into the fullest window with room for it (best-fit decreasing; Ding et al. 2024, arXiv:2404.10830). The rest of
    a window is filled up with a document of its own that has no labels.

    Batch i of rank r holds the windows (i·world_size + r)·B and following of the endless stream of epochs, so a
    resumed run asks for batch n and sees what an uninterrupted one would.

    Attributes:
        n_rows: windows of an epoch.
        n_examples: examples that are trained on.
        too_long: how many were longer than a window: dropped, or cut.
        without_labels: how many were dropped because no token of theirs is trained (any more).
        trained_tokens: labels of an epoch.
    """

    def __init__(
        self,
        examples: Sequence[tuple[Sequence[int] | NDArray[np.int32], Sequence[bool] | NDArray[np.bool_]]],
        *,
        context_length: int,
        batch_size: int,
        pad_id: int,
        seed: int,
        cut: bool = False,
        place: BatchPlacement = FIRST_OF_ONE,
    ) -> None:
        """Pack the examples.

        Args:
            examples: the ids of each, and which of them are trained.
            context_length: T, tokens in a window.
            batch_size: B, windows in a batch of one rank.
            pad_id: fills windows up.
            seed: of the order of windows, and of which examples of one length share one.
            cut: shorten examples that are too long, at their end, instead of dropping them.
            place: part of each global batch to load, and device of the batches.

        Raises:
            ConfigError: sizes that cannot be.
            DataError: no token of any example is trained: the loss would be that of nothing.
        """
        place.require_valid(context_length, batch_size)
        self.context_length = context_length
        self.batch_size = batch_size
        self.cut = cut
        self.too_long = self.without_labels = 0
        self._pad_id = pad_id
        self._seed = seed
        self._place = place
        self._examples: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        for ids, trained in examples:
            self._add(np.asarray(ids, dtype=np.int32), np.asarray(trained, dtype=bool))
        self.n_examples = len(self._examples)
        if not self._examples:
            raise DataError(
                f"{len(examples):,} examples: {self.too_long:,} longer than {context_length:,} tokens, "
                f"{self.without_labels:,} without a token to train",
                rule="training needs a token to learn",
                fix="Give examples with answers that fit the model's context, or let long ones be cut.",
            )
        lengths_E = np.array([len(ids) for ids, _ in self._examples])
        self._rows = _best_fit(lengths_E, _longest_first(lengths_E, seed), context_length)
        self.n_rows = len(self._rows)
        labels_E = np.array([(labels != IGNORE_INDEX).sum() for _, labels in self._examples])
        self._labels_R = np.array([labels_E[row].sum() for row in self._rows])
        self.trained_tokens = int(self._labels_R.sum())
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)

    def batch(self, index: int) -> PackedWindows:
        """The index-th batch of this rank since step 0, counted on across epochs."""
        B, T = self.batch_size, self.context_length
        input_ids = np.full((B, T), self._pad_id, dtype=np.int64)
        labels = np.full((B, T), IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros((B, T), dtype=np.int64)
        document_ids = np.zeros((B, T), dtype=np.int64)
        for place, row in enumerate(self._window_rows((index * self._place.world_size + self._place.rank) * B, B)):
            start = 0
            for number, example in enumerate(self._rows[row]):
                ids, targets = self._examples[example]
                end = start + len(ids)
                input_ids[place, start:end] = ids
                labels[place, start:end] = targets
                positions[place, start:end] = np.arange(len(ids))
                document_ids[place, start:end] = number
                start = end
            positions[place, start:] = np.arange(T - start)
            document_ids[place, start:] = len(self._rows[row])
        columns = (input_ids, labels, positions, document_ids)
        return PackedWindows(*(torch.from_numpy(column).to(self._place.device) for column in columns))

    def labels_until(self, batches: int) -> int:
        """Labels of the first `batches` global batches."""
        windows = batches * self.batch_size * self._place.world_size
        epochs, rest = divmod(windows, self.n_rows)
        return epochs * self.trained_tokens + int(self._labels_R[self._epoch_order(epochs)[:rest]].sum())

    def _add(self, ids: NDArray[np.int32], trained: NDArray[np.bool_]) -> None:
        last = int(np.flatnonzero(trained)[-1]) if trained.any() else 0
        if last > self.context_length:
            self.too_long += 1
            if not self.cut:
                return
            last = self.context_length
        labels = np.where(trained, ids, np.int32(IGNORE_INDEX))[1 : last + 1]
        if not (labels != IGNORE_INDEX).any():
            self.without_labels += 1
            return
        self._examples.append((ids[:last], labels))

    def _window_rows(self, first: int, count: int) -> list[int]:
        windows = (divmod(window, self.n_rows) for window in range(first, first + count))
        return [int(self._epoch_order(epoch)[place]) for epoch, place in windows]

    def _make_epoch_order(self, epoch: int) -> NDArray[np.int64]:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch + 1])))
        return generator.permutation(self.n_rows)


def _longest_first(lengths_E: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the examples by falling length; those of equal length in random order."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    shuffled = generator.permutation(len(lengths_E))
    return shuffled[np.argsort(-lengths_E[shuffled], kind="stable")]


def _best_fit(lengths_E: NDArray[np.int64], order: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Rows of examples whose lengths add up to `capacity` at most."""
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # room left -> rows
    rooms: list[int] = []  # the keys of `with_room`, sorted
    for example in order.tolist():
        length = int(lengths_E[example])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room]
                rooms.pop(place)
        rows[row].append(example)
        left = room - length
        if left not in with_room:
            with_room[left] = []
            insort(rooms, left)
        with_room[left].append(row)
    return [np.array(row) for row in rows]
