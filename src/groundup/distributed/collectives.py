"""Tensors of which each rank holds some rows, as FSDP2 cuts them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from groundup.distributed.ranks import Ranks, Rows


def is_sharded(tensor: Tensor) -> bool:
    """Whether each rank holds some rows of it."""
    return isinstance(tensor, DTensor)


def rows_of(tensor: Tensor, ranks: Ranks) -> Rows:
    """What this rank holds of a tensor, as one that shares its memory; all, unless it is sharded."""
    if not isinstance(tensor, DTensor):
        return Rows(tensor, 0, len(tensor) if tensor.ndim else 1)
    total = len(tensor)
    size = -(-total // ranks.size)  # as torch.chunk cuts: the last ranks may have fewer, or none
    return Rows(tensor.to_local(), min(ranks.rank * size, total), total)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sync_gradients(model: nn.Module, last: bool) -> None:
    """Say before a micro-batch whether it is the last of its step, after which gradients must be whole.

    FSDP adds up after each one: keeping them apart would need the memory that it is chosen to save.
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = last
