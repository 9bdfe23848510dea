"""The bf16 copies of fp32 weights, which the matmuls of training use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class RoundedWeights:
    """Copies of weights in bf16, which are kept between the micro-batches of a step and between steps.

    A copy is used while the weight's version counter and address do not change. The copies of untracked weights are
    not kept: in distributed training, weights change in ways that PyTorch's version counter does not show.
    """

    def __init__(self) -> None:
        self._copies = WeakTensorKeyDictionary()

    def track(self, weights: Iterable[Tensor]) -> None:
        """Keep the copies of these weights.

        All changes of the weights must be in-place operations that change the version counter, or new data.

        Args:
            weights: fp32 weights.
        """
        for weight in weights:
            self._copies[weight] = None

    def of(self, weight: Tensor) -> Tensor:
        """Return a weight in bf16. The result is constant until the weight changes."""
        if weight not in self._copies:
            return weight.detach().to(torch.bfloat16)
        copy = self.to_write(weight)
        if copy is None:
            copy = weight.detach().to(torch.bfloat16)
            if not torch.is_inference_mode_enabled():  # autograd cannot save tensors that were created in this mode
                self._copies[weight] = (*_identity(weight), copy)
        return copy

    def to_write(self, weight: Tensor) -> Tensor | None:
        """Return the kept copy of a weight, which an optimizer overwrites if it changes the weight.

        The result is None if there is no copy, or if the weight changed after the copy was made.
        """
        kept = self._copies.get(weight)
        return None if kept is None or kept[:2] != _identity(weight) else kept[2]

    def written(self, weights: Sequence[Tensor], copies: Sequence[Tensor | None]) -> None:
        """Record that a kernel changed weights and their copies, which are None if there is no copy."""
        # PyTorch then rejects a backward pass through the old values.
        torch.autograd.graph.increment_version([*weights, *(copy for copy in copies if copy is not None)])
        for weight, copy in zip(weights, copies, strict=True):
            if copy is not None:
                self._copies[weight] = (*_identity(weight), copy)


def _identity(weight: Tensor) -> tuple[int, int]:
    return weight._version, weight.data_ptr()
