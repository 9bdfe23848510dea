"""Wraps a model from outside: dtype, threads, allocation, compilation; DDP and FSDP."""

from groundup.parallel.machine import (
    ComputeDtype,
    Machine,
    computing_in,
    eagerly,
    fastest_dtype,
    keep_for_reading,
    measure_machine,
    place,
)
from groundup.parallel.memory import memory_bytes
from groundup.parallel.sharded import is_sharded, rows_of, whole
from groundup.parallel.spread import Mode, Spread, checkpoint_activations, choose_mode, sync_gradients
from groundup.parallel.spread_optimizer import SpreadOptimizer

__all__ = [
    "ComputeDtype",
    "Machine",
    "Mode",
    "Spread",
    "SpreadOptimizer",
    "checkpoint_activations",
    "choose_mode",
    "computing_in",
    "eagerly",
    "fastest_dtype",
    "is_sharded",
    "keep_for_reading",
    "measure_machine",
    "memory_bytes",
    "place",
    "rows_of",
    "sync_gradients",
    "whole",
]
