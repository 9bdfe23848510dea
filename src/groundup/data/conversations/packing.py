"""Batches for instruction tuning, in which whole examples are packed into windows.

A batch depends only on the seed and its index.

Shape letters: B: batch size, T: sequence length, R: number of windows (rows) per epoch, E: number of examples.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.data.conversations.shared_prefixes import Labeled, SharingExamples, group_by_prefix
from groundup.data.tokens.loader import SINGLE_PROCESS, BatchPlacement, PackedWindows


class ExampleLoader:
    """Loader that packs whole examples into windows. The windows come in a new random order in each epoch.

    Tokens after the last trained token of an example are dropped. The positions of an example start at 0, its tokens
    attend only to each other, and only its trained tokens are labels. Examples are assigned to windows once, before the
    first epoch, in descending order of length. Each example goes to the fullest window that has space for it (best-fit
    decreasing; Ding et al. 2024, arXiv:2404.10830). The end of a window is filled with padding, which is treated as a
    separate document that does not have labels.

    Prompts often start with the same tokens, such as an instruction, or a passage about which several questions are
    asked. Examples with the same prefix are packed next to each other, after one copy of the prefix, to which they all
    attend. Loss and gradients are those of separate prefixes (Wang and Hegde 2024, arXiv:2410.20305).

    Batch i of rank r consists of B consecutive windows of an endless stream of epochs, starting at window
    (i·world_size + r)·B. Therefore, a resumed run continues with the same batches as a run that was not interrupted.

    Attributes:
        n_rows: Number of windows per epoch.
        n_examples: Number of examples that are trained on.
        too_long: Number of examples that were dropped or truncated because they are longer than a window.
        without_labels: Number of examples that were dropped because they do not have any trained tokens.
        trained_tokens: Number of labels per epoch.
        shared_tokens: Number of tokens per epoch that are not computed because examples share prefixes.
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
        place: BatchPlacement = SINGLE_PROCESS,
    ) -> None:
        """Pack the examples.

        Args:
            examples: Token ids of each example, with a mask of the trained tokens.
            context_length: T, the number of tokens per window.
            batch_size: B, the number of windows per batch and rank.
            pad_id: Id of the padding token.
            seed: Random seed of the order of windows, and of the order in which examples of equal length are packed.
            cut: Whether to truncate examples that are too long instead of dropping them.
            place: The part of each global batch that this process loads, and the device of the batches.

        Raises:
            ConfigError: A size is not positive.
            DataError: There are no examples with trained tokens.
        """
        place.require_valid(context_length, batch_size)
        self.context_length = context_length
        self.batch_size = batch_size
        self.cut = cut
        self.too_long = self.without_labels = 0
        self._pad_id = pad_id
        self._seed = seed
        self._place = place
        self._examples: list[Labeled] = []
        for ids, trained in examples:
            self._add(np.asarray(ids, dtype=np.int32), np.asarray(trained, dtype=bool))
        self.n_examples = len(self._examples)
        if not self._examples:
            raise DataError(
                f"{len(examples):,} examples do not contain any tokens to train: {self.too_long:,} are longer than "
                f"{context_length:,} tokens, {self.without_labels:,} do not have trained tokens",
                fix="Use examples with answers that fit into the model's context, or set truncate = true.",
            )
        self._rows = self._pack()
        self.n_rows = len(self._rows)
        self.shared_tokens = sum(each.prefix * (len(each.examples) - 1) for row in self._rows for each in row)
        labels_E = np.array([(labels != IGNORE_INDEX).sum() for _, labels in self._examples])
        self._labels_R = np.array([sum(labels_E[each.examples].sum() for each in row) for row in self._rows])
        self.trained_tokens = int(self._labels_R.sum())
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)

    def _pack(self) -> list[list[SharingExamples]]:
        """Return the content of each window."""
        lengths_E = np.array([len(ids) for ids, _ in self._examples])
        places_E = np.argsort(_longest_first(lengths_E, self._seed))
        packed: list[SharingExamples] = []
        for prefix, members in group_by_prefix(self._examples):
            # Examples without a shared prefix are packed one by one, the others in groups that fit into a window.
            if prefix:
                order = members[np.argsort(places_E[members])]
                rows = _best_fit(lengths_E - prefix, order, self.context_length - prefix)
            else:
                rows = list(members[:, None])
            packed += [SharingExamples(prefix, row) for row in rows]
        sizes = np.array([each.prefix + int((lengths_E[each.examples] - each.prefix).sum()) for each in packed])
        windows = _best_fit(sizes, _longest_first(sizes, self._seed), self.context_length)
        # Documents attend to the last prefix before them, so documents without a prefix come first.
        return [sorted((packed[number] for number in row), key=lambda each: each.prefix > 0) for row in windows]

    def batch(self, index: int) -> PackedWindows:
        """Return this rank's part of the global batch `index`. Batches are numbered across epochs."""
        B, T = self.batch_size, self.context_length
        input_ids = np.full((B, T), self._pad_id, dtype=np.int64)
        labels = np.full((B, T), IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros((B, T), dtype=np.int64)
        document_ids = np.zeros((B, T), dtype=np.int64)
        for place, row in enumerate(self._window_rows((index * self._place.world_size + self._place.rank) * B, B)):
            start = document = 0
            for prefix, examples in self._rows[row]:
                end = start + prefix
                input_ids[place, start:end] = self._examples[examples[0]][0][:prefix]
                positions[place, start:end] = np.arange(prefix)
                document_ids[place, start:end] = SHARED_PREFIX
                for example in examples:
                    ids, targets = self._examples[example]
                    start, end = end, end + len(ids) - prefix
                    input_ids[place, start:end] = ids[prefix:]
                    labels[place, start:end] = targets[prefix:]
                    positions[place, start:end] = np.arange(prefix, len(ids))
                    document_ids[place, start:end] = document
                    document += 1
                start = end
            positions[place, start:] = np.arange(T - start)
            document_ids[place, start:] = document
        columns = (input_ids, labels, positions, document_ids)
        return PackedWindows(*(torch.from_numpy(column).to(self._place.device) for column in columns))

    def labels_until(self, batches: int) -> int:
        """Return the number of labels in the first `batches` global batches."""
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
    """Return the indices of the examples in descending order of length, and in random order if lengths are equal."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    shuffled = generator.permutation(len(lengths_E))
    return shuffled[np.argsort(-lengths_E[shuffled], kind="stable")]


def _best_fit(lengths_E: NDArray[np.int64], order: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Pack examples, in the given order, into rows whose total length is at most `capacity`."""
    rows: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # Maps a number of free tokens to all rows with this number of free tokens.
    spaces: list[int] = []  # Sorted keys of `by_space`.
    for example in order.tolist():
        length = int(lengths_E[example])
        place = bisect_left(spaces, length)
        if place == len(spaces):
            row, space = len(rows), capacity
            rows.append([])
        else:
            space = spaces[place]
            row = by_space[space].pop()
            if not by_space[space]:
                del by_space[space]
                spaces.pop(place)
        rows[row].append(example)
        left = space - length
        if left not in by_space:
            by_space[left] = []
            insort(spaces, left)
        by_space[left].append(row)
    return [np.array(row) for row in rows]
