"""Training on several processes: ranks, DDP and FSDP, the sharded optimizer."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.distributed.collectives import is_sharded, rows_of, sync_gradients, whole
    from groundup.distributed.parallel_model import (
        Mode,
        ParallelModel,
        checkpoint_activations,
        choose_mode,
        parallelize,
        rank_memory,
        unwrapped,
    )
    from groundup.distributed.ranks import Ranks, joined
    from groundup.distributed.sharded_optimizer import ShardedOptimizer

__all__ = [
    "Mode",
    "ParallelModel",
    "Ranks",
    "ShardedOptimizer",
    "checkpoint_activations",
    "choose_mode",
    "is_sharded",
    "joined",
    "parallelize",
    "rank_memory",
    "rows_of",
    "sync_gradients",
    "unwrapped",
    "whole",
]

__getattr__ = exports(
    __name__,
    {
        "Mode": "parallel_model",
        "ParallelModel": "parallel_model",
        "Ranks": "ranks",
        "ShardedOptimizer": "sharded_optimizer",
        "checkpoint_activations": "parallel_model",
        "choose_mode": "parallel_model",
        "is_sharded": "collectives",
        "joined": "ranks",
        "parallelize": "parallel_model",
        "rank_memory": "parallel_model",
        "rows_of": "collectives",
        "sync_gradients": "collectives",
        "unwrapped": "parallel_model",
        "whole": "collectives",
    },
)
