"""Predict the label of a text: the objective of `groundup finetune classify`, and its batches.

Shape letters: B batch, T sequence, E texts, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.model import SequenceClassifier
from groundup.tokenizer import Tokenizer
from groundup.train.objectives.base import Metrics

_LENGTH_MULTIPLE = 16  # padded lengths: few shapes, and even ones, as fast attention wants them
_BATCH_TOKENS = 16_384  # padded tokens that get labels at a time
_SORTED_BATCHES = 32  # texts are sorted by length within this many batches: little padding, enough chance

_LIKELY = 0.5  # a text gets the labels that are at least so likely, where it may have several

_MOST_WEIGHT = 100.0  # of a rare label: beyond it, single texts would drive the steps
# Of 1,000 texts five epochs, of 10,000 two: see `usual_epochs`.
_ONCE, _FEWEST_EPOCHS, _MOST_EPOCHS = 30_000, 2, 10


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Texts with their labels.

    Attributes:
        input_ids: (B, T), right-padded.
        last: (B,), the index of each text's last token.
        labels: (B,), the index of each text's label; IGNORE_INDEX for a text that only fills up a share. Where a text
            may have several labels: (B, C), 1.0 for each that it has.
    """

    input_ids: Tensor
    last: Tensor
    labels: Tensor


def encode(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
    """The ids of each text, as transformers' `tokenizer(text, truncation=True)` gives them; see `Tokenizer.whole`.

    Returns:
        The ids, and how many texts lost their end to fit into `longest` tokens.
    """
    ids = tokenizer.encode_batch(texts)
    cut = sum(len(tokenizer.whole(text)) > longest for text in ids)
    return [tokenizer.whole(text, longest) for text in ids], cut


def fitting(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> list[int]:
    """The places of those texts that `encode` does not cut."""
    ids = tokenizer.encode_batch(texts)
    return [place for place, text in enumerate(ids) if len(tokenizer.whole(text)) <= longest]


def balancing_weights(labels: Sequence[int], n_labels: int) -> list[float]:
    """Of each label, what a text of it counts, so that all labels count alike and a text counts 1 on average."""
    counts = np.bincount(np.asarray(labels), minlength=n_labels)
    return [len(labels) / (n_labels * count) if count else 0.0 for count in counts.tolist()]


def positive_weights(labels: Sequence[Sequence[float]]) -> list[float]:
    """Of each label, what a text that has it counts, so that those that have it count as much as all others."""
    having = np.asarray(labels).sum(0)
    return np.clip((len(labels) - having) / np.maximum(having, 1), 1, _MOST_WEIGHT).tolist()


def usual_epochs(n_texts: int) -> int:
    """How often to see each of `n_texts` texts where nobody says it: often where they are few.

    As their root: four times the texts are seen half as often, and teach twice as long.
    """
    return min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, round((_ONCE / n_texts) ** 0.5)))


def pad(texts: Sequence[Sequence[int]], pad_id: int, longest: int) -> tuple[Tensor, Tensor]:
    """Token ids as one right-padded tensor (B, T), and the index of each text's last token (B,).

    Args:
        longest: T is rounded up, but not beyond this.
    """
    lengths = [len(text) for text in texts]
    ids = torch.full((len(texts), _width(max(lengths), longest)), pad_id, dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.as_tensor(text)
    return ids, torch.tensor(lengths) - 1


@torch.no_grad()
def predict(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Probabilities (E, C) of each text's labels.

    Args:
        texts: token ids, none empty, none longer than the context.
        advance: called with the number of texts after each batch.
    """
    probabilities = np.zeros((len(texts), len(model.score.weight)))
    for chosen, ids_BT, last_B in _padded(model, texts, pad_id):
        probabilities[chosen] = model.probabilities(model(ids_BT, last_B).double()).cpu().numpy()
        advance(len(chosen))
    return probabilities


def likely(probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which labels a text gets that may have several, in the shape of the probabilities (E, C) or (C,)."""
    return probabilities >= _LIKELY


@torch.no_grad()
def last_states(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """What the head scores, (E, D): the hidden state of each text's last token; arguments as `predict`."""
    states = np.zeros((len(texts), model.config.dim), dtype=np.float32)
    for chosen, ids_BT, last_B in _padded(model, texts, pad_id):
        states[chosen] = model.last_state(ids_BT, last_B).float().cpu().numpy()
        advance(len(chosen))
    return states


def _padded(
    model: SequenceClassifier, texts: Sequence[Sequence[int]], pad_id: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batches of texts of like length: their places, ids and lasts, where the model is."""
    device = model.score.weight.device
    for chosen in _batches_of_like_length([len(text) for text in texts]):
        ids_BT, last_B = pad([texts[i] for i in chosen], pad_id, model.config.context_length)
        yield chosen, ids_BT.to(device), last_B.to(device)


def _batches_of_like_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[place] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _width(length: int, longest: int) -> int:
    """To what a batch is padded whose longest text has so many tokens."""
    return min(longest, -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)


class Classification:
    """Summed cross-entropy of the labels, in nats; normalized by the number of texts.

    Args:
        label_smoothing: share of the probability that is spread over all labels (arXiv:1512.00567).
        weights: (C,), what a text of each label counts; default: 1.
    """

    def __init__(self, label_smoothing: float = 0.0, weights: Sequence[float] | None = None) -> None:
        self._label_smoothing = label_smoothing
        self._weights = None if weights is None else torch.tensor(weights)

    def prepare(self, batch: LabelledBatch) -> LabelledBatch:
        return batch

    def normalizer(self, batch: LabelledBatch) -> Tensor:
        return (batch.labels != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: LabelledBatch) -> tuple[Tensor, Metrics]:
        logits_BC = model(batch.input_ids, batch.last)
        loss = self.summed_loss(logits_BC, batch.labels)
        right, count = (logits_BC.argmax(-1) == batch.labels).sum(), self.normalizer(batch)
        return loss, {"loss": (loss.detach(), count), "accuracy": (right, count)}

    def summed_loss(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Summed cross-entropy in nats, ()."""
        weights = None if self._weights is None else self._weights.to(logits_BC)
        return F.cross_entropy(
            logits_BC, labels_B, weight=weights, reduction="sum", label_smoothing=self._label_smoothing
        )

    def text_weights(self, labels_B: Tensor) -> Tensor:
        """Weight of each text, (B,): that of its label."""
        return torch.ones(len(labels_B)) if self._weights is None else self._weights[labels_B]


class SeveralLabels:
    """Summed binary cross-entropy of all labels, in nats; normalized by the number of texts.

    Args:
        weights: (C,), what a text that has the label counts in it; default: 1, as one that has it not.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self._weights = None if weights is None else torch.tensor(weights)

    def prepare(self, batch: LabelledBatch) -> LabelledBatch:
        return batch

    def normalizer(self, batch: LabelledBatch) -> Tensor:
        return (batch.labels[:, 0] != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: LabelledBatch) -> tuple[Tensor, Metrics]:
        known = batch.labels[:, 0] != IGNORE_INDEX
        logits_BC, labels_BC = model(batch.input_ids, batch.last)[known], batch.labels[known]
        loss = self.summed_loss(logits_BC, labels_BC)
        right, count = ((logits_BC > 0) == labels_BC.bool()).all(-1).sum(), len(labels_BC)
        return loss, {"loss": (loss.detach(), count), "accuracy": (right, count)}

    def summed_loss(self, logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
        """Summed binary cross-entropy of all labels in nats, ()."""
        weights = None if self._weights is None else self._weights.to(logits_BC)
        return F.binary_cross_entropy_with_logits(
            logits_BC, labels_BC.to(logits_BC.dtype), pos_weight=weights, reduction="sum"
        )

    def text_weights(self, labels_BC: Tensor) -> Tensor:
        """Weight of each text, (B,): 1, because weights are those of (text, label) pairs."""
        return torch.ones(len(labels_BC))


class LabelledBatches:
    """Batches of texts of like length, in a new order each epoch; batch i is a pure function of (seed, i).

    Every text comes once an epoch; the last batch of an epoch may be smaller.

    Args:
        texts: token ids of each text, none empty.
        batch_size: B, texts in a batch.
        pad_id: fills up shorter texts.
        longest: no batch is wider than this.
        seed: of the order.
        rank, world_size: which share of each batch this process takes, each `world_size`-th text.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        labels: Sequence[int] | Sequence[Sequence[float]],
        *,
        batch_size: int,
        pad_id: int,
        longest: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self._rank = rank
        self._world_size = world_size
        self._texts = texts
        self._labels = torch.tensor(labels)
        self._batch_size = batch_size
        self._pad_id = pad_id
        self._longest = longest
        self._seed = seed
        self._device = device
        self._lengths = np.array([len(text) for text in texts])
        self.per_epoch = -(-len(texts) // batch_size)
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    def batch(self, index: int) -> LabelledBatch:
        """This rank's share of the index-th batch since step 0, counted on across epochs."""
        epoch, number = divmod(index, self.per_epoch)
        whole = self._epoch(epoch)[number]
        chosen = whole[self._rank :: self._world_size]
        labels = self._labels[torch.from_numpy(chosen)]
        if not len(chosen):  # fewer texts than ranks: who has none goes along with one that does not count
            chosen, labels = whole[:1], torch.full_like(self._labels[:1], IGNORE_INDEX)
        ids, last = pad([self._texts[i] for i in chosen], self._pad_id, self._longest)
        return LabelledBatch(*(tensor.to(self._device) for tensor in (ids, last, labels)))

    def texts_in(self, steps: int) -> int:
        """How many texts the first `steps` batches hold, repeats counted."""
        epochs, rest = divmod(steps, self.per_epoch)
        return epochs * len(self._texts) + sum(map(len, self._epoch(epochs)[:rest]))

    @property
    def largest(self) -> int:
        """Index of the first epoch's batch that has the most tokens, filled-up ones included."""
        sizes = self._sizes()
        return sizes.index(max(sizes))

    @property
    def usual(self) -> int:
        """Index of the first epoch's batch whose tokens are nearest to their mean."""
        sizes = self._sizes()
        mean = sum(sizes) / len(sizes)
        return min(range(len(sizes)), key=lambda number: abs(sizes[number] - mean))

    def _sizes(self) -> list[int]:
        """Tokens of each batch of the first epoch."""
        return [len(batch) * _width(self._lengths[batch].max(), self._longest) for batch in self._epoch(0)]

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
