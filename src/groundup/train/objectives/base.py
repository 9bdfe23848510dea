"""What the training loop asks of an objective. The loop owns time; the objective owns the loss and its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")

Metrics = Mapping[str, tuple[Tensor | float, Tensor | float]]
"""By name a sum and a count, so that micro-batches and ranks add up. Tensors, (), stay on their device: the loop reads
them once a step, when a GPU has been given all of the step's work."""


class Objective(Protocol[BatchT]):
    """A loss that is a sum, and the number by which the loop divides it.

    The loss of a step is the sum over all its micro-batches (and ranks) divided by the *global* normalizer, so that
    micro-batch splits, packing and ranks cannot change the gradient.
    """

    def prepare(self, batch: BatchT, model: nn.Module) -> BatchT:
        """Return the batch that the loss is computed on; supervised objectives return the one given.

        Called before the first backward pass of a step, once per micro-batch, in the same order on every rank. An
        on-policy objective samples here, by forward passes of `model` without gradients, or through
        `groundup.distributed.unwrapped` by what generates with a `Transformer`:

            with unwrapped(model) as policy:
                completions = complete_all(policy, tokenizer, requests)

        With FSDP a forward pass gathers weights from all ranks, so that each rank must do the same number of them.
        Where it depends on what is sampled, as with stop tokens: `unwrapped(model, gather_layers=True)`.

        Args:
            model: as it is called for the loss, in training mode.
        """
        ...

    def normalizer(self, batch: BatchT) -> Tensor:
        """This batch's share of the divisor, ()."""
        ...

    def __call__(self, model: nn.Module, batch: BatchT) -> tuple[Tensor, Metrics]:
        """The summed loss, (), with its gradient, and what to report."""
        ...
