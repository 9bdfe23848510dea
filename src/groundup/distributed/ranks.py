"""Ranks, which are the processes of distributed training. `torchrun` starts them.

A process that `torchrun` did not start has rank 0 and world size 1.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from groundup.core.errors import ConfigError, GroundupError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

# Collectives run several times per step. If one takes longer than this, a rank has been lost.
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
# Other ranks wait for a broadcast while rank 0 is busy with long tasks, such as an evaluation.
_BROADCAST_TIMEOUT = timedelta(days=30)
# Seconds that other ranks than rank 0 wait before they print an error. torchrun usually ends these ranks earlier.
_ERROR_DELAY = 3.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a larger tensor.

    Attributes:
        tensor: The rows.
        first: Index of the first of these rows in the full tensor.
        total: Number of rows of the full tensor.
    """

    tensor: Tensor
    first: int
    total: int


class Ranks:
    """The rank of this process, and collective operations over all ranks.

    All ranks must call the methods in the same order.

    Attributes:
        rank: Rank of this process, from 0 to `size - 1`.
        size: World size, which is the number of all ranks.
        local_size: Local world size, which is the number of ranks on this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None, local_size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.local_size = local_size
        self._store = store
        self._broadcasts = 0

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and prints messages."""
        return self.rank == 0

    @property
    def launched(self) -> bool:
        """Whether a launcher such as torchrun started this process. The world size may still be 1."""
        return self._store is not None

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks (all-reduce). The result is bitwise equal on all ranks."""
        if self.size > 1:
            import torch.distributed as dist

            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def min(self, value: int) -> int:
        """Return the minimum of a value over all ranks."""
        if self.size > 1:
            import torch
            import torch.distributed as dist

            found = torch.tensor(value)
            dist.all_reduce(found, dist.ReduceOp.MIN)
            return int(found)
        return value

    def broadcast_object(self, value: Any) -> Any:
        """Return the value that rank 0 passed, on all ranks. The value must be a JSON value."""
        if self._store is None:
            return value
        key = f"broadcast-{self._broadcasts}"
        self._broadcasts += 1
        if self.first:
            self._store.set(key, json.dumps(value))
            return value
        self._store.wait([key], _BROADCAST_TIMEOUT)
        return json.loads(self._store.get(key))

    def barrier(self) -> None:
        """Wait until all ranks have called this method."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def require_one_process(command: str) -> None:
    """Raise an error if a launcher started several processes of a command that does not support it.

    Args:
        command: Name of the command.

    Raises:
        ConfigError: The world size is greater than 1.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"groundup {command} was started in {os.environ['WORLD_SIZE']} processes, but runs in one process",
            fix="Start the command without torchrun. Only groundup pretrain and groundup finetune support torchrun.",
        )


def same_gpu_initializer() -> Callable[[], None]:
    """Return a function that new threads call to select the same GPU as the current thread.

    In torch, each thread has a current GPU. Without this function, a new thread would use GPU 0 on all ranks.
    """
    import torch

    # If CUDA is not initialized, no GPU is selected. Asking for the current GPU would then initialize CUDA, which
    # takes about 100 MB of GPU memory.
    index = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def set_device() -> None:
        if index is not None:
            torch.cuda.set_device(index)

    return set_device


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Context manager that joins the process group of a launcher such as `torchrun`, and leaves it at the end.

    If a launcher did not start this process, the world size is 1. If one rank fails, its process prints the error and
    ends. The launcher then ends the other ranks.

    Yields:
        The ranks.

    Raises:
        TrainingError: The connection to another rank was lost.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:  # every launcher of torch sets these variables
        yield Ranks()
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device else "gloo",
        store=PrefixStore("collectives", store),
        rank=rank,
        world_size=size,
        timeout=_COLLECTIVE_TIMEOUT,
        device_id=device,
    )
    try:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        yield Ranks(rank, size, PrefixStore("groundup", store), here)
        dist.destroy_process_group()
    except RuntimeError as error:  # DistError is a subclass; gloo raises RuntimeError itself
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        time.sleep(_ERROR_DELAY)
        raise TrainingError(
            f"rank {rank} lost the connection to the other ranks: {str(error).splitlines()[0]}",
            fix="Find the rank that failed first in the messages above, or in the report of torchrun below.",
        ) from error
    except GroundupError:
        if rank:  # usually all ranks fail with the same error, so that one message is enough
            time.sleep(_ERROR_DELAY)
        raise
