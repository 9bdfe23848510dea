"""Objectives of `groundup finetune classify`: losses of a classifier.

Shape letters: B batch, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.data.label_batches import LabeledBatch
from groundup.train.objectives.base import Metrics

_MAX_POSITIVE_WEIGHT = 100.0  # with larger weights, single texts of a rare label would dominate the steps


def balancing_weights(labels: Sequence[int], n_labels: int) -> list[float]:
    """Return class weights inversely proportional to the label counts, with mean 1 over the texts."""
    counts = np.bincount(np.asarray(labels), minlength=n_labels)
    return [len(labels) / (n_labels * count) if count else 0.0 for count in counts.tolist()]


def positive_weights(labels: Sequence[Sequence[float]]) -> list[float]:
    """Return the `pos_weight` of each label: the ratio of texts without it to texts with it, from 1 to 100."""
    having = np.asarray(labels).sum(0)
    return np.clip((len(labels) - having) / np.maximum(having, 1), 1, _MAX_POSITIVE_WEIGHT).tolist()


class Classification:
    """Summed cross-entropy of the labels, in nats; normalized by the number of texts.

    Args:
        label_smoothing: Probability mass that is spread over all labels (arXiv:1512.00567).
        weights: (C,), class weights; default: 1.
    """

    def __init__(self, label_smoothing: float = 0.0, weights: Sequence[float] | None = None) -> None:
        self._label_smoothing = label_smoothing
        self._weights = None if weights is None else torch.tensor(weights)

    def prepare(self, batch: LabeledBatch, model: nn.Module) -> LabeledBatch:
        """Return the batch."""
        return batch

    def normalizer(self, batch: LabeledBatch) -> Tensor:
        """Return the number of texts, ()."""
        return (batch.labels != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: LabeledBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss, (), and the metrics."""
        logits_BC = model(batch.input_ids, batch.last)
        loss = self.summed_loss(logits_BC, batch.labels)
        right, count = (logits_BC.argmax(-1) == batch.labels).sum(), self.normalizer(batch)
        return loss, {"loss": (loss.detach(), count), "accuracy": (right, count)}

    def summed_loss(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats, ()."""
        weights = None if self._weights is None else self._weights.to(logits_BC)
        return F.cross_entropy(
            logits_BC, labels_B, weight=weights, reduction="sum", label_smoothing=self._label_smoothing
        )

    def text_weights(self, labels_B: Tensor) -> Tensor:
        """Return the weight of each text, (B,): the weight of its label."""
        return torch.ones(len(labels_B)) if self._weights is None else self._weights[labels_B]


class MultiLabelClassification:
    """Summed binary cross-entropy of all labels, in nats; normalized by the number of texts.

    Args:
        weights: (C,), `pos_weight` of each label; default: 1.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self._weights = None if weights is None else torch.tensor(weights)

    def prepare(self, batch: LabeledBatch, model: nn.Module) -> LabeledBatch:
        """Return the batch."""
        return batch

    def normalizer(self, batch: LabeledBatch) -> Tensor:
        """Return the number of texts, ()."""
        return (batch.labels[:, 0] != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: LabeledBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss, (), and the metrics."""
        known = batch.labels[:, 0] != IGNORE_INDEX
        logits_BC, labels_BC = model(batch.input_ids, batch.last)[known], batch.labels[known]
        loss = self.summed_loss(logits_BC, labels_BC)
        right, count = ((logits_BC > 0) == labels_BC.bool()).all(-1).sum(), len(labels_BC)
        return loss, {"loss": (loss.detach(), count), "accuracy": (right, count)}

    def summed_loss(self, logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
        """Return the summed binary cross-entropy of all labels in nats, ()."""
        weights = None if self._weights is None else self._weights.to(logits_BC)
        return F.binary_cross_entropy_with_logits(
            logits_BC, labels_BC.to(logits_BC.dtype), pos_weight=weights, reduction="sum"
        )

    def text_weights(self, labels_BC: Tensor) -> Tensor:
        """Return the weight of each text, (B,): 1, because class weights apply to (text, label) pairs."""
        return torch.ones(len(labels_BC))


LabelObjective = Classification | MultiLabelClassification


def label_objective(
    targets: Any, n_labels: int, *, multi_label: bool, label_smoothing: float, balance: bool
) -> LabelObjective:
    """Return the objective for texts with one label each, or with several.

    Args:
        targets: Labels of the training texts, see `groundup.data.label_batches.label_targets`.
        n_labels: Number of labels.
        multi_label: Whether a text may have several labels.
        label_smoothing: For one label per text only.
        balance: Whether to weight labels inversely to their counts.
    """
    if multi_label:
        return MultiLabelClassification(positive_weights(targets) if balance else None)
    return Classification(label_smoothing, balancing_weights(targets, n_labels) if balance else None)
