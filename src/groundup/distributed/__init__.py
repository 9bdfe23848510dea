"""Distributed training with several processes: ranks, DDP, FSDP and the sharded optimizer."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.distributed.collectives import full_tensor, is_sharded, rows_of, sync_gradients
    from groundup.distributed.parallel_model import (
        Mode,
        ParallelModel,
        checkpoint_activations,
        choose_mode,
        parallelize,
        rank_memory,
        unwrapped,
    )
    from groundup.distributed.ranks import Ranks, join_ranks
    from groundup.distributed.sharded_optimizer import ShardedOptimizer

__all__ = [
    "Mode",
    "ParallelModel",
    "Ranks",
    "ShardedOptimizer",
    "checkpoint_activations",
    "choose_mode",
    "full_tensor",
    "is_sharded",
    "join_ranks",
    "parallelize",
    "rank_memory",
    "rows_of",
    "sync_gradients",
    "unwrapped",
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
        "join_ranks": "ranks",
        "parallelize": "parallel_model",
        "rank_memory": "parallel_model",
        "rows_of": "collectives",
        "sync_gradients": "collectives",
        "unwrapped": "parallel_model",
        "full_tensor": "collectives",
    },
)
