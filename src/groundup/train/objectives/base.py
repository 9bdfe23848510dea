"""Interface of objectives. An objective defines the loss that training minimizes, and the type of its batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")

Metrics = Mapping[str, tuple[Tensor | float, Tensor | float]]
"""Maps the name of each metric to a sum and a count, which the training loop adds up over micro-batches and ranks.

Sums and counts may be scalar tensors on the GPU. The training loop copies sums and counts to the CPU once per step,
after all GPU kernels of the step are queued.
"""


class Objective(Protocol[BatchT]):
    """A loss that is summed over a batch, and its normalizer, i.e. the divisor of the summed loss.

    The loss of a step is the sum over all of its micro-batches and ranks, divided by the sum of their normalizers. The
    gradient therefore does not depend on the number of micro-batches or ranks, or on how examples are packed.
    """

    def prepare(self, batch: BatchT, model: nn.Module) -> BatchT:
        """Return the batch for which the loss is computed. Supervised objectives return `batch` unchanged.

        The training loop calls `prepare` once per micro-batch, before the first backward pass of a step, in the same
        order on every rank. On-policy objectives generate their samples in `prepare`, for example:

            with unwrapped(model) as policy:
                completions = complete_all(policy, tokenizer, requests)

        The functions are in `groundup.distributed` and `groundup.inference`. Each completion contains the
        log-probabilities of its tokens under the policy that sampled them. On a CPU, this policy has weights that are
        rounded to bf16, unless `dtype="float32"` is given. Rounding amplifies tiny differences between weights, so use
        fp32 if the samples must be the same on any number of ranks.

        With FSDP, each forward pass gathers weights from all ranks, so every rank must run the same number of forward
        passes. This number depends on the lengths of the prompts and of the samples. If they are not the same on all
        ranks, use `unwrapped(model, gather_layers=True)`.

        Args:
            batch: Micro-batch of this rank.
            model: Model with its DDP or FSDP wrapper, in training mode.
        """
        ...

    def normalizer(self, batch: BatchT) -> Tensor:
        """Return the normalizer of this batch as a scalar, e.g. its number of labels."""
        ...

    def __call__(self, model: nn.Module, batch: BatchT) -> tuple[Tensor, Metrics]:
        """Return the summed loss as a scalar that supports `backward`, and the metrics."""
        ...
