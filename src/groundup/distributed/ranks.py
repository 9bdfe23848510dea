"""Ranks: the processes that train a model together, started by `torchrun`; a single process is rank 0 of 1."""

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

_COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # collectives run several times per step; a longer wait means a lost rank
_BROADCAST_TIMEOUT = timedelta(days=30)  # the first rank may be busy, e.g. evaluating
_ERROR_DELAY = 3.0  # seconds; torchrun ends the other ranks before


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a tensor.

    Attributes:
        tensor: The rows.
        first: Index of the first row in the full tensor.
        total: Number of rows of the full tensor.
    """

    tensor: Tensor
    first: int
    total: int


class Ranks:
    """This process in the process group, and its collective operations.

    Every rank calls each method, in the same order.

    Attributes:
        rank: Rank, from 0.
        size: World size.
        on_this_machine: Local world size.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None, local_size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.local_size = local_size
        self._store = store
        self._broadcasts = 0

    @property
    def first(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    @property
    def launched(self) -> bool:
        """Whether a launcher started this process; it may be the only one."""
        return self._store is not None

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, bitwise equal on every rank (all-reduce)."""
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
        """Return the value of the first rank, a JSON value, on every rank."""
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
        """Wait until all ranks reach this point."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def require_one_process(command: str) -> None:
    """Reject a command that a launcher started in several processes.

    Args:
        command: Name of the command.

    Raises:
        ConfigError: The world size is above 1.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"groundup {command} was started in {os.environ['WORLD_SIZE']} processes, but runs in one",
            fix="Start it without torchrun, which is for groundup pretrain and groundup finetune.",
        )


def same_gpu_initializer() -> Callable[[], None]:
    """Return an initializer for threads that selects the GPU of the current thread.

    torch selects a GPU per thread, and a new thread starts with GPU 0 on every rank.
    """
    import torch

    # If CUDA is not initialized, no GPU is selected; a query would initialize it, at about 100 MB of GPU memory.
    index = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def set_device() -> None:
        if index is not None:
            torch.cuda.set_device(index)

    return set_device


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the process group of `torchrun` in this block; without a launcher, use a single rank.

    An error on one rank ends it, and the launcher then ends the other ranks. The rank that failed prints its error
    first.

    Yields:
        The ranks.

    Raises:
        TrainingError: Another rank was lost.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:  # set by every launcher of torch
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
    except RuntimeError as error:  # DistError is a RuntimeError; gloo raises RuntimeError itself
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        time.sleep(_ERROR_DELAY)
        raise TrainingError(
            f"rank {rank} lost the other ranks: {str(error).splitlines()[0]}",
            fix="Find the rank that failed first: above, or in the report of torchrun below.",
        ) from error
    except GroundupError:
        if rank:  # usually all ranks fail with the same error, and one message is enough
            time.sleep(_ERROR_DELAY)
        raise
