"""Knowledge distillation from one or several teachers (Hinton et al. 2015, arXiv:1503.02531).

Shape letters: B: batch size, T: sequence length, R: number of tokens (B times T), V: vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.model import Transformer
from groundup.train.objectives.base import Metrics
from groundup.train.objectives.next_token import NextToken, PackedBatch


class Distillation(NextToken):
    """Cross-entropy with a mixture of the labels and of the mean probabilities of the teachers, in nats.

    The mean of several models that were trained on the same text is better than each of them, and one model can learn
    most of it (Kim et al. 2025, arXiv:2509.14786). The metric `loss` is the
    negative log-likelihood of the labels, so it is comparable with that of `NextToken`.

    Args:
        teachers: Frozen models in eval mode, with the vocabulary of the student and on its device.
        weight: Weight of the teachers; the labels have the weight 1 - `weight`.
    """

    def __init__(self, teachers: Sequence[Transformer], weight: float) -> None:
        super().__init__()
        self._teachers = teachers
        self._weight = weight

    def __call__(self, model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss as a scalar, and the metrics."""
        labels_R = batch.labels.flatten()
        logits_RV = _logits(model, batch)
        loss = F.cross_entropy(logits_RV, self._targets(batch, labels_R), reduction="sum")
        nll = F.cross_entropy(logits_RV.detach(), labels_R, ignore_index=IGNORE_INDEX, reduction="sum")
        return loss, {"loss": (nll, self.normalizer(batch))}

    @torch.no_grad()
    def _targets(self, batch: PackedBatch, labels_R: Tensor) -> Tensor:
        """Return the probabilities to learn, of shape (R, V). They are 0 at tokens without a label."""
        target_RV = _logits(self._teachers[0], batch).softmax(-1)
        for teacher in self._teachers[1:]:
            target_RV += _logits(teacher, batch).softmax(-1)
        target_RV *= self._weight / len(self._teachers)
        labeled_R = labels_R != IGNORE_INDEX
        target_RV[labeled_R, labels_R[labeled_R]] += 1 - self._weight
        return target_RV.mul_(labeled_R[:, None])


def _logits(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Return the logits of the next tokens, of shape (R, V)."""
    logits_BTV: Tensor = model(batch.input_ids, positions_BT=batch.positions, document_ids_BT=batch.document_ids)
    return logits_BTV.flatten(0, 1)
