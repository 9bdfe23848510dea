"""How a machine computes a model: dtype, threads, memory allocation, compilation and C++ kernels."""

from groundup.kernels.machine import (
    ComputeDtype,
    Machine,
    computing_in,
    eagerly,
    fastest_dtype,
    keep_for_reading,
    measure_machine,
    place,
)
from groundup.kernels.memory import memory_bytes

__all__ = [
    "ComputeDtype",
    "Machine",
    "computing_in",
    "eagerly",
    "fastest_dtype",
    "keep_for_reading",
    "measure_machine",
    "memory_bytes",
    "place",
]
