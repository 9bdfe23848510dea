"""Objectives of `groundup finetune classify`, which are the losses of a classifier.

Shape letters: B: batch size, C: number of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.data.labels.batches import LabeledBatch
from groundup.train.objectives.base import Metrics

# With larger weights, a single text with a rare label would dominate the gradient of a step.
_MAX_POSITIVE_WEIGHT = 100.0


def balancing_weights(labels: Sequence[int], n_labels: int) -> list[float]:
    """Return class weights that are inversely proportional to the label counts.

    The mean weight over all texts is 1. A label that does not occur gets the weight 0.
    """
    counts = np.bincount(np.asarray(labels), minlength=n_labels)
    return [len(labels) / (n_labels * count) if count else 0.0 for count in counts.tolist()]


def positive_weights(labels: Sequence[Sequence[float]]) -> list[float]:
    """Return the `pos_weight` of each label for binary cross-entropy.

    `pos_weight` is the number of texts without the label divided by the number of texts with the label, clipped to the
    range from 1 to 100.
    """
    having = np.asarray(labels).sum(0)
    return np.clip((len(labels) - having) / np.maximum(having, 1), 1, _MAX_POSITIVE_WEIGHT).tolist()


class Classification:
    """Cross-entropy loss for texts with one label each, in nats. The normalizer is the number of texts.

    Args:
        label_smoothing: Probability mass that is spread evenly over all labels (arXiv:1512.00567).
        weights: Class weights, one per label (default: 1 for all labels).
    """

    def __init__(self, label_smoothing: float = 0.0, weights: Sequence[float] | None = None) -> None:
        self._label_smoothing = label_smoothing
        self._weights = None if weights is None else torch.tensor(weights)

    def prepare(self, batch: LabeledBatch, model: nn.Module) -> LabeledBatch:
        """Return the batch unchanged."""
        return batch

    def normalizer(self, batch: LabeledBatch) -> Tensor:
        """Return the number of texts as a scalar."""
        return (batch.labels != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: LabeledBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss as a scalar, and the metrics."""
        logits_BC = model(batch.input_ids, batch.last)
        loss = self.summed_loss(logits_BC, batch.labels)
        right, count = (logits_BC.argmax(-1) == batch.labels).sum(), self.normalizer(batch)
        return loss, {"loss": (loss.detach(), count), "accuracy": (right, count)}

    def summed_loss(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Return the cross-entropy in nats, summed over all texts, as a scalar."""
        weights = None if self._weights is None else self._weights.to(logits_BC)
        return F.cross_entropy(
            logits_BC, labels_B, weight=weights, reduction="sum", label_smoothing=self._label_smoothing
        )

    def text_weights(self, labels_B: Tensor) -> Tensor:
        """Return the class weight of the label of each text, with shape (B,)."""
        return torch.ones(len(labels_B)) if self._weights is None else self._weights[labels_B]


class MultiLabelClassification:
    """Binary cross-entropy loss for texts that may have several labels, in nats, summed over the labels.

    The normalizer is the number of texts.

    Args:
        weights: `pos_weight` of each label (default: 1 for all labels).
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self._weights = None if weights is None else torch.tensor(weights)

    def prepare(self, batch: LabeledBatch, model: nn.Module) -> LabeledBatch:
        """Return the batch unchanged."""
        return batch

    def normalizer(self, batch: LabeledBatch) -> Tensor:
        """Return the number of texts as a scalar."""
        return (batch.labels[:, 0] != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: LabeledBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss as a scalar, and the metrics."""
        known = batch.labels[:, 0] != IGNORE_INDEX
        logits_BC, labels_BC = model(batch.input_ids, batch.last)[known], batch.labels[known]
        loss = self.summed_loss(logits_BC, labels_BC)
        right, count = ((logits_BC > 0) == labels_BC.bool()).all(-1).sum(), len(labels_BC)
        return loss, {"loss": (loss.detach(), count), "accuracy": (right, count)}

    def summed_loss(self, logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
        """Return the binary cross-entropy in nats, summed over all texts and labels, as a scalar."""
        weights = None if self._weights is None else self._weights.to(logits_BC)
        return F.binary_cross_entropy_with_logits(
            logits_BC, labels_BC.to(logits_BC.dtype), pos_weight=weights, reduction="sum"
        )

    def text_weights(self, labels_BC: Tensor) -> Tensor:
        """Return a weight of 1 for each text, with shape (B,), because `pos_weight` is not a weight of whole texts."""
        return torch.ones(len(labels_BC))


LabelObjective = Classification | MultiLabelClassification


def label_objective(
    targets: Any, n_labels: int, *, multi_label: bool, label_smoothing: float, balance: bool
) -> LabelObjective:
    """Return the objective for training a classifier.

    Args:
        targets: Labels of the training texts, see `groundup.data.label_batches.label_targets`.
        n_labels: Number of labels.
        multi_label: Whether a text may have several labels.
        label_smoothing: Label smoothing, which is ignored if `multi_label` is True.
        balance: Whether rare labels get larger weights.
    """
    if multi_label:
        return MultiLabelClassification(positive_weights(targets) if balance else None)
    return Classification(label_smoothing, balancing_weights(targets, n_labels) if balance else None)
