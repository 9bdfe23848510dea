"""Knowledge distillation from one or several teachers (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.model import Transformer
from groundup.model.loss import SoftLabels
from groundup.train.objectives.next_token import NextToken, PackedBatch


class Distillation(NextToken):
    """Cross-entropy with a mixture of the labels and of the mean probabilities of the teachers, in nats.

    The mean of several models that were trained on the same text is better than each of them, and one model can learn
    most of it (Kim et al. 2025, arXiv:2509.14786). The mixture determines the gradient. The reported loss is the
    negative log-likelihood of the labels, so it is comparable with that of `NextToken`.

    Args:
        teachers: Frozen models in eval mode, with the vocabulary of the student and on its device.
        weight: Weight of the teachers; the labels have the weight 1 - `weight`.
        z_loss: Coefficient of the z-loss, see `NextToken`.
    """

    def __init__(self, teachers: Sequence[Transformer], weight: float, z_loss: float = 0.0) -> None:
        super().__init__(z_loss)
        self._teachers = teachers
        self._weight = weight

    def soft_labels(self, batch: PackedBatch) -> SoftLabels:
        """Return the hidden states of the teachers for a batch. The loss computes their probabilities in chunks."""
        inputs = (batch.input_ids, batch.positions, batch.document_ids)
        return SoftLabels([teacher.teacher_states(*inputs) for teacher in self._teachers], self._weight)
