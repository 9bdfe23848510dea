"""Tensors that FSDP2 shards by rows."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from groundup.distributed.ranks import Ranks, Rows


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is sharded."""
    return isinstance(tensor, DTensor)


def rows_of(tensor: Tensor, ranks: Ranks) -> Rows:
    """Return this rank's rows of a tensor, as a view; all rows if the tensor is not sharded."""
    if not isinstance(tensor, DTensor):
        return Rows(tensor, 0, len(tensor) if tensor.ndim else 1)
    total = len(tensor)
    size = -(-total // ranks.size)  # as in torch.chunk: the last ranks may have fewer rows
    return Rows(tensor.to_local(), min(ranks.rank * size, total), total)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sync_gradients(model: nn.Module, last: bool) -> None:
    """Synchronize gradients only after the last micro-batch of a step; call it before each micro-batch.

    FSDP reduces gradients after each micro-batch, because unsharded gradients would need the memory that it saves.

    Args:
        model: Wrapped model.
        last: Whether this is the last micro-batch of the step.
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = last
