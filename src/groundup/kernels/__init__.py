"""Execution settings of a machine: device, dtype, threads, memory allocation, compilation and C++ kernels."""

from groundup.kernels.machine import (
    ComputeDtype,
    Machine,
    cast_for_inference,
    eager_mode,
    fastest_dtype,
    measure_machine,
    prepare_model,
    use_compute_dtype,
    with_kernels,
)
from groundup.kernels.memory import memory_bytes

__all__ = [
    "ComputeDtype",
    "Machine",
    "cast_for_inference",
    "eager_mode",
    "fastest_dtype",
    "measure_machine",
    "memory_bytes",
    "prepare_model",
    "use_compute_dtype",
    "with_kernels",
]
