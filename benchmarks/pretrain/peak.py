"""Measurement of the peak throughput of the CPU's matmul instructions, which `peak_share` is relative to.

The matmul throughput, which MFU is relative to, depends on PyTorch's matmul. The peak depends only on the CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-pthread")


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak throughput of all threads.

    Attributes:
        instructions: "AMX bf16", "AVX-512 bf16", or without bf16 instructions "AVX-512 fp32" or "AVX2 fp32".
        registers: FLOP/s with operands in registers.
        l1: FLOP/s with operands that are loaded from the L1 cache.
    """

    instructions: str
    registers: float
    l1: float


@dataclass(frozen=True, slots=True)
class PeakProbe:
    """A compiled program that measures the peak.

    Attributes:
        program: Path of the program.
        threads: Number of threads.
    """

    program: Path
    threads: int

    @classmethod
    def build(cls, directory: Path, threads: int | None) -> PeakProbe | None:
        """Compile the program. The result is None without a C++ compiler or without AVX2.

        Args:
            directory: Directory for the program.
            threads: Number of threads. By default, PyTorch uses one thread per core.
        """
        compiler = shutil.which(os.environ.get("CXX") or "c++")
        program = directory / "peak"
        if compiler is None:
            return None
        done = subprocess.run([compiler, *_FLAGS, str(_SOURCE), "-o", str(program)], capture_output=True)
        probe = cls(program, threads or torch.get_num_threads())
        return probe if done.returncode == 0 and probe.measure() else None

    def measure(self) -> Peak | None:
        """Measure the peak for 0.3 s of CPU time. The result is None if the CPU does not have the instructions."""
        done = subprocess.run([str(self.program), str(self.threads)], capture_output=True, text=True)
        if done.returncode:
            return None
        record = json.loads(done.stdout)
        return Peak(record["instructions"], record["registers"], record["l1"])
