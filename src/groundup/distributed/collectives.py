"""Functions for tensors that FSDP2 shards along the first dimension."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from groundup.distributed.ranks import Ranks, Rows


def is_sharded(tensor: Tensor) -> bool:
    """Return whether FSDP has sharded a tensor."""
    return isinstance(tensor, DTensor)


def rows_of(tensor: Tensor, ranks: Ranks) -> Rows:
    """Return a view of the rows of a tensor that this rank stores. If the tensor is not sharded, these are all rows."""
    if not isinstance(tensor, DTensor):
        return Rows(tensor, 0, len(tensor) if tensor.ndim else 1)
    total = len(tensor)
    size = -(-total // ranks.size)  # like torch.chunk, so the last ranks may have fewer rows
    return Rows(tensor.to_local(), min(ranks.rank * size, total), total)


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, and return the full tensor on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sync_gradients(model: nn.Module, last: bool) -> None:
    """Set whether DDP synchronizes gradients in the next backward pass. Call this function before each micro-batch.

    DDP synchronizes gradients only in the last micro-batch of a step. FSDP always reduces gradients after each
    micro-batch, because unsharded gradients would take the memory that FSDP saves.

    Args:
        model: Model that is wrapped with DDP or FSDP.
        last: Whether this is the last micro-batch of the step.
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = last
