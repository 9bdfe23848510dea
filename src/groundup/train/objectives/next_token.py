"""Next-token prediction: the objective of pretraining and instruction tuning.

Shape letters: B batch, T sequence.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.train.objectives.base import Metrics


class PackedBatch(Protocol):
    """Rows of packed documents, (B, T) each; see `groundup.data.PackedWindows`."""

    @property
    def input_ids(self) -> Tensor:
        """Token ids."""
        ...

    @property
    def labels(self) -> Tensor:
        """Next token of each; `IGNORE_INDEX` if it is not predicted."""
        ...

    @property
    def positions(self) -> Tensor:
        """Position in the document."""
        ...

    @property
    def document_ids(self) -> Tensor:
        """Index of the document in its row."""
        ...


class NextToken:
    """Summed negative log-likelihood of the labels, in nats; normalized by the number of labels.

    Args:
        z_loss: Coefficient of the z-loss in the gradient; see `groundup.model.loss.summed_nll`.
    """

    def __init__(self, z_loss: float = 0.0) -> None:
        self._z_loss = z_loss

    def prepare(self, batch: PackedBatch, model: nn.Module) -> PackedBatch:
        """Return the batch."""
        return batch

    def normalizer(self, batch: PackedBatch) -> Tensor:
        """Return the number of labels, ()."""
        return (batch.labels != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return the summed loss, (), and the metrics."""
        nll = model(
            batch.input_ids,
            positions_BT=batch.positions,
            document_ids_BT=batch.document_ids,
            labels_BT=batch.labels,
            z_loss=self._z_loss,
        )
        return nll, {"loss": (nll.detach(), self.normalizer(batch))}
