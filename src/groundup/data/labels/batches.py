"""Batches of labeled texts for training a classifier.

Shape letters: B: batch size, T: sequence length, C: number of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.core.types import IGNORE_INDEX
from groundup.data.labels.reading import Labeled
from groundup.data.tokens.loader import SINGLE_PROCESS, BatchPlacement

# Padded lengths are multiples of this number, because it limits the number of different shapes and fast attention
# kernels require it.
_LENGTH_MULTIPLE = 16
# Shuffled texts are sorted by length within groups of this many batches, which reduces padding. Batches stay random.
_SORTED_BATCHES = 32

Targets = Sequence[int] | Sequence[Sequence[float]]
"""Targets of texts: the index of each text's label.

For multi-label data, each item is a row with one number per label, which is 1.0 if the text has the label.
"""


@dataclass(frozen=True, slots=True)
class LabeledBatch:
    """A batch of texts with their labels.

    Attributes:
        input_ids: Right-padded token ids, (B, T).
        last: Index of the last token of each text, (B,).
        labels: Index of the label of each text, or IGNORE_INDEX for a text that does not contribute to the loss, (B,).
            For multi-label data, a matrix (B, C) that is 1.0 for each label of a text.
    """

    input_ids: Tensor
    last: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Padding:
    """Padding of the texts of a batch to a common length.

    Attributes:
        token_id: Id of the padding token.
        max_tokens: Maximum length. Padded lengths are multiples of 16 but at most `max_tokens`.
    """

    token_id: int
    max_tokens: int

    def length(self, n_tokens: int) -> int:
        """Return the padded length T of a batch whose longest text has `n_tokens` tokens."""
        return min(self.max_tokens, -(-n_tokens // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)

    def pad(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the token ids as a right-padded tensor (B, T), and the index of the last token of each text (B,)."""
        lengths = [len(text) for text in texts]
        ids_BT = torch.full((len(texts), self.length(max(lengths))), self.token_id, dtype=torch.int64)
        for row, text in zip(ids_BT, texts, strict=True):
            row[: len(text)] = torch.as_tensor(text)
        return ids_BT, torch.tensor(lengths) - 1


def label_targets(examples: Labeled, labels: Sequence[str]) -> Targets:
    """Return the label of each text as an index into `labels`.

    For multi-label data, each item is a row with one number per label, which is 1.0 if the text has the label.
    """
    if examples.multi_label:
        return [[float(label in has) for label in labels] for has in examples.sets]
    index = {label: number for number, label in enumerate(labels)}
    return [index[label] for label in examples.labels]


class LabeledBatches:
    """Batches of texts of similar length, in a new random order for each epoch.

    The batch with index i depends only on the seed and on i. Every text occurs once per epoch. If the number of texts
    is not a multiple of `batch_size`, one batch of each epoch is smaller.

    Args:
        texts: Token ids of each text. Texts must not be empty.
        labels: Labels of the texts; see `label_targets`.
        batch_size: B, the number of texts per global batch.
        padding: Padding of a batch.
        seed: Random seed of the order of texts.
        place: Rank of this process and number of processes. Each process takes every `world_size`-th text of a batch,
            starting at text `rank`.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        labels: Targets,
        *,
        batch_size: int,
        padding: Padding,
        seed: int,
        place: BatchPlacement = SINGLE_PROCESS,
    ) -> None:
        self._place = place
        self._texts = texts
        self._labels = torch.tensor(labels)
        self._batch_size = batch_size
        self._padding = padding
        self._seed = seed
        self._lengths = np.array([len(text) for text in texts])
        self.per_epoch = -(-len(texts) // batch_size)
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    def batch(self, index: int) -> LabeledBatch:
        """Return this rank's part of the global batch `index`. Batches are numbered across epochs."""
        epoch, number = divmod(index, self.per_epoch)
        whole = self._epoch(epoch)[number]
        chosen = whole[self._place.rank :: self._place.world_size]
        labels = self._labels[torch.from_numpy(chosen)]
        if not len(chosen):  # If a batch has fewer texts than ranks, this rank gets a text that is ignored in the loss.
            chosen, labels = whole[:1], torch.full_like(self._labels[:1], IGNORE_INDEX)
        ids, last = self._padding.pad([self._texts[i] for i in chosen])
        return LabeledBatch(*(tensor.to(self._place.device) for tensor in (ids, last, labels)))

    def texts_in(self, steps: int) -> int:
        """Return the number of texts in the first `steps` batches. A text counts again in each epoch."""
        epochs, rest = divmod(steps, self.per_epoch)
        return epochs * len(self._texts) + sum(map(len, self._epoch(epochs)[:rest]))

    @property
    def longest(self) -> int:
        """Number of tokens in the longest text."""
        return int(self._lengths.max())

    @property
    def largest(self) -> int:
        """Index of the batch with the most tokens in the first epoch, including padding."""
        sizes = self._sizes()
        return sizes.index(max(sizes))

    @property
    def typical(self) -> int:
        """Index of the batch in the first epoch whose number of tokens, including padding, is closest to the mean."""
        sizes = self._sizes()
        mean = sum(sizes) / len(sizes)
        return min(range(len(sizes)), key=lambda number: abs(sizes[number] - mean))

    def _sizes(self) -> list[int]:
        """Return the number of tokens, including padding, of each batch in the first epoch."""
        return [len(batch) * self._padding.length(self._lengths[batch].max()) for batch in self._epoch(0)]

    def _make_epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(self._texts))
        pool = self._batch_size * _SORTED_BATCHES
        batches = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[i : i + self._batch_size] for i in range(0, len(part), self._batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]
