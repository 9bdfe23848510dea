"""The processes that train one model together, as `torchrun` starts them; a process alone is the first of one."""

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

_COLLECTIVE = timedelta(minutes=30)  # ranks meet several times a step: who waits longer waits for a dead one
_TOLD = timedelta(days=30)  # the first may take its time, e.g. to score a model
_LET_THE_FIRST_SPEAK = 3.0  # seconds; torchrun ends the others well before


@dataclass(frozen=True, slots=True)
class Rows:
    """A part of a tensor: the rows from `first` on of `total`."""

    tensor: Tensor
    first: int
    total: int


class Ranks:
    """Which process this is, and how it speaks with the others. Alone, nothing needs to be said.

    Every rank calls each method, in the same order.

    Attributes:
        rank: from 0.
        size: how many there are.
        on_this_machine: how many of them are on the machine of this one.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None, on_this_machine: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.on_this_machine = on_this_machine
        self._store = store
        self._broadcasts = 0

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.rank == 0

    @property
    def grouped(self) -> bool:
        """Whether a launcher started this process; it may be the only one."""
        return self._store is not None

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, of one shape and dtype: the same bits on every rank."""
        if self.size > 1:
            import torch.distributed as dist

            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def min(self, value: int) -> int:
        """The smallest of all ranks' values."""
        if self.size > 1:
            import torch
            import torch.distributed as dist

            found = torch.tensor(value)
            dist.all_reduce(found, dist.ReduceOp.MIN)
            return int(found)
        return value

    def broadcast_object(self, value: Any) -> Any:
        """Return the `value` of the first rank, a JSON value, on every rank."""
        if self._store is None:
            return value
        key = f"broadcast-{self._broadcasts}"
        self._broadcasts += 1
        if self.first:
            self._store.set(key, json.dumps(value))
            return value
        self._store.wait([key], _TOLD)
        return json.loads(self._store.get(key))

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def require_one_process(command: str) -> None:
    """Refuse to be one of many.

    Raises:
        ConfigError: a launcher started more than this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"groundup {command}, {os.environ['WORLD_SIZE']} times at once",
            rule="many ranks share the training of a model, and nothing else",
            fix="Start this command alone; torchrun is for: groundup pretrain, and groundup finetune.",
        )


def on_this_gpu() -> Callable[[], None]:
    """What a new thread calls first, to compute on the GPU of the thread that asks here.

    torch keeps the choice of a GPU for each thread, and a new one begins with GPU 0, whatever the rank.
    """
    import torch

    # Where CUDA sleeps nobody has chosen a GPU; to ask would wake it, at some 100 MB of its memory.
    index = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def settle() -> None:
        if index is not None:
            torch.cuda.set_device(index)

    return settle


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of which this process is one; alone, unless `torchrun` (or a launcher like it) started it.

    An error on one rank ends it, and the launcher then ends the others; the one whose fault it was speaks first.

    Raises:
        TrainingError: another rank was lost.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:  # what every launcher of torch's sets
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
        timeout=_COLLECTIVE,
        device_id=device,
    )
    try:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        yield Ranks(rank, size, PrefixStore("groundup", store), here)
        dist.destroy_process_group()
    except RuntimeError as error:  # DistError is one, too; gloo raises it bare
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        time.sleep(_LET_THE_FIRST_SPEAK)
        raise TrainingError(
            f"rank {rank}: {str(error).splitlines()[0]}",
            rule="all ranks live as long as one of them works",
            fix="Look for the rank that ended first: above, or in torchrun's report below.",
        ) from error
    except GroundupError:
        if rank:  # most mistakes are made by all ranks alike, and one message is enough
            time.sleep(_LET_THE_FIRST_SPEAK)
        raise
