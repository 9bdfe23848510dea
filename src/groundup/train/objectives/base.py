"""Interface of objectives: the training loop owns the steps, the objective owns the loss and its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")

Metrics = Mapping[str, tuple[Tensor | float, Tensor | float]]
"""Name -> (sum, count), which are added up over micro-batches and ranks.

Tensors, (), stay on their device; the loop reads them once per step, after all work of the step is queued on the GPU.
"""


class Objective(Protocol[BatchT]):
    """A summed loss, and the number by which the loop divides it.

    The loss of a step is the sum over all of its micro-batches and ranks, divided by the *global* normalizer. The split
    into micro-batches, packing and the number of ranks do not change the gradient.
    """

    def prepare(self, batch: BatchT, model: nn.Module) -> BatchT:
        """Return the batch that the loss is computed on; supervised objectives return the given one.

        Called before the first backward pass of a step, once per micro-batch, in the same order on every rank. An
        on-policy objective samples here: by forward passes of `model` without gradients, or with
        `groundup.distributed.unwrapped` and functions that generate with a `Transformer`:

            with unwrapped(model) as policy:
                completions = complete_all(policy, tokenizer, requests)

        With FSDP a forward pass gathers weights from all ranks, so each rank must do the same number of passes. If the
        number depends on the samples, as with stop tokens, use `unwrapped(model, gather_layers=True)`.

        Args:
            batch: Micro-batch of this rank.
            model: Model as called for the loss, in training mode.
        """
        ...

    def normalizer(self, batch: BatchT) -> Tensor:
        """Return this batch's part of the divisor, ()."""
        ...

    def __call__(self, model: nn.Module, batch: BatchT) -> tuple[Tensor, Metrics]:
        """Return the summed loss, (), with its gradient, and the metrics."""
        ...
