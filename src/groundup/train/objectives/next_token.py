"""Next-token prediction, the objective of pretraining and instruction tuning.

Shape letters: B: batch size, T: sequence length.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.model.loss import SoftLabels
from groundup.train.objectives.base import Metrics


class PackedBatch(Protocol):
    """Interface of batches with packed documents; see `groundup.data.PackedWindows`. All tensors have shape (B, T)."""

    @property
    def input_ids(self) -> Tensor:
        """Token ids."""
        ...

    @property
    def labels(self) -> Tensor:
        """Next token of each token, or `IGNORE_INDEX` for tokens that do not contribute to the loss."""
        ...

    @property
    def positions(self) -> Tensor:
        """Position of each token in its document."""
        ...

    @property
    def document_ids(self) -> Tensor:
        """Index of the document that contains the token, counted from the start of the row."""
        ...


class NextToken:
    """Negative log-likelihood of the labels in nats. The normalizer is the number of labels.

    Args:
        z_loss: Coefficient of the z-loss, which is added to the gradient but not to the reported loss; see
            `groundup.model.loss.summed_nll`.
    """

    def __init__(self, z_loss: float = 0.0) -> None:
        self._z_loss = z_loss

    def prepare(self, batch: PackedBatch, model: nn.Module) -> PackedBatch:
        """Return the batch unchanged."""
        return batch

    def normalizer(self, batch: PackedBatch) -> Tensor:
        """Return the number of labels that are not `IGNORE_INDEX`, as a scalar."""
        return (batch.labels != IGNORE_INDEX).sum()

    def soft_labels(self, batch: PackedBatch) -> SoftLabels | None:
        """Return the probabilities of teachers, from which the model learns in addition to the labels, or None."""
        return None

    def __call__(self, model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss as a scalar, and the metrics."""
        nll = model(
            batch.input_ids,
            positions_BT=batch.positions,
            document_ids_BT=batch.document_ids,
            labels_BT=batch.labels,
            z_loss=self._z_loss,
            soft_labels=self.soft_labels(batch),
        )
        return nll, {"loss": (nll.detach(), self.normalizer(batch))}
