"""Exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from groundup.distributed import rows_of
from groundup.distributed.ranks import Ranks
from groundup.train.fit import StepReport

_SINGLE_RANK = Ranks()


class WeightAverage:
    """Callback that keeps an EMA of the trained weights in fp32, whose horizon is a fraction of the steps so far.

    After step t, the average moves to the current weights by the weight 1 / max(1, fraction · t). This is the power
    function average of Karras et al. 2024 (arXiv:2312.02696, section 3.1). Step s then has a weight proportional to
    about s^(1 / fraction - 1), so the mean age of the averaged weights is fraction / (1 + fraction) of the run. A fixed
    decay rate would average too few steps of a long run, and would still contain the random initial weights of a short
    one.

    Averaging and the decay of the learning rate both reduce the noise of the weights. While the learning rate decays to
    0, the weights still improve, so a fraction that is large relative to the decay gives weights that lag behind.

    Each rank averages the rows that it stores, so the class works with DDP and FSDP.

    Args:
        model: Model without the DDP or FSDP wrapper, whose parameters may be sharded.
        fraction: Horizon of the average as a fraction of the steps so far.
        ranks: Ranks of the run.

    Attributes:
        tensors: Name of each trained parameter -> its average, which is sharded like the parameter.
    """

    def __init__(self, model: nn.Module, fraction: float, ranks: Ranks = _SINGLE_RANK) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._fraction = fraction
        self._ranks = ranks
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def after_step(self, report: StepReport) -> None:
        """Move the average to the weights after a step."""
        # `_foreach_lerp_` updates all tensors in one pass over the memory.
        torch._foreach_lerp_(self._averages(), self._weights(), 1 / max(1.0, self._fraction * report.step))

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Context manager in which the model has the averaged weights, e.g. to evaluate them."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def move_to_model(self) -> None:
        """Replace the weights of the model by the average."""
        torch._foreach_copy_(self._weights(), self._averages())

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, average in zip(self._weights(), self._averages(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _weights(self) -> list[Tensor]:
        # FSDP may copy the shards of a parameter in its first forward pass, so views of them are not kept.
        return [rows_of(parameter.detach(), self._ranks).tensor for parameter in self._parameters.values()]

    def _averages(self) -> list[Tensor]:
        return [rows_of(average, self._ranks).tensor for average in self.tensors.values()]
